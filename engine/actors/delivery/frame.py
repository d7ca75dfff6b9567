"""One message on its way to many: encoded once per wire dialect, lazily, and shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

Message = Mapping[str, object]
"""A message of docs/protocol.md before encoding; `t` is its type."""

PASSING: Final = frozenset({"leaderboard", "progress"})
"""Types of broadcasts that take no offset: only the newest of each matters."""

Dialect = Callable[[Message], bytes]
"""Turns a message into the bytes of one transport. Dialects that compare equal share what was encoded."""


class Frame:
    """A message together with the bytes it has become so far."""

    __slots__ = ("_encoded", "kind", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.kind = message["t"]
        self._encoded: dict[Dialect, bytes] = {}

    def encoded(self, dialect: Dialect) -> bytes:
        data = self._encoded.get(dialect)
        if data is None:
            data = self._encoded[dialect] = dialect(self.message)
        return data
