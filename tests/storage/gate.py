"""A door between a node and PostgreSQL that a test can shut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import trio

State = Literal["open", "shut", "frozen"]


class Gate:
    """Passes connections on to the server of a DSN.

    `shut` breaks those that are there and refuses new ones; `frozen` keeps them, and lets nothing through
    until it is `open` again.
    """

    def __init__(self, dsn: str) -> None:
        query = parse_qs(urlsplit(dsn).query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._search_path = query.get("search_path", ["public"])[0]
        self._state: State = "open"
        self._changed = trio.Event()
        self._connections = trio.CancelScope()
        self.port = 0
        self.refused = 0
        """Connections that found it `shut`."""

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?search_path={self._search_path}"

    def set(self, state: State) -> None:
        self._state = state
        self._changed.set()
        self._changed = trio.Event()
        if state == "shut":
            self._connections.cancel()
            self._connections = trio.CancelScope()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Gate]:
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
            async with await trio.open_unix_socket(self._socket) as server, trio.open_nursery() as nursery:
                nursery.start_soon(self._until_shut, connections, nursery.cancel_scope)
                nursery.start_soon(self._pass, client, server, nursery.cancel_scope)
                await self._pass(server, client, nursery.cancel_scope)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass

    async def _until_shut(self, connections: trio.CancelScope, scope: trio.CancelScope) -> None:
        while not connections.cancel_called:
            await self._changed.wait()
        scope.cancel()

    async def _pass(self, source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
        async for data in source:
            while self._state == "frozen":
                await self._changed.wait()
            await sink.send_all(data)
        scope.cancel()
