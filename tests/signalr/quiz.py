"""A whole quiz by `pysignalr`: a host, three players and a spectator.

    python -m tests.signalr.quiz URL CODE HOST_TOKEN PROTOCOL

A process of its own, because the library leaves its sockets open at the end.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pysignalr.client import SignalRClient
from pysignalr.messages import CompletionMessage
from pysignalr.protocol.json import JSONProtocol
from pysignalr.protocol.messagepack import MessagepackProtocol

from tests.signalr.clients import PATIENCE_S

EVENTS = ("question", "result", "reveal", "finished")
PROTOCOLS = {"json": JSONProtocol, "messagepack": MessagepackProtocol}


class Client:
    """One connection, and what it hears."""

    def __init__(self, url: str, protocol: str) -> None:
        self._signalr = SignalRClient(url, PROTOCOLS[protocol]())
        self._heard = {event: asyncio.Queue[dict[str, Any]]() for event in EVENTS}
        for event, queue in self._heard.items():
            self._signalr.on(event, self._into(queue))
        self._signalr.on_error(self._refused)
        self._signalr.on_open(self._opened)
        self._open = asyncio.Event()
        self.refusals: list[str | None] = []

    @staticmethod
    def _into(queue: asyncio.Queue[dict[str, Any]]) -> Any:
        async def put(arguments: list[dict[str, Any]]) -> None:
            queue.put_nowait(arguments[0])

        return put

    async def _refused(self, completion: CompletionMessage) -> None:
        self.refusals.append(completion.error)

    async def _opened(self) -> None:
        self._open.set()

    async def start(self, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
        running = tasks.create_task(self._signalr.run())
        await self._open.wait()
        return running

    async def invoke(self, target: str, *arguments: Any) -> Any:
        """The result of a call; None if it was refused."""
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def end(completion: Any) -> None:
            ended.set_result(completion.result)

        await self._signalr.send(target, list(arguments), end)
        return await ended

    async def on(self, event: str) -> dict[str, Any]:
        return await self._heard[event].get()


async def quiz(url: str, code: str, host_token: str, protocol: str) -> None:
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        host, screen, *players = (Client(url, protocol) for _ in range(5))
        running = [await client.start(tasks) for client in (host, screen, *players)]
        assert (await host.invoke("Join", {"code": code, "token": host_token}))["role"] == "host"
        assert (await screen.invoke("Watch", code))["role"] == "spectator"
        for number, name in enumerate(("Ada", "Ben", "Cem"), 1):
            assert (await players[number - 1].invoke("Join", code, name))["player"] == number
        assert await players[0].invoke("Jump") is None
        assert players[0].refusals[0] is not None
        assert players[0].refusals[0].startswith("unknown_type: Jump")
        for number in (1, 2):
            await host.invoke("Host", {"do": "start" if number == 1 else "next"})
            assert (await screen.on("question"))["number"] == number
            for player, choice in zip(players, (1, 0, 1), strict=True):
                assert (await player.on("question"))["number"] == number
                ack = await player.invoke("Answer", {"id": "a", "question": number, "choice": choice})
                assert (ack["status"], ack["id"]) == ("accepted", "a")
            assert [(await player.on("result"))["correct"] for player in players] == [True, False, True]
        await host.invoke("Host", "finish")
        assert [line["name"] for line in (await screen.on("finished"))["podium"]][-1] == "Ben"
        assert (await players[1].on("finished"))["you"]["rank"] == 3
        for each in running:
            each.cancel()


if __name__ == "__main__":
    asyncio.run(quiz(*sys.argv[1:]))
