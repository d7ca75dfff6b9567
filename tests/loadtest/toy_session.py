"""A whole session in a few lines, to let bots loose on: right where the real one is, wrong on request."""

from __future__ import annotations

import json
from collections.abc import Sequence

import httpx
import trio
from trio_websocket import ConnectionClosed

from loadtest.runs.ledger import StoredResult
from tests.loadtest.scripted import (
    Message,
    Peer,
    ScriptedServer,
    ack,
    finished,
    joined,
    picture,
    question,
    result,
    reveal,
)


class ToySession:
    """Single-choice questions, of which choice 1 is right and worth 100 points, each open for `open_s`."""

    def __init__(self, questions: int = 3, open_s: float = 20.0) -> None:
        self.names: list[str] = []
        self.answers: dict[tuple[int, int], tuple[object, int]] = {}
        self.offset = 0
        self.epoch = 1
        self.joins_by_http = 0
        self.answers_by_http = 0
        self.answers_heard = 0
        self.broken = 0
        self.play_is_gone = False
        """Whether the node that takes answers over HTTP cannot be reached, and another one takes them."""
        """Requests over HTTP that are answered 503 before one is served."""
        self._questions = questions
        self._open_s = open_s
        self._number = 0
        self._opened_at = 0.0
        self._phase = "lobby"
        self._peers: dict[int, Peer] = {}

    async def lead(self) -> None:
        """Play from the first question to the end."""
        for number in range(1, self._questions + 1):
            self._number = number
            self._phase, self._opened_at = "question", trio.current_time()
            await self._broadcast(question(self._next_offset(), self._number))
            await trio.sleep(self._open_s)
            self._phase = "reveal"
            await self._broadcast(reveal(self._next_offset(), self._number))
            for player in range(1, len(self.names) + 1):
                await self._tell(player, self._result(player))
            await trio.sleep(1)
        self._phase = "finished"
        self._next_offset()
        for player in range(1, len(self.names) + 1):
            await self._tell(player, finished(self.offset, self._score(player), self._rank(player)))

    async def scene(self, peer: Peer) -> None:
        """One connection, for ScriptedServer."""
        hello = await peer.hear()
        player = self._seat(hello["name"]) if "token" not in hello else int(hello["token"])
        self._peers[player] = peer
        await peer.say(self._joined(player))
        try:
            while True:
                message = await peer.hear()
                self.answers_heard += 1
                await peer.say(self._take(player, message))
        except ConnectionClosed:
            if self._peers.get(player) is peer:
                del self._peers[player]

    def http(self, request: httpx.Request) -> httpx.Response:
        """The HTTP API, for httpx.MockTransport."""
        if self.broken:
            self.broken -= 1
            return httpx.Response(503, json={"error": {"code": "busy", "message": "Try again."}})
        body = json.loads(request.content)
        if request.url.path.endswith("/players"):
            self.joins_by_http += 1
            player = self._seat(body["name"])
            told = {"player_id": player, "token": str(player), "play_url": "http://play.example"}
            return httpx.Response(201, json=told)
        if self.play_is_gone and request.url.host == "play.example":
            raise httpx.ConnectError("refused")
        assert self.play_is_gone or request.url.host == "play.example"
        self.answers_by_http += 1
        player = int(request.headers["authorization"].removeprefix("Bearer "))
        told = self._take(player, body)
        if told["t"] == "error":
            return httpx.Response(409, json={"error": {"code": told["code"], "message": told["message"]}})
        return httpx.Response(200, json=told)

    def restart(self) -> None:
        """Forget every connection, as a node that was killed."""
        self.epoch += 1
        self.offset = 0

    async def cut_all(self) -> None:
        for peer in list(self._peers.values()):
            await peer.cut()

    def results(self) -> list[StoredResult]:
        rows = []
        for player, name in enumerate(self.names, 1):
            given = [(choice, ms) for (who, _), (choice, ms) in self.answers.items() if who == player]
            rows.append(
                StoredResult(
                    rank=self._rank(player),
                    player=player,
                    name=name,
                    score=self._score(player),
                    correct=sum(choice == 1 for choice, _ in given),
                    answered=len(given),
                    elapsed_ms=sum(ms for _, ms in given),
                )
            )
        return rows

    def _seat(self, name: str) -> int:
        self.names.append(name)
        return len(self.names)

    def _take(self, player: int, message: Message) -> Message:
        number = message["question"]
        given = self.answers.get((player, number))
        if given is None:
            if self._phase != "question" or number != self._number:
                return {"t": "error", "id": message["id"], "code": "question_closed", "message": "Too late."}
            elapsed_ms = int((trio.current_time() - self._opened_at) * 1000)
            given = self.answers[player, number] = (message["choice"], elapsed_ms)
        return ack(message, "accepted" if given[0] == message["choice"] else "duplicate", given[1])

    def _joined(self, player: int) -> Message:
        closed = self._phase in ("reveal", "finished")
        you = picture()["you"] | {
            "score": self._score(player),
            "rank": self._rank(player),
            "result": self._result(player) if closed else None,
        }
        asked = question(0, self._number) if self._phase == "question" else None
        state = picture(self._phase, number=self._number, question=asked) | {"you": you}
        return joined(
            epoch=self.epoch,
            offset=self.offset,
            token=str(player),
            player=player,
            name=self.names[player - 1],
            state=state,
        )

    def _result(self, player: int) -> Message:
        choice, _ = self.answers.get((player, self._number), (None, 0))
        correct = None if choice is None else choice == 1
        return result(self._number, 100 if correct else 0, self._score(player), correct=correct)

    def _score(self, player: int) -> int:
        return sum(100 for (who, _), (choice, _) in self.answers.items() if who == player and choice == 1)

    def _rank(self, player: int) -> int:
        return 1 + sum(self._score(each) > self._score(player) for each in range(1, len(self.names) + 1))

    def _next_offset(self) -> int:
        self.offset += 1
        return self.offset

    async def _broadcast(self, message: Message) -> None:
        for player in list(self._peers):
            await self._tell(player, message)

    async def _tell(self, player: int, message: Message) -> None:
        if player not in self._peers:
            return
        try:
            await self._peers[player].say(message)
        except ConnectionClosed:
            self._peers.pop(player, None)


def server_of(nursery: trio.Nursery, session: ToySession, connections: int = 500) -> ScriptedServer:
    scenes: Sequence[object] = [session.scene] * connections
    return ScriptedServer(nursery, list(scenes))  # type: ignore[arg-type]  # a bound method is a Scene
