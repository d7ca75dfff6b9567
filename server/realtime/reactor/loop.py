"""One task for all sockets: wait, serve what is ready, give way to other tasks, again.

How to think about it: each socket has exactly one handler. The handler is called when the socket is ready
and when its timer fires; it neither waits nor raises. A round takes all that is ready, and gives way after
ROUND_S whatever is left of it; a socket gets one call a round, however much it has sent. On a node in use two
rounds are at least `Pacing.wait_s` apart, so that a round finds more than one frame.

Sessions call `push` and `close` of a connection in the middle of their own work. What a connection has to
tell sessions in turn is a callback: the loop's own task runs it.
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from engine.actors.pacing import WAIT_MAX_MS, Pacing
from engine.boundary import Boundary
from server.realtime.reactor.timer_wheel import Wheel

ROUND_S = 0.001
"""How long a round may hold the loop before it gives way: as a slice of a fan-out, and for the same reason.
One call may take another millisecond."""

EVENTS_MAX = 1024
"""Sockets that are taken from the kernel at a time."""

TICK_S = 0.05

READABLE = select.EPOLLIN | select.EPOLLRDHUP
WRITABLE = select.EPOLLOUT
ENDED = select.EPOLLRDHUP
"""The client has closed its side, whatever of it is unread."""


class SocketHandler(Protocol):
    """Looks after one socket."""

    tick: int
    """For the wheel."""

    def ready(self, events: int) -> None:
        """The socket can be read (READABLE, or an error to be found by reading) or written (WRITABLE)."""

    def due(self, now: float) -> None:
        """The time given to `Loop.call_at` has come."""

    def stop(self) -> None:
        """The node is going down: tell the client, and end."""

    def cut(self) -> None:
        """End at once, without a word."""


class Loop:
    """Owns the epoll and the table of handlers; the sockets belong to their handlers.

    Args:
        pacing: how far apart rounds are; and it is told how long that has held up what a round reads.
    """

    def __init__(self, boundary: Boundary | None = None, pacing: Pacing | None = None) -> None:
        self._boundary = boundary or Boundary()
        self._pacing = pacing or Pacing()
        self.reads = self._pacing.reads
        self._sockets = 0
        self._cycle_left = 0
        """How many ready sockets the cycle of `Reads` under way has yet to find, at most."""
        self._looked_at = -math.inf
        """When the last round that found something took it from the kernel, on trio's clock."""
        self._found = 0
        """Sockets that were ready in that round."""
        self.looks_total = 0
        self._epoll = select.epoll()
        self._handlers: list[SocketHandler | None] = []
        self._wheel: Wheel[SocketHandler] = Wheel(TICK_S)
        self._callbacks: deque[Callable[[], None]] = deque()
        self._alarm: trio.CancelScope | None = None
        """Around the wait, while it lasts."""

    # -- for handlers ----------------------------------------------------------------------------

    def add(self, fd: int, handler: SocketHandler, events: int) -> None:
        """Watch a socket. Raises OSError when the kernel has no memory for it."""
        self._epoll.register(fd, events)
        if fd >= len(self._handlers):
            self._handlers += [None] * (fd + 1 - len(self._handlers))
        self._handlers[fd] = handler
        self._sockets += 1

    def hand_over(self, fd: int, handler: SocketHandler) -> None:
        """Give a socket another handler. Raises ValueError for a socket that is closed."""
        if fd < 0:
            raise ValueError("the socket is closed")  # as an index, -1 means another socket
        previous = self._handlers[fd]
        if previous is not None:
            self._wheel.drop(previous)
        self._handlers[fd] = handler

    def want(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching a socket, before it is closed. Raises ValueError for a socket that is closed."""
        if fd < 0:
            raise ValueError("the socket is closed")  # as an index, -1 means another socket
        handler, self._handlers[fd] = self._handlers[fd], None
        if handler is not None:
            self._wheel.drop(handler)
        self._sockets -= 1
        self._epoll.unregister(fd)

    def call_at(self, handler: SocketHandler, when: float) -> None:
        """Call `due` at a time (of trio's clock), instead of any time that was set before."""
        self._wheel.set(handler, when)
        if self._alarm is not None and when < self._alarm.deadline:
            self._alarm.deadline = self._wheel.next_at

    def forget(self, handler: SocketHandler) -> None:
        """Drop the timer of a handler without a socket."""
        self._wheel.drop(handler)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call this soon, from the loop's own task."""
        self._callbacks.append(callback)
        self._wake()

    # -- for the transport -----------------------------------------------------------------------

    async def run(self, over: Callable[[], bool] = lambda: False) -> None:
        """Serve until it is over, which is asked after each round."""
        self.reads.start(self._wake)
        try:
            await self._serve(over)
        finally:
            for then in self.reads.stop():
                then()

    async def _serve(self, over: Callable[[], bool]) -> None:
        while not over():
            await self._wait()
            until = time.perf_counter() + ROUND_S
            for fd, events in self._look():
                handler = self._handlers[fd]
                if handler is None:
                    continue  # its socket was closed in this round
                try:
                    handler.ready(events)
                except Exception as error:  # noqa: BLE001 - the boundary logs it
                    self._give_up(handler, error)
                if time.perf_counter() >= until:
                    until = await self._breathe()
            if self._cycle_left <= 0:
                self._callbacks += self.reads.end()
            self.reads.forget()
            now = trio.current_time()
            while (handler := self._wheel.pop_due(now)) is not None:
                try:
                    handler.due(now)
                except Exception as error:  # noqa: BLE001 - the boundary logs it
                    self._give_up(handler, error)
                if time.perf_counter() >= until:
                    until = await self._breathe()
            self.reads.forget()  # what a timer has read
            await self._run_callbacks(until)

    async def each(self, act: Callable[[SocketHandler], None]) -> None:
        """Call `act` with every handler, and give way now and then."""
        until = time.perf_counter() + ROUND_S
        for fd in range(len(self._handlers)):
            handler = self._handlers[fd]
            if handler is None:
                continue
            try:
                act(handler)
            except Exception as error:  # noqa: BLE001 - the boundary logs it
                self._give_up(handler, error)
            if time.perf_counter() >= until:
                until = await self._breathe()
        await self._run_callbacks(until)

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._epoll.fileno())
        self._epoll.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Return once a socket is ready and the last round is long enough ago, or a timer fires, or there is
        a callback."""
        if self._callbacks or self.reads.awaited:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope(deadline=self._wheel.next_at) as self._alarm:
            try:
                # Where the last round found company the next one will, and need not wait for a frame first.
                if self._found > 1 and await self._gather():
                    return
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                await self._gather()
            finally:
                self._alarm = None

    async def _gather(self) -> bool:
        """Wait until the last round is long enough ago. False if it is already."""
        pacing, began = self._pacing, trio.current_time()
        rest_s = self._looked_at + pacing.wait_s - began
        if rest_s <= 0 or self._found == EVENTS_MAX:
            return False
        try:
            await trio.sleep(rest_s)
        finally:
            # What is read now may have come at once. However late this task was woken, no frame is dated back
            # by more than the longest distance.
            held_ms = math.ceil(1000 * (trio.current_time() - began))
            self.reads.paced_ms = min(held_ms, WAIT_MAX_MS)
        return True

    def _look(self) -> Sequence[tuple[int, int]]:
        """The sockets that are ready."""
        if self._cycle_left <= 0:
            self.reads.begin()
            self._cycle_left = self._sockets
        ready = self._epoll.poll(0, EVENTS_MAX)
        self.looks_total += 1
        self._found = len(ready)
        # The kernel hands out ready sockets in turn: none a second time before every other.
        self._cycle_left = self._cycle_left - self._found if self._found == EVENTS_MAX else 0
        if ready:
            self._looked_at = trio.current_time()
        return ready

    def _wake(self) -> None:
        """End the wait, if it lasts."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _breathe(self) -> float:
        """Give way. Returns until when to go on."""
        await trio.lowlevel.checkpoint()
        return time.perf_counter() + ROUND_S

    async def _run_callbacks(self, until: float) -> None:
        while self._callbacks:
            callback = self._callbacks.popleft()
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - the boundary logs it
                self._boundary.caught(error, "a callback of the realtime port")
            if time.perf_counter() >= until:
                until = await self._breathe()

    def _give_up(self, handler: SocketHandler, error: Exception) -> None:
        """A mistake of our own costs one connection."""
        self._boundary.caught(error, "a connection")
        with self._boundary.within("cutting a connection"):
            handler.cut()
