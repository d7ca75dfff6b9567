"""What goes out: JSON, encoded here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from quart import Response
from quart_trio.wrappers import TrioResponse

from server.errors import ApiError

Answer = Response


def json_answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return body_answer(orjson.dumps(data), "application/json", status, headers)


def body_answer(
    body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    return TrioResponse(body, status, dict(headers or {}), content_type=content_type)


def error_answer(error: ApiError) -> Answer:
    return body_answer(error.body, "application/json", error.status, error.headers)
