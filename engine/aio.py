"""The bridge to asyncio: clients that exist for asyncio alone run in an asyncio loop inside of trio's.

How to think about it: asyncio's own selector loop runs, but never waits. A task of trio's, the pump, waits in
its place: for the descriptor of the loop's selector, which is readable when any of the loop's sockets is
ready, and until the loop's next timer. Then it lets the loop run for as long as there is something to run,
within a bound, in one step of the task. `call` does the same in the step of its caller, so a request is on
its way to the server before the caller waits, and nothing has to be woken for that. So a call takes two or
three turns of trio's loop, however many callbacks it takes in asyncio's. There are no threads: asyncio code
and trio code never run at the same time, and either sees the state of the other between two steps of its own.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Any, TypeVar, TypeVarTuple

import trio

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_ROUNDS_MIN = 3
"""Of asyncio's loop in one step of trio's, if there is so much to run: what a request and its reply take."""

_STEP_S = 0.001
"""After so long in one step there are no further rounds. Two that read much from a server which answers as
fast as it is asked would else take turns with each other, and with nobody else."""

CANCELLED_TIMERS_MAX = 100
"""So many cancelled timers are kept, or as many as there are others."""

_READ_BYTES_MAX = 65_536

_UNWIND_S = 5.0
"""What is left in the loop at the end of its block has so long to end."""


@asynccontextmanager
async def open_asyncio() -> AsyncIterator[None]:
    """Within the block, `call` works in this task and in every task started from it.

    Open it outside of every nursery whose tasks use `call`: they must end before the loop does. An error in
    asyncio code that no call can raise cancels the block and is raised from it.
    """
    async with trio.open_nursery() as nursery:
        loop = _Loop(nursery.cancel_scope)
        before = _current.set(loop)
        nursery.start_soon(loop.pump)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await loop.unwind()
            _current.reset(before)
            loop.end()


async def call(function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run an asyncio-flavoured function to its end.

    Cancellation is passed on to it as asyncio's, and waits for it to unwind: what it holds is given back in
    good order. Code inside must not use trio. Raises RuntimeError outside of `open_asyncio`.
    """
    loop = _current.get()
    if loop is None:
        raise RuntimeError("asyncio functions can be called within `open_asyncio()` only")
    return await loop.perform(function, args)


async def rest(seconds: float) -> None:
    """Wait, within a function that is called by `call`."""
    await asyncio.sleep(seconds)


class _Call:
    """A call on its way.

    Attributes:
        caller: the task that waits for it; None before it waits.
        ended: `result` or `error` is there.
    """

    __slots__ = ("caller", "ended", "error", "result")

    def __init__(self) -> None:
        self.caller: trio.lowlevel.Task | None = None
        self.ended = False
        self.result: Any = None
        self.error: BaseException | None = None

    async def run(self, function: Callable[..., Awaitable[Any]], args: tuple[object, ...]) -> None:
        try:
            self.result = await function(*args)
        except BaseException as error:  # noqa: BLE001 - the caller's, all of it
            self.error = error
        self.ended = True
        if self.caller is not None:
            trio.lowlevel.reschedule(self.caller)


class _Loop(asyncio.SelectorEventLoop):
    """An asyncio loop that a task of trio's pumps.

    Args:
        block: cancelled for an error that no call can raise.
    """

    def __init__(self, block: trio.CancelScope) -> None:
        selector = selectors.DefaultSelector()
        self._clock = trio.lowlevel.current_clock()
        self._readable: int = selector.fileno()
        self._block = block
        self._trouble: list[BaseException] = []
        self._running = False
        """Callbacks run just now, or are about to in this same step."""
        self._more = False
        """There is a callback to run."""
        self._timers: list[asyncio.TimerHandle] = []
        """A heap, in the order in which they are due. Most are cancelled before that."""
        self._cancelled = 0
        """At most so many of them are cancelled."""
        self._waiting = trio.CancelScope()
        """The pump's wait. It ends when the first of `_timers` is due."""
        self._ended = False
        super().__init__(selector)
        self.set_exception_handler(lambda _, context: self._on_trouble(context))

    # -- what asyncio asks of a loop ---------------------------------------------------------------

    def time(self) -> float:
        return self._clock.current_time()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self._more = True
        if not self._running:
            self._waiting.cancel()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = super().call_at(when, callback, *args, context=context)
        heappush(self._timers, timer)
        self._waiting.deadline = min(self._waiting.deadline, when)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Forget cancelled timers now and then, as asyncio does: each keeps the context of the request that
        it was set for, and the time-out of a statement is long."""
        super()._timer_handle_cancelled(handle)  # type: ignore[misc]  # what asyncio tells a loop is not in its types
        self._cancelled += 1
        if self._cancelled > CANCELLED_TIMERS_MAX and 2 * self._cancelled > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer.cancelled()]
            heapify(self._timers)
            self._cancelled = 0

    async def create_connection(self, *args: Any, **more: Any) -> Any:
        return _reading_little(await super().create_connection(*args, **more))

    async def create_unix_connection(self, *args: Any, **more: Any) -> Any:
        return _reading_little(await super().create_unix_connection(*args, **more))

    # -- running it --------------------------------------------------------------------------------

    async def perform(self, function: Callable[..., Awaitable[T]], args: tuple[object, ...]) -> T:
        """`call`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended:
            raise RuntimeError("the block of `open_asyncio()` has ended")
        call = _Call()
        self._running = True
        task = self.create_task(call.run(function, args))
        self._run_ready()
        cancelled: Callable[[], object] | None = None
        if call.ended:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:

            def abort(raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
                nonlocal cancelled
                cancelled = raise_cancel
                task.cancel()
                return trio.lowlevel.Abort.FAILED

            call.caller = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        error, call.error = call.error, None
        if error is None:
            result: T = call.result
            return result
        try:
            if cancelled is not None and isinstance(error, asyncio.CancelledError):
                cancelled()
            raise error
        finally:
            del error, cancelled

    async def pump(self) -> None:
        """Run what is ready, until `end`. Raises an error that no call could."""
        while not self._ended:
            with trio.CancelScope(shield=True) as self._waiting:
                self._waiting.deadline = self._first_due_s()
                while not self._more:
                    await trio.lowlevel.wait_readable(self._readable)
                    self._run_ready()
            # A timer is due, or a callback was added out of turn, or there was too much for one step.
            if self._more:
                await trio.lowlevel.cancel_shielded_checkpoint()
            self._run_ready()
        if self._trouble:
            raise self._trouble[0]

    def _run_ready(self) -> None:
        """Run all callbacks that are ready, and those that become so by them."""
        if self._ended:
            return
        self._running = True
        try:
            until = time.perf_counter() + _STEP_S
            for number in count(1):
                self._more = False
                self._forget_due_timers()
                # A loop that is told to stop before it runs looks at its sockets once, without waiting, runs
                # what is ready, and stops.
                self.stop()
                self.run_forever()
                if not self._more:
                    return
                if number >= _ROUNDS_MIN and time.perf_counter() >= until:
                    break
        finally:
            self._running = False
        self._waiting.cancel()

    def _forget_due_timers(self) -> None:
        """They fire in the round that begins now."""
        now_s = self.time()
        if self._timers and self._timers[0].when() <= now_s:
            while self._timers and self._timers[0].when() <= now_s:
                heappop(self._timers)
            self._waiting.deadline = self._first_due_s()

    def _first_due_s(self) -> float:
        while self._timers and self._timers[0].cancelled():
            heappop(self._timers)
        return self._timers[0].when() if self._timers else inf

    def _on_trouble(self, context: dict[str, Any]) -> None:
        """An error that nobody waits for any more, such as that of a connection whose set-up was given up,
        changes nobody's result. Any other ends the node."""
        if str(context.get("message", "")).endswith("exception was never retrieved"):
            _log.warning("%s: %r", context["message"], context.get("exception"))
        else:
            self.default_exception_handler(context)
            self._trouble.append(context.get("exception") or RuntimeError(context.get("message")))
            self._block.cancel()

    # -- the end -----------------------------------------------------------------------------------

    async def unwind(self) -> None:
        """Cancel what still runs, and wait for it."""

        async def cancel_all() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=_UNWIND_S)
            for task in left:
                _log.error("%r does not end", task)
            await self.shutdown_asyncgens()

        await self.perform(cancel_all, ())

    def end(self) -> None:
        self._ended = True
        self._waiting.cancel()
        self.close()


def _reading_little(connected: tuple[Any, T]) -> tuple[Any, T]:
    """What a transport reads at a time goes into memory of the size that is asked for. asyncio asks for 256
    KiB, and to get and return so much costs several times what it costs to read a short reply."""
    transport, _ = connected
    if hasattr(transport, "max_size"):
        transport.max_size = _READ_BYTES_MAX
    return connected


_current: ContextVar[_Loop | None] = ContextVar("asyncio loop", default=None)
