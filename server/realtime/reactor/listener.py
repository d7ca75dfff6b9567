"""Accepts connections, and refuses them when the machine has no room for more."""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress

import trio

from server.realtime import handshake
from server.realtime.reactor.loop import READABLE
from server.realtime.reactor.opening import Opening
from server.realtime.reactor.port import Port
from server.realtime.reactor.timer_wheel import NEVER
from server.runtime.request_ids import request_id_of
from server.security.limits import COMPLAINT_INTERVAL_S

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that the kernel completes before they are accepted: a class joins in one second."""

ACCEPTED_AT_ONCE_MAX = 8
"""Connections accepted in one call. A round has as many handshakes, and whoever plays waits for the round: at
32 an answer waited twice as long at p99 beside 2,000 new connections, which were not served sooner."""

REFUSED_AT_ONCE_MAX = 64
"""How many connections beyond a limit, of the node or of their address, get a refusal. Further ones are cut
off without a word."""

SEND_BUFFER_BYTES = 65_536
"""The most bytes that the kernel buffers for one client. By default that grows to megabytes for a client that
does not read, and a slow consumer is noticed that much later."""

SO_TIMESTAMPNS = 35
"""The kernel says when it had the last of the bytes that are read (socket(7)). Python does not name it."""

PAUSE_S = 0.5
"""How long no connection is accepted when not even refusing works."""

NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
NO_MEMORY = frozenset({errno.ENOMEM, errno.ENOBUFS})


class Listener:
    """SocketHandler of a listening socket.

    One file is kept open in reserve. When there are no more files it is given up for a moment, so that a
    client can be accepted, told to come back later, and disconnected: otherwise it would hang in the kernel's
    queue, and the loop would be woken for them again and again.
    """

    __slots__ = ("_complained_at", "_port", "_reserve", "_socket", "tick")

    def __init__(self, port: Port, bound: socket.socket) -> None:
        self._port = port
        self._socket = bound
        self._reserve = _reserve()
        self._complained_at = -COMPLAINT_INTERVAL_S
        self.tick = NEVER
        # Accepted sockets inherit all three, which saves system calls for each.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # a kernel that cannot: answers count from when they are read
            bound.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        bound.setblocking(False)
        bound.listen(BACKLOG)
        port.loop.add(bound.fileno(), self, READABLE)

    def ready(self, events: int) -> None:  # noqa: ARG002 - SocketHandler
        """SocketHandler."""
        for _ in range(ACCEPTED_AT_ONCE_MAX):
            try:
                client, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NO_FILES | NO_MEMORY:
                    self._no_room(error)
                    return
                continue  # of one client who has gone again
            self._welcome(client, address[0])

    def due(self, now: float) -> None:  # noqa: ARG002 - SocketHandler
        """SocketHandler: the pause is over."""
        if self._reserve is None:
            self._reserve = _reserve()
        self._port.loop.want(self._socket.fileno(), READABLE)

    def stop(self) -> None:
        """SocketHandler: accepts no more."""
        if self._socket.fileno() >= 0:  # else whoever made the socket has closed it
            self._port.loop.remove(self._socket.fileno())
            self._socket.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def cut(self) -> None:
        """SocketHandler: a mistake here must not end the listening."""

    def _welcome(self, client: socket.socket, peer: str) -> None:
        port = self._port
        if port.tally.connections >= port.connections_max + REFUSED_AT_ONCE_MAX:
            port.tally.refused[handshake.OVERLOADED.code] += 1
            client.close()
            return
        # Before a byte has come, so that the silent count as well. A proxy speaks for many: for whom, its
        # first request tells.
        address = peer if port.config.proxy_hops == 0 else None
        crowded = False
        if address is not None:
            now = trio.current_time()
            may_come = port.arrivals.take(address, now)
            crowded = may_come and not port.count.enter(address, now)
            if not may_come or (crowded and not port.count.enter(address, now, REFUSED_AT_ONCE_MAX)):
                port.tally.refused[handshake.CROWDED.code] += 1
                client.close()
                return
        try:
            client.setblocking(False)
            Opening(port, client, peer, address, crowded=crowded)
        except OSError as error:
            if address is not None:
                port.count.leave(address)
            client.close()
            self._no_room(error)

    def _no_room(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._complained_at >= COMPLAINT_INTERVAL_S:
            self._complained_at = now
            log.error(
                "no room for new connections, which are refused: %s. %d are open and go on. "
                "Allow more open files or memory, or lower connections_max",
                error.strerror,
                self._port.tally.connections,
            )
        if error.errno in NO_MEMORY or not self._turn_away():
            self._port.loop.want(self._socket.fileno(), 0)
            self._port.loop.call_at(self, now + PAUSE_S)

    def _turn_away(self) -> bool:
        """Refuse the waiting connections, with the file in reserve. False if that is not possible."""
        for _ in range(ACCEPTED_AT_ONCE_MAX):
            if self._reserve is not None:
                os.close(self._reserve)
                self._reserve = None
            try:
                client, _ = self._socket.accept()
            except BlockingIOError:
                break
            except OSError:
                return False
            with client, suppress(OSError):
                client.setblocking(False)
                client.send(handshake.OVERLOADED.response(request_id_of(None)))
                client.shutdown(socket.SHUT_WR)
                client.recv(65_536)  # what is unread would make the kernel take the answer back
            self._port.tally.refused[handshake.OVERLOADED.code] += 1
        self._reserve = _reserve()
        return self._reserve is not None


def _reserve() -> int | None:
    """A file that is open only to be closed when there are no others."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
