"""A player that guesses, at the host's pace or at its own: python bot.py http://localhost:5001 123456 Ada

With `--trio` it runs under trio instead of asyncio, with `--no-websocket` by an event stream and requests.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import anyio

from fanfare_client import FanfareError, connect


def guess(question: dict[str, Any]) -> object:
    one = random.randrange(len(question["choices"] or "?"))
    guesses = {"single": one, "multiple": [one], "true_false": True, "text": "42", "numeric": 42}
    return guesses[question["type"]]


async def play(url: str, code: str, name: str, websocket: bool) -> None:
    async with connect(url, code, name=name, websocket=websocket) as game:
        print(f"{name} is player {game.joined['player']}", flush=True)
        if game.joined["state"]["phase"] == "open":
            while (step := await game.next())["t"] == "question":
                await game.answer(step["number"], guess(step))
            print(f"{name} is through")
            return
        if game.joined["state"]["phase"] == "question":
            await answer(game, game.joined["state"]["question"])
        async for message in game:
            if message["t"] == "question":
                await answer(game, message)
            elif message["t"] == "finished":
                print(f"{name}: place {message['you']['rank']} with {message['you']['score']} points")
                return


async def answer(game: Any, question: dict[str, Any]) -> None:
    if question["choices"] is None and question["type"] in ("single", "multiple"):
        return  # the same question follows, with its choices
    await anyio.sleep((question["opens_in_ms"] or 0) / 1000)
    try:
        await game.answer(question["number"], guess(question))
    except FanfareError as error:
        print(error)


if __name__ == "__main__":
    url, code, name = [word for word in sys.argv[1:] if not word.startswith("--")]
    backend = "trio" if "--trio" in sys.argv else "asyncio"
    anyio.run(play, url, code, name, "--no-websocket" not in sys.argv, backend=backend)
