"""A player by `pysignalr` who answers every question, and comes back as docs/signalr.md says.

    python -m tests.signalr.player URL CODE NAME PROTOCOL

Prints what it hears, a JSON object a line; and `{"t": "ended", "error": ...}` when the library gives up its
connection, upon which the player makes another client.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pysignalr.client import SignalRClient
from pysignalr.protocol.json import JSONProtocol
from pysignalr.protocol.messagepack import MessagepackProtocol

PROTOCOLS = {"json": JSONProtocol, "messagepack": MessagepackProtocol}
NUMBERED = ("question", "reveal", "state", "finished")
AGAIN_S = 0.2


def tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


class Player:
    def __init__(self, url: str, code: str, name: str, protocol: str) -> None:
        self._url = url
        self._protocol = protocol
        self._join: dict[str, Any] = {"code": code, "name": name}
        self._offset: int | None = None
        self._pending: dict[str, dict[str, Any]] = {}
        self._over = False

    async def play(self) -> None:
        while not self._over:
            signalr = self._client()
            try:
                await signalr.run()
            except Exception as error:  # noqa: BLE001 - of the library's kinds; the test looks at them
                tell({"t": "ended", "error": f"{type(error).__name__}: {error}"})
                await asyncio.sleep(AGAIN_S)

    def _client(self) -> SignalRClient:
        signalr = SignalRClient(self._url, PROTOCOLS[self._protocol]())

        async def say(target: str, call: dict[str, Any]) -> None:
            try:
                await signalr.send(target, [call])
            except Exception as error:  # noqa: BLE001 - the connection is lost: said again on the next one
                print(repr(error), file=sys.stderr)

        async def opened() -> None:
            here = {} if self._offset is None else {"offset": self._offset}
            await say("Join", {**self._join, **here})

        async def joined(message: dict[str, Any]) -> None:
            self._join = {name: message[name] for name in ("code", "token", "epoch")}
            for call in self._pending.values():
                await say("Answer", call)
            if (state := message["state"]) is not None:
                self._offset = message["offset"]
                if state["phase"] == "question" and state["you"]["answered"] is None:
                    await question(state["question"])

        async def question(message: dict[str, Any]) -> None:
            call = {"id": f"a{message['number']}", "question": message["number"], "choice": 1}
            if call["id"] not in self._pending:
                self._pending[call["id"]] = call
                await say("Answer", call)

        async def ack(message: dict[str, Any]) -> None:
            self._pending.pop(message["id"], None)

        async def finished(_: dict[str, Any]) -> None:
            self._over = True

        async def error(message: dict[str, Any]) -> None:
            if message["code"] != "busy":
                return
            await asyncio.sleep(AGAIN_S)
            if message.get("id") in self._pending:
                await say("Answer", self._pending[message["id"]])
            else:
                await opened()

        heard: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "joined": joined, "question": question, "ack": ack, "finished": finished, "error": error,
        }  # fmt: skip
        for event in {*heard, *NUMBERED}:
            signalr.on(event, self._hearing(heard.get(event)))
        signalr.on_open(opened)
        return signalr

    def _hearing(self, then: Callable[[dict[str, Any]], Awaitable[None]] | None) -> Any:
        async def hear(arguments: list[dict[str, Any]]) -> None:
            message = arguments[0]
            tell(message)
            if message["t"] in NUMBERED:
                self._offset = message["offset"]
            if then is not None:
                await then(message)

        return hear


if __name__ == "__main__":
    asyncio.run(Player(*sys.argv[1:]).play())
