"""Plays a node's part in a scenario, and says whether a client kept the protocol.

    python run.py resume.json python driver.py
    python run.py resume.json node driver.mjs

The command gets two more words: the address of the API, and the code to join with. It joins as `Ada`, answers
every question with the choice 0, comes back as docs/protocol.md says, and prints why it is over as its last
line. Needs anyio and wsproto.

A scenario is a list of connections, each a list of steps: `at` (the address that the client comes to), `hear`
(members that its next message has; `without` those that it has not), `joined`, `say`, `say_raw`, `ack` (of
the answer heard last), `error` (a code, for the same), `close` (code and reason), `cut`. Pings are answered
by themselves.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage

CODE = "123456"
PATIENCE_S = 40.0
STATE = {
    "phase": "lobby", "locked": False, "approval": False, "title": "A quiz", "language": "en",
    "number": 0, "of": 1, "players": 1, "answered": 0, "now": 1_700_000_000_000,
    "question": None, "reveal": None,
    "leaderboard": {"top": [], "players": 1, "answered": 0}, "podium": None, "you": None,
}  # fmt: skip
JOINED = {
    "t": "joined", "player": 1, "name": "Ada", "token": "T", "session": "S", "code": CODE, "role": "player",
    "state": STATE,
}  # fmt: skip


class Broken(Exception):
    """The client did something else."""


class Server:
    def __init__(self, connections: list[list[dict[str, Any]]]) -> None:
        self.waiting = list(connections)
        self.wrong: list[str] = []
        self.port = 0

    async def serve(self, stream: ByteStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                try:
                    head += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
            target = head.split()[1].decode()
            if target.startswith("/ws"):
                try:
                    await self._play(stream, head, target)
                except Broken as exc:
                    self.wrong.append(str(exc))
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    self.wrong.append("the client went away in the middle of its part")
            else:
                base = f"127.0.0.1:{self.port}"
                place = {"ws_url": f"ws://{base}/ws", "play_url": f"http://{base}", "epoch": 3}
                place |= {"state": STATE, "settings": {}}
                is_get = head.startswith(b"GET")
                refusal = {"error": {"code": "busy", "message": "Not by this way."}}
                body = json.dumps(place if is_get else refusal).encode()
                status = "200 OK" if is_get else "503 Busy"
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
                )
                await stream.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def _play(self, stream: ByteStream, head: bytes, target: str) -> None:
        if not self.waiting:
            raise Broken("one connection too many")
        steps, protocol = self.waiting.pop(0), WSConnection(ConnectionType.SERVER)
        protocol.receive_data(head)
        assert isinstance(next(iter(protocol.events())), Request)
        await stream.send(protocol.send(AcceptConnection(subprotocol="fanfare.v1")))
        heard: dict[str, Any] = {}

        async def say(message: object) -> None:
            await send(TextMessage(json.dumps(message).replace("{port}", str(self.port))))

        async def send(event: Event) -> None:
            await stream.send(protocol.send(event))

        async def hear() -> dict[str, Any]:
            while True:
                for event in protocol.events():
                    if isinstance(event, CloseConnection):
                        raise anyio.EndOfStream
                    if isinstance(event, TextMessage):
                        message = json.loads(event.data)
                        if message["t"] != "ping":
                            return dict(message)
                        await say({"t": "pong", "at": message["at"], "now": STATE["now"]})
                protocol.receive_data(await stream.receive())

        for step in steps:
            (what, value), *_ = step.items()
            if what == "at" and target != value:
                raise Broken(f"it came to {target}, not {value}")
            if what == "hear":
                heard = await hear()
                extra = [name for name in step.get("without", []) if name in heard]
                if extra or any(heard.get(name) != wanted for name, wanted in value.items()):
                    raise Broken(f"it said {heard}, not {step}")
            elif what == "joined":
                await say({**JOINED, **value})
            elif what == "say":
                await say(value)
            elif what == "say_raw":
                await send(TextMessage(value))
            elif what == "ack":
                members = {"id": heard["id"], "question": heard["question"]}
                await say({"t": "ack", **members, "status": "accepted", "elapsed_ms": 5})
            elif what == "error":
                await say({"t": "error", "id": heard["id"], "code": value, "message": "Not now."})
            elif what == "close":
                await send(CloseConnection(*value))
            elif what == "cut":
                return
        with anyio.move_on_after(2), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await stream.receive()


async def run(script: dict[str, Any], command: list[str]) -> list[str]:
    """What was wrong; nothing if all is well."""
    server = Server(script["connections"])
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(listener.serve, server.serve))
        said = b""
        with anyio.move_on_after(PATIENCE_S):
            words = [*command, f"http://127.0.0.1:{server.port}", CODE]
            said = (await anyio.run_process(words, check=False, stderr=None)).stdout
        tasks.cancel_scope.cancel()
    end = (said.decode().split() or ["nothing"])[-1]
    wrong = list(server.wrong)
    if end != script["end"]:
        wrong.append(f"it ended with {end}, not {script['end']}")
    if server.waiting:
        wrong.append(f"{len(server.waiting)} connections did not come")
    return wrong


if __name__ == "__main__":
    found = anyio.run(run, json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:])
    print("\n".join(found) or "ok")
    sys.exit(bool(found))
