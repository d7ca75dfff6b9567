"""What goes out: JSON, encoded here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import cast

import orjson
from quart import Response, request
from quart_trio.wrappers import TrioResponse

from server.errors import ApiError

Answer = Response

EXIT_STACK = "fanfare.exit_stack"
"""Where a request keeps what is to be done when it is over."""


def json_answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return body_answer(orjson.dumps(data), "application/json", status, headers)


def body_answer(
    body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    return TrioResponse(body, status, dict(headers or {}), content_type=content_type)


def error_answer(error: ApiError) -> Answer:
    return body_answer(error.body, "application/json", error.status, error.headers)


def when_over(callback: Callable[[], object]) -> None:
    """Have this called when the current request is over, however it ends: an answer may fail at any point."""
    exits = cast(Mapping[str, object], request.scope)[EXIT_STACK]
    assert isinstance(exits, ExitStack)
    exits.callback(callback)
