"""The session actor: the one task that may change a session.

It waits for its mailbox or its next deadline, takes a batch, gives each command to the aggregate, hands the
facts to the journal and tells the subscribers. Whatever confirms something to a client (`ack`, `done`, the
first `joined`) is held back until its facts are committed, and so is the end of the session, after which
nobody comes back to hear that it was otherwise. What everybody sees before that (questions, scores) is not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from engine.actors import messages, relay_messages
from engine.actors.adaptive_tick import AdaptiveTick
from engine.actors.admission import AGAIN_MS, BUSY, NOT_ADMITTED, AdmissionControl
from engine.actors.clock import Gap, SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import (
    Answer,
    Command,
    Detach,
    Erase,
    Flushed,
    Host,
    Join,
    Left,
    ListPlayers,
    Look,
    Merge,
    Rejoin,
    Role,
    SubscribeNode,
    TakeOver,
    Watch,
)
from engine.actors.delivery.audience import Audience, Place, Sent
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.frame import Frame, Message
from engine.actors.delivery.roster import Roster
from engine.actors.delivery.stream import BroadcastStream, StreamState
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.mailbox import Mailbox
from engine.actors.presence import Presence
from engine.actors.tokens import Tokens
from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.errors import Refusal
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    ClockExtended,
    Fact,
    Finished,
    HostReplaced,
    LockChanged,
    Paused,
    PlayerJoined,
    PlayerKicked,
    PlayerReadmitted,
    QuestionClosed,
    QuestionOpened,
    QuestionSkipped,
    Resumed,
)
from engine.domain.name_rules import PLAIN, NameRules
from engine.domain.phases import refuse
from engine.domain.session import Applied, Phase, Repeated, Session
from engine.ports import JOINS_SHARE, ClaimedSession, Journal, SessionRecord

FINISHED_LINGER_S = 30.0
"""How long a finished session stays in memory for those who come back a moment too late for the podium."""

FOREIGN_TOKEN = Refusal("token_invalid", "This token belongs to another session.")

NO_SUCH_PLAYER = Refusal("player_not_found", "This session has no such player.")

KICKED = Refusal("kicked", "The host removed you from this session.")

REPLACED = Refusal("token_replaced", "Somebody else leads this session now, with a newer token.")

OVER = Refusal("session_finished", "The session is over.")

STALE = Refusal("illegal_move", "The session has gone on since the host saw it.")

RUNNING = Refusal("session_running", "The session is not over: finish it first.")

BATCH_MAX = 100
"""Commands between two checkpoints: at 10-20 us each well under the 5 ms that a session may hold the loop."""

FLUSH_MS = 3_000
"""How long a deadline, or a host who ends the answering, waits at most for the answers that other nodes had
received before it."""

SETTLED_AT_ONCE_MAX = 25
"""Players whose points for a skipped question are taken back between two checkpoints: their streaks are
counted anew, question by question."""

ENDS_ANSWERING = frozenset({"close", "pause", "finish"})
"""Host commands after which an answer to the open question is refused."""

HOSTS_WAITING_MAX = 100
"""Host commands that wait for a deadline that was due before them. One more gets `busy`."""

HANDED_OVER_MS = 250
"""As `FLUSH_MS`, for those that came while a session was handed over."""

DOUBT_LOOK_S = 0.05
DOUBT_LOOK_MAX_S = 1.0
"""Between two looks whether the session is certainly this node's still: rarer and rarer, as all look."""

CLOCKS_AGREE_MS = 20
"""Clocks of two nodes that differ by less are not told apart: a link takes some of it."""

JOINS_FOLLOW_MS = 30_000
"""After another owner: how long a player that the session does not know is told to come again. The join may
lie in the spool of that owner, and then it is merged."""

RESULTS_AT_ONCE_MAX = 500
"""Players whose results are said again to a node that takes part anew: a few milliseconds."""

ACKS_AT_ONCE_MAX = 2
"""Acks that are sent from the journal's task. It tells many sessions in a row: for each it must be little."""


class Fenced(Exception):
    """Another owner has taken the session. The actor stops at once and confirms nothing more."""


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """How every actor of a node behaves. Times end in their unit; the others are counts."""

    tick_ms: int = 250
    tick_max_ms: int = 10_000
    mailbox_max: int = 10_000
    history_max: int = 32
    idle_s: float = 300.0
    max_age_s: float = 86_400.0
    joins_per_s: float = 1e6
    seats_per_address_max: int = 1_000_000
    seats_per_address_per_s: float = 1e6


@dataclass(frozen=True, slots=True)
class HandoffSnapshot:
    """What an actor leaves behind that gives its session away, with all of it committed: its stream, who sits
    where, the relays of other nodes, and the commands that came too late for it."""

    record: SessionRecord
    epoch: int
    stream: StreamState
    seated: Sequence[tuple[Subscriber, Place]]
    relays: Sequence[Subscriber]
    commands: Sequence[Command]


class _Held(NamedTuple):
    """What confirms something, until the facts up to `seq` are committed. `short` tells that it is one frame
    and nothing else."""

    seq: int
    reply: Subscriber
    frame: Callable[[], Frame | None]
    short: bool


@dataclass(slots=True)
class _FlushBarrier:
    """The last time that the nodes that take part were asked to pass on what they had received, and up to
    which moment."""

    number: int = 0
    moment: int | None = None
    until: int = 0
    missing: set[str] = field(default_factory=set)

    def waits_until(self, moment: int) -> int:
        """When the answers from before this moment are waited for no longer."""
        return self.until if self.moment == moment and self.missing else moment


@dataclass(slots=True)
class _Search:
    """For answers that were received by `moment` and lie in the mailbox: which of its items have been looked
    at, and the last answer that was found, by their numbers."""

    moment: int | None = None
    looked_to: int = 0
    last: int = 0


@dataclass(slots=True)
class Counters:
    """What the actors of a node have done since it started."""

    answers_accepted: int = 0
    answers_repeated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    players_joined: int = 0
    sent: Sent = field(default_factory=Sent)


class SessionActor:
    """One live session.

    Others may call the synchronous methods at any time and read `session`; only the actor's own task
    changes it. `run` must be running for anything to happen. Made by `revive`.
    """

    @classmethod
    async def revive(
        cls,
        claimed: ClaimedSession,
        *,
        clock: SessionClock,
        journal: Journal,
        tokens: Tokens,
        options: ActorOptions,
        pace: AdaptiveTick,
        counters: Counters,
        stream: StreamState | None = None,
        in_doubt: Callable[[], bool] = lambda: False,
        name_rules: NameRules = PLAIN,
    ) -> SessionActor:
        """An actor for a session that was just claimed, with the session as its facts have it. `stream` is
        the one to go on with, when the session was handed over by an actor that ran until now. `in_doubt`
        tells whether another node may have taken the session by now. `name_rules`: what the names of new
        players are held against.

        Raises DomainError if the facts cannot have happened.
        """
        record = claimed.record
        session = Session(claimed.quiz, record.settings, record.created_at, name_rules)
        slicer = Slicer()
        for number, fact in enumerate(claimed.facts, start=1):
            session.replay((fact,), piecemeal=True)
            while session.settle_skip(SETTLED_AT_ONCE_MAX):
                await slicer.breathe()
            if not number % BATCH_MAX:
                await slicer.breathe()
        return cls(
            claimed,
            session,
            clock=clock,
            journal=journal,
            tokens=tokens,
            options=options,
            pace=pace,
            counters=counters,
            stream=stream,
            in_doubt=in_doubt,
        )

    def __init__(
        self,
        claimed: ClaimedSession,
        session: Session,
        *,
        clock: SessionClock,
        journal: Journal,
        tokens: Tokens,
        options: ActorOptions,
        pace: AdaptiveTick,
        counters: Counters,
        stream: StreamState | None = None,
        in_doubt: Callable[[], bool] = lambda: False,
    ) -> None:
        record = claimed.record
        self.session_id = record.id
        self.code = record.code
        self.record = record
        self.epoch = claimed.epoch
        self.session = session
        self._clock = clock
        self._journal = journal
        self._tokens = tokens
        self._options = options
        self._pace = pace
        self._counters = counters
        self._in_doubt = in_doubt
        self._gaps_seen = clock.gaps_total
        """How many gaps of the clock this actor knows of."""
        self._given_back: list[Gap] = []
        """Those of the open question."""
        self._mailbox: Mailbox[Command] = Mailbox(options.mailbox_max)
        self._stream = BroadcastStream(options.history_max, claimed.epoch)
        self._audience = Audience(counters.sent, on_change=self._on_change)
        self._roster: Roster | None = None
        """As long as a host is connected."""
        self._roster_due_at = 0
        self._presence: Presence | None = None
        """Where it matters who is here."""
        if session.settings.early_close:
            players = (player for player, who in session.players.items() if not who.kicked)
            self._presence = Presence(players, clock.now_ms())
        self._admission = AdmissionControl(
            record.id,
            options.joins_per_s,
            options.seats_per_address_max,
            options.seats_per_address_per_s,
        )
        self._unwritten: list[Fact] = []
        self._seq = self._committed = session.seq
        self._unconfirmed: deque[_Held] = deque()
        self._end_seq: int | None = None
        """Of the end of the session, as long as it is not committed."""
        self._latecomers: deque[tuple[Rejoin | Watch, Place]] = deque()
        """Who came meanwhile."""
        self._hostless_since: int | None = clock.now_ms()
        """As far as this actor knows. None while a host is connected."""
        self._fenced = trio.Event()
        self._failure: Exception | None = None
        self._stopped = False
        self._still_until = 0
        """Before that no time passes: answers that came in time may be on their way here."""
        self._flush = _FlushBarrier()
        self._search = _Search()
        self._hosts: deque[tuple[Host, int]] = deque()
        """Host commands that wait until all from before them is seen to, and since when."""
        self._giving_away = False
        self._may_go = False
        """Whether nothing of the session is to stay in memory: it is over, and about to be deleted."""
        self._late_commands: list[Command] = []
        self.snapshot: HandoffSnapshot | None = None
        """Set once the session was given away."""
        self._expires_at = record.created_at + int(options.max_age_s * 1000)
        self._active_at = clock.now_ms()
        self._joins_follow_until = clock.now_ms() + JOINS_FOLLOW_MS if claimed.epoch > 1 else 0
        self._board = Frame(messages.leaderboard(session, 0, pace.tick_ms))
        self._board_dirty = False
        self._board_due_at = 0
        self._board_took_ms = 0
        self._untold = self._crowd_untold = False
        """Whether hosts and spectators, and players, have yet to hear how many have answered by now."""
        self._progress_due_at = self._crowd_due_at = 0
        self._progress_took_ms = self._crowd_took_ms = 0
        self._choices_to_tell: int | None = session.number if session.settings.reading_ms else None
        """The question whose choices are still to be told to everybody. After a move of the session they may
        be told again."""
        if stream is None or stream.left_under + 1 != claimed.epoch:
            self._catch_up(claimed)
        else:
            self._stream.go_on(stream)
            self._still_until = self._roster_due_at = clock.now_ms() + HANDED_OVER_MS
            self._board_dirty = session.phase is not Phase.LOBBY
            self._untold = self._crowd_untold = session.withholds
            if abs(stream.ahead_ms) > CLOCKS_AGREE_MS:
                session.move_clock(stream.ahead_ms, clock.now_ms())

    def _catch_up(self, claimed: ClaimedSession) -> None:
        """A countdown that ran while nobody was there to run it starts that much later. That holds also when
        the clocks of the two owners differ: from the one to the other, it has run as far as it had then."""
        if claimed.last_alive_at is not None:
            now = self._clock.now_ms()
            self.session.move_clock(now - claimed.last_alive_at, now)

    # -- for others ------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Hand over a command. A full mailbox, or an actor that has stopped, answers `busy` at once."""
        if isinstance(command, Detach | Flushed | Left):
            if self._giving_away:
                self._late_commands.append(command)
            else:
                self._mailbox.put_over(command)
        elif self._giving_away and len(self._late_commands) < self._options.mailbox_max:
            self._late_commands.append(command)
        elif self._giving_away or self._stopped or not self._mailbox.put_nowait(command):
            command.reply.push(messages.busy(command.id if isinstance(command, Answer | Host) else None))

    def state(self, role: Role, player: int | None = None) -> dict[str, object]:
        """The whole picture as this role may see it."""
        return messages.state(
            self.session, self._board.message, self._clock.now_ms(), player=player, for_host=role == "host"
        )

    @property
    def stream_epoch(self) -> int:
        """What clients know as the epoch: that under which the stream of broadcasts began."""
        return self._stream.epoch

    @property
    def offset(self) -> int:
        """Offset of the newest broadcast; 0 before the first."""
        return self._stream.offset

    @property
    def subscribers(self) -> int:
        return len(self._audience)

    @property
    def backlog(self) -> int:
        """Commands in the mailbox."""
        return len(self._mailbox)

    def committed(self, seq: int) -> None:
        """CommitListener."""
        self._committed = max(self._committed, seq)
        if not self._confirm_few():
            self._mailbox.wake()

    def fenced(self) -> None:
        """CommitListener."""
        self._fenced.set()
        self._mailbox.wake()

    def end(self, close_reason: CloseReason) -> None:
        """Close everyone who waits or listens. After this the actor takes nothing more."""
        self._stopped = True
        waiting = [held.reply for held in self._unconfirmed]
        waiting += [command.reply for command, _ in self._latecomers]
        waiting += [command.reply for command, _ in self._hosts]
        self._unconfirmed.clear()
        self._latecomers.clear()
        self._hosts.clear()
        while len(self._mailbox):
            waiting.append(self._mailbox.pop().reply)
        waiting += [command.reply for command in self._late_commands]
        self._late_commands.clear()
        for subscriber in waiting:
            subscriber.close(close_reason)
        self._audience.dismiss(close_reason)

    def give_away(self) -> None:
        """Take in nothing more, let no time pass, and end with a `snapshot` once all is committed. Whoever is
        connected stays so, and hears nothing meanwhile."""
        if not self._giving_away and not self._stopped:
            self._giving_away = True
            self._late_commands += [command for command, _ in self._hosts]
            self._hosts.clear()
            while len(self._mailbox):
                self._late_commands.append(self._mailbox.pop())
            self._mailbox.wake()

    def wake(self) -> None:
        """Look at the clock: the process has stood still."""
        self._mailbox.wake()

    def take_back(self) -> None:
        """Go on after `give_away` that has not come to its end: what came too late comes first."""
        if self._giving_away and not self._stopped:
            self._giving_away = False
            commands, self._late_commands = self._late_commands, []
            for command in commands:
                self._mailbox.put_over(command)
            self._mailbox.wake()

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until the session is over, idle, or given away. Raises Fenced; any other exception is a
        crash."""
        await self._tell()
        self._write()
        while not self._may_rest():
            with trio.CancelScope(deadline=self._wake_at()):
                await self._mailbox.wait()
            if self._fenced.is_set():
                raise Fenced(self.session_id)
            if self._failure is not None:
                raise self._failure
            if self._unconfirmed or self._end_seq is not None:
                await self._confirm()
            self._clock.now_ms()  # notes a gap, if there was one just now
            if self._stood_still:
                if not await self._certain():
                    continue
                await self._give_back()
            if self._giving_away:
                if self._given_away():
                    return
                continue
            await self._work()
            await self._pass_time()
            if self._hosts:
                await self._lead_on()
            if self._unwritten:
                self._write()
            if self._stood_still:
                continue
            if self._board_dirty and self._clock.now_ms() >= self._board_due_at:
                await self._send_board()
            if self._clock.now_ms() >= self._progress_at:
                await self._send_progress()
            if self._host_to_be_told and self._clock.now_ms() >= self._roster_due_at:
                self._send_roster()

    def _given_away(self) -> bool:
        self._write()
        if self._committed < self.session.seq or self._unconfirmed or self._end_seq is not None:
            return False
        self._stopped = True
        seated = self._audience.seated()
        commands, self._late_commands = self._late_commands, []
        self.snapshot = HandoffSnapshot(
            self.record, self.epoch, self._stream.state(self.epoch), seated, self._audience.clear(), commands
        )
        return True

    @property
    def _stood_still(self) -> bool:
        """Whether the process stood still, and this actor has not seen to that yet. Nothing is told before,
        and no time passes: another node may have taken the session, and nobody could answer."""
        return self._clock.gaps_total != self._gaps_seen

    async def _certain(self) -> bool:
        """Wait until the session is certainly this node's still. False once it is not."""
        pause_s = DOUBT_LOOK_S
        while self._in_doubt() and not self._fenced.is_set():
            with trio.move_on_after(pause_s):
                await self._fenced.wait()
            pause_s = min(2 * pause_s, DOUBT_LOOK_MAX_S)
        return not self._fenced.is_set()

    async def _give_back(self) -> None:
        """Give back the time in which the process stood still."""
        self._active_at = now = self._clock.now_ms()
        gaps, self._gaps_seen = self._clock.gaps_after(self._gaps_seen), self._clock.gaps_total
        for gap in gaps:
            self.session.extend_clock(gap.by_ms, now)
            self._still_until += gap.by_ms
            self._flush.until += gap.by_ms
            if self._presence is not None:
                self._presence.put_off(gap.by_ms)
            if self._hostless_since is not None:
                self._hostless_since += gap.by_ms
            self._given_back.append(gap)
        await self._tell()

    def _dated(self, at: int) -> int:
        """When an answer was received, on the clock of the question: time that was given back since counts
        for it too."""
        for gap in self._given_back:
            if at <= gap.from_ms:
                at += gap.by_ms
        return at

    async def _work(self) -> None:
        """Handle a batch. Each command stays in the mailbox until it is done, so that after a crash whoever
        sent it is told."""
        mailbox = self._mailbox
        if (command := mailbox.peek()) is None:
            return
        if self.session.phase is not Phase.FINISHED:  # from then on its time is measured from the end
            self._active_at = self._clock.now_ms()
        for _ in range(BATCH_MAX):
            if self._stood_still:
                return
            if not isinstance(command, Host):
                self._handle(command)
            elif len(self._hosts) < HOSTS_WAITING_MAX:
                self._hosts.append((command, self._clock.now_ms()))
            else:
                self._refuse(command.reply, BUSY, command.id)
            mailbox.pop()
            if self._hosts and isinstance(command, Host):
                await self._lead_on()
            if self.session.seq != self._seq:
                await self._tell()
            if (command := mailbox.peek()) is None:
                return

    def _may_lead(self, command: Host, since: int) -> bool:
        """Whether no answer is on its way that another node had received when the command was taken."""
        if command.do not in ENDS_ANSWERING or not self._audience.relayed:
            return True
        if self.session.phase is not Phase.QUESTION:
            return True
        return self._all_here(since, self._clock.now_ms())

    async def _lead_on(self) -> None:
        """Let the host's commands take effect, each once all that the clock shows is seen to, and nothing
        from before it is on its way."""
        while self._hosts and await self._pass_time():
            # The session may have been ended meanwhile.
            if not self._hosts or not self._may_lead(*self._hosts[0]):
                return
            self._host(self._hosts[0][0])
            self._hosts.popleft()
            await self._settle_skip()
            if self.session.seq != self._seq:
                await self._tell()

    async def _settle_skip(self) -> None:
        """Take back what a question that was skipped has brought, if one was just now. Nobody asks for scores
        meanwhile: that is for this task to answer."""
        slicer = Slicer()
        while self.session.settle_skip(SETTLED_AT_ONCE_MAX):
            await slicer.breathe()

    def _wake_at(self) -> float:
        """The next moment, on trio's clock, at which there is something to do without being asked."""
        session = self.session
        if self._giving_away:
            return math.inf
        due: float = math.inf if session.phase is Phase.FINISHED else self._expires_at
        if (gone_at := self._gone_at) is not None:
            due = min(due, gone_at)
        if self._withheld_choices:
            due = min(due, session.opens_at)
        if (goes_on_at := self._goes_on_at) is not None:
            due = min(due, goes_on_at)
        if (deadline := session.deadline) is not None:
            seen_to = self._flush.waits_until(self._closing(deadline))
            # Once it is past, all else that time brings waits for it.
            due = seen_to if deadline <= self._clock.now_ms() else min(due, seen_to)
        due = max(due, self._still_until)
        if self._hosts and self._flush.moment == self._hosts[0][1]:
            due = min(due, self._flush.until)
        if self._board_dirty and self._board_due_at < due:
            due = self._board_due_at
        due = min(due, self._progress_at)
        if self._host_to_be_told and self._roster_due_at < due:
            due = self._roster_due_at
        if deadline is None and self._at_rest:
            due = min(due, self._active_at + self._patience_ms)
        return self._clock.trio_time(due)

    @property
    def _progress_at(self) -> float:
        """When somebody is to hear how many have answered by now."""
        at: float = self._progress_due_at if self._untold else math.inf
        return min(at, self._crowd_due_at) if self._crowd_untold else at

    @property
    def _goes_on_at(self) -> int | None:
        """When the next question opens because no host is there to open it; None when that is not to be."""
        away_s = self.session.settings.host_away_s  # None with pace `auto`
        if away_s is None or self._hostless_since is None:
            return None
        shown_until = self.session.shown_until
        return None if shown_until is None else max(self._hostless_since + 1000 * away_s, shown_until)

    @property
    def _patience_ms(self) -> int:
        """How long the actor stays when at rest."""
        if self._may_go:
            return 0
        finished = self.session.phase is Phase.FINISHED
        return int((FINISHED_LINGER_S if finished else self._options.idle_s) * 1000)

    @property
    def _at_rest(self) -> bool:
        """Whether only a command could change anything, and nobody listens."""
        session = self.session
        return (
            not self._unconfirmed
            and session.deadline is None
            and self._goes_on_at is None
            and (session.phase is Phase.FINISHED or not len(self._audience))
            and self._committed == session.seq
        )

    def _may_rest(self) -> bool:
        if not self._at_rest or len(self._mailbox) or self._giving_away:
            return False
        if self._clock.now_ms() - self._active_at < self._patience_ms:
            return False
        self.end(CloseReason.FINISHED if self.session.phase is Phase.FINISHED else CloseReason.RESTARTING)
        return True

    async def _pass_time(self) -> bool:
        """See to what is due. False if some of it has to wait, for answers that came in time."""
        now = self._clock.now_ms()
        session = self.session
        if self._stood_still:
            return False
        while (due := session.deadline) is not None and due <= now:
            if now < self._still_until or not self._all_here(self._closing(due), now):
                return False
            before = session.seq
            session.elapse(due)
            if session.seq == before:
                raise RuntimeError(f"the deadline at {due} brought nothing about")
            await self._tell()
        if now < self._still_until:
            return True
        slicer = Slicer()
        while (gone_at := self._gone_at) is not None and gone_at <= now and self._presence is not None:
            session.away(self._presence.gone(now, BATCH_MAX), now)
            await self._tell()
            await slicer.breathe()
        if self._withheld_choices and session.opens_at <= now:
            await self._tell_question()
        due = self._goes_on_at
        if due is not None and due <= now:
            session.next(now)
            await self._tell()
        if now >= self._expires_at and session.phase is not Phase.FINISHED:
            session.finish(now)
            await self._tell()
        return True

    @property
    def _gone_at(self) -> int | None:
        """When a question may have to be closed, because somebody for whom it is held open is gone."""
        if self._presence is None or self.session.phase is not Phase.QUESTION:
            return None
        return self._presence.due_at

    @property
    def _withheld_choices(self) -> bool:
        """Whether everybody waits for the choices of the open question."""
        session = self.session
        return self._choices_to_tell == session.number and session.phase is Phase.QUESTION

    def _closing(self, deadline: int) -> int:
        """When the deadline is seen to: that of a question once what lay in the kernel has been read."""
        return deadline + RECEIPT_GRACE_MS if self.session.phase is Phase.QUESTION else deadline

    def _all_here(self, moment: int, now: int) -> bool:
        """Whether every answer that was received up to this moment has been judged, at whichever node it came
        in, and however long it lay in the mailbox behind whatever else."""
        if now < moment:
            return False
        passed = not self._audience.relayed or self._all_passed(moment, now)
        return passed and not self._answers_wait(moment)

    def _answers_wait(self, moment: int) -> bool:
        """Whether an answer that was received by then lies in the mailbox. Looks at each command once."""
        mailbox, search = self._mailbox, self._search
        if search.moment != moment:
            search.moment, search.looked_to, search.last = moment, mailbox.taken, 0
        for number, command in mailbox.newest(search.looked_to):
            if isinstance(command, Answer) and command.at <= moment:
                search.last = number
                break
        search.looked_to = mailbox.arrived
        return search.last > mailbox.taken

    def _all_passed(self, moment: int, now: int) -> bool:
        """Whether all answers from before this moment are here, also from the nodes that take part. Those
        are asked, and for a while waited for; links keep their order."""
        call = self._flush
        if call.moment != moment:
            call.moment, call.until = moment, now + FLUSH_MS
            call.number += 1
            call.missing = self._audience.start_flush(call.number)
        call.missing = {node for node in call.missing if self._audience.has_node(node)}
        return not call.missing or now >= call.until

    def _write(self) -> None:
        if self._unwritten:
            self._journal.append(self.session_id, self.epoch, self._unwritten, self)
            self._unwritten = []

    async def _confirm(self) -> None:
        """Send what was held back until its facts were committed."""
        slicer = Slicer()
        waiting = self._unconfirmed
        while waiting and waiting[0].seq <= self._committed:
            # It stays until it is told, so that after a crash whoever waits for it is.
            held = waiting[0]
            if (frame := held.frame()) is not None:
                held.reply.push(frame)
            waiting.popleft()
            await slicer.breathe()
        if self._end_seq is not None and self._end_seq <= self._committed:
            self._end_seq = None
            self._active_at = self._clock.now_ms()
            await self._tell_end()
            while self._latecomers:
                self._attach(*self._latecomers[0])
                self._latecomers.popleft()

    def _confirm_few(self) -> bool:
        """Send an ack or two from the journal's task: to wake this one costs more than they do. False when
        there is more to be done, or somebody has to look whether the session may rest now, or go."""
        waiting = self._unconfirmed
        if self._fenced.is_set() or self._giving_away or self.session.deadline is None:
            return False
        for _ in range(ACKS_AT_ONCE_MAX):
            if not waiting or waiting[0].seq > self._committed:
                return True
            held = waiting[0]
            if not held.short:
                return False
            try:
                if (frame := held.frame()) is not None:
                    held.reply.push(frame)
            except Exception as error:  # noqa: BLE001 - this session's crash, in its own task and not here
                self._failure = error
                return False
            waiting.popleft()
        return not waiting or waiting[0].seq > self._committed

    def _on_commit(
        self, seq: int, reply: Subscriber, frame: Callable[[], Frame | None], *, short: bool = False
    ) -> None:
        """Have `frame` made and sent once the facts up to `seq` are committed; None: nothing is sent."""
        if seq <= self._committed and not self._unconfirmed:
            if (made := frame()) is not None:
                reply.push(made)
        else:
            self._unconfirmed.append(_Held(seq, reply, frame, short))

    # -- commands --------------------------------------------------------------------------------

    def _handle(self, command: Command) -> None:
        match command:
            case Answer():
                self._answer(command)
            case Join():
                self._join(command)
            case Rejoin():
                self._rejoin(command)
            case Watch():
                self._watch(command)
            case Look():
                self._look(command)
            case ListPlayers() if self._replaced(command.generation):
                self._refuse(command.reply, REPLACED)
            case TakeOver():
                self._take_over(command)
            case ListPlayers():
                audience = self._audience
                page = messages.players(
                    self.session,
                    command.after,
                    command.limit,
                    audience.connected,
                    audience.connected_players,
                    self._admission.waiting(self._clock.now_ms())[0],
                    removed=bool(command.removed),
                )
                command.reply.push(page)
            case SubscribeNode():
                self._relay(command)
            case Flushed():
                if command.number == self._flush.number:
                    self._flush.missing.discard(command.node)
                command.reply.push(messages.done(None, "flushed", self.session.phase))
            case Left():
                self._audience.leave_away(command.node, command.key)
                command.reply.push(messages.done(None, "left", self.session.phase))
            case Detach():
                self._audience.leave(command.reply)
                latecomers = self._latecomers
                self._latecomers = deque(each for each in latecomers if each[0].reply is not command.reply)
            case Merge():
                self._merge(command)
            case Erase():
                self._erase(command)

    def _refuse(self, reply: Subscriber, refusal: Refusal, id: str | None = None) -> None:  # noqa: A002 - the protocol's word
        refused = self._counters.refused
        refused[refusal.code] = refused.get(refusal.code, 0) + 1
        path = {"bad_choice": "choice", "missing_field": "name"}.get(refusal.code)
        reply.push(messages.error(refusal.code, refusal.message, id=id, path=path))

    def _answer(self, command: Answer) -> None:
        if command.code is not None and command.code != self.code:
            self._refuse(command.reply, FOREIGN_TOKEN, command.id)
            return
        if not self._journal.has_room():
            self._refuse(command.reply, BUSY, command.id)
            return
        at = self._dated(command.at) if self._given_back else command.at
        outcome = self.session.answer(command.player, command.question, command.choice, at)
        match outcome:
            case AnswerAccepted():
                self._counters.answers_accepted += 1
                self._speaks(command.player)
                status, seq = "accepted", outcome.seq
            case Repeated():
                self._counters.answers_repeated += 1
                status, seq = "accepted" if outcome.same else "duplicate", outcome.seq
            case Refusal():
                # Sent again to the new owner, it may have overtaken the first one, which is still waited for.
                perhaps = outcome.code == "late" and self._clock.now_ms() < self._still_until
                perhaps = perhaps or self._may_follow(command.player)
                self._refuse(command.reply, BUSY if perhaps else outcome, command.id)
                return
        elapsed_ms = outcome.elapsed_ms

        def frame() -> Frame:
            return messages.ack(command.id, command.question, status, elapsed_ms)

        self._on_commit(seq, command.reply, frame, short=True)

    def _join(self, command: Join) -> None:
        if not self._journal.has_room(JOINS_SHARE):
            self._refuse(command.reply, BUSY)
            return
        admission, now = self._admission, self._clock.now_ms()
        admitted = admission.decision(command.ticket, command.name)
        refusal = self._refuse_former(command)
        refusal = refusal or (NOT_ADMITTED if admitted is False else admission.refuse(command.address, now))
        outcome = refusal or self.session.join(command.name, command.at, admitted=admitted is True)
        if isinstance(outcome, Applied):
            ticket = command.ticket or ""
            refusal = admission.wait(ticket, command.name, outcome.name, command.address, now)
            if refusal is None:
                command.reply.push(messages.waiting(self.code, ticket, AGAIN_MS))
                return
            outcome = refusal
        if isinstance(outcome, Refusal):
            if outcome.code != "busy":
                admission.forget(command.ticket)
            self._refuse(command.reply, outcome)
            return
        admission.forget(command.ticket)
        admission.seat(command.address, now)
        self._speaks(outcome.player)
        self._counters.players_joined += 1
        place = Place("player", outcome.player, command.may_move)

        def welcome() -> Frame | None:
            self._introduce(outcome.player)
            if not command.attach:
                return self._joined(place, state=None)
            if self._end_seq is not None:
                # The session has ended meanwhile, and its end is not committed: it could still be otherwise.
                again = Rejoin(command.reply, "player", outcome.player, relay=command.relay)
                self._latecomers.append((again, place))
                return None
            joined = self._joined(place, state=self.state("player", outcome.player))
            if command.relay is None:
                self._audience.seat(command.reply, place)
                return joined
            self._audience.seat_away(command.relay, place.key)
            return relay_messages.admitted(place.role, place.player, [joined])

        self._on_commit(outcome.seq, command.reply, welcome)

    def _refuse_former(self, command: Join) -> Refusal | None:
        """Whoever was removed from here and still shows the token does not come in as somebody else."""
        if command.former_session != self.session_id:
            return None
        former = self.session.players.get(command.former_player or 0)
        return KICKED if former is not None and former.kicked else None

    def _speaks(self, player: int) -> None:
        """Whoever has no connection, and plays by requests, is here as well."""
        if self._presence is not None and player not in self._audience.connected:
            self._presence.spoke(player)
            self.session.back(player)

    def _introduce(self, player: int) -> None:
        """Have the host hear of a new player."""
        if self._roster is not None:
            self._roster.note(player, joined=True)

    def _rejoin(self, command: Rejoin) -> None:
        refusal = None
        if command.code is not None and command.code != self.code:
            refusal = FOREIGN_TOKEN
        elif command.role == "player":
            refusal = self._not_in(command.player or 0)
        elif command.role == "host" and self._replaced(command.generation):
            refusal = REPLACED
        if refusal:
            self._refuse(command.reply, refusal)
            return
        self._attach(command, Place(command.role, command.player, command.may_move))

    def _watch(self, command: Watch) -> None:
        """Whoever watched before the end was told has a token to come back with."""
        over = self.session.phase is Phase.FINISHED and self._end_seq is None
        if over and not self.session.settings.results_public:
            self._refuse(command.reply, OVER)
            return
        self._attach(command, Place("spectator", None, command.may_move))

    def _host(self, command: Host) -> None:
        if not self._journal.has_room():
            self._refuse(command.reply, BUSY, command.id)
            return
        now = self._clock.now_ms()
        if self._hostless_since is not None:
            self._hostless_since = now  # who leads by requests alone is there as well
        refusal = REPLACED if self._replaced(command.generation) else self._lead(command, now)
        if refusal is not None:
            self._refuse(command.reply, refusal, command.id)
            return
        phase = self.session.phase
        self._on_commit(self.session.seq, command.reply, lambda: messages.done(command.id, command.do, phase))

    def _lead(self, command: Host, now: int) -> Refusal | None:
        session = self.session
        if command.seen_phase is not None and command.seen_phase != session.phase:
            return STALE
        if command.seen_number is not None and command.seen_number != session.number:
            return STALE
        match command.do:
            case "start":
                return session.start(now)
            case "next":
                return session.next(now)
            case "close":
                return session.close(now)
            case "skip":
                return session.skip(now, piecemeal=True)
            case "pause":
                return session.pause(now)
            case "resume":
                return session.resume(now)
            case "finish":
                return session.finish(now)
            case "lock":
                return session.lock(command.on is not False, now)
            case "approval":
                return session.ask_first(command.on is not False, now)
            case "admit" | "refuse":
                return refuse("approval", session.phase) or self._admission.decide(
                    command.player, now, admitted=command.do == "admit"
                )
            case "kick":
                return session.kick(command.player or 0, now)
            case "readmit":
                return session.readmit(command.player or 0, now)
            case _:
                return Refusal("bad_field", f"Unknown host command {command.do!r}.")

    def _replaced(self, generation: int | None) -> bool:
        """Whether a host's token of this generation is void. None: it was no token of a host, or a node of an
        earlier release has passed the command on, which knows but one."""
        return generation is not None and generation != self.session.host_generation

    def _take_over(self, command: TakeOver) -> None:
        session = self.session
        refusal = BUSY if not self._journal.has_room() else session.replace_host(self._clock.now_ms())
        if refusal is not None:
            self._refuse(command.reply, refusal)
            return
        token = self._tokens.issue(self.session_id, "host", None, session.host_generation)
        self._on_commit(session.seq, command.reply, lambda: messages.host_token(token))

    def _merge(self, command: Merge) -> None:
        session = self.session
        for fact in command.facts:
            if isinstance(fact, PlayerJoined):
                known = len(session.players)
                session.merge_player(fact)
                if len(session.players) > known:
                    self._introduce(len(session.players))
                    if self._presence is not None:
                        self._presence.left(len(session.players), self._clock.now_ms())
            else:
                session.merge_answer(fact)
        session.settle_merged(self._clock.now_ms())
        self._on_commit(session.seq, command.reply, lambda: messages.done(None, "merge", session.phase))

    def _erase(self, command: Erase) -> None:
        session, player = self.session, command.player
        over = session.phase is Phase.FINISHED and self._end_seq is None
        if player is None and not over:
            self._refuse(command.reply, RUNNING)
            return
        if player is None:
            self._may_go = True
        elif session.erase(player, self._clock.now_ms()) is not None:
            self._refuse(command.reply, NO_SUCH_PLAYER)
            return
        else:
            self._audience.disconnect(player, CloseReason.KICKED)
            late = [command for command, place in self._latecomers if place.player == player]
            self._latecomers = deque(each for each in self._latecomers if each[0] not in late)
            for rejoin in late:
                self._refuse(rejoin.reply, NO_SUCH_PLAYER)
            if self._roster is not None:
                self._roster.note(player, joined=True)
            self._board_dirty = not over
            # What is kept of it is shown to those who come.
            self._board = Frame(messages.leaderboard(session, self._stream.offset, self._pace.tick_ms))
        command.reply.push(messages.done(None, "erase", session.phase))

    # -- subscribers -----------------------------------------------------------------------------

    def _joined(self, place: Place, state: Message | None) -> Frame:
        return messages.joined(
            player=place.player,
            name=None if place.player is None else self.session.name_of(place.player),
            token=self._tokens.issue(self.session_id, place.role, place.player, self.session.host_generation),
            session_id=self.session_id,
            code=self.code,
            role=place.role,
            state=state,
            epoch=self._stream.epoch,
            offset=self._stream.offset,
        )

    def _attach(self, command: Rejoin | Watch, place: Place) -> None:
        """Seat a subscriber and bring it up to date."""
        if self._end_seq is not None:
            self._latecomers.append((command, place))
            return
        reply = command.reply
        if command.relay is not None:
            self._audience.seat_away(command.relay, place.key)
            frames = self._bring_up_to_date(place, command.epoch, command.offset)
            reply.push(relay_messages.admitted(place.role, place.player, frames))
            return
        self._audience.seat(reply, place)
        for frame in self._bring_up_to_date(place, command.epoch, command.offset):
            reply.push(frame)

    def _bring_up_to_date(self, place: Place, epoch: int | None, offset: int | None) -> list[Frame]:
        """What somebody missed who stands at this epoch and offset, or else the whole picture."""
        missed = None
        if epoch == self._stream.epoch and offset is not None:
            missed = self._stream.since(offset, host=place.role == "host")
        if missed is None:
            return [self._joined(place, self.state(place.role, place.player))]
        frames = [self._joined(place, state=None)]
        # The end of the session comes last, as for those who were there: who hears it may go.
        end = missed.pop() if missed and missed[-1].kind == "finished" else None
        frames += [self._replayed(frame, place) for frame in missed]
        if place.player is not None and offset is not None and self._stream.results_missed_since(offset):
            frames.append(messages.result(self.session, place.player))
        frames.append(self._board)
        if self.session.withholds:
            frames.append(messages.progress(self.session, self._stream.offset))
        if end is not None:
            frames.append(self._replayed(end, place))
        return frames

    def _look(self, command: Look) -> None:
        session, player = self.session, command.player
        if command.top is None:

            def frame() -> Frame:
                state = self.state(command.role, player)
                return messages.look(session, state, self._stream.epoch, self._stream.offset)

            if self._end_seq is None:
                command.reply.push(frame())
            else:  # that the session is over is told once that is committed, whoever asks
                self._on_commit(self._end_seq, command.reply, frame)
        elif (refusal := None if player is None else self._not_in(player)) is not None:
            self._refuse(command.reply, refusal)
        else:
            command.reply.push(messages.board(session, command.top, player))

    def _not_in(self, player: int) -> Refusal | None:
        """Why nobody may come as this player; None if somebody may."""
        who = self.session.players.get(player)
        if who is None or who.erased:
            return BUSY if self._may_follow(player) else NO_SUCH_PLAYER
        return KICKED if who.kicked else None

    def _may_follow(self, player: int) -> bool:
        """Whether the join of a player whom nobody here knows may still be merged."""
        return player not in self.session.players and self._clock.now_ms() < self._joins_follow_until

    def _relay(self, command: SubscribeNode) -> None:
        """Let a node take part. One that has clients already gets what they missed. If that is no longer all
        there, or is too much to be said at once, they have to come one by one."""
        stream, reply = self._stream, command.reply
        missed = None
        if command.epoch == stream.epoch and command.offset is not None:
            missed = stream.pairs_since(command.offset)
        results = missed is not None and (
            stream.results_missed_since(command.offset or 0)
            or any(frame.kind == "finished" for frame, _ in missed)
        )
        if missed is None or (results and self.session.active > RESULTS_AT_ONCE_MAX):
            self._audience.subscribe_node(command.node, reply, ())
            reply.push(relay_messages.relayed(self.session_id, self.code, stream.epoch, stream.offset))
            return
        seats = command.seats or ()
        self._audience.subscribe_node(command.node, reply, seats)
        if "host" in seats and "host" in self._audience.connected:
            # What it was told last, on the way here, is not known.
            self._roster = Roster(self.session.players)
        for key in seats:
            player = self.session.players.get(key) if isinstance(key, int) else None
            if key != "host" and (player is None or player.kicked):
                self._audience.disconnect(key, CloseReason.KICKED)
        reply.push(relay_messages.relayed(self.session_id, self.code, stream.epoch, command.offset or 0))
        revealed = [frame for frame, _ in missed if frame.kind == "reveal"]
        if not revealed and stream.results_missed_since(command.offset or 0):
            self._push_each(reply, relay_messages.standing(self.session))
        for frame, host_frame in missed:
            if frame.kind == "finished":
                self._push_each(
                    reply, relay_messages.standing(self.session, self._replayed(frame, Place("spectator")))
                )
                continue
            for_host = None if host_frame is None else self._replayed(host_frame, Place("host"))
            reply.push(relay_messages.cast(self._replayed(frame, Place("spectator")), for_host))
            if revealed and frame is revealed[-1]:
                self._push_each(reply, relay_messages.standing(self.session))

    def _on_change(self, key: int | str) -> None:
        """A place was taken or left. A host who comes hears of what changes from then on."""
        if key == "host":
            here = "host" in self._audience.connected
            self._roster = Roster() if here else None
            self._admission.news = self.session.approval
            self._hostless_since = None if here else self._clock.now_ms()
        elif isinstance(key, int):
            if self._roster is not None:
                self._roster.note(key)
            if self._presence is None:
                return
            if key in self._audience.connected:
                self._presence.came(key)
                self.session.back(key)
            else:
                self._presence.left(key, self._clock.now_ms())

    def _push_each(self, reply: Subscriber, frames: Iterable[Frame]) -> None:
        for frame in frames:
            reply.push(frame)

    def _replayed(self, frame: Frame, place: Place) -> Frame:
        """A broadcast for one who comes late: the countdown as it stands, the ending as it is for them."""
        offset = frame.message["offset"]
        assert isinstance(offset, int)
        session = self.session
        now = self._clock.now_ms()
        if frame.kind == "finished":
            return messages.finished(session, offset, place.player)
        if frame.message.get("number") != session.number or not session.question_open:
            return frame
        if frame.kind == "question":
            return messages.question(session, offset, now, for_host=place.role == "host")
        return messages.recounted(frame, session, now) if frame.kind == "state" else frame

    # -- broadcasts ------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Tell the subscribers what the last command or deadline has brought about.

        Called after each of them, so that every message speaks of the session at that very moment.
        """
        session = self.session
        if session.seq == self._seq:
            return
        self._seq = session.seq
        facts = session.take_facts()
        self._unwritten += facts
        for fact in facts:
            match fact:
                case AnswerAccepted() | PlayerJoined() if session.withholds:
                    self._untold = self._crowd_untold = True
                case AnswerAccepted() | AnswerMerged() | PlayerJoined():
                    # After the end nobody is told: whoever comes back sees it in the whole picture.
                    self._board_dirty = session.phase is not Phase.FINISHED
                    self._untold = self._crowd_untold = session.withholds
                case PlayerKicked():
                    self._board_dirty = True
                    self._untold = self._crowd_untold = session.withholds
                    self._audience.disconnect(fact.player, CloseReason.KICKED)
                    if self._roster is not None:
                        self._roster.note(fact.player)
                case PlayerReadmitted():
                    self._board_dirty = True
                    self._introduce(fact.player)
                    if self._presence is not None:
                        self._presence.left(fact.player, self._clock.now_ms())
                case QuestionOpened():
                    if self._presence is not None:
                        self._presence.opened()
                    self._given_back.clear()
                    if session.withholds:
                        self._withhold()
                    else:
                        self._board_dirty = True
                    await self._tell_question()
                case QuestionClosed() | QuestionSkipped():
                    await self._tell_reveal()
                    await self._miss_the_silent()
                case Paused() | Resumed() | ClockExtended() | LockChanged():
                    offset, now = self._stream.next_offset(), self._clock.now_ms()
                    by_ms = fact.by_ms if isinstance(fact, ClockExtended) and self._given_back else None
                    await self._broadcast(messages.state_changed(session, offset, now, by_ms))
                case HostReplaced():
                    self._audience.disconnect("host", CloseReason.REPLACED)
                case Finished():
                    self._end_seq = fact.seq

    async def _miss_the_silent(self) -> None:
        """The next question is not held open for those who play by requests and have sent none."""
        if self._presence is None:
            return
        slicer, silent = Slicer(), self._presence.silent()
        while silent:
            self.session.away(
                [silent.pop() for _ in range(min(BATCH_MAX, len(silent)))], self._clock.now_ms()
            )
            await slicer.breathe()

    async def _broadcast(self, frame: Frame, host_frame: Frame | None = None) -> None:
        """Send a frame that took the newest offset."""
        self._write()
        self._stream.append(frame, host_frame)
        await self._audience.send(frame, host_frame)

    def _withhold(self) -> None:
        """The standing stays as it is now for as long as the question is open."""
        self._board = Frame(messages.leaderboard(self.session, self._stream.offset, self._pace.tick_ms))
        self._crowd_due_at = self._clock.now_ms() + self._pace.crowd_tick_after(self._crowd_took_ms)

    async def _tell_question(self) -> None:
        offset, now = self._stream.next_offset(), self._clock.now_ms()
        self._choices_to_tell = self.session.number if self.session.withholds_choices(now) else None
        await self._broadcast(
            messages.question(self.session, offset, now, for_host=False),
            messages.question(self.session, offset, now, for_host=True),
        )

    async def _tell_reveal(self) -> None:
        self._untold = self._crowd_untold = False
        await self._broadcast(messages.reveal(self.session, self._stream.next_offset()))
        await self._audience.send_each(messages.results(self.session, self._audience))
        if self._audience.relayed:
            await self._audience.cast_each(relay_messages.standing(self.session))
        await self._send_board()

    async def _tell_end(self) -> None:
        if self._board_dirty:
            await self._send_board()
        offset = self._stream.next_offset()
        self._write()
        frame = messages.finished(self.session, offset, None)
        self._stream.append(frame)
        await self._audience.send_each(
            messages.finished_for_all(self.session, offset, self._audience), others=frame
        )
        if self._audience.relayed:
            await self._audience.cast_each(relay_messages.standing(self.session, frame))

    async def _send_board(self) -> None:
        began_at = self._clock.now_ms()
        tick_ms = self._pace.tick_after(self._board_took_ms)
        self._board_dirty = False
        self._board_due_at = began_at + tick_ms
        self._board = Frame(messages.leaderboard(self.session, self._stream.offset, tick_ms))
        self._write()
        await self._audience.send(self._board)
        self._board_took_ms = self._clock.now_ms() - began_at

    async def _send_progress(self) -> None:
        """To the host and spectators, and to players when it is time for those."""
        began_at = self._clock.now_ms()
        players = self._crowd_untold and began_at >= self._crowd_due_at
        self._untold = False
        self._progress_due_at = began_at + self._pace.tick_after(self._progress_took_ms)
        if players:
            self._crowd_untold = False
            self._crowd_due_at = began_at + self._pace.crowd_tick_after(self._crowd_took_ms)
        self._write()
        await self._audience.send(messages.progress(self.session, self._stream.offset), players=players)
        took_ms = self._clock.now_ms() - began_at
        if players:
            self._crowd_took_ms = took_ms
        else:
            self._progress_took_ms = took_ms

    @property
    def _host_to_be_told(self) -> bool:
        """Whether there is news of the players for a host. After the end there is none: who hears of that may
        go."""
        news = self._roster is not None and (bool(self._roster) or self._admission.news)
        return news and self.session.phase is not Phase.FINISHED

    def _send_roster(self) -> None:
        assert self._roster is not None
        audience = self._audience
        if self._roster:
            frame = self._roster.tell(self.session, audience.connected, audience.connected_players)
            audience.tell_host(frame)
        if self._admission.news:
            self._admission.news = False
            audience.tell_host(messages.waiting_list(*self._admission.waiting(self._clock.now_ms())))
        self._roster_due_at = self._clock.now_ms() + self._pace.tick_after(self._board_took_ms)
