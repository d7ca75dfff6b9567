"""The portable transport: trio-websocket, with TLS in this process if wanted.

One nursery a connection holds the library's reader, and inside it a few tasks of ours: one takes messages to
the conversation, one sends what the session pushed, one looks for signs of life, and for a while one waits
for the join. What the library raises for the network's sake stops at the connection it happened on; so does
a mistake in our own code, with a traceback in the log.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
from collections.abc import Sequence
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream

from engine.actors.close_reasons import CloseReason
from server.config.config import Config
from server.file_limit import room
from server.realtime import handshake, transport
from server.realtime.client_stream import Accepted, ClientStream
from server.realtime.conversation import ConversationDeps
from server.realtime.handshake import Admission, Rejection, Upgrade
from server.realtime.transport import Tally, TransportStatistics
from server.realtime.trio_connection import Connection, HubWebSocket
from server.runtime.request_ids import HEADER, request_id_of
from server.security.limits import ArrivalRate, ConnectionCount

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that the kernel completes before we accept them: a class joins in one second."""

REFUSED_AT_ONCE_MAX = 64
"""How many connections beyond a limit, of the node or of their address, get a refusal. Further ones are cut
off without a word."""

GONE = "gone"
"""Handshakes that the client broke off."""


class TrioWebSocketTransport:
    """Transport.

    Args:
        deps: shared by the conversations.
        config: the limits and times.
        rng: spreads the pings, so that the clients of one start do not answer in step.
    """

    def __init__(self, deps: ConversationDeps, config: Config, rng: random.Random | None = None) -> None:
        self._deps = deps
        self._config = config
        self._connections_max = room(config.connections_max).realtime
        self._rng = rng or random.Random()
        self._tally = Tally()
        self._count = ConnectionCount(config.connections_per_address_max)
        at_once = config.connections_per_address_max + REFUSED_AT_ONCE_MAX
        self._arrivals = ArrivalRate(config.connections_per_address_per_s, at_once)
        self._open: set[Connection] = set()
        self._shaking: set[trio.CancelScope] = set()
        self._stopping = False

    def statistics(self) -> TransportStatistics:
        return self._tally.snapshot()

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        *,
        ssl_context: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Transport."""
        stopped = trio.Event()
        async with trio.open_nursery() as nursery:
            connections = await nursery.start(self._hold, stopped)
            try:
                listen = partial(
                    trio.serve_listeners,
                    self._serve_client,
                    _listeners(sockets, ssl_context),
                    handler_nursery=connections,
                )
                await nursery.start(listen)
                task_status.started()
                await trio.sleep_forever()
            finally:
                stopped.set()

    async def _hold(self, stopped: trio.Event, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Keep the connections until `serve` is cancelled, and long enough after it to tell the clients."""
        async with trio.open_nursery() as connections:
            connections.cancel_scope.shield = True
            task_status.started(connections)
            await stopped.wait()
            self._stopping = True
            connections.cancel_scope.deadline = trio.current_time() + transport.SHUTDOWN_S
            for scope in self._shaking:
                scope.cancel()
            for connection in self._open:
                connection.close(CloseReason.SHUTDOWN)

    # -- one client ------------------------------------------------------------------------------

    async def _serve_client(self, accepted: Accepted) -> None:
        tally = self._tally
        if tally.connections >= self._connections_max + REFUSED_AT_ONCE_MAX:
            tally.refused[handshake.OVERLOADED.code] += 1
            await trio.aclose_forcefully(accepted)
            return
        tally.connections += 1
        place = _Place(self._count)
        try:
            stream = ClientStream(accepted)
            # Before a byte has come, so that the silent count as well. A proxy speaks for many: for whom, its
            # request tells.
            if self._config.proxy_hops == 0 and not (
                self._arrivals.take(stream.peer, trio.current_time())
                and place.take(stream.peer, REFUSED_AT_ONCE_MAX)
            ):
                tally.refused[handshake.CROWDED.code] += 1
                await trio.aclose_forcefully(accepted)
                return
            await self._attend(stream, place)
        except Exception:
            log.exception("a connection failed")
        finally:
            place.give_back()
            tally.connections -= 1

    async def _attend(self, stream: ClientStream, place: _Place) -> None:
        last_words = b""
        try:
            async with trio.open_nursery() as library:
                try:
                    last_words = await self._meet(library, stream, place)
                except Exception:
                    log.exception("a connection failed")
                library.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - the boundary: the network costs one connection
            # From the library's reader: malformed headers, control frames after the close, lost peers.
            log.debug("a connection broke: %r", group.exceptions)
            if not stream.answered:
                last_words = self._refused(handshake.BAD_REQUEST).response(request_id_of(None))
        finally:
            await stream.part(last_words, transport.PARTING_S)

    async def _meet(self, library: trio.Nursery, stream: ClientStream, place: _Place) -> bytes:
        """Everything between the first byte and the last message. Returns the bytes that are left to say."""
        join_by = trio.current_time() + self._config.join_timeout_s
        with trio.CancelScope(deadline=join_by) as scope:
            stream.on_end = scope.cancel
            self._shaking.add(scope)
            try:
                opened = await self._shake_hands(library, stream, place)
            except ConnectionClosed:
                self._tally.refused[GONE] += 1
                return b""
            finally:
                self._shaking.discard(scope)
        if scope.cancelled_caught:
            return self._give_up(stream)
        if opened is None:
            return b""
        websocket, admission = opened
        shared = (websocket, stream, self._deps, self._config, self._tally, admission.address)
        connection = Connection(*shared) if admission.hub is None else HubWebSocket(*shared, admission.hub)
        self._tally.accepted += 1
        self._open.add(connection)
        try:
            if self._stopping:
                connection.close(CloseReason.SHUTDOWN)
            return await connection.run(join_by, self._rng.random())
        finally:
            self._open.discard(connection)

    async def _shake_hands(
        self, library: trio.Nursery, stream: ClientStream, place: _Place
    ) -> tuple[WebSocketConnection, Admission] | None:
        """The open connection and how it was let in; None when the client was turned away."""
        request = await wrap_server_stream(library, stream, max_message_size=self._config.frame_bytes_max)
        request_id = request_id_of(_header(request, HEADER.lower().encode()))
        verdict: Admission | Rejection = handshake.OVERLOADED
        if self._tally.connections <= self._connections_max:
            verdict = handshake.judge(
                _upgrade(stream, request), self._config, self._deps.pages(), self._deps.connection_tokens
            )
        if isinstance(verdict, Admission) and not place.take(verdict.address):
            verdict = handshake.CROWDED
        if isinstance(verdict, Rejection):
            self._refused(verdict)
            headers = verdict.headers(request_id)
            await request.reject(verdict.status, extra_headers=headers, body=verdict.body)
            return None
        if verdict.hub is not None and verdict.hub.connection_token is not None:
            self._deps.connection_tokens.spend(verdict.hub.connection_token)
        said = [(HEADER.encode(), request_id.encode())]
        return await request.accept(subprotocol=verdict.subprotocol, extra_headers=said), verdict

    def _give_up(self, stream: ClientStream) -> bytes:
        """A handshake that came to no end. Returns what to say to it."""
        if stream.answered:
            self._refused(handshake.BAD_REQUEST)  # the library has said so
            return b""
        if stream.ended:
            self._tally.refused[GONE] += 1
            return b""
        rejection = handshake.SHUTTING_DOWN if self._stopping else handshake.TOO_LATE
        return self._refused(rejection).response(request_id_of(None))

    def _refused(self, rejection: Rejection) -> Rejection:
        self._tally.refused[rejection.code] += 1
        return rejection


class _Place:
    """Of one connection in the count by addresses. Given back when the connection is over."""

    __slots__ = ("_address", "_count", "_crowded")

    def __init__(self, count: ConnectionCount) -> None:
        self._count = count
        self._address: str | None = None
        self._crowded = False

    def take(self, address: str, beyond: int = 0) -> bool:
        """Whether the connection may stay; asked a second time, whether it may go on. With `beyond`, so many
        above the limit may stay, but not go on."""
        if self._address is not None:
            return not self._crowded
        now = trio.current_time()
        self._crowded = not self._count.enter(address, now)
        if self._crowded and not (beyond and self._count.enter(address, now, beyond)):
            return False
        self._address = address
        return True

    def give_back(self) -> None:
        if self._address is not None:
            self._count.leave(self._address)


def _listeners(
    sockets: Sequence[socket.socket], ssl_context: ssl.SSLContext | None
) -> list[trio.abc.Listener[Accepted]]:
    for each in sockets:
        each.listen(BACKLOG)
    plain = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets]
    if ssl_context is None:
        return list(plain)
    return [trio.SSLListener(each, ssl_context, https_compatible=True) for each in plain]


def _header(request: WebSocketRequest, wanted: bytes) -> str | None:
    values = [value.decode("latin-1") for name, value in request.headers if name == wanted]
    return ",".join(values) if values else None


def _upgrade(stream: ClientStream, request: WebSocketRequest) -> Upgrade:
    return Upgrade(
        peer=stream.peer,
        target=request.path,
        host=stream.take_host(),
        origin=_header(request, b"origin"),
        forwarded_for=_header(request, b"x-forwarded-for"),
        subprotocols=request.proposed_subprotocols,
        authorization=_header(request, b"authorization"),
    )
