"""One request on the port of the API: its id, its trace and its span."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextvars import Token
from http import HTTPStatus
from typing import Any

from engine.trace import Trace, current
from server.runtime.request_ids import HEADER, current_id, request_id_of
from server.runtime.tracing import Tracing

SERVED = "fanfare.served_request"
"""Where the scope of a request has it."""

_ID = "fanfare.request_id"

Send = Callable[[Any], Awaitable[None]]


class ServedRequest:
    """A context around a request: inside, lines of the log and what follows from it know it.

    Args:
        scope: as ASGI has it.
        tracing: None where nothing is traced.
        now_ms: in ms since the epoch.
    """

    def __init__(self, scope: Any, tracing: Tracing | None, now_ms: Callable[[], int]) -> None:
        self.id = request_id_in(scope)
        self.route: str | None = None
        """The path of the route, with its parameters in braces; None of a request that fits none."""
        self._status: int | None = None
        self._tracing = tracing
        self._now_ms = now_ms
        self._traced = None
        if tracing is not None:
            self._traced = tracing.begin_request(
                _header(scope["headers"], b"traceparent"), scope["method"], scope["scheme"], now_ms()
            )
        self._id_before: Token[str | None] | None = None
        self._trace_before: Token[Trace | None] | None = None

    def sending(self, send: Send) -> Send:
        """What the response goes through."""
        header = HEADER.lower().encode(), self.id.encode()

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                headers = [*message["headers"], header]
                if self._status == HTTPStatus.NO_CONTENT:  # which has no length, whatever quart says
                    headers = [each for each in headers if each[0].lower() != b"content-length"]
                message = {**message, "headers": headers}
            await send(message)

        return send_with_id

    def __enter__(self) -> None:
        self._id_before = current_id.set(self.id)
        self._trace_before = current.set(None if self._traced is None else self._traced.trace)

    def __exit__(self, *_: object) -> None:
        assert self._id_before is not None
        assert self._trace_before is not None
        current_id.reset(self._id_before)
        current.reset(self._trace_before)
        if self._tracing is not None and self._traced is not None:
            self._tracing.note_request(self._traced, self.route, self._status, self._now_ms())


def request_id_in(scope: Any) -> str:
    """The same each time it is asked for."""
    if _ID not in scope:
        scope[_ID] = request_id_of(_header(scope["headers"], b"x-request-id"))
    return str(scope[_ID])


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    """The values of a header, joined by commas; None without one."""
    values = [value for name, value in headers if name == wanted]
    return b",".join(values).decode("latin-1") if values else None
