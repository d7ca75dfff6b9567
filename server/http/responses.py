"""What goes out: JSON, encoded here and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import cast

import msgspec
import orjson
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse

from server.wire.api.common import Body
from server.wire.errors import ApiError

Answer = Response

EXIT_STACK = "fanfare.exit_stack"
"""The key under which a request keeps the callbacks for its end."""


def json_answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """`data`: one of the types in `server/wire/api`, or what the session has said."""
    encode = msgspec.json.encode if isinstance(data, msgspec.Struct) else orjson.dumps
    return body_answer(encode(data), "application/json", status, headers)


def part_of(message: Mapping[str, object], kind: type[Body]) -> dict[str, object]:
    """What a message of a session has for the fields of `kind`."""
    return {name: message[name] for name in kind.__struct_fields__}


def body_answer(
    body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    return TrioResponse(body, status, dict(headers or {}), content_type=content_type)


def parts_answer(parts: Sequence[bytes], content_type: str, headers: Mapping[str, str]) -> Answer:
    """A body that is sent as it was made: to put a large one together would hold the loop."""
    answer = TrioResponse(_Parts(parts), 200, dict(headers), content_type=content_type)
    answer.content_length = sum(map(len, parts))
    return answer


class _Parts(ResponseBody):
    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    async def __aenter__(self) -> _Parts:
        return self

    async def __aexit__(self, exc_type: type, exc_value: BaseException, traceback: TracebackType) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


def error_answer(error: ApiError) -> Answer:
    return body_answer(error.body, "application/json", error.status, error.headers)


def when_over(callback: Callable[[], object]) -> None:
    """Have this called when the current request is over, however it ends: an answer may fail at any point."""
    exits = cast(Mapping[str, object], request.scope)[EXIT_STACK]
    assert isinstance(exits, ExitStack)
    exits.callback(callback)
