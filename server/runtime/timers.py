"""Calls functions later, for callers without a task to wait in."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import trio

from engine.boundary import Boundary

WAITING_MAX = 10_000


class Timers:
    """Calls that wait for their time. `run` must be running.

    Args:
        boundary: a mistake in one call costs no other.
        waiting_max: as many may wait at a time.
    """

    def __init__(self, boundary: Boundary, waiting_max: int = WAITING_MAX) -> None:
        self._boundary = boundary
        self._waiting_max = waiting_max
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._sooner = trio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    def call_later(self, wait_s: float, do: Callable[[], None]) -> bool:
        """Call this in so many seconds. False when too many wait already; then it is not called."""
        if len(self._calls) >= self._waiting_max:
            return False
        call = trio.current_time() + wait_s, next(self._numbers), do
        heapq.heappush(self._calls, call)
        if self._calls[0] is call:
            self._sooner.set()
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns."""
        task_status.started()
        while True:
            with trio.CancelScope(deadline=self._calls[0][0] if self._calls else math.inf):
                await self._sooner.wait()
            self._sooner = trio.Event()
            while self._calls and self._calls[0][0] <= trio.current_time():
                _, _, do = heapq.heappop(self._calls)
                with self._boundary.within("what was to be done later"):
                    do()
