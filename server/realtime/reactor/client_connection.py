"""The buffered sender to one client, and its end: the half that WebSockets and event streams share."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from server.realtime import transport
from server.realtime.conversation import Conversation
from server.realtime.reactor.backlog import Backlog
from server.realtime.reactor.lingering_close import LingeringClose
from server.realtime.reactor.loop import READABLE, WRITABLE
from server.realtime.reactor.port import Encoder, Port, receive
from server.realtime.reactor.timer_wheel import NEVER

log = logging.getLogger(__name__)

SENDS_AT_ONCE_MAX = 16
"""Frames of a backlog that are sent in one call."""

BUSY_KERNEL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a send after which the connection is as good as before."""


class End(NamedTuple):
    """How a connection ends. `reason` is for the statistics; `words` are its last bytes, empty if the client
    is gone; `waits` tells whether they wait for the frames that were pushed before."""

    reason: str
    words: bytes = b""
    waits: bool = False


LOST = End(transport.CONNECTION_LOST)


class ClientConnection:
    """The sending half of a SocketHandler, and a Subscriber.

    How to think about it: the connection is open until either side ends it, once; from then on it pushes and
    receives nothing. Ending it only sets a mark, because a session may end thousands in a row. The rest is a
    callback of the loop: it tells the conversation, and hands the socket to a LingeringClose, after the
    frames that were pushed before and within `send_timeout_s`.

    A client that keeps up has no buffers: frames go to the kernel as they are pushed. Only what the kernel
    does not take makes a Backlog.

    A subclass defines what it does with received bytes (`take`), with the end (`close`), and with its timer
    (`due`, `_set_alarm`).

    Args:
        encoder: how frames become bytes.
        address: the client's, for the conversation. The connection is counted for it until the socket is
            closed.
    """

    __slots__ = ("_address", "_backlog", "_conversation", "_encoder", "_end", "_port", "_socket", "tick")

    MAY_MOVE: ClassVar = True
    """Whether the client understands `moved`."""

    def __init__(self, port: Port, client: socket.socket, encoder: Encoder, address: str) -> None:
        self._port = port
        self._socket = client
        self._encoder = encoder
        self._address = address
        self._backlog: Backlog | None = None
        self._end: End | None = None
        self._conversation: Conversation | None = Conversation(
            port.deps, self, address, may_move=self.MAY_MOVE
        )
        """None once it was told of the end."""
        self.tick = NEVER

    @property
    def lags(self) -> bool:
        """Whether the kernel has not taken all that was pushed."""
        return self._backlog is not None

    # -- Subscriber ------------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._end is not None:
            return
        if self._backlog is not None:
            self._queue(frame, self._backlog)
            return
        encoder = self._encoder
        if encoder.frame is frame:
            data = encoder.data
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
            tally = self._port.tally
            tally.frames_out += 1
            tally.bytes_out += sent
        else:
            self._fall_behind(data, sent, len(data))

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        raise NotImplementedError

    # -- SocketHandler -------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """SocketHandler."""
        if self._leaving:
            return
        if events & WRITABLE and self._backlog is not None:
            self._flush(self._backlog)
            if not events & READABLE or self._end is not None:
                return
        self._read()  # also behind a flush: a cycle of `Reads` ends with everything read

    def stop(self) -> None:
        """SocketHandler."""
        self.close(CloseReason.SHUTDOWN)

    def cut(self) -> None:
        """SocketHandler."""
        self._conclude(LOST)
        self._port.release(self._socket, self._address)

    # -- from the client -------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take received bytes."""
        raise NotImplementedError

    def _read(self) -> None:
        data = receive(self._socket, self._port.loop.reads)
        if data is None:
            return
        if data:
            self.take(data)
        elif self._end is None:
            self._conclude(LOST)
        else:
            self.cut()

    # -- to the client ---------------------------------------------------------------------------

    def _encode(self, frame: Frame) -> bytes:
        """The bytes of a frame. Empty if it cannot be encoded; then the connection is ended."""
        try:
            return self._encoder.encode(frame)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._port.deps.boundary.caught(error, f"encoding a {frame.kind}")
            self.close(CloseReason.FAILED)
            return b""

    def _send_together(self, frames: Sequence[Frame], parts: Sequence[bytes]) -> None:
        """Send frames to a client without a backlog. Args: parts: their bytes."""
        try:
            sent = self._socket.send(b"".join(parts))
        except OSError as error:
            if error.errno not in BUSY_KERNEL:
                self._conclude(LOST)
                return
            sent = 0
        tally = self._port.tally
        for frame, data in zip(frames, parts, strict=True):
            if self._backlog is not None:
                self.push(frame)
            elif sent < len(data):
                self._fall_behind(data, sent, len(data))
            else:
                sent -= len(data)
                tally.frames_out += 1
                tally.bytes_out += len(data)

    def _queue(self, frame: Frame, backlog: Backlog) -> None:
        """Put a frame behind what waits already."""
        if not self._encode(frame):
            return
        if not backlog.outbox.push(frame):
            self.close(CloseReason.SLOW_CONSUMER)

    def _send_aside(self, data: bytes) -> None:
        """Send bytes that are no frame. If several wait, only the last is sent."""
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
        """Begin a backlog with the rest of a frame."""
        config = self._port.config
        now = trio.current_time()
        self._backlog = Backlog(self._encoder.dialect, config.outbox_bytes_max, data[sent:], counted)
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
            self._say_last(self._end, self._end.words)

    # -- time ------------------------------------------------------------------------------------

    def due(self, now: float) -> None:
        """SocketHandler."""
        raise NotImplementedError

    def _set_alarm(self, now: float) -> None:
        """Have `due` called when it is next needed."""
        raise NotImplementedError

    def _too_slow(self, now: float) -> bool:
        """Whether the time for a send is over; then the client is let go."""
        backlog = self._backlog
        if backlog is None or now < backlog.send_by:
            return False
        self._flush(backlog)  # a late loop does not take its own lateness for the client's
        if self._leaving or self._backlog is not backlog or now < backlog.send_by:
            return False
        if self._end is None:
            self.close(CloseReason.SLOW_CONSUMER)
        else:
            self.cut()
        return True

    # -- the end ---------------------------------------------------------------------------------

    @property
    def _leaving(self) -> bool:
        """Whether the end is marked and `_leave` has not run yet."""
        return self._end is not None and self._conversation is not None

    def _conclude(self, end: End) -> None:
        """Mark the end. The first one counts."""
        if self._end is None:
            self._end = end
            self._port.loop.call_soon(self._leave)

    def _leave(self) -> None:
        """The callback after the end."""
        end, conversation, self._conversation = self._end, self._conversation, None
        assert end is not None
        assert conversation is not None
        self._port.tally.closed[end.reason] += 1
        if self._socket.fileno() >= 0:
            self._part(end)
        conversation.disconnected()

    def _part(self, end: End) -> None:
        backlog = self._backlog
        if not end.words:
            self._port.release(self._socket, self._address)
        elif backlog is None:
            self._say_last(end, end.words)
        elif end.waits:
            backlog.send_by = trio.current_time() + self._port.config.send_timeout_s
            self._port.loop.call_at(self, backlog.send_by)
        else:
            # What the kernel took a part of has to be completed, or the last words could not be read.
            self._backlog = None
            self._say_last(end, backlog.head + end.words)

    def _say_last(self, end: End, words: bytes) -> None:
        LingeringClose(
            self._port,
            self._socket,
            self._address,
            words,
            heard_out=end.reason != CloseReason.RATE_LIMITED.reason,
        )
