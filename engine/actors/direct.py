"""An answer that comes while the actor's task sleeps is handled by the task that brings it.

How to think about it: an answer changes the aggregate, becomes a fact and is confirmed by the journal's task.
Nothing of that needs the actor's task, if no command lies before the answer and nothing is due. So the answer
is handled where it arrives, and the actor's task sleeps on; all that may change is how long. To wake the task
would cost more than the answer itself.

Trio runs one task at a time, so the sleeping task cannot be in the middle of anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from engine.actors.commands import Answer
from engine.actors.handlers import answer
from engine.actors.live_session import LiveSession
from engine.actors.slow_answers import BatchTimes
from engine.actors.states import State
from engine.domain.phases import Phase

DIRECT_MAX = 16
"""Answers handled in a row while the actor's task sleeps: half a millisecond. The next one wakes the task,
which takes whatever has come by then as a batch. That is cheaper in a crowd."""


class DirectAnswers:
    """Handles answers for the actor of one session while its task sleeps."""

    __slots__ = ("_count", "_live", "_sleep")

    def __init__(self, live: LiveSession) -> None:
        self._live = live
        self._sleep: trio.CancelScope | None = None
        """What ends the sleep of the actor's task; None while that task is at work."""
        self._count = 0

    async def sleep(self, until: float, wait: Callable[[], Awaitable[None]]) -> None:
        """Let the actor's task wait, until that moment on trio's clock at the latest; or less long, if an
        answer brings something about that is due earlier."""
        with trio.CancelScope(deadline=until) as self._sleep:
            self._count = 0
            try:
                await wait()
            finally:
                self._sleep = None

    def take(self, command: Answer) -> bool:
        """Handle an answer. False, and nothing has changed, if the answer has to wait for the actor's task.
        An exception on the way is the crash of the session, in the actor's task."""
        live, sleep = self._live, self._sleep
        if sleep is None or self._count >= DIRECT_MAX or not self._nothing_is_before(sleep):
            return False
        self._count += 1
        try:
            answer(live, command)
            told = live.broadcasts.tell_answer()
            live.confirmations.write()
            due = min(live.deadlines.next_at, live.broadcasts.next_at)
        except Exception as error:  # noqa: BLE001 - this session's crash, in its own task and not here
            live.mailbox.put_over(command)  # after the crash its sender is told
            live.lifecycle.fail(error)
            return True
        if not told or due <= live.active_at:
            live.mailbox.wake()
        elif (wakes := live.clock.trio_time(due)) < sleep.deadline:
            sleep.deadline = wakes
        return True

    def _nothing_is_before(self, sleep: trio.CancelScope) -> bool:
        live = self._live
        if live.mailbox.is_due or live.lifecycle.state is not State.RUNNING or live.deadlines.hosts:
            return False
        session = live.session
        if live.broadcasts.in_progress or (session.deadline is None and session.phase is not Phase.OPEN):
            return False
        live.active_at = now = live.clock.now_ms()  # notes a gap, if there was one just now
        live.batch = BatchTimes(now)
        return not live.gaps.stood_still and live.clock.trio_time(now) < sleep.deadline
