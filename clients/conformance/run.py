"""Plays a node's part in a scenario, and says whether a client kept the protocol.

    python run.py resume.json python driver.py
    python run.py resume.json node driver.mjs

The command gets two more words: the address of the API, and the code to join with. It joins as `Ada`, prints
`remaining MS` for every question (how much time there is left to answer it) and answers with the choice 0,
comes back as docs/protocol.md says, and prints why it is over as its last line. Where players go at their own
pace it asks for `next` until it is through with every attempt, and leaves. Needs anyio and wsproto.

A scenario is a list of connections, each a list of steps: `at` (the address that the client comes to), `hear`
(members that its next message has; `without` those that it has not), `joined`, `say` (with `late_ms`: the
message was so long on its way), `reply` (the same, with the id of what was heard last), `say_raw`, `ping`
(wait for one), `ack` (of the answer heard last), `error` (a code, for the same), `close` (code and reason),
`cut`. Before them may be `refusals`: status and code of the first answers to `GET /api/sessions/{code}`,
where a client asks for the address of the WebSocket. Pings are answered by themselves. The clock of this node
is years behind.

What the client prints is held against what it can know, and no more time: it has read its clock after the
question was sent and before the answer came here, and has set it after `joined` was sent. So a machine that
is busy widens the bounds by itself, and on one that is not they are some ten milliseconds.

A client of SignalR comes to `/hub` of the same address, without negotiation and with JSON; what is said to
it, and what it says with `send`, are the same messages. `but_signalr` says why a scenario is not for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
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
BEGAN_MS = 1_700_000_000_000
ENDED_FOR_GOOD = {"finished", "kicked", "replaced", "left"}
STATE = {
    "phase": "lobby", "locked": False, "approval": False, "title": "A quiz", "language": "en",
    "number": 0, "of": 1, "players": 1, "answered": 0, "now": BEGAN_MS,
    "question": None, "reveal": None,
    "leaderboard": {"top": [], "players": 1, "answered": 0}, "podium": None, "you": None,
}  # fmt: skip
JOINED = {
    "t": "joined", "player": 1, "name": "Ada", "token": "T", "session": "S", "code": CODE, "role": "player",
    "state": STATE,
}  # fmt: skip


ROUNDING_MS = 1


class Broken(Exception):
    """The client did something else."""


def now_ms() -> int:
    """The clock of this node."""
    return BEGAN_MS + round(anyio.current_time() * 1000)


class Wire:
    """The connection of a client: messages in and out, however they are worded."""

    def __init__(self, stream: ByteStream, head: bytes, port: int) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._protocol.receive_data(head)
        self._port = port
        self._is_hub = head.split()[1].startswith(b"/hub")
        self._heard: list[dict[str, Any]] = []

    async def open(self) -> None:
        assert isinstance(next(iter(self._protocol.events())), Request)
        await self.send(AcceptConnection(subprotocol=None if self._is_hub else "fanfare.v1"))

    async def send(self, event: Event) -> None:
        await self._stream.send(self._protocol.send(event))

    async def say(self, message: dict[str, Any]) -> None:
        body = {"type": 1, "target": message["t"], "arguments": [message]} if self._is_hub else message
        await self.say_raw(json.dumps(body).replace("{port}", str(self._port)) + "\x1e" * self._is_hub)

    async def say_raw(self, text: str) -> None:
        await self.send(TextMessage(text))

    async def close(self, code: int, reason: str) -> None:
        if self._is_hub:
            body = {"type": 7, "error": f"{reason}: .", "allowReconnect": reason not in ENDED_FOR_GOOD}
            await self.say_raw(json.dumps(body) + "\x1e")
        await self.send(CloseConnection(code, reason))

    async def hear(self, *, pings: bool = False) -> dict[str, Any]:
        """The next message; a ping, which is answered, only if it is asked for."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if message["t"] != "ping":
                    return message
                await self.say({"t": "pong", "at": message["at"], "now": now_ms()})
                if pings:
                    return message
            for event in self._protocol.events():
                if isinstance(event, CloseConnection):
                    raise anyio.EndOfStream
                if isinstance(event, TextMessage):
                    await self._take(event.data)
            if not self._heard:
                self._protocol.receive_data(await self._stream.receive())

    async def _take(self, text: str) -> None:
        if not self._is_hub:
            self._heard.append(json.loads(text))
            return
        for part in text.split("\x1e")[:-1]:
            said = json.loads(part)
            if "protocol" in said:
                await self.say_raw("{}\x1e")
            elif said["type"] == 1:
                self._heard.append({"t": said["target"].lower(), **(said["arguments"] or [{}])[0]})


class Countdown:
    """Of a question: what a client that has answered it can have thought to be left of it, in ms."""

    def __init__(self, joined_ms: int, question: dict[str, Any]) -> None:
        self._joined_ms = joined_ms
        self._asked_ms = now_ms()
        self._closes_ms = question["now"] + question["opens_in_ms"] + question["remaining_ms"]
        self._answered_ms: int | None = None

    def answered(self) -> None:
        if self._answered_ms is None:
            self._answered_ms = now_ms()

    def bounds(self) -> tuple[int, int]:
        answered_ms = now_ms() if self._answered_ms is None else self._answered_ms
        error_ms = answered_ms - self._joined_ms + ROUNDING_MS
        return self._closes_ms - answered_ms - error_ms, self._closes_ms - self._asked_ms + error_ms


class Server:
    def __init__(self, connections: list[list[dict[str, Any]]], refusals: list[list[Any]]) -> None:
        self.waiting = list(connections)
        self.refusals = list(refusals)
        self.wrong: list[str] = []
        self.countdowns: list[Countdown] = []
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
            if target.startswith(("/ws", "/hub")):
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
                refused = [503, "busy"] if not is_get else self.refusals.pop(0) if self.refusals else None
                refusal = refused and {"error": {"code": refused[1], "message": "Not now."}}
                body = json.dumps(refusal or place).encode()
                status = f"{refused[0]} Refused" if refused else "200 OK"
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
                )
                await stream.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def _play(self, stream: ByteStream, head: bytes, target: str) -> None:
        if not self.waiting:
            raise Broken("one connection too many")
        steps, wire = self.waiting.pop(0), Wire(stream, head, self.port)
        await wire.open()
        heard: dict[str, Any] = {}
        joined_ms = now_ms()
        for step in steps:
            (what, value), *_ = step.items()
            if what == "at" and target != value:
                raise Broken(f"it came to {target}, not {value}")
            if what == "hear":
                heard = await wire.hear()
                if heard["t"] == "answer" and self.countdowns:
                    self.countdowns[-1].answered()
                extra = [name for name in step.get("without", []) if name in heard]
                if extra or any(heard.get(name) != wanted for name, wanted in value.items()):
                    raise Broken(f"it said {heard}, not {step}")
            elif what == "joined":
                joined_ms = now_ms()
                state = value.get("state", {})
                if state is not None:
                    state = {**STATE, "now": joined_ms - step.get("late_ms", 0), **state}
                await wire.say({**JOINED, **value, "state": state})
            elif what in ("say", "reply"):
                if what == "reply":
                    value = {**value, "id": heard.get("id")}
                now = {"now": now_ms() - step.get("late_ms", 0)} if "now" in value else {}
                if value["t"] == "question":
                    self.countdowns.append(Countdown(joined_ms, {**value, **now}))
                await wire.say({**value, **now})
            elif what == "say_raw":
                await wire.say_raw(value)
            elif what == "ping":
                await wire.hear(pings=True)
            elif what == "ack":
                members = {"id": heard["id"], "question": heard["question"]}
                await wire.say({"t": "ack", **members, "status": "accepted", "elapsed_ms": 5})
            elif what == "error":
                await wire.say({"t": "error", "id": heard["id"], "code": value, "message": "Not now."})
            elif what == "close":
                await wire.close(*value)
            elif what == "cut":
                return
        with anyio.move_on_after(2), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await stream.receive()


async def by_command(*words: str) -> str:
    """What a client prints that is a process of its own."""
    return (await anyio.run_process(words, check=False, stderr=None)).stdout.decode()


async def run(script: dict[str, Any], client: Callable[[str, str], Awaitable[str]]) -> list[str]:
    """What was wrong; nothing if all is well. `client` gets the address and the code, and returns what it
    would print."""
    server = Server(script["connections"], script.get("refusals", []))
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        server.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(partial(listener.serve, server.serve))
        said = ""
        with anyio.move_on_after(PATIENCE_S):
            said = await client(f"http://127.0.0.1:{server.port}", CODE)
        tasks.cancel_scope.cancel()
    end = (said.split() or ["nothing"])[-1]
    wrong = list(server.wrong)
    told = [float(line.split()[1]) for line in said.splitlines() if line.startswith("remaining ")]
    bounds = [countdown.bounds() for countdown in server.countdowns]
    if len(told) != len(bounds) or not all(
        least <= each <= most for each, (least, most) in zip(told, bounds, strict=True)
    ):
        wrong.append(f"it had {told} ms left, and should have had {bounds}")
    if end != script["end"]:
        wrong.append(f"it ended with {end}, not {script['end']}")
    if server.waiting:
        wrong.append(f"{len(server.waiting)} connections did not come")
    return wrong


if __name__ == "__main__":
    found = anyio.run(run, json.loads(Path(sys.argv[1]).read_text()), partial(by_command, *sys.argv[2:]))
    print("\n".join(found) or "ok")
    sys.exit(bool(found))
