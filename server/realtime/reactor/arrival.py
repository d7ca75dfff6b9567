"""A connection from its acceptance to its first whole request, most often a handshake."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

from engine import websocket
from server.peers import client_address
from server.realtime import handshake
from server.realtime.handshake import Admission, Rejection, Upgrade
from server.realtime.reactor.connection import Connection
from server.realtime.reactor.exchange import Exchange
from server.realtime.reactor.loop import READABLE
from server.realtime.reactor.parting import Parting
from server.realtime.reactor.port import Port, receive
from server.realtime.reactor.request import Malformed, NoHandshake, RequestReader, TooLarge, read_handshake
from server.realtime.reactor.responses import CONTINUE
from server.realtime.reactor.wheel import NEVER

GONE = "gone"
"""Handshakes that the client broke off."""

_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


class Arrival:
    """Attendant: reads the first request, has a handshake judged, and hands the socket over.

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
        self._reader: RequestReader | None = None
        self._join_by = trio.current_time() + port.config.join_timeout_s
        self.tick = NEVER
        port.loop.add(client.fileno(), self, READABLE)
        port.loop.at(self, self._join_by)
        port.tally.connections += 1

    def ready(self, events: int) -> None:  # noqa: ARG002 - Attendant: whatever it is, reading tells
        """Attendant."""
        data = receive(self._socket)
        if data is None:
            return
        if not data:
            self._port.tally.refused[GONE] += 1
            self.cut()
            return
        if self._reader is None:
            self._reader = RequestReader(self._port.config.frame_bytes_max)
        try:
            self._reader.feed(data)
        except Malformed:
            self._refuse(handshake.BAD_REQUEST)
            return
        except TooLarge:
            self._refuse(handshake.TOO_LARGE)
            return
        if self._reader.take_expectation():
            with suppress(OSError):
                self._socket.send(CONTINUE)
        if len(self._reader):
            self._answer(self._reader)

    def due(self, now: float) -> None:  # noqa: ARG002 - Attendant
        """Attendant."""
        self._refuse(handshake.TOO_LATE)

    def stop(self) -> None:
        """Attendant."""
        self._refuse(handshake.SHUTTING_DOWN)

    def cut(self) -> None:
        """Attendant."""
        self._forget()
        self._port.release(self._socket)

    def _answer(self, reader: RequestReader) -> None:
        port = self._port
        if port.tally.connections > port.config.connections_max:
            self._refuse(handshake.OVERLOADED)
            return
        first = reader.first
        if not first.asks_for_websocket and first.target.partition("?")[0] != handshake.PATH:
            address = client_address(self._peer, first.header(b"x-forwarded-for"), port.config.proxy_hops)
            if port.count.enter(address, trio.current_time()):
                self._reader = None
                Exchange(port, self._socket, self._peer, address, reader)
            else:
                self._refuse(handshake.CROWDED)
            return
        try:
            head = read_handshake(first)
        except NoHandshake:
            self._refuse(handshake.BAD_REQUEST)
            return
        verdict = handshake.judge(
            Upgrade(
                peer=self._peer,
                target=head.target,
                host=head.host,
                origin=head.origin,
                forwarded_for=head.forwarded_for,
                subprotocols=head.subprotocols,
            ),
            port.config,
            port.gate.pages(),
        )
        if isinstance(verdict, Admission) and not port.count.enter(verdict.address, trio.current_time()):
            verdict = handshake.CROWDED
        if isinstance(verdict, Rejection):
            self._refuse(verdict)
        else:
            self._open(verdict, head.key, first.rest)

    def _open(self, admission: Admission, key: bytes, rest: bytes) -> None:
        response = _SWITCH + websocket.accept_key(key)
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
            self._port.count.leave(admission.address)
            self.cut()
            return
        self._forget()
        self._port.tally.accepted += 1
        connection = Connection(self._port, self._socket, admission.address, self._join_by)
        if rest:
            connection.take(rest)

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _refuse(self, rejection: Rejection) -> None:
        self._forget()
        self._port.tally.refused[rejection.code] += 1
        Parting(self._port, self._socket, rejection.response)
