"""Write-behind with group commit: what is reported as committed is in Postgres.

One task takes what waits, from all sessions, commits it in one statement, reports, and takes what has
gathered meanwhile. Under little load every fact is on its way at once; under much, batches grow by
themselves.

What goes wrong is sorted by whose doing it is:

- Postgres away, or otherwise unable for the moment: the batch is repeated, with growing pauses, until it is
  in. Nothing is lost and nothing is reported; the queue fills up and `has_room` turns requests away.
- A fact that cannot be stored at all (a number that is none): `append` raises ValueError and queues nothing,
  which is the trouble of that session alone.
- Anything else is a mistake of ours: the rules of the domain and the schema disagree, and what would be
  reported as committed can no longer be trusted. `run` raises, and the node is meant to die of it. Nobody
  gets an acknowledgement that is not true, and what was acknowledged is in Postgres.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from engine.domain.facts import Fact
from engine.ports import CommitListener, StorageUnavailable
from engine.storage.commit import COMMIT, Batch
from engine.storage.fact_rows import FactRows
from engine.storage.latency import Latency, LatencyStatistics
from engine.storage.postgres import Database

_log = logging.getLogger(__name__)

_REPORTS_PER_SLICE = 50
"""Listeners told in a row before everybody else gets a turn."""


@dataclass(frozen=True, slots=True)
class WriteBehindStatistics:
    """A snapshot.

    Attributes:
        queued: facts that wait for their commit or are in it.
        committed_total, batches_total: facts and transactions since the start.
        fenced_total: sessions that were found to be somebody else's.
        retries_total: commits that had to be tried again.
        last_commit_s: how long the last transaction took.
        latency: from the append of a batch's oldest fact to the end of its transaction.
        healthy: no commit has to be repeated just now, and the last attempt to reach Postgres succeeded.
    """

    queued: int
    committed_total: int
    batches_total: int
    fenced_total: int
    retries_total: int
    last_commit_s: float
    latency: LatencyStatistics
    healthy: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Facts of one session that are committed together."""

    session_id: str
    epoch: int
    seq: int
    count: int
    rows: FactRows
    listener: CommitListener
    since: float


@dataclass(frozen=True, slots=True)
class _Taken:
    """A batch on its way, and who is to hear of it: the number of a session in it, to its last facts."""

    batch: Batch
    last: dict[int, _Waiting]
    count: int
    since: float


class WriteBehind:
    """Port `Journal` over Postgres, and the sign of life of the node.

    `run` must be running for anything to be committed.

    Args:
        owner: what sessions are claimed with: names this run of the node, and no earlier one.
        now_ms: the clock that dates signs of life.
        facts_max: beyond this many queued facts `has_room` says no.
        batch_facts_max: facts in one transaction. Handing 500 to the driver holds the loop for 1.3 ms, 1,000
            for 3 to 5 ms; more gain little (`tests/bench/group_commit.py`).
        shutdown_s: after its cancellation `run` goes on for at most this long to commit what is queued.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        now_ms: Callable[[], int],
        facts_max: int = 50_000,
        batch_facts_max: int = 500,
        alive_interval_s: float = 0.5,
        retry_min_s: float = 0.05,
        retry_max_s: float = 2.0,
        shutdown_s: float = 5.0,
    ) -> None:
        self._database = database
        self._connection = database.connection()
        self._owner = owner
        self._now_ms = now_ms
        self._facts_max = facts_max
        self._batch_facts_max = batch_facts_max
        self._alive_interval_s = alive_interval_s
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._shutdown_s = shutdown_s

        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._arrived = trio.Event()
        self._emptied = trio.Event()
        self._emptied.set()
        self._ending = False
        self._ended = False

        self._committed_total = 0
        self._batches_total = 0
        self._fenced_total = 0
        self._retries_total = 0
        self._last_commit_s = 0.0
        self._latency = Latency()
        self._commits_healthy = True
        self._alive_healthy = True

    def has_room(self) -> bool:
        return self._queued < self._facts_max and not self._ended

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        waiting = []
        for start in range(0, len(facts), self._batch_facts_max):
            part = facts[start : start + self._batch_facts_max]
            waiting.append(
                _Waiting(
                    session_id, epoch, part[-1].seq, len(part), FactRows(part), listener, trio.current_time()
                )
            )
        self._queue += waiting
        self._queued += len(facts)
        self._arrived.set()
        if self._queued and self._emptied.is_set() and not self._ended:
            self._emptied = trio.Event()

    def statistics(self) -> WriteBehindStatistics:
        return WriteBehindStatistics(
            queued=self._queued,
            committed_total=self._committed_total,
            batches_total=self._batches_total,
            fenced_total=self._fenced_total,
            retries_total=self._retries_total,
            last_commit_s=self._last_commit_s,
            latency=self._latency.statistics(),
            healthy=self._commits_healthy and self._alive_healthy,
        )

    async def drain(self) -> None:
        """Wait until nothing is queued. Raises StorageUnavailable when `run` ended before that."""
        await trio.lowlevel.checkpoint()
        await self._emptied.wait()
        if self._queued:
            raise StorageUnavailable(f"{self._queued} facts were not committed before the end")

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled, then what is still queued, as far as `shutdown_s` reaches.

        Reports as started after the first sign of life. Raises what shows a mistake of ours, but never
        StorageUnavailable.
        """
        writing = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, writing)
                try:
                    await self._say(_FORGET_NODES, self._now_ms())
                    await self._say(_ALIVE, self._owner, self._now_ms())
                    task_status.started()
                    while True:
                        await trio.sleep(self._alive_interval_s)
                        await self._say(_ALIVE, self._owner, self._now_ms())
                finally:
                    self._ending = True
                    self._arrived.set()
                    writing.deadline = trio.current_time() + self._shutdown_s
        finally:
            self._ended = True
            self._emptied.set()
            await self._connection.aclose()
            if self._queued:
                _log.error("%d facts were not committed; none of them was acknowledged", self._queued)

    async def _write(self, writing: trio.CancelScope) -> None:
        with writing:
            while self._queue or not self._ending:
                if self._queue:
                    taken = self._take()
                    # Converting a batch and handing it over are each a while without a pause.
                    await trio.lowlevel.checkpoint()
                    fenced = await self._commit(taken)
                    await self._report(taken, fenced)
                else:
                    self._arrived = trio.Event()
                    await self._arrived.wait()

    def _take(self) -> _Taken:
        batch = Batch()
        last: dict[int, _Waiting] = {}
        count = 0
        since = self._queue[0].since
        while self._queue and count + self._queue[0].count <= self._batch_facts_max:
            waiting = self._queue.popleft()
            number = batch.add(waiting.session_id, waiting.epoch, waiting.rows)
            last[number] = waiting
            count += waiting.count
        return _Taken(batch, last, count, since)

    async def _commit(self, taken: _Taken) -> set[int]:
        """Returns the numbers of the sessions that are somebody else's."""
        arguments = taken.batch.arguments()
        pause_s = self._retry_min_s
        while True:
            started = trio.current_time()
            try:
                live = await self._connection.fetch(COMMIT, *arguments)
            except StorageUnavailable as error:
                self._retries_total += 1
                if self._commits_healthy:
                    _log.warning("commits wait for Postgres: %s", error)
                self._commits_healthy = False
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, self._retry_max_s)
            else:
                break
        ended = trio.current_time()
        if not self._commits_healthy:
            _log.warning("commits go on")
        self._commits_healthy = self._alive_healthy = True
        self._batches_total += 1
        self._last_commit_s = ended - started
        self._latency.add(ended - taken.since)
        return taken.batch.fenced(live)

    async def _report(self, taken: _Taken, fenced: set[int]) -> None:
        for told, number in enumerate(fenced):
            if told % _REPORTS_PER_SLICE == _REPORTS_PER_SLICE - 1:
                await trio.lowlevel.checkpoint()
            self._fenced_total += 1
            taken.last[number].listener.fenced()
        if fenced:
            self._forget({(taken.last[number].session_id, taken.last[number].epoch) for number in fenced})
        for told, (number, waiting) in enumerate(taken.last.items()):
            if told % _REPORTS_PER_SLICE == _REPORTS_PER_SLICE - 1:
                await trio.lowlevel.checkpoint()
            if number not in fenced:
                waiting.listener.committed(waiting.seq)
        self._committed_total += taken.count
        self._leave(taken.count)

    def _forget(self, stale: set[tuple[str, int]]) -> None:
        """Drop what fenced sessions have queued since."""
        kept = deque(waiting for waiting in self._queue if (waiting.session_id, waiting.epoch) not in stale)
        dropped = sum(waiting.count for waiting in self._queue) - sum(waiting.count for waiting in kept)
        self._queue = kept
        self._leave(dropped)

    def _leave(self, count: int) -> None:
        self._queued -= count
        if not self._queued:
            self._emptied.set()

    async def _say(self, sql: str, *args: object) -> None:
        """Signs of life have a connection of the pool: a long commit does not delay them."""
        try:
            await self._database.execute(sql, *args)
        except StorageUnavailable:
            self._alive_healthy = False
        else:
            self._alive_healthy = True


_ALIVE = """
INSERT INTO nodes (node, alive_at) VALUES ($1, 'epoch'::timestamptz + $2::float8 * interval '1 ms')
ON CONFLICT (node) DO UPDATE SET alive_at = greatest(nodes.alive_at, excluded.alive_at)
"""

# A row is of use for as long as a session waits to be taken over from its node.
_FORGET_NODES = """
DELETE FROM nodes
WHERE alive_at < 'epoch'::timestamptz + $1::float8 * interval '1 ms' - interval '7 days'
  AND NOT EXISTS (SELECT FROM live_codes JOIN sessions ON id = session_id WHERE owner = node)
"""
