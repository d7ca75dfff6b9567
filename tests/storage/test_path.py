"""Each cell of the table of the path's states, on a virtual clock: no database and no disk."""

from __future__ import annotations

import errno
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import trio

from engine.ports import StorageUnavailable
from engine.storage.journal.path import PROBE_EVERY_S, CommitPath, PathState
from engine.storage.journal.queue import FactQueue
from engine.storage.spool.journal import SpoolingStatistics, SpoolJournal
from tests.shards.simulation.storage import Disk, MemorySpool
from tests.storage.making import AT, Listener, joined
from tests.storage.statements import as_commit

AFTER_S = 1.0
BATCH = 10
SESSION = "a session"

STRAIGHT, SPOOLING, SWITCHING = PathState.STRAIGHT, PathState.SPOOLING, PathState.SWITCHING


class Server:
    """PostgreSQL as a test wants it: `away` fails at once, `hangs` answers when it is `open` again."""

    def __init__(self) -> None:
        self.state: Literal["open", "away", "hangs"] = "open"
        self.takes_s = 0.0
        self.committed: list[int] = []
        """Of the facts, in the order of the commits. What is committed again is there again."""
        self.fenced = False
        self.commits_asked = 0
        self._changed = trio.Event()

    def set(self, state: Literal["open", "away", "hangs"]) -> None:
        self.state = state
        self._changed.set()
        self._changed = trio.Event()

    def connection(self) -> Server:
        return self

    async def fetch(self, sql: str, *args: Any, timeout_s: float = math.inf) -> Sequence[dict[str, int]]:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(timeout_s):
            return await self._fetch(sql, *args)
        raise StorageUnavailable("no answer")

    async def _fetch(self, sql: str, *args: Any) -> Sequence[dict[str, int]]:
        args = as_commit(sql, args) or ()
        if args:
            self.commits_asked += 1
        while self.state == "hangs":
            await self._changed.wait()
        if self.state == "away":
            raise StorageUnavailable("the database is away")
        if not args:
            return []
        await trio.sleep(self.takes_s)
        if self.fenced:
            return []
        self.committed += args[6]
        return [{"n": n} for n in range(1, len(args[0]) + 1)]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class FaultySpool(MemorySpool):
    full = False

    def append(self, payload: bytes, facts: int, at: int) -> None:
        self.probe()
        super().append(payload, facts, at)

    def probe(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@dataclass
class Rig:
    """A path with its two tasks, and all that they reach."""

    disk: Disk = field(default_factory=Disk)
    server: Server = field(default_factory=Server)
    listener: Listener = field(default_factory=Listener)
    queue: FactQueue = field(default_factory=lambda: FactQueue(BATCH))
    is_certain: bool = True
    seq: int = 0

    def __post_init__(self) -> None:
        self.spool = FaultySpool(self.disk, None)  # type: ignore[arg-type]  # no process of a simulation
        self.path = CommitPath(
            self.server,  # type: ignore[arg-type]  # as much of it as the path asks for
            self.queue,
            owner="node",
            spool=SpoolJournal(self.spool, lease=self, now_ms=lambda: AT),  # type: ignore[arg-type]  # in memory
            after_s=AFTER_S,
            retained=None,
            answered=lambda: None,
            batch_facts_max=BATCH,
            retry_min_s=0.05,
            retry_max_s=0.1,
        )

    def certain(self, now_s: float) -> bool:
        return self.is_certain

    @property
    def spooling(self) -> SpoolingStatistics:
        statistics = self.path.spooling()
        assert statistics is not None
        return statistics

    @property
    def spooled_total(self) -> int:
        return self.spooling.spooled_total

    def append(self, facts: int = 1) -> int:
        """Returns the number of the last one."""
        self.queue.append(SESSION, 1, [joined(self.seq + n) for n in range(1, facts + 1)], self.listener)
        self.seq += facts
        return self.seq

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self.path.drain)
            yield self
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        while True:
            if self.queue:
                await self.path.secure(self.queue.take())
            else:
                await self.queue.arrival()

    async def stored(self) -> None:
        """Everything appended is in the database, in order, and nothing is in the spool."""
        await self.listener.until(self.seq)
        await self.path.wait_straight()
        assert list(dict.fromkeys(self.server.committed)) == list(range(1, self.seq + 1))
        assert self.listener.seqs == sorted(self.listener.seqs)
        assert self.disk.facts == 0

    async def in_state(self, state: PathState) -> None:
        """One fact is acknowledged, and the path is in this state."""
        if state is not STRAIGHT:
            # A commit of the drain that hangs may be the last.
            self.server.set("hangs" if state is SWITCHING else "away")
        await self.listener.until(self.append())
        if state is not STRAIGHT:
            await trio.sleep(0.01)  # the drain has made its first attempt
        assert self.path.state is state
        assert self.disk.facts == (0 if state is STRAIGHT else 1)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Rig]:
    """Makes rigs, in a run on a virtual clock whose disk takes no time."""

    async def in_the_loop(work: Callable[..., Any], *args: object) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", in_the_loop)
    return Rig


Rigs = Callable[[], Rig]


async def elapsed_s(wait: Any) -> float:
    started = trio.current_time()
    await wait
    return trio.current_time() - started


# A new batch


async def test_straight_commits_a_batch(rig: Rigs, autojump_clock: object) -> None:
    async with rig().running() as r:
        await r.in_state(STRAIGHT)
        assert await elapsed_s(r.listener.until(r.append(3))) == 0
        assert (r.path.state, r.spooled_total, r.server.committed) == (STRAIGHT, 0, [1, 2, 3, 4])


async def test_spooling_acknowledges_a_batch_from_the_spool_at_once(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SPOOLING)
        assert await elapsed_s(r.listener.until(r.append(3))) == 0
        assert (r.path.state, r.spooled_total, r.server.committed) == (SPOOLING, 4, [])


async def test_switching_holds_a_batch_back_and_commits_it_when_the_spool_is_empty(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SWITCHING)
        r.append(3)
        await trio.sleep(AFTER_S / 2)
        assert r.listener.seq == 1
        r.server.set("open")
        await r.listener.until(4)
        assert (r.path.state, r.spooled_total) == (STRAIGHT, 1)
        await r.stored()


async def test_switching_holds_a_batch_back_for_no_longer_than_after_s(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SWITCHING)
        assert await elapsed_s(r.listener.until(r.append(3))) == pytest.approx(AFTER_S)
        assert (r.path.state, r.spooled_total, r.server.committed) == (SPOOLING, 4, [])
        r.server.set("open")
        await r.stored()


async def test_a_switch_in_the_moment_in_which_patience_ends_is_not_undone(
    rig: Rigs, autojump_clock: object
) -> None:
    for _ in range(20):  # trio draws anew which of the two comes first
        r = rig()
        r.path._become(SWITCHING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(r.path._switched)
            await trio.sleep(AFTER_S)
            r.path._become(STRAIGHT)
        assert r.path.state is STRAIGHT


# A commit that fails, or hangs


async def test_straight_repeats_a_commit_for_less_than_after_s(rig: Rigs, autojump_clock: object) -> None:
    async with rig().running() as r:
        await r.in_state(STRAIGHT)
        r.server.set("away")
        r.append()
        await trio.sleep(0.9 * AFTER_S)
        assert (r.listener.seq, r.path.state, r.path.retries_total > 1) == (1, STRAIGHT, True)
        r.server.set("open")
        await r.listener.until(2)
        assert (r.path.state, r.spooled_total) == (STRAIGHT, 0)


@pytest.mark.parametrize("trouble", ["away", "hangs"])
async def test_straight_becomes_spooling_after_after_s(
    rig: Rigs, autojump_clock: object, trouble: Any
) -> None:
    async with rig().running() as r:
        await r.in_state(STRAIGHT)
        r.server.set(trouble)
        assert AFTER_S <= await elapsed_s(r.listener.until(r.append())) < AFTER_S + 0.1
        assert r.path.state is not STRAIGHT
        assert r.spooled_total == 1
        r.server.set("open")
        await r.stored()


async def test_switching_becomes_spooling_when_the_drain_cannot_commit(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SWITCHING)
        r.server.set("away")
        assert await elapsed_s(r.listener.until(r.append())) == 0
        assert (r.path.state, r.spooled_total) == (SPOOLING, 2)


# A spool that does not take a batch


def refuse(r: Rig, how: str, refuses: bool = True) -> None:
    r.spool.full, r.is_certain = (refuses and how == "full"), not (refuses and how == "uncertain")


@pytest.mark.parametrize("taken_by", ["the database", "the spool"])
@pytest.mark.parametrize("how", ["full", "uncertain"])
async def test_straight_tries_both_until_either_takes_the_batch(
    rig: Rigs, autojump_clock: object, how: str, taken_by: str
) -> None:
    async with rig().running() as r:
        await r.in_state(STRAIGHT)
        r.server.set("away")
        refuse(r, how)
        r.append()
        await trio.sleep(20 * AFTER_S)
        assert (r.listener.seq, r.path.state, r.path.stuck, r.path.has_room(1.0)) == (
            1,
            STRAIGHT,
            True,
            False,
        )
        if taken_by == "the database":
            r.server.set("open")
        else:
            refuse(r, how, False)
        await r.listener.until(2)
        assert r.path.state is (STRAIGHT if taken_by == "the database" else SPOOLING)
        await trio.lowlevel.checkpoint()
        assert not r.path.stuck
        r.server.set("open")
        await r.stored()


async def test_a_disk_that_failed_and_is_no_longer_needed_is_found_to_be_well_again(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(STRAIGHT)
        r.server.set("away")
        refuse(r, "full")
        r.append()
        await trio.sleep(2 * AFTER_S)
        assert r.spooling.failing
        r.server.set("open")
        await r.listener.until(2)
        await trio.sleep(3 * PROBE_EVERY_S)
        assert r.spooling.failing, "it is full yet"
        refuse(r, "full", False)
        await trio.sleep(2 * PROBE_EVERY_S)
        assert (r.spooling.failing, r.path.state, r.spooling.failures_total > 0) == (False, STRAIGHT, True)


@pytest.mark.parametrize("how", ["full", "uncertain"])
async def test_spooling_commits_a_batch_that_the_spool_does_not_take_behind_all_that_is_spooled(
    rig: Rigs, autojump_clock: object, how: str
) -> None:
    async with rig().running() as r:
        await r.in_state(SPOOLING)
        refuse(r, how)
        r.append()
        await trio.sleep(20 * AFTER_S)
        assert (r.listener.seq, r.path.state, r.path.stuck, r.path.has_room(1.0)) == (
            1,
            SPOOLING,
            True,
            False,
        )
        r.server.set("open")
        await r.stored()
        assert (r.server.committed, r.spooled_total) == ([1, 2], 1)


async def test_a_slow_commit_has_all_the_time_it_takes_when_the_spool_may_not_be_used(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(STRAIGHT)
        refuse(r, "uncertain")
        r.server.set("hangs")
        asked = r.server.commits_asked
        r.append()
        await trio.sleep(1000)
        assert (r.server.commits_asked - asked, r.path.retries_total, r.path.has_room(1.0)) == (1, 0, True)
        r.server.set("open")
        await r.listener.until(2)


# PostgreSQL is back


async def test_spooling_becomes_straight_when_the_drain_has_emptied_the_spool(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SPOOLING)
        for _ in range(5):
            await r.listener.until(r.append(BATCH))
        r.server.set("open")
        await r.stored()
        assert (r.path.state, r.spooled_total) == (STRAIGHT, 51)


async def test_the_drain_rests_for_as_long_as_its_commits_and_not_as_the_outage(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SPOOLING)
        for _ in range(2):
            await r.listener.until(r.append(BATCH))
        await trio.sleep(1000)
        r.server.takes_s = 0.25
        r.server.set("open")
        # Three commits; a rest after each, but not after those with which the spool may be empty.
        assert 4 * 0.25 <= await elapsed_s(r.stored()) < 7 * 0.25


async def test_a_commit_of_the_drain_that_was_held_up_does_not_make_it_rest_as_long(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SPOOLING)
        assert await elapsed_s(r.path._give_way(60.0)) == pytest.approx(1.0)


# The epoch, and the start


async def test_spooled_facts_of_a_session_with_another_owner_are_put_aside_and_the_rest_is_dropped(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as r:
        await r.in_state(SPOOLING)
        refuse(r, "full")
        r.append(2 * BATCH)  # the second batch waits
        await trio.sleep(AFTER_S)
        r.server.fenced = True
        r.server.set("open")
        await r.listener.until_fenced()
        await r.queue.emptied()
        assert (r.listener.seqs, r.server.committed) == ([1], [])
        statistics = r.path.spooling()
        assert statistics is not None
        assert statistics.put_aside_total == 1


async def test_a_path_begins_spooling_with_what_an_earlier_run_has_left(
    rig: Rigs, autojump_clock: object
) -> None:
    async with rig().running() as first:
        await first.in_state(SPOOLING)
    second = Rig(disk=first.disk)
    assert second.path.state is SPOOLING
    async with second.running():
        await second.path.wait_straight()
    assert second.server.committed == [1]


async def test_a_path_without_a_spool_is_always_straight_and_repeats_for_ever(
    rig: Rigs, autojump_clock: object
) -> None:
    r = rig()
    r.path._spool = None
    async with r.running():
        r.server.set("away")
        r.append()
        await trio.sleep(1000)
        assert (r.path.state, r.listener.seq, r.path.stuck, r.path.spooling()) == (STRAIGHT, 0, False, None)
        r.server.set("open")
        await r.listener.until(1)
