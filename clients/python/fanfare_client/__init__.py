"""The client of Fanfare, under asyncio or trio: `connect`.

async with connect("http://localhost:5001", "123456", name="Ada") as game:
    async for message in game:
        if message["t"] == "question":
            await game.answer(message["number"], 0)
"""

from __future__ import annotations

from fanfare_client.connection import Connection, connect
from fanfare_client.core import FanfareError

__all__ = ["Connection", "FanfareError", "connect"]
