"""The client's side of a WebSocket in as few bytes and calls as it takes, so that what is measured is the
server: no library, no checks, everything masked with zeroes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import orjson

BATCH = 100
"""Handshakes under way at one time."""

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


HUB_REQUEST = REQUEST.replace(b"/ws", b"/hub")


def client_frame(message: dict[str, object]) -> bytes:
    """A masked text frame."""
    return client_bytes(orjson.dumps(message))


def client_bytes(payload: bytes) -> bytes:
    """A masked text frame of these bytes."""
    if len(payload) < 126:
        return struct.pack("!BB4x", 0x81, 0x80 | len(payload)) + payload
    return struct.pack("!BBH4x", 0x81, 0x80 | 126, len(payload)) + payload


def server_frame(payload: bytes) -> bytes:
    """A text frame as servers send it."""
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload


def connect(port: int, count: int) -> list[socket.socket]:
    """TCP connections over loopback."""
    sockets = []
    for _ in range(count):
        each = socket.create_connection(("127.0.0.1", port), timeout=30)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(each)
    return sockets


def http_request(
    method: bytes, target: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> bytes:
    """With the headers that browsers send."""
    lines = {
        "Host": "127.0.0.1",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept": "*/*",
        "Accept-Language": "en-US,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Connection": "keep-alive",
        **(headers or {}),
    }
    if body:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target.encode(), head.encode(), body)


def open_streams(port: int, count: int, code: str) -> list[socket.socket]:
    """Event streams of spectators, each of which was let in."""
    request = http_request(b"GET", f"/api/sessions/{code}/events", {"Accept": "text/event-stream"})
    opened: list[socket.socket] = []
    while len(opened) < count:
        batch = connect(port, min(BATCH, count - len(opened)))
        for each in batch:
            each.sendall(request)
        for each in batch:
            heard = b""
            while not (heard.endswith(b"\n\n") and b"event: joined\n" in heard):
                part = each.recv(65_536)
                heard += part
                if not part or not heard.startswith(b"HTTP/1.1 200"[: len(heard)]):
                    raise ConnectionError(f"the stream was refused: {heard!r}")
        opened += batch
    return opened


def open_websockets(
    port: int, count: int, greetings: Sequence[bytes], request: bytes = REQUEST
) -> list[socket.socket]:
    """Open connections, each of which has said its greeting."""
    opened: list[socket.socket] = []
    while len(opened) < count:
        batch = connect(port, min(BATCH, count - len(opened)))
        for each in batch:
            each.sendall(request)
        for each in batch:
            response = b""
            while not response.endswith(b"\r\n\r\n"):
                part = each.recv(4096)
                if not part:
                    raise ConnectionError(f"the handshake was refused: {response!r}")
                response += part
        for number, each in enumerate(batch, len(opened)):
            each.sendall(greetings[number])
        opened += batch
    return opened
