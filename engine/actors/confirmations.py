"""Facts on their way into the journal, and what is told only once they are committed.

Confirmations (`ack`, `done`, the first `joined`) and the final `finished` are sent only after their facts are
committed: a client does not come back after `finished`, so it could never be corrected. Whatever else the
subscribers see (questions, scores) does not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import trio

from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Command, Join, Rejoin, Watch
from engine.actors.delivery.audience import Audience, Place
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.mailbox import Mailbox
from engine.actors.slow_answers import SLOW_MS, BatchTimes, SlowAnswers
from engine.actors.states import Lifecycle
from engine.actors.tellings import Tellings
from engine.domain.facts import Fact
from engine.domain.session import Phase, Session
from engine.latency import Exemplar, Latency
from engine.ports import Commit, Journal

ACKS_AT_ONCE_MAX = 2
"""Acks sent directly from the journal's task. It notifies many sessions in a row: the work for each must stay
small."""


class _Held(NamedTuple):
    """A reply that waits until the facts up to `seq` are committed. `short`: it is one frame and has no other
    effect. The ack of an answer has the `answer`, and the times of its `batch`; so has the welcome of a new
    player the `join`."""

    seq: int
    reply: Subscriber
    frame: Callable[[], Frame | None]
    short: bool
    answer: Answer | None
    batch: BatchTimes | None
    join: Join | None


class Confirmations:
    """Port `CommitListener` for the facts of one session, all of which are committed so far. Wakes the
    actor's task, by its mailbox, for whatever it does not do itself."""

    def __init__(
        self,
        session_id: str,
        epoch: int,
        session: Session,
        *,
        journal: Journal,
        lifecycle: Lifecycle,
        mailbox: Mailbox[Command],
        audience: Audience,
        clock: SessionClock,
        slow_answers: SlowAnswers,
        ack_latency: Latency,
        tellings: Tellings,
    ) -> None:
        self._session_id = session_id
        self._epoch = epoch
        self._session = session
        self._journal = journal
        self._lifecycle = lifecycle
        self._mailbox = mailbox
        self._audience = audience
        self._clock = clock
        self._slow_answers = slow_answers
        self._ack_latency = ack_latency
        self._tellings = tellings
        self._at = 0
        """The session's clock for all replies that are sent without a pause, in ms."""
        self._commits: deque[tuple[int, Commit]] = deque()
        """The commits of facts for which replies are held, each with the last of these facts."""
        self._unwritten: list[Fact] = []
        self._committed_seq = session.seq
        """Every fact up to this one is committed."""
        self._held: deque[_Held] = deque()
        self.end_seq: int | None = None
        """The fact that ends the session, from when it is recorded until it is committed and told."""
        self.latecomers: deque[tuple[Rejoin | Watch, Place]] = deque()
        """Subscribers that came meanwhile, or while what was told went to their node."""

    # -- facts -------------------------------------------------------------------------------------

    def record(self, facts: Iterable[Fact]) -> None:
        """Facts that `write` is to hand to the journal."""
        self._unwritten += facts

    def write(self) -> None:
        """Hand what was recorded to the journal."""
        if self._unwritten:
            self._journal.append(self._session_id, self._epoch, self._unwritten, self)
            self._unwritten = []

    @property
    def committed_seq(self) -> int:
        """Every fact up to this one is committed."""
        return self._committed_seq

    @property
    def all_committed(self) -> bool:
        """Whether every fact is committed, and all that waited for it was sent."""
        return self._committed_seq == self._session.seq and not self._held

    def committed(self, seq: int, commit: Commit | None = None) -> None:
        """CommitListener."""
        self._committed_seq = max(self._committed_seq, seq)
        commits, held = self._commits, self._held
        while commits and not (held and commits[0][0] >= held[0].seq):
            commits.popleft()
        if held and commit is not None:
            commits.append((seq, commit))
            self._at = self._clock.ms_at(commit.ended_s)
        if not self._send_few():
            self._mailbox.wake()

    def fenced(self) -> None:
        """CommitListener."""
        self._lifecycle.fence()
        self._mailbox.wake()

    # -- held replies ------------------------------------------------------------------------------

    def on_commit(
        self,
        seq: int,
        reply: Subscriber,
        frame: Callable[[], Frame | None],
        *,
        short: bool = False,
        answer: Answer | None = None,
        batch: BatchTimes | None = None,
        join: Join | None = None,
    ) -> None:
        """Push a frame once the facts up to `seq` are committed, after all that was held back before it. The
        frame is made then; None: nothing is sent. `answer` is what the frame is the ack of, `join` what it
        welcomes; either came in this `batch`."""
        held = _Held(seq, reply, frame, short, answer, batch, join)
        if seq > self._committed_seq or self._held:
            self._held.append(held)
            return
        self._commits.clear()
        if batch is not None:
            self._at = batch.taken_ms
        self._tell(held)

    def _tell(self, held: _Held) -> None:
        if (frame := held.frame()) is not None:
            held.reply.push(frame)
        if held.join is not None:
            self._note_join(held.join, held.batch, held.seq)
        if held.answer is None or frame is None:
            return
        took_ms = max(self._at - held.answer.received_at, 0)
        self._ack_latency.add(took_ms / 1000)
        trace = held.answer.trace
        if took_ms >= SLOW_MS or (trace is not None and trace.sampled):
            self._note(held.answer, held.batch, held.seq, str(frame.message["status"]))

    def _note(self, answer: Answer, batch: BatchTimes | None, seq: int, status: str) -> None:
        """The ack of a slow or sampled answer has gone out."""
        noted = self._slow_answers.acked(self._session_id, answer, status, batch, self._commit_of(seq))
        if noted.trace_id is not None:
            took_s = max(self._at - answer.received_at, 0) / 1000
            self._ack_latency.note(Exemplar(took_s, noted.trace_id, self._at))
            if status == "accepted":
                self._tellings.follow(seq, noted)

    def _note_join(self, join: Join, batch: BatchTimes | None, seq: int) -> None:
        """A new player is welcomed."""
        if self._at - join.at >= SLOW_MS or (join.trace is not None and join.trace.sampled):
            self._slow_answers.welcomed(self._session_id, join, batch, self._commit_of(seq))

    def _commit_of(self, seq: int) -> Commit | None:
        commits = self._commits
        while commits and commits[0][0] < seq:
            commits.popleft()
        return commits[0][1] if commits else None

    def _send_few(self) -> bool:
        """Send an ack or two, from the journal's task: to wake the actor's task costs more than they do.
        False when there is more to be done, or the actor has to look whether the session may rest now, or
        go."""
        held = self._held
        open_to_all = self._session.phase is Phase.OPEN and len(self._audience)
        if not self._lifecycle.serves or (self._session.may_rest and not open_to_all):
            return False
        for _ in range(ACKS_AT_ONCE_MAX):
            if not held or held[0].seq > self._committed_seq:
                return True
            first = held[0]
            if not first.short:
                return False
            try:
                self._tell(first)
            except Exception as error:  # noqa: BLE001 - this session's crash, in its own task and not here
                self._lifecycle.fail(error)
                return False
            held.popleft()
        return not held or held[0].seq > self._committed_seq

    async def send(self) -> None:
        """Send every reply whose facts are committed."""
        held = self._held
        if not held:
            return
        self._at = self._clock.ms_at(trio.current_time())
        slicer = Slicer()
        while held and held[0].seq <= self._committed_seq:
            # A reply is held until it was sent: after a crash whoever waits for it is told.
            first = held[0]
            self._tell(first)
            held.popleft()
            if await slicer.breathe():
                self._at = self._clock.ms_at(trio.current_time())

    # -- the end, which is told last -----------------------------------------------------------------

    @property
    def end_committed(self) -> bool:
        """Whether the end of the session can be told now."""
        return self.end_seq is not None and self.end_seq <= self._committed_seq

    def forget(self, reply: Subscriber) -> None:
        """This subscriber no longer waits for the end, if it did."""
        self.latecomers = deque(each for each in self.latecomers if each[0].reply is not reply)

    def forget_player(self, player: int) -> list[Subscriber]:
        """Whoever would come back as this player no longer waits for the end. Returns these subscribers."""
        coming = [command.reply for command, place in self.latecomers if place.player == player]
        self.latecomers = deque(each for each in self.latecomers if each[1].player != player)
        return coming

    def abandon(self, close_reason: CloseReason) -> list[Subscriber]:
        """Confirm nothing more. Returns the subscribers that waited for it, which hear this reason."""
        for held in self._held:
            if held.answer is not None:
                self._slow_answers.refused(
                    self._session_id, held.answer, close_reason.name.lower(), held.batch
                )
        waiting = [held.reply for held in self._held]
        waiting += [command.reply for command, _ in self.latecomers]
        self._held.clear()
        self.latecomers.clear()
        return waiting
