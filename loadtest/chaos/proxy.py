"""The way from a node to what it needs, which can be slow, silent or cut.

It listens on loopback and passes bytes on to a Unix socket or to another port. A fault of it lasts for as
long as its block.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio

CHUNK_BYTES = 65_536
_BREAK = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST, as a network failure would make the kernel do."""


class _Way:
    """One direction of all connections."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._open = trio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open = trio.Event()

    def release(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        """Wait for as long as whatever comes this way now is held up."""
        await self._open.wait()
        if self.delay_s:
            await trio.sleep(self.delay_s)


Upstream = Callable[[], str | int]
"""Asked at each connection for the path of a Unix socket, or for a port of this machine."""


class Proxy:
    """`port` is where it listens. Made by `proxy_to`; or by who listens there for several of them, and hands
    each connection to the `carry` of one."""

    def __init__(self, upstream: Upstream, port: int) -> None:
        self.port = port
        self._upstream = upstream
        self._there, self._back = _Way(), _Way()
        self._refuses = False
        self._connections: set[trio.CancelScope] = set()

    def __len__(self) -> int:
        """Open connections."""
        return len(self._connections)

    def cut(self) -> None:
        """Every connection breaks; what was on its way is lost."""
        for scope in self._connections:
            scope.cancel()

    @contextmanager
    def severed(self) -> Iterator[None]:
        """Every connection breaks, and new ones do at once."""
        self._refuses = True
        self.cut()
        try:
            yield
        finally:
            self._refuses = False

    @contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Whatever comes, comes that much later, in either direction."""
        self._there.delay_s = self._back.delay_s = delay_s
        try:
            yield
        finally:
            self._there.delay_s = self._back.delay_s = 0.0

    @contextmanager
    def silent(self, *, towards_server: bool = True, lost: bool = True) -> Iterator[None]:
        """Connections stand, but nothing comes from the server, and nothing reaches it unless
        `towards_server` is false. In the end they are cut, and what was held up is lost; unless `lost` is
        false: then all that arrives late, as it does when a network heals, though who sent it may have given
        up long ago."""
        ways = [self._back, *([self._there] if towards_server else [])]
        for way in ways:
            way.hold()
        try:
            yield
        finally:
            if lost:
                self.cut()
            for way in ways:
                way.release()

    async def carry(self, client: trio.SocketStream) -> None:
        """One connection, to its end."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                if self._refuses:
                    scope.cancel()
                await self._carry(client)
            finally:
                self._connections.discard(scope)
                break_off(client)

    async def _carry(self, client: trio.SocketStream) -> None:
        await self._there.pass_through()
        try:
            upstream = self._upstream()
            if isinstance(upstream, int):
                server = await trio.open_tcp_stream("127.0.0.1", upstream)
            else:
                server = await trio.open_unix_socket(upstream)
        except OSError:
            return  # the server is away
        try:
            async with trio.open_nursery() as nursery:

                async def pump(source: trio.SocketStream, sink: trio.SocketStream, way: _Way) -> None:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        while data := await source.receive_some(CHUNK_BYTES):
                            await way.pass_through()
                            await sink.send_all(data)
                    await way.pass_through()  # an end comes no sooner than anything else
                    nursery.cancel_scope.cancel()

                nursery.start_soon(pump, client, server, self._there)
                nursery.start_soon(pump, server, client, self._back)
        finally:
            break_off(server)


def break_off(stream: trio.SocketStream) -> None:
    """The other side is told that the connection is broken."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK)
    stream.socket.close()


@asynccontextmanager
async def proxy_to(upstream: Upstream) -> AsyncGenerator[Proxy]:
    """Carry connections while the block runs."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made = Proxy(upstream, listeners[0].socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, made.carry, listeners)
        yield made
        nursery.cancel_scope.cancel()
