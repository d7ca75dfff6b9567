"""The end of a connection: the last words, and time for them to arrive."""

from __future__ import annotations

import socket

import trio

from server.realtime import transport
from server.realtime.reactor.loop import ENDED, READABLE, WRITABLE
from server.realtime.reactor.port import Port
from server.realtime.reactor.timer_wheel import NEVER

DRAINED_BYTES_MAX = 4 * 1024 * 1024
"""What is read and thrown away while a connection ends."""

DRAIN_BYTES = 65_536


class LingeringClose:
    """Attendant: says the last words, closes our side, and waits until the client has closed its side too,
    but not longer than PARTING_S.

    A socket that is closed with bytes of the client still unread makes the kernel reset the connection, and
    the client then never sees what was said last. So everything is read first.

    Args:
        address: for which the connection is counted, until the socket is closed; None for nobody's.
        heard_out: whether all is read that still comes. A client that has sent too much is not: what it
            sends stays with it, and costs nothing here.
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
        """Attendant."""
        if events & WRITABLE:
            self._say()
        elif not self._drain() or self._awaited == ENDED:
            self.cut()

    def due(self, now: float) -> None:  # noqa: ARG002 - Attendant
        """Attendant."""
        self.cut()

    def stop(self) -> None:
        """Attendant."""

    def cut(self) -> None:
        """Attendant."""
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
