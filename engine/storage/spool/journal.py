"""The way of facts through the spool: in while commits fail or take too long, out when Postgres is back.

While facts go to the spool, all do, in the order in which they came: so none can overtake another on its way
to Postgres. They are acknowledged from there if `Lease` is certain that nobody else can own their session.
The drain commits them under the epoch they were made under, with pauses as long as its commits, so that live
traffic has the better half of Postgres and of the loop; without pauses when there is none, or when the spool
does not get emptier in spite of it. For the last batch the writer is held back for a moment, and then facts
go straight to Postgres again.

Facts whose epoch is no longer that of their session were acknowledged already, so they are not dropped: they
are put aside in the table `spooled_facts`, for the present owner to merge.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import trio

from engine.ports import CommitListener, Lease, StorageUnavailable
from engine.storage.journal.retained import PUT_ASIDE, Retained
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.postgres import Database, Row
from engine.storage.spool.codec import SessionFacts, decode, encode, encode_facts
from engine.storage.spool.segments import Record, Spool

_log = logging.getLogger(__name__)

REPORTS_PER_SLICE = 50
"""Listeners told in a row before everybody else gets a turn."""

SWITCH_INTERVAL_S = 0.0002
"""For `sys.setswitchinterval`: the thread that writes asks for the interpreter's lock after so long. A busy
loop gives the lock up at each of its turns and takes it back at once. A thread that waits for longer than a
turn, as it does with Python's 5 ms, begins its wait anew each time, and may get nowhere for a long while."""

_PROGRESS_EVERY_S = 1.0
_REST_MAX_S = 1.0
"""After a commit of the drain. One that took longer was held up, by a network perhaps, and not at work."""

_TO_MS = 1000


@dataclass(frozen=True, slots=True)
class SpoolingStatistics:
    """A snapshot.

    Attributes:
        active: facts go to the spool rather than straight to Postgres.
        failing: the last write to the spool failed; nothing is acknowledged until one succeeds.
        certain: the node may acknowledge from its spool.
        facts, bytes: in the spool, not yet in Postgres.
        oldest_age_s: since the oldest of them was written; 0 without any.
        spooled_total, drained_total: facts that went in, and from there to Postgres, since the start.
        put_aside_total: facts among the latter whose session had another owner.
        failures_total: writes to the spool that failed.
    """

    active: bool
    failing: bool
    certain: bool
    facts: int
    bytes: int
    oldest_age_s: float
    spooled_total: int
    drained_total: int
    put_aside_total: int
    failures_total: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Some facts of one session, and who waits for them."""

    facts: SessionFacts
    listener: CommitListener


class Spooling:
    """The spool of a node, its drain, and the question whether it may be acknowledged from.

    Args:
        node: whose spool this is, for those who look into `spooled_facts`.
        now_ms: the clock that dates records.
        clock_s: the clock of `lease`.
        after_s: a batch that is not committed after so long goes to the spool.
        bytes_max: beyond this there is no room.
        retained: hears of what has reached Postgres.
        forget: called with sessions and epochs that were found to be somebody else's.
    """

    def __init__(
        self,
        spool: Spool,
        database: Database,
        *,
        node: str,
        lease: Lease,
        retained: Retained | None = None,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float] = trio.current_time,
        after_s: float = 1.0,
        bytes_max: int = 1 << 30,
        batch_facts_max: int = 500,
        retry_min_s: float = 0.05,
        retry_max_s: float = 2.0,
    ) -> None:
        self.lease = lease
        self.after_s = after_s
        self.forget: Callable[[set[tuple[str, int]]], None] = lambda _: None
        self._spool = spool
        self._connection = database.connection()
        self._node = node
        self._retained = retained
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._bytes_max = bytes_max
        self._batch_facts_max = batch_facts_max
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._statement_s = 0.0

        left = spool.statistics().facts
        self.active = left > 0
        """Whether all facts go to the spool."""
        self._since_s = trio.current_time()
        # The last record of an earlier run: whose facts those are is known only when they are read.
        self._inherited = spool.number if left else 0
        self._files = trio.Lock()
        self._changed = trio.Event()
        self._failing = False
        self._trouble = ""
        self._handing_over = False
        self._left_before: tuple[float, float] = (self._since_s, math.inf)
        self._hurry = left > 0
        self._facts_of: Counter[str] = Counter()
        self._listeners: dict[tuple[str, int], CommitListener] = {}
        self._told: dict[tuple[str, int], int] = {}

        self._spooled_total = 0
        self._drained_total = 0
        self._put_aside_total = 0
        self._failures_total = 0
        if left:
            _log.warning("the spool holds %d facts of an earlier run: they go to Postgres first", left)

    def statistics(self) -> SpoolingStatistics:
        spool = self._spool.statistics()
        age_ms = 0 if spool.oldest_at is None else max(0, self._now_ms() - spool.oldest_at)
        return SpoolingStatistics(
            active=self.active,
            failing=self._failing,
            certain=self.certain(),
            facts=spool.facts,
            bytes=spool.bytes,
            oldest_age_s=age_ms / _TO_MS,
            spooled_total=self._spooled_total,
            drained_total=self._drained_total,
            put_aside_total=self._put_aside_total,
            failures_total=self._failures_total,
        )

    def usable(self, share: float = 1.0) -> bool:
        """Whether facts would be acknowledged from the spool just now."""
        return self.problem() is None and self._has_room(share)

    def problem(self) -> str | None:
        """A sentence on why nothing would be acknowledged from the spool just now; None if it would."""
        if self._failing:
            return f"the disk does not take the spool: {self._trouble}"
        if not self._has_room():
            return "the spool is full: the database has been away for too long"
        if not self.certain():
            return "without the database the node cannot be certain that its sessions are its own"
        return None

    def certain(self) -> bool:
        """Whether nobody else can own what this node owned."""
        return self.lease.certain(self._clock_s())

    def _has_room(self, share: float = 1.0) -> bool:
        return self._spool.statistics().bytes < share * self._bytes_max

    def has_room(self, share: float) -> bool:
        """Whether a request may be taken, as far as the spool has a say in it."""
        return not self.active or self.usable(share)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def settled(self, session_id: str) -> None:
        """Wait until nothing of this session is in the spool."""
        while self._inherited or session_id in self._facts_of:
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until facts go straight to Postgres."""
        while self.active:
            await self._changed.wait()

    async def aclose(self) -> None:
        """When neither `append` nor `drain` runs any more. The spool itself stays open."""
        await self._connection.aclose()
        if left := self._spool.statistics().facts:
            _log.warning("%d facts stay in the spool; the next start takes them to Postgres", left)

    # -- in --------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[Entry], why: str) -> bool:
        """Put facts into the spool, and tell who waits for them. `why` goes to the log if this is the switch.

        False when they are not there: the disk does not take them, nobody may be told, or the spool was
        drained meanwhile. Facts that are there but of which the node is no longer certain are reported by the
        drain.
        """
        was_active = self.active
        with trio.move_on_after(self.after_s) as patience:
            while self._handing_over:
                await self._changed.wait()
        if patience.cancelled_caught:
            self._handing_over = False
        async with self._files:
            if not self.certain() or self.active != was_active:
                return False
            if not await self._write(entries):
                return False
            if not self.active:
                self.active = True
                self._since_s = trio.current_time()
                self._left_before = (self._since_s, math.inf)
                self._hurry = False
                _log.warning("facts go to the spool, and are acknowledged from there: %s", why)
        self._notify()
        await self._tell(entries)
        return True

    async def _tell(self, entries: Sequence[Entry]) -> None:
        for told, entry in enumerate(entries):
            if told % REPORTS_PER_SLICE == REPORTS_PER_SLICE - 1:
                await trio.lowlevel.checkpoint()
            if not self.certain():
                return
            mark = entry.facts.session_id, entry.facts.epoch
            if mark in self._listeners:
                self._told[mark] = entry.facts.facts[-1].seq
            entry.listener.committed(entry.facts.facts[-1].seq)

    async def _write(self, entries: Sequence[Entry]) -> bool:
        payload = encode([entry.facts for entry in entries])
        count = sum(len(entry.facts.facts) for entry in entries)
        # Before the record can be read: the drain counts down.
        self._enter(entries)
        try:
            await trio.to_thread.run_sync(self._spool.append, payload, count, self._now_ms())
        except OSError as error:
            for entry in entries:
                self._leave(entry.facts)
            self._failures_total += 1
            if not self._failing:
                _log.error("the spool cannot be written, nothing is acknowledged: %s", error)
            self._failing = True
            self._trouble = error.strerror or str(error)
            return False
        if self._failing:
            _log.warning("the spool can be written again")
        self._failing = False
        self._spooled_total += count
        return True

    def _enter(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            facts = entry.facts
            self._facts_of[facts.session_id] += len(facts.facts)
            self._listeners[facts.session_id, facts.epoch] = entry.listener

    def _leave(self, facts: SessionFacts) -> None:
        self._facts_of[facts.session_id] -= len(facts.facts)
        if not self._facts_of[facts.session_id]:
            del self._facts_of[facts.session_id]
            self._listeners.pop((facts.session_id, facts.epoch), None)
            self._told.pop((facts.session_id, facts.epoch), None)

    # -- out -------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Forever: take what is in the spool to Postgres, and end the spooling when it is empty.

        Raises what shows a mistake of ours or damage to the spool, but never StorageUnavailable.
        """
        while True:
            while not self.active:
                await self._changed.wait()
            records = await self._read()
            if records:
                await self._drain(records)
                continue
            async with self._files:
                if not self._spool.statistics().facts:
                    await trio.to_thread.run_sync(self._spool.clear)
                    self.active = self._handing_over = False
                    took_s = trio.current_time() - self._since_s
                    _log.warning(
                        "facts go straight to Postgres again, after %.1f s by way of the spool", took_s
                    )
            self._notify()

    async def _read(self) -> Sequence[Record]:
        """What comes next, as soon as it can be read: no file may be left to open just now."""
        pause_s = self._retry_min_s
        while True:
            try:
                return await trio.to_thread.run_sync(self._spool.read, self._batch_facts_max)
            except OSError as error:
                if pause_s == self._retry_min_s:
                    _log.error("the spool cannot be read, and is not drained: %s", error)
            self._let_in()
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._retry_max_s)

    def _let_in(self) -> None:
        """Do not hold the writer back for a hand-over that does not come about."""
        self._handing_over = False
        self._notify()

    async def _drain(self, records: Sequence[Record]) -> None:
        batch = Batch()
        by_number: dict[int, list[SessionFacts]] = {}
        counted: list[SessionFacts] = []
        for record in records:
            for facts in decode(record.payload):
                number = batch.add(facts.session_id, facts.epoch, FactRows(facts.facts))
                by_number.setdefault(number, []).append(facts)
                if record.number > self._inherited:
                    counted.append(facts)
            await trio.lowlevel.checkpoint()
        # With this much left the writer can wait for it, and the next facts go straight to Postgres.
        self._handing_over = self._spool.statistics().facts <= self._batch_facts_max
        # Facts of an earlier run are of sessions that were its.
        owner = self._node if records[0].number > self._inherited else None
        fenced = batch.fenced(await self._persist(COMMIT, *batch.arguments(owner)))
        took_s = self._statement_s
        for number in fenced:
            await self._put_aside(by_number[number])
        await trio.to_thread.run_sync(self._spool.forget, records)
        self._drained_total += sum(record.facts for record in records)
        for number, parts in by_number.items():
            if self._retained is not None and number not in fenced:
                for part in parts:
                    self._retained.stored(part.session_id, part.facts)
            self._report(parts[-1], fenced=number in fenced)
            await trio.lowlevel.checkpoint()
        for facts in counted:
            self._leave(facts)
        if records[-1].number >= self._inherited:
            self._inherited = 0
        self._notify()
        await self._give_way(took_s)

    def _report(self, last: SessionFacts, *, fenced: bool) -> None:
        mark = last.session_id, last.epoch
        listener = self._listeners.get(mark)
        if fenced:
            self.forget({mark})
            if listener is not None:
                listener.fenced()
        elif listener is not None and self._told.get(mark, 0) < last.facts[-1].seq:
            listener.committed(last.facts[-1].seq)

    async def _persist(self, sql: str, *args: object) -> Sequence[Row]:
        """One statement, again and again until Postgres has taken it. `_statement_s` is how long that took in
        the end, without the time for which Postgres was away."""
        pause_s = self._retry_min_s
        while True:
            started = trio.current_time()
            try:
                rows = await self._connection.fetch(sql, *args)
                self._statement_s = trio.current_time() - started
                return rows
            except StorageUnavailable as error:
                _log.debug("the drain of the spool waits for Postgres: %s", error)
                self._let_in()
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, self._retry_max_s)

    async def _put_aside(self, parts: Sequence[SessionFacts]) -> None:
        for part in parts:
            count = len(part.facts)
            data = orjson.dumps(encode_facts(part.facts)).decode()
            await self._persist(
                PUT_ASIDE, part.session_id, part.epoch, part.facts[0].seq, count, self._node, data
            )
            self._put_aside_total += count
            _log.warning(
                "session %s has another owner: %d facts of epoch %d from the spool are put aside for it",
                part.session_id,
                count,
                part.epoch,
            )

    async def _give_way(self, took_s: float) -> None:
        """Let others have Postgres for as long as this had it, unless the spool would never be emptied."""
        now = trio.current_time()
        since, left_before = self._left_before
        if now - since >= _PROGRESS_EVERY_S:
            left = self._spool.statistics().facts
            self._hurry = left > 0.9 * left_before
            self._left_before = (now, left)
        if not (self._hurry or self._inherited or self._handing_over) and self.certain():
            await trio.sleep(min(took_s, _REST_MAX_S))
