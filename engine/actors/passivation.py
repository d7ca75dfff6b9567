"""When an actor may leave memory.

A session that only a command can change, and that nobody listens to, is at rest. After a while its actor
ends: the session needs no memory and no timer until the next command brings it back.
"""

from __future__ import annotations

import math

from engine.actors.live_session import LiveSession
from engine.actors.states import State
from engine.domain.phases import Phase


class Passivation:
    """Tells the run loop of one actor when the session has been at rest for long enough."""

    __slots__ = ("_live",)

    def __init__(self, live: LiveSession) -> None:
        self._live = live

    @property
    def at_rest(self) -> bool:
        """Whether only a command could change anything, and nobody listens."""
        live, session = self._live, self._live.session
        return (
            session.may_rest
            and live.lifecycle.state is not State.ENDING
            and live.deadlines.goes_on_at is None
            and (session.phase is Phase.FINISHED or not len(live.audience))
            and live.confirmations.all_committed
            and not live.broadcasts.in_progress
        )

    @property
    def due_at(self) -> float:
        """When the actor may end if nothing happens, in ms since the epoch; infinite unless at rest."""
        if not self.at_rest:
            return math.inf
        live = self._live
        over = live.session.phase is Phase.FINISHED
        return live.active_at + int((live.linger_s if over else live.options.idle_s) * 1000)

    @property
    def is_due(self) -> bool:
        live = self._live
        if len(live.mailbox) or not live.lifecycle.serves:
            return False
        due_at = self.due_at
        return due_at < math.inf and live.clock.now_ms() >= due_at
