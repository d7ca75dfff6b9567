"""Commits that wait for company, on a virtual clock: when each begins, and what it takes along."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine.domain import facts as f
from engine.storage.journal.writer import WriteBehind
from tests.storage.making import AT, Listener, joined
from tests.storage.statements import FIRST_OF_CHANGES, as_commit
from tests.storage.test_path import Server

PAUSE_S = 0.02
BATCH = 10


class Watched(Server):
    """Notes when each commit was asked for, and of how many facts."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[tuple[float, int]] = []

    async def _fetch(self, sql: str, *args: Any) -> Sequence[dict[str, int]]:
        if commit := as_commit(sql, args):
            facts = len(commit[2]) + len(commit[FIRST_OF_CHANGES])
            self.commits.append((round(trio.current_time() - self.started_s, 3), facts))
        return await super()._fetch(sql, *args)

    started_s = 0.0


class Paced:
    def __init__(self, journal: WriteBehind, server: Watched) -> None:
        self.journal = journal
        self.server = server
        self.listener = Listener()
        self._seq = 0

    def append(self, count: int = 1) -> None:
        facts = [joined(self._seq + n) for n in range(1, count + 1)]
        self._seq += count
        self.journal.append("a session", 1, facts, self.listener)

    def open_question(self) -> None:
        self._seq += 1
        self.journal.append("a session", 1, [f.QuestionOpened(self._seq, AT, 1)], self.listener)

    @property
    def commits(self) -> list[tuple[float, int]]:
        return self.server.commits


@asynccontextmanager
async def paced(pause_s: Callable[[], float] = lambda: PAUSE_S) -> AsyncIterator[Paced]:
    server = Watched()
    journal = WriteBehind(
        server,  # type: ignore[arg-type]  # as much of it as the journal asks for
        owner="node",
        now_ms=lambda: AT,
        batch_facts_max=BATCH,
        pause_s=pause_s,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        server.started_s = trio.current_time()
        yield Paced(journal, server)
        nursery.cancel_scope.cancel()


async def test_the_first_fact_goes_at_once_and_the_next_commit_is_apart(autojump_clock: object) -> None:
    async with paced() as w:
        for _ in range(10):
            w.append()
            await trio.sleep(0.006)
        await w.journal.drain()
        assert w.commits == [(0.0, 1), (0.02, 3), (0.04, 3), (0.06, 3)]


async def test_without_a_pause_every_fact_goes_at_once(autojump_clock: object) -> None:
    async with paced(lambda: 0.0) as w:
        for _ in range(3):
            w.append()
            await trio.sleep(0.001)
        assert w.commits == [(0.0, 1), (0.001, 1), (0.002, 1)]


async def test_the_pause_is_asked_for_each_batch(autojump_clock: object) -> None:
    pause_s = PAUSE_S
    async with paced(lambda: pause_s) as w:
        w.append()
        await trio.sleep(0.001)
        w.append()
        await trio.sleep(0.1)
        pause_s = 0.0
        for _ in range(2):
            w.append()
            await trio.sleep(0.001)
        assert w.commits == [(0.0, 1), (0.02, 1), (0.101, 1), (0.102, 1)]


async def test_a_full_batch_waits_for_nobody(autojump_clock: object) -> None:
    async with paced() as w:
        w.append()
        await trio.sleep(0.001)
        w.append(BATCH - 1)
        await trio.sleep(0.001)
        w.append()
        await w.journal.drain()
        assert w.commits == [(0.0, 1), (0.002, BATCH)]


async def test_what_changes_a_session_for_everybody_waits_for_nobody(autojump_clock: object) -> None:
    async with paced() as w:
        w.append()
        await trio.sleep(0.001)
        w.append()
        await trio.sleep(0.001)
        w.open_question()
        await trio.sleep(0.001)
        w.append()
        await w.journal.drain()
        assert w.commits == [(0.0, 1), (0.002, 2), (0.022, 1)]


@pytest.mark.parametrize("pause_s", [PAUSE_S, 1e9])
async def test_a_stop_waits_for_nobody(autojump_clock: object, pause_s: float) -> None:
    async with paced(lambda: pause_s) as w:
        w.append()
        await trio.sleep(0.001)
        w.append()
        await trio.sleep(0.001)
    assert w.commits == [(0.0, 1), (0.002, 1)]
    assert w.listener.seqs == [1, 2]


async def test_a_session_that_is_fenced_while_its_facts_wait_harms_nobody(autojump_clock: object) -> None:
    async with paced() as w:
        w.append()
        await trio.sleep(0.001)
        w.append()
        await trio.sleep(0.001)
        w.journal._queue.forget_session("a session")
        await trio.sleep(0.1)
        w.append()
        await w.journal.drain()
        assert w.commits == [(0.0, 1), (0.102, 1)]
