"""How often the sessions of a node send leaderboards.

As often as it is configured while the loop has room for it, and the more rarely the longer it has none: of
all that a busy node does, leaderboards are what can best be done without. An older one is worth nothing once
there is a newer one, and at the end of a question and of the session everybody gets the last one anyway.
"""

from __future__ import annotations

BUSY_TARGET = 0.75
"""Share of the loop's time that may be in use. The rest is what keeps the wait for an ack short."""

RISE = 1.0
"""Seconds by which the tick rises in each second in which the loop has no time left at all."""

FALL = 0.75
"""Seconds by which it falls in each second in which the loop has nothing to do."""

SMOOTHED_S = 0.5
"""A single fan-out to thousands, or a single collection of garbage, is no load yet."""

STANDSTILL_S = 1.0
"""More time than this between two readings counts as this much: then it was the machine that stood still."""

FAN_OUT_SHARE = 5
"""A session spends one part in so many of its time on leaderboards at most: meanwhile it handles nothing."""


CROWD_TICKS = 4
CROWD_TICK_LEAST_MS = 1_000
"""So much rarer, and no more often than that, players are told how many have answered: it is for them the
least of what a session says, and they are by far the most."""


class AdaptiveTick:
    """The tick of a node: the least time between two leaderboards of a session.

    How to think about it: what a change of the tick brings shows only when the sessions have waited out the
    ticks that they announced, so as late as the tick is long. A controller that changes the tick by a share
    of itself would go on changing it while it waits for the effect, and swing from one bound to the other. So
    the tick changes by so many seconds a second: while a tick passes, by as much as itself at most.

    Args:
        tick_ms: the tick of a node that has room.
        tick_max_ms: what it rises to at most. As much as `tick_ms`, or less: it never changes.
    """

    __slots__ = ("_busy", "_tick_ms", "tick_least_ms", "tick_max_ms")

    def __init__(self, tick_ms: int, tick_max_ms: int) -> None:
        self.tick_least_ms = tick_ms
        self.tick_max_ms = max(tick_ms, tick_max_ms)
        self._tick_ms = float(tick_ms)
        self._busy = 0.0

    @property
    def tick_ms(self) -> int:
        """The tick in force."""
        return round(self._tick_ms)

    def follow(self, busy: float, over_s: float) -> None:
        """Take a reading: the share of the last `over_s` seconds in which the loop had something to do."""
        over_s = min(over_s, STANDSTILL_S)
        self._busy += (busy - self._busy) * min(1.0, over_s / SMOOTHED_S)
        excess = self._busy - BUSY_TARGET
        per_s = RISE * excess / (1 - BUSY_TARGET) if excess > 0 else FALL * excess / BUSY_TARGET
        tick_ms = self._tick_ms + 1000 * per_s * over_s
        self._tick_ms = min(max(tick_ms, self.tick_least_ms), self.tick_max_ms)

    def tick_after(self, took_ms: int) -> int:
        """The tick of a session whose last leaderboard took so long to send."""
        return min(max(self.tick_ms, FAN_OUT_SHARE * took_ms), self.tick_max_ms)

    def crowd_tick_after(self, took_ms: int) -> int:
        """The least time between two `progress` to the players of a session. `took_ms`: of the last one."""
        return max(min(CROWD_TICKS * self.tick_after(took_ms), self.tick_max_ms), CROWD_TICK_LEAST_MS)
