"""What one frame to many costs in each dialect: a WebSocket's own, an event stream's, and the two of the hub.

As many subscribers of each kind at one port of the reactor, and in every round one broadcast to each kind.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection

import trio

from bench import wire
from bench.child import child
from bench.fan_out import EVENTS, HELLO, Halfway, board, gate_to, sent
from bench.figures import Costs, Figure
from bench.receivers import Receivers, allow_files, throw_away
from engine.actors import commands
from engine.actors.delivery.fanout import fan_out, in_slices
from engine.actors.delivery.frame import Dialect
from engine.actors.delivery.subscriber import Subscriber
from server.config.config import Config
from server.realtime.reactor.port import hub_binary_frame, hub_text_frame, text_frame
from server.realtime.reactor.transport import ReactorTransport
from server.wire.hub import SHAKEN, completion

SIZES = (500, 4_500)
"""Of each kind: four times 4,500 are about as many files as a process has here."""

ROUNDS = 24

PLAIN, STREAM, JSON, MESSAGEPACK = "WebSocket", "event stream", "hub, JSON", "hub, MessagePack"
CODES = {PLAIN: "000000", STREAM: "000001", JSON: "000002", MESSAGEPACK: "000003"}
"""Each kind watches a session of its own, by which it is told from the others."""

DIALECTS: dict[str, Dialect] = {
    PLAIN: text_frame,
    STREAM: EVENTS,
    JSON: hub_text_frame,
    MESSAGEPACK: hub_binary_frame,
}


class Seats:
    """Seats everybody, by kind."""

    def __init__(self) -> None:
        self.by_code: dict[str, list[Subscriber]] = {code: [] for code in CODES.values()}

    def deliver(self, key: str, command: commands.Command) -> None:
        if isinstance(command, commands.Watch):
            self.by_code[key].append(command.reply)
            command.reply.push(HELLO)


def receive(port: int, count: int, control: Connection) -> None:
    """What the process of the clients does."""
    allow_files()
    joins = wire.client_frame({"t": "join", "code": CODES[PLAIN], "role": "spectator"})
    sockets: list[socket.socket] = wire.open_websockets(port, count, [joins] * count)
    sockets += wire.open_streams(port, count, CODES[STREAM])
    watch = b'{"type":1,"target":"Watch","invocationId":"0","arguments":["%b"]}\x1e'
    asks = b'{"protocol":"json","version":1}\x1e' + watch % CODES[JSON].encode()
    sockets += wire.open_websockets(port, count, [wire.client_bytes(asks)] * count, wire.HUB_REQUEST)
    call = b"\x95\x01\x80\xa10\xa5Watch\x91\xa6" + CODES[MESSAGEPACK].encode()
    asks = b'{"protocol":"messagepack","version":1}\x1e%c%b' % (len(call), call)
    greeting = bytearray(wire.client_bytes(asks))
    greeting[0] = 0x82
    sockets += wire.open_websockets(port, count, [bytes(greeting)] * count, wire.HUB_REQUEST)
    throw_away(sockets, control)


def hello_bytes() -> int:
    """What a client of each kind but the event stream hears on arrival, together."""
    hub = [SHAKEN, completion("0", HELLO.message)]
    frames = [
        (text_frame, HELLO),
        *((dialect, each) for dialect in (hub_text_frame, hub_binary_frame) for each in hub),
    ]
    return sum(len(frame.encoded(dialect)) for dialect, frame in frames)


async def measure(sizes: Sequence[int], rounds: int) -> Costs:
    costs = Costs()
    for size in sizes:
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        port = listener.getsockname()[1]
        seats = Seats()
        config = Config(
            ping_interval_s=3600,
            connections_max=5 * size,
            connections_per_address_max=5 * size,
            event_streams_per_address_max=2 * size,
        )
        transport = ReactorTransport(gate_to(seats), config, Halfway())
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(transport.serve, [listener]))
            with child(receive, port, size) as (control, _):
                listening = Receivers(control)
                await listening.arrived()
                await sent(transport, 6 * size)
                listening.expect(size * hello_bytes())
                await listening.arrived()
                for number in range(rounds):
                    # Each kind goes first in its turn.
                    kinds = list(CODES)
                    for kind in kinds[number % 4 :] + kinds[: number % 4]:
                        await broadcast(costs, kind, seats.by_code[CODES[kind]], transport, listening, number)
            nursery.cancel_scope.cancel()
    return costs


async def broadcast(
    costs: Costs,
    kind: str,
    subscribers: Sequence[Subscriber],
    transport: ReactorTransport,
    listening: Receivers,
    number: int,
) -> None:
    size, seats, frame = len(subscribers), dict.fromkeys(subscribers), board(number)
    target = transport.statistics().frames_out_total + size
    listening.expect(size * len(board(number).encoded(DIALECTS[kind])))
    with costs.cpu_us(kind, size, size):
        await in_slices(fan_out(seats, seats, frame))
        await sent(transport, target)
    await listening.arrived()


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    allow_files()
    costs = trio.run(measure, sizes, rounds)
    return [
        Figure(
            kind,
            f"{size:,} subscribers",
            costs.median(kind, size),
            "µs CPU",
            costs.ratio(kind, size, PLAIN, size),
            PLAIN,
        )
        for kind in CODES
        for size in sizes
    ]
