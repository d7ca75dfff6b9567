"""What it costs to reach a session on another node: answers over a link, and broadcasts to nodes that relay.

The node that runs the session is a process of its own, whose sessions answer at once. What counts is the
processor time of both, and a direct call is measured in the same rounds.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection

import trio

from bench.answer import Counter
from bench.fan_out import FRAME_BYTES, board
from bench.figures import Costs, Figure, process_cpu_s
from bench.memory_node import Address, beside
from engine.actors import messages
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Command, SubscribeNode
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.shards.link.listener import LinkListener
from engine.shards.link.pool import LinkPool
from engine.shards.ports import LinkService, Member

SECRET = b"a secret for the benchmark"
SESSION_ID = "01HZX3V7J5T8Q2M4N6P9R0S1A2"
ANSWERS = 5_000
SINGLES = 500
FRAMES = 200
NODES = (1, 7)
ROUNDS = 9

DIRECT = "a direct call"
BURST = "link, all at once"
SINGLE = "link, one by one"
ASKING = ", asking node"
ASKED = ", asked node"
BROADCAST = f"a frame of {FRAME_BYTES} bytes to each node"


class Sessions:
    """Acks at once; sends those who listen as many frames as it is asked for, each in a turn of its own."""

    def __init__(self) -> None:
        self._listening: list[Subscriber] = []

    def deliver(self, session_id: str, command: Command) -> None:
        if isinstance(command, Answer):
            command.reply.push(messages.ack(command.id, command.question, "accepted", 1234))
        elif isinstance(command, SubscribeNode):
            self._listening.append(command.reply)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        if "frames" in request:
            for number in range(int(str(request["frames"]))):
                frame = board(number)
                for each in self._listening:
                    each.push(frame)
                await trio.lowlevel.checkpoint()
        return {}


class Heard:
    """The reply of a command."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def push(self, frame: Frame) -> None:
        self._counter.count()

    def close(self, close_reason: CloseReason) -> None:
        raise AssertionError(close_reason)


def serve(control: Connection) -> None:
    trio.run(_serve, control)


async def _serve(control: Connection) -> None:
    async with trio.open_nursery() as nursery:
        bound = socket.create_server(("127.0.0.1", 0))
        await nursery.start(partial(LinkListener("far", SECRET, Sessions()).serve, [bound]))
        control.send(Address(bound.getsockname()[1]))
        await trio.lowlevel.wait_readable(control.fileno())
        nursery.cancel_scope.cancel()


def there(port: int) -> Member:
    return Member("far", "far", "both", 1, "", "", "", f"ws://127.0.0.1:{port}", "", 0)


def asked(counter: Counter, count: int) -> list[Answer]:
    return [Answer(Heard(counter), n, f"a{n}", 1, n % 4, 1_700_000_000_000) for n in range(count)]


class Measured:
    """Processor time of both processes while a block runs, in microseconds for each of `count`."""

    def __init__(self, costs: Costs, what: str, count: int, pid: int) -> None:
        self._costs = costs
        self._what = what
        self._count = count
        self._pid = pid
        self._here_s = self._there_s = 0.0

    def __enter__(self) -> None:
        self._here_s, self._there_s = time.process_time(), process_cpu_s(self._pid)

    def __exit__(self, *raised: object) -> None:
        here_us = (time.process_time() - self._here_s) * 1e6 / self._count
        there_us = (process_cpu_s(self._pid) - self._there_s) * 1e6 / self._count
        self._costs.add(self._what + ASKING, 0, here_us)
        self._costs.add(self._what + ASKED, 0, there_us)
        self._costs.add(self._what, 0, here_us + there_us)


async def measure_answers(costs: Costs, port: int, pid: int, answers: int, singles: int, rounds: int) -> None:
    sessions: LinkService = Sessions()
    member = there(port)
    counter = Counter()
    async with trio.open_nursery() as nursery:
        links = LinkPool("near", SECRET)
        await nursery.start(links.run)
        await links.ask(member, {})
        for _ in range(rounds):
            burst = asked(counter, answers)
            counter.expect(answers)
            with costs.cpu_us(DIRECT, 0, answers):
                for each in burst:
                    sessions.deliver(SESSION_ID, each)
                await counter.wait()
            counter.expect(answers)
            with Measured(costs, BURST, answers, pid):
                for each in burst:
                    links.send(member, SESSION_ID, each)
                await counter.wait()
            with Measured(costs, SINGLE, singles, pid):
                for each in burst[:singles]:
                    counter.expect(1)
                    links.send(member, SESSION_ID, each)
                    await counter.wait()
        nursery.cancel_scope.cancel()


async def measure_broadcasts(costs: Costs, port: int, pid: int, nodes: int, frames: int, rounds: int) -> None:
    """Costs of the node that sends, for each frame."""
    member = there(port)
    counter = Counter()
    listening: list[tuple[LinkPool, Subscriber]] = []
    async with trio.open_nursery() as nursery:
        for number in range(nodes):
            links = LinkPool(f"near {number}", SECRET)
            await nursery.start(links.run)
            reply = Heard(counter)
            links.send(member, SESSION_ID, SubscribeNode(reply, f"near {number}"))
            await links.ask(member, {})
            listening.append((links, reply))
        for _ in range(rounds):
            counter.expect(frames * nodes)
            before_s = process_cpu_s(pid)
            await links.ask(member, {"frames": frames})
            await counter.wait()
            costs.add(BROADCAST, nodes, (process_cpu_s(pid) - before_s) * 1e6 / frames)
        for links, reply in listening:
            links.drop(reply)
        nursery.cancel_scope.cancel()


def run(
    answers: int = ANSWERS,
    singles: int = SINGLES,
    frames: int = FRAMES,
    nodes: Sequence[int] = NODES,
    rounds: int = ROUNDS,
) -> list[Figure]:
    costs = Costs()
    with beside(serve) as (address, pid):
        trio.run(measure_answers, costs, address.port, pid, answers, singles, rounds)
    for count in nodes:
        with beside(serve) as (address, pid):
            trio.run(measure_broadcasts, costs, address.port, pid, count, frames, rounds)
    least = nodes[0]
    return [
        *(
            Figure(
                what,
                "answer and ack",
                costs.median(what, 0),
                "µs CPU",
                costs.ratio(what, 0, DIRECT, 0),
                DIRECT,
            )
            for what in (
                DIRECT,
                BURST,
                BURST + ASKING,
                BURST + ASKED,
                SINGLE,
                SINGLE + ASKING,
                SINGLE + ASKED,
            )
        ),
        Figure(BURST, "answer and ack", 1e6 / costs.median(BURST, 0), "answers/CPU s"),
        *(
            Figure(
                BROADCAST,
                f"{count} nodes",
                costs.median(BROADCAST, count),
                "µs CPU",
                costs.ratio(BROADCAST, count, BROADCAST, least),
                f"{least} nodes",
            )
            for count in nodes
        ),
    ]
