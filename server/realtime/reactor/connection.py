"""An open WebSocket: the conversation's way to the client and back."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping

import trio

from engine import websocket
from engine.actors.endings import Ending
from engine.actors.frame import Frame
from engine.websocket import FramingError, Parser
from server.realtime import transport
from server.realtime.conversation import Conversation
from server.realtime.protocol import encode
from server.realtime.reactor.backlog import Backlog
from server.realtime.reactor.loop import READABLE, WRITABLE
from server.realtime.reactor.parting import Parting
from server.realtime.reactor.port import Port
from server.realtime.reactor.wheel import NEVER

log = logging.getLogger(__name__)

READ_BYTES = 4096
"""What one call takes: a full read of the smallest frames must not take long."""

SILENCE_FRAMES_MAX = 16
"""Frames' worth of bytes that may come without one whole message."""

SENDS_AT_ONCE_MAX = 16
"""Frames of a backlog that are sent in one call."""

BUSY_KERNEL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a send after which the connection is as good as before."""

PING = websocket.encode_frame(websocket.PING, b"")


def text_frame(message: Mapping[str, object]) -> bytes:
    """The dialect of this transport: JSON with the head of its frame, ready for any number of sockets."""
    return websocket.encode_text_frame(encode(message))


class Connection:
    """Attendant of an open WebSocket, and Subscriber.

    How to think about it: it is open until it is ended, once, by either side; from then on nothing is pushed
    or heard any more, and the conversation is told, not at once (a session may be calling), but by an errand
    of the loop. What is left to send goes out within `send_timeout_s`; then a Parting takes the socket over.

    A connection that keeps up has no buffers: frames go to the kernel as they are pushed. Only what the
    kernel does not take makes a Backlog. Only what is not one whole text frame makes a Parser.

    Args:
        address: the client's, for the conversation.
        join_by: until when somebody must have joined, on trio's clock.
    """

    __slots__ = (
        "_backlog",
        "_conversation",
        "_heard",
        "_join_by",
        "_open",
        "_parser",
        "_pinged_at",
        "_port",
        "_reason",
        "_socket",
        "_unclaimed",
        "tick",
    )

    def __init__(self, port: Port, client: socket.socket, address: str, join_by: float) -> None:
        self._port = port
        self._socket = client
        self._join_by = join_by
        self._backlog: Backlog | None = None
        self._parser: Parser | None = None
        self._open = True
        self._reason = ""
        self._unclaimed = 0
        """Bytes that came since the last whole message."""
        self._heard = True
        """Whether anything came since the last ping."""
        interval_s = port.config.ping_interval_s
        now = trio.current_time()
        self._pinged_at = now - interval_s * port.rng.random()
        self._conversation: Conversation | None = Conversation(port.gate, self, address)
        self.tick = NEVER
        port.loop.hand_over(client.fileno(), self)
        self._set_alarm(now)

    # -- Subscriber ------------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if not self._open:
            return
        try:
            if self._backlog is not None:
                if not self._backlog.outbox.push(frame):
                    self.close(Ending.SLOW_CONSUMER)
                return
            data = frame.encoded(text_frame)
        except Exception:
            log.exception("a %s could not be encoded", frame.kind)
            self.close(Ending.FAILED)
            return
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in BUSY_KERNEL:
                self._lose()
                return
            sent = 0
        size = len(data)
        if sent == size:
            tally = self._port.tally
            tally.frames_out += 1
            tally.bytes_out += size
        else:
            self._fall_behind(data, sent, size)

    def close(self, ending: Ending) -> None:
        """Subscriber."""
        self._end(ending.reason, websocket.encode_close(ending.code, ending.reason), ending)

    # -- Attendant -------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Attendant."""
        if events & WRITABLE and self._backlog is not None:
            self._flush(self._backlog)  # what there is to read comes in the next round
        else:
            self._read()

    def due(self, now: float) -> None:
        """Attendant."""
        backlog = self._backlog
        if backlog is not None and now >= backlog.send_by:
            if self._open:
                self.close(Ending.SLOW_CONSUMER)
            else:
                self.cut()
            return
        if self._open and self._sign_of_life(now):
            self._set_alarm(now)

    def stop(self) -> None:
        """Attendant."""
        self.close(Ending.SHUTDOWN)

    def cut(self) -> None:
        """Attendant."""
        if self._open:
            self._lose()
        elif self._socket.fileno() >= 0:
            self._port.release(self._socket)

    # -- from the client -------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Hear what came."""
        if not self._open:
            return
        self._heard = True
        if self._parser is None:
            payload = websocket.read_text(data)
            if payload is not None:
                self._hear(payload)
                return
        self._parse(data)

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.take(data)
        else:
            self.cut()

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        config = self._port.config
        if parser is None:
            parser = Parser(masked=True, message_bytes_max=config.frame_bytes_max)
        self._unclaimed += len(data)
        ping: bytes | None = None
        parser.feed(data)
        try:
            while self._open and (event := parser.next_event()) is not None:
                if event.opcode in (websocket.TEXT, websocket.BINARY):
                    self._hear(event.payload, binary=event.opcode == websocket.BINARY)
                elif event.opcode == websocket.PING:
                    ping = event.payload  # of many, only the last has to be answered
                elif event.opcode == websocket.CLOSE:
                    self._end(transport.PEER_CLOSED, _answer_to_close(event.payload))
        except FramingError as error:
            if error.code == websocket.TOO_LARGE:
                self.close(Ending.TOO_LARGE)
            else:
                self._end(transport.MALFORMED, websocket.encode_close(error.code, error.sentence))
        self._parser = None if parser.clean or not self._open else parser
        if self._open and ping is not None:
            self._send_control(websocket.encode_frame(websocket.PONG, ping))
        if self._open and self._unclaimed > SILENCE_FRAMES_MAX * config.frame_bytes_max:
            # Endless empty fragments or pings: nothing that a limit on messages would see.
            self._lose()

    def _hear(self, payload: bytes, *, binary: bool = False) -> None:
        self._unclaimed = 0
        self._port.tally.messages_in += 1
        conversation = self._conversation
        assert conversation is not None
        try:
            if binary:
                conversation.receive_binary()
            else:
                conversation.receive(payload)
        except Exception:
            log.exception("a conversation failed")
            self.close(Ending.FAILED)

    # -- signs of life ---------------------------------------------------------------------------

    def _sign_of_life(self, now: float) -> bool:
        """Look for one, ask for one. False when the connection was ended instead."""
        config = self._port.config
        assert self._conversation is not None
        if now >= self._join_by and self._conversation.idle:
            self.close(Ending.JOIN_TIMEOUT)
            return False
        silent_s = now - self._pinged_at
        if not self._heard and silent_s >= config.ping_timeout_s:
            self.close(Ending.PING_TIMEOUT)
            return False
        if self._heard and silent_s >= config.ping_interval_s:
            self._pinged_at = now
            if self._backlog is None:  # else the time a send may take tells whether anybody is there
                self._heard = False
                self._send_control(PING)
        return self._open

    def _set_alarm(self, now: float) -> None:
        config = self._port.config
        wait_s = config.ping_interval_s if self._heard else config.ping_timeout_s
        if now == self._pinged_at:
            wait_s = min(config.ping_interval_s, config.ping_timeout_s)
        at = self._pinged_at + wait_s
        if now < self._join_by < at:
            at = self._join_by
        if self._backlog is not None and self._backlog.send_by < at:
            at = self._backlog.send_by
        self._port.loop.at(self, at)

    # -- to the client ---------------------------------------------------------------------------

    def _send_control(self, data: bytes) -> None:
        if self._backlog is not None:
            self._backlog.control = data
            return
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in BUSY_KERNEL:
                self._lose()
                return
            sent = 0
        if sent < len(data):
            self._fall_behind(data, sent, 0)

    def _fall_behind(self, data: bytes, sent: int, counted: int) -> None:
        """Begin a backlog with what is left of a frame."""
        config = self._port.config
        now = trio.current_time()
        self._backlog = Backlog(text_frame, config.outbox_bytes_max, data[sent:], counted)
        self._backlog.send_by = now + config.send_timeout_s
        self._port.loop.want(self._socket.fileno(), READABLE | WRITABLE)
        self._set_alarm(now)

    def _flush(self, backlog: Backlog) -> None:
        """Send some of the backlog."""
        tally = self._port.tally
        for _ in range(SENDS_AT_ONCE_MAX):
            try:
                sent = self._socket.send(backlog.head)
            except OSError as error:
                if error.errno not in BUSY_KERNEL:
                    self.cut()
                return
            if sent < len(backlog.head):
                backlog.head = backlog.head[sent:]
                return
            if backlog.counted:
                tally.frames_out += 1
                tally.bytes_out += backlog.counted
            if self._open:
                backlog.send_by = trio.current_time() + self._port.config.send_timeout_s
            if not backlog.advance():
                self._catch_up(backlog)
                return

    def _catch_up(self, backlog: Backlog) -> None:
        self._backlog = None
        if self._open:
            self._port.loop.want(self._socket.fileno(), READABLE)
        else:
            Parting(self._port, self._socket, backlog.last_words)

    # -- the end ---------------------------------------------------------------------------------

    def _end(self, reason: str, last_words: bytes, ending: Ending | None = None) -> None:
        """Say the last words, after what was pushed if `ending` is one that waits for that."""
        if not self._open:
            return
        self._conclude(reason)
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            Parting(self._port, self._socket, last_words)
        elif ending is None or ending in transport.UNFLUSHED:
            # What the kernel took a part of has to be completed, or the last words could not be read.
            Parting(self._port, self._socket, backlog.head + last_words)
        else:
            backlog.last_words = last_words
            backlog.send_by = trio.current_time() + self._port.config.send_timeout_s
            self._backlog = backlog
            self._port.loop.at(self, backlog.send_by)

    def _lose(self) -> None:
        """The connection is broken: no words, and the socket is closed."""
        self._conclude(transport.CONNECTION_LOST)
        self._port.release(self._socket)

    def _conclude(self, reason: str) -> None:
        self._open = False
        self._reason = reason
        self._port.loop.later(self._dismiss)

    def _dismiss(self) -> None:
        self._port.tally.closed[self._reason] += 1
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.disconnected()


def _answer_to_close(payload: bytes) -> bytes:
    """The same code back."""
    return websocket.encode_close(websocket.read_close(payload).code)
