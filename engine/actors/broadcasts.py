"""What a session tells its subscribers, and when.

How to think about it: what must not be missed (questions, reveals, changes of state, the end) takes an offset
in the stream and is sent when it happens. What an older frame of is worth nothing once there is a newer one
(the leaderboard, how many have answered, who is here) is sent by a `Ticker`, at most once a tick.

To tell only queues the frames. They go out in slices (`advance`), between which the actor takes answers and
confirms them. Until all are out, no time passes, no host's command takes effect, and nothing is sent by a
ticker: what would be told next waits, and the facts that results are made of stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.actors import messages, relay_messages
from engine.actors.adaptive_tick import AdaptiveTick
from engine.actors.admission import AdmissionControl
from engine.actors.attendance import Attendance
from engine.actors.clock import GapsSeen, SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.confirmations import Confirmations
from engine.actors.delivery.audience import Audience
from engine.actors.delivery.fanout import FanoutQueue, Stall
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.stream import BroadcastStream
from engine.actors.states import Lifecycle, State
from engine.actors.tellings import Tellings
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    ClockExtended,
    DeadlineMoved,
    ExtraTimeGiven,
    HostReplaced,
    LockChanged,
    Paused,
    PlayerDone,
    PlayerJoined,
    PlayerKicked,
    PlayerReadmitted,
    QuestionClosed,
    QuestionOpened,
    QuestionShown,
    QuestionSkipped,
    Resumed,
)
from engine.domain.session import Phase, Session


class Ticker:
    """When news that may be coalesced is told next: at once, and then no sooner than a tick later. The tick
    follows how long the telling held the loop.

    Args: tick_after: the tick in ms, from how long the last telling held the loop in ms.
    """

    __slots__ = ("_tick_after", "_took_ms", "dirty", "due_at")

    def __init__(self, tick_after: Callable[[int], int]) -> None:
        self._tick_after = tick_after
        self._took_ms = 0
        self.dirty = False
        """Whether there is news."""
        self.due_at = 0
        """When news may be told, in ms since the epoch."""

    @property
    def tick_ms(self) -> int:
        return self._tick_after(self._took_ms)

    @property
    def next_at(self) -> float:
        """When there is something to tell; never without news."""
        return self.due_at if self.dirty else math.inf

    def put_off(self, now: int) -> None:
        """Whatever news there will be, tell it a tick from now at the earliest."""
        self.due_at = now + self.tick_ms

    def begin(self, now: int) -> None:
        """The news is being told."""
        self.dirty = False
        self.put_off(now)

    def took(self, ms: int) -> None:
        """It was told, and that has held the loop for so long, all slices together."""
        self._took_ms = ms


class Broadcasts:
    """Tells the subscribers of one session. Called by the actor's own task alone."""

    def __init__(
        self,
        session: Session,
        *,
        clock: SessionClock,
        gaps: GapsSeen,
        pace: AdaptiveTick,
        stream: BroadcastStream,
        audience: Audience,
        attendance: Attendance,
        admission: AdmissionControl,
        confirmations: Confirmations,
        tellings: Tellings,
        lifecycle: Lifecycle,
    ) -> None:
        self._session = session
        self._clock = clock
        self._gaps = gaps
        self._pace = pace
        self._stream = stream
        self._audience = audience
        self._attendance = attendance
        self._admission = admission
        self._confirmations = confirmations
        self._tellings = tellings
        self._lifecycle = lifecycle
        self.told_seq = session.seq
        """The last fact that was told."""
        self.board_frame = Frame(messages.leaderboard(session, 0, pace.tick_ms))
        """The leaderboard as it was sent last."""
        self.board = Ticker(pace.tick_after)
        self._progress = Ticker(pace.tick_after)
        """For hosts and spectators: how many have answered by now."""
        self._crowd = Ticker(pace.crowd_tick_after)
        """For players: the same."""
        self.roster_due_at = 0
        self._fanouts = FanoutQueue(audience.sent.latency)
        self._choices_to_tell: int | None = session.number if session.settings.reading_ms else None
        """The question whose choices are still to be told to everybody. After a move of the session they may
        be told again."""

    def go_on(self, roster_due_at: int) -> None:
        """Tell anew what the former actor of this session, which was handed over, may not have told."""
        self.roster_due_at = roster_due_at
        self.board.dirty = self._session.phase is not Phase.LOBBY
        self._note_progress()

    # -- when --------------------------------------------------------------------------------------

    @property
    def next_at(self) -> float:
        """When `send_due` has something to tell, if nothing happens meanwhile."""
        roster_at = self.roster_due_at if self._attendance.has_news else math.inf
        return min(self.board.next_at, self._progress_at, roster_at)

    @property
    def _progress_at(self) -> float:
        """When somebody is told how many have answered."""
        crowd_at = self._crowd.next_at
        return min(self._progress.next_at, crowd_at) if self._audience.watched else crowd_at

    @property
    def withheld_choices(self) -> bool:
        """Whether everybody waits for the choices of the open question, which are told at `opens_at`."""
        session = self._session
        return self._choices_to_tell == session.number and session.phase is Phase.QUESTION

    def send_due(self) -> None:
        """Tell what is due by now and may be coalesced, once nothing else is on its way."""
        if self.in_progress or self._gaps.stood_still:
            return
        now_ms = self._clock.now_ms
        if self.board.dirty and self.board.due_at <= now_ms():
            self._send_board()
        if self._progress_at <= now_ms():
            self._send_progress()
        if self._attendance.has_news and self.roster_due_at <= now_ms():
            self._send_roster()

    # -- on their way ------------------------------------------------------------------------------

    @property
    def in_progress(self) -> bool:
        """Whether some of what was told has not gone out to all."""
        return bool(self._fanouts)

    @property
    def stall(self) -> Stall | None:
        """What the next slice has to wait for."""
        return self._fanouts.stall

    def advance(self) -> bool:
        """Send one slice of what is on its way; nothing once the session may be another node's. False if
        nothing is on its way, or the next slice has to wait."""
        if not self._fanouts:
            return False
        if self._lifecycle.error is None and not self._gaps.stood_still:
            self._fanouts.advance()
        return self.stall is None

    def abandon(self) -> None:
        """Send nothing more of what is on its way."""
        self._fanouts.clear()

    # -- after facts -------------------------------------------------------------------------------

    async def tell(self) -> None:
        """Tell the subscribers what the last command or deadline has brought about. A checkpoint only when
        many players are found to be gone.

        Called after each of them, so that every message speaks of the session at that very moment.
        """
        session = self._session
        if session.seq == self.told_seq:
            return
        self.told_seq = session.seq
        facts = session.take_facts()
        self._confirmations.record(facts)
        if session.phase is Phase.FINISHED and self._lifecycle.state is State.RUNNING:
            self._lifecycle.enter(State.ENDING)
            self._confirmations.end_seq = session.seq
        for fact in facts:
            match fact:
                case PlayerJoined():
                    self._note_standing(moves=session.self_pace is not None)
                case AnswerAccepted() | AnswerMerged():
                    self._note_standing(moves=isinstance(fact, AnswerMerged))
                    if isinstance(fact, AnswerAccepted):
                        self._tellings.answered(fact.at)
                    self._note_way(fact.player)
                case QuestionShown():
                    self._note_progress()
                    self._note_way(fact.player)
                case PlayerDone():
                    self._note_standing(moves=session.settings.reveal == "end")
                    self._note_way(fact.player)
                case PlayerKicked():
                    self.board.dirty = True
                    self._note_progress()
                    self._audience.disconnect(fact.player, CloseReason.KICKED)
                    self._attendance.note(fact.player)
                case PlayerReadmitted():
                    self.board.dirty = True
                    self._attendance.note(fact.player, joined=True)
                    self._attendance.expect(fact.player)
                case ExtraTimeGiven():
                    self._attendance.extra_time_given(fact.player)
                    if not any(
                        isinstance(each, PlayerJoined) and each.player == fact.player for each in facts
                    ):
                        self._attendance.note(fact.player, joined=True)
                    percent = session.extra_time_of(fact.player)
                    self._audience.tell_player(fact.player, messages.extra_time(percent))
                case QuestionOpened():
                    self._attendance.question_opened()
                    self._gaps.given_back.clear()
                    if session.withholds:
                        # The standing stays as it is now for as long as the question is open.
                        self.renew_board()
                        self._crowd.put_off(self._clock.now_ms())
                    else:
                        self.board.dirty = True
                    self.tell_question()
                case QuestionClosed() | QuestionSkipped():
                    self._tell_reveal()
                    await self._attendance.question_closed()
                case Paused() | Resumed() | ClockExtended() | LockChanged() | DeadlineMoved():
                    offset, now = self._stream.next_offset(), self._clock.now_ms()
                    given_back = self._gaps.given_back
                    by_ms = fact.by_ms if isinstance(fact, ClockExtended) and given_back else None
                    self._broadcast(messages.state_changed(session, offset, now, by_ms))
                case HostReplaced():
                    self._audience.disconnect("host", CloseReason.REPLACED)

    def tell_answer(self) -> bool:
        """As `tell`, after the actor's task was not needed for an answer. False, and nothing is told, if the
        answer has brought more about than itself: then the actor's task has to tell it."""
        session = self._session
        if session.seq > self.told_seq:
            if session.seq > self.told_seq + 1:
                return False
            self.told_seq = session.seq
            facts = session.take_facts()
            [answer] = facts
            self._confirmations.record(facts)
            self._tellings.answered(answer.at)
            self._note_standing()
            if isinstance(answer, AnswerAccepted):
                self._note_way(answer.player)
        return True

    def _note_standing(self, *, moves: bool = False) -> None:
        """Somebody has answered or joined: how many have answered is news, and so is the standing, unless the
        session withholds it, and this does not move it all the same."""
        if moves or not self._session.withholds:
            # After the end nobody is told: whoever comes back sees it in the whole picture.
            self.board.dirty = self._session.phase is not Phase.FINISHED
        self._note_progress()

    def _note_way(self, player: int) -> None:
        """A player, in whichever attempt, has gone on at the own pace, of which the host is told."""
        if self._session.self_pace is not None:
            self._attendance.note(self._session.self_pace.player_of(player))

    def _note_progress(self) -> None:
        own = self._session.self_pace is not None
        self._crowd.dirty = self._session.withholds and not own
        self._progress.dirty = self._crowd.dirty or (own and self._session.phase is Phase.OPEN)

    def renew_board(self) -> None:
        """Keep the standing as it is now for those who come, without telling anybody."""
        board = messages.leaderboard(self._session, self._stream.offset, self._pace.tick_ms)
        self.board_frame = Frame(board)

    def _broadcast(
        self, frame: Frame, host_frame: Frame | None = None, done: Callable[[int], None] | None = None
    ) -> None:
        """Send a frame that took the newest offset. Args: done: as of `FanoutQueue.put`."""
        self._confirmations.write()
        self._stream.append(frame, host_frame)
        self._fanouts.put(self._audience.sending(frame, host_frame), done)

    def _cast_standing(self, finished: Frame | None = None) -> None:
        if self._audience.relayed:
            standing = relay_messages.standing(self._session, finished)
            self._fanouts.put(self._audience.casting_each(standing))

    def tell_question(self) -> None:
        """Tell the open question, without its choices as long as they are withheld."""
        session = self._session
        offset, now = self._stream.next_offset(), self._clock.now_ms()
        self._choices_to_tell = session.number if session.withholds_choices(now) else None
        self._broadcast(
            messages.question(session, offset, now, for_host=False),
            messages.question(session, offset, now, for_host=True),
        )

    def _tell_reveal(self) -> None:
        """What was right, to each player the own result, and the standing: all at one time to each."""
        session, audience = self._session, self._audience
        self._progress.dirty = self._crowd.dirty = False
        told = self._tellings.begin(session.seq)
        reveal = messages.reveal(session, self._stream.next_offset())
        board = self._next_board()
        self._confirmations.write()
        self._stream.append(reveal)
        if audience.relayed:
            self._fanouts.put(audience.casting(reveal))
        self._fanouts.put(audience.sending_around(reveal, messages.results(session, audience), board), told)
        if audience.relayed:
            self._cast_standing()
            self._fanouts.put(audience.casting(board))

    def tell_end(self) -> None:
        """Tell everybody that the session is over, each player with the own place."""
        session, audience = self._session, self._audience
        if self.board.dirty or session.self_pace is not None:
            self._send_board()
        offset = self._stream.next_offset()
        self._confirmations.write()
        frame = messages.finished(session, offset, None)
        self._stream.append(frame)
        self._fanouts.put(audience.sending_each(messages.finished_for_all(session, offset, audience), frame))
        self._cast_standing(frame)

    # -- by tickers ----------------------------------------------------------------------------------

    def _send_board(self) -> None:
        session, took = self._session, self.board.took
        board = self._next_board()
        self._confirmations.write()
        # While answers do not move the standing, counts tell of them.
        told = took if session.withholds else self._tellings.begin(session.seq, took)
        self._fanouts.put(self._audience.sending(board), told)

    def _next_board(self) -> Frame:
        """The standing as it is now, from which the next tick counts."""
        tick_ms = self.board.tick_ms
        self.board.begin(self._clock.now_ms())
        self.board_frame = Frame(messages.leaderboard(self._session, self._stream.offset, tick_ms))
        return self.board_frame

    def _send_progress(self) -> None:
        """To the host and spectators, and to players when it is time for those."""
        now = self._clock.now_ms()
        players = self._crowd.next_at <= now
        self._progress.begin(now)
        if players:
            self._crowd.begin(now)
        self._confirmations.write()
        frame = messages.progress(self._session, self._stream.offset)
        ticker = self._crowd if players else self._progress
        told = self._tellings.begin(self._session.seq, ticker.took)
        self._fanouts.put(self._audience.sending(frame, players=players), told)

    def _send_roster(self) -> None:
        audience, roster = self._audience, self._attendance.roster
        if roster:
            frame = roster.tell(self._session, audience.connected, audience.connected_players)
            audience.tell_host(frame)
        if self._admission.news:
            self._admission.news = False
            audience.tell_host(messages.waiting_list(*self._admission.waiting(self._clock.now_ms())))
        own = self._session.self_pace is not None
        tick_ms = self._pace.crowd_tick_after(0) if own else self.board.tick_ms
        self.roster_due_at = self._clock.now_ms() + tick_ms
