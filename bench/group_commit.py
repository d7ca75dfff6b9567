"""How many facts a second reach Postgres, how long they take, and how long the loop is held meanwhile.

Either the queue is never empty, or facts come at 8,000 a second, as many answers as a large session sees. The
loop is otherwise idle, or a task beside takes 0.5 ms of it over and over.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from bench.figures import Costs, Figure, percentile
from engine.aio import open_asyncio
from engine.domain.facts import AnswerAccepted, Fact
from engine.domain.quiz import Quiz
from engine.domain.session import Settings
from engine.ports import Commit, SessionRecord
from engine.storage.catalog import PostgresCatalog
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.journal.writer import WriteBehind
from engine.storage.migrations import migrate
from engine.storage.partitions import Partitions
from engine.storage.postgres import Database
from engine.storage.session_ids import new_id
from engine.storage.sessions import PostgresSessionStore

SESSIONS = 20
NOW_MS = 1_790_000_000_000
ROUNDS = 3
RUN_S = 0.6


class Steps(trio.abc.Instrument):
    """How long each step of each task holds the loop, other than the steps of the load itself: processor time
    of this thread, for what else the machine does is not their doing."""

    def __init__(self) -> None:
        self.held_s: list[float] = []
        self.ignored: set[object] = set()
        self._since: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._since = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # The step that adds the instrument has no beginning.
        if self._since is not None and task not in self.ignored:
            self.held_s.append(time.thread_time() - self._since)


@dataclass
class Bench:
    database: Database
    sessions: list[tuple[str, int]]
    seqs: dict[str, int] = field(default_factory=dict)

    def facts(self, session_id: str, count: int) -> Sequence[Fact]:
        seq = self.seqs.get(session_id, 0)
        self.seqs[session_id] = seq + count
        return [
            AnswerAccepted(n, NOW_MS + n, n, 1 + n % 20, n % 4, 1234, n % 2 == 0, 900)
            for n in range(seq + 1, seq + count + 1)
        ]


class Listener:
    """Notes how long each append waited for its report."""

    def __init__(self, waits_s: list[float]) -> None:
        self.waits_s = waits_s
        self.sent: list[tuple[int, float]] = []

    def committed(self, seq: int, commit: Commit | None = None) -> None:
        now = time.perf_counter()
        while self.sent and self.sent[0][0] <= seq:
            self.waits_s.append(now - self.sent.pop(0)[1])

    def fenced(self) -> None:
        raise AssertionError("nobody else is here")


Feed = Callable[[WriteBehind, Bench, list[Listener], int], Awaitable[None]]


async def saturate(journal: WriteBehind, bench: Bench, listeners: list[Listener], batch: int) -> None:
    """Appends of 20 facts, as an actor makes of a full mailbox, whenever fewer than two batches wait."""
    while True:
        for (session_id, epoch), listener in zip(bench.sessions, listeners, strict=True):
            if journal.statistics().queued < 2 * batch:
                facts = bench.facts(session_id, 20)
                listener.sent.append((facts[-1].seq, time.perf_counter()))
                journal.append(session_id, epoch, facts, listener)
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.0005)


async def pace(journal: WriteBehind, bench: Bench, listeners: list[Listener], batch: int) -> None:
    """8 facts every millisecond."""
    due = trio.current_time()
    turn = 0
    while True:
        due += 0.001
        await trio.sleep_until(due)
        session_id, epoch = bench.sessions[turn % SESSIONS]
        listener = listeners[turn % SESSIONS]
        facts = bench.facts(session_id, 8)
        listener.sent.append((facts[-1].seq, time.perf_counter()))
        journal.append(session_id, epoch, facts, listener)
        turn += 1


@dataclass(frozen=True, slots=True)
class Case:
    """`batch` facts a commit at most; 500 is what nodes have."""

    batch: int
    feed: Feed = saturate
    loaded: bool = False

    @property
    def what(self) -> str:
        load = "never empty" if self.feed is saturate else "8,000 facts/s"
        return f"{load}, {'busy' if self.loaded else 'idle'} loop"


ONE_BY_ONE = Case(1)
CASES = (
    ONE_BY_ONE,
    Case(100),
    Case(500),
    Case(1_000),
    Case(5_000),
    Case(500, loaded=True),
    Case(500, pace),
    Case(500, pace, loaded=True),
)


async def busy(steps: Steps) -> None:
    steps.ignored.add(trio.lowlevel.current_task())
    while True:
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass
        await trio.lowlevel.checkpoint()


async def measure(bench: Bench, case: Case, costs: Costs) -> None:
    journal = WriteBehind(bench.database, owner="bench", now_ms=lambda: NOW_MS, batch_facts_max=case.batch)
    waits_s: list[float] = []
    listeners = [Listener(waits_s) for _ in bench.sessions]
    steps = Steps()
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        nursery.start_soon(case.feed, journal, bench, listeners, case.batch)
        if case.loaded:
            nursery.start_soon(busy, steps)
        await trio.sleep(0.2)
        trio.lowlevel.add_instrument(steps)
        waits_s.clear()
        before = journal.statistics()
        started = time.perf_counter()
        await trio.sleep(RUN_S)
        took_s = time.perf_counter() - started
        after = journal.statistics()
        trio.lowlevel.remove_instrument(steps)
        seen_s = list(waits_s)
        nursery.cancel_scope.cancel()
    costs.add(f"{case.what}, facts/s", case.batch, (after.committed_total - before.committed_total) / took_s)
    costs.add(f"{case.what}, ms p50", case.batch, 1000 * percentile(seen_s, 0.5))
    costs.add(f"{case.what}, ms p99", case.batch, 1000 * percentile(seen_s, 0.99))
    costs.add(f"{case.what}, ms held", case.batch, 1000 * max(steps.held_s))


async def prepare(database: Database) -> Bench:
    await migrate.apply(database)
    await Partitions(database, lambda: NOW_MS).maintain()
    catalog = PostgresCatalog(database, lambda: 0)
    store = PostgresSessionStore(database, catalog)
    quiz = Quiz.parse(
        {"title": "Bench", "questions": [{"type": "true_false", "text": "Sure?", "correct": True}]}
    )
    stored = await catalog.add(quiz)
    sessions = []
    for n in range(SESSIONS):
        session_id = new_id(NOW_MS)
        await store.create(SessionRecord(session_id, f"{n:06}", stored.id, 1, Settings(), 0))
        sessions.append((session_id, (await store.claim(session_id, "bench")).epoch))
    return Bench(database, sessions)


async def measure_all(dsn: str, rounds: int) -> Costs:
    costs = Costs()
    async with open_asyncio(), Database.open(dsn) as database:
        bench = await prepare(database)
        for _ in range(rounds):
            for case in CASES:
                await measure(bench, case, costs)
    return costs


def run(rounds: int = ROUNDS) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as directory:
        server = EmbeddedPostgres(Path(directory))
        dsn = server.start()
        try:
            costs = trio.run(measure_all, dsn, rounds)
        finally:
            server.stop()
    base = f"{ONE_BY_ONE.what}, facts/s"
    figures = []
    for unit in ("facts/s", "ms p50", "ms p99", "ms held"):
        for case in CASES:
            name, at = f"{case.what}, {unit}", f"{case.batch:,} a commit"
            figure = Figure(case.what, at, costs.median(name, case.batch), unit)
            if unit == "facts/s" and case.feed is saturate:
                ratio = costs.ratio(name, case.batch, base, ONE_BY_ONE.batch)
                figure = replace(figure, ratio=ratio, to="one by one")
            figures.append(figure)
    return figures
