"""How often the sessions of a node send leaderboards.

As often as configured while the loop has time for it, and more and more rarely while it has none:
leaderboards are the work that a busy node can best do without. An older leaderboard is worth nothing once
there is a newer one, and at the end of a question and of the session every client gets the last one anyway.
"""

from __future__ import annotations

BUSY_TARGET = 0.75
"""The share of the loop's time that may be in use. The rest keeps the wait for an ack short."""

RISE = 1.0
"""How many seconds the tick rises in each second in which the loop is never idle."""

FALL = 0.75
"""How many seconds the tick falls in each second in which the loop is always idle."""

SMOOTHED_S = 0.5
"""The time constant of the load: a single fan-out to thousands, or a single garbage collection, is no
load."""

STANDSTILL_S = 1.0
"""A longer time between two readings counts as this long, because the machine stood still."""

FAN_OUT_SHARE = 5
"""The leaderboards of a session hold the loop for at most one part in this many of its time."""


CROWD_TICKS = 4
CROWD_TICK_LEAST_MS = 1_000
"""Players get `progress` this many times more rarely, and no more often than this: it matters least to them,
and they are by far the most clients."""


class AdaptiveTick:
    """The tick of a node: the least time between two leaderboards of a session.

    How to think about it: a change of the tick takes effect only when the sessions have waited out the ticks
    that they announced, so the delay is as long as the tick. A controller that changed the tick by a share of
    itself would go on changing it while it waits for the effect, and swing from one bound to the other. So
    the tick changes by a number of seconds per second: during one tick, at most by the tick itself.

    Args:
        tick_ms: the tick of a node that is not busy.
        tick_max_ms: the longest tick. If it is not longer than `tick_ms`, the tick never changes.
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
        """The tick of a session whose last leaderboard has held the loop for `took_ms`."""
        return min(max(self.tick_ms, FAN_OUT_SHARE * took_ms), self.tick_max_ms)

    def crowd_tick_after(self, took_ms: int) -> int:
        """The least time between two `progress` to the players of a session whose last one took `took_ms` to
        send."""
        return max(min(CROWD_TICKS * self.tick_after(took_ms), self.tick_max_ms), CROWD_TICK_LEAST_MS)
