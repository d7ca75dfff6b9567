"""Reads requests: JSON objects and query strings with known fields, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import TypeVar

from msgspec import inspect
from quart import request

from server.wire.api.common import Body
from server.wire.api.queries import Query
from server.wire.bodies import object_of, read_count, refuse_other_than_json, refuse_unknown
from server.wire.errors import ApiError

YAML_TYPES = ("application/yaml", "text/yaml")

Q = TypeVar("Q", bound=Query)

FLAGS: Mapping[str, bool] = {"true": True, "false": False}


async def read_body(other_types: Collection[str] = ()) -> bytes:
    """The body of the current request, which must be declared as JSON, or as one of the other types.

    Raises ApiError `unsupported_media_type`; quart's own 413 and 408 pass through.
    """
    headers = request.headers
    refuse_other_than_json(
        headers.get("Content-Type", ""), ",".join(headers.getlist("Content-Encoding")), other_types
    )
    body = await request.get_data(cache=False)
    assert isinstance(body, bytes)
    return body


async def read_object(kind: type[Body], bytes_max: int | None = None) -> dict[str, object]:
    """The body as an object with no other fields than those of `kind`. Raises ApiError with the path of the
    field."""
    return object_of(await read_body(), kind, bytes_max)


def read_query(kind: type[Q]) -> Q:
    """The query string, of which each field may come once. Raises ApiError, which names the field."""
    readers = _readers(kind)
    refuse_unknown(request.args, readers)
    for name in readers:
        if len(request.args.getlist(name)) > 1:
            raise ApiError("bad_field", f"{name} is given more than once.", name)
    given: dict[str, object] = {}
    for name, (required, read) in readers.items():
        raw = request.args.get(name)
        if raw is not None:
            given[name] = read(name, raw)
        elif required:
            raise ApiError("missing_field", f"The field {name} is missing.", name)
    return kind(**given)


Reader = Callable[[str, str], object]


@cache
def _readers(kind: type[Query]) -> Mapping[str, tuple[bool, Reader]]:
    """By field: whether it must be there, and what reads its text. Patterns and lengths of text are for the
    view to judge."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {
        field.name: (
            field.required,
            _reader(field.type),
        )
        for field in info.fields
    }


def _reader(kind: inspect.Type) -> Reader:
    if isinstance(kind, inspect.Metadata):
        return _reader(kind.type)
    if isinstance(kind, inspect.UnionType):
        (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
        return _reader(kind)
    if isinstance(kind, inspect.IntType):
        assert kind.ge is not None
        assert kind.le is not None
        return _count(kind.ge, kind.le)
    if isinstance(kind, inspect.BoolType):
        return _flag
    if isinstance(kind, inspect.LiteralType):
        return _word(tuple(map(str, kind.values)))
    assert isinstance(kind, inspect.StrType)
    return _text


def _count(least: int, most: int) -> Reader:
    return lambda name, raw: read_count(name, raw, least, most)


def _word(words: tuple[str, ...]) -> Reader:
    def read(name: str, raw: str) -> str:
        if raw in words:
            return raw
        raise ApiError("bad_field", f"{name} can only be {' or '.join(words)}.", name)

    return read


def _flag(name: str, raw: str) -> bool:
    if raw in FLAGS:
        return FLAGS[raw]
    raise ApiError("bad_field", f"{name} is true or false.", name)


def _text(name: str, raw: str) -> str:  # noqa: ARG001 - Reader
    return raw
