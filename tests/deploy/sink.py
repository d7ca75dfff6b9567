"""A small HTTP server for what the tools of operators send: Alertmanager's webhook, an OTLP collector."""

from __future__ import annotations

import re

import trio


class Sink:
    """Takes every request with a body, and answers 200. A subclass says what it does with them."""

    def __init__(self) -> None:
        self.port = 0
        self.heard = trio.Event()
        """Set, and replaced by a new one, with each request."""

    def take(self, path: str, body: bytes) -> None:
        """One request has come."""
        raise NotImplementedError

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._answer, [listener])

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            read = b""
            async for data in stream:
                read += data
                head, _, body = read.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
                if length is None or len(body) < int(length[1]):
                    continue
                self.take(head.split(b" ")[1].decode(), body)
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                read = b""
                self.heard.set()
                self.heard = trio.Event()
