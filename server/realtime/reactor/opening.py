"""A connection from its acceptance to its first whole request, most often a handshake."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

from server.realtime import handshake
from server.realtime.handshake import Rejection
from server.realtime.reactor.exchange import Exchange
from server.realtime.reactor.lingering_close import LingeringClose
from server.realtime.reactor.loop import READABLE
from server.realtime.reactor.port import Port, receive
from server.realtime.reactor.request import Malformed, Request, RequestReader, TooLarge
from server.realtime.reactor.responses import CONTINUE
from server.realtime.reactor.timer_wheel import NEVER
from server.realtime.reactor.upgrade import GONE, asks_for_upgrade, judge, open_websocket
from server.runtime.request_ids import request_id_of
from server.security.client_address import client_address


class Opening:
    """SocketHandler: reads the first request, has a handshake judged, and hands the socket over.

    The time allowed runs from the acceptance to the join; a head that arrives slowly does not restart it.

    Args:
        peer: the address that the socket shows.
        address: for which the connection is counted; None when proxies are in front, whose word for whom
            they speak is yet to come.
        crowded: whether the address has more connections than it may. This one is to be told so.

    Raises OSError when the kernel has no memory for one more socket to watch; then nothing has begun.
    """

    __slots__ = ("_address", "_crowded", "_join_by", "_peer", "_port", "_reader", "_socket", "tick")

    def __init__(
        self, port: Port, client: socket.socket, peer: str, address: str | None, *, crowded: bool = False
    ) -> None:
        self._port = port
        self._socket = client
        self._peer = peer
        self._address = address
        self._crowded = crowded
        self._reader: RequestReader | None = None
        self._join_by = trio.current_time() + port.config.join_timeout_s
        self.tick = NEVER
        port.loop.add(client.fileno(), self, READABLE)
        port.loop.call_at(self, self._join_by)
        port.tally.connections += 1

    def ready(self, events: int) -> None:  # noqa: ARG002 - SocketHandler: whatever it is, reading tells
        """SocketHandler."""
        self._read()

    def _read(self) -> bool:
        """Take what has come. Returns whether the opening goes on."""
        data = receive(self._socket, self._port.loop.reads)
        if data is None:
            return True
        if not data:
            self._port.tally.refused[GONE] += 1
            self.cut()
            return False
        if self._reader is None:
            self._reader = RequestReader(self._port.config.frame_bytes_max)
        try:
            self._reader.feed(data)
        except Malformed as error:
            self._refuse(handshake.unreadable(error.status), self._reader.request_id())
            return False
        except TooLarge:
            self._refuse(handshake.TOO_LARGE, self._reader.request_id())
            return False
        if self._reader.take_expectation():
            with suppress(OSError):
                self._socket.send(CONTINUE)
        if not len(self._reader):
            return True
        self._answer(self._reader)
        return False

    def due(self, now: float) -> None:  # noqa: ARG002 - SocketHandler
        """SocketHandler."""
        if self._read():  # a late loop does not take its own lateness for the client's
            self._refuse(handshake.TOO_LATE, self._id_so_far())

    def stop(self) -> None:
        """SocketHandler."""
        self._refuse(handshake.SHUTTING_DOWN, self._id_so_far())

    def cut(self) -> None:
        """SocketHandler."""
        self._forget()
        self._port.release(self._socket, self._address)

    def _answer(self, reader: RequestReader) -> None:
        port, first = self._port, reader.first
        if port.tally.connections > port.connections_max:
            self._refuse(handshake.OVERLOADED, first.request_id())
            return
        if self._crowded:
            self._refuse(handshake.CROWDED, first.request_id())
            return
        if not asks_for_upgrade(first):
            address = client_address(self._peer, first.header(b"x-forwarded-for"), port.config.proxy_hops)
            if self._take_place(address, first):
                self._reader = None
                Exchange(port, self._socket, self._peer, address, reader)
            return
        verdict = judge(port, self._peer, first)
        if isinstance(verdict, Rejection):
            self._refuse(verdict, first.request_id())
        elif self._take_place(verdict.address, first):
            self._forget()
            if not open_websocket(port, self._socket, verdict, first, self._join_by):
                self.cut()

    def _take_place(self, address: str, first: Request) -> bool:
        """Count the connection for the client, if that has not been done. False when it was refused."""
        if self._address is None:
            if not self._port.count.enter(address, trio.current_time()):
                self._refuse(handshake.CROWDED, first.request_id())
                return False
            self._address = address
        return True

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _id_so_far(self) -> str:
        return request_id_of(None) if self._reader is None else self._reader.request_id()

    def _refuse(self, rejection: Rejection, request_id: str) -> None:
        self._forget()
        self._port.tally.refused[rejection.code] += 1
        LingeringClose(self._port, self._socket, self._address, rejection.response(request_id))
