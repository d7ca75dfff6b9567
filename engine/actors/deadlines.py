"""What time brings to a session, and what has to be judged before it does.

How to think about it: an answer counts if it was received in time, wherever it lies at the deadline: in the
kernel, in the mailbox behind other commands, at another node that has clients of this session (`FlushBarrier`
sees to all three), or on its way from the former owner (`suspended_until`). A deadline waits for all of
these, and so does a host's command that ends the answering. Everything else that time brings waits for the
deadline.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial

from engine.actors.attendance import Attendance
from engine.actors.broadcasts import Broadcasts
from engine.actors.clock import GapsSeen, SessionClock
from engine.actors.commands import Answer, Command, Host
from engine.actors.delivery.audience import Audience
from engine.actors.delivery.fanout import Slicer
from engine.actors.mailbox import Mailbox
from engine.actors.reads import Reads
from engine.actors.states import Lifecycle
from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.session import Phase, Session

FLUSH_MS = 3_000
"""How long a deadline, or a host who ends the answering, waits at most for the answers that other nodes had
received before it."""

HANDED_OVER_MS = 250
"""As `FLUSH_MS`, for answers that came while a session was handed over."""

ENDS_ANSWERING = frozenset({"close", "pause", "finish"})
"""Host commands after which an answer to the open question is refused."""

_ANSWERING = (Phase.QUESTION, Phase.OPEN)

HOSTS_WAITING_MAX = 100
"""Host commands that wait for a deadline that was due before them. One more gets `busy`."""


class FlushBarrier:
    """Knows when every answer that was received by a moment has been judged.

    It waits until this node has read what its kernel had by then. It asks the subscribed nodes to pass on
    what they had received by then, and waits for them for `FLUSH_MS` at most; links keep their order. And it
    looks for such answers in the mailbox. For each moment it asks each once, and looks at each command once.
    """

    __slots__ = (
        "_answers_of",
        "_audience",
        "_last_answer",
        "_looked_to",
        "_mailbox",
        "_missing",
        "_number",
        "_read_by",
        "_reads",
        "_unread",
        "moment",
        "until",
    )

    def __init__(self, audience: Audience, mailbox: Mailbox[Command], reads: Reads) -> None:
        self._audience = audience
        self._mailbox = mailbox
        self._reads = reads
        self._read_by: int | None = None
        """The moment by which the kernel had what is to be read."""
        self._unread = False
        """Whether it is not read yet."""
        self._number = 0
        """Of the flush that was asked for last."""
        self.moment: int | None = None
        """The moment that the nodes were asked about."""
        self.until = 0
        """When the barrier no longer waits for them."""
        self._missing: set[str] = set()
        self._answers_of: int | None = None
        """The moment by which the answers that are looked for in the mailbox were received."""
        self._looked_to = 0
        """The newest command of the mailbox that was looked at, by its number there."""
        self._last_answer = 0
        """The last such answer, by its number."""

    def waits_until(self, moment: int) -> float:
        """When the answers from before this moment are no longer waited for. What lies in the kernel is read
        in any case, and then the mailbox is woken."""
        if self._read_by == moment and self._unread:
            return math.inf
        return self.until if self.moment == moment and self._missing else moment

    def all_here(self, moment: int, now: int) -> bool:
        """Whether every answer that was received up to this moment has been judged, at whichever node it came
        in, and however long it lay in the mailbox behind other commands."""
        if now < moment:
            return False
        read = self._all_read(moment)
        passed = not self._audience.relayed or self._all_passed(moment, now)
        return read and passed and not self._answers_wait(moment)

    def passed(self, node: str, number: int) -> None:
        """A node has passed on what it had received when it was asked with this number."""
        if number == self._number:
            self._missing.discard(node)

    def give_back(self, by_ms: int) -> None:
        """The process stood still for so long."""
        self.until += by_ms

    def _answers_wait(self, moment: int) -> bool:
        mailbox = self._mailbox
        if self._answers_of != moment:
            self._answers_of, self._looked_to, self._last_answer = moment, mailbox.taken, 0
        for number, command in mailbox.newest(self._looked_to):
            if isinstance(command, Answer) and command.received_at <= moment:
                self._last_answer = number
                break
        self._looked_to = mailbox.arrived
        return self._last_answer > mailbox.taken

    def _all_read(self, moment: int) -> bool:
        if self._read_by != moment:
            self._read_by = moment
            self._unread = self._reads.tell_when_read(partial(self._is_read, moment))
        return not self._unread

    def _is_read(self, moment: int) -> None:
        if self._read_by == moment:
            self._unread = False
            self._mailbox.wake()

    def _all_passed(self, moment: int, now: int) -> bool:
        if self.moment != moment:
            self.moment, self.until = moment, now + FLUSH_MS
            self._number += 1
            self._missing = self._audience.start_flush(self._number)
        self._missing = {node for node in self._missing if self._audience.has_node(node)}
        return not self._missing or now >= self.until


class Deadlines:
    """Sees to what is due in one session. Args: expires_at: when the session is finished in any case."""

    def __init__(
        self,
        session: Session,
        *,
        clock: SessionClock,
        gaps: GapsSeen,
        barrier: FlushBarrier,
        audience: Audience,
        attendance: Attendance,
        broadcasts: Broadcasts,
        lifecycle: Lifecycle,
        expires_at: float,
    ) -> None:
        self._session = session
        self._clock = clock
        self._gaps = gaps
        self._barrier = barrier
        self._audience = audience
        self._attendance = attendance
        self._broadcasts = broadcasts
        self._lifecycle = lifecycle
        self.expires_at = expires_at
        self.suspended_until = 0
        """No time passes before this moment: answers that were received in time may be in transit."""
        self.hosts: deque[tuple[Host, int]] = deque()
        """Host commands that wait until everything from before them is seen to, and when each was taken."""

    # -- when --------------------------------------------------------------------------------------

    @property
    def next_at(self) -> float:
        """When `pass_time`, or a host command that waits, has something to do."""
        session, barrier = self._session, self._barrier
        due: float = math.inf if session.phase is Phase.FINISHED else self.expires_at
        if (gone_at := self._attendance.gone_at) is not None:
            due = min(due, gone_at)
        if self._broadcasts.withheld_choices:
            due = min(due, session.opens_at)
        if (goes_on_at := self.goes_on_at) is not None:
            due = min(due, goes_on_at)
        if (deadline := session.deadline) is not None:
            seen_to = barrier.waits_until(self._closing(deadline))
            # Once it is past, all else that time brings waits for it.
            due = seen_to if deadline <= self._clock.now_ms() else min(due, seen_to)
        due = max(due, self.suspended_until)
        if self.hosts and barrier.moment == self.hosts[0][1]:
            due = min(due, barrier.until)
        return due

    @property
    def goes_on_at(self) -> int | None:
        """When the next question opens because no host is there to open it; None when that is not to be."""
        away_s = self._session.settings.host_away_s  # None with pace `auto`
        hostless_since = self._attendance.hostless_since
        if away_s is None or hostless_since is None:
            return None
        shown_until = self._session.shown_until
        return None if shown_until is None else max(hostless_since + 1000 * away_s, shown_until)

    def _closing(self, deadline: int) -> int:
        """When the deadline is seen to: that of a question once no answer can count any more that comes."""
        return deadline + RECEIPT_GRACE_MS if self._session.phase in _ANSWERING else deadline

    def may_lead(self, command: Host, since: int) -> bool:
        """Whether no answer is in transit that a node had received when the command was taken."""
        if command.do not in ENDS_ANSWERING or self._session.phase not in _ANSWERING:
            return True
        return self._barrier.all_here(since, self._clock.now_ms())

    # -- what is due -------------------------------------------------------------------------------

    def _time_passes(self) -> bool:
        """Not before all that was told has gone out: results are made of what the session is meanwhile."""
        serves = self._lifecycle.serves and not self._gaps.stood_still
        return serves and not self._broadcasts.in_progress

    async def pass_time(self) -> bool:
        """See to what is due. False if some of it has to wait, for answers that were received in time, or
        until what was told has gone out."""
        now = self._clock.now_ms()
        session, attendance = self._session, self._attendance
        if not self._time_passes():
            return False
        while (due := session.deadline) is not None and due <= now:
            if now < self.suspended_until or not self._barrier.all_here(self._closing(due), now):
                return False
            before = session.seq
            session.elapse(due)
            if session.seq == before:
                raise RuntimeError(f"the deadline at {due} brought nothing about")
            await self._broadcasts.tell()
            if not self._time_passes():
                return False
        if now < self.suspended_until:
            return True
        slicer = Slicer()
        while self._time_passes() and (gone_at := attendance.gone_at) is not None and gone_at <= now:
            attendance.miss_the_gone(now)
            await self._broadcasts.tell()
            await slicer.breathe()
        if self._time_passes() and self._broadcasts.withheld_choices and session.opens_at <= now:
            self._broadcasts.tell_question()
        if self._time_passes() and (goes_on_at := self.goes_on_at) is not None and goes_on_at <= now:
            session.next(now)
            await self._broadcasts.tell()
        if self._time_passes() and now >= self.expires_at and session.phase is not Phase.FINISHED:
            session.finish(now)
            await self._broadcasts.tell()
        return self._time_passes()

    async def give_back(self) -> None:
        """Give back the time in which the process stood still."""
        now = self._clock.now_ms()
        for gap in self._gaps.take():
            self._session.extend_clock(gap.by_ms, now)
            self.suspended_until += gap.by_ms
            self._barrier.give_back(gap.by_ms)
            self._attendance.give_back(gap.by_ms)
        await self._broadcasts.tell()
