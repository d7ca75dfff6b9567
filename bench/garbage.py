"""How long collections of garbage hold the loop: `python -m bench.garbage`.

A node without a database, a process of its own, takes in players in one session over the reactor; they answer
a question, and get their results. Once Python collects by its own rules, and once by those of a node. Counted
is the processor time of each collection that comes by itself, and of a full one at the end.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

import trio
from rich.console import Console

import server.node  # noqa: F401 - all that a node has loaded is there to be looked at
from bench.__main__ import WIDTH, table
from bench.child import child
from bench.fan_out import allow_files
from bench.figures import Costs, Figure, machine
from bench.leaderboard import quiz
from bench.memory_node import Address, memory_router
from bench.players import Players
from engine.actors.clock import SessionClock
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from server.runtime.gc_policy import Collector
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.settings import at_once

SIZES = (5_000, 14_000)
ROUNDS = 3

PYTHONS = "Python's own rules"
NODES = "a node's rules"
LONGEST = "longest collection, "
ALL = "all collections, "
FULL = "a full collection, "


class Pauses:
    """Processor time of every collection, in milliseconds."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []
        self._began_s = 0.0

    def on_collection(self, phase: str, info: Mapping[str, int]) -> None:
        now_s = time.thread_time()
        if phase == "start":
            self._began_s = now_s
        else:
            self.took_ms.append(1000 * (now_s - self._began_s))

    @contextmanager
    def counted(self) -> Iterator[None]:
        gc.callbacks.append(self.on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self.on_collection)


def serve(rules: str, size: int, control: Connection) -> None:
    """Until the control connection says something, which is answered with the figures."""
    allow_files()
    trio.run(_serve, rules, size, control)


async def _serve(rules: str, size: int, control: Connection) -> None:
    clock = SessionClock()
    tokens = Tokens(b"a secret for the benchmark", 3600, clock)
    pauses = Pauses()
    async with trio.open_nursery() as nursery:
        router, catalog = memory_router(nursery, tokens, clock, tick_ms=10_000)
        stored = await catalog.add(quiz(2))
        record = await router.create(stored.id, at_once(player_limit=size, early_close=False))
        deps = ConversationDeps(router, tokens, clock, Attempts(1000), 20, 60)
        transport = ReactorTransport(deps, Config(ping_interval_s=3600, ping_timeout_s=600))
        listener = socket.create_server(("127.0.0.1", 0))
        await nursery.start(partial(transport.serve, [listener]))
        with ExitStack() as stack:
            collect: Callable[[], object] = gc.collect
            if rules == NODES:
                collector = Collector(lambda: 0.0, lambda: True)
                stack.enter_context(collector.installed())
                collect = collector.collect_fully
            stack.enter_context(pauses.counted())
            address = Address(listener.getsockname()[1], record.code, tokens.issue(record.id, "host", None))
            control.send(address)
            await trio.lowlevel.wait_readable(control.fileno())
            control.recv()
            seen = list(pauses.took_ms)
            began_s = time.thread_time()
            collect()
            full_ms = 1000 * (time.thread_time() - began_s)
            control.send((max(seen, default=0.0), sum(seen), full_ms))
            await trio.lowlevel.wait_readable(control.fileno())
        nursery.cancel_scope.cancel()


def play(rules: str, size: int) -> tuple[float, float, float]:
    """Milliseconds of the longest collection, of all, and of a full one."""
    with child(serve, rules, size) as (control, _):
        players = Players([control.recv()], size)
        players.open_question()
        players.answer(size)
        players.open_question()
        control.send(None)
        longest_ms, all_ms, full_ms = control.recv()
        players.close()
        return longest_ms, all_ms, full_ms


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    allow_files()
    costs = Costs()
    for _ in range(rounds):
        for size in sizes:
            for rules in (PYTHONS, NODES):
                for what, took_ms in zip((LONGEST, ALL, FULL), play(rules, size), strict=True):
                    costs.add(what + rules, size, took_ms)
    return [
        Figure(
            what + rules,
            f"{size:,} players",
            costs.median(what + rules, size),
            "ms CPU",
            costs.ratio(what + rules, size, what + PYTHONS, size),
            PYTHONS,
        )
        for what in (LONGEST, ALL, FULL)
        for rules in (PYTHONS, NODES)
        for size in sizes
    ]


if __name__ == "__main__":
    console = Console(width=WIDTH)
    console.print(machine(), highlight=False)
    console.print(table({"garbage": run()}))
