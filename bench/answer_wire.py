"""What an answer costs over real connections, and how long its player waits for the ack.

Several servers, each a process of its own with a thousand players of one session on it, take turns: a loop
that answers every frame; the realtime port over sessions in memory; a whole node with PostgreSQL that sends
no leaderboard during the answers, so that what is counted is answers alone; and one that sends it to
everybody four times a second, as nodes do by default. Of each but the first there are two, one for each
transport. The players are one process beside them, and all share the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from bench.figures import Costs, Figure, percentile, process_cpu_s
from bench.memory_node import REACTOR, TRANSPORTS, Address, answer_everything, beside, serve_from_memory
from bench.players import Players
from loadtest.client.api import Api
from server.cli.cluster.node_process import CROWDED
from tests.e2e.node import Node, running_node

PLAYERS = 1_000
ROUNDS = 3
PACE_PER_S = 1_000
RATES_PER_S = (250, 1_000, 2_000)
PACED_S = 1.5
"""A slow rate goes on for that long; then not everybody answers."""

WAIT_MAX_MS = 250
"""What the slowest hundredth may wait at a rate that counts as sustained."""

SLOW_TICK_MS = 10_000
QUESTIONS = 2 * max(ROUNDS, len(RATES_PER_S) + 1) + 1


def quiz(questions: int) -> dict[str, object]:
    one = {
        "type": "single",
        "text": "Which?",
        "choices": ["a", "b", "c", "d"],
        "correct": "a",
        "time_limit_s": 300,
    }
    return {"title": "Bench", "questions": [one] * questions}


LOOP = "loop that answers every frame"
MEMORY = {transport: f"{transport}, in memory" for transport in TRANSPORTS}
NODE = {transport: f"{transport}, node with PostgreSQL" for transport in TRANSPORTS}
PLAYING = {transport: f"{transport}, node, leaderboards" for transport in TRANSPORTS}
POSTGRES = "PostgreSQL beside the node"
COMPARED = (LOOP, *MEMORY.values(), *NODE.values())
BASE = "the loop"
AT_ONCE = 0
"""As a pace: everyone in the same moment."""


@dataclass
class Served:
    """A server and everyone on it."""

    players: Players
    pid: int
    database: Callable[[], Iterable[int]] = tuple
    """Process ids; a connection of the node is a process there."""

    def cpu_s(self) -> float:
        return process_cpu_s(self.pid)

    def database_cpu_s(self) -> float:
        return sum(process_cpu_s(pid) for pid in self.database())


def seat(address: Address, count: int, pid: int) -> Served:
    return Served(Players([address], count), pid)


@asynccontextmanager
async def node_with_players(data_dir: Path, count: int, *options: str) -> AsyncIterator[Served]:
    quiet = ("--no-samples", "--ping-interval-s", "3600", "--ping-timeout-s", "600", *CROWDED)
    async with running_node(data_dir, *quiet, *options) as (node, api):
        address = await new_session(node, api, QUESTIONS)
        assert node.process is not None
        served = seat(address, count, node.process.pid)
        served.database = lambda: [process.pid for process in node.database_processes]
        yield served


async def new_session(node: Node, api: Api, questions: int) -> Address:
    await api.add_quiz(quiz(questions), "bench")
    settings = {"get_ready_ms": 0, "early_close": False, "board": "live"}
    made = await api.create_session("bench", settings)
    return Address(node.ports[1], made["code"], made["host_token"])


def turn(costs: Costs, what: str, served: Served, pace: int) -> list[float]:
    """One question, answered. Returns the waits for the ack in milliseconds."""
    players = served.players
    players.open_question()
    count = min(players.count, int(pace * PACED_S)) if pace else players.count
    database_s, server_s = served.database_cpu_s(), served.cpu_s()
    waits_s, took_s = players.answer(count, pace or None)
    costs.add(what, pace, (served.cpu_s() - server_s) * 1e6 / count)
    costs.add(f"{what}/s", pace, count / took_s)
    if what == NODE[REACTOR]:
        costs.add(POSTGRES, pace, (served.database_cpu_s() - database_s) * 1e6 / count)
    return [1000 * wait_s for wait_s in waits_s]


Waits = dict[tuple[str, int], list[float]]
"""For the ack, in milliseconds, by server and pace."""


def measure_all(costs: Costs, servers: dict[str, Served], rounds: int) -> Waits:
    for what, served in servers.items():
        turn(Costs(), what, served, AT_ONCE)  # a first time, which counts for nothing
    waits: Waits = {}
    for _ in range(rounds):
        for pace in (AT_ONCE, PACE_PER_S):
            for what in COMPARED:
                waits.setdefault((what, pace), []).extend(turn(costs, what, servers[what], pace))
    for _ in range(2):
        for pace in (AT_ONCE, *RATES_PER_S):
            for what in PLAYING.values():
                waits.setdefault((what, pace), []).extend(turn(costs, what, servers[what], pace))
    return waits


async def measure(count: int, rounds: int) -> tuple[Costs, Waits]:
    costs = Costs()
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfare-")))
        slow = ("--tick-ms", str(SLOW_TICK_MS))
        loop = stack.enter_context(beside(answer_everything))
        servers = {LOOP: seat(loop[0], count, loop[1])}
        for number, transport in enumerate(TRANSPORTS):
            serve = partial(serve_from_memory, transport, quiz(QUESTIONS), SLOW_TICK_MS)
            memory = stack.enter_context(beside(serve))
            servers[MEMORY[transport]] = seat(memory[0], count, memory[1])
            for what, options in ((NODE, slow), (PLAYING, ())):
                data_dir = place / f"{number}{len(options)}"
                node = node_with_players(data_dir, count, "--transport", transport, *options)
                servers[what[transport]] = await stack.enter_async_context(node)
        for served in servers.values():
            stack.callback(served.players.close)
        return costs, measure_all(costs, servers, rounds)


def run(count: int = PLAYERS, rounds: int = ROUNDS) -> list[Figure]:
    costs, waits = trio.run(measure, count, rounds)
    paces = (AT_ONCE, PACE_PER_S)
    figures = [
        Figure(what, at(pace), costs.median(what, pace), "µs CPU", costs.ratio(what, pace, LOOP, pace), BASE)
        for pace in paces
        for what in (*COMPARED, POSTGRES)
    ]
    for what in COMPARED:
        name, base = f"{what}/s", f"{LOOP}/s"
        ratio = costs.ratio(name, AT_ONCE, base, AT_ONCE)
        figures.append(Figure(what, at(AT_ONCE), costs.median(name, AT_ONCE), "answers/s", ratio, BASE))
    for what in COMPARED[1:]:
        for pace in paces:
            figures += both_waits(waits, what, pace)
    for what in PLAYING.values():
        figures += playing(costs, waits, what)
    return figures


def playing(costs: Costs, waits: Waits, what: str) -> Iterator[Figure]:
    for pace in (AT_ONCE, *RATES_PER_S):
        yield Figure(what, at(pace), costs.median(what, pace), "µs CPU")
        yield from both_waits(waits, what, pace)
    sustained = [pace for pace in RATES_PER_S if percentile(waits[what, pace], 0.99) <= WAIT_MAX_MS]
    yield Figure(what, f"p99 up to {WAIT_MAX_MS} ms", max(sustained, default=0), "answers/s")


def both_waits(waits: Waits, what: str, pace: int) -> Iterator[Figure]:
    for part, unit in ((0.5, "ms p50"), (0.99, "ms p99")):
        yield Figure(what, at(pace), percentile(waits[what, pace], part), unit)


def at(pace: int) -> str:
    return f"{pace:,}/s" if pace else "all at once"
