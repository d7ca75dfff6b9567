"""A door in a connection over TCP, which a test can shut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal, Self

import trio

State = Literal["open", "shut", "frozen", "one way"]


class Door:
    """Passes connections on to a server.

    `shut` breaks those that are there and refuses new ones; `frozen` keeps them, and lets nothing through
    until it is `open` again; `one way` holds back what the server says, and nothing else.

    Args:
        dial: opens a connection to the server.
    """

    def __init__(self, dial: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        self._dial = dial
        self._state: State = "open"
        self._changed = trio.Event()
        self._connections = trio.CancelScope()
        self.port = 0
        self.refused = 0
        """Connections that found it `shut`."""

    def set(self, state: State) -> None:
        self._state = state
        self._changed.set()
        self._changed = trio.Event()
        if state == "shut":
            self._connections.cancel()
            self._connections = trio.CancelScope()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Self]:
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            self.port = listener.socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, client: trio.SocketStream) -> None:
        if self._state == "shut":
            self.refused += 1
            return
        connections = self._connections
        try:
            async with await self._dial() as server, trio.open_nursery() as nursery:
                nursery.start_soon(self._until_shut, connections, nursery.cancel_scope)
                nursery.start_soon(self._pass, client, server, ("frozen",), nursery.cancel_scope)
                await self._pass(server, client, ("frozen", "one way"), nursery.cancel_scope)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass

    async def _until_shut(self, connections: trio.CancelScope, scope: trio.CancelScope) -> None:
        while not connections.cancel_called:
            await self._changed.wait()
        scope.cancel()

    async def _pass(
        self,
        source: trio.abc.Stream,
        sink: trio.abc.Stream,
        held: tuple[State, ...],
        scope: trio.CancelScope,
    ) -> None:
        async for data in source:
            while self._state in held:
                await self._changed.wait()
            await sink.send_all(data)
        scope.cancel()


def door_to(port: int) -> Door:
    """On this machine."""
    return Door(partial(trio.open_tcp_stream, "127.0.0.1", port))
