"""Cursors of lists: where the next page begins, as one opaque text."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from server.wire.errors import ApiError

CURSOR_CHARS_MAX = 1_000

Moment = Annotated[int, Meta(ge=0, le=2**45)]
"""Milliseconds since 1970, up to the year 3084."""
Stored = Annotated[str, Meta(pattern=r"^[^\0]*$")]
"""Text that PostgreSQL can hold."""

T = TypeVar("T")


def one_page(
    found: Sequence[T], limit: int, values: Callable[[T], tuple[object, ...]]
) -> tuple[Sequence[T], str | None]:
    """The first `limit` rows, and the cursor behind them; None if `found`, which is asked for one row more,
    has no more. Args: values: those of a row that a cursor has."""
    page = found[:limit]
    return page, cursor_of(values(page[-1])) if len(found) > limit else None


def cursor_of(last: tuple[object, ...]) -> str:
    """The cursor behind the row with these values."""
    return base64.urlsafe_b64encode(msgspec.json.encode(last)).rstrip(b"=").decode()


def behind(cursor: str | None, kind: type[T]) -> T | None:
    """The values of the row that the cursor stands behind. Raises ApiError for a text that is no cursor."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(text, type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise ApiError("bad_field", "cursor is `next` of the page before.", "cursor") from None
