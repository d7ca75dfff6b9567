"""One frame to many subscribers by servers that others have written, beside the reactor and a bare loop.

Each server is a process of its own, and its bare loop goes over the very sockets that it has accepted. All
are up at the same time and take turns. What counts is the processor time of the server's process, from the
order until a subscriber has read the last byte, so whatever a library does late or in threads is in it.

The peers are no dependencies of the project. Those that are not installed are left out, and it is said how to
get them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import click
import trio

from bench import wire
from bench.child import child
from bench.fan_out import BARE, FRAME_BYTES, HELLO, Halfway, Seats, at, board, gate_to, sent
from bench.figures import Costs, Figure, process_cpu_s
from bench.receivers import Receivers, accepted_on, allow_files, receivers
from engine.actors.delivery.fanout import fan_out, in_slices
from engine.actors.delivery.frame import Frame
from server.config.config import Config
from server.listening import free_ports
from server.realtime.reactor.transport import ReactorTransport
from server.wire.protocol import encode

SIZES = (5_000, 15_000)
ROUNDS = 8
REACTOR = "reactor"
WALL = "until the last client has it: "


class Orders:
    """The server's end of the control connection. Says where the server listens, and hears what to send.

    Args:
        hello_bytes: what every subscriber is sent on arrival.
    """

    def __init__(self, control: Connection, port: int, hello_bytes: int = 0) -> None:
        self._control = control
        self._port = port
        self._lent = ExitStack()
        self._bare: list[socket.socket] = []
        control.send((port, hello_bytes))

    def fileno(self) -> int:
        return self._control.fileno()

    def next(self) -> bytes | None:
        """What to broadcast; nothing when the bare loop has done it. Raises EOFError at the end."""
        try:
            bare, payload = self._control.recv()
        except EOFError:
            self._lent.close()
            raise
        if not bare:
            return bytes(payload)
        if not self._bare:
            self._bare = self._lent.enter_context(accepted_on(self._port))
        data = wire.server_frame(payload)
        for each in self._bare:
            each.send(data)
        return None


# -- the servers -----------------------------------------------------------------------------------


def serve_reactor(control: Connection) -> None:
    trio.run(_serve_reactor, control)


async def _serve_reactor(control: Connection) -> None:
    seats = Seats()
    listener = socket.create_server(("127.0.0.1", 0))
    transport = ReactorTransport(
        gate_to(seats),
        Config(ping_interval_s=3600, connections_max=20_000, connections_per_address_max=20_000),
        Halfway(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(transport.serve, [listener]))
        hello_bytes = len(wire.server_frame(HELLO.encoded(encode)))
        orders = Orders(control, listener.getsockname()[1], hello_bytes)
        while True:
            await trio.lowlevel.wait_readable(orders.fileno())
            try:
                payload = orders.next()
            except EOFError:
                break
            if payload is not None:
                target = transport.statistics().frames_out_total + len(seats.subscribers)
                seated = dict.fromkeys(seats.subscribers)
                await in_slices(fan_out(seated, seated, Ready(payload)))
                await sent(transport, target)
        nursery.cancel_scope.cancel()


class Ready(Frame):
    """A frame whose payload is there already, as the peers get theirs."""

    def __init__(self, payload: bytes) -> None:
        super().__init__({"t": "leaderboard"})
        self._data = wire.server_frame(payload)

    def encoded(self, dialect: object) -> bytes:
        return self._data


def serve_picows(control: Connection) -> None:
    import picows
    import uvloop

    connected: list[Any] = []

    class Spectator(picows.WSListener):
        def on_ws_connected(self, transport: Any) -> None:
            connected.append(transport)

    def broadcast(payload: bytes) -> None:
        for each in connected:
            each.send(picows.WSMsgType.TEXT, payload)

    async def listen() -> int:
        server = await picows.ws_create_server(lambda request: Spectator(), "127.0.0.1", 0, backlog=4096)
        return port_of(server)

    uvloop.run(obey(control, listen, broadcast))


def serve_websockets(control: Connection) -> None:
    import uvloop
    from websockets.asyncio import server as websockets

    servers: list[Any] = []

    def broadcast(payload: bytes) -> None:
        websockets.broadcast(servers[0].connections, payload.decode())

    async def listen() -> int:
        served = await websockets.serve(
            lambda connection: connection.wait_closed(),
            "127.0.0.1",
            0,
            compression=None,
            ping_interval=None,
            backlog=4096,
        )
        servers.append(served)
        return port_of(served)

    uvloop.run(obey(control, listen, broadcast))


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def obey(
    control: Connection, listen: Callable[[], Awaitable[int]], broadcast: Callable[[bytes], object]
) -> None:
    """The life of a server under asyncio. Args: listen: opens it and gives its port."""
    import asyncio

    orders = Orders(control, await listen())
    over = asyncio.get_running_loop().create_future()

    def ready() -> None:
        try:
            payload = orders.next()
        except EOFError:
            over.set_result(None)
            asyncio.get_running_loop().remove_reader(orders.fileno())
            return
        if payload is not None:
            broadcast(payload)

    asyncio.get_running_loop().add_reader(orders.fileno(), ready)
    await over


def serve_socketify(control: Connection) -> None:
    import socketify

    app = socketify.App()
    app.ws(
        "/ws",
        {
            "compression": socketify.CompressOptions.DISABLED,
            "idle_timeout": 0,
            "open": lambda ws: ws.subscribe("all"),
            "message": lambda ws, message, opcode: None,
        },
    )
    ports: list[int] = []
    app.listen(
        socketify.AppListenOptions(port=free_ports(1)[0], host="127.0.0.1"), lambda at: ports.append(at.port)
    )
    orders = Orders(control, ports[0])

    def ready() -> None:
        try:
            payload = orders.next()
        except EOFError:
            os._exit(0)  # its own end waits for the connections
        if payload is not None:
            app.publish("all", payload, socketify.OpCode.TEXT)

    app.loop.loop.add_reader(orders.fileno(), ready)
    app.run()


@dataclass(frozen=True, slots=True)
class Peer:
    """`packages` are what to install for it."""

    serve: Callable[[Connection], None]
    packages: Sequence[str] = ()

    @property
    def missing(self) -> list[str]:
        return [name for name in self.packages if find_spec(name) is None]


PEERS = {
    REACTOR: Peer(serve_reactor),
    "picows, uvloop": Peer(serve_picows, ("picows", "uvloop")),
    "uWebSockets, socketify": Peer(serve_socketify, ("socketify",)),
    "websockets, uvloop": Peer(serve_websockets, ("websockets", "uvloop")),
}


# -- the measurements ------------------------------------------------------------------------------


class Served:
    """A server with its subscribers."""

    def __init__(self, name: str, count: int, pid: int, control: Connection, listening: Receivers) -> None:
        self._name = name
        self._count = count
        self._pid = pid
        self._control = control
        self._listening = listening

    def turn(self, costs: Costs, number: int, *, bare: bool) -> None:
        """One broadcast."""
        what = bare_of(self._name) if bare else self._name
        self._listening.expect(self._count * FRAME_BYTES)
        before_s = process_cpu_s(self._pid)
        started = time.perf_counter()
        self._control.send((bare, board(number).encoded(encode)))
        arrived = self._listening.wait()
        costs.add(what, self._count, (process_cpu_s(self._pid) - before_s) * 1e6 / self._count)
        costs.add(WALL + what, self._count, 1000 * (arrived - started))


def run_server(serve: Callable[[Connection], None], control: Connection) -> None:
    allow_files()
    serve(control)


@contextmanager
def served(name: str, count: int) -> Iterator[Served]:
    """A server and its subscribers, all of whom are there."""
    with child(run_server, PEERS[name].serve) as (control, pid):
        port, hello_bytes = control.recv()
        with receivers(port, count) as listening:
            listening.wait()
            if hello_bytes:
                listening.expect(count * hello_bytes)
                listening.wait()
            yield Served(name, count, pid, control, listening)


def measure(costs: Costs, names: Sequence[str], size: int, rounds: int) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(served(name, size)) for name in names]
        for each in servers:
            each.turn(Costs(), 0, bare=True)  # a first time, which counts for nothing
            each.turn(Costs(), 0, bare=False)
        for number in range(rounds):
            for each in servers:
                each.turn(costs, number, bare=bool(number % 2))
                each.turn(costs, number, bare=not number % 2)


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    allow_files()
    for name, peer in PEERS.items():
        if peer.missing:
            click.echo(f"{name} is left out; for it: pip install {' '.join(peer.missing)}", err=True)
    names = [name for name, peer in PEERS.items() if not peer.missing]
    costs = Costs()
    for size in sizes:
        measure(costs, names, size, rounds)
    return [*_rates(costs, names, sizes), *_walls(costs, names, sizes)]


def _rates(costs: Costs, names: Sequence[str], sizes: Sequence[int]) -> Iterator[Figure]:
    """Frames for a second of the server's processor time. More is better."""
    for size in sizes:
        base = costs.median(bare_of(REACTOR), size)
        yield Figure(BARE, at(size), 1e6 / base, "frames/CPU s", 1.0, "its bare loop")
        for name in names:
            ratio = costs.ratio(bare_of(name), size, name, size)
            yield Figure(
                name, at(size), 1e6 / costs.median(name, size), "frames/CPU s", ratio, "its bare loop"
            )


def _walls(costs: Costs, names: Sequence[str], sizes: Sequence[int]) -> Iterator[Figure]:
    for size in sizes:
        for name in names:
            ratio = costs.ratio(WALL + name, size, WALL + bare_of(name), size)
            yield Figure(name, at(size), costs.median(WALL + name, size), "ms to all", ratio, "its bare loop")


def bare_of(name: str) -> str:
    """The bare loop over the sockets of that server."""
    return f"{BARE}, {name}"
