"""A quiz that Microsoft's clients play by every way there is, while something happens to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from engine.storage.postgres import Row
from tests.signalr.clients import WAYS, Clients
from tests.web.leading import Session

Trouble = Callable[[], Awaitable[None]]
WATCHER = "screen"
STORED = "SELECT question, player, elapsed_ms FROM answers WHERE session_id = $1"


@dataclass
class Play:
    """A session with a player for each way.

    Args:
        url: of the hub, for the players.
        watching: of the hub, for a spectator.
    """

    session: Session
    clients: Clients
    url: str
    watching: str
    question: int = 0

    def __post_init__(self) -> None:
        self.names = [f"{transport} {protocol}" for transport, protocol in WAYS]
        self.acks: dict[tuple[int, int], int] = {}
        """How long each acknowledged answer took, by question and player."""

    async def join(self, **how: Any) -> None:
        code = self.session.code
        watch = {"code": code, "role": "spectator"}
        await self.clients.connect(WATCHER, self.watching, join=watch)
        for name, (transport, protocol) in zip(self.names, WAYS, strict=True):
            join = {"code": code, "name": name}
            more = {"transport": transport, "protocol": protocol, **how}
            await self.clients.connect(name, self.url, join=join, **more)

    async def ask(self, trouble: Trouble | None = None) -> None:
        """One question: everybody answers while there is `trouble`, and hears what was right."""
        self.question += 1
        await self.session.lead("start" if self.question == 1 else "next")
        await self.each("expect", type="question", where={"number": self.question})
        async with trio.open_nursery() as nursery:
            for name in self.names:
                nursery.start_soon(self._answer, name)
            if trouble is not None:
                await trouble()
        await self.session.lead("close")
        await self.each("expect", type="reveal", where={"number": self.question})

    async def until_answered(self) -> None:
        """Until all answers to the question are counted."""
        where = {"number": self.question, "answered": len(self.names)}
        await self.clients.do("expect", WATCHER, type="progress", where=where)

    async def _answer(self, name: str) -> None:
        call = {"id": f"{name} {self.question}", "question": self.question, "choice": 1}
        ack = await self.clients.do("answer", name, **call)
        assert (ack["status"], ack["question"]) == ("accepted", self.question)
        self.acks[self.question, self.names.index(name) + 1] = ack["elapsed_ms"]

    async def finish(self) -> Sequence[Mapping[str, Any]]:
        """The end, and what became of each client: none has missed a message or heard one twice."""
        await self.session.lead("finish")
        ends = await self.each("expect", type="finished")
        assert [end["you"]["score"] > 0 for end in ends] == [True] * len(self.names)
        stories = [await self.clients.do("story", name) for name in (*self.names, WATCHER)]
        for story in stories:
            assert story["gaps"] == []
        return stories[:-1]

    async def each(self, command: str, **words: Any) -> list[Any]:
        found: list[Any] = [await self.clients.do(command, name, **words) for name in self.names]
        return found


def stored(rows: Sequence[Row]) -> dict[tuple[int, int], int]:
    """As `Play.acks`."""
    found = {(row["question"], row["player"]): row["elapsed_ms"] for row in rows}
    assert len(found) == len(rows)
    return found
