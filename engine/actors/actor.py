"""The session actor: the one task that may change a session.

It waits for its mailbox or its next deadline, takes a batch, gives each command to its handler, hands the
facts to the journal and tells the subscribers. This module has the run loop: the order of what happens in a
turn, and how an actor ends. Each part has its own module:

    states.py          the states of an actor, and what becomes of a command in each
    handlers.py        what each command does
    direct.py          what happens to an answer while the actor's task sleeps
    subscriptions.py   how a subscriber comes, and is brought up to date
    confirmations.py   what is told only once its facts are committed
    broadcasts.py      what is told to all, and when
    deadlines.py       what time brings, and what has to be judged before
    attendance.py      whose coming and going matters
    passivation.py     when the session may leave memory
    live_session.py    how these parts are put together
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import trio

from engine.actors import messages
from engine.actors.adaptive_tick import AdaptiveTick
from engine.actors.admission import BUSY
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Command, Host, Join, Merge, Role
from engine.actors.counters import Counters
from engine.actors.deadlines import HOSTS_WAITING_MAX
from engine.actors.delivery.stream import StreamState
from engine.actors.direct import DirectAnswers
from engine.actors.handlers import HANDLERS, host, refused
from engine.actors.handoff import HandoffSnapshot
from engine.actors.live_session import LiveSession, assembled, go_on, replayed, settle_skip
from engine.actors.options import ActorOptions
from engine.actors.pacing import Pacing
from engine.actors.passivation import Passivation
from engine.actors.slow_answers import BatchTimes
from engine.actors.states import ALWAYS_FIT, Fate, State
from engine.actors.subscriptions import attach, picture
from engine.actors.tokens import Tokens
from engine.domain.name_rules import PLAIN, NameRules
from engine.domain.session import Phase
from engine.ports import ClaimedSession, Journal

BATCH_MAX = 100
"""Commands between two checkpoints: at 10-20 us each well under the 5 ms that a session may hold the loop."""


class SessionActor:
    """One live session.

    Others may call the synchronous methods at any time and read `session`; only the actor's own task
    changes it, or `send` while that task sleeps. `run` must be running for anything to happen. Made by
    `revive`.
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
        pacing: Pacing,
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
        live = assembled(
            claimed,
            await replayed(claimed, name_rules),
            clock=clock,
            journal=journal,
            tokens=tokens,
            options=options,
            pace=pace,
            pacing=pacing,
            counters=counters,
        )
        go_on(live, claimed, stream)
        return cls(live, in_doubt)

    def __init__(self, live: LiveSession, in_doubt: Callable[[], bool]) -> None:
        self.live = live
        self.record = live.record
        self.session_id = live.record.id
        self.code = live.record.code
        self.epoch = live.epoch
        self.session = live.session
        self.snapshot: HandoffSnapshot | None = None
        """Set once the session was given away."""
        self._in_doubt = in_doubt
        self._merge_waits = False
        """Whether the oldest command would change the results that are on their way."""
        self._clock = live.clock
        self._lifecycle = live.lifecycle
        self._mailbox = live.mailbox
        self._gaps = live.gaps
        self._confirmations = live.confirmations
        self._broadcasts = live.broadcasts
        self._deadlines = live.deadlines
        self._direct = DirectAnswers(live)
        self._passivation = Passivation(live)

    # -- for others ------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Hand over a command; `states.py` has what becomes of it. Never blocks."""
        if isinstance(command, Answer) and self._direct.take(command):
            return
        fate = self._lifecycle.fates[type(command)]
        if fate is Fate.DROPPED:
            return
        if type(command) in ALWAYS_FIT:
            self._mailbox.put_over(command)
        elif fate is Fate.BUSY or not self._mailbox.put_nowait(command):
            if isinstance(command, Answer):
                self.live.counters.slow_answers.refused(self.session_id, command, "busy")
            command.reply.push(messages.busy(command.id if isinstance(command, Answer | Host) else None))

    def state(self, role: Role, player: int | None = None) -> dict[str, object]:
        """The whole session as this role may see it."""
        return picture(self.live, role, player)

    @property
    def offset(self) -> int:
        """Offset of the newest broadcast; 0 before the first."""
        return self.live.stream.offset

    @property
    def subscribers(self) -> int:
        return len(self.live.audience)

    @property
    def backlog(self) -> int:
        """Commands in the mailbox."""
        return len(self._mailbox)

    @property
    def waits_since(self) -> float:
        """When the oldest command in the mailbox was received, in ms since the epoch; infinite if there is
        none, or if it is neither an answer nor a join."""
        oldest = self._mailbox.peek()
        return oldest.at if isinstance(oldest, Answer | Join) else math.inf

    def fenced(self) -> None:
        """Port `Owned`."""
        self._confirmations.fenced()

    def wake(self) -> None:
        """Look at the clock: the process has stood still."""
        self._mailbox.wake()

    def end(self, close_reason: CloseReason) -> None:
        """Close every subscriber that waits or listens. After this the actor serves nobody any more."""
        self._lifecycle.stop()
        self._broadcasts.abandon()
        waiting = self._confirmations.abandon(close_reason)
        for command in self._left_undone():
            if isinstance(command, Answer):
                self.live.counters.slow_answers.refused(self.session_id, command, close_reason.name.lower())
            waiting.append(command.reply)
        for subscriber in waiting:
            subscriber.close(close_reason)
        self.live.audience.dismiss(close_reason)

    def _left_undone(self) -> list[Command]:
        """Take out all commands that wait, in the order in which they came."""
        commands: list[Command] = [command for command, _ in self._deadlines.hosts]
        self._deadlines.hosts.clear()
        while len(self._mailbox):
            commands.append(self._mailbox.pop())
        return commands

    # -- giving the session away -----------------------------------------------------------------

    def give_away(self) -> None:
        """Handle no more commands, let no time pass, and end with a `snapshot` once all is committed, and all
        that was told has gone out. Subscribers stay connected, and hear nothing else meanwhile. Does nothing
        unless the session is running."""
        if self._lifecycle.state is State.RUNNING:
            self._lifecycle.enter(State.HANDING_OVER)
            self._mailbox.put_back([command for command, _ in self._deadlines.hosts])
            self._deadlines.hosts.clear()
            self._mailbox.wake()

    def take_back(self) -> None:
        """Go on after a `give_away` that has not come to its end, with the commands that came meanwhile."""
        if self._lifecycle.state is State.HANDING_OVER:
            self._lifecycle.enter(State.RUNNING)
            self._mailbox.wake()

    def _given_away(self) -> bool:
        self._confirmations.write()
        if self._broadcasts.in_progress or not self._confirmations.all_committed:
            return False
        self._lifecycle.stop()
        live = self.live
        stream, seated = live.stream.state(self.epoch), live.audience.seated()
        self.snapshot = HandoffSnapshot(
            self.record, self.epoch, stream, seated, live.audience.clear(), self._left_undone()
        )
        return True

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until the session is over, idle, or given away. Raises Fenced; any other exception is a
        crash."""
        lifecycle = self._lifecycle
        await self._broadcasts.tell()
        self._confirmations.write()
        while not self._passivation.is_due:
            mail = partial(self._mailbox.wait, for_items=lifecycle.serves and not self._merge_waits)
            stall = self._broadcasts.stall
            await self._direct.sleep(self._wake_at(), mail if stall is None else partial(stall.over_or, mail))
            if lifecycle.error is not None:
                raise lifecycle.error
            await self._confirm()
            self._clock.now_ms()  # notes a gap, if there was one just now
            if self._gaps.stood_still:
                if not await lifecycle.certain(self._in_doubt):
                    continue
                self.live.active_at = self._clock.now_ms()
                await self._deadlines.give_back()
            await self._broadcasts.tell()
            if lifecycle.state is State.HANDING_OVER:
                if self._given_away():
                    return
            elif lifecycle.serves:
                await self._turn()
            if self._broadcasts.advance():
                self._mailbox.wake()  # for the next slice, or for what has waited for the last one
        self.end(CloseReason.FINISHED if self.session.phase is Phase.FINISHED else CloseReason.RESTARTING)

    async def _turn(self) -> None:
        """Commands come before time, so that an answer that lies in the mailbox is judged before its
        deadline; and both before what may be coalesced."""
        batch = await self._work()
        await self._deadlines.pass_time()
        if self._deadlines.hosts:
            await self._lead_on()
        self._confirmations.write()
        if batch is not None:
            batch.queued_s = trio.current_time()
        self._broadcasts.send_due()

    async def _work(self) -> BatchTimes | None:
        """Handle a batch, and return its times; None without any command."""
        if (command := self._mailbox.peek()) is None:
            return None
        now = self._clock.now_ms()
        if self.session.phase is not Phase.FINISHED:  # from then on its time is measured from the end
            self.live.active_at = now
        batch = self.live.batch = BatchTimes(now)
        await self._handle(command)
        batch.decided_s = trio.current_time()
        return batch

    async def _handle(self, command: Command | None) -> None:
        """Handle this command and what follows. Each command stays in the mailbox until it is done: after a
        crash its sender is told."""
        mailbox, broadcasts, session = self._mailbox, self._broadcasts, self.session
        for _ in range(BATCH_MAX):
            if command is None or self._gaps.stood_still or not self._lifecycle.serves:
                return
            self._merge_waits = broadcasts.in_progress and isinstance(command, Merge)
            if self._merge_waits:
                return
            if isinstance(command, Host):
                self._queue(command)
                mailbox.pop()
                await self._lead_on()
            else:
                HANDLERS[type(command)](self.live, command)
                mailbox.pop()
            if session.seq != broadcasts.told_seq:
                await broadcasts.tell()
            command = mailbox.peek()

    def _queue(self, command: Host) -> None:
        if len(self._deadlines.hosts) < HOSTS_WAITING_MAX:
            self._deadlines.hosts.append((command, self._clock.now_ms()))
        else:
            refused(self.live, command.reply, BUSY, command.id)

    async def _lead_on(self) -> None:
        """Let the host's commands take effect, each once all that the clock shows is seen to, and nothing
        from before it is in transit."""
        hosts = self._deadlines.hosts
        while hosts and await self._deadlines.pass_time():
            # The session may have been ended, or given away, meanwhile.
            if not hosts or not self._deadlines.may_lead(*hosts[0]):
                return
            host(self.live, hosts[0][0])
            hosts.popleft()
            await settle_skip(self.session)
            await self._broadcasts.tell()

    # -- confirming ------------------------------------------------------------------------------

    async def _confirm(self) -> None:
        """Send what was held back until its facts were committed; last of all, the end."""
        confirmations = self._confirmations
        await confirmations.send()
        if self._broadcasts.in_progress:
            return
        if self._lifecycle.state is State.ENDING:
            if confirmations.end_committed:
                self._lifecycle.enter(State.OVER)
                confirmations.end_seq = None
                self.live.active_at = self._clock.now_ms()
                self._broadcasts.tell_end()
            return
        while confirmations.latecomers:
            attach(self.live, *confirmations.latecomers[0])
            confirmations.latecomers.popleft()

    # -- waiting ---------------------------------------------------------------------------------

    def _wake_at(self) -> float:
        """The next moment, on trio's clock, at which there is something to do without being asked."""
        if (stall := self._broadcasts.stall) is not None:
            return stall.until
        if not self._lifecycle.serves:
            return math.inf
        due = min(self._deadlines.next_at, self._broadcasts.next_at, self._passivation.due_at)
        return self._clock.trio_time(due)
