"""What one frame to many subscribers costs the sending process, against the least that it can cost.

The least is a loop of non-blocking sends of the same bytes in the same round, over the very sockets that the
transport holds. All connections are real ones over loopback; a second process reads them and throws away what
comes.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import trio

from bench import wire
from bench.figures import Costs, Figure
from bench.leaderboard import played
from bench.memory_node import REACTOR, TRANSPORTS, TRIO_WEBSOCKET
from bench.receivers import Receivers, accepted_on, allow_files, receivers
from engine.actors import commands, messages
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.fanout import fan_out, fan_out_each, in_slices
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.outbox import Outbox
from engine.actors.delivery.subscriber import Subscriber
from server.config.config import Config
from server.realtime.conversation import Conversation, ConversationDeps
from server.realtime.transport import Transport
from server.security.limits import Attempts
from server.security.tokens import Tokens
from server.wire.protocol import encode
from server.wire.sse import EventDialect

SIZES = (500, 2_000, 5_000, 15_000)
ROUNDS = 8
TASKS_MAX, TASK_ROUNDS_MAX = 5_000, 4
"""Subscribers and rounds of the transport with a task for each: a single broadcast takes seconds there."""

EVENTS = EventDialect(1)
STREAMS_MAX = 5_000
"""Event streams beside as many WebSockets: more are more files than a process may have."""

FRAME_BYTES = 400
"""On the wire, the four bytes of the frame's head included."""

HELLO = Frame(
    {
        "t": "joined",
        "session": "bench",
        "code": "000000",
        "role": "spectator",
        "player": None,
        "state": None,
        "epoch": 1,
    }
)
"""Short: what a client gets on arrival is not measured here."""

USUAL = gc.get_threshold()
RARE = (50_000, 5, 4)
"""Thresholds of the garbage collector under which it does not run in the middle of a broadcast. A task for
each connection gives it 200 objects a connection to look at, and every broadcast sets it going."""

BARE = "bare loop of sends"
NOBODY = "engine, subscribers that do nothing"
OUTBOX = "engine, outboxes"
CONVERSATION = "engine, conversations, outboxes"
RESULTS = "engine, a result for each"
STREAMS = "reactor, event streams"
RARELY = ", collections rare"
WALL = "until the last client has it: "
HOLD = "longest wait of another task: "


def board(offset: int) -> Frame:
    """A leaderboard of FRAME_BYTES on the wire, new each time so that it has to be encoded."""
    top = [{"rank": n, "id": 1000 + n, "name": f"Player {n}", "score": 9000 - n} for n in range(1, 7)]
    message = {"t": "leaderboard", "offset": 100_000 + offset, "top": top, "players": 5000, "tick_ms": 250}
    missing = FRAME_BYTES - len(wire.server_frame(encode(message)))
    top[0]["name"] = "Player 1" + "!" * missing
    return Frame(message)


# -- who sends -------------------------------------------------------------------------------------


class Seats:
    """Instead of the sessions: seats everyone and keeps the subscribers, as an actor does."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []

    def deliver(self, key: str, command: commands.Command) -> None:
        if isinstance(command, commands.Watch):
            self.subscribers.append(command.reply)
            command.reply.push(HELLO)


class Nobody:
    def push(self, frame: Frame) -> None:
        pass

    def close(self, close_reason: CloseReason) -> None:
        pass


class Box:
    """A subscriber as a transport makes one, without the connection."""

    def __init__(self) -> None:
        self.outbox = Outbox(encode, 65_536)

    def push(self, frame: Frame) -> None:
        self.outbox.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        pass


class Halfway(Random):
    """Puts the first pings off by half their interval."""

    def random(self) -> float:
        return 0.5


def gate_to(seats: Seats) -> ConversationDeps:
    clock = SessionClock()
    tokens = Tokens(b"a secret for the benchmark", 3600, clock)
    return ConversationDeps(seats, tokens, clock, Attempts(1000), 1e6, 1_000_000)


class Crowd:
    """As many subscribers of every kind. `bare` are the sockets of those on WebSockets. There may be no
    `streams`."""

    def __init__(
        self,
        bare: Sequence[socket.socket],
        subscribers: Sequence[Subscriber],
        streams: Sequence[Subscriber],
        transport: Transport,
        receivers: Receivers,
    ) -> None:
        self.bare = bare
        self.subscribers = subscribers
        self.streams = streams
        self.transport = transport
        self.receivers = receivers
        count = len(subscribers)
        self.nobodies = [Nobody() for _ in range(count)]
        self.boxes = [Box() for _ in range(count)]
        self._behind = [Box() for _ in range(count)]
        seated = Seats()
        deps = gate_to(seated)
        for box in self._behind:
            Conversation(deps, box, "").receive(b'{"t":"join","code":"000000","role":"spectator"}')
        self.conversations = seated.subscribers
        self.session = played(count, 1, Random(1))
        self.empty()

    def empty(self) -> None:
        for box in [*self.boxes, *self._behind]:
            while box.outbox.pop() is not None:
                pass

    async def sent(self, count: int) -> None:
        await sent(self.transport, count)


async def sent(transport: Transport, count: int) -> None:
    """Until the transport has handed that many frames in all to the kernel."""
    while transport.statistics().frames_out_total < count:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def crowd_of(count: int, name: str) -> AsyncIterator[Crowd]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = listener.getsockname()[1]
    seats = Seats()
    config = Config(
        ping_interval_s=3600,
        connections_max=2 * count,
        connections_per_address_max=2 * count,
        event_streams_per_address_max=2 * count,
    )
    transport = TRANSPORTS[name](gate_to(seats), config, Halfway())
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(transport.serve, [listener]))
        streams = count if name == REACTOR and count <= STREAMS_MAX else 0
        with receivers(port, count, streams) as listening:
            await listening.arrived()
            await sent(transport, count + streams)
            listening.expect(count * len(wire.server_frame(HELLO.encoded(encode))))
            await listening.arrived()
            with accepted_on(port) as accepted:
                seated = seats.subscribers
                assert len(accepted) == len(seated) == count + streams
                yield Crowd(accepted[:count], seated[:count], seated[count:], transport, listening)
        nursery.cancel_scope.cancel()


# -- the measurements ------------------------------------------------------------------------------


async def send_bare(costs: Costs, crowd: Crowd, size: int, number: int) -> None:
    crowd.receivers.expect(size * FRAME_BYTES)
    started = time.perf_counter()
    with costs.cpu_us(BARE, size, size):
        data = wire.server_frame(board(number).encoded(encode))
        for each in crowd.bare:
            each.send(data)
    costs.add(WALL + BARE, size, 1000 * (await crowd.receivers.arrived() - started))


async def broadcast(
    costs: Costs, what: str, crowd: Crowd, subscribers: Sequence[Subscriber], number: int
) -> None:
    size, seats = len(subscribers), dict.fromkeys(subscribers)
    frame = board(number)
    target = crowd.transport.statistics().frames_out_total + size
    crowd.receivers.expect(size * (len(board(number).encoded(EVENTS)) if what == STREAMS else FRAME_BYTES))
    started = time.perf_counter()
    with costs.cpu_us(what, size, size):
        await in_slices(fan_out(seats, seats, frame))
        await crowd.sent(target)
    costs.add(WALL + what, size, 1000 * (await crowd.receivers.arrived() - started))


async def push(costs: Costs, what: str, crowd: Crowd, subscribers: Sequence[Subscriber], number: int) -> None:
    seats = dict.fromkeys(subscribers)
    with costs.cpu_us(what, len(subscribers), len(subscribers)):
        await in_slices(fan_out(seats, seats, board(number)))
    crowd.empty()


async def push_results(costs: Costs, crowd: Crowd, size: int) -> None:
    session = crowd.session
    with costs.cpu_us(RESULTS, size, size):
        made = messages.results(session, range(1, size + 1))
        pairs = ((crowd.boxes[player - 1], frame) for player, frame in made if frame is not None)
        await in_slices(fan_out_each(pairs))
    crowd.empty()


class Neighbour:
    """Another task, which wants to run all the time. Counts processor time of this thread: what else the
    machine does is not the doing of the loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        last = time.thread_time()
        while True:
            await trio.lowlevel.checkpoint()
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now


async def hold(costs: Costs, what: str, crowd: Crowd, subscribers: Sequence[Subscriber], number: int) -> None:
    size, seats = len(subscribers), dict.fromkeys(subscribers)
    neighbour = Neighbour()
    target = crowd.transport.statistics().frames_out_total
    on_wire = subscribers is crowd.subscribers
    if on_wire:
        target += size
        crowd.receivers.expect(size * FRAME_BYTES)
    async with trio.open_nursery() as nursery:
        await nursery.start(neighbour.run)
        await trio.lowlevel.checkpoint()
        await in_slices(fan_out(seats, seats, board(number)))
        await crowd.sent(target)
        nursery.cancel_scope.cancel()
    if on_wire:
        await crowd.receivers.arrived()
    crowd.empty()
    costs.add(HOLD + what, size, 1000 * neighbour.longest_s)


async def measure_engine(costs: Costs, crowd: Crowd, number: int) -> None:
    await push(costs, NOBODY, crowd, crowd.nobodies, number)
    await push(costs, OUTBOX, crowd, crowd.boxes, number)
    await push(costs, CONVERSATION, crowd, crowd.conversations, number)
    await push_results(costs, crowd, len(crowd.boxes))
    await hold(costs, CONVERSATION, crowd, crowd.conversations, number)


async def measure(transport: str, sizes: Sequence[int], rounds: int) -> Costs:
    costs = Costs()
    for size in sizes:
        async with crowd_of(size, transport) as crowd:
            for number in range(rounds):
                # Who goes first finds the sockets as the others have left them: in turns.
                if number % 2:
                    await send_bare(costs, crowd, size, number)
                await broadcast(costs, transport, crowd, crowd.subscribers, number)
                if not number % 2:
                    await send_bare(costs, crowd, size, number)
                if crowd.streams:
                    await broadcast(costs, STREAMS, crowd, crowd.streams, number)
                await hold(costs, transport, crowd, crowd.subscribers, number)
                if transport == REACTOR:
                    await measure_engine(costs, crowd, number)
                else:
                    gc.set_threshold(*RARE)
                    await broadcast(costs, transport + RARELY, crowd, crowd.subscribers, number)
                    await hold(costs, transport + RARELY, crowd, crowd.subscribers, number)
                    gc.set_threshold(*USUAL)
    return costs


class Shown:
    """Turns costs into figures.

    Args:
        sizes: of each transport.
    """

    def __init__(self, costs: dict[str, Costs], sizes: dict[str, Sequence[int]]) -> None:
        self._costs = costs
        self._sizes = sizes

    def costs(self, transport: str, what: str, prefix: str, unit: str) -> Iterator[Figure]:
        """Less is better; the ratio is to the bare loop."""
        seen = self._costs[transport]
        for size in self._sizes[transport]:
            ratio = seen.ratio(prefix + what, size, prefix + BARE, size)
            value = seen.median(prefix + what, size)
            yield Figure(what, at(size), value, unit, ratio, "bare loop")

    def streams(self) -> Iterator[Figure]:
        """Less is better; the ratio is to as many WebSockets."""
        seen = self._costs[REACTOR]
        for size in self._sizes[REACTOR]:
            if size <= STREAMS_MAX:
                ratio = seen.ratio(STREAMS, size, REACTOR, size)
                yield Figure(STREAMS, at(size), seen.median(STREAMS, size), "µs CPU", ratio, "reactor")

    def rates(self, transport: str, what: str) -> Iterator[Figure]:
        """Frames for a second of processor time. More is better."""
        seen = self._costs[transport]
        for size in self._sizes[transport]:
            ratio = seen.ratio(BARE, size, what, size)
            yield Figure(what, at(size), 1e6 / seen.median(what, size), "frames/CPU s", ratio, "bare loop")

    def holds(self, transport: str, what: str) -> Iterator[Figure]:
        for size in self._sizes[transport]:
            yield Figure(what, at(size), max(self._costs[transport].rounds(HOLD + what, size)), "ms held")


def at(size: int) -> str:
    return f"{size:,} subscribers"


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    allow_files()
    sizes_of = {
        transport: sizes if transport == REACTOR else [size for size in sizes if size <= TASKS_MAX]
        for transport in TRANSPORTS
    }
    rounds_of = {TRIO_WEBSOCKET: min(rounds, TASK_ROUNDS_MAX)}
    costs = {
        transport: trio.run(measure, transport, sizes_of[transport], rounds_of.get(transport, rounds))
        for transport in TRANSPORTS
    }
    shown = Shown(costs, sizes_of)
    on_wire = (
        (REACTOR, REACTOR),
        (TRIO_WEBSOCKET, TRIO_WEBSOCKET),
        (TRIO_WEBSOCKET, TRIO_WEBSOCKET + RARELY),
    )
    figures: list[Figure] = []
    for what in (BARE, NOBODY, OUTBOX, CONVERSATION, RESULTS):
        figures += shown.costs(REACTOR, what, "", "µs CPU")
    for transport, what in on_wire:
        figures += shown.costs(transport, what, "", "µs CPU")
    figures += shown.streams()
    for transport, what in ((REACTOR, BARE), *on_wire):
        figures += shown.rates(transport, what)
    for transport, what in ((REACTOR, BARE), *on_wire):
        figures += shown.costs(transport, what, WALL, "ms to all")
    for transport, what in ((REACTOR, CONVERSATION), *on_wire):
        figures += shown.holds(transport, what)
    return figures
