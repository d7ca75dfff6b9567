"""An open WebSocket: the conversation's way to the client and back."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping
from typing import NamedTuple

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


class End(NamedTuple):
    """How a connection ends. `reason` is for the statistics; `words` is the close frame, empty when nobody is
    there to read it; `waits` says whether it waits for what was pushed before."""

    reason: str
    words: bytes = b""
    waits: bool = False


ENDS = {
    ending: End(
        ending.reason,
        websocket.encode_close(ending.code, ending.reason),
        waits=ending not in transport.UNFLUSHED,
    )
    for ending in Ending
}
LOST = End(transport.CONNECTION_LOST)


class Connection:
    """Attendant of an open WebSocket, and Subscriber.

    How to think about it: it is open until it is ended, once, by either side; from then on nothing is pushed
    or heard any more. Ending it is no more than a mark, because a session may be doing it to thousands in a
    row. The rest is an errand of the loop: the conversation is told, and the socket goes to a Parting, after
    what was pushed before and within `send_timeout_s`.

    A connection that keeps up has no buffers: frames go to the kernel as they are pushed. Only what the
    kernel does not take makes a Backlog. Only what is not one whole text frame makes a Parser.

    Args:
        address: the client's, for the conversation.
        join_by: until when somebody must have joined, on trio's clock.
    """

    __slots__ = (
        "_backlog",
        "_conversation",
        "_end",
        "_heard",
        "_join_by",
        "_parser",
        "_pinged_at",
        "_port",
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
        self._end: End | None = None
        self._unclaimed = 0
        """Bytes that came since the last whole message."""
        self._heard = True
        """Whether anything came since the last ping."""
        interval_s = port.config.ping_interval_s
        now = trio.current_time()
        self._pinged_at = now - interval_s * port.rng.random()
        self._conversation: Conversation | None = Conversation(port.gate, self, address)
        """None once it was told of the end."""
        self.tick = NEVER
        port.loop.hand_over(client.fileno(), self)
        self._set_alarm(now)

    # -- Subscriber ------------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._end is not None:
            return
        if self._backlog is not None:
            self._queue(frame, self._backlog)
            return
        port = self._port
        if port.frame is frame:
            data = port.data
        elif not (data := self._encode(frame)):
            return
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in BUSY_KERNEL:
                self._conclude(LOST)
                return
            sent = 0
        if sent == len(data):
            tally = port.tally
            tally.frames_out += 1
            tally.bytes_out += sent
        else:
            self._fall_behind(data, sent, len(data))

    def close(self, ending: Ending) -> None:
        """Subscriber."""
        self._conclude(ENDS[ending])

    # -- Attendant -------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Attendant."""
        if self._leaving:
            return
        if events & WRITABLE and self._backlog is not None:
            self._flush(self._backlog)  # what there is to read comes in the next round
        else:
            self._read()

    def due(self, now: float) -> None:
        """Attendant."""
        if self._leaving:
            return
        backlog = self._backlog
        if backlog is not None and now >= backlog.send_by:
            if self._end is None:
                self.close(Ending.SLOW_CONSUMER)
            else:
                self.cut()
        elif self._end is None and self._sign_of_life(now):
            self._set_alarm(now)

    def stop(self) -> None:
        """Attendant."""
        self.close(Ending.SHUTDOWN)

    def cut(self) -> None:
        """Attendant."""
        self._conclude(LOST)
        self._port.release(self._socket)

    # -- from the client -------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Hear what came."""
        if self._end is not None:
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
        elif self._end is None:
            self._conclude(LOST)
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
            while self._end is None and (event := parser.next_event()) is not None:
                if event.opcode in (websocket.TEXT, websocket.BINARY):
                    self._hear(event.payload, binary=event.opcode == websocket.BINARY)
                elif event.opcode == websocket.PING:
                    ping = event.payload  # of many, only the last has to be answered
                elif event.opcode == websocket.CLOSE:
                    self._conclude(End(transport.PEER_CLOSED, _answer_to_close(event.payload)))
        except FramingError as error:
            if error.code == websocket.TOO_LARGE:
                self.close(Ending.TOO_LARGE)
            else:
                words = websocket.encode_close(error.code, error.sentence)
                self._conclude(End(transport.MALFORMED, words))
        self._parser = None if parser.clean or parser.ended else parser
        if ping is not None and self._end is None:
            self._send_control(websocket.encode_frame(websocket.PONG, ping))
        if self._unclaimed > SILENCE_FRAMES_MAX * config.frame_bytes_max:
            # Endless empty fragments or pings: nothing that a limit on messages would see.
            self._conclude(LOST)

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
        return self._end is None

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

    def _encode(self, frame: Frame) -> bytes:
        """The bytes of a frame, and keep them at hand for the next who is pushed the same. Empty if it cannot
        be encoded; then the connection is ended."""
        port = self._port
        try:
            data = frame.encoded(text_frame)
        except Exception:
            log.exception("a %s could not be encoded", frame.kind)
            self.close(Ending.FAILED)
            return b""
        port.frame, port.data = frame, data
        return data

    def _queue(self, frame: Frame, backlog: Backlog) -> None:
        """Put a frame behind what waits already."""
        if not self._encode(frame):
            return
        if not backlog.outbox.push(frame):
            self.close(Ending.SLOW_CONSUMER)

    def _send_control(self, data: bytes) -> None:
        if self._backlog is not None:
            self._backlog.control = data
            return
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in BUSY_KERNEL:
                self._conclude(LOST)
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
            if self._end is None:
                backlog.send_by = trio.current_time() + self._port.config.send_timeout_s
            if not backlog.advance():
                self._catch_up()
                return

    def _catch_up(self) -> None:
        self._backlog = None
        if self._end is None:
            self._port.loop.want(self._socket.fileno(), READABLE)
        else:
            Parting(self._port, self._socket, self._end.words)

    # -- the end ---------------------------------------------------------------------------------

    @property
    def _leaving(self) -> bool:
        """Whether the end is marked and `_leave` has not run yet."""
        return self._end is not None and self._conversation is not None

    def _conclude(self, end: End) -> None:
        """Mark the end. The first one counts."""
        if self._end is None:
            self._end = end
            self._port.loop.later(self._leave)

    def _leave(self) -> None:
        """The errand after the end."""
        end, conversation, self._conversation = self._end, self._conversation, None
        assert end is not None
        assert conversation is not None
        self._parser = None
        self._port.tally.closed[end.reason] += 1
        if self._socket.fileno() >= 0:
            self._part(end)
        conversation.disconnected()

    def _part(self, end: End) -> None:
        backlog = self._backlog
        if not end.words:
            self._port.release(self._socket)
        elif backlog is None:
            Parting(self._port, self._socket, end.words)
        elif end.waits:
            backlog.send_by = trio.current_time() + self._port.config.send_timeout_s
            self._port.loop.at(self, backlog.send_by)
        else:
            # What the kernel took a part of has to be completed, or the last words could not be read.
            self._backlog = None
            Parting(self._port, self._socket, backlog.head + end.words)


def _answer_to_close(payload: bytes) -> bytes:
    """The same code back."""
    return websocket.encode_close(websocket.read_close(payload).code)
