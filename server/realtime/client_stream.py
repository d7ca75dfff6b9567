"""The byte stream under one client, as trio-websocket gets to see it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

HEAD_BYTES_MAX = 16_384
"""The HTTP parser gives up on longer heads as well."""

SEND_BUFFER_BYTES = 65_536
"""What the kernel may hold for one client. Left alone it grows to megabytes for each that does not read, and
a slow consumer is noticed that much later."""

DRAINED_BYTES_MAX = 4 * 1024 * 1024
"""What is read and thrown away while a connection ends."""

Accepted = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def _nothing() -> None:
    pass


class ClientStream(trio.abc.Stream):
    """Passes bytes through, and knows what the library does not tell.

    The library closes a stream the moment it is through with it. With bytes of the client still unread the
    kernel then resets the connection, and the client never sees the close frame or the refusal that explains
    it. So `aclose` only ends the library's use of the stream; its owner calls `part` at the end, which lets
    the last bytes arrive.

    Args:
        transport: the accepted connection.
        silence_bytes_max: how much may come in without one whole message in it (see `claimed`).
    """

    def __init__(self, transport: Accepted, silence_bytes_max: int) -> None:
        self._transport = transport
        self._silence_bytes_max = silence_bytes_max
        self._unclaimed = 0
        self._released = False
        self._head: bytes | None = b""
        self.ended = False
        """The client sends nothing more."""
        self.answered = False
        """Something was sent."""
        self.on_end: Callable[[], object] = _nothing
        """Called when no more bytes will reach the library."""
        socket = (
            transport.socket
            if isinstance(transport, trio.SocketStream)
            else transport.transport_stream.socket
        )
        self._socket = socket
        with suppress(OSError):
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    @property
    def peer(self) -> str:
        """The address that the socket shows; empty when the client is gone already."""
        try:
            return str(self._socket.getpeername()[0])
        except OSError:
            return ""

    def take_host(self) -> str | None:
        """The Host header, which the library keeps to itself. To be asked once, after the head has come."""
        head, self._head = self._head or b"", None
        for line in head.partition(b"\r\n\r\n")[0].splitlines()[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"host":
                return value.strip().decode("latin-1")
        return None

    def claimed(self) -> None:
        """A whole message has come of what was received."""
        self._unclaimed = 0

    # -- for the library -------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._released:
            raise trio.ClosedResourceError("the conversation is over")
        try:
            data = bytes(await self._transport.receive_some(max_bytes))
        except trio.BrokenResourceError:
            self._end()
            raise
        if not data:
            self._end()
        self._unclaimed += len(data)
        if self._unclaimed > self._silence_bytes_max:
            # Endless empty fragments or pings: nothing that a limit on messages would see.
            self._end()
            raise trio.BrokenResourceError("too many bytes without a message")
        if self._head is not None and len(self._head) < HEAD_BYTES_MAX:
            self._head += data
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._released:
            raise trio.ClosedResourceError("the conversation is over")
        self.answered = True
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._released = True
        self.on_end()
        await trio.lowlevel.checkpoint()

    def _end(self) -> None:
        self.ended = True
        self.on_end()

    # -- for its owner ---------------------------------------------------------------------------

    async def part(self, last_words: bytes, timeout_s: float) -> None:
        """End the connection: send the last words, wait until the client has closed its side too, but not
        longer than `timeout_s`. Never raises for the client's sake."""
        try:
            with trio.move_on_after(timeout_s), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if last_words:
                    await self._transport.send_all(last_words)
                if not self.ended:
                    await self._drain()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._transport)

    async def _drain(self) -> None:
        if isinstance(self._transport, trio.SocketStream):
            await self._transport.send_eof()
        drained = 0
        while drained < DRAINED_BYTES_MAX and (data := await self._transport.receive_some(65_536)):
            drained += len(data)
