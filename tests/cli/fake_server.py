"""An HTTP server with canned answers, for commands that ask and print."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeServer:
    """Answers `method path` with a status and a body; a body that is text goes out as it is.

    `heard` has every request: method, path with query, bearer token, JSON body.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.heard: list[tuple[str, str, str | None, Any]] = []
        self.url = ""

    def says(self, request: str, body: Any, status: int = 200) -> None:
        self.answers[request] = (status, body)

    def refuses(self, request: str, status: int, code: str, message: str, path: str | None = None) -> None:
        error = {"code": code, "message": message} | ({"path": path} if path else {})
        self.says(request, {"error": error}, status)

    @contextmanager
    def running(self) -> Iterator[FakeServer]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def do_DELETE(self) -> None:
                self._answer()

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                fake.heard.append((self.command, self.path, token, body))
                missing = (404, {"error": {"code": "not_found", "message": "There is nothing here."}})
                status, said = fake.answers.get(f"{self.command} {self.path}", missing)
                text = said if isinstance(said, str) else json.dumps(said)
                payload = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/csv" if isinstance(said, str) else "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args: object) -> None:
                """Quiet."""

        return Handler
