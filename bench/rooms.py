"""Quiz rooms on libraries of others, to compare a node with: `picows` on uvloop, and `ws` on Node.

A room does what a session does while people answer, as far as a program of a page does it: it reads the
JSON, judges the answer, keeps the score and acknowledges, and tells everybody now and then how many have
answered. It stores nothing and checks little, and what it holds is lost with its process. It speaks the
part of Fanfare's protocol that the players of these benchmarks need.

The bare loop knows even less: it answers every read with the same ack.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

from bench.child import child
from bench.memory_node import Address, answer_everything
from bench.receivers import allow_files

LOOP, PICOWS, WS = "bare epoll loop", "picows room", "Node ws room"
TOP = 10
CORRECT = 0
SCRIPT = Path(__file__).with_name("ws_room.js")


@dataclass
class Room:
    """One quiz: everybody answers the same question. `send` takes a connection and a message."""

    send: Callable[[Any, bytes], object]
    members: list[Member] = field(default_factory=list)
    number: int = 0
    opened_at: float = 0.0
    open: bool = False
    answered: int = 0
    told: int = 0

    def join(self, connection: Any, message: dict[str, Any]) -> Member:
        member = Member(self, connection, len(self.members) + 1, message.get("name"))
        if "token" not in message:
            self.members.append(member)
        self.send(connection, orjson.dumps({"t": "joined", "player": member.id}))
        return member

    def order(self, do: str) -> None:
        if do == "close":
            self.open = False
            for member in self.members:
                result = {"t": "result", "number": self.number, "score": member.score}
                self.send(member.connection, orjson.dumps(result))
            self.board()
        else:
            self.number, self.opened_at, self.open = self.number + 1, time.monotonic(), True
            self.answered = self.told = 0
            self.broadcast({"t": "question", "number": self.number, "choices": ["a", "b", "c", "d"]})

    def board(self) -> None:
        best = sorted(self.members, key=lambda member: -member.score)[:TOP]
        top = [
            {"rank": rank, "id": each.id, "name": each.name, "score": each.score}
            for rank, each in enumerate(best, 1)
        ]
        self.broadcast({"t": "leaderboard", "top": top, "players": len(self.members)})

    def tick(self) -> None:
        """Tell everybody how many have answered, if more have."""
        if self.open and self.answered > self.told:
            self.told = self.answered
            self.broadcast(
                {
                    "t": "progress",
                    "number": self.number,
                    "answered": self.answered,
                    "players": len(self.members),
                }
            )

    def broadcast(self, message: dict[str, Any]) -> None:
        payload = orjson.dumps(message)
        for member in self.members:
            self.send(member.connection, payload)


@dataclass(eq=False)
class Member:
    """A player, or the host."""

    room: Room
    connection: Any
    id: int
    name: str | None
    score: int = 0
    answered: int = 0

    def take(self, message: dict[str, Any]) -> None:
        room = self.room
        if message["t"] == "host":
            room.order(message["do"])
            room.send(self.connection, orjson.dumps({"t": "done", "id": message["id"]}))
        elif not room.open or message["question"] != room.number or self.answered == room.number:
            room.send(self.connection, orjson.dumps({"t": "error", "code": "late", "id": message["id"]}))
        else:
            elapsed_ms = int((time.monotonic() - room.opened_at) * 1000)
            self.answered = room.number
            if message["choice"] == CORRECT:
                self.score += max(1000 - elapsed_ms // 60, 500)
            room.answered += 1
            ack = {
                "t": "ack",
                "id": message["id"],
                "question": message["question"],
                "status": "accepted",
                "elapsed_ms": elapsed_ms,
            }
            room.send(self.connection, orjson.dumps(ack))


def serve_picows(ticks_per_s: float, control: Connection) -> None:
    """Until the control connection ends."""
    import picows
    import uvloop

    allow_files()
    rooms: dict[str, Room] = {}

    def send(connection: Any, payload: bytes) -> None:
        connection.send(picows.WSMsgType.TEXT, payload)

    class Listener(picows.WSListener):
        member: Member | None = None

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type != picows.WSMsgType.TEXT:
                transport.disconnect()
                return
            message = orjson.loads(frame.get_payload_as_memoryview())
            if self.member is None:
                room = rooms.setdefault(message["code"], Room(send))
                self.member = room.join(transport, message)
            else:
                self.member.take(message)

    async def main() -> None:
        server = await picows.ws_create_server(lambda request: Listener(), "127.0.0.1", 0, backlog=4096)
        control.send(Address(server.sockets[0].getsockname()[1]))
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(control.fileno(), over.set)
        ticks = asyncio.create_task(tick()) if ticks_per_s else None
        await over.wait()
        if ticks is not None:
            ticks.cancel()
        os._exit(0)  # thousands of connections need no farewell

    async def tick() -> None:
        while True:
            await asyncio.sleep(1 / ticks_per_s)
            for room in rooms.values():
                room.tick()

    uvloop.run(main())


def serve_loop(control: Connection) -> None:
    """The bare loop."""
    allow_files()
    answer_everything(control)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs. `control` is that of `answer_everything`."""

    port: int
    pid: int
    control: Connection | None = None


@contextmanager
def beside(serve: Callable[[Connection], None]) -> Iterator[Served]:
    """A server in another process during the block."""
    with child(serve) as (control, pid):
        yield Served(control.recv().port, pid, control)


@contextmanager
def node_ws(ticks_per_s: float) -> Iterator[Served]:
    """The room of `ws_room.js` during the block."""
    with subprocess.Popen(
        ["node", str(SCRIPT), str(ticks_per_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield Served(int(process.stdout.readline()), process.pid)
        finally:
            process.kill()


def has_ws() -> bool:
    """Whether Node is there and finds `ws`, which NODE_PATH may name."""
    if shutil.which("node") is None:
        return False
    found = subprocess.run(
        ["node", "-e", "require('ws')"], check=False, capture_output=True, cwd=SCRIPT.parent
    )
    return found.returncode == 0


def missing(name: str) -> str:
    """How to get what the server stands on; empty when it is there."""
    if name == PICOWS and any(find_spec(each) is None for each in ("picows", "uvloop")):
        return "pip install picows uvloop"
    if name == WS and not has_ws():
        return "npm install --prefix DIR ws, and NODE_PATH=DIR/node_modules"
    return ""


def room(name: str, ticks_per_s: float) -> Any:
    """A context manager that gives what is Served."""
    if name == WS:
        return node_ws(ticks_per_s)
    return beside(partial(serve_picows, ticks_per_s) if name == PICOWS else serve_loop)
