"""A process that was stopped, or whose machine slept, gives back the time in which nobody could answer."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.clock import BEAT_S, GAP_S, Gap, SessionClock
from engine.actors.commands import Answer, Flushed
from engine.actors.states import DOUBT_LOOK_MAX_S
from engine.domain.facts import ClockExtended
from engine.domain.session import Phase
from tests.actors.world import START_MS, Client, World, node, settle, world


async def question_open(w: World, **settings: object) -> tuple[SessionActor, Client]:
    actor = await w.session(early_close=False, **settings)
    ada = await w.join(actor, "Ada")
    await w.join(actor, "Ben")
    await w.do(actor, "start")
    w.nursery.start_soon(w.node.upkeep.keep_time)
    await settle()
    return actor, ada


async def awake_s(clock: MockClock, seconds: float) -> None:
    """The process runs for so long."""
    for _ in range(round(seconds / BEAT_S)):
        clock.jump(BEAT_S)
        await settle()


def extended(w: World, actor: SessionActor) -> list[int]:
    return [fact.by_ms for fact in w.store.facts(actor.session_id) if isinstance(fact, ClockExtended)]


async def test_a_question_gets_back_the_time_in_which_the_process_stood_still(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 15)
        mock_clock.jump(60)
        await settle()
        assert actor.session.question_open
        assert extended(w, actor) == [60_000]
        assert ada.last("state")["remaining_ms"] == 5_000
        await awake_s(mock_clock, 2)
        w.answer(actor, ada, 1)
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 17_000
        await awake_s(mock_clock, 3.25)
        assert actor.session.phase is Phase.REVEAL
        assert extended(w, actor) == [60_000]


async def test_what_is_read_first_after_it_is_judged_by_the_clock_that_goes_on(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 15)
        # Not a task has run in between: the transport is first.
        mock_clock.jump(60)
        w.answer(actor, ada, 1)
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 15_000


async def test_what_lay_in_the_kernel_meanwhile_is_judged_by_the_clock_that_goes_on(
    mock_clock: MockClock,
) -> None:
    """The time of the gap is given back, so nobody gains by having answered early in it."""
    async with world() as w:
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 15)
        mock_clock.jump(60)
        actor.send(Answer(ada, 1, "a", 1, 0, w.clock.now_ms(), held_ms=58_000))
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 15_000
        await awake_s(mock_clock, 2)
        ben = Client()
        actor.send(Answer(ben, 2, "b", 1, 0, w.clock.now_ms(), held_ms=500))
        await settle()
        assert ben.last("ack")["elapsed_ms"] == 16_500


async def test_what_lay_in_the_mailbox_is_not_rewarded_for_it(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 15)
        before = w.clock.now_ms()
        mock_clock.jump(60)
        actor.send(Answer(ada, 1, "a", 1, 0, before))
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 15_000
        late = Client()
        actor.send(Answer(late, 2, "b", 1, 0, w.clock.now_ms() + 5_000))
        await settle()
        assert late.last("ack")["elapsed_ms"] == 20_000


async def test_short_pauses_and_time_without_a_countdown_are_not_given_back(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        mock_clock.jump(GAP_S)
        await settle()
        await w.do(actor, "close")
        mock_clock.jump(60)
        await settle()
        await w.do(actor, "next")
        await awake_s(mock_clock, 1)
        assert extended(w, actor) == []


async def test_the_wait_for_a_flush_counts_only_while_the_process_runs(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        relay = await node(actor, prompt=False)
        await awake_s(mock_clock, 20.25)
        assert relay.got("flush")
        mock_clock.jump(60)
        await settle()
        assert actor.session.question_open, "what it has sent is still to be read"
        in_time = Client()
        actor.send(Answer(in_time, 1, "a", 1, 0, START_MS + 20_000))
        actor.send(Flushed(Client(), "other", relay.last("flush")["number"]))
        await settle()
        assert in_time.last("ack")["elapsed_ms"] == 20_000
        assert not actor.session.question_open


async def test_a_host_who_could_not_come_back_is_waited_for(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w, host_away_s=30)
        await w.do(actor, "close")
        await awake_s(mock_clock, 10)
        mock_clock.jump(60)
        await settle()
        assert (actor.session.phase, actor.session.number) == (Phase.REVEAL, 1)
        await awake_s(mock_clock, 20.25)
        assert (actor.session.phase, actor.session.number) == (Phase.QUESTION, 2)


async def test_recovery_finds_the_clock_as_it_went_on(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        await awake_s(mock_clock, 5)
        mock_clock.jump(60)
        await settle()
        facts = w.store.facts(actor.session_id)
        again = type(actor.session).recover(
            actor.session.quiz, actor.session.settings, actor.session.created_at, facts
        )
        assert again == actor.session


async def test_without_certainty_nothing_is_told_and_no_time_passes(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        doubt = False
        monkeypatch.setattr(w.registry, "_in_doubt", lambda: doubt)
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 19)
        doubt = True
        mock_clock.jump(60)
        told = len(ada.frames)
        asked = Client()
        actor.send(Answer(asked, 1, "a", 1, 0, w.clock.now_ms()))
        for _ in range(10):
            await awake_s(mock_clock, 0.25)
        assert (len(ada.frames), asked.frames) == (told, [])
        assert extended(w, actor) == []
        doubt = False
        await awake_s(mock_clock, DOUBT_LOOK_MAX_S)
        assert asked.last("ack")["elapsed_ms"] == 19_000


async def test_an_actor_that_lost_its_session_meanwhile_sends_nothing(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        doubt = False
        monkeypatch.setattr(w.registry, "_in_doubt", lambda: doubt)
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 19)
        doubt = True
        mock_clock.jump(60)
        await settle()
        told = len(ada.frames)
        actor.fenced()
        await awake_s(mock_clock, 0.25)
        assert ada.close_reason is not None
        assert len(ada.frames) == told


# -- the clock ---------------------------------------------------------------------------------------


async def test_time_that_passed_while_the_machine_slept_is_a_gap_too(mock_clock: MockClock) -> None:
    slept_s = 0.0
    clock = SessionClock(START_MS, machine_s=lambda: trio.current_time() + slept_s)
    clock.beat()
    mock_clock.jump(0.5)
    slept_s = 30.0
    mock_clock.jump(0.25)
    clock.beat()
    assert clock.now_ms() == START_MS + 30_750
    assert clock.gaps_after(0) == [Gap(START_MS + 750, 30_000)]
    assert clock.trio_time(START_MS + 31_750) == trio.current_time() + 1


async def test_a_clock_that_nobody_looks_after_has_no_gaps(mock_clock: MockClock) -> None:
    clock = SessionClock(START_MS)
    mock_clock.jump(100)
    assert clock.now_ms() == START_MS + 100_000
    assert clock.gaps_total == 0


async def test_a_clock_follows_the_wall_clock_and_never_runs_backwards(mock_clock: MockClock) -> None:
    set_by_ms = 0
    clock = SessionClock(lambda: START_MS + set_by_ms + round(trio.current_time() * 1000))
    set_by_ms = 5_000
    assert (clock.offset_ms(), clock.now_ms()) == (5_000, START_MS)
    clock.catch_up()
    assert (clock.offset_ms(), clock.now_ms()) == (0, START_MS + 5_000)
    assert clock.gaps_total == 0
    set_by_ms = 4_900
    told = [clock.now_ms()]
    for _ in range(100):
        clock.catch_up()
        told.append(clock.now_ms())
        mock_clock.jump(BEAT_S)
        told.append(clock.now_ms())
    assert told == sorted(told)
    assert abs(clock.offset_ms()) <= 10


async def test_no_clock_is_set_while_a_countdown_runs(mock_clock: MockClock) -> None:
    async with world() as w:
        set_by_ms = 0
        w.clock = SessionClock(lambda: START_MS + set_by_ms + round(trio.current_time() * 1000))
        w.start()
        actor, _ = await question_open(w)
        await awake_s(mock_clock, 5)
        set_by_ms = 10_000
        await awake_s(mock_clock, 5)
        assert actor.session.remaining_ms(w.clock.now_ms()) == 10_000
        assert w.clock.offset_ms() == 10_000
        await w.do(actor, "close")
        await awake_s(mock_clock, 0.25)
        assert w.clock.offset_ms() == 0
        await w.do(actor, "next")
        assert actor.session.remaining_ms(w.clock.now_ms()) == 20_000


async def test_a_session_that_is_given_away_has_its_time_back_by_then(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await question_open(w)
        await awake_s(mock_clock, 5)
        w.journal.auto = "off"
        w.answer(actor, ada, 1)
        await settle()
        actor.give_away()
        await settle()
        mock_clock.jump(60)
        w.journal.auto = "soon"
        w.journal.commit()
        await settle()
        assert actor.snapshot is not None
        assert extended(w, actor) == [60_000]
