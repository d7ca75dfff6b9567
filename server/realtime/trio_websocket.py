"""The portable transport: trio-websocket, with TLS in this process if wanted.

One nursery a connection holds the library's reader, and inside it a few tasks of ours: one takes messages to
the conversation, one sends what the session pushed, one looks for signs of life, and for a while one waits
for the join. What the library raises for the network's sake stops at the connection it happened on; so does
a mistake in our own code, with a traceback in the log.
"""

from __future__ import annotations

import logging
import math
import random
import socket
import ssl
import struct
from collections.abc import Sequence
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.outbox import Outbox
from server.config.config import Config
from server.file_limit import room
from server.realtime import handshake, transport
from server.realtime.client_stream import Accepted, ClientStream
from server.realtime.conversation import Conversation, ConversationDeps
from server.realtime.handshake import Admission, Rejection, Upgrade
from server.realtime.transport import Tally, TransportStatistics
from server.security.limits import ArrivalRate, ConnectionCount
from server.wire.protocol import encode

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that the kernel completes before we accept them: a class joins in one second."""

REFUSED_AT_ONCE_MAX = 64
"""How many connections beyond a limit, of the node or of their address, get a refusal. Further ones are cut
off without a word."""

MALFORMED = (1002, 1007)
"""Close codes of RFC 6455 for broken framing and broken UTF-8."""

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
        self._open: set[_Connection] = set()
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
                last_words = self._refused(handshake.BAD_REQUEST).response
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
        websocket, address = opened
        connection = _Connection(websocket, stream, self._deps, self._config, self._tally, address)
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
    ) -> tuple[WebSocketConnection, str] | None:
        """The open connection and the client's address; None when the client was turned away."""
        request = await wrap_server_stream(library, stream, max_message_size=self._config.frame_bytes_max)
        verdict: Admission | Rejection = handshake.OVERLOADED
        if self._tally.connections <= self._connections_max:
            verdict = handshake.judge(_upgrade(stream, request), self._config, self._deps.pages())
        if isinstance(verdict, Admission) and not place.take(verdict.address):
            verdict = handshake.CROWDED
        if isinstance(verdict, Rejection):
            self._refused(verdict)
            await request.reject(verdict.status, extra_headers=verdict.headers, body=verdict.body)
            return None
        return await request.accept(subprotocol=verdict.subprotocol), verdict.address

    def _give_up(self, stream: ClientStream) -> bytes:
        """A handshake that came to no end. Returns what to say to it."""
        if stream.answered:
            self._refused(handshake.BAD_REQUEST)  # the library has said so
            return b""
        if stream.ended:
            self._tally.refused[GONE] += 1
            return b""
        return self._refused(handshake.SHUTTING_DOWN if self._stopping else handshake.TOO_LATE).response

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


class _Connection:
    """One open WebSocket; the conversation's way to the client."""

    __slots__ = (
        "_close_reason",
        "_config",
        "_conversation",
        "_flush_by",
        "_lost",
        "_outbox",
        "_stream",
        "_tally",
        "_wakeup",
        "_websocket",
    )

    def __init__(
        self,
        websocket: WebSocketConnection,
        stream: ClientStream,
        deps: ConversationDeps,
        config: Config,
        tally: Tally,
        address: str,
    ) -> None:
        self._websocket = websocket
        self._stream = stream
        self._config = config
        self._tally = tally
        self._outbox = Outbox(encode, config.outbox_bytes_max)
        self._conversation = Conversation(deps, self, address)
        self._close_reason: CloseReason | None = None
        self._flush_by = math.inf
        self._lost = False
        self._wakeup = trio.Event()
        stream.count_aside(self._conversation.receive_aside)

    # -- Subscriber ------------------------------------------------------------------------------

    @property
    def lags(self) -> bool:
        """Whether something that was pushed still waits here."""
        return bool(self._outbox)

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._close_reason is not None or self._lost:
            return
        try:
            taken = self._outbox.push(frame)
        except Exception:
            log.exception("a %s could not be encoded", frame.kind)
            self.close(CloseReason.FAILED)
            return
        if taken:
            self._wakeup.set()
        else:
            self.close(CloseReason.SLOW_CONSUMER)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if self._close_reason is not None:
            return
        self._close_reason = close_reason
        self._flush_by = trio.current_time() + self._config.send_timeout_s
        if close_reason is CloseReason.RATE_LIMITED:
            self._stream.mute()
        if close_reason in transport.UNFLUSHED:
            self._outbox = Outbox(encode, self._config.outbox_bytes_max)
        self._wakeup.set()

    # -- tasks -----------------------------------------------------------------------------------

    async def run(self, join_by: float, spread: float) -> bytes:
        """Until the connection is over. Returns the bytes that are left to say.

        Args:
            join_by: on trio's clock.
            spread: 0 to 1, where in the first interval the pings begin.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive)
                nursery.start_soon(self._expect_join, join_by)
                nursery.start_soon(self._look_for_life, join_by, spread)
                await self._send()
                nursery.cancel_scope.cancel()
        finally:
            self._tally.closed[self._end_reason()] += 1
            self._conversation.disconnected()
        closed = self._websocket.closed
        if closed is not None and closed.code in MALFORMED:
            # The library hangs up without a word; the client shall learn why.
            return struct.pack("!BBH", 0x88, 2, closed.code)
        return b""

    def _end_reason(self) -> str:
        if self._close_reason is not None:
            return self._close_reason.reason
        closed = self._websocket.closed
        if closed is None or closed.code == 1006:
            return transport.CONNECTION_LOST
        if closed.code in MALFORMED:
            return transport.MALFORMED
        return (
            CloseReason.TOO_LARGE.reason
            if closed.code == CloseReason.TOO_LARGE.code
            else transport.PEER_CLOSED
        )

    async def _receive(self) -> None:
        try:
            while True:
                message = await self._websocket.get_message()
                self._hear(message)
        except ConnectionClosed:
            self._lost = True
            self._wakeup.set()

    def _hear(self, message: str | bytes) -> None:
        if self._close_reason is not None:
            return
        self._tally.messages_in += 1
        try:
            if isinstance(message, bytes):
                self._conversation.receive_binary()
            elif self._too_large(message):
                self.close(CloseReason.TOO_LARGE)
            else:
                self._conversation.receive(message)
        except Exception:
            log.exception("a conversation failed")
            self.close(CloseReason.FAILED)

    def _too_large(self, message: str) -> bool:
        """The library bounds characters; what counts is bytes."""
        return not message.isascii() and len(message.encode()) > self._config.frame_bytes_max

    async def _send(self) -> None:
        while not self._lost:
            data = self._outbox.pop()
            if data is not None:
                await self._send_frame(data)
            elif self._close_reason is not None:
                await self._say_goodbye(self._close_reason)
                return
            else:
                self._wakeup = trio.Event()
                await self._wakeup.wait()

    async def _say_goodbye(self, close_reason: CloseReason) -> None:
        with trio.move_on_after(transport.PARTING_S) as scope:
            await self._websocket.aclose(close_reason.code, close_reason.reason)
        if not scope.cancelled_caught:
            # The client has answered with its own close frame, which was its last.
            self._stream.ended = True

    async def _send_frame(self, data: bytes) -> None:
        deadline = min(trio.current_time() + self._config.send_timeout_s, self._flush_by)
        with trio.move_on_at(deadline) as scope:
            try:
                await self._websocket.send_message(data.decode())
            except ConnectionClosed:
                self._lost = True
                return
        if scope.cancelled_caught:
            # Perhaps in the middle of the frame, so that no close frame can follow.
            self.close(CloseReason.SLOW_CONSUMER)
            self._lost = True
            return
        self._tally.frames_out += 1
        self._tally.bytes_out += len(data)

    async def _expect_join(self, join_by: float) -> None:
        await trio.sleep_until(join_by)
        if self._conversation.idle:
            self.close(CloseReason.JOIN_TIMEOUT)
        await trio.sleep_until(join_by + transport.JOIN_REPLY_S)
        if self._conversation.joining:
            self._conversation.give_up_joining()

    async def _look_for_life(self, join_by: float, spread: float) -> None:
        """Close what does not answer pings, and what was refused too late for `_expect_join` to see."""
        interval_s = self._config.ping_interval_s
        await trio.sleep(interval_s * spread)
        while await self._ping():
            if self._conversation.idle and trio.current_time() >= join_by:
                self.close(CloseReason.JOIN_TIMEOUT)
            await trio.sleep(interval_s)

    async def _ping(self) -> bool:
        """False when the connection is over."""
        with trio.move_on_after(self._config.ping_timeout_s) as scope:
            self._stream.expect_pong()
            try:
                await self._websocket.ping()
            except ConnectionClosed:
                return False
        if scope.cancelled_caught:
            self.close(CloseReason.PING_TIMEOUT)
        return not scope.cancelled_caught


def _listeners(
    sockets: Sequence[socket.socket], ssl_context: ssl.SSLContext | None
) -> list[trio.abc.Listener[Accepted]]:
    for each in sockets:
        each.listen(BACKLOG)
    plain = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets]
    if ssl_context is None:
        return list(plain)
    return [trio.SSLListener(each, ssl_context, https_compatible=True) for each in plain]


def _upgrade(stream: ClientStream, request: WebSocketRequest) -> Upgrade:
    def header(wanted: bytes) -> str | None:
        values = [value.decode("latin-1") for name, value in request.headers if name == wanted]
        return ",".join(values) if values else None

    return Upgrade(
        peer=stream.peer,
        target=request.path,
        host=stream.take_host(),
        origin=header(b"origin"),
        forwarded_for=header(b"x-forwarded-for"),
        subprotocols=request.proposed_subprotocols,
    )
