"""Which HTTP request the present task works for: lines of the log name it, and so may a client or a proxy.

A request brings `X-Request-Id`, or gets one here; it is in the response either way.
"""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

HEADER = "X-Request-Id"

CHARS_MAX = 128

_ID = re.compile(rf"[\w.~:+/=@-]{{1,{CHARS_MAX}}}", re.ASCII)

current_id: ContextVar[str | None] = ContextVar("request id", default=None)
"""None outside of a request."""


class ForRequest:
    """A context: what is logged inside belongs to this request."""

    __slots__ = ("_before", "_request_id")

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id

    def __enter__(self) -> None:
        self._before = current_id.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        current_id.reset(self._before)


def request_id_of(sent: str | None) -> str:
    """What the client has sent, if it is 1 to 128 letters, digits and `-._~:+/=@`; else a new id."""
    if sent is not None and _ID.fullmatch(sent):
        return sent
    return f"{random.getrandbits(64):016x}"
