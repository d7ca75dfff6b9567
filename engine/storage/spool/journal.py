"""A spool as a journal of facts: batches go in at one end and come out at the other, into PostgreSQL.

The spool knows what it holds, whom to tell when a fact of it reaches PostgreSQL, and whether facts may be
acknowledged from it. When facts go in and when they come out is not its business.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from engine.ports import Commit, CommitListener, Lease
from engine.storage.spool.codec import SessionFacts, decode, encode
from engine.storage.spool.records import Record
from engine.storage.spool.segments import Spool

_log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0002
"""For `sys.setswitchinterval`: the thread that writes asks for the interpreter's lock after so long. A busy
loop gives the lock up at each of its turns and takes it back at once. A thread that waits for longer than a
turn, as it does with Python's 5 ms, begins its wait anew each time, and may get nowhere for a long while."""

_TO_MS = 1000


@dataclass(frozen=True, slots=True)
class SpoolingStatistics:
    """A snapshot.

    Attributes:
        active: facts go to the spool rather than straight to Postgres.
        failing: the last write to the spool failed, or the last probe after it; nothing is acknowledged until
            one succeeds.
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
    """Some facts of one session, and the listener to tell when they are stored."""

    facts: SessionFacts
    listener: CommitListener


@dataclass(frozen=True, slots=True)
class Portion:
    """The oldest records of the spool that were not read before.

    Attributes:
        begins_inherited: the oldest record is of an earlier run, and so are the sessions in it.
        inherited_up_to: number of the last record of an earlier run; 0 without any.
    """

    records: Sequence[Record]
    begins_inherited: bool
    inherited_up_to: int


class SpoolJournal:
    """The spool of a node, and the question whether facts may be acknowledged from it.

    One task may `write` while another reads and forgets.

    Args:
        now_ms: the clock that dates records.
        clock_s: the clock of `lease`.
        bytes_max: beyond this there is no room.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        lease: Lease,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float] = trio.current_time,
        bytes_max: int = 1 << 30,
    ) -> None:
        self._spool = spool
        self._lease = lease
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._bytes_max = bytes_max
        # The last record of an earlier run: the sessions in it are known only when it is read.
        self._inherited_up_to = spool.number if self.facts else 0
        self._facts_of: Counter[str] = Counter()
        self._listeners: dict[tuple[str, int], CommitListener] = {}
        self._told: dict[tuple[str, int], int] = {}
        self._left = trio.Event()
        self._trouble: str | None = None
        self._spooled_total = 0
        self._drained_total = 0
        self._failures_total = 0
        if self.facts:
            _log.warning("the spool holds %d facts of an earlier run: they go to Postgres first", self.facts)

    @property
    def facts(self) -> int:
        """In the spool, not yet in Postgres."""
        return self._spool.statistics().facts

    @property
    def failing(self) -> bool:
        """Whether the disk did not take what it was given last."""
        return self._trouble is not None

    @property
    def inherits(self) -> bool:
        """Whether facts of an earlier run are in it."""
        return self._inherited_up_to > 0

    def statistics(self, *, active: bool, put_aside_total: int) -> SpoolingStatistics:
        spool = self._spool.statistics()
        age_ms = 0 if spool.oldest_at is None else max(0, self._now_ms() - spool.oldest_at)
        return SpoolingStatistics(
            active=active,
            failing=self.failing,
            certain=self.certain(),
            facts=spool.facts,
            bytes=spool.bytes,
            oldest_age_s=age_ms / _TO_MS,
            spooled_total=self._spooled_total,
            drained_total=self._drained_total,
            put_aside_total=put_aside_total,
            failures_total=self._failures_total,
        )

    def usable(self, share: float = 1.0) -> bool:
        """Whether facts would be acknowledged from the spool just now. `share` is of its room."""
        return self.problem() is None and self._has_room(share)

    def problem(self) -> str | None:
        """A sentence on why nothing would be acknowledged from the spool just now; None if it would."""
        if self._trouble is not None:
            return f"the disk does not take the spool: {self._trouble}"
        if not self._has_room():
            return "the spool is full: the database has been away for too long"
        if not self.certain():
            return "without the database the node cannot be certain that its sessions are its own"
        return None

    def certain(self) -> bool:
        """Whether no other node can own what this node owned."""
        return self._lease.certain(self._clock_s())

    def _has_room(self, share: float = 1.0) -> bool:
        return self._spool.statistics().bytes < share * self._bytes_max

    async def settled(self, session_id: str) -> None:
        """Wait until nothing of this session is in the spool."""
        while self._inherited_up_to or session_id in self._facts_of:
            await self._left.wait()

    # -- in --------------------------------------------------------------------------------------

    async def write(self, entries: Sequence[Entry]) -> bool:
        """Add a batch. Returns when it is on the disk; False when the disk does not take it."""
        payload = encode([entry.facts for entry in entries])
        count = sum(len(entry.facts.facts) for entry in entries)
        # Before the record can be read: `forget` counts down.
        for entry in entries:
            facts = entry.facts
            self._facts_of[facts.session_id] += len(facts.facts)
            self._listeners[facts.session_id, facts.epoch] = entry.listener
        try:
            await trio.to_thread.run_sync(self._spool.append, payload, count, self._now_ms())
        except OSError as error:
            for entry in entries:
                self._forget(entry.facts)
            self._failures_total += 1
            if self._trouble is None:
                _log.error("the spool cannot be written, nothing is acknowledged: %s", error)
            self._trouble = error.strerror or str(error)
            return False
        self._recovered()
        self._spooled_total += count
        return True

    async def probe(self) -> None:
        """After a write that failed, see whether the disk takes something. Nobody may write meanwhile."""
        with suppress(OSError):
            await trio.to_thread.run_sync(self._spool.probe)
            self._recovered()

    def _recovered(self) -> None:
        if self._trouble is not None:
            _log.warning("the spool can be written again")
        self._trouble = None

    def acknowledge(self, entry: Entry, commit: Commit) -> None:
        """Tell the listener of an entry that was written, with the batch of this `commit`."""
        facts = entry.facts
        if (facts.session_id, facts.epoch) in self._listeners:
            self._told[facts.session_id, facts.epoch] = facts.facts[-1].seq
        entry.listener.committed(facts.facts[-1].seq, commit)

    # -- out -------------------------------------------------------------------------------------

    async def read(self, facts_max: int) -> Portion | None:
        """What comes next, as much as has `facts_max` facts, but one record at least. None when all was read.

        Raises OSError, and SpoolDamaged if the disk has changed what was written.
        """
        records = await trio.to_thread.run_sync(self._spool.read, facts_max)
        if not records:
            return None
        inherited = self._inherited_up_to
        return Portion(records, records[0].number <= inherited, inherited)

    async def forget(self, portion: Portion) -> None:
        """All of a portion is in Postgres. Its listeners are told by `report`, and then `release` follows."""
        await trio.to_thread.run_sync(self._spool.forget, portion.records)
        self._drained_total += sum(record.facts for record in portion.records)

    def report(self, last: SessionFacts, commit: Commit, *, fenced: bool) -> None:
        """Tell the listener of a session that its facts up to these are in Postgres by this `commit`, unless
        it knows; or that the session has another owner."""
        mark = last.session_id, last.epoch
        listener = self._listeners.get(mark)
        if listener is None:
            return
        if fenced:
            listener.fenced()
        elif self._told.get(mark, 0) < last.facts[-1].seq:
            listener.committed(last.facts[-1].seq, commit)

    def release(self, portion: Portion, own: Sequence[SessionFacts]) -> None:
        """Nothing of a portion is in the spool any more. `own` are its facts that are of this run."""
        for facts in own:
            self._forget(facts)
        if portion.records[-1].number >= self._inherited_up_to:
            self._inherited_up_to = 0
        self._left.set()
        self._left = trio.Event()

    def _forget(self, facts: SessionFacts) -> None:
        self._facts_of[facts.session_id] -= len(facts.facts)
        if not self._facts_of[facts.session_id]:
            del self._facts_of[facts.session_id]
            self._listeners.pop((facts.session_id, facts.epoch), None)
            self._told.pop((facts.session_id, facts.epoch), None)

    async def clear(self) -> bool:
        """Give the room on the disk back if nothing is left; False if something is. Nobody may write or read
        meanwhile."""
        if self.facts:
            return False
        await trio.to_thread.run_sync(self._spool.clear)
        return True


def facts_in(record: Record) -> Sequence[SessionFacts]:
    """The facts of a record, by session."""
    return decode(record.payload)
