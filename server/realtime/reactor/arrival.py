"""A connection from its acceptance to the end of its handshake."""

from __future__ import annotations

import socket

import trio

from engine import websocket
from server.realtime import handshake
from server.realtime.handshake import Admission, Rejection, Upgrade
from server.realtime.reactor.connection import Connection
from server.realtime.reactor.head import Head, HeadReader, NoHandshake
from server.realtime.reactor.loop import READABLE
from server.realtime.reactor.parting import Parting
from server.realtime.reactor.port import Port
from server.realtime.reactor.wheel import NEVER

READ_BYTES = 4096

GONE = "gone"
"""Handshakes that the client broke off."""

_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


class Arrival:
    """Attendant: reads the handshake, has it judged, and hands the socket over.

    The time allowed runs from the acceptance to the join; however slowly the head comes, it does not start
    again.

    Args:
        peer: the address that the socket shows.

    Raises OSError when the kernel has no memory for one more socket to watch; then nothing has begun.
    """

    __slots__ = ("_join_by", "_peer", "_port", "_reader", "_socket", "tick")

    def __init__(self, port: Port, client: socket.socket, peer: str) -> None:
        self._port = port
        self._socket = client
        self._peer = peer
        self._reader: HeadReader | None = None
        self._join_by = trio.current_time() + port.config.join_timeout_s
        self.tick = NEVER
        port.loop.add(client.fileno(), self, READABLE)
        port.loop.at(self, self._join_by)
        port.tally.connections += 1

    def ready(self, events: int) -> None:  # noqa: ARG002 - Attendant: whatever it is, reading tells
        """Attendant."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._port.tally.refused[GONE] += 1
            self.cut()
            return
        if self._reader is None:
            self._reader = HeadReader()
        try:
            head = self._reader.feed(data)
        except NoHandshake:
            self._refuse(handshake.BAD_REQUEST)
            return
        if head is not None:
            self._answer(head)

    def due(self, now: float) -> None:  # noqa: ARG002 - Attendant
        """Attendant."""
        self._refuse(handshake.TOO_LATE)

    def stop(self) -> None:
        """Attendant."""
        self._refuse(handshake.SHUTTING_DOWN)

    def cut(self) -> None:
        """Attendant."""
        self._port.release(self._socket)

    def _answer(self, head: Head) -> None:
        port = self._port
        verdict: Admission | Rejection = handshake.OVERLOADED
        if port.tally.connections <= port.config.connections_max:
            upgrade = Upgrade(
                peer=self._peer,
                target=head.target,
                host=head.host,
                origin=head.origin,
                forwarded_for=head.forwarded_for,
                subprotocols=head.subprotocols,
            )
            verdict = handshake.judge(upgrade, port.config)
        if isinstance(verdict, Rejection):
            self._refuse(verdict)
        else:
            self._open(verdict, head)

    def _open(self, admission: Admission, head: Head) -> None:
        response = _SWITCH + websocket.accept_key(head.key)
        if admission.subprotocol is not None:
            response += b"\r\nSec-WebSocket-Protocol: " + admission.subprotocol.encode()
        response += b"\r\n\r\n"
        try:
            sent = self._socket.send(response)
        except OSError:
            sent = 0
        if sent < len(response):
            # A new socket has room for this, unless the client has gone or the kernel has no memory.
            self._port.tally.refused[GONE] += 1
            self.cut()
            return
        self._port.tally.accepted += 1
        connection = Connection(self._port, self._socket, admission.address, self._join_by)
        if head.rest:
            connection.take(head.rest)

    def _refuse(self, rejection: Rejection) -> None:
        self._port.tally.refused[rejection.code] += 1
        Parting(self._port, self._socket, rejection.response)
