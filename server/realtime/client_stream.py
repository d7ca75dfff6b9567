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

CONTROL = 0x8
"""The bit of an opcode that says that a frame is none of a message."""

PONG = 0xA

Accepted = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def _nothing() -> None:
    pass


class Frames:
    """Counts the frames that say nothing, by their heads: control frames, and pieces of messages that others
    complete. Of what is no proper frame it makes anything: the library ends such a connection."""

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0
        """Bytes until the next head."""
        self.pong_due = False
        """Whether a ping of ours is out: one pong for each is not counted."""

    def feed(self, data: bytes) -> int:
        """How many of them begin in these bytes."""
        aside, at = 0, 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            self._head += data[at : at + 1]
            at += 1
            size = self._head_size()
            if len(self._head) == size:
                aside += self._count()
        return aside

    def _head_size(self) -> int:
        """Without the mask. The length is in the second byte, or behind it."""
        if len(self._head) < 2:
            return 2
        return {126: 4, 127: 10}.get(self._head[1] & 0x7F, 2)

    def _count(self) -> int:
        """Take the head, which is whole. 1 if its frame says nothing."""
        head, self._head = self._head, b""
        length = head[1] & 0x7F if len(head) == 2 else int.from_bytes(head[2:], "big")
        self._skip = 4 + length
        if not head[0] & CONTROL:
            return 0 if head[0] & 0x80 else 1
        if head[0] & 0xF == PONG and self.pong_due:
            self.pong_due = False
            return 0
        return 1


class ClientStream(trio.abc.Stream):
    """Passes bytes through, and knows what the library does not tell.

    The library closes a stream the moment it is through with it. With bytes of the client still unread the
    kernel then resets the connection, and the client never sees the close frame or the refusal that explains
    it. So `aclose` only ends the library's use of the stream; its owner calls `part` at the end, which lets
    the last bytes arrive.

    Args:
        transport: the accepted connection.
    """

    def __init__(self, transport: Accepted) -> None:
        self._transport = transport
        self._released = False
        self._muted = False
        self._frames = Frames()
        self._head: bytes | None = b""
        self.ended = False
        """The client sends nothing more."""
        self.answered = False
        """Something was sent."""
        self.on_end: Callable[[], object] = _nothing
        """Called when no more bytes will reach the library."""
        self._early = 0
        """Frames that say nothing and came before somebody wanted to know."""
        self._on_aside: Callable[[int], object] = self._count_early
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
        received, self._head = self._head or b"", None
        head, _, rest = received.partition(b"\r\n\r\n")
        self._count_early(self._frames.feed(rest))
        for line in head.splitlines()[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"host":
                return value.strip().decode("latin-1")
        return None

    def count_aside(self, on_aside: Callable[[int], object]) -> None:
        """Tell somebody how many frames come that say nothing (see `Frames`), and how many have come."""
        self._on_aside = on_aside
        if self._early:
            on_aside(self._early)

    def expect_pong(self) -> None:
        """A ping is about to be sent, whose pong is free."""
        self._frames.pong_due = True

    def mute(self) -> None:
        """Let nothing more through to the library: the client has said too much."""
        self._muted = True

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
        if self._head is None:
            if aside := self._frames.feed(data):
                self._on_aside(aside)
        elif len(self._head) < HEAD_BYTES_MAX:
            self._head += data
        if self._muted:
            await trio.sleep_forever()  # the library's reader is cancelled with the connection
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

    def _count_early(self, aside: int) -> None:
        self._early += aside

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
