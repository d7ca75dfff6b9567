"""The Python library in a scenario: see run.py."""

from __future__ import annotations

import sys

import anyio

from fanfare_client import FanfareError, connect


async def play(url: str, code: str) -> None:
    end = "left"
    try:
        async with connect(url, code, name="Ada") as game:
            async for message in game:
                if message["t"] == "question":
                    closes = message["now"] + message["opens_in_ms"] + message["remaining_ms"]
                    print("remaining", closes - game.server_now())
                    await game.answer(message["number"], 0)
            end = game.error.code if game.error else end
    except FanfareError as error:
        end = error.code
    print(end)


anyio.run(play, *sys.argv[-2:], backend="trio" if "--trio" in sys.argv else "asyncio")
