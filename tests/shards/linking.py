"""Two nodes with a link between them, and what their sessions and clients would be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import orjson
import trio
import trio.testing
from trio_websocket import WebSocketConnection, wrap_client_stream

from engine.actors import commands
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach
from engine.actors.delivery.frame import Frame
from engine.shards.link.auth import ClientProof, link_key
from engine.shards.link.listener import LinkListener
from engine.shards.link.pool import LinkPool
from engine.shards.ports import Links, Member
from tests.fakes import MemoryLinks

SECRET = b"a secret of the cluster"
NEAR, FAR = "run-near", "run-far"
PATIENCE_S = 8.0
"""Longer than anything here takes; a test that waits longer has failed."""


def member(run: str = FAR, link_url: str = "ws://far.invalid:5003") -> Member:
    return Member(
        name=f"node of {run}",
        run=run,
        role="both",
        weight=1,
        http_url="",
        ws_url="",
        play_url="",
        link_url=link_url,
        version="1",
        started_at=0,
    )


class _Changing:
    """Wakes those who wait for something to be so."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, so: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not so():
                await self._changed.wait()


class Client(_Changing):
    """A subscriber that remembers what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Mapping[str, object]] = []
        self.close_reasons: list[CloseReason] = []

    def push(self, frame: Frame) -> None:
        self.messages.append(frame.message)
        self.changed()

    def close(self, close_reason: CloseReason) -> None:
        self.close_reasons.append(close_reason)
        self.changed()

    async def heard(self, count: int) -> list[Mapping[str, object]]:
        await self.until(lambda: len(self.messages) >= count)
        return self.messages

    async def ended(self) -> CloseReason:
        await self.until(lambda: bool(self.close_reasons))
        (close_reason,) = self.close_reasons
        return close_reason


def answer(client: Client, number: int = 1) -> commands.Answer:
    return commands.Answer(client, 7, f"a{number}", number, ["choice"], 1000 + number)


def acked(command: Command) -> None:
    """Answers at once."""
    if isinstance(command, commands.Answer):
        command.reply.push(Frame({"t": "ack", "id": command.id}))


class Sessions(_Changing):
    """What a node does for the others. `do` is called with every command; by default nothing is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[Command] = []
        self.session_ids: list[str] = []
        self.do: Callable[[Command], None] = lambda command: None
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.asked = 0

    def deliver(self, session_id: str, command: Command) -> None:
        self.session_ids.append(session_id)
        self.commands.append(command)
        self.changed()
        self.do(command)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        self.asked += 1
        self.changed()
        await self.may_answer.wait()
        if "fail" in request:
            raise RuntimeError("as it was asked to")
        return {"to": request}

    async def got(self, count: int) -> list[Command]:
        await self.until(lambda: len(self.commands) >= count)
        return self.commands

    def detached(self) -> list[object]:
        return [each.reply for each in self.commands if isinstance(each, Detach)]


@dataclass
class Pair:
    """`lose` takes the far node away, `find` brings it back."""

    links: Links
    sessions: Sessions
    member: Member
    lose: Callable[[], None]
    find: Callable[[], None]


@asynccontextmanager
async def over_memory(nursery: trio.Nursery) -> AsyncIterator[Pair]:
    network = MemoryLinks(nursery)
    sessions = Sessions()
    links = network.node(NEAR, Sessions())

    def find() -> None:
        network.node(FAR, sessions)

    find()
    yield Pair(links, sessions, member(), partial(network.lose, FAR), find)


@asynccontextmanager
async def over_streams(nursery: trio.Nursery) -> AsyncIterator[Pair]:
    """The real ends, and no network."""
    sessions = Sessions()
    server = LinkListener(FAR, SECRET, sessions)
    here = True
    connections: list[trio.CancelScope] = []

    async def attend(stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope:
            connections.append(scope)
            await server.attend(stream)

    async def dial(url: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not here:
            raise OSError("nobody there")
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(attend, theirs)
        return ours

    def lose() -> None:
        nonlocal here
        here = False
        while connections:
            connections.pop().cancel()

    def find() -> None:
        nonlocal here
        here = True

    links = LinkPool(NEAR, SECRET, open=dial)
    await nursery.start(links.run)
    yield Pair(links, sessions, member(), lose, find)


@asynccontextmanager
async def over_sockets(nursery: trio.Nursery) -> AsyncIterator[Pair]:
    sessions = Sessions()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
    scope = trio.CancelScope()

    async def serve(again: socket.socket) -> None:
        with again, scope:
            await LinkListener(FAR, SECRET, sessions).serve([again])

    def find() -> None:
        nonlocal scope
        scope = trio.CancelScope()
        nursery.start_soon(serve, bound_to(address))

    def lose() -> None:
        scope.cancel()

    find()
    links = LinkPool(NEAR, SECRET)
    await nursery.start(links.run)
    yield Pair(links, sessions, member(link_url=f"ws://127.0.0.1:{address[1]}"), lose, find)


def bound_to(address: tuple[str, int]) -> socket.socket:
    """Listens from now on, so that nobody is turned away before a server has begun."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    listening.listen()
    return listening


class Peer:
    """The near end of a link by hand."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket

    async def say(self, *entries: object) -> None:
        await self.websocket.send_message(orjson.dumps(entries))

    async def hear(self) -> list[object]:
        """The next batch."""
        with trio.fail_after(PATIENCE_S):
            batch = orjson.loads(await self.websocket.get_message())
        assert isinstance(batch, list)
        return batch


async def connected(nursery: trio.Nursery, stream: trio.abc.Stream) -> WebSocketConnection:
    return await wrap_client_stream(nursery, stream, "far", "/link", max_message_size=1 << 20)  # type: ignore[arg-type]  # it takes any stream


async def proven(nursery: trio.Nursery, stream: trio.abc.Stream) -> Peer:
    """A peer that has the secret."""
    websocket = await connected(nursery, stream)
    proof = ClientProof(link_key(SECRET), NEAR, FAR, bytes(32))
    await websocket.send_message(proof.respond(await websocket.get_message()))
    proof.confirm(await websocket.get_message())
    return Peer(websocket)
