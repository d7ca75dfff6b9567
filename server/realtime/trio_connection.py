"""One open WebSocket of the portable transport: the conversation's way to the client and back."""

from __future__ import annotations

import logging
import math
import struct

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.outbox import Outbox
from server.config.config import Config
from server.realtime import hub, transport
from server.realtime.client_stream import ClientStream
from server.realtime.conversation import Conversation, ConversationDeps
from server.realtime.handshake import HubEntry
from server.realtime.transport import Tally
from server.wire.hub import PING, HubProtocol, closing
from server.wire.protocol import encode

log = logging.getLogger(__name__)

MALFORMED = (1002, 1007)
"""Close codes of RFC 6455 for broken framing and broken UTF-8."""


class Connection:
    """One open WebSocket; the conversation's way to the client."""

    __slots__ = (
        "_close_reason",
        "_config",
        "_conversation",
        "_flush_by",
        "_lost",
        "_outbox",
        "_ping_interval_s",
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
        *,
        may_move: bool = True,
    ) -> None:
        self._websocket = websocket
        self._stream = stream
        self._config = config
        self._tally = tally
        self._outbox = Outbox(encode, config.outbox_bytes_max)
        self._conversation = Conversation(deps, self, address, may_move=may_move)
        self._close_reason: CloseReason | None = None
        self._flush_by = math.inf
        self._lost = False
        self._ping_interval_s = config.ping_interval_s
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
            self._hand_on(message)
        except Exception:
            log.exception("a conversation failed")
            self.close(CloseReason.FAILED)

    def _hand_on(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._conversation.receive_binary()
        elif self._too_large(message):
            self.close(CloseReason.TOO_LARGE)
        else:
            self._conversation.receive(message)

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
                await self._websocket.send_message(self._payload(data))
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

    def _payload(self, data: bytes) -> str | bytes:
        """An encoded frame as the library takes it: text for a text frame."""
        return data.decode()

    async def _expect_join(self, join_by: float) -> None:
        await trio.sleep_until(join_by)
        if self._conversation.idle:
            self.close(CloseReason.JOIN_TIMEOUT)
        await trio.sleep_until(join_by + transport.JOIN_REPLY_S)
        if self._conversation.joining:
            self._conversation.give_up_joining()

    async def _look_for_life(self, join_by: float, spread: float) -> None:
        """Close what does not answer pings, and what was refused too late for `_expect_join` to see."""
        interval_s = self._ping_interval_s
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


class HubWebSocket(Connection):
    """As Connection, in the hub's words.

    Args:
        entry: how the client came.
    """

    __slots__ = ("_handshake_words", "_hub")

    def __init__(
        self,
        websocket: WebSocketConnection,
        stream: ClientStream,
        deps: ConversationDeps,
        config: Config,
        tally: Tally,
        address: str,
        entry: HubEntry,
    ) -> None:
        self._hub = hub.HubClient(entry.access_token, config.frame_bytes_max, deps.boundary)
        self._handshake_words = hub.HANDSHAKE_ENDED
        super().__init__(websocket, stream, deps, config, tally, address, may_move=False)
        self._ping_interval_s = hub.PING_INTERVAL_S

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        said = self._hub.answered(frame) if frame.kind in hub.REPLIES else frame
        if said is not None:
            super().push(said)

    def agree(self, protocol: HubProtocol) -> None:
        """HubConnection."""
        self._outbox = Outbox(protocol.encode, self._config.outbox_bytes_max)

    def refuse_handshake(self, words: bytes) -> None:
        """HubConnection."""
        self._handshake_words = words
        self.close(CloseReason.BAD_FRAME)

    def _hand_on(self, message: str | bytes) -> None:
        data = message.encode() if isinstance(message, str) else message
        if len(data) > self._config.frame_bytes_max:
            self.close(CloseReason.TOO_LARGE)
        else:
            self._hub.receive(data, self._conversation, self)

    def _payload(self, data: bytes) -> str | bytes:
        return data if self._hub.protocol is not None and self._hub.protocol.binary else data.decode()

    async def _say_goodbye(self, close_reason: CloseReason) -> None:
        protocol = self._hub.protocol
        with trio.move_on_after(transport.PARTING_S):
            try:
                if protocol is None:
                    await self._websocket.send_message(self._handshake_words.decode())
                else:
                    words = closing(close_reason).encoded(protocol.encode)
                    await self._websocket.send_message(self._payload(words))
            except ConnectionClosed:
                return
        await super()._say_goodbye(close_reason)

    async def _ping(self) -> bool:
        if self._hub.fell_silent():
            self.close(CloseReason.PING_TIMEOUT)
        elif self._hub.protocol is not None:
            self.push(PING)
        await trio.lowlevel.checkpoint()
        return self._close_reason is None and not self._lost
