"""Two servers to compare a node with, each a process of its own: the realtime port over sessions that are
kept in memory only, and a loop that answers every frame and knows nothing."""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from random import Random

import trio

from bench import wire
from bench.child import child
from engine.actors.clock import SessionClock
from engine.actors.options import ActorOptions
from engine.actors.registry import Registry
from engine.domain.quiz import Quiz
from engine.shards.lone_node import lone_router
from engine.shards.router import Router
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from server.realtime.transport import Transport
from server.realtime.trio_websocket import TrioWebSocketTransport
from server.security.limits import Attempts
from server.security.tokens import Tokens
from server.wire.protocol import encode
from tests.fakes import MemoryCatalog, MemoryJournal, MemorySessionStore
from tests.keys import session_id
from tests.settings import at_once

REACTOR = "reactor"
TRIO_WEBSOCKET = "trio-websocket"
TRANSPORTS: Mapping[str, Callable[[ConversationDeps, Config, Random], Transport]] = {
    REACTOR: ReactorTransport,
    TRIO_WEBSOCKET: TrioWebSocketTransport,
}

ACK = wire.server_frame(
    encode({"t": "ack", "id": "a", "question": 1, "status": "accepted", "elapsed_ms": 1234})
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a session is. Without a code there is none."""

    port: int
    code: str = ""
    host_token: str = ""


def answer_everything(control: Connection, reply: bytes = ACK) -> None:
    """Every read is answered with the reply, until the control connection ends. A frame that comes over that
    is sent to everybody, and it is told what that took: processor seconds for each."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    control.send(Address(listener.getsockname()[1]))
    poll = select.epoll()
    for each in (listener, control):
        poll.register(each.fileno(), select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd in clients:
                if clients[fd].recv(4096):
                    clients[fd].send(reply)
                else:
                    poll.unregister(fd)
                    clients.pop(fd).close()
            elif fd == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poll.register(client.fileno(), select.EPOLLIN)
            else:
                try:
                    frame = control.recv()
                except EOFError:
                    return
                started = time.process_time()
                for client in clients.values():
                    client.send(frame)
                control.send((time.process_time() - started) / max(len(clients), 1))


def serve_from_memory(transport: str, quiz: dict[str, object], tick_ms: int, control: Connection) -> None:
    """One session, until the control connection ends."""
    trio.run(_serve_from_memory, transport, Quiz.parse(quiz), tick_ms, control)


def memory_router(
    nursery: trio.Nursery, tokens: Tokens, clock: SessionClock, tick_ms: int
) -> tuple[Router, MemoryCatalog]:
    """Sessions that are stored nowhere, and the quizzes they play."""
    store = MemorySessionStore(MemoryCatalog())
    numbers = itertools.count(1)
    registry = Registry(
        nursery,
        store=store,
        catalog=store.catalog,
        journal=MemoryJournal(store),
        tokens=tokens,
        clock=clock,
        owner="bench",
        options=ActorOptions(tick_ms=tick_ms),
    )
    router = lone_router(
        nursery,
        registry=registry,
        store=store,
        catalog=store.catalog,
        clock=clock,
        me="bench",
        new_id=lambda: session_id(next(numbers)),
        new_code=lambda: f"{next(numbers):06}",
    )
    return router, store.catalog


async def _serve_from_memory(transport: str, quiz: Quiz, tick_ms: int, control: Connection) -> None:
    clock = SessionClock()
    tokens = Tokens(b"a secret for the benchmark", 3600, clock)
    async with trio.open_nursery() as nursery:
        router, catalog = memory_router(nursery, tokens, clock, tick_ms)
        stored = await catalog.add(quiz)
        record = await router.create(stored.id, at_once(early_close=False))
        deps = ConversationDeps(router, tokens, clock, Attempts(1000), 20, 60)
        serving = TRANSPORTS[transport](
            deps,
            Config(ping_interval_s=3600, ping_timeout_s=600, connections_per_address_max=1_000_000),
            Random(1),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        await nursery.start(partial(serving.serve, [listener]))
        host_token = tokens.issue(record.id, "host", None)
        control.send(Address(listener.getsockname()[1], record.code, host_token))
        await trio.lowlevel.wait_readable(control.fileno())
        nursery.cancel_scope.cancel()


@contextmanager
def beside(serve: Callable[[Connection], None]) -> Iterator[tuple[Address, int]]:
    """Run a server in another process during the block. Gives its address and its process id."""
    with child(serve) as (control, pid):
        address = control.recv()
        assert isinstance(address, Address)
        yield address, pid
