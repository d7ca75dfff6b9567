"""The sockets and the timers of one process."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from typing import Any, Protocol

READ_BYTES = 65_536
EVENTS_MAX = 512
"""Sockets served before the timers are looked at again."""

TIMERS_MAX = 512
"""Timers served before the sockets are looked at again."""

IDLE_S = 1.0


class Served(Protocol):
    def ready(self, events: int) -> None:
        """The socket has something to say: a mask of epoll."""


class Loop:
    """One epoll and one heap of timers. Times are of the machine's monotonic clock.

    Args:
        clock: seconds; the same for all processes of a run.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self.late_s = 0.0
        """How late the latest timer was, since somebody last set this to zero."""
        self._epoll = select.epoll()
        self._served: dict[int, Served] = {}
        self._timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._stopped = False

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call once the time has come. A timer cannot be taken back: what it calls looks first."""
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, call, args))

    def add(self, fd: int, events: int, served: Served) -> None:
        self._epoll.register(fd, events)
        self._served[fd] = served

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Does nothing for one that is not there."""
        if self._served.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`; may be run again afterwards. Whatever a socket or a timer raises ends it."""
        self._stopped = False
        while not self._stopped:
            now = self.now()
            wait_s = IDLE_S if not self._timers else min(max(self._timers[0][0] - now, 0.0), IDLE_S)
            served = self._served
            for fd, events in self.wait(wait_s):
                # One that was ended by an earlier one of the same batch is no longer there.
                if (one := served.get(fd)) is not None:
                    one.ready(events)
            self._due()

    def wait(self, at_most_s: float) -> list[tuple[int, int]]:
        """The sockets that have something to say: file descriptors and masks of epoll."""
        return self._epoll.poll(at_most_s, EVENTS_MAX)

    def close(self) -> None:
        self._epoll.close()

    def _due(self) -> None:
        timers, now = self._timers, self.now()
        for _ in range(TIMERS_MAX):
            if not timers or timers[0][0] > now:
                return
            when, _, call, args = heapq.heappop(timers)
            self.late_s = max(self.late_s, now - when)
            call(*args)
