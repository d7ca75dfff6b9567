"""The Python library in a scenario: see run.py."""

from __future__ import annotations

import sys
from collections.abc import Callable

import anyio

from fanfare_client import FanfareError, connect


async def play(url: str, code: str, say: Callable[..., None] = print) -> None:
    end = "left"
    try:
        async with connect(url, code, name="Ada") as game:
            alone = game.joined["state"]["phase"] == "open"
            if alone:
                await game.next()
            async for message in game:
                if message["t"] == "question":
                    closes = message["now"] + message["opens_in_ms"] + message["remaining_ms"]
                    say("remaining", closes - game.server_now())
                    await game.answer(message["number"], 0)
                    if alone:
                        await game.next()
                elif message["t"] == "done_all":
                    if message["attempt"] == message["attempts"]:
                        await game.leave()
                    else:
                        await game.next(message["attempt"] + 1)
            end = game.error.code if game.error else end
    except FanfareError as error:
        end = error.code
    say(end)


if __name__ == "__main__":
    anyio.run(play, *sys.argv[-2:], backend="trio" if "--trio" in sys.argv else "asyncio")
