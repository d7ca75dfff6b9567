"""A client of the hub that listens to an event stream and sends by requests."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from server.realtime import hub, transport
from server.realtime.reactor.client_connection import End
from server.realtime.reactor.event_stream import CONTENT_TYPE, ResponseStream
from server.realtime.reactor.port import Port, hub_event
from server.realtime.reactor.responses import head_of_stream
from server.wire.hub import PING, HubProtocol, closing, handshake_refused


class HubStream(ResponseStream):
    """SocketHandler, Subscriber and HubChannel.

    Args:
        address: the client's, for which the stream is counted until its end.
        headers: those of every answer to this caller.
        request_id: of the request for it.
        token: the connection token, by which requests find the stream.
        access_token: what the client shows, good or not.
    """

    __slots__ = ("_hub", "_join_by", "_pinged_at", "_token")

    MAY_MOVE = False

    def __init__(
        self,
        port: Port,
        client: socket.socket,
        address: str,
        headers: Mapping[str, str],
        request_id: str | None,
        token: str,
        access_token: str | None,
    ) -> None:
        self._hub = hub.HubClient(access_token, port.config.frame_bytes_max, port.deps.boundary)
        super().__init__(port, client, port.hub_events, address)
        self._token = token
        self._pinged_at = trio.current_time()
        self._join_by = self._pinged_at + port.config.join_timeout_s
        port.hub_channels[token] = self
        port.tally.event_streams += 1
        # Nginx would hold events back to fill its buffers.
        headers = {**headers, "Content-Type": CONTENT_TYPE, "X-Accel-Buffering": "no"}
        self._send_aside(head_of_stream(headers, request_id) + b":\n\n")
        self._set_alarm(self._pinged_at)

    # -- HubChannel ------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """HubChannel."""
        if self._end is not None or self._conversation is None:
            return
        self._port.tally.messages_in += 1
        self._hub.receive(data, self._conversation, self)

    # -- HubConnection ---------------------------------------------------------------------------

    def agree(self, protocol: HubProtocol) -> None:
        """HubConnection. An event stream is text."""
        if protocol.binary:
            self.refuse_handshake(handshake_refused("An event stream carries JSON alone."))

    def refuse_handshake(self, words: bytes) -> None:
        """HubConnection."""
        self._conclude(End(CloseReason.BAD_FRAME.reason, b"data: %b\n\n" % words, waits=True))

    # -- Subscriber ------------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        said = self._hub.answered(frame) if frame.kind in hub.REPLIES else frame
        if said is not None:
            super().push(said)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        words = b"data: %b\n\n" % hub.HANDSHAKE_ENDED
        if self._hub.protocol is not None:
            words = closing(close_reason).encoded(hub_event)
        self._conclude(End(close_reason.reason, words, waits=close_reason not in transport.UNFLUSHED))

    # -- SocketHandler -------------------------------------------------------------------------------

    def due(self, now: float) -> None:
        """SocketHandler."""
        conversation = self._conversation
        if conversation is None or self._leaving or self._too_slow(now) or self._end is not None:
            return
        if now >= self._join_by and conversation.idle:
            self.close(CloseReason.JOIN_TIMEOUT)
        elif now >= self._join_by + transport.JOIN_REPLY_S and conversation.joining:
            conversation.give_up_joining()
        elif now >= self._pinged_at + hub.PING_INTERVAL_S:
            self._pinged_at = now
            if self._hub.fell_silent():
                self.close(CloseReason.PING_TIMEOUT)
            elif self._hub.protocol is not None and self._backlog is None:
                self._send_aside(PING.encoded(hub_event))
        if self._end is None:
            self._set_alarm(now)

    # -- inside ----------------------------------------------------------------------------------

    def _set_alarm(self, now: float) -> None:
        at = self._pinged_at + hub.PING_INTERVAL_S
        if now < self._join_by < at:
            at = self._join_by
        if self._backlog is not None and self._backlog.send_by < at:
            at = self._backlog.send_by
        self._port.loop.call_at(self, at)

    def _leave(self) -> None:
        """The callback after the end."""
        del self._port.hub_channels[self._token]
        self._port.tally.event_streams -= 1
        super()._leave()
