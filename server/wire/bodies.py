"""JSON that comes in over HTTP, on whichever port: objects with known fields, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from urllib.parse import parse_qsl

import orjson
from msgspec.structs import fields

from engine.domain.settings import ATTEMPTS_MAX
from server.wire import protocol
from server.wire.api.common import Body
from server.wire.api.playing import Answer
from server.wire.api.queries import NextQuery
from server.wire.errors import ApiError


def refuse_other_than_json(content_type: str, coding: str, other_types: Collection[str] = ()) -> None:
    """Raises ApiError for a body that is declared neither as JSON nor as one of the other types, or as
    compressed. Args: coding: the Content-Encoding."""
    refuse_coded(coding)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in ("application/json", *other_types) or media_type.endswith("+json"):
        return
    named = " or ".join(("application/json", *other_types))
    raise ApiError("unsupported_media_type", f"Send JSON, with Content-Type: {named}.")


def refuse_coded(coding: str) -> None:
    """Raises ApiError for a body that is declared as compressed."""
    if coding.strip().lower() not in ("", "identity"):
        raise ApiError("unsupported_media_type", "Send the body as it is: no Content-Encoding is taken.")


def json_of(body: bytes, bytes_max: int | None = None) -> object:
    """Raises ApiError `too_large` or `bad_json`."""
    if bytes_max is not None and len(body) > bytes_max:
        raise too_large(bytes_max)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError("bad_json", f"The body is not JSON: {error}.") from None


def too_large(bytes_max: int) -> ApiError:
    return ApiError("too_large", f"The body is larger than {bytes_max} bytes.")


def object_of(body: bytes, kind: type[Body], bytes_max: int | None = None) -> dict[str, object]:
    """A JSON object with no other fields than those of `kind`. Raises ApiError with the path of the field."""
    data = json_of(body, bytes_max)
    if not isinstance(data, dict):
        raise ApiError("bad_message", "The body must be one JSON object.")
    refuse_unknown(data, kind.__struct_fields__)
    for name in _required(kind):
        if name not in data:
            raise ApiError("missing_field", f"The field {name} is missing.", name)
    return data


def answer_of(body: bytes, bytes_max: int) -> protocol.Answer:
    """A player's answer: the members that the WebSocket message has, without its type. Raises ApiError."""
    data = object_of(body, Answer, bytes_max)
    try:
        return protocol.read_answer(data)
    except protocol.ProtocolError as error:
        raise ApiError(error.code, error.message, error.path) from None


def attempt_in(query: str) -> int | None:
    """The attempt in the query of a request for the next question, the one field that it may have. Raises
    ApiError."""
    if not query:
        return None
    pairs = parse_qsl(query, keep_blank_values=True)
    refuse_unknown((name for name, _ in pairs), NextQuery.__struct_fields__)
    if len(pairs) > 1:
        raise ApiError("bad_field", "attempt is given more than once.", "attempt")
    return read_count("attempt", pairs[0][1], 1, ATTEMPTS_MAX) if pairs else None


def read_count(name: str, raw: str, least: int, most: int) -> int:
    """A whole number in a query. Raises ApiError."""
    if raw.isascii() and raw.isdigit() and len(raw) <= 9 and least <= int(raw) <= most:
        return int(raw)
    raise ApiError("bad_field", f"{name} must be a whole number from {least} to {most}.", name)


@cache
def _required(kind: type[Body]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.required)


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            listed = f"known are: {', '.join(known)}" if known else "there are none here"
            shown = name if len(name) <= 60 else name[:60] + "..."
            raise ApiError("unknown_field", f"There is no field {shown!r}; {listed}.", shown)
