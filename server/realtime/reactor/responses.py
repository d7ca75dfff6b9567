"""HTTP responses as bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from server.wire.errors import ApiError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

JSON: Mapping[str, str] = {"Content-Type": "application/json"}


def response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    close: bool,
    request_id: str | None = None,
    head_only: bool = False,
) -> bytes:
    """A whole response. With `close` the connection ends after it. `request_id` is a header, too, of its own
    because it is another one each time. `head_only` is for HEAD: a body would be taken for the begin of the
    next response."""
    head = _head(status, headers, close, request_id)
    if status == HTTPStatus.NO_CONTENT:
        return head + b"\r\n"  # which has no length either
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), b"" if head_only else body)


def error_response(
    error: ApiError,
    headers: Mapping[str, str],
    *,
    close: bool,
    request_id: str | None = None,
    head_only: bool = False,
) -> bytes:
    headers = {**headers, **JSON, **error.headers}
    return response(
        error.status, headers, error.body, close=close, request_id=request_id, head_only=head_only
    )


def head_of_stream(headers: Mapping[str, str], request_id: str | None = None) -> bytes:
    """The head of a response whose body ends with the connection."""
    return _head(200, headers, True, request_id) + b"\r\n"


def _head(status: int, headers: Mapping[str, str], close: bool, request_id: str | None) -> bytes:
    head = _lines(status, tuple(headers.items()), close) + _date(int(time.time()))
    return head if request_id is None else b"%bX-Request-Id: %b\r\n" % (head, request_id.encode())


@lru_cache(maxsize=256)
def _lines(status: int, headers: tuple[tuple[str, str], ...], close: bool) -> bytes:
    """The same few, over and over."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n"


@lru_cache(maxsize=1)
def _date(now_s: int) -> bytes:
    """Made once a second."""
    return f"Date: {formatdate(now_s, usegmt=True)}\r\n".encode()
