"""The end of a connection: the last bytes, and time for them to arrive."""

from __future__ import annotations

import socket

import trio

from server.realtime import transport
from server.realtime.reactor.loop import ENDED, READABLE, WRITABLE
from server.realtime.reactor.port import Port
from server.realtime.reactor.timer_wheel import NEVER

DRAINED_BYTES_MAX = 4 * 1024 * 1024
"""The most bytes that are read and thrown away while a connection ends."""

DRAIN_BYTES = 65_536


class LingeringClose:
    """SocketHandler: sends the last bytes, closes the sending half, and waits until the client has closed its
    half too, but not longer than PARTING_S.

    If a socket is closed while bytes of the client are unread, the kernel resets the connection, and the
    client never sees the last bytes. So everything is read first.

    Args:
        address: the connection is counted for it until the socket is closed; None if it is not counted.
        heard_out: whether further bytes of the client are read. If the client has sent too much they are not:
            they stay with the client, and cost nothing here.
    """

    __slots__ = ("_address", "_awaited", "_drained", "_port", "_socket", "_words", "tick")

    def __init__(
        self,
        port: Port,
        client: socket.socket,
        address: str | None,
        words: bytes,
        *,
        heard_out: bool = True,
    ) -> None:
        self._port = port
        self._socket = client
        self._address = address
        self._words = words
        self._awaited = READABLE if heard_out else ENDED
        self._drained = 0
        self.tick = NEVER
        port.loop.hand_over(client.fileno(), self)
        port.loop.call_at(self, trio.current_time() + transport.PARTING_S)
        self._say()

    def ready(self, events: int) -> None:
        """SocketHandler."""
        if events & WRITABLE:
            self._say()
        elif not self._drain() or self._awaited == ENDED:
            self.cut()

    def due(self, now: float) -> None:  # noqa: ARG002 - SocketHandler
        """SocketHandler."""
        self.cut()

    def stop(self) -> None:
        """SocketHandler."""

    def cut(self) -> None:
        """SocketHandler."""
        self._port.release(self._socket, self._address)

    def _say(self) -> None:
        try:
            self._words = self._words[self._socket.send(self._words) :]
        except BlockingIOError:
            pass
        except OSError:
            self.cut()
            return
        if self._words:
            self._port.loop.want(self._socket.fileno(), self._awaited | WRITABLE)
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut()
            return
        self._port.loop.want(self._socket.fileno(), self._awaited)

    def _drain(self) -> bool:
        """Whether to go on."""
        try:
            data = self._socket.recv(DRAIN_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._drained += len(data)
        return bool(data) and self._drained < DRAINED_BYTES_MAX
