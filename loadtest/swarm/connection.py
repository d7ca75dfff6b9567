"""One WebSocket connection without a task: a non-blocking socket, the handshake, and frames."""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
from base64 import b64encode
from dataclasses import dataclass
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Protocol
from urllib.parse import urlsplit

from engine import websocket
from loadtest.swarm.loop import READ_BYTES, Loop

SUBPROTOCOL = b"fanfare.v1"
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
HEAD_BYTES_MAX = 16 * 1024

SLOW_RECEIVE_BYTES = 2_304
SLOW_SEGMENT_BYTES = 536
"""What keeps the kernel from taking in for a reader who does not read."""

_BIND_NO_PORT = 24  # Linux: IP_BIND_ADDRESS_NO_PORT, which Python does not name
_TEXT = 0x81
_IN = EPOLLIN | EPOLLERR | EPOLLHUP


@dataclass(frozen=True, slots=True)
class Target:
    """Where a WebSocket is. Without TLS: the swarm does not speak it."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises ValueError for anything but a `ws:` address."""
        parts = urlsplit(url)
        if parts.scheme != "ws" or not parts.hostname:
            raise ValueError(f"{url} is no ws:// address; load is sent without TLS")
        return cls(socket.gethostbyname(parts.hostname), parts.port or 80, parts.path or "/")

    @property
    def place(self) -> str:
        """Host and port: one string for all who are there."""
        return sys.intern(f"{self.host}:{self.port}")

    @property
    def loopback(self) -> bool:
        return self.host.startswith("127.")


class Holder(Protocol):
    """Whose connection it is."""

    def opened(self) -> None:
        """The handshake is done."""

    def heard(self, payload: bytes) -> None:
        """A text message."""

    def ended(self, code: int | None, reason: str) -> None:
        """The connection is over, but not by `close` or `cut`. The code is the close frame's; None when it
        broke; an HTTP status when the handshake was refused."""


class Link:
    """A connection from its first SYN to its end. `close` and `cut` may be called at any time."""

    __slots__ = ("_expected", "_held", "_holder", "_loop", "_out", "_parser", "_reads", "_shaken", "_sock")

    def __init__(self, loop: Loop, target: Target, source: str | None, holder: Holder, *, slow: bool) -> None:
        """Begin to connect.

        Args:
            source: the address to come from; None for any.
            slow: with as little room for what is not read as the kernel allows.

        Raises OSError.
        """
        self._loop = loop
        self._holder = holder
        self._expected = b""
        self._held = b""
        self._out = b""
        self._parser: websocket.Parser | None = None
        self._reads = True
        self._shaken = False
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._begin(target, source, slow)
        except OSError:
            self._sock.close()
            raise
        self._out = self._request(target)
        loop.add(self._sock.fileno(), EPOLLOUT, self)

    def _begin(self, target: Target, source: str | None, slow: bool) -> None:
        sock = self._sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SLOW_SEGMENT_BYTES)
        if source is not None:
            sock.setsockopt(socket.IPPROTO_IP, _BIND_NO_PORT, 1)
            sock.bind((source, 0))
        error = sock.connect_ex((target.host, target.port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))

    @property
    def open(self) -> bool:
        """Whether the handshake is done and the connection not over."""
        return self._shaken and self._sock.fileno() >= 0

    # -- what the holder does --------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send a text message, or keep it until the kernel has room."""
        frame = websocket.encode_frame(websocket.TEXT, payload, mask=random.randbytes(4))
        self._write(frame)

    def close(self) -> None:
        """End in good order: a close frame, and no wait for the answer."""
        if self.open:
            self._write(websocket.encode_close(mask=random.randbytes(4)))
        self.cut()

    def cut(self) -> None:
        """End as a network failure would."""
        if (fd := self._sock.fileno()) >= 0:
            self._loop.remove(fd)
            self._sock.close()

    def read(self, on: bool) -> None:
        """Stop reading, and begin again."""
        fd = self._sock.fileno()
        if fd < 0 or on is self._reads:
            return
        self._reads = on
        if on:
            self._loop.add(fd, _IN | (EPOLLOUT if self._out else 0), self)
        else:
            self._loop.remove(fd)

    # -- what the loop calls ---------------------------------------------------------------------

    def ready(self, events: int) -> None:
        if events & EPOLLOUT and not self._flush():
            return
        if events & ~EPOLLOUT:
            try:
                data = self._sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError as exc:
                self._end(None, exc.strerror or "broken")
                return
            if not data:
                self._end(None, "broken")
            elif self._shaken:
                self._take(data)
            else:
                self._shake(data)

    def _write(self, frame: bytes) -> None:
        if self._out:
            self._out += frame
            return
        try:
            sent = self._sock.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reading side hears of the end
        if sent < len(frame):
            self._out = frame[sent:]
            if self._reads:
                self._loop.change(self._sock.fileno(), _IN | EPOLLOUT)

    def _flush(self) -> bool:
        """Whether the connection is still there."""
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._end(None, os.strerror(error))
            return False
        out, self._out = self._out, b""
        self._write(out)
        if not self._out:
            self._loop.change(self._sock.fileno(), _IN)
        return True

    # -- the handshake ---------------------------------------------------------------------------

    def _request(self, target: Target) -> bytes:
        key = b64encode(os.urandom(16))
        self._expected = websocket.accept_key(key)
        return (
            b"GET %b HTTP/1.1\r\nHost: %b:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
        ) % (target.path.encode(), target.host.encode(), target.port, key, SUBPROTOCOL)

    def _shake(self, data: bytes) -> None:
        self._held += data
        head, found, rest = self._held.partition(b"\r\n\r\n")
        if not found:
            if len(self._held) > HEAD_BYTES_MAX:
                self._end(None, "no end of the handshake")
            return
        status, *lines = head.split(b"\r\n")
        words = status.split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            self._end(None, "no HTTP")
        elif words[1] != b"101":
            self._end(int(words[1]), f"http_{int(words[1])}")
        elif b"sec-websocket-accept:" + self._expected not in [_squeezed(line) for line in lines]:
            self._end(None, "a wrong Sec-WebSocket-Accept")
        else:
            self._expected = self._held = b""
            self._shaken = True
            self._holder.opened()
            if rest and self.open:
                self._take(rest)

    # -- frames ----------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if self._parser is None:
            payloads, end = whole_texts(data)
            for payload in payloads:
                self._holder.heard(payload)
                if self._sock.fileno() < 0:
                    return
            if end == len(data):
                return
            data = data[end:]
            self._parser = websocket.Parser(masked=False, message_bytes_max=MESSAGE_BYTES_MAX)
        self._parse(data, self._parser)

    def _parse(self, data: bytes, parser: websocket.Parser) -> None:
        parser.feed(data)
        while self._sock.fileno() >= 0:
            try:
                event = parser.next_event()
            except websocket.FramingError as exc:
                self._end(None, f"bad framing: {exc}")
                return
            if event is None:
                if parser.clean:
                    self._parser = None
                return
            self._on_event(event)

    def _on_event(self, event: websocket.Event) -> None:
        match event.opcode:
            case websocket.TEXT:
                self._holder.heard(event.payload)
            case websocket.PING:
                self._write(websocket.encode_frame(websocket.PONG, event.payload, mask=random.randbytes(4)))
            case websocket.CLOSE:
                code, reason = websocket.read_close(event.payload)
                self._write(
                    websocket.encode_frame(websocket.CLOSE, event.payload[:2], mask=random.randbytes(4))
                )
                self._end(None if code == websocket.NO_CODE else code, reason)
            case websocket.BINARY:
                self._end(None, "a binary frame")

    def _end(self, code: int | None, reason: str) -> None:
        self.cut()
        self._holder.ended(code, reason)


def whole_texts(data: bytes) -> tuple[list[bytes], int]:
    """The text messages of one unmasked frame each that the data begins with, and where they end.

    What follows, good or bad, is for the parser; whether they are UTF-8 is for whoever reads them.
    """
    found, at, end = [], 0, len(data)
    while end - at >= 2 and data[at] == _TEXT:
        length, start = data[at + 1], at + 2
        if length == 126 and end - start >= 2:
            length = data[start] << 8 | data[start + 1]
            start += 2
            if length < 126:
                break
        elif length >= 126:
            break
        if start + length > end:
            break
        at = start + length
        found.append(data[start:at])
    return found, at


def _squeezed(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return name.strip().lower() + b":" + value.strip()
