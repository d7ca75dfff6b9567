"""The server's clock."""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the epoch. Never runs backwards within a process."""


class SessionClock:
    """Wall time, taken once and carried on by trio's clock.

    So it is steady while the wall clock is set, and virtual where trio's clock is. Must be made inside
    `trio.run`.
    """

    def __init__(self, wall_ms: int | None = None) -> None:
        self._wall_ms = time.time_ns() // 1_000_000 if wall_ms is None else wall_ms
        self._started_s = trio.current_time()

    def now_ms(self) -> int:
        return self._wall_ms + round((trio.current_time() - self._started_s) * 1000)

    def trio_time(self, at_ms: float) -> float:
        """The moment `at_ms` on trio's clock, in seconds, for cancel scopes. Whoever wakes then
        reads at least `at_ms` from `now_ms`."""
        return self._started_s + (at_ms - self._wall_ms) / 1000
