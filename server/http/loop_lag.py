"""How late the event loop wakes its tasks: the node's own pulse."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

EVERY_S = 0.25
KEPT = 240
"""Readings that the maximum looks back on: one minute."""


@dataclass(frozen=True, slots=True)
class LoopLagStatistics:
    """`last_s` and `max_s` (over the last minute) in seconds; `beats_total` readings so far."""

    last_s: float
    max_s: float
    beats_total: int


class LoopLag:
    """Sleeps for a while, again and again, and notes by how much each sleep was too long.

    Args:
        now_s: the machine's clock, not trio's: what is measured is what the loop does to real time.
    """

    def __init__(self, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._now_s = now_s
        self._lags_s: deque[float] = deque(maxlen=KEPT)
        self._beats_total = 0

    async def run(self) -> None:
        """Forever."""
        while True:
            began_s = self._now_s()
            await trio.sleep(EVERY_S)
            self._lags_s.append(max(0.0, self._now_s() - began_s - EVERY_S))
            self._beats_total += 1

    def statistics(self) -> LoopLagStatistics:
        last_s = self._lags_s[-1] if self._lags_s else 0.0
        return LoopLagStatistics(last_s, max(self._lags_s, default=0.0), self._beats_total)
