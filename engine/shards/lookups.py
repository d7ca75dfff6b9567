"""Shared look-ups of sessions: one look at a time for each session, and one outcome for all that wait for it.

When the node of a session has died, or its players all come back at once, thousands of clients ask for one
session at the same time. One look answers all of them, and each is woken once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from engine.actors.commands import Command, Detach
from engine.actors.delivery.fanout import CHUNK, Slicer
from engine.boundary import Boundary, Mistake
from engine.ports import StorageUnavailable

T = TypeVar("T")

Send = Callable[[Command], None]


class _Look(Generic[T]):
    """A look, and its outcome once it is over."""

    __slots__ = ("error", "found", "over")

    def __init__(self) -> None:
        self.over = trio.Event()
        self.found: T | None = None
        self.error: Exception | None = StorageUnavailable("the look was given up")


class Lookups(Generic[T]):
    """Looks by key.

    Args:
        nursery: runs the looks, so that none is cancelled with the first client that asked.
        look: finds the value of a key.
        refusals: exceptions that `look` raises in ordinary operation.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        look: Callable[[str], Awaitable[T]],
        refusals: tuple[type[Exception], ...],
        boundary: Boundary,
    ) -> None:
        self._nursery = nursery
        self._look = look
        self._refusals = refusals
        self._boundary = boundary
        self._under_way: dict[str, _Look[T]] = {}

    async def find(self, key: str) -> T:
        """The value of this key, by a look that is shared. Raises the refusals, and Mistake for anything
        else."""
        look = self._under_way.get(key)
        if look is None:
            look = self._under_way[key] = _Look()
            self._nursery.start_soon(self._run, key, look)
        await look.over.wait()
        error, found = look.error, look.found
        del look
        if error is None:
            return found  # type: ignore[return-value]  # without an error it was found
        try:
            raise error.with_traceback(None)
        finally:
            del error  # else it and this frame refer to each other, and stay until a full collection

    async def _run(self, key: str, look: _Look[T]) -> None:
        try:
            look.found = await self._look(key)
            look.error = None
        except self._refusals as error:
            look.error = error.with_traceback(None)  # which refers to this frame, and that to the error
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "looking for a session", key)
            look.error = Mistake(key)
        finally:
            del self._under_way[key]
            look.over.set()


Route = Callable[[str], Awaitable[Send]]
"""Finds how commands reach the session with this id or code."""


class CommandQueues:
    """Commands whose session is being looked up. The commands of one route and key keep their order.

    Args:
        refuse: tells the sender of a command why it is refused; without a reason, `busy`.
        refusals: exceptions that routes raise in ordinary operation.
        commands_max: the most commands that wait, of all sessions. Further ones are refused.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        refuse: Callable[[Exception | None, Command], None],
        refusals: tuple[type[Exception], ...],
        boundary: Boundary,
        commands_max: int,
    ) -> None:
        self._nursery = nursery
        self._refuse = refuse
        self._refusals = refusals
        self._boundary = boundary
        self._commands_max = commands_max
        self._queues: dict[tuple[Route, str], list[Command]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def holds(self, route: Route, key: str) -> bool:
        """Whether earlier commands wait for the same route and key: a later one must not overtake them."""
        return bool(self._queues) and (route, key) in self._queues

    def add(self, route: Route, key: str, command: Command) -> None:
        """Send a command once its route is known."""
        if self._count >= self._commands_max and not isinstance(command, Detach):
            self._refuse(None, command)
            return
        self._count += 1
        queue = self._queues.get((route, key))
        if queue is not None:
            queue.append(command)
        else:
            self._queues[route, key] = [command]
            self._nursery.start_soon(self._resolve, route, key)

    async def _resolve(self, route: Route, key: str) -> None:
        refusal: Exception | None = None
        send: Send | None = None
        try:
            send = await route(key)
        except self._refusals as error:
            refusal = error.with_traceback(None)  # as in `_run`
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "delivering to a session", key)
        commands = self._queues.pop((route, key))
        self._count -= len(commands)
        if send is not None:
            # Without a checkpoint: after the next one the session may be elsewhere.
            for command in commands:
                with self._boundary.within("delivering to a session", key):
                    send(command)
            return
        slicer = Slicer()
        for place, command in enumerate(commands, 1):
            with self._boundary.within("delivering to a session", key):
                self._refuse(refusal, command)
            if place % CHUNK == 0:
                await slicer.breathe()
