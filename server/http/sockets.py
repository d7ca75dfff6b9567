"""Accepted connections whose sends always end, and a listener that bounds how many there are.

hypercorn sends under a shielded cancel scope and without a time limit: a client that stops reading would
hold its task for ever, through a shutdown too. These streams bring the limit with them, from below.
"""

from __future__ import annotations

import socket as stdlib_socket

import trio

SEND_BUFFER_BYTES = 128 * 1024
"""What the kernel may hold for one client. Without a bound it grows to megabytes for each that does not
read, and a slow consumer is noticed that much later."""


class BoundedStream(trio.abc.HalfCloseableStream):
    """A socket stream in which a send that makes no progress breaks the connection.

    `over` is set once nothing more will come from the client, and by whoever wants the connection to end.

    Args:
        stream: the accepted connection.
        send_timeout_s: how long one `send_all` may take. Keep what is sent at once small (64 KiB), so
            that this speaks of progress and not of size.
    """

    def __init__(self, stream: trio.SocketStream, send_timeout_s: float) -> None:
        self.socket = stream.socket
        self.over = trio.Event()
        self._stream = stream
        self._send_timeout_s = send_timeout_s

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._send_timeout_s) as limit:
            await self._stream.send_all(data)
        if limit.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            if not data:
                self.over.set()
        return data

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        """Close at once. Whoever waits in `send_all` or `receive_some` gets ClosedResourceError."""
        self.socket.close()


class BoundedListener(trio.abc.Listener[BoundedStream]):
    """Accepts on a socket that is bound and listening already.

    Args:
        listener: where the connections come in.
        send_timeout_s: as in BoundedStream.
        connections_max: past it a new connection is closed at once, so that the process keeps file
            descriptors for everything else.
    """

    def __init__(self, listener: trio.SocketListener, *, send_timeout_s: float, connections_max: int) -> None:
        self._listener = listener
        self._send_timeout_s = send_timeout_s
        self._connections_max = connections_max
        self._open: set[BoundedStream] = set()
        self.refused_total = 0

    @property
    def connections(self) -> int:
        return len(self._open)

    async def accept(self) -> BoundedStream:
        while True:
            accepted = await self._listener.accept()
            if len(self._open) >= self._connections_max:
                self.refused_total += 1
                accepted.socket.close()
                continue
            accepted.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            stream = BoundedStream(accepted, self._send_timeout_s)
            self._open.add(stream)
            return stream

    def release(self, stream: BoundedStream) -> None:
        """The connection is over. Closes it in case that has not happened."""
        self._open.discard(stream)
        stream.abort()

    def end_all(self) -> None:
        """Ask every open connection to end."""
        for stream in self._open:
            stream.over.set()

    def abort_all(self) -> None:
        """Break every open connection."""
        for stream in self._open:
            stream.abort()

    async def aclose(self) -> None:
        await self._listener.aclose()
