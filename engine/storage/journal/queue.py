"""Facts that wait for their commit, of all sessions, in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from engine.domain.facts import Fact
from engine.ports import CommitListener
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import Batch

LARGE = 4
"""A commit takes a few turns of the loop. On a node without time to spare turns come rarely, and commits too.
Then what counts is how many facts go with each, and not the few milliseconds more that they hold the loop."""

Mark = tuple[str, int]
"""A session's id and an epoch of it."""


@dataclass(frozen=True, slots=True)
class Waiting:
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
class Taken:
    """A batch on its way, and whom to tell: `last` has, by the number of each session in the batch, the last
    of its facts."""

    batch: Batch
    parts: Sequence[Waiting]
    last: dict[int, Waiting]
    count: int
    since: float


class FactQueue:
    """Facts that wait, and those that were taken and are not stored yet: both are `queued`.

    Args:
        batch_facts_max: facts in a batch. When more than twice as many wait, a batch has up to `LARGE` times
            as many.
    """

    def __init__(self, batch_facts_max: int) -> None:
        self._batch_facts_max = batch_facts_max
        self._waiting: deque[Waiting] = deque()
        self._queued = 0
        self._urgent = False
        self._arrivals = trio.lowlevel.ParkingLot()
        self._pressing = trio.Event()
        self._emptied = trio.Event()
        self._emptied.set()
        self._ended = False

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting)

    @property
    def queued(self) -> int:
        return self._queued

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        """Raises ValueError, and queues nothing, when a fact can never be stored."""
        waiting = []
        for start in range(0, len(facts), self._batch_facts_max):
            part = facts[start : start + self._batch_facts_max]
            rows = FactRows(part)
            waiting.append(
                Waiting(session_id, epoch, part[-1].seq, tuple(part), rows, listener, trio.current_time())
            )
        self._waiting += waiting
        self._queued += len(facts)
        self._urgent = self._urgent or any(part.rows.changes for part in waiting)
        self._arrivals.unpark_all()
        if self.presses:
            self._pressing.set()
        if self._queued and self._emptied.is_set() and not self._ended:
            self._emptied = trio.Event()

    @property
    def presses(self) -> bool:
        """Whether the next batch is not to wait for company: it is full, or something in it changes the
        session for everybody, such as the start or the end of a question."""
        return self._urgent or self._queued >= self._batch_facts_max

    def take(self) -> Taken:
        """The next batch. There must be something to take."""
        batch = Batch()
        parts: list[Waiting] = []
        last: dict[int, Waiting] = {}
        count = 0
        since = self._waiting[0].since
        most = self._batch_facts_max
        if self._queued > 2 * most:
            most *= LARGE
        while self._waiting and count + self._waiting[0].count <= most:
            waiting = self._waiting.popleft()
            number = batch.add(waiting.session_id, waiting.epoch, waiting.rows)
            parts.append(waiting)
            last[number] = waiting
            count += waiting.count
        self._urgent = self._urgent and any(waiting.rows.changes for waiting in self._waiting)
        return Taken(batch, parts, last, count, since)

    def leave(self, count: int) -> None:
        """So many of the facts that were taken are stored, or are not to be."""
        self._queued -= count
        if not self._queued:
            self._emptied.set()

    def forget(self, marks: set[Mark]) -> None:
        """Drop what waits of sessions under epochs at which they are another owner's now."""
        self._drop(lambda waiting: (waiting.session_id, waiting.epoch) in marks)

    def forget_session(self, session_id: str) -> None:
        """Drop all that waits of a session."""
        self._drop(lambda waiting: waiting.session_id == session_id)

    def _drop(self, unwanted: Callable[[Waiting], bool]) -> None:
        kept = deque(waiting for waiting in self._waiting if not unwanted(waiting))
        dropped = sum(waiting.count for waiting in self._waiting) - sum(waiting.count for waiting in kept)
        self._waiting = kept
        self.leave(dropped)

    async def arrival(self) -> None:
        """Wait until something was appended since this was called, or `wake`."""
        await self._arrivals.park()

    async def company(self, until_s: float) -> None:
        """Wait until then for more facts, or until the batch `presses`, or `wake`."""
        self._pressing = trio.Event()
        if not self.presses:
            with trio.move_on_at(until_s):
                await self._pressing.wait()

    def wake(self) -> None:
        """End the wait in `arrival` or `company`."""
        self._arrivals.unpark_all()
        self._pressing.set()

    async def emptied(self) -> None:
        """Wait until nothing is queued, or `end`."""
        await self._emptied.wait()

    def end(self) -> None:
        """Nothing will be taken any more."""
        self._ended = True
        self._emptied.set()
