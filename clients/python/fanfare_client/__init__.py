"""The client of Fanfare, under asyncio or trio: `connect`.

async with connect("http://localhost:5001", "123456", name="Ada") as game:
    async for message in game:
        if message["t"] == "question":
            await game.answer(message["number"], 0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfare_client.core import FanfareError

if TYPE_CHECKING:
    from fanfare_client.connection import Connection, connect

__all__ = ["Connection", "FanfareError", "connect"]


def __getattr__(name: str) -> object:
    """What brings an HTTP client along is imported when it is asked for: the rules of a seat
    (`fanfare_client.seat`, `reconnect`) are of use without it."""
    if name in ("Connection", "connect"):
        from fanfare_client import connection

        return getattr(connection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
