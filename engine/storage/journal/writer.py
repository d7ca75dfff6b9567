"""Write-behind with group commit: what is reported as committed is in Postgres, or in the spool of this node.

One task takes what waits, from all sessions, commits it in one statement, reports, and takes what has
gathered meanwhile. Under little load every fact is on its way at once; under much, batches grow by
themselves.

What goes wrong is sorted by whose doing it is:

- Postgres away, too slow, or otherwise unable for the moment: the batch is repeated for a moment, then it
  goes to the spool (`spooling.py`), and so does all that comes after it until the spool is empty again.
  Without a spool that takes it, the batch is repeated, with growing pauses, until it is in. Nothing is lost
  and nothing is reported; the queue fills up and `has_room` turns requests away.
- A fact that cannot be stored at all (a number that is none): `append` raises ValueError and queues nothing,
  which is the trouble of that session alone.
- Anything else is a mistake of ours: the rules of the domain and the schema disagree, and what would be
  reported as committed can no longer be trusted. `run` raises, and the node is meant to die of it. Nobody
  gets an acknowledgement that is not true, and what was acknowledged is in Postgres.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from engine.domain.facts import Fact
from engine.ports import CommitListener, Owned, StorageUnavailable
from engine.storage.heartbeat import FORGET_NODES, STILL_OWN, SignOfLife
from engine.storage.journal.latency import Latency, LatencyStatistics
from engine.storage.journal.retained import Retained, RetainedStatistics
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.postgres import Database, Row
from engine.storage.spool.codec import SessionFacts
from engine.storage.spool.journal import REPORTS_PER_SLICE, Entry, Spooling, SpoolingStatistics

_log = logging.getLogger(__name__)

LARGE = 4
"""A commit takes a few turns of the loop. On a node without time to spare they come rarely, and commits too.
Then what counts is how many facts go with each, and not the few milliseconds more that they hold the loop."""

SILENT_MAX_S = 2.0
"""A database that has answered neither a sign of life nor a commit for so long does not answer."""

_SIGN_TIMEOUT_S = 5.0
"""After so long without an answer a sign of life is given up: the next goes over a new connection."""


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
        spooling: the way through the spool; None without one.
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


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Facts of one session that are committed together."""

    session_id: str
    epoch: int
    seq: int
    facts: Sequence[Fact]
    rows: FactRows
    listener: CommitListener
    since: float

    @property
    def count(self) -> int:
        return len(self.facts)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A batch on its way, and who is to hear of it: the number of a session in it, to its last facts."""

    batch: Batch
    parts: Sequence[_Waiting]
    last: dict[int, _Waiting]
    count: int
    since: float


class WriteBehind:
    """Port `Journal` over Postgres, and the sign of life of the node.

    `run` must be running for anything to be committed.

    Args:
        owner: what sessions are claimed with: names this run of the node, and no earlier one.
        now_ms: the clock that dates signs of life.
        spooling: where facts go when Postgres does not take them; None keeps them waiting.
        retained: hears of what is stored.
        sign: what is said as a sign of life: with the lease of a node in a cluster, or to keep the lease of
            one that is alone.
        clock_s: the clock of the lease.
        facts_max: beyond this many queued facts `has_room` says no.
        batch_facts_max: facts in one transaction. Handing 500 to the driver holds the loop for 1.3 ms, 1,000
            for 3 to 5 ms; more gain little (`bench/group_commit.py`). When more than twice as many
            wait, a transaction takes up to `LARGE` times as many.
        shutdown_s: after its cancellation `run` goes on for at most this long to commit what is queued.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        now_ms: Callable[[], int],
        spooling: Spooling | None = None,
        retained: Retained | None = None,
        sign: SignOfLife | None = None,
        clock_s: Callable[[], float] = trio.current_time,
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
        self._retained = retained
        self._spooling = spooling
        if spooling is not None:
            spooling.forget = self._forget
        self._sign = sign or SignOfLife()
        self._signs = database.connection()
        self._clock_s = clock_s
        self._owned: Callable[[], Iterable[Owned]] = tuple
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
        self._in_hand: _Taken | None = None
        self._secured = trio.Event()
        self._stuck = False
        self._close_reason = False
        self._ended = False

        self._committed_total = 0
        self._batches_total = 0
        self._fenced_total = 0
        self._retries_total = 0
        self._last_commit_s = 0.0
        self._latency = Latency()
        self._commits_healthy = True
        self._alive_healthy = True
        self._answered_s = trio.current_time()
        self._waits = False
        self._trouble = ""

    def watch(self, owned: Callable[[], Iterable[Owned]]) -> None:
        """Whose sessions to look after: all that this node holds, whenever it is asked."""
        self._owned = owned

    def has_room(self, share: float = 1.0) -> bool:
        if self._ended or self._stuck or self._queued >= share * self._facts_max:
            return False
        return self._spooling is None or self._spooling.has_room(share)

    def acknowledges_without_postgres(self) -> bool:
        """Whether facts would be acknowledged from the spool if Postgres went away now."""
        return self._spooling is not None and self._spooling.usable() and not self._ended

    def database_problem(self) -> str | None:
        """A sentence on what keeps the database from answering; None as long as it does."""
        silent_s = trio.current_time() - self._answered_s
        if silent_s >= SILENT_MAX_S:
            return f"the database has not answered for {silent_s:.0f} s"
        return None if self._alive_healthy else "the database cannot be reached"

    def why_full(self) -> str | None:
        """A sentence on what keeps facts from being stored; None as long as there is room."""
        if self.has_room():
            return None
        spooling = self._spooling
        trouble = None
        if spooling is not None and (self._stuck or spooling.active):
            trouble = spooling.problem()
        return trouble or "the journal is full: the database does not keep up"

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        waiting = []
        for start in range(0, len(facts), self._batch_facts_max):
            part = facts[start : start + self._batch_facts_max]
            waiting.append(
                _Waiting(
                    session_id,
                    epoch,
                    part[-1].seq,
                    tuple(part),
                    FactRows(part),
                    listener,
                    trio.current_time(),
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
            spooling=None if self._spooling is None else self._spooling.statistics(),
            retained=RetainedStatistics() if self._retained is None else self._retained.statistics(),
        )

    async def drain(self) -> None:
        """Wait until nothing is queued. Raises StorageUnavailable when `run` ended before that."""
        await trio.lowlevel.checkpoint()
        await self._emptied.wait()
        if self._queued:
            raise StorageUnavailable(f"{self._queued} facts were not committed before the end")

    async def settled(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._spooling is None:
            return
        # What an earlier actor of the session left unreported would be fenced: keep it out of the spool.
        self._drop(lambda waiting: waiting.session_id == session_id)
        # It may still go to the spool.
        while self._has_in_hand(session_id):
            await self._secured.wait()
        await self._spooling.settled(session_id)

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
                if self._spooling is not None:
                    nursery.start_soon(self._spooling.drain)
                nursery.start_soon(self._sign.watch, self._clock_s)
                try:
                    await self._say(FORGET_NODES, self._now_ms())
                    await self._show_life()
                    task_status.started()
                    while True:
                        await trio.sleep(self._alive_interval_s)
                        await self._show_life()
                finally:
                    self._close_reason = True
                    self._arrived.set()
                    writing.deadline = trio.current_time() + self._shutdown_s
        finally:
            self._ended = True
            self._emptied.set()
            await self._connection.aclose()
            await self._signs.aclose()
            if self._spooling is not None:
                await self._spooling.aclose()
            if self._queued:
                _log.error("%d facts were not committed; none of them was acknowledged", self._queued)

    async def _write(self, writing: trio.CancelScope) -> None:
        with writing:
            await self._connect()
            while self._queue or not self._close_reason:
                if self._queue:
                    taken = self._in_hand = self._take()
                    # Converting a batch and handing it over are each a while without a pause.
                    await trio.lowlevel.checkpoint()
                    await self._secure(taken)
                    self._in_hand = None
                    self._secured.set()
                    self._secured = trio.Event()
                else:
                    self._arrived = trio.Event()
                    await self._arrived.wait()
            if (farewell := self._sign.farewell(self._owner, self._now_ms())) is not None:
                sql, arguments = farewell
                await self._say(sql, *arguments)

    async def _connect(self) -> None:
        """So that the first who waits for a commit does not wait for a connection as well."""
        patience_s = _SIGN_TIMEOUT_S if self._spooling is None else self._spooling.after_s
        with trio.move_on_after(patience_s), suppress(StorageUnavailable):
            await self._connection.fetch("SELECT")

    def _take(self) -> _Taken:
        batch = Batch()
        parts: list[_Waiting] = []
        last: dict[int, _Waiting] = {}
        count = 0
        since = self._queue[0].since
        most = self._batch_facts_max
        if self._queued > 2 * most:
            most *= LARGE
        while self._queue and count + self._queue[0].count <= most:
            waiting = self._queue.popleft()
            number = batch.add(waiting.session_id, waiting.epoch, waiting.rows)
            parts.append(waiting)
            last[number] = waiting
            count += waiting.count
        return _Taken(batch, parts, last, count, since)

    async def _secure(self, taken: _Taken) -> None:
        """Get a batch to Postgres or into the spool, whatever it takes, and report it."""
        spooling = self._spooling
        arguments = taken.batch.arguments(self._owner)
        patience_s = math.inf if spooling is None else spooling.after_s
        deadline_s = trio.current_time() + patience_s
        pause_s = self._retry_min_s
        while True:
            if spooling is None or not spooling.active:
                # Without a spool to go to, Postgres has all the time that it takes.
                may_spool = spooling is not None and spooling.certain()
                limit_s = max(self._retry_min_s, deadline_s - trio.current_time()) if may_spool else math.inf
                fenced = await self._commit(taken, arguments, limit_s)
                if fenced is not None:
                    await self._report(taken, fenced)
                    break
            if spooling is not None and (spooling.active or trio.current_time() >= deadline_s):
                was_active = spooling.active
                if await spooling.append(_entries(taken), self._trouble):
                    self._waits = False
                    self._leave(taken.count)
                    break
                if was_active and not spooling.active:
                    continue
                self._stuck = True
                # Postgres may only be slow: let it have as long as it takes.
                patience_s *= 2
                deadline_s = trio.current_time() + patience_s
            await trio.sleep(min(pause_s, max(0.0, deadline_s - trio.current_time())))
            pause_s = min(2 * pause_s, self._retry_max_s)
        self._stuck = False

    async def _commit(self, taken: _Taken, arguments: Sequence[object], limit_s: float) -> set[int] | None:
        """Returns the numbers of the sessions that are somebody else's; None when it failed or took longer
        than `limit_s`, and then it is not known whether anything is stored."""
        started = trio.current_time()
        try:
            with trio.fail_after(limit_s):
                live = await self._connection.fetch(COMMIT, *arguments)
        except StorageUnavailable as error:
            self._trouble = str(error)
        except trio.TooSlowError:
            self._trouble = f"a commit has taken longer than {limit_s:.1f} s"
        else:
            ended = self._answered_s = trio.current_time()
            if self._waits:
                _log.warning("commits go on")
            self._waits = False
            self._commits_healthy = self._alive_healthy = True
            self._batches_total += 1
            self._last_commit_s = ended - started
            self._latency.add(ended - taken.since)
            return taken.batch.fenced(live)
        self._retries_total += 1
        if self._commits_healthy:
            _log.warning("commits wait for Postgres: %s", self._trouble)
            self._waits = True
        self._commits_healthy = False
        return None

    async def _report(self, taken: _Taken, fenced: set[int]) -> None:
        for told, number in enumerate(fenced):
            if told % REPORTS_PER_SLICE == REPORTS_PER_SLICE - 1:
                await trio.lowlevel.checkpoint()
            self._fenced_total += 1
            taken.last[number].listener.fenced()
        if fenced:
            self._forget({(taken.last[number].session_id, taken.last[number].epoch) for number in fenced})
        if self._retained is not None:
            theirs = {(taken.last[number].session_id, taken.last[number].epoch) for number in fenced}
            for part in taken.parts:
                if (part.session_id, part.epoch) not in theirs:
                    self._retained.stored(part.session_id, part.facts)
        for told, (number, waiting) in enumerate(taken.last.items()):
            if told % REPORTS_PER_SLICE == REPORTS_PER_SLICE - 1:
                await trio.lowlevel.checkpoint()
            if number not in fenced:
                waiting.listener.committed(waiting.seq)
        self._committed_total += taken.count
        self._leave(taken.count)

    def _forget(self, stale: set[tuple[str, int]]) -> None:
        """Drop what fenced sessions have queued since."""
        self._drop(lambda waiting: (waiting.session_id, waiting.epoch) in stale)

    def _drop(self, unwanted: Callable[[_Waiting], bool]) -> None:
        kept = deque(waiting for waiting in self._queue if not unwanted(waiting))
        dropped = sum(waiting.count for waiting in self._queue) - sum(waiting.count for waiting in kept)
        self._queue = kept
        self._leave(dropped)

    def _leave(self, count: int) -> None:
        self._queued -= count
        if not self._queued:
            self._emptied.set()

    # -- signs of life ---------------------------------------------------------------------------

    async def _show_life(self) -> None:
        asked_s = self._clock_s()
        sql, arguments = self._sign.statement(self._owner, self._now_ms())
        rows = await self._say(sql, *arguments)
        if rows is None:
            return
        self._sign.answered(rows, asked_s, self._clock_s())
        if self._sign.to_prove(self._clock_s()):
            await self._prove()

    async def _prove(self) -> None:
        """Find every session that this node holds to be its own still; one that is not is fenced."""
        asked_s = self._clock_s()
        owned = list(self._owned())
        ids, epochs = [each.session_id for each in owned], [each.epoch for each in owned]
        rows = await self._say(STILL_OWN, ids, epochs, self._owner)
        if rows is not None:
            own = {(str(row["id"]), row["epoch"]) for row in rows}
            for each in owned:
                if (each.session_id, each.epoch) not in own:
                    each.fenced()
            self._sign.proved(asked_s, self._clock_s())

    async def _say(self, sql: str, *args: object) -> Sequence[Row] | None:
        """Signs of life have a connection of their own: nothing delays them. None when it failed."""
        with trio.move_on_after(_SIGN_TIMEOUT_S):
            try:
                rows = await self._signs.fetch(sql, *args)
            except StorageUnavailable:
                pass
            else:
                self._alive_healthy = True
                self._answered_s = trio.current_time()
                return rows
        self._alive_healthy = False
        return None


def _entries(taken: _Taken) -> list[Entry]:
    return [
        Entry(SessionFacts(part.session_id, part.epoch, part.facts), part.listener) for part in taken.parts
    ]
