"""Write-behind with group commit: what is reported as committed is in Postgres, or in the spool of this node.

One task takes what waits, from all sessions, commits it in one statement, reports, and takes what has
gathered meanwhile. Under little load every fact is on its way at once; under much, batches grow by
themselves. On a busy node commits may be kept apart (`pause_s`), so that each has more facts and their
number does not grow with the load.

What goes wrong is sorted by whose doing it is:

- Postgres away, too slow, or otherwise unable for the moment: the batch is repeated for a moment, then it
  goes to the spool, and so does all that comes after it until the spool is empty again (`path.py`). Without a
  spool that takes it, the batch is repeated, with growing pauses, until it is in. Nothing is lost and nothing
  is reported; the queue fills up and `has_room` turns requests away.
- A fact that cannot be stored at all (a number that is none): `append` raises ValueError and queues nothing,
  which is the trouble of that session alone.
- Anything else is a mistake of ours: the rules of the domain and the schema disagree, and what would be
  reported as committed can no longer be trusted. `run` raises, and the node is meant to die of it. Nobody
  gets an acknowledgement that is not true, and what was acknowledged is in Postgres.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import trio

from engine.domain.facts import Fact
from engine.latency import NO_LATENCY, LatencyStatistics, Signs
from engine.ports import CommitListener, Owned, StorageUnavailable
from engine.storage.heartbeat import Heartbeat, SignOfLife
from engine.storage.journal.path import CommitPath, PathState
from engine.storage.journal.queue import FactQueue, Taken
from engine.storage.journal.retained import Retained, RetainedStatistics
from engine.storage.postgres import Database
from engine.storage.spool.journal import SpoolingStatistics, SpoolJournal

_log = logging.getLogger(__name__)

SMALL = 50
"""Facts of a batch that is converted and handed over in one step: well under a millisecond."""


@dataclass(frozen=True, slots=True)
class WriteBehindStatistics:
    """A snapshot.

    Attributes:
        queued: facts that wait for their commit or are in it.
        committed_total, batches_total: facts and transactions since the start.
        fenced_total: sessions that were found to be another owner's.
        retries_total: commits that had to be tried again.
        last_commit_s: how long the last transaction took.
        commits: how long transactions took.
        latency: from the append of a batch's oldest fact to the end of its transaction.
        healthy: no commit has to be repeated just now, and the last attempt to reach Postgres succeeded.
        spooling: the path by way of the spool; None without one.
        retained: what the database has lost and this node has written again.
    """

    queued: int
    committed_total: int
    batches_total: int
    fenced_total: int
    retries_total: int
    last_commit_s: float
    latency: LatencyStatistics
    healthy: bool
    spooling: SpoolingStatistics | None
    retained: RetainedStatistics
    commits: LatencyStatistics = NO_LATENCY


class WriteBehind:
    """Port `Journal` over Postgres, and the sign of life of the node.

    `run` must be running for anything to be committed.

    Args:
        owner: what sessions are claimed with: names this run of the node, and no earlier one.
        now_ms: the clock that dates signs of life.
        spool: where facts go when Postgres does not take them; None keeps them waiting.
        spool_after_s: a batch that is not committed after so long goes to the spool.
        retained: hears of what is stored.
        sign: what is said as a sign of life: with the lease of a node in a cluster, or to keep the lease of
            a node that is alone.
        clock_s: the clock of the lease.
        facts_max: beyond this many queued facts `has_room` says no.
        batch_facts_max: facts in one transaction. Handing 500 to the driver holds the loop for 1.3 ms, 1,000
            for 3 to 5 ms; more gain little (`bench/group_commit.py`). When more than twice as many wait, a
            transaction takes several times as many.
        shutdown_s: after its cancellation `run` goes on for at most this long to commit what is queued.
        pause_s: asked before each batch: how long after the last batch this one is taken at the earliest,
            in seconds. A full batch, a fact that changes a session for everybody, a stop, and a path that
            is not straight do not wait for it.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        now_ms: Callable[[], int],
        spool: SpoolJournal | None = None,
        spool_after_s: float = 1.0,
        retained: Retained | None = None,
        sign: SignOfLife | None = None,
        clock_s: Callable[[], float] = trio.current_time,
        facts_max: int = 50_000,
        batch_facts_max: int = 500,
        alive_interval_s: float = 0.5,
        retry_min_s: float = 0.05,
        retry_max_s: float = 2.0,
        shutdown_s: float = 5.0,
        pause_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._spool = spool
        self._retained = retained
        self._facts_max = facts_max
        self._shutdown_s = shutdown_s
        self._pause_s = pause_s
        self._taken_s = -math.inf
        self._queue = FactQueue(batch_facts_max)
        self._heartbeat = Heartbeat(
            database,
            sign or SignOfLife(),
            owner=owner,
            now_ms=now_ms,
            clock_s=clock_s,
            interval_s=alive_interval_s,
        )
        self._path = CommitPath(
            database,
            self._queue,
            owner=owner,
            spool=spool,
            after_s=spool_after_s,
            retained=retained,
            answered=self._heartbeat.answered,
            batch_facts_max=batch_facts_max,
            retry_min_s=retry_min_s,
            retry_max_s=retry_max_s,
        )
        self._in_hand: Taken | None = None
        self._secured = trio.lowlevel.ParkingLot()
        self._stopping = False
        self._ended = False

    def watch(self, owned: Callable[[], Iterable[Owned]]) -> None:
        """Look after the sessions that this node holds: `owned` says which, whenever it is asked."""
        self._heartbeat.watch(owned)

    @property
    def straight(self) -> bool:
        """Whether facts go straight to Postgres, rather than by way of the spool."""
        return self._path.state is PathState.STRAIGHT

    async def wait_straight(self) -> None:
        """Wait until facts go straight to Postgres: all of the spool is there then."""
        await self._path.wait_straight()

    def has_room(self, share: float = 1.0) -> bool:
        if self._ended or self._queue.queued >= share * self._facts_max:
            return False
        return self._path.has_room(share)

    def acknowledges_without_postgres(self) -> bool:
        """Whether facts would be acknowledged from the spool if Postgres went away now."""
        return self._spool is not None and self._spool.usable() and not self._ended

    def database_problem(self) -> str | None:
        """A sentence on what keeps the database from answering; None as long as it does."""
        return self._heartbeat.database_problem()

    @property
    def database_signs(self) -> Signs:
        """What the signs of life to the database have shown."""
        return self._heartbeat.signs

    def why_full(self) -> str | None:
        """A sentence on what keeps facts from being stored; None as long as there is room."""
        if self.has_room():
            return None
        return self._path.problem() or "the journal is full: the database does not keep up"

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        self._queue.append(session_id, epoch, facts, listener)

    def statistics(self) -> WriteBehindStatistics:
        path = self._path
        return WriteBehindStatistics(
            queued=self._queue.queued,
            committed_total=path.committed_total,
            batches_total=path.batches_total,
            fenced_total=path.fenced_total,
            retries_total=path.retries_total,
            last_commit_s=path.last_commit_s,
            latency=path.latency(),
            healthy=path.healthy and self._heartbeat.reachable,
            spooling=path.spooling(),
            retained=RetainedStatistics() if self._retained is None else self._retained.statistics(),
            commits=path.commits.statistics(),
        )

    async def drain(self) -> None:
        """Wait until nothing is queued. Raises StorageUnavailable when `run` ended before that."""
        await trio.lowlevel.checkpoint()
        await self._queue.emptied()
        if self._queue.queued:
            raise StorageUnavailable(f"{self._queue.queued} facts were not committed before the end")

    async def settled(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._spool is None:
            return
        # What an earlier actor of the session left unreported would be fenced: keep it out of the spool.
        self._queue.forget_session(session_id)
        # The batch that is on its way may still go to the spool.
        while self._has_in_hand(session_id):
            await self._secured.park()
        await self._spool.settled(session_id)

    def _has_in_hand(self, session_id: str) -> bool:
        taken = self._in_hand
        return taken is not None and any(part.session_id == session_id for part in taken.parts)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled, then what is still queued, as far as `shutdown_s` reaches.

        Reports as started after the first sign of life. Raises what shows a mistake of ours, but never
        StorageUnavailable.
        """
        writing = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, writing)
                nursery.start_soon(self._path.drain)
                nursery.start_soon(self._heartbeat.beat)
                try:
                    await self._heartbeat.run(task_status)
                finally:
                    self._stopping = True
                    self._queue.wake()
                    writing.deadline = trio.current_time() + self._shutdown_s
        finally:
            self._ended = True
            self._queue.end()
            await self._path.aclose()
            await self._heartbeat.aclose()
            if self._queue.queued:
                _log.error("%d facts were not committed; none of them was acknowledged", self._queue.queued)

    async def _write(self, writing: trio.CancelScope) -> None:
        with writing:
            await self._path.connect()
            while self._queue or not self._stopping:
                if self._queue:
                    await self._company()
                    if not self._queue:  # it was dropped meanwhile
                        continue
                    taken = self._in_hand = self._queue.take()
                    if taken.count > SMALL:
                        # Converting a batch and handing it over are each a while without a pause.
                        await trio.lowlevel.checkpoint()
                    await self._path.secure(taken)
                    self._in_hand = None
                    self._secured.unpark_all()
                else:
                    await self._queue.arrival()
            await self._heartbeat.farewell()

    async def _company(self) -> None:
        """Keep commits apart for as long as `pause_s` says."""
        until_s = self._taken_s + self._pause_s()
        if until_s > trio.current_time() and self.straight and not self._stopping:
            await self._queue.company(until_s)
        self._taken_s = trio.current_time()
