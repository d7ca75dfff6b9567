"""The parts of the actor of one session."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from engine.actors.adaptive_tick import AdaptiveTick
from engine.actors.admission import AdmissionControl
from engine.actors.attendance import Attendance
from engine.actors.broadcasts import Broadcasts
from engine.actors.clock import GapsSeen, SessionClock
from engine.actors.commands import Command
from engine.actors.confirmations import Confirmations
from engine.actors.counters import Counters
from engine.actors.deadlines import HANDED_OVER_MS, Deadlines, FlushBarrier
from engine.actors.delivery.audience import Audience
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.stream import BroadcastStream, StreamState
from engine.actors.mailbox import Mailbox
from engine.actors.options import ActorOptions
from engine.actors.pacing import Pacing
from engine.actors.presence import COMING_BACK_MS
from engine.actors.session_health import HealthTold
from engine.actors.slow_answers import BatchTimes
from engine.actors.states import Lifecycle, State
from engine.actors.tellings import Tellings
from engine.actors.tokens import Tokens
from engine.domain.name_rules import PLAIN, NameRules
from engine.domain.session import Phase, Session
from engine.ports import ClaimedSession, Journal, SessionRecord

REPLAYED_AT_ONCE_MAX = 100
"""The most stored facts that are replayed between two checkpoints."""

SETTLED_AT_ONCE_MAX = 25
"""The most players whose points for a skipped question are taken back between two checkpoints: their streaks
are counted again, question by question."""

FINISHED_LINGER_S = 30.0
"""How long a finished session stays in memory, for players that come back a moment too late for the
podium."""

CLOCKS_AGREE_MS = 20
"""A smaller difference between the clocks of two nodes is ignored, because a link takes some of it."""

JOINS_FOLLOW_MS = 30_000
"""How long after a change of owner an unknown player is told to come back. The join may be in the spool of
the former owner, and is then merged."""


@dataclass(slots=True)
class LiveSession:
    """The parts of one actor, each with one responsibility. Handlers act on these."""

    record: SessionRecord
    epoch: int
    session: Session
    clock: SessionClock
    journal: Journal
    tokens: Tokens
    options: ActorOptions
    counters: Counters
    lifecycle: Lifecycle
    mailbox: Mailbox[Command]
    gaps: GapsSeen
    stream: BroadcastStream
    audience: Audience
    admission: AdmissionControl
    attendance: Attendance
    confirmations: Confirmations
    broadcasts: Broadcasts
    barrier: FlushBarrier
    deadlines: Deadlines
    active_at: int
    """When somebody last asked the session for something; once it is over, when everybody was told."""
    batch: BatchTimes
    """The times of the commands that are handled just now, or were last."""
    joins_follow_until: int
    """Until when a join of the former owner may still be merged."""
    joins_under_way: dict[int, int] = field(default_factory=dict)
    """The players that are users and whose joins are not committed yet, with the seq of these facts."""
    health: HealthTold = field(default_factory=HealthTold)
    linger_s: float = FINISHED_LINGER_S
    """How long the session stays in memory once it is over."""

    @property
    def joins_may_follow(self) -> bool:
        """Whether the join of a player whom the session does not know may still be merged."""
        return self.clock.now_ms() < self.joins_follow_until


async def replayed(claimed: ClaimedSession, name_rules: NameRules = PLAIN) -> Session:
    """The session that results from its facts. Raises DomainError if the facts cannot have happened."""
    record = claimed.record
    session = Session(claimed.quiz, record.settings, record.created_at, name_rules)
    slicer = Slicer()
    for number, fact in enumerate(claimed.facts, start=1):
        session.replay((fact,), piecemeal=True)
        await settle_skip(session)
        if not number % REPLAYED_AT_ONCE_MAX:
            await slicer.breathe()
    return session


async def settle_skip(session: Session) -> None:
    """Take back the points of a question, if one was just skipped. Scores are not read meanwhile, because
    only the actor's task reads them, and this runs in it."""
    slicer = Slicer()
    while session.settle_skip(SETTLED_AT_ONCE_MAX):
        await slicer.breathe()


def assembled(
    claimed: ClaimedSession,
    session: Session,
    *,
    clock: SessionClock,
    journal: Journal,
    tokens: Tokens,
    options: ActorOptions,
    pace: AdaptiveTick,
    pacing: Pacing,
    counters: Counters,
) -> LiveSession:
    """The parts of an actor for a session that was just claimed and replayed."""
    record = claimed.record
    lifecycle = Lifecycle(record.id, State.OVER if session.phase is Phase.FINISHED else State.RUNNING)
    mailbox: Mailbox[Command] = Mailbox(options.mailbox_max)
    gaps = GapsSeen(clock)
    stream = BroadcastStream(options.history_max, claimed.epoch)
    audience = Audience(counters.sent)
    admission = AdmissionControl(
        record.id, options.joins_per_s, options.seats_per_address_max, options.seats_per_address_per_s
    )
    attendance = Attendance(session, audience, admission, clock)
    tellings = Tellings(clock, counters.told_latency, counters.slow_answers)
    confirmations = Confirmations(
        record.id,
        claimed.epoch,
        session,
        journal=journal,
        lifecycle=lifecycle,
        mailbox=mailbox,
        audience=audience,
        clock=clock,
        slow_answers=counters.slow_answers,
        ack_latency=counters.ack_latency,
        tellings=tellings,
    )
    broadcasts = Broadcasts(
        session,
        clock=clock,
        gaps=gaps,
        pace=pace,
        stream=stream,
        audience=audience,
        attendance=attendance,
        admission=admission,
        confirmations=confirmations,
        tellings=tellings,
        lifecycle=lifecycle,
    )
    barrier = FlushBarrier(audience, mailbox, pacing.reads)
    deadlines = Deadlines(
        session,
        clock=clock,
        gaps=gaps,
        barrier=barrier,
        audience=audience,
        attendance=attendance,
        broadcasts=broadcasts,
        lifecycle=lifecycle,
        expires_at=_expires_at(record, options),
    )
    return LiveSession(
        record=record,
        epoch=claimed.epoch,
        session=session,
        clock=clock,
        journal=journal,
        tokens=tokens,
        options=options,
        counters=counters,
        lifecycle=lifecycle,
        mailbox=mailbox,
        gaps=gaps,
        stream=stream,
        audience=audience,
        admission=admission,
        attendance=attendance,
        confirmations=confirmations,
        broadcasts=broadcasts,
        barrier=barrier,
        deadlines=deadlines,
        active_at=(now := clock.now_ms()),
        batch=BatchTimes(now),
        joins_follow_until=now + JOINS_FOLLOW_MS if claimed.epoch > 1 else 0,
    )


def _expires_at(record: SessionRecord, options: ActorOptions) -> float:
    """A self-paced session is open as long as its settings and its host say."""
    if record.settings.pace == "self":
        return math.inf
    return record.created_at + int(options.max_age_s * 1000)


def go_on(live: LiveSession, claimed: ClaimedSession, stream: StreamState | None) -> None:
    """Continue where the former owner stopped: with its stream, if the session was handed over by an actor
    that ran until now.

    Otherwise running countdowns are extended by the time without an owner. This also corrects the difference
    between the clocks of the two owners: the countdown has run exactly as far as it had then."""
    session, now = live.session, live.clock.now_ms()
    if stream is not None and stream.left_under + 1 == claimed.epoch:
        live.stream.go_on(stream)
        live.deadlines.suspended_until = now + HANDED_OVER_MS
        live.broadcasts.go_on(roster_due_at=now + HANDED_OVER_MS)
        if abs(stream.ahead_ms) > CLOCKS_AGREE_MS:
            session.move_clock(stream.ahead_ms, now)
    elif claimed.last_alive_at is not None:
        away_ms = now - claimed.last_alive_at
        session.move_clock(away_ms, now, taken_over=True)
        live.attendance.wait_longer(min(max(away_ms, 0), COMING_BACK_MS))
