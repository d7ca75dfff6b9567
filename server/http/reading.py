"""What comes in: JSON objects and query strings with known fields, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import orjson
from quart import request

from server.http.errors import ApiError


async def read_json(bytes_max: int | None = None) -> object:
    """The body of the current request, at most `bytes_max` long (by default what quart lets in).

    Raises ApiError `unsupported_media_type`, `too_large` or `bad_json`; quart's own 413 and 408 pass through.
    """
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise ApiError("unsupported_media_type", "Send JSON, with Content-Type: application/json.")
    body = await request.get_data(cache=False)
    if bytes_max is not None and len(body) > bytes_max:
        raise ApiError("too_large", f"The body is larger than {bytes_max} bytes.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError("bad_json", f"The body is not JSON: {error}.") from None


async def read_object(
    known: Collection[str], required: Iterable[str] = (), bytes_max: int | None = None
) -> dict[str, object]:
    """The body as an object with known fields. Raises ApiError, which names the field."""
    data = await read_json(bytes_max)
    if not isinstance(data, dict):
        raise ApiError("bad_message", "The body must be one JSON object.")
    refuse_unknown(data, known)
    for name in required:
        if name not in data:
            raise ApiError("missing_field", f"The field {name} is missing.", name)
    return data


def read_query(*known: str) -> Mapping[str, str]:
    """The query string, of which each field may come once. Raises ApiError, which names the field."""
    refuse_unknown(request.args, known)
    for name in known:
        if len(request.args.getlist(name)) > 1:
            raise ApiError("bad_field", f"{name} is given more than once.", name)
    return request.args.to_dict()


def read_count(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number of the query, from 1 to `most`."""
    raw = query.get(name)
    if raw is None:
        return default
    if raw.isascii() and raw.isdigit() and len(raw) <= 9 and 1 <= int(raw) <= most:
        return int(raw)
    raise ApiError("bad_field", f"{name} must be a whole number from 1 to {most}.", name)


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            listed = f"known are: {', '.join(known)}" if known else "there are none here"
            shown = name if len(name) <= 60 else name[:60] + "..."
            raise ApiError("unknown_field", f"There is no field {shown!r}; {listed}.", shown)
