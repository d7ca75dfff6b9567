"""What connections cost: a handshake, an idle connection, a player who has joined. For both transports. And a
spectator, on a WebSocket of the reactor and on an event stream.

The server is a process of its own, and so are the clients. Memory is counted apart: what the server's process
has grown by, and what the kernel has for both ends of the loopback connections. The bytes of an idle
connection are those of an open WebSocket on which nobody has joined.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import trio

from bench import wire
from bench.child import child
from bench.figures import Figure, process_cpu_s
from bench.memory_node import memory_router
from bench.receivers import allow_files
from engine.actors.clock import SessionClock
from engine.domain.quiz import Quiz
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from server.realtime.transport import Transport
from server.realtime.trio_websocket import TrioWebSocketTransport
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.settings import at_once

COUNTS = {"reactor": 10_000, "trio-websocket": 2_000}
"""Connections, of each kind: fewer where one costs much."""

WARM = 200
"""Connections that come and go before anything is counted."""

TRANSPORTS: dict[str, Callable[[ConversationDeps, Config], Transport]] = {
    "reactor": ReactorTransport,
    "trio-websocket": TrioWebSocketTransport,
}
QUIZ: dict[str, object] = {
    "title": "Bench",
    "questions": [{"type": "true_false", "text": "Sure?", "correct": True}],
}


def serve(name: str, count: int, control: Connection) -> None:
    """A realtime port over one session in memory. Says its port and the session's code; asked for anything,
    collects garbage and says so, until the control connection ends."""
    allow_files()
    trio.run(_serve, name, count, control)


async def _serve(name: str, count: int, control: Connection) -> None:
    clock = SessionClock()
    tokens = Tokens(b"a secret for the benchmark", 3600, clock)
    async with trio.open_nursery() as nursery:
        router, catalog = memory_router(nursery, tokens, clock, tick_ms=10_000)
        stored = await catalog.add(Quiz.parse(QUIZ))
        record = await router.create(stored.id, at_once(player_limit=count))
        deps = ConversationDeps(router, tokens, clock, Attempts(1000), 20, 60)
        config = Config(
            connections_per_address_max=1_000_000,
            event_streams_per_address_max=1_000_000,
            ping_interval_s=3600,
            ping_timeout_s=600,
            join_timeout_s=600,
            connections_max=3 * count,
        )
        transport = TRANSPORTS[name](deps, config)
        listener = socket.create_server(("127.0.0.1", 0))
        await nursery.start(partial(transport.serve, [listener]))
        control.send((listener.getsockname()[1], record.code))
        while True:
            await trio.lowlevel.wait_readable(control.fileno())
            try:
                control.recv()
            except EOFError:
                break
            gc.collect()
            control.send(None)
        nursery.cancel_scope.cancel()


class Server:
    """The server's process, as seen from outside."""

    def __init__(self, pid: int, control: Connection) -> None:
        self._process = psutil.Process(pid)
        self._control = control
        self.pid = pid
        self.port, self.code = control.recv()

    def memory(self) -> tuple[int, int]:
        """Bytes of the process and of the kernel, without garbage."""
        self._control.send(None)
        self._control.recv()
        return self._process.memory_info().rss, _kernel_bytes()

    def cpu_s(self) -> float:
        return process_cpu_s(self.pid)


def _kernel_bytes() -> int:
    """Slabs, and pages of sockets' buffers."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
    sockstat = Path("/proc/net/sockstat").read_text("utf-8").splitlines()
    pages = next(int(line.split()[-1]) for line in sockstat if line.startswith("TCP:"))
    return int(meminfo["Slab"].split()[0]) * 1024 + pages * 4096


@contextmanager
def serving(name: str, count: int) -> Iterator[Server]:
    with child(serve, name, count, patience_s=20.0) as (control, pid):
        yield Server(pid, control)


def hear(sockets: list[socket.socket], mark: bytes) -> None:
    """Until everyone has been sent the mark."""
    for each in sockets:
        heard = b""
        while mark not in heard:
            part = each.recv(65_536)
            if not part:
                raise ConnectionError(f"closed after {heard!r}")
            heard += part


def warmed_up(server: Server, open_some: Callable[[], list[socket.socket]]) -> tuple[int, int]:
    """The memory of a server that has had connections: imports and arenas are there."""
    for each in open_some():
        each.close()
    time.sleep(0.5)
    return server.memory()


def measure(name: str, count: int) -> Iterator[Figure]:
    at = f"{count:,} connections"
    with serving(name, count) as server:
        empty = warmed_up(server, lambda: wire.open_websockets(server.port, WARM, [b""] * WARM))
        started_s = server.cpu_s()
        sockets = wire.open_websockets(server.port, count, [b""] * count)
        handshake_s = (server.cpu_s() - started_s) / count
        idle = server.memory()
        started_s = server.cpu_s()
        for number, each in enumerate(sockets):
            each.sendall(wire.client_frame({"t": "join", "code": server.code, "name": f"Player {number}"}))
        hear(sockets, b'"t":"joined"')
        join_s = (server.cpu_s() - started_s) / count
        joined = server.memory()
        for each in sockets:
            each.close()
    yield Figure(f"{name}, handshake", at, handshake_s * 1e6, "µs CPU")
    yield Figure(f"{name}, handshakes of one core", at, 1 / handshake_s, "a second")
    yield Figure(f"{name}, join", at, join_s * 1e6, "µs CPU")
    yield Figure(f"{name}, joins of one core", at, 1 / join_s, "a second")
    for place, what in enumerate(("process", "kernel, both ends")):
        yield Figure(f"{name}, idle: {what}", at, (idle[place] - empty[place]) / count / 1024, "KiB")
        yield Figure(f"{name}, joined: {what}", at, (joined[place] - empty[place]) / count / 1024, "KiB")


def spectate_on_websockets(server: Server, count: int) -> list[socket.socket]:
    greeting = wire.client_frame({"t": "join", "code": server.code, "role": "spectator"})
    sockets = wire.open_websockets(server.port, count, [greeting] * count)
    hear(sockets, b'"t":"joined"')
    return sockets


def spectate_on_streams(server: Server, count: int) -> list[socket.socket]:
    return wire.open_streams(server.port, count, server.code)


def measure_spectators(count: int) -> Iterator[Figure]:
    """Each kind on a server of its own: what one leaves to the allocator would hide what the next takes."""
    at = f"{count:,} connections"
    kinds = {"WebSocket": spectate_on_websockets, "event stream": spectate_on_streams}
    costs: dict[str, tuple[float, ...]] = {}
    for kind, spectate in kinds.items():
        with serving("reactor", count) as server:
            empty = warmed_up(server, partial(spectate, server, WARM))
            started_s = server.cpu_s()
            sockets = spectate(server, count)
            cpu_us = (server.cpu_s() - started_s) * 1e6 / count
            full = server.memory()
            for each in sockets:
                each.close()
        costs[kind] = (cpu_us, *((full[place] - empty[place]) / count / 1024 for place in range(2)))
    for place, (what, unit) in enumerate(
        (("opened", "µs CPU"), ("process", "KiB"), ("kernel, both ends", "KiB"))
    ):
        for kind in kinds:
            value, base = costs[kind][place], costs["WebSocket"][place]
            yield Figure(f"spectator, {kind}: {what}", at, value, unit, value / base, "WebSocket")


def run() -> list[Figure]:
    allow_files()
    figures = [figure for name, count in COUNTS.items() for figure in measure(name, count)]
    return [*figures, *measure_spectators(COUNTS["reactor"])]
