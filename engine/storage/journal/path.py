"""The path of facts to PostgreSQL: straight, or by way of the spool of this node.

How to think about it: the facts of a session must reach PostgreSQL in their order, so at any moment there is
one path for all facts, and it has a state. The writer looks at the state before each attempt to get a batch
through. The drain, which takes the spool to PostgreSQL, alone brings the path back to `STRAIGHT`.

    event             STRAIGHT                     SPOOLING                    SWITCHING
    ----------------  ---------------------------  --------------------------  ---------------------------
    (meaning)         batches are committed        batches go to the spool,    the drain commits what may
                                                   behind all that is there    be the last of the spool
    a new batch       is committed                 goes to the spool           waits until STRAIGHT; after
                                                                               `after_s` it goes to the
                                                                               spool: SPOOLING
    a commit fails,   it is repeated; after        the drain repeats its       the drain repeats its
    or hangs          `after_s` the batch goes to  commit until it is through  commit: SPOOLING
                      the spool: SPOOLING
    the spool does    the batch is tried in both   the batch is tried again    as SPOOLING
    not take a batch  until either takes it        until the spool takes it,
                                                   or until STRAIGHT
    PostgreSQL is     the repeated commit goes     the drain commits; with no  the drain commits; with an
    back              through                      more than a batch left:     empty spool: STRAIGHT
                                                   SWITCHING
    a stop            what is queued is committed  what is queued goes to the  as a new batch
                      as far as `shutdown_s`       spool; the spool stays for
                      reaches                      the next start

The path of a node begins in `STRAIGHT`, or in `SPOOLING` if an earlier run has left facts in the spool.

A batch goes to the spool, and is acknowledged from there, only while the lease is certain that no other
node can own its sessions: the lease is asked before the write and again after it. The drain commits facts
under the epoch under which they were made. It rests after each commit for as long as the commit took, so
that live traffic has the better half of PostgreSQL and of the loop. It does not rest when there is no live
traffic, or when the spool does not get emptier in spite of it. Facts under an old epoch were acknowledged
already, so they are not dropped: they are put aside in the table `spooled_facts`, for the present owner to
merge.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum

import orjson
import trio

from engine.latency import Latency, LatencyStatistics
from engine.ports import Commit, StorageUnavailable
from engine.storage.journal.queue import FactQueue, Taken
from engine.storage.journal.retained import PUT_ASIDE, Retained
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import Batch
from engine.storage.postgres import Database, Row
from engine.storage.spool.codec import SessionFacts, encode_facts
from engine.storage.spool.journal import Entry, Portion, SpoolingStatistics, SpoolJournal, facts_in

_log = logging.getLogger(__name__)

REPORTS_PER_SLICE = 50
"""Listeners told in a row before all other tasks get a turn."""

PROBE_EVERY_S = 5.0
"""The pause between two looks at a disk that failed and is not needed just now."""

_CONNECT_TIMEOUT_S = 5.0


class PathState(Enum):
    """Where the next batch goes. The table above says what happens in each state."""

    STRAIGHT = "straight"
    SPOOLING = "spooling"
    SWITCHING = "switching"


class CommitPath:
    """Gets batches to PostgreSQL or into the spool, and tells their listeners.

    Two tasks use it: the writer calls `secure` for one batch after another, and `drain` runs beside it.

    Args:
        queue: where batches come from; hears how many facts are stored, and which sessions have another
            owner.
        owner: the run of a node that has claimed the sessions; also named with facts that are put aside.
        spool: where facts go when PostgreSQL does not take them; None lets them wait.
        after_s: a batch that is not committed after so long goes to the spool.
        retained: hears of what PostgreSQL has confirmed.
        answered: called when PostgreSQL has answered a commit.
    """

    def __init__(
        self,
        database: Database,
        queue: FactQueue,
        *,
        owner: str,
        spool: SpoolJournal | None,
        after_s: float,
        retained: Retained | None,
        answered: Callable[[], None],
        batch_facts_max: int,
        retry_min_s: float,
        retry_max_s: float,
    ) -> None:
        self._connection = database.connection()
        self._draining = database.connection()
        self._queue = queue
        self._owner = owner
        self._spool = spool
        self._after_s = after_s
        self._retained = retained
        self._answered = answered
        self._batch_facts_max = batch_facts_max
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s

        left = spool is not None and spool.facts > 0
        self._state = PathState.SPOOLING if left else PathState.STRAIGHT
        self._changed = trio.Event()
        # Held while the spool gets a batch, and while the drain finds it empty and leaves it.
        self._spool_turn = trio.Lock()
        self._since_s = trio.current_time()
        self._pace = _Pace(self._since_s, hurry=left)
        self._stuck = False
        self._healthy = True
        self._waits = False
        self._trouble = ""

        self.committed_total = 0
        self.batches_total = 0
        self.fenced_total = 0
        self.retries_total = 0
        self.last_commit_s = 0.0
        self._put_aside_total = 0
        self._latency = Latency()
        self.commits = Latency()
        """How long transactions took."""

    @property
    def state(self) -> PathState:
        return self._state

    @property
    def stuck(self) -> bool:
        """Whether neither PostgreSQL nor the spool takes the batch that is on its way."""
        return self._stuck

    @property
    def healthy(self) -> bool:
        """Whether the last commit of the writer succeeded."""
        return self._healthy

    def latency(self) -> LatencyStatistics:
        return self._latency.statistics()

    def spooling(self) -> SpoolingStatistics | None:
        """None without a spool."""
        if self._spool is None:
            return None
        active = self._state is not PathState.STRAIGHT
        return self._spool.statistics(active=active, put_aside_total=self._put_aside_total)

    def has_room(self, share: float) -> bool:
        """Whether a request may be taken, as far as the spool has a say in it."""
        if self._stuck:
            return False
        return self._spool is None or self._state is PathState.STRAIGHT or self._spool.usable(share)

    def problem(self) -> str | None:
        """A sentence on why the spool takes nothing although it should; None if it does, or need not."""
        needed = self._stuck or self._state is not PathState.STRAIGHT
        return self._spool.problem() if needed and self._spool is not None else None

    async def wait_straight(self) -> None:
        """Wait until facts go straight to PostgreSQL."""
        while self._state is not PathState.STRAIGHT:
            await self._changed.wait()

    def _become(self, state: PathState) -> None:
        if state is not self._state:
            self._state = state
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def connect(self) -> None:
        """Spare the first batch the wait for a connection. Never raises for PostgreSQL's sake."""
        patience_s = _CONNECT_TIMEOUT_S if self._spool is None else self._after_s
        with trio.move_on_after(patience_s), suppress(StorageUnavailable):
            await self._connection.fetch("SELECT")

    async def aclose(self) -> None:
        """When neither `secure` nor `drain` runs any more. What is in the spool stays there."""
        await self._connection.aclose()
        await self._draining.aclose()
        if self._spool is not None and (left := self._spool.facts):
            _log.warning("%d facts stay in the spool; the next start takes them to Postgres", left)

    # -- the writer ------------------------------------------------------------------------------

    async def secure(self, taken: Taken) -> None:
        """Get a batch to PostgreSQL or into the spool, however long it takes, and tell its listeners.

        Raises what shows a mistake of ours, but never StorageUnavailable.
        """
        sql, arguments = taken.batch.statement(self._owner)
        patience_s = math.inf if self._spool is None else self._after_s
        began_s = trio.current_time()
        deadline_s = began_s + patience_s
        pause_s = self._retry_min_s
        while True:
            await self._switched()
            before = self._state
            if before is PathState.STRAIGHT and await self._commit(
                taken, sql, arguments, began_s, deadline_s
            ):
                break
            if before is not PathState.STRAIGHT or trio.current_time() >= deadline_s:
                if await self._put_into_spool(taken, before, began_s):
                    break
                if self._state is not before:
                    continue
                self._stuck = True
                # PostgreSQL may only be slow: let it have as long as it takes.
                patience_s *= 2
                deadline_s = trio.current_time() + patience_s
            await trio.sleep(min(pause_s, max(0.0, deadline_s - trio.current_time())))
            pause_s = min(2 * pause_s, self._retry_max_s)
        self._stuck = False

    async def _switched(self) -> None:
        """Hold the writer back while the path may be straight again in a moment."""
        if self._state is not PathState.SWITCHING:
            return
        with trio.move_on_after(self._after_s):
            while self._state is PathState.SWITCHING:
                await self._changed.wait()
        # The drain may have come to its end in the very moment in which patience did.
        if self._state is PathState.SWITCHING:
            self._become(PathState.SPOOLING)

    async def _commit(
        self, taken: Taken, sql: str, arguments: Sequence[object], began_s: float, deadline_s: float
    ) -> bool:
        """False when the commit failed, or took until the deadline while the spool may be used instead. Then
        it is not known whether anything is stored."""
        started = trio.current_time()
        # Without a spool to go to, PostgreSQL has all the time that it takes.
        may_spool = self._spool is not None and self._spool.certain()
        limit_s = max(self._retry_min_s, deadline_s - started) if may_spool else math.inf
        try:
            live = await self._connection.fetch(sql, *arguments, timeout_s=limit_s)
        except StorageUnavailable as error:
            self._trouble = str(error)
        else:
            ended = trio.current_time()
            self._answered()
            if self._waits:
                _log.warning("commits go on")
            self._waits = False
            self._healthy = True
            self.batches_total += 1
            self.last_commit_s = ended - started
            self.commits.add(ended - started)
            self._latency.add(ended - taken.since)
            await self._report(taken, taken.batch.fenced(live), Commit(began_s, ended, taken.count))
            return True
        self.retries_total += 1
        if self._healthy:
            _log.warning("commits wait for Postgres: %s", self._trouble)
            self._waits = True
        self._healthy = False
        return False

    async def _report(self, taken: Taken, fenced: set[int], commit: Commit) -> None:
        for told, number in enumerate(fenced, start=1):
            await _slice(told)
            self.fenced_total += 1
            taken.last[number].listener.fenced()
        theirs = {(taken.last[number].session_id, taken.last[number].epoch) for number in fenced}
        if theirs:
            self._queue.forget(theirs)
        if self._retained is not None:
            for part in taken.parts:
                if (part.session_id, part.epoch) not in theirs:
                    self._retained.stored(part.session_id, part.facts)
        for told, (number, waiting) in enumerate(taken.last.items(), start=1):
            await _slice(told)
            if number not in fenced:
                waiting.listener.committed(waiting.seq, commit)
        self.committed_total += taken.count
        self._queue.leave(taken.count)

    async def _put_into_spool(self, taken: Taken, before: PathState, began_s: float) -> bool:
        """False when the batch is not there: the disk does not take it, it may not be acknowledged from
        there, or the path has become straight since it was `before`. A batch that is there, but of which the
        node is no longer certain, is reported by the drain."""
        if self._spool is None:
            return False
        entries = [
            Entry(SessionFacts(part.session_id, part.epoch, part.facts), part.listener)
            for part in taken.parts
        ]
        async with self._spool_turn:
            if self._state is PathState.STRAIGHT and before is not PathState.STRAIGHT:
                return False
            if not self._spool.certain() or not await self._spool.write(entries):
                self._tell()
                return False
            if self._state is PathState.STRAIGHT:
                self._since_s = trio.current_time()
                self._pace = _Pace(self._since_s, hurry=False)
                _log.warning("facts go to the spool, and are acknowledged from there: %s", self._trouble)
                self._become(PathState.SPOOLING)
        commit = Commit(began_s, trio.current_time(), taken.count, spooled=True)
        for told, entry in enumerate(entries, start=1):
            await _slice(told)
            if not self._spool.certain():
                break
            self._spool.acknowledge(entry, commit)
        self._waits = False
        self._queue.leave(taken.count)
        return True

    # -- the drain -------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Take what is in the spool to PostgreSQL, and end the spooling when it is empty, for ever.

        Raises what shows a mistake of ours or damage to the spool, but never StorageUnavailable.
        """
        if self._spool is None:
            return
        while True:
            while self._state is PathState.STRAIGHT:
                await self._look_after(self._spool)
            portion = await self._read(self._spool)
            if portion is not None:
                await self._drain(self._spool, portion)
                continue
            async with self._spool_turn:
                if await self._spool.clear():
                    took_s = trio.current_time() - self._since_s
                    _log.warning(
                        "facts go straight to Postgres again, after %.1f s by way of the spool", took_s
                    )
                    self._become(PathState.STRAIGHT)

    async def _look_after(self, spool: SpoolJournal) -> None:
        """Wait for a change. Where nothing is written to a disk that failed, because nothing has to be, find
        out now and then whether it would take something."""
        with trio.move_on_after(PROBE_EVERY_S if spool.failing else math.inf):
            await self._changed.wait()
            return
        async with self._spool_turn:
            if self._state is PathState.STRAIGHT and not self._stuck:
                await spool.probe()

    async def _read(self, spool: SpoolJournal) -> Portion | None:
        """What comes next, as soon as it can be read: no file may be left to open just now."""
        pause_s = self._retry_min_s
        while True:
            try:
                return await spool.read(self._batch_facts_max)
            except OSError as error:
                if pause_s == self._retry_min_s:
                    _log.error("the spool cannot be read, and is not drained: %s", error)
            self._become(PathState.SPOOLING)
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._retry_max_s)

    async def _drain(self, spool: SpoolJournal, portion: Portion) -> None:
        batch = Batch()
        by_number: dict[int, list[SessionFacts]] = {}
        own: list[SessionFacts] = []
        for record in portion.records:
            for facts in facts_in(record):
                number = batch.add(facts.session_id, facts.epoch, FactRows(facts.facts))
                by_number.setdefault(number, []).append(facts)
                if record.number > portion.inherited_up_to:
                    own.append(facts)
            await trio.lowlevel.checkpoint()
        # With this much left the writer can wait for it, and the next facts go straight to PostgreSQL.
        last = spool.facts <= self._batch_facts_max
        self._become(PathState.SWITCHING if last else PathState.SPOOLING)
        # The sessions of an earlier run were owned by that run.
        owner = None if portion.begins_inherited else self._owner
        live, took_s = await self._persist(*batch.statement(owner))
        ended_s = trio.current_time()
        commit = Commit(ended_s - took_s, ended_s, sum(record.facts for record in portion.records))
        fenced = batch.fenced(live)
        for number in fenced:
            await self._put_aside(by_number[number])
        await spool.forget(portion)
        for number, parts in by_number.items():
            if number in fenced:
                self._queue.forget({(parts[-1].session_id, parts[-1].epoch)})
            elif self._retained is not None:
                for part in parts:
                    self._retained.stored(part.session_id, part.facts)
            spool.report(parts[-1], commit, fenced=number in fenced)
            await trio.lowlevel.checkpoint()
        spool.release(portion, own)
        await self._give_way(took_s)

    async def _persist(self, sql: str, args: Sequence[object]) -> tuple[Sequence[Row], float]:
        """One statement, again and again until PostgreSQL has taken it. Returns the rows, and how long the
        last attempt took: without the time for which PostgreSQL was away."""
        pause_s = self._retry_min_s
        while True:
            started = trio.current_time()
            try:
                rows = await self._draining.fetch(sql, *args)
                return rows, trio.current_time() - started
            except StorageUnavailable as error:
                _log.debug("the drain of the spool waits for Postgres: %s", error)
                self._become(PathState.SPOOLING)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, self._retry_max_s)

    async def _put_aside(self, parts: Sequence[SessionFacts]) -> None:
        for part in parts:
            count = len(part.facts)
            data = orjson.dumps(encode_facts(part.facts)).decode()
            first = part.facts[0].seq
            await self._persist(PUT_ASIDE, (part.session_id, part.epoch, first, count, self._owner, data))
            self._put_aside_total += count
            _log.warning(
                "session %s has another owner: %d facts of epoch %d from the spool are put aside for it",
                part.session_id,
                count,
                part.epoch,
            )

    async def _give_way(self, took_s: float) -> None:
        """Let live traffic have PostgreSQL for as long as the drain had it, unless the spool would never be
        emptied, or is about to be."""
        if self._spool is None:
            return
        rest_s = self._pace.rest_s(trio.current_time(), took_s, self._spool.facts)
        hurries = self._spool.inherits or self._state is PathState.SWITCHING or not self._spool.certain()
        if rest_s and not hurries:
            await trio.sleep(rest_s)


class _Pace:
    """How long the drain rests after a commit.

    Args:
        hurry: there is no live traffic yet.
    """

    _PROGRESS_EVERY_S = 1.0
    _REST_MAX_S = 1.0
    """A commit that took longer was held up, by a network perhaps, and not at work."""

    def __init__(self, now_s: float, *, hurry: bool) -> None:
        self._since_s = now_s
        self._left_before = math.inf
        self._hurry = hurry

    def rest_s(self, now_s: float, took_s: float, left: int) -> float:
        """After a commit that took so long, with so many facts left in the spool."""
        if now_s - self._since_s >= self._PROGRESS_EVERY_S:
            self._hurry = left > 0.9 * self._left_before
            self._since_s, self._left_before = now_s, left
        return 0.0 if self._hurry else min(took_s, self._REST_MAX_S)


async def _slice(told: int) -> None:
    if told % REPORTS_PER_SLICE == 0:
        await trio.lowlevel.checkpoint()
