"""An open WebSocket of the hub: a client of SignalR."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

from engine import websocket
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Dialect, Frame
from server.realtime import hub
from server.realtime.reactor.client_connection import End
from server.realtime.reactor.connection import CLOSE_FRAMES, Connection
from server.realtime.reactor.port import Port, hub_binary_frame, hub_text_frame
from server.wire.hub import JSON, PING, HubProtocol, closing


def _ends(dialect: Dialect) -> Mapping[CloseReason, End]:
    """The hub's last message before each close frame."""
    return {
        close_reason: end._replace(words=closing(close_reason).encoded(dialect) + end.words)
        for close_reason, end in CLOSE_FRAMES.items()
    }


_TEXT_ENDS, _BINARY_ENDS = _ends(hub_text_frame), _ends(hub_binary_frame)


class HubWebSocket(Connection):
    """As Connection, in the hub's words.

    Args:
        access_token: what the client shows, good or not.
    """

    __slots__ = ("_hub",)

    MAY_MOVE = False

    def __init__(
        self, port: Port, client: socket.socket, address: str, join_by: float, access_token: str | None
    ) -> None:
        self._hub = hub.HubClient(access_token, port.config.frame_bytes_max, port.deps.boundary)
        super().__init__(port, client, address, join_by)

    # -- Subscriber ------------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        said = self._said(frame)
        if said is not None:
            super().push(said)

    def push_all(self, frames: Sequence[Frame]) -> None:
        """As `push` with each of them, in one send."""
        super().push_all([said for frame in frames if (said := self._said(frame)) is not None])

    def _said(self, frame: Frame) -> Frame | None:
        return self._hub.answered(frame) if frame.kind in hub.REPLIES else frame

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        protocol = self._hub.protocol
        if protocol is None:
            end = CLOSE_FRAMES[close_reason]
            self._conclude(end._replace(words=websocket.encode_text_frame(hub.HANDSHAKE_ENDED) + end.words))
        else:
            self._conclude((_TEXT_ENDS if protocol is JSON else _BINARY_ENDS)[close_reason])

    # -- HubConnection ---------------------------------------------------------------------------

    def agree(self, protocol: HubProtocol) -> None:
        """HubConnection."""
        self._encoder = self._port.hub_text if protocol is JSON else self._port.hub_binary

    def refuse_handshake(self, words: bytes) -> None:
        """HubConnection."""
        end = CLOSE_FRAMES[CloseReason.BAD_FRAME]
        self._conclude(End(end.reason, websocket.encode_text_frame(words) + end.words, end.waits))

    # -- from the client -------------------------------------------------------------------------

    def _hear(self, payload: bytes, *, binary: bool = False) -> None:  # noqa: ARG002 - the handshake says what it is
        self._port.tally.messages_in += 1
        assert self._conversation is not None
        self._hub.receive(payload, self._conversation, self)

    # -- signs of life ---------------------------------------------------------------------------

    def _sign_of_life(self, now: float) -> bool:
        """Look for one, give one. False when the connection was ended instead."""
        if self._joins_too_late(now):
            return False
        if now >= self._next_look(now):
            self._looked_at = now
            if self._hub.fell_silent():
                self._read()  # a late loop does not take its own lateness for the client's
                if self._hub.fell_silent():
                    self.close(CloseReason.PING_TIMEOUT)
                if self._end is not None:
                    return False
            if self._hub.protocol is not None and self._backlog is None:
                self._send_aside(PING.encoded(self._encoder.dialect))
        return self._end is None

    def _next_look(self, now: float) -> float:  # noqa: ARG002 - as Connection
        return self._looked_at + hub.PING_INTERVAL_S
