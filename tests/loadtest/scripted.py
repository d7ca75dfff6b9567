"""A server that plays a script: it speaks canned frames over streams in memory, on virtual time.

The servers of `peers` and of `tests/cli/fake_server` are others because a server must wait where its client
does: here in trio's virtual time, there in the loop of the swarm, which takes sockets alone, and in a thread
beside a command that has a loop of its own.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

Message = dict[str, Any]


class _LateStream(trio.abc.Stream):
    """Passes on what it receives only while `hears` is set."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.hears = trio.Event()
        self.hears.set()
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        await self.hears.wait()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


class Peer:
    """The server's end of one connection."""

    def __init__(self, url: str, socket: WebSocketConnection, stream: _LateStream) -> None:
        self.url = url
        self._socket = socket
        self._stream = stream

    async def hear(self) -> Message:
        """The client's next message, which must come. A ping is answered, as by any server that lives."""
        while True:
            message = await self._read()
            if message.get("t") != "ping":
                return message
            await self.say({"t": "pong", "at": message["at"], "now": 0})

    async def _read(self) -> Message:
        message = json.loads(await self._socket.get_message())
        assert isinstance(message, dict)
        return message

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self._socket.send_message(json.dumps(message))

    async def say_raw(self, frame: str | bytes) -> None:
        await self._socket.send_message(frame)

    async def ping_while_the_client_closes(self) -> None:
        """A ping frame that goes out after the client's close frame has come in, and before it was read."""
        self._stream.hears = trio.Event()
        await trio.sleep(0.1)
        await self._stream.send_all(b"\x89\x01!")
        await trio.sleep(0.1)
        self._stream.hears.set()

    async def close(self, code: int, reason: str) -> None:
        await self._socket.aclose(code, reason)

    async def cut(self) -> None:
        """Go away without a word."""
        await trio.aclose_forcefully(self._stream)

    async def silence(self) -> list[Message]:
        """What the client still says until it goes."""
        heard = []
        try:
            while True:
                heard.append(await self._read())
        except ConnectionClosed:
            return heard


Scene = Callable[[Peer], Awaitable[object]]


def says(*messages: Message, close: tuple[int, str] | None = None, cut: bool = False) -> Scene:
    """The scene in which the client greets and is told this. Then the server closes, goes without a word, or
    waits until the client goes."""

    async def scene(peer: Peer) -> None:
        await peer.hear()
        await peer.say(*messages)
        if close is not None:
            await peer.close(*close)
        elif cut:
            await peer.cut()
        else:
            await peer.silence()

    return scene


class ScriptedServer:
    """Plays one scene a connection, in order. `connect` is what clients dial with.

    A scene of None refuses the connection; when no scene is left, every connection is refused. `dialed` has
    the virtual time and the URL of every attempt.
    """

    def __init__(self, nursery: trio.Nursery, scenes: Sequence[Scene | None]) -> None:
        self._nursery = nursery
        self._scenes = list(scenes)
        self.dialed: list[tuple[float, str]] = []

    async def connect(self, url: str) -> trio.abc.Stream:
        self.dialed.append((trio.current_time(), url))
        scene = self._scenes.pop(0) if self._scenes else None
        if scene is None:
            raise ConnectionRefusedError(111, "Connection refused")
        here, there = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._play, url, _LateStream(there), scene)
        return here

    async def _play(self, url: str, stream: _LateStream, scene: Scene) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            socket = await request.accept(subprotocol="fanfare.v1")
            await scene(Peer(url, socket, stream))
            await socket.aclose()
            nursery.cancel_scope.cancel()


def joined(
    *,
    epoch: int = 1,
    offset: int = 0,
    token: str | None = "tok-1",
    state: Message | None = None,
    resumed: bool = False,
    player: int | None = 1,
    name: str | None = "Ada",
) -> Message:
    return {
        "t": "joined",
        "player": player,
        "token": token,
        "name": name,
        "session": "s1",
        "code": "123456",
        "role": "player",
        "state": None if resumed else state or picture(),
        "epoch": epoch,
        "offset": offset,
    }


def picture(phase: str = "lobby", *, score: int = 0, **members: Any) -> Message:
    """The `state` of a `joined`."""
    return {
        "phase": phase,
        "locked": False,
        "title": "Capitals",
        "number": 0,
        "of": 3,
        "players": 1,
        "answered": 0,
        "question": None,
        "reveal": None,
        "leaderboard": {"top": [], "players": 1, "answered": 0},
        "podium": [] if phase == "finished" else None,
        "you": {
            "player": 1,
            "name": "Ada",
            "score": score,
            "rank": 1,
            "streak": 0,
            "answered": None,
            "result": None,
        },
        **members,
    }


def question(offset: int, number: int = 1, **members: Any) -> Message:
    return {
        "t": "question",
        "offset": offset,
        "number": number,
        "of": 3,
        "type": "single",
        "text": "What is the capital of Portugal?",
        "choices": ["Porto", "Lisbon", "Coimbra"],
        "limit_ms": 20_000,
        "remaining_ms": 20_000,
        "points": 1000,
        **members,
    }


def reveal(offset: int, number: int = 1, correct: Any = 1) -> Message:
    return {"t": "reveal", "offset": offset, "number": number, "correct": correct, "counts": [0, 1, 0]}


def result(number: int, points: int, score: int, *, correct: bool | None = True, rank: int = 1) -> Message:
    return {
        "t": "result",
        "number": number,
        "correct": correct,
        "points": points,
        "score": score,
        "rank": rank,
        "streak": 0,
        "around": [],
    }


def leaderboard(offset: int, *top: tuple[int, str, int], players: int = 1, answered: int = 0) -> Message:
    entries = [{"rank": rank, "id": rank, "name": name, "score": score} for rank, name, score in top]
    return {
        "t": "leaderboard",
        "offset": offset,
        "top": entries,
        "players": players,
        "answered": answered,
        "tick_ms": 250,
    }


def progress(offset: int, number: int, answered: int, players: int = 1) -> Message:
    return {"t": "progress", "offset": offset, "number": number, "answered": answered, "players": players}


def finished(offset: int, score: int = 0, rank: int = 1) -> Message:
    return {"t": "finished", "offset": offset, "podium": [], "you": {"rank": rank, "score": score}}


def ack(request: Message, status: str = "accepted", elapsed_ms: int = 1200) -> Message:
    return {
        "t": "ack",
        "id": request["id"],
        "question": request["question"],
        "status": status,
        "elapsed_ms": elapsed_ms,
    }


def error(code: str, request: Message | None = None) -> Message:
    told = {"t": "error", "code": code, "message": f"This is {code}."}
    return told | ({"id": request["id"]} if request else {})
