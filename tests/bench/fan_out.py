"""What one frame to many subscribers costs the sending process, against the least that it can cost.

The least is a loop of non-blocking sends over as many TCP connections, of the same bytes, in the same round.
All connections are real ones over loopback; a second process reads them and throws away what comes.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from random import Random

import trio

from engine.actors import commands, messages
from engine.actors.clock import SessionClock
from engine.actors.endings import Ending
from engine.actors.fanout import Slicer, fan_out, fan_out_each
from engine.actors.frame import Frame
from engine.actors.outbox import Outbox
from engine.actors.subscriber import Subscriber
from server.auth import Tokens
from server.config import Config
from server.limits import Attempts, JoinRate
from server.realtime.conversation import Conversation, Gate
from server.realtime.protocol import encode
from server.realtime.transport import Transport
from tests.bench import wire
from tests.bench.figures import Costs, Figure
from tests.bench.leaderboard import played
from tests.bench.memory_node import REACTOR, TRANSPORTS, TRIO_WEBSOCKET

SIZES = (500, 2_000, 5_000)
ROUNDS = 4
FRAME_BYTES = 400
"""On the wire, the four bytes of the frame's head included."""

HELLO = Frame({"t": "joined", "session": "bench", "role": "spectator", "player": None})
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


# -- who receives ----------------------------------------------------------------------------------


def receive(bare_port: int, websocket_port: int, count: int, control: Connection) -> None:
    """The other process: takes what comes. Asked for a number of bytes, it says when they had come."""
    allow_files()
    greeting = wire.client_frame({"t": "join", "code": "000000", "role": "spectator"})
    sockets = wire.connect(bare_port, count)
    sockets += wire.open_websockets(websocket_port, count, [greeting] * count)
    poll = select.epoll()
    poll.register(control.fileno(), select.EPOLLIN)
    by_fd = {each.fileno(): each for each in sockets}
    for each in sockets:
        each.setblocking(False)
        poll.register(each.fileno(), select.EPOLLIN)
    buffer = bytearray(65_536)
    came = wanted = 0
    control.send(None)
    while True:
        for fd, _ in poll.poll():
            if fd in by_fd:
                came += by_fd[fd].recv_into(buffer)
            elif (more := control.recv()) is None:
                return
            else:
                wanted += more
        if wanted and came >= wanted:
            control.send(time.perf_counter())
            came, wanted = came - wanted, 0


class Receivers:
    def __init__(self, control: Connection) -> None:
        self._control = control

    def expect(self, count: int) -> None:
        self._control.send(count)

    async def arrived(self) -> float:
        """When the last of the expected bytes was read; the clocks of the processes are one."""
        return await trio.to_thread.run_sync(self._control.recv)  # type: ignore[no-any-return]


def allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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

    def close(self, ending: Ending) -> None:
        pass


class Box:
    """A subscriber as a transport makes one, without the connection."""

    def __init__(self) -> None:
        self.outbox = Outbox(encode, 65_536)

    def push(self, frame: Frame) -> None:
        self.outbox.push(frame)

    def close(self, ending: Ending) -> None:
        pass


class LastMoment(Random):
    """Puts the first pings off to the end of their interval."""

    def random(self) -> float:
        return 0.999


def gate_to(seats: Seats) -> Gate:
    clock = SessionClock()
    tokens = Tokens(b"a secret for the benchmark", 3600, clock)
    return Gate(seats, tokens, clock, Attempts(1000), JoinRate(1e6), 1e6, 1_000_000)


class Crowd:
    """As many subscribers of every kind."""

    def __init__(self, count: int, transport: Transport, seats: Seats, receivers: Receivers) -> None:
        self.transport = transport
        self.receivers = receivers
        self.bare: list[socket.socket] = []
        self.seats = seats
        self.nobodies = [Nobody() for _ in range(count)]
        self.boxes = [Box() for _ in range(count)]
        self._behind = [Box() for _ in range(count)]
        seated = Seats()
        gate = gate_to(seated)
        for box in self._behind:
            Conversation(gate, box, "").receive(b'{"t":"join","code":"000000","role":"spectator"}')
        self.conversations = seated.subscribers
        self.session = played(count, 1, Random(1))
        self.empty()

    def empty(self) -> None:
        for box in [*self.boxes, *self._behind]:
            while box.outbox.pop() is not None:
                pass

    async def sent(self, count: int) -> None:
        """Until the transport has handed that many frames in all to the kernel."""
        while self.transport.statistics().frames_out_total < count:
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def crowd_of(count: int, transport: str) -> AsyncIterator[Crowd]:
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2)]
    ours, theirs = get_context("spawn").Pipe()
    ports = [each.getsockname()[1] for each in listeners]
    other = get_context("spawn").Process(target=receive, args=(*ports, count, theirs), daemon=True)
    seats = Seats()
    serving = TRANSPORTS[transport](
        gate_to(seats), Config(ping_interval_s=3600, connections_per_address_max=1_000_000), LastMoment()
    )
    crowd = Crowd(count, serving, seats, Receivers(ours))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serving.serve, [listeners[1]]))
        other.start()
        theirs.close()
        try:
            crowd.bare = await trio.to_thread.run_sync(accept, listeners[0], count)
            await crowd.receivers.arrived()
            await crowd.sent(count)
            crowd.receivers.expect(count * len(wire.server_frame(HELLO.encoded(encode))))
            await crowd.receivers.arrived()
            yield crowd
        finally:
            ours.send(None)
            other.join(10)
            other.kill()
            for each in [*crowd.bare, *listeners]:
                each.close()
        nursery.cancel_scope.cancel()


def accept(listener: socket.socket, count: int) -> list[socket.socket]:
    listener.settimeout(30)
    accepted = []
    for _ in range(count):
        each, _ = listener.accept()
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.append(each)
    return accepted


# -- the measurements ------------------------------------------------------------------------------


async def send_bare(costs: Costs, crowd: Crowd, size: int, number: int) -> None:
    crowd.receivers.expect(size * FRAME_BYTES)
    started = time.perf_counter()
    with costs.cpu_us(BARE, size, size):
        data = wire.server_frame(board(number).encoded(encode))
        for each in crowd.bare:
            each.send(data)
    costs.add(WALL + BARE, size, 1000 * (await crowd.receivers.arrived() - started))


async def send_websockets(costs: Costs, what: str, crowd: Crowd, size: int, number: int) -> None:
    target = crowd.transport.statistics().frames_out_total + size
    crowd.receivers.expect(size * FRAME_BYTES)
    started = time.perf_counter()
    with costs.cpu_us(what, size, size):
        await fan_out(crowd.seats.subscribers, board(number), Slicer())
        await crowd.sent(target)
    costs.add(WALL + what, size, 1000 * (await crowd.receivers.arrived() - started))


async def push(costs: Costs, what: str, crowd: Crowd, subscribers: Sequence[Subscriber], number: int) -> None:
    with costs.cpu_us(what, len(subscribers), len(subscribers)):
        await fan_out(subscribers, board(number), Slicer())
    crowd.empty()


async def push_results(costs: Costs, crowd: Crowd, size: int) -> None:
    session = crowd.session
    with costs.cpu_us(RESULTS, size, size):
        pairs = ((box, messages.result(session, player)) for player, box in enumerate(crowd.boxes, 1))
        await fan_out_each(pairs, Slicer())
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
    size = len(subscribers)
    neighbour = Neighbour()
    target = crowd.transport.statistics().frames_out_total
    on_wire = subscribers is crowd.seats.subscribers
    if on_wire:
        target += size
        crowd.receivers.expect(size * FRAME_BYTES)
    async with trio.open_nursery() as nursery:
        await nursery.start(neighbour.run)
        await trio.lowlevel.checkpoint()
        await fan_out(subscribers, board(number), Slicer())
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


async def measure_wire(costs: Costs, what: str, crowd: Crowd, size: int, number: int) -> None:
    await send_websockets(costs, what, crowd, size, number)
    await hold(costs, what, crowd, crowd.seats.subscribers, number)


async def measure(transport: str, sizes: Sequence[int], rounds: int) -> Costs:
    costs = Costs()
    for size in sizes:
        async with crowd_of(size, transport) as crowd:
            for number in range(rounds):
                await send_bare(costs, crowd, size, number)
                await measure_wire(costs, transport, crowd, size, number)
                if transport == REACTOR:
                    await measure_engine(costs, crowd, number)
                else:
                    gc.set_threshold(*RARE)
                    await measure_wire(costs, transport + RARELY, crowd, size, number)
                    gc.set_threshold(*USUAL)
    return costs


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    allow_files()
    costs = {transport: trio.run(measure, transport, sizes, rounds) for transport in TRANSPORTS}
    on_wire = (
        (REACTOR, REACTOR),
        (TRIO_WEBSOCKET, TRIO_WEBSOCKET),
        (TRIO_WEBSOCKET, TRIO_WEBSOCKET + RARELY),
    )

    def figures(transport: str, what: str, prefix: str, unit: str) -> Iterator[Figure]:
        seen = costs[transport]
        for size in sizes:
            ratio = seen.ratio(prefix + what, size, prefix + BARE, size)
            value = seen.median(prefix + what, size)
            yield Figure(what, f"{size:,} subscribers", value, unit, ratio, "bare loop")

    shown: list[Figure] = []
    for what in (BARE, NOBODY, OUTBOX, CONVERSATION, RESULTS):
        shown += figures(REACTOR, what, "", "µs CPU")
    for transport, what in on_wire:
        shown += figures(transport, what, "", "µs CPU")
    for transport, what in ((REACTOR, BARE), *on_wire):
        shown += figures(transport, what, WALL, "ms to all")
    for transport, what in ((REACTOR, CONVERSATION), *on_wire):
        for size in sizes:
            longest = max(costs[transport].rounds(HOLD + what, size))
            shown.append(Figure(what, f"{size:,} subscribers", longest, "ms held"))
    return shown
