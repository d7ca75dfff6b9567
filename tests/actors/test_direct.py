"""An answer to an actor that sleeps is handled where it comes; whatever is before it, or due, comes first.

What it costs is counted in steps of tasks, commits, frames and timers.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Detach
from engine.actors.delivery import fanout
from engine.actors.direct import DIRECT_MAX
from engine.actors.options import ActorOptions
from engine.domain.session import Phase
from tests.actors.world import GRACE_S, Client, World, settle, world
from tests.counting import Steps

TICK_S = 0.25


def of_the_actor(counted: Steps) -> int:
    return sum("Registry._run" in name for name in counted.names)


async def opened(
    w: World, clock: MockClock, players: int, **settings: object
) -> tuple[SessionActor, list[Client]]:
    """A question is open, and a screen was just told that player 1 has answered it."""
    actor = await w.session(early_close=False, **settings)
    clients = [await w.join(actor, f"P{n}") for n in range(1, players + 1)]
    await w.watch(actor)
    await w.do(actor, "start")
    clock.jump(2)
    w.answer(actor, clients[0], 1)
    await settle()
    for client in clients:
        client.frames.clear()
    return actor, clients


@pytest.mark.parametrize("board", ["at_close", "live"])
async def test_a_lone_answer_takes_no_step_of_the_actor(mock_clock: MockClock, board: str) -> None:
    async with world() as w:
        actor, clients = await opened(w, mock_clock, 3, board=board)
        wakes_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
        commits, steps = w.journal.commits_total, Steps()
        w.answer(actor, clients[1], 2)
        assert actor.session.answered == 2, "handled before anybody else had a turn"
        await settle()
        assert clients[1].kinds == ["ack"]
        assert of_the_actor(steps) == 0
        assert w.journal.commits_total - commits == 1
        assert [client.kinds for client in clients] == [[], ["ack"], []]
        sooner_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
        assert (wakes_s, sooner_s) == (pytest.approx(18 + GRACE_S), pytest.approx(TICK_S))
        w.answer(actor, clients[2], 3)
        await settle()
        assert of_the_actor(steps) == 0
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == sooner_s, "no other timer"
        mock_clock.jump(TICK_S)
        await settle()
        assert of_the_actor(steps) == 2, "it tells the news, and looks whether something has waited"
        steps.stop()


async def test_a_crowd_of_a_hundred_takes_two_steps_of_the_actor(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout.time, "perf_counter", lambda: 0.0)  # no slice is ever over
    async with world(ActorOptions(tick_ms=60_000, tick_max_ms=60_000)) as w:
        actor, clients = await opened(w, mock_clock, 101)
        w.journal.auto = "off"
        steps = Steps()
        for player, client in enumerate(clients[1:], 2):
            w.answer(actor, client, player)
        assert actor.session.answered == 1 + DIRECT_MAX
        await settle()
        assert actor.session.answered == 101
        assert of_the_actor(steps) == 1, "the rest is one batch"
        assert [len(appended.facts) for appended in w.journal.queue] == [1] * DIRECT_MAX + [100 - DIRECT_MAX]
        w.journal.commit()
        await settle()
        assert [client.kinds for client in clients[1:]] == [["ack"]] * 100
        assert of_the_actor(steps) == 2, "and another one sends the acks"
        steps.stop()


async def test_answers_in_a_row_wake_the_actor_now_and_then(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=60_000, tick_max_ms=60_000)) as w:
        actor, clients = await opened(w, mock_clock, 2 * DIRECT_MAX + 3)
        steps = Steps()
        for player, client in enumerate(clients[1:], 2):
            w.answer(actor, client, player)
            await settle()
        assert of_the_actor(steps) == 2, "every 17th"
        assert all(client.kinds == ["ack"] for client in clients[1:])
        steps.stop()


async def test_an_answer_is_not_handled_before_a_command_that_came_earlier(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, clients = await opened(w, mock_clock, 2)
        actor.send(Detach(clients[0]))
        w.answer(actor, clients[1], 2)
        assert actor.session.answered == 1
        await settle()
        assert actor.session.answered == 2
        assert clients[1].kinds[0] == "ack"


@pytest.mark.parametrize("wait", ["no room", "handing over", "fenced"])
async def test_an_answer_is_refused_or_waits_as_ever(mock_clock: MockClock, wait: str) -> None:
    async with world() as w:
        actor, clients = await opened(w, mock_clock, 2)
        w.journal.auto = "off"
        if wait == "no room":
            w.journal.facts_max = 0
        elif wait == "handing over":
            actor.give_away()
        else:
            actor.fenced()
        w.answer(actor, clients[1], 2)
        assert actor.session.answered == 1
        assert clients[1].errors == (["busy"] if wait == "no room" else [])
        await settle()
        if wait == "fenced":
            assert clients[1].close_reason is CloseReason.RESTARTING
        if wait == "handing over":
            assert actor.snapshot is not None
            assert [type(command) for command in actor.snapshot.commands] == [Answer]


async def test_an_answer_that_came_in_time_counts_while_the_deadline_is_seen_to(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor, clients = await opened(w, mock_clock, 4)
        mock_clock.jump(18)
        await settle()
        in_time = w.clock.now_ms()
        w.answer(actor, clients[1], 2)
        await settle()
        mock_clock.jump(GRACE_S / 2)
        w.answer(actor, clients[2], 3)
        mock_clock.jump(GRACE_S / 2)
        actor.send(Answer(clients[3], 4, "a", 1, 0, in_time))
        assert actor.session.answered == 3, "the deadline is seen to now, and the answer lies before it"
        await settle()
        assert all(client.got("ack") for client in clients[1:])
        assert clients[3].last("result")["correct"] is True


async def test_the_last_answer_closes_the_question_and_its_facts_are_written_in_order(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        clients = [await w.join(actor, name) for name in ("Ada", "Ben")]
        await w.do(actor, "start")
        mock_clock.jump(2)
        w.answer(actor, clients[0], 1)
        await settle()
        w.answer(actor, clients[1], 2)
        assert actor.session.phase is Phase.REVEAL
        actor.give_away()
        await settle()
        assert actor.snapshot is not None
        names = [type(fact).__name__ for fact in w.store.facts(actor.session_id)]
        assert names[-3:] == ["AnswerAccepted", "AnswerAccepted", "QuestionClosed"]
        assert all(client.got("ack") and client.got("reveal") for client in clients)


async def test_a_mistake_in_an_answer_is_the_crash_of_its_session_and_not_of_whoever_brings_it(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        actor, clients = await opened(w, mock_clock, 2)

        def broken(*_: object) -> None:
            raise ValueError("no such choice can be")

        monkeypatch.setattr(actor.session, "answer", broken)
        stranger = Client()
        w.answer(actor, stranger, 2)
        assert stranger.close_reason is None
        await settle()
        assert stranger.close_reason is CloseReason.RESTARTING
        assert [client.close_reason for client in clients] == [CloseReason.RESTARTING] * 2
        assert w.registry.statistics().crashes == 1


async def test_time_that_stood_still_is_given_back_before_an_answer_is_judged(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, clients = await opened(w, mock_clock, 2)
        w.clock.beat()
        mock_clock.jump(5)
        w.answer(actor, clients[1], 2)
        assert actor.session.answered == 1
        await settle()
        assert actor.session.answered == 2
        assert clients[1].kinds[0] == "state"
        assert clients[1].last("ack")["elapsed_ms"] == 2_000


async def test_an_answer_keeps_a_session_without_listeners_in_memory(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=30)) as w:
        actor, _ = await opened(w, mock_clock, 2)
        for client, _ in actor.live.audience.seated():
            actor.send(Detach(client))
        await settle()
        mock_clock.jump(17)
        w.answer(actor, Client(), 2)
        assert actor.session.answered == 2
        mock_clock.jump(29)
        await settle()
        assert w.registry.here(actor.session_id) is actor
        mock_clock.jump(1)
        await settle()
        assert w.registry.here(actor.session_id) is None
