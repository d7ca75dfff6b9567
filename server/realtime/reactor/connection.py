"""An open WebSocket: the conversation's way to the client and back."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from engine import websocket
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.websocket import Event, FramingError, Parser
from server.realtime import transport
from server.realtime.reactor.client_connection import ClientConnection, End
from server.realtime.reactor.port import Port

PARSED_AT_ONCE_BYTES = 256
"""The most bytes that are parsed before the limit on messages is checked again: up to forty empty frames."""

PING = websocket.encode_frame(websocket.PING, b"")

CLOSE_FRAMES = {
    close_reason: End(
        close_reason.reason,
        websocket.encode_close(close_reason.code, close_reason.reason),
        waits=close_reason not in transport.UNFLUSHED,
    )
    for close_reason in CloseReason
}


class Connection(ClientConnection):
    """SocketHandler of an open WebSocket, and Subscriber.

    Only bytes that are neither one whole text frame nor the pong that is due make a Parser.

    Args:
        address: the client's, for the conversation.
        join_by: until when the client must have joined, on trio's clock.
    """

    __slots__ = ("_heard", "_join_by", "_looked_at", "_parser", "_pinged", "_pong_due")

    def __init__(self, port: Port, client: socket.socket, address: str, join_by: float) -> None:
        super().__init__(port, client, port.text, address)
        self._join_by = join_by
        self._parser: Parser | None = None
        self._pong_due = False
        """Whether a pong is the answer to a ping of ours: one for each is free of the limit on messages."""
        self._heard = True
        """Whether anything came since the last look for a sign of life."""
        self._pinged = False
        """Whether that look sent a ping."""
        now = trio.current_time()
        self._looked_at = now - port.config.ping_interval_s * port.rng.random()
        port.loop.hand_over(client.fileno(), self)
        self._set_alarm(now)

    def push_all(self, frames: Sequence[Frame]) -> None:
        """As `push` with each of them, in one send."""
        if self._end is not None:
            return
        if self._backlog is None:
            parts = [self._encode(frame) for frame in frames]
            if all(parts):
                self._send_together(frames, parts)
            return
        for frame in frames:
            self.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        self._conclude(CLOSE_FRAMES[close_reason])

    def due(self, now: float) -> None:
        """SocketHandler."""
        if self._leaving or self._too_slow(now):
            return
        if self._end is None and self._sign_of_life(now):
            self._set_alarm(now)

    # -- from the client -------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take received bytes."""
        if self._end is not None:
            return
        self._heard = True
        if self._parser is None:
            payload = websocket.read_text(data)
            if payload is not None:
                self._hear(payload)
                return
            if self._pong_due and websocket.is_empty_pong(data):
                # Most of what a node hears whose players think: a parser costs ten times as much.
                self._pong_due = False
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = Parser(masked=True, message_bytes_max=self._port.config.frame_bytes_max)
        ping: Event | None = None
        for start in range(0, len(data), PARSED_AT_ONCE_BYTES):
            parser.feed(data[start : start + PARSED_AT_ONCE_BYTES])
            ping = self._hear_frames(parser) or ping  # of many, only the last has to be answered
            if self._end is not None:
                break
        self._parser = None if parser.clean or parser.ended else parser
        if ping is not None and self._end is None:
            self._send_aside(websocket.encode_frame(websocket.PONG, ping.payload))

    def _hear_frames(self, parser: Parser) -> Event | None:
        """What there is of frames. Returns the last ping among them."""
        ping: Event | None = None
        taken = parser.frames
        aside = 0
        try:
            while self._end is None and (event := parser.next_event()) is not None:
                if event.opcode in (websocket.TEXT, websocket.BINARY):
                    aside -= 1  # it is charged as a message
                    self._hear(event.payload, binary=event.opcode == websocket.BINARY)
                elif event.opcode == websocket.PING:
                    ping = event
                elif event.opcode == websocket.PONG and self._pong_due:
                    self._pong_due = False
                    aside -= 1
                elif event.opcode == websocket.CLOSE:
                    self._conclude(End(transport.PEER_CLOSED, _answer_to_close(event.payload)))
        except FramingError as error:
            if error.code == websocket.TOO_LARGE:
                self.close(CloseReason.TOO_LARGE)
            else:
                words = websocket.encode_close(error.code, error.sentence)
                self._conclude(End(transport.MALFORMED, words))
        aside += parser.frames - taken
        if aside and self._end is None:
            assert self._conversation is not None
            self._conversation.receive_aside(aside)
        return ping

    def _hear(self, payload: bytes, *, binary: bool = False) -> None:
        self._port.tally.messages_in += 1
        conversation = self._conversation
        assert conversation is not None
        try:
            if binary:
                conversation.receive_binary()
            else:
                conversation.receive(payload)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._port.deps.boundary.caught(error, "a conversation")
            self.close(CloseReason.FAILED)

    # -- signs of life ---------------------------------------------------------------------------

    def _sign_of_life(self, now: float) -> bool:
        """Look for one; ask for one if there was none since the last look. False when the connection was
        ended instead."""
        config = self._port.config
        if self._joins_too_late(now):
            return False
        silent_s = now - self._looked_at
        if self._awaits_pong and silent_s >= config.ping_timeout_s:
            self._read()  # a late loop does not take its own lateness for the client's
            if self._awaits_pong:
                self.close(CloseReason.PING_TIMEOUT)
            if self._end is not None:
                return False
        if not self._awaits_pong and silent_s >= config.ping_interval_s:
            # With a backlog, the time a send may take tells whether anybody is there.
            self._pinged = not self._heard and self._backlog is None
            self._looked_at, self._heard = now, False
            if self._pinged:
                self._pong_due = True
                self._send_aside(PING)
        return self._end is None

    @property
    def _awaits_pong(self) -> bool:
        """Whether nothing came since a ping."""
        return self._pinged and not self._heard

    def _joins_too_late(self, now: float) -> bool:
        """Whether the connection was ended because nobody has joined, or has been answered."""
        assert self._conversation is not None
        if now >= self._join_by and self._conversation.idle:
            self._read()  # a late loop does not take its own lateness for the client's
            if self._end is None and self._conversation.idle:
                self.close(CloseReason.JOIN_TIMEOUT)
            return self._end is not None
        if now >= self._join_by + transport.JOIN_REPLY_S and self._conversation.joining:
            self._conversation.give_up_joining()
            return True
        return False

    def _next_look(self, now: float) -> float:
        """When to look for a sign of life again."""
        config = self._port.config
        wait_s = config.ping_timeout_s if self._awaits_pong else config.ping_interval_s
        if now == self._looked_at:
            wait_s = min(config.ping_interval_s, config.ping_timeout_s)
        return self._looked_at + wait_s

    def _set_alarm(self, now: float) -> None:
        at = self._next_look(now)
        if now < self._join_by < at:
            at = self._join_by
        elif self._conversation is not None and self._conversation.joining:
            at = min(at, self._join_by + transport.JOIN_REPLY_S)
        if self._backlog is not None and self._backlog.send_by < at:
            at = self._backlog.send_by
        self._port.loop.call_at(self, at)

    def _leave(self) -> None:
        """The callback after the end."""
        self._parser = None
        super()._leave()


def _answer_to_close(payload: bytes) -> bytes:
    """The same code back."""
    return websocket.encode_close(websocket.read_close(payload).code)
