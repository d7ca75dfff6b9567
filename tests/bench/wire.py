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


def client_frame(message: dict[str, object]) -> bytes:
    """A masked text frame."""
    payload = orjson.dumps(message)
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


def open_websockets(port: int, count: int, greetings: Sequence[bytes]) -> list[socket.socket]:
    """Open connections, each of which has said its greeting."""
    opened: list[socket.socket] = []
    while len(opened) < count:
        batch = connect(port, min(BATCH, count - len(opened)))
        for each in batch:
            each.sendall(REQUEST)
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
