"""A host with a nervous thumb: commands about what the host saw."""

from __future__ import annotations

from trio.testing import MockClock

from engine.actors.commands import Host
from tests.actors.world import Client, settle, world


async def test_a_command_sent_twice_is_one_step(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        thumbs = [Client() for _ in range(3)]
        for thumb in thumbs:
            actor.send(Host(thumb, "h", "start", seen_number=0, seen_phase="lobby"))
        await settle()
        assert [thumb.errors for thumb in thumbs] == [[], ["illegal_move"], ["illegal_move"]]
        await w.do(actor, "close", seen_number=1, seen_phase="question")
        for thumb in thumbs:
            actor.send(Host(thumb, "h", "next", seen_number=1, seen_phase="reveal"))
        await settle()
        assert actor.session.number == 2
        await w.do(actor, "close")
        # It had been on its way for long: the same phase, and another question.
        late = await w.do(actor, "next", seen_number=1, seen_phase="reveal")
        assert late.errors == ["illegal_move"]
        assert (actor.session.number, len(host.got("question"))) == (2, 2)


async def test_a_command_that_the_clock_was_faster_than_changes_nothing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="auto", reveal_ms=1000)
        await w.do(actor, "start")
        mock_clock.jump(20.005)
        await settle()
        assert actor.session.phase == "reveal"
        mock_clock.jump(1)
        late = await w.do(actor, "next", seen_number=1, seen_phase="reveal")
        assert late.errors == ["illegal_move"]
        assert (actor.session.number, actor.session.phase) == (2, "question")


async def test_a_script_may_say_nothing_of_what_it_saw(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        for do in ("start", "close", "next"):
            assert (await w.do(actor, do)).errors == []
        assert actor.session.number == 2
