"""What is kept of answers that took long, were refused as `busy`, or failed: on a virtual clock, and with the
real path of facts to a database that hangs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.clock import SessionClock
from engine.actors.commands import Answer, Join, Rejoin
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from engine.actors.slow_answers import (
    KEPT_MAX,
    KEPT_MS,
    SLOW_MS,
    TURNED_DOWN_PER_S,
    BatchTimes,
    SlowAnswer,
    SlowAnswers,
)
from engine.domain.facts import Fact
from engine.ports import Commit, CommitListener
from engine.trace import Trace
from tests.actors.world import START_MS, Client, World, settle, world
from tests.fakes import MemoryJournal
from tests.storage.test_path import Rig


class HangingJournal(MemoryJournal):
    """Facts go the way of `WriteBehind`, to a database that a test lets hang."""

    def __init__(self, memory: MemoryJournal, rig: Rig) -> None:
        super().__init__(memory.store)
        self._rig = rig

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        self._rig.queue.append(session_id, epoch, facts, listener)


class Awaited(Client):
    def __init__(self) -> None:
        super().__init__()
        self.acked = trio.Event()

    def push(self, frame: Frame) -> None:
        super().push(frame)
        if frame.kind == "ack":
            self.acked.set()


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[World, Rig, SessionActor, list[Client]]]:
    """Three players are asked, and their facts go to a database that answers at once so far."""
    rig = Rig()
    async with world() as w, rig.running():
        w.journal = HangingJournal(w.journal, rig)
        w.start()
        actor = await w.session(early_close=False)
        clients = [await w.join(actor, f"P{n}") for n in (1, 2, 3)]
        await w.do(actor, "start")
        yield w, rig, actor, clients


async def test_a_database_that_hangs_is_seen_in_the_timeline(mock_clock: MockClock) -> None:
    async with asked() as (w, rig, actor, clients):
        w.answer(actor, clients[0], 1)
        await settle()
        assert clients[0].got("ack")
        assert w.registry.slow_answers.slowest() == [], "an answer in time leaves nothing"

        at = w.clock.now_ms()
        rig.server.set("hangs")
        w.answer(actor, clients[1], 2)
        await settle()
        mock_clock.jump(0.3)
        w.answer(actor, clients[2], 3)
        await settle()
        mock_clock.jump(0.4)
        rig.server.set("open")
        await settle()
        assert [len(client.got("ack")) for client in clients] == [1, 1, 1]
        latency = w.registry.statistics().ack_latency
        counts = {bound_s: n for bound_s, n in zip(latency.bounds_s, latency.counts, strict=True) if n}
        assert (counts, latency.sum_s) == ({0.001: 1, 0.5: 1, 1.0: 1}, 1.1)
        first, second = w.registry.slow_answers.slowest()
        assert first == SlowAnswer(
            at=at,
            session_id=actor.session_id,
            player=2,
            question=1,
            outcome="accepted",
            taken_ms=0,
            decided_ms=0,
            queued_ms=0,
            commit_started_ms=0,
            commit_ended_ms=700,
            acked_ms=700,
        )
        assert (second.player, second.queued_ms, second.commit_started_ms, second.acked_ms) == (
            3,
            0,
            400,
            400,
        )
        assert w.registry.slow_answers.failed() == []


async def test_a_spooled_answer_says_so(mock_clock: MockClock) -> None:
    async with asked() as (w, rig, actor, _clients):
        rig.server.set("away")
        client = Awaited()
        w.answer(actor, client, 1)
        await settle()
        for step_s in (*[0.1] * 10, 0.001):
            mock_clock.jump(step_s)
            await settle()
        await client.acked.wait()  # a thread writes the spool
        (slow,) = w.registry.slow_answers.slowest()
        assert slow.spooled
        assert slow.commit_started_ms == 0
        assert slow.total_ms == slow.commit_ended_ms == slow.acked_ms == 1_001


async def test_a_wait_in_the_mailbox_is_told_from_a_wait_for_the_commit(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        at = w.clock.now_ms() - SLOW_MS  # so long it has lain before the actor
        actor.send(Answer(ada, 1, "a", 1, 0, at))
        await settle()
        actor.send(Answer(ada, 1, "a", 1, 0, at))  # the ack of an answer that stands waits for nothing
        await settle()
        again, slow = w.registry.slow_answers.slowest()
        assert (slow.taken_ms, slow.queued_ms, slow.commit_ended_ms) == (SLOW_MS, SLOW_MS, SLOW_MS)
        assert (again.taken_ms, again.queued_ms, again.acked_ms) == (SLOW_MS, None, SLOW_MS)


async def test_refused_as_busy_and_failed_answers_are_kept(mock_clock: MockClock) -> None:
    async with world(ActorOptions(mailbox_max=1)) as w:
        actor = await w.session(early_close=False)
        ada, ben, eve = [await w.join(actor, name) for name in ("Ada", "Ben", "Eve")]
        await w.do(actor, "start")
        w.journal.facts_max = 0
        w.answer(actor, ada, 1)
        await settle()
        w.journal.facts_max = 50_000
        actor.wake()
        w.answer(actor, ada, 1)
        w.answer(actor, ben, 2)  # the mailbox is full
        await settle()
        w.journal.auto = "off"
        w.answer(actor, eve, 3)
        await settle()
        mock_clock.jump(2)
        w.journal.fence(actor.session_id)
        w.journal.commit()
        await settle()
        failed, full, no_room = w.registry.slow_answers.failed()
        assert (no_room.player, no_room.outcome, no_room.taken_ms, no_room.queued_ms) == (1, "busy", 0, None)
        assert (full.player, full.outcome, full.taken_ms) == (2, "busy", None)
        assert (failed.player, failed.outcome, failed.acked_ms) == (3, "restarting", 2_000)
        assert w.registry.slow_answers.slowest() == []


async def test_an_answer_that_is_too_late_is_no_failure(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        w.answer(actor, ada, 1, question=2)
        await settle()
        assert ada.errors
        assert w.registry.slow_answers.failed() == []


async def test_the_slowest_of_the_last_hour_are_kept(mock_clock: MockClock) -> None:
    answers = SlowAnswers(SessionClock(START_MS))
    commit = Commit(0.0, 0.0, 1)
    for n in range(3 * KEPT_MAX):
        waited = 300 + (n * 7) % 300
        at = START_MS - waited
        answers.acked("s", Answer(Client(), n, None, 1, 0, at), "accepted", BatchTimes(at), commit)
        answers.refused("s", Answer(Client(), n, None, 1, 0, at), "busy")
    assert [each.total_ms for each in answers.slowest()] == list(range(599, 599 - KEPT_MAX, -1))
    assert [each.player for each in answers.failed()] == list(range(299, 199, -1))
    assert (answers.slow_total, answers.failed_total) == (300, 300)
    mock_clock.jump(KEPT_MS / 1000)
    at = START_MS + KEPT_MS - SLOW_MS
    answers.acked("s", Answer(Client(), 1, None, 1, 0, at), "accepted", BatchTimes(at), None)
    assert [each.total_ms for each in answers.slowest()] == [SLOW_MS], "quicker, but of this hour"
    assert answers.failed() == []


async def test_answers_refused_by_the_rules_are_told_up_to_a_rate_and_not_kept(
    mock_clock: MockClock,
) -> None:
    told: list[tuple[str, bool]] = []
    async with world() as w:
        actor, ada = await w.started("Ada")
        answers = w.registry.slow_answers
        answers.new_trace_id = lambda: "ef" * 16
        answers.tell = lambda answer, trace, _: told.append((answer.outcome, trace is None))
        for _ in range(TURNED_DOWN_PER_S + 5):
            actor.send(Answer(ada, 1, "b", 2, 0, w.clock.now_ms()))
        actor.send(Answer(ada, 1, "b", 2, 0, w.clock.now_ms(), trace=Trace("ab" * 16, "cd" * 8)))
        await settle()
        assert told == [("wrong_question", True)] * TURNED_DOWN_PER_S + [("wrong_question", False)]
        mock_clock.jump(1 / TURNED_DOWN_PER_S)
        w.answer(actor, ada, 1, question=2)
        await settle()
        assert len(told) == TURNED_DOWN_PER_S + 2
        assert (answers.failed(), answers.failed_total) == ([], 0)


async def test_a_sampled_answer_is_told_whatever_becomes_of_it_and_is_not_kept(mock_clock: MockClock) -> None:
    told: list[tuple[SlowAnswer, Trace | None, Commit | None]] = []
    sampled, other = Trace("ab" * 16, "cd" * 8), Trace("12" * 16, "34" * 8, sampled=False)
    async with world() as w:
        actor = await w.session(early_close=False)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        await w.do(actor, "start")
        answers = w.registry.slow_answers
        answers.tell = lambda *each: told.append(each)
        at = w.clock.now_ms()
        actor.send(Answer(ada, 1, "a", 1, 0, at, trace=sampled))
        actor.send(Answer(ben, 2, "a", 1, 0, at, trace=other))
        actor.send(Answer(ada, 1, "b", 2, 0, at, trace=sampled))
        await settle()
        assert sorted((answer.outcome, trace) for answer, trace, _ in told) == [
            ("accepted", sampled),
            ("wrong_question", sampled),
        ]
        assert all(answer.trace_id == sampled.trace_id for answer, _, _ in told)
        assert (answers.slowest(), answers.failed(), answers.slow_total, answers.failed_total) == (
            [],
            [],
            0,
            0,
        )
        told.clear()
        actor.send(Answer(ben, 2, "a", 1, 0, at - SLOW_MS, trace=other))
        await settle()
        assert [(answer.trace_id, trace) for answer, trace, _ in told] == [(other.trace_id, other)]
        assert len(answers.slowest()) == 1


async def test_a_slow_answer_with_a_trace_is_an_exemplar(mock_clock: MockClock) -> None:
    trace = Trace("12" * 16, "34" * 8, sampled=False)
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        at = w.clock.now_ms()
        actor.send(Answer(ada, 1, "a", 1, 0, at - SLOW_MS, trace=trace))
        await settle()
        ((_, exemplar),) = w.registry.statistics().ack_latency.exemplars.items()
        assert (exemplar.trace_id, exemplar.duration_s, exemplar.at) == (trace.trace_id, SLOW_MS / 1000, at)


async def test_joins_are_timed_and_those_who_come_back_are_counted(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        statistics = w.registry.statistics()
        assert (statistics.join_latency.count, statistics.rejoins) == (1, 0)
        actor.send(Rejoin(ada, "player", 1))
        actor.send(Rejoin(ada, "player", 7))
        await settle()
        statistics = w.registry.statistics()
        assert (statistics.join_latency.count, statistics.rejoins) == (1, 1)


async def test_how_long_others_wait_to_be_told_of_an_answer(mock_clock: MockClock) -> None:
    """Counted once for each frame, by the oldest answer in it."""
    async with world() as w:
        actor = await w.session(early_close=False)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        await w.do(actor, "start")
        mock_clock.jump(5)
        await settle()
        assert w.registry.statistics().answer_broadcast_latency.count == 0, "nobody has answered"
        at = w.clock.now_ms()
        actor.send(Answer(ada, 1, "a", 1, 0, at - 400))
        actor.send(Answer(ben, 2, "a", 1, 0, at - 100))
        await settle()
        told = w.registry.statistics().answer_broadcast_latency
        assert (told.count, told.sum_s) == (1, 0.4)
        await w.do(actor, "next")
        assert w.registry.statistics().answer_broadcast_latency.count == 1, "the reveal tells of nothing new"


async def test_the_frame_that_tells_of_a_traced_answer_is_told_on_before_and_after_its_ack(
    mock_clock: MockClock,
) -> None:
    told: list[tuple[str | None, int, int]] = []
    sampled = Trace("ab" * 16, "cd" * 8)
    async with asked() as (w, rig, actor, clients):
        answers = w.registry.slow_answers
        answers.tell_broadcast = lambda answer, *moments: told.append((answer.trace_id, *moments))
        mock_clock.jump(2)
        await settle()
        rig.server.set("hangs")
        at = w.clock.now_ms()
        actor.send(Answer(clients[0], 1, "a", 1, 0, at, trace=sampled))
        await settle()
        mock_clock.jump(0.7)
        rig.server.set("open")
        await settle()
        # Whoever waits for the commit, others are told at once.
        assert told == [(sampled.trace_id, at, at)]
        told.clear()
        actor.send(Answer(clients[0], 1, "a", 1, 0, w.clock.now_ms(), trace=sampled))
        await settle()
        assert told == [], "of what is sent again, others were told long ago"
        actor.send(Answer(clients[1], 2, "a", 1, 0, w.clock.now_ms()))
        await settle()
        actor.send(Answer(clients[2], 3, "a", 1, 0, w.clock.now_ms(), trace=sampled))
        await settle()
        assert (clients[2].kinds.count("ack"), told) == (1, []), "the tick is not over"
        mock_clock.jump(1)
        await settle()
        assert told == [(sampled.trace_id, w.clock.now_ms(), w.clock.now_ms())]


async def test_the_seat_of_a_sampled_or_slow_join_has_a_timeline(mock_clock: MockClock) -> None:
    told: list[tuple[SlowAnswer, Trace | None, Commit | None]] = []
    sampled = Trace("ab" * 16, "cd" * 8)
    async with asked() as (w, rig, actor, _clients):
        w.registry.slow_answers.tell = lambda *each: told.append(each)
        actor.send(Join(Client(), "Quick", w.clock.now_ms()))
        actor.send(Join(Client(), "Traced", w.clock.now_ms(), trace=sampled))
        await settle()
        ((seat, trace, commit),) = told
        assert (seat.what, seat.trace_id, trace) == ("seat", sampled.trace_id, sampled)
        assert commit is not None
        rig.server.set("hangs")
        actor.send(Join(Client(), "Slow", w.clock.now_ms()))
        await settle()
        mock_clock.jump(0.7)
        rig.server.set("open")
        await settle()
        slow, trace, _ = told[-1]
        assert (slow.what, slow.taken_ms, slow.commit_ended_ms, trace) == ("seat", 0, 700, None)
        assert w.registry.slow_answers.slowest() == [], "it is no answer"
