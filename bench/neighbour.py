"""A well-behaved neighbour: a small session whose players answer all the time, in a process of its own, and
write down how long each ack takes, and what was acknowledged.

A sample begins when an answer was due to be sent, not when it could be: whoever waits for a connection waits
for an ack. Four kinds of neighbour are told apart: players on WebSockets; players who answer over HTTP on the
realtime port, and on the API's; and newcomers, each of whom opens a connection and wants to be let in.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import orjson
import trio

from bench import wire
from bench.child import child
from engine.websocket import CLOSE, PING, PONG, TEXT, FramingError, Parser, encode_frame, read_close
from tests.settings import AT_ONCE

WEBSOCKET, HTTP, API, NEWCOMER = "WebSocket", "HTTP, realtime port", "HTTP, API port", "newcomer"
KINDS = (WEBSOCKET, HTTP, API, NEWCOMER)
PLAYERS = 16
REQUESTERS = 2
"""For each of the two ports."""

QUESTIONS = 200
ANSWER_EVERY_S = 0.2
NEWCOMER_EVERY_S = 0.5
CLOSE_TO_THE_END_S = 0.2
"""Who would answer so shortly before the end of a question waits for the next one."""

PATIENCE_S = 10.0
"""For one reply. Then the connection is given up."""

AGAIN_S = 0.2
_MASK = b"\0\0\0\0"


def quiz(question_s: float = 1.0) -> dict[str, Any]:
    """As many questions as there may be."""
    asked = {
        "type": "single",
        "text": "Which one?",
        "choices": ["a", "b", "c", "d"],
        "correct": "a",
        "time_limit_s": question_s,
    }
    return {"title": "Neighbour", "questions": [asked] * QUESTIONS}


SETTINGS = {**AT_ONCE, "pace": "auto", "reveal_ms": 200, "early_close": False}


@dataclass
class Heard:
    """What happened since the last time it was asked.

    Args:
        waits_ms: by kind, of each answer that got its ack and each newcomer who was let in; of who still
            waits, until now.
        lost: connections that ended without the neighbour's doing, by kind.
        refused: by error code or what else was said instead.
    """

    waits_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the session is."""

    http_port: int
    realtime_port: int
    code: str


CompactLedger = dict[tuple[int, int], int]
"""By player and question, the time of the first ack."""


class _Session:
    """What all players of it have in common."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.heard = Heard()
        self.ledger: CompactLedger = {}
        self.waiting: dict[tuple[str, int], float] = {}
        """Who waits for a reply, and since when."""
        self.number = 0
        self.open_until = 0.0

    def ask(self) -> Heard:
        now = trio.current_time()
        told, self.heard = self.heard, Heard()
        for (kind, _), since in self.waiting.items():
            if now - since > 2 * ANSWER_EVERY_S:
                told.waits_ms[kind].append(1000 * (now - since))
        return told

    def may_answer(self) -> bool:
        return trio.current_time() < self.open_until - CLOSE_TO_THE_END_S

    def follow(self, message: dict[str, Any]) -> None:
        question = (message.get("state") or {}).get("question") if message["t"] == "joined" else None
        if message["t"] == "question":
            question = message
        if question and question["remaining_ms"] is not None and question["number"] > self.number:
            self.number = question["number"]
            self.open_until = trio.current_time() + question["remaining_ms"] / 1000

    def acked(self, player: int, message: dict[str, Any]) -> None:
        if message["status"] == "accepted":
            self.ledger.setdefault((player, message["question"]), message["elapsed_ms"])

    @contextmanager
    def wait_of(self, kind: str, who: int) -> Iterator[None]:
        """A wait that counts if the block is left in good order."""
        since = self.waiting.setdefault((kind, who), trio.current_time())
        yield
        del self.waiting[kind, who]
        self.heard.waits_ms[kind].append(1000 * (trio.current_time() - since))


class _Refused(Exception):
    """Not what was hoped for, and the connection goes on."""


class Socket:
    """One WebSocket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._parser = Parser(masked=False, message_bytes_max=1 << 20)
        self._ready: list[dict[str, Any]] = []
        self.closed: int | None = None
        """The code of the close frame that has come."""
        self._sending = trio.Lock()

    @classmethod
    async def open(cls, port: int) -> Socket:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        made = cls(stream)
        await stream.send_all(wire.REQUEST)
        head = b""
        while b"\r\n\r\n" not in head:
            part = await stream.receive_some(65_536)
            if not part:
                raise trio.BrokenResourceError
            head += part
        if not head.startswith(b"HTTP/1.1 101"):
            raise trio.BrokenResourceError
        await made._take(head.partition(b"\r\n\r\n")[2])
        return made

    async def say(self, message: dict[str, object]) -> None:
        await self._send(wire.client_frame(message))

    async def _send(self, frame: bytes) -> None:
        """A pong may be due while something is said."""
        async with self._sending:
            await self._stream.send_all(frame)

    async def hear(self) -> dict[str, Any]:
        while not self._ready:
            data = await self._stream.receive_some(65_536)
            if not data:
                raise trio.BrokenResourceError
            await self._take(data)
        return self._ready.pop(0)

    async def _take(self, data: bytes) -> None:
        if not data:
            return
        self._parser.feed(data)
        while (event := self._parser.next_event()) is not None:
            if event.opcode == PING:
                await self._send(encode_frame(PONG, event.payload, mask=_MASK))
            elif event.opcode == CLOSE:
                self.closed = read_close(event.payload).code
            elif event.opcode == TEXT:
                self._ready.append(orjson.loads(event.payload))

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


async def _player(session: _Session, who: int) -> None:
    """One on a WebSocket. Comes back for as long as it takes."""
    greeting: dict[str, object] = {"t": "join", "code": session.place.code, "name": f"Neighbour {who}"}
    me: dict[str, int] = {}
    while True:
        with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, FramingError, _Refused):
            with trio.fail_after(PATIENCE_S):
                socket = await Socket.open(session.place.realtime_port)
            try:
                await socket.say(greeting)
                with trio.fail_after(PATIENCE_S):
                    told = await _until(session, socket, "joined")
                greeting = {"t": "join", "code": session.place.code, "token": told["token"]}
                me["player"] = told["player"]
                await _answer_on(session, socket, who, me["player"])
            finally:
                await socket.aclose()
        session.heard.lost[WEBSOCKET] += 1
        await trio.sleep(AGAIN_S)


async def _until(session: _Session, socket: Socket, kind: str) -> dict[str, Any]:
    while True:
        message = await socket.hear()
        session.follow(message)
        if message["t"] == kind:
            return message
        if message["t"] == "error":
            session.heard.refused[message["code"]] += 1
            raise _Refused


async def _answer_on(session: _Session, socket: Socket, who: int, player: int) -> None:
    due = trio.current_time() + ANSWER_EVERY_S * who / PLAYERS
    while True:
        while (now := trio.current_time()) < due or not session.may_answer():
            with trio.move_on_after(max(due - now, 0.02)):
                session.follow(await socket.hear())
        due = max(due + ANSWER_EVERY_S, trio.current_time())
        with suppress(_Refused), session.wait_of(WEBSOCKET, who):
            choice = player % 4
            await socket.say({"t": "answer", "id": "a", "question": session.number, "choice": choice})
            with trio.fail_after(PATIENCE_S):
                session.acked(player, await _until(session, socket, "ack"))
        session.waiting.pop((WEBSOCKET, who), None)


async def _requester(session: _Session, kind: str, who: int) -> None:
    """One who answers over HTTP, on a connection that is kept."""
    place = session.place
    port = place.http_port if kind == API else place.realtime_port
    name = orjson.dumps({"name": f"Requester {kind[6:9]} {who}"})
    joined: dict[str, Any] = {}
    while True:
        with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, _Refused):
            if not joined:
                joined = await _join(session, name)
            with trio.fail_after(PATIENCE_S):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            try:
                await _request_on(session, stream, kind, who, joined)
            finally:
                await trio.aclose_forcefully(stream)
        session.heard.lost[kind] += 1
        await trio.sleep(AGAIN_S)


async def _join(session: _Session, name: bytes) -> dict[str, Any]:
    with trio.fail_after(PATIENCE_S):
        stream = await trio.open_tcp_stream("127.0.0.1", session.place.http_port)
    try:
        target = f"/api/sessions/{session.place.code}/players"
        return await _ask(session, stream, wire.http_request(b"POST", target, None, name))
    finally:
        await trio.aclose_forcefully(stream)


async def _request_on(
    session: _Session, stream: trio.SocketStream, kind: str, who: int, joined: dict[str, Any]
) -> None:
    target = f"/api/sessions/{session.place.code}/answers"
    headers = {"Authorization": f"Bearer {joined['token']}"}
    due = trio.current_time()
    while True:
        await trio.sleep_until(due)
        while not session.may_answer():  # noqa: ASYNC110 - it is told by others' connections
            await trio.sleep(0.02)
        due = max(due + ANSWER_EVERY_S, trio.current_time())
        choice = joined["player_id"] % 4
        body = orjson.dumps({"id": "a", "question": session.number, "choice": choice})
        with suppress(_Refused), session.wait_of(kind, who):
            told = await _ask(session, stream, wire.http_request(b"POST", target, headers, body))
            session.acked(joined["player_id"], told)
        session.waiting.pop((kind, who), None)


async def _ask(session: _Session, stream: trio.SocketStream, request: bytes) -> dict[str, Any]:
    """The JSON of the answer. Raises _Refused when it is an error."""
    await stream.send_all(request)
    heard = b""
    with trio.fail_after(PATIENCE_S):
        while True:
            head, found, body = heard.partition(b"\r\n\r\n")
            if found:
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                if len(body) >= length:
                    break
            part = await stream.receive_some(65_536)
            if not part:
                raise trio.BrokenResourceError
            heard += part
    told: dict[str, Any] = orjson.loads(body)
    if "error" in told:
        session.heard.refused[told["error"]["code"]] += 1
        raise _Refused
    return told


async def _newcomers(session: _Session) -> None:
    """One after the other opens a connection and wants to watch."""
    due = trio.current_time()
    while True:
        await trio.sleep_until(due)
        due = max(due + NEWCOMER_EVERY_S, trio.current_time())
        with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError, FramingError, _Refused):
            with session.wait_of(NEWCOMER, 0), trio.fail_after(PATIENCE_S):
                socket = await Socket.open(session.place.realtime_port)
                try:
                    await socket.say({"t": "join", "code": session.place.code, "role": "spectator"})
                    await _until(session, socket, "joined")
                finally:
                    await socket.aclose()
            continue
        session.heard.lost[NEWCOMER] += 1
        await trio.sleep(AGAIN_S)


async def _serve(place: Place, control: Connection) -> None:
    session = _Session(place)
    async with trio.open_nursery() as nursery:
        for who in range(PLAYERS):
            nursery.start_soon(_player, session, who)
        for who in range(REQUESTERS):
            nursery.start_soon(_requester, session, HTTP, who)
            nursery.start_soon(_requester, session, API, who)
        nursery.start_soon(_newcomers, session)
        while True:
            await trio.lowlevel.wait_readable(control.fileno())
            try:
                asked = control.recv()
            except EOFError:
                break
            control.send(session.ask() if asked == "heard" else session.ledger)
        nursery.cancel_scope.cancel()


def _run(place: Place, cpu: int | None, control: Connection) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    trio.run(_serve, place, control)


class Neighbour:
    """From outside. Both calls block for a moment."""

    def __init__(self, control: Connection) -> None:
        self._control = control

    def heard(self) -> Heard:
        """Since it was asked last."""
        return self._ask("heard")

    def ledger(self) -> CompactLedger:
        """All that was acknowledged so far."""
        return self._ask("ledger")

    def _ask(self, what: str) -> Any:
        self._control.send(what)
        return self._control.recv()


@contextmanager
def neighbour(place: Place, cpu: int | None = None) -> Iterator[Neighbour]:
    """Plays while the block runs.

    Args:
        cpu: the only one that it may use; None: any.
    """
    with child(_run, place, cpu, patience_s=5.0) as (control, _):
        yield Neighbour(control)
