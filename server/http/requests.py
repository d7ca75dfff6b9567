"""What comes in: JSON objects and query strings with known fields, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from quart import request

from server.wire.bodies import object_of, refuse_other_than_json, refuse_unknown
from server.wire.errors import ApiError

YAML_TYPES = ("application/yaml", "text/yaml")


async def read_body(other_types: Collection[str] = ()) -> bytes:
    """The body of the current request, which must be declared as JSON, or as one of the other types.

    Raises ApiError `unsupported_media_type`; quart's own 413 and 408 pass through.
    """
    refuse_other_than_json(request.headers.get("Content-Type", ""), other_types)
    body = await request.get_data(cache=False)
    assert isinstance(body, bytes)
    return body


async def read_object(
    known: Collection[str], required: Iterable[str] = (), bytes_max: int | None = None
) -> dict[str, object]:
    """The body as an object with known fields. Raises ApiError, which names the field."""
    return object_of(await read_body(), known, required, bytes_max)


def read_query(*known: str) -> Mapping[str, str]:
    """The query string, of which each field may come once. Raises ApiError, which names the field."""
    refuse_unknown(request.args, known)
    for name in known:
        if len(request.args.getlist(name)) > 1:
            raise ApiError("bad_field", f"{name} is given more than once.", name)
    return request.args.to_dict()


def read_count(query: Mapping[str, str], name: str, default: int, most: int, least: int = 1) -> int:
    """A whole number of the query, from `least` to `most`."""
    raw = query.get(name)
    if raw is None:
        return default
    if raw.isascii() and raw.isdigit() and len(raw) <= 9 and least <= int(raw) <= most:
        return int(raw)
    raise ApiError("bad_field", f"{name} must be a whole number from {least} to {most}.", name)
