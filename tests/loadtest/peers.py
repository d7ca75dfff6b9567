"""A server that a test leads by hand, in the loop of the swarm itself and on virtual time."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from engine import websocket
from loadtest.swarm.loop import Loop

Message = dict[str, Any]

REAL_WAIT_S = 0.02
"""How long sockets may be silent on the machine's clock before time passes on the virtual one."""


class VirtualLoop(Loop):
    """Time passes only while no socket has anything to say."""

    def __init__(self) -> None:
        self.time_s = 1000.0
        super().__init__(lambda: self.time_s)

    def wait(self, at_most_s: float) -> list[tuple[int, int]]:
        found = super().wait(min(at_most_s, REAL_WAIT_S))
        if not found:
            self.time_s += at_most_s
        return found

    def run_for(self, seconds: float) -> None:
        self.at(self.time_s + seconds, self.stop)
        self._stopped = False
        self.run()


class Peer:
    """The server's end of one connection. `on` is called with each message of the client."""

    def __init__(self, sock: socket.socket, loop: Loop, on: Callable[[Peer, Message], None]) -> None:
        self.address: str = sock.getpeername()[0]
        self.heard: list[Message] = []
        self.pongs: list[bytes] = []
        self.closed_by_client = False
        self.gone = False
        self._sock = sock
        self._loop = loop
        self._on = on
        self._request = b""
        self._parser: websocket.Parser | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add(sock.fileno(), EPOLLIN, self)

    def ready(self, events: int) -> None:
        try:
            data = self._sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.gone = True
            self.cut()
        elif self._parser is None:
            self._shake(data)
        else:
            self._parser.feed(data)
            self._events(self._parser)

    def _shake(self, data: bytes) -> None:
        self._request += data
        head, found, _ = self._request.partition(b"\r\n\r\n")
        if not found:
            return
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        self.raw(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"sec-websocket-accept:  " + websocket.accept_key(key) + b"\r\n\r\n"
        )
        self._parser = websocket.Parser(masked=True, message_bytes_max=4096)

    def _events(self, parser: websocket.Parser) -> None:
        while (event := parser.next_event()) is not None:
            if event.opcode == websocket.TEXT:
                message = json.loads(event.payload)
                self.heard.append(message)
                self._on(self, message)
            elif event.opcode == websocket.PONG:
                self.pongs.append(event.payload)
            elif event.opcode == websocket.CLOSE:
                self.closed_by_client = True

    def say(self, *messages: Message) -> None:
        """In one piece."""
        self.raw(b"".join(websocket.encode_text_frame(json.dumps(each).encode()) for each in messages))

    def raw(self, data: bytes) -> None:
        self._sock.send(data)

    def close(self, code: int, reason: str) -> None:
        self.raw(websocket.encode_close(code, reason))

    def cut(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove(self._sock.fileno())
            self._sock.close()


class Listener:
    """Accepts; `peers` are the connections in their order."""

    def __init__(self, loop: Loop, on: Callable[[Peer, Message], None]) -> None:
        self.peers: list[Peer] = []
        self.refuse_with: bytes | None = None
        """An HTTP response instead of a handshake."""
        self._loop = loop
        self._on = on
        self._sock = socket.create_server(("127.0.0.1", 0))
        loop.add(self._sock.fileno(), EPOLLIN, self)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._sock.getsockname()[1]}/ws"

    def ready(self, events: int) -> None:
        sock, _ = self._sock.accept()
        if self.refuse_with is not None:
            with sock:
                sock.send(self.refuse_with)
            return
        self.peers.append(Peer(sock, self._loop, self._on))

    def end(self) -> None:
        for peer in self.peers:
            peer.cut()
        self._loop.remove(self._sock.fileno())
        self._sock.close()
