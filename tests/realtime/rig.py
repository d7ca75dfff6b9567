"""A node's realtime port over loopback with the real sessions behind it, and clients that talk to it.

Two clients: trio-websocket's, which does everything right, and a raw one, which does as it is told.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from engine.actors.clock import SessionClock
from engine.actors.pacing import Pacing
from engine.actors.registry import Registry
from engine.domain.settings import Settings
from engine.ports import SessionRecord
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.transport import Transport, TransportStatistics
from server.security.identities import open_identities
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.actors.world import QUIZ
from tests.fakes import MemoryCatalog, MemoryJournal, MemorySessionStore
from tests.lone_node import LoneNode, options_of
from tests.messages import check_heard
from tests.settings import at_once

PATIENCE_S = 8.0
"""Longer than anything here takes; a test that waits longer has failed."""

SECRET = b"a secret for these tests"
OTHER_PAGES = ["http://other.example:5001"]
"""Of other nodes."""

MakeTransport = Callable[[ConversationDeps, Config], Transport]


class ClosedBy(Exception):
    """The server ended the connection."""

    def __init__(self, code: int, reason: str | None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Client:
    """A well-behaved client: trio-websocket's."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket
        self.joined: dict[str, Any] = {}
        self._ids = itertools.count(1)

    async def send(self, **message: Any) -> None:
        await self.send_raw(json.dumps(message))

    async def send_raw(self, message: str | bytes) -> None:
        await self.websocket.send_message(message)

    async def receive(self) -> dict[str, Any]:
        """The next message. Raises ClosedBy."""
        with trio.fail_after(PATIENCE_S):
            try:
                message = json.loads(await self.websocket.get_message())
            except ConnectionClosed:
                closed = self.websocket.closed
                raise ClosedBy(*((closed.code, closed.reason) if closed else (1006, None))) from None
        assert isinstance(message, dict)
        check_heard(message)
        return message

    async def expect(self, kind: str) -> dict[str, Any]:
        """The next message of this type; others are passed over."""
        while (message := await self.receive())["t"] != kind:
            pass
        return message

    async def gather(self, *kinds: str) -> dict[str, dict[str, Any]]:
        """The next message of each of these types, in whatever order they come."""
        found: dict[str, dict[str, Any]] = {}
        while len(found) < len(kinds):
            message = await self.receive()
            if message["t"] in kinds:
                found.setdefault(message["t"], message)
        return found

    async def ended(self) -> tuple[int, str | None]:
        """Close code and reason; what comes before is passed over."""
        try:
            while True:
                await self.receive()
        except ClosedBy as closed:
            return closed.code, closed.reason

    async def join(self, code: str, name: str) -> dict[str, Any]:
        await self.send(t="join", code=code, name=name)
        self.joined = await self.expect("joined")
        return self.joined

    async def ping(self) -> None:
        at = next(self._ids)
        await self.send(t="ping", at=at)
        assert (await self.expect("pong"))["at"] == at


@dataclass
class Wire:
    """A frame as it came."""

    opcode: int
    payload: bytes

    @property
    def message(self) -> dict[str, Any]:
        assert self.opcode == 1, self
        data = json.loads(self.payload)
        assert isinstance(data, dict)
        return data

    @property
    def close_code(self) -> int:
        assert self.opcode == 8, self
        return int(struct.unpack("!H", self.payload[:2])[0])


class RawClient:
    """Bytes out, frames in, nothing by itself: no pongs, no answer to a close frame."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_frame(self, payload: bytes, opcode: int = 1, **flags: bool) -> None:
        await self.send(frame(payload, opcode, **flags))

    async def send_message(self, **message: Any) -> None:
        await self.send_frame(json.dumps(message).encode())

    async def head(self) -> bytes:
        """The head of the HTTP answer."""
        return await self._until(b"\r\n\r\n")

    async def response(self) -> tuple[int, bytes]:
        """Status and body of the HTTP answer, up to the end of the connection unless it is a 101."""
        status = int((await self.head()).split()[1])
        return status, b"" if status == 101 else await self.rest()

    async def open(self, *headers: str) -> None:
        await self.send(request(*headers))
        assert (await self.response())[0] == 101

    async def receive_frame(self) -> Wire:
        """The next frame from the server but pings, which come when they like. Raises EOFError at the end."""
        while (wire := await self._next()).opcode == 9:
            pass
        return wire

    async def expect_next(self) -> Wire:
        """The next frame from the server, whatever it is."""
        return await self._next()

    async def expect(self, opcode: int) -> Wire:
        while (wire := await self._next()).opcode != opcode:
            pass
        return wire

    async def _next(self) -> Wire:
        head = await self._take(2)
        length = head[1] & 127
        if length == 126:
            (length,) = struct.unpack("!H", await self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._take(8))
        return Wire(head[0] & 15, await self._take(length))

    async def expect_message(self, kind: str) -> dict[str, Any]:
        while (message := (await self.expect(1)).message)["t"] != kind:
            pass
        return message

    async def rest(self) -> bytes:
        """Everything until the server closes its side."""
        while await self._more():
            pass
        data, self._received = self._received, b""
        return data

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            if not await self._more():
                raise EOFError(self._received)
        head, _, self._received = self._received.partition(mark)
        return head

    async def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            if not await self._more():
                raise EOFError(self._received)
        data, self._received = self._received[:count], self._received[count:]
        return data

    async def _more(self) -> bool:
        with trio.fail_after(PATIENCE_S):
            data = await self.stream.receive_some()
        self._received += data
        return bool(data)


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, masked: bool = True) -> bytes:
    """A client's frame. The mask of zeroes is as good as any to a server."""
    head = bytes([opcode | (0x80 if fin else 0)])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65_536:
        head += struct.pack("!BH", bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", bit | 127, len(payload))
    return head + (bytes(4) if masked else b"") + payload


def request(*headers: str, path: str = "/ws", host: str = "127.0.0.1") -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class ListeningPort:
    """A transport on a port of its own, and raw connections to it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.serving = trio.CancelScope()
        self.stopped = trio.Event()

    @asynccontextmanager
    async def raw(self, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        """A TCP connection, nothing said yet."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        stream = trio.SocketStream(sock)
        try:
            yield RawClient(stream)
        finally:
            await trio.aclose_forcefully(stream)

    @property
    def statistics(self) -> TransportStatistics:
        return self.transport.statistics()

    async def settle(self) -> None:
        """Wait until nothing moves any more: not here, and not on the loopback interface."""
        await trio.testing.wait_all_tasks_blocked(0.01)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until the server's own times have brought something about."""
        with trio.fail_after(PATIENCE_S):
            while not true():
                await self.settle()

    async def until_connections(self, count: int) -> None:
        await self.until(lambda: self.statistics.connections == count)

    async def serve(
        self,
        ssl_context: ssl.SSLContext | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with self.serving:
            await self.transport.serve([self._listener], ssl_context=ssl_context, task_status=task_status)
        self.stopped.set()

    async def stop(self) -> None:
        """Stop serving, and wait until every connection is gone."""
        self.serving.cancel()
        with trio.fail_after(PATIENCE_S):
            await self.stopped.wait()
        assert self.statistics.connections == 0
        assert self.statistics.event_streams == 0


class Rig(ListeningPort):
    """A running port with one session behind it."""

    def __init__(
        self,
        transport: Transport,
        registry: Registry,
        journal: MemoryJournal,
        tokens: Tokens,
        record: SessionRecord,
    ) -> None:
        super().__init__(transport)
        self.registry = registry
        self.journal = journal
        self.tokens = tokens
        self.code = record.code
        self.session_id = record.id
        self.client_ssl: ssl.SSLContext | None = None

    # -- clients ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self, *headers: str, subprotocols: Sequence[str] = ()) -> AsyncIterator[Client]:
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        if self.client_ssl is not None:
            stream = trio.SSLStream(stream, self.client_ssl, server_hostname="localhost")
        lines = [header.encode().split(b": ") for header in headers]
        try:
            async with trio.open_nursery() as library:
                websocket = await wrap_client_stream(
                    library,
                    stream,
                    "127.0.0.1",
                    "/ws",
                    subprotocols=subprotocols,
                    extra_headers=[(name, value) for name, value in lines],
                    message_queue_size=100,
                )
                yield Client(websocket)
                with trio.move_on_after(1):
                    await websocket.aclose()
                library.cancel_scope.cancel()
        except* LocalProtocolError:
            pass  # the library trips over a ping that crosses its own close frame
        finally:
            # The library leaves the socket open when the server was the first to close.
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def player(self, name: str) -> AsyncIterator[Client]:
        async with self.client() as client:
            await client.join(self.code, name)
            yield client

    @asynccontextmanager
    async def host(self) -> AsyncIterator[Client]:
        async with self.client() as client:
            await client.send(t="join", code=self.code, token=self.host_token())
            client.joined = await client.expect("joined")
            yield client

    @asynccontextmanager
    async def opened(self, *headers: str, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        """An open WebSocket."""
        async with self.raw(receive_buffer) as raw:
            await raw.open(*headers)
            yield raw

    @asynccontextmanager
    async def neighbour(self) -> AsyncIterator[None]:
        """A player who must not notice what happens meanwhile: afterwards, everything is answered still."""
        async with self.player("Neighbour") as client:
            yield
            await client.ping()
            await client.send(t="answer", id="n", question=1, choice=0)
            assert (await client.expect("error"))["code"] == "wrong_question"

    def host_token(self) -> str:
        return self.tokens.issue(self.session_id, "host", None)

    def old_token(self, age_s: int) -> str:
        """A host token that was issued so long ago."""
        clock = SessionClock(time.time_ns() // 1_000_000 - age_s * 1000)
        return Tokens(SECRET, 3600, clock).issue(self.session_id, "host", None)

    # -- the server ------------------------------------------------------------------------------

    async def subscribers(self) -> int:
        return (await self.registry.get(self.session_id)).subscribers


@asynccontextmanager
async def rig(
    make_transport: MakeTransport,
    *,
    ssl_context: ssl.SSLContext | None = None,
    patience_s: float = 30,
    session: Settings | None = None,
    clock: SessionClock | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A port with these settings and one session: in its lobby, unless its own settings say otherwise."""
    config = Config(host="127.0.0.1", **settings)
    clock, pacing = clock or SessionClock(), Pacing(stamped=True)
    tokens = Tokens(SECRET, config.token_ttl_s, clock)
    store = MemorySessionStore(MemoryCatalog())
    journal = MemoryJournal(store)
    async with trio.open_nursery() as nursery:
        lone = LoneNode(
            nursery,
            store=store,
            catalog=store.catalog,
            journal=journal,
            tokens=tokens,
            clock=clock,
            options=options_of(config, tick_ms=20),
            pacing=pacing,
        )
        stored = await store.catalog.add(QUIZ)
        record = await lone.router.create(stored.id, session or at_once())
        deps = ConversationDeps(
            sessions=lone.router,
            tokens=tokens,
            clock=clock,
            attempts=Attempts(config.attempts_per_min),
            messages_per_s=config.messages_per_s,
            messages_burst=config.messages_burst,
            pages=lambda: OTHER_PAGES,
            identities=open_identities(config, clock)[0],
            pacing=pacing,
        )
        running = Rig(make_transport(deps, config), lone.registry, journal, tokens, record)
        await nursery.start(running.serve, ssl_context)
        with trio.fail_after(patience_s):
            yield running
        await running.stop()
        nursery.cancel_scope.cancel()
