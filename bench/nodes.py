"""What it costs to have more nodes for the same players, on the same cores.

Clusters of one node and of more are up at the same time and take turns, each with as many players in as many
sessions, which are spread evenly over its nodes. All players of a cluster answer one question at once, and
the next at a rate that waits for nobody. After each the question is closed and the next one opened, which is
four broadcasts or more to everybody. What counts is the processor time of the nodes, and beside them that of
PostgreSQL. At the end nobody does anything for a while, and the same is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx
import trio

from bench.answer_wire import AT_ONCE, SLOW_TICK_MS, Waits, at, both_waits, quiz
from bench.clusters import Cluster, cluster
from bench.fan_out import allow_files
from bench.figures import Costs, Figure
from bench.players import Players
from loadtest.runs.sampling import parse_metrics

COUNTS = (1, 2, 4, 8)
SESSIONS = 16
PLAYERS = 2_000
RATE_PER_S = 1_000
ROUNDS = 4
IDLE_S = 3.0

NODES, POSTGRES, REDIS = "nodes", "PostgreSQL", "Redis"
BROADCAST, IDLE = "a frame of a broadcast", "nothing to do"
LONE = "1 node"


@dataclass
class Seated:
    """A cluster, and everyone who plays on it."""

    served: Cluster
    players: Players
    waits: Waits = field(default_factory=dict)

    def cpu_s(self) -> dict[str, float]:
        served = self.served
        return {
            NODES: served.cpu_s(),
            POSTGRES: served.database_cpu_s(),
            REDIS: served.redis_cpu_s(),
        }


class Used:
    """Processor time of a cluster's parts from here on, in seconds."""

    def __init__(self, seated: Seated) -> None:
        self._seated = seated
        self._from_s = seated.cpu_s()

    def add(self, costs: Costs, what: str, count: int, per_us: float) -> None:
        """Args: per_us: by what the microseconds are divided."""
        for part, now_s in self._seated.cpu_s().items():
            costs.add(f"{what}, {part}", count, (now_s - self._from_s[part]) * 1e6 / per_us)


async def seat(served: Cluster, sessions: int, players: int, questions: int) -> Seated:
    opened = [(await served.open_session(quiz(questions)))[0] for _ in range(sessions)]
    ports = [address.port for address in opened]
    # Otherwise what is compared would not be the number of nodes.
    assert all(ports.count(node.port) == sessions // len(served.nodes) for node in served.nodes), ports
    return Seated(served, Players(opened, players // sessions))


def answer(costs: Costs, seated: Seated, count: int, pace: int) -> None:
    """The open question, answered by everybody."""
    players = seated.players
    used = Used(seated)
    waits_s, took_s = players.answer(players.count, pace or None)
    used.add(costs, at(pace), count, players.count)
    costs.add(f"{at(pace)}/s", count, players.count / took_s)
    seated.waits.setdefault((NODES, pace), []).extend(1000 * wait_s for wait_s in waits_s)


async def broadcast(costs: Costs, seated: Seated, count: int, http: httpx.AsyncClient) -> None:
    """The reveal, the results, the leaderboard and the next question, to everybody."""
    before = await _frames(seated.served, http)
    used = Used(seated)
    started = time.perf_counter()
    seated.players.open_question()
    took_s = time.perf_counter() - started
    spent = Costs()
    used.add(spent, BROADCAST, count, 1)
    frames = await _frames(seated.served, http) - before
    for part in (NODES, POSTGRES, REDIS):
        costs.add(f"{BROADCAST}, {part}", count, spent.median(f"{BROADCAST}, {part}", count) / frames)
    costs.add(f"{BROADCAST}/s", count, frames / took_s)


async def _frames(served: Cluster, http: httpx.AsyncClient) -> float:
    """That its nodes have sent so far."""
    frames = 0.0
    for node in served.nodes:
        values, _ = parse_metrics((await http.get(f"{node.api.url}/metrics")).text)
        frames += values["fanfare_frames_out_total"]
    return frames


async def rest(costs: Costs, clusters: Mapping[int, Seated]) -> None:
    """Microseconds for each second in which nobody does anything."""
    used = {count: Used(seated) for count, seated in clusters.items()}
    started = time.perf_counter()
    await trio.sleep(IDLE_S)
    took_s = time.perf_counter() - started
    for count, each in used.items():
        each.add(costs, IDLE, count, took_s)


async def measure(
    counts: Sequence[int], sessions: int, players: int, rounds: int
) -> tuple[Costs, Mapping[int, Seated]]:
    costs = Costs()
    questions = 2 * (rounds + 1) + 1
    options = (
        *("--tick-ms", str(SLOW_TICK_MS)),
        *("--ping-interval-s", "3600", "--ping-timeout-s", "600"),
    )
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        clusters: dict[int, Seated] = {}
        for count in counts:
            served = await stack.enter_async_context(cluster(count, *options))
            clusters[count] = await seat(served, sessions, players, questions)
            stack.callback(clusters[count].players.close)
            clusters[count].players.open_question()
        for number in range(rounds + 1):
            if number < 2:
                costs = Costs()  # the first round counts for nothing
                for seated in clusters.values():
                    seated.waits.clear()
            for pace in (AT_ONCE, RATE_PER_S):
                for count, seated in clusters.items():
                    answer(costs, seated, count, pace)
                    await broadcast(costs, seated, count, http)
        await trio.sleep(SLOW_TICK_MS / 1000)  # the last leaderboards go out
        for _ in range(rounds):
            await rest(costs, clusters)
        return costs, clusters


def run(
    counts: Sequence[int] = COUNTS,
    sessions: int = SESSIONS,
    players: int = PLAYERS,
    rounds: int = ROUNDS,
) -> list[Figure]:
    allow_files()
    costs, clusters = trio.run(measure, counts, sessions, players, rounds)
    return [*_answers(costs, clusters), *_broadcasts(costs, counts), *_rests(costs, counts)]


def _answers(costs: Costs, clusters: Mapping[int, Seated]) -> Iterator[Figure]:
    for pace in (AT_ONCE, RATE_PER_S):
        for part in (NODES, POSTGRES):
            for count in clusters:
                yield _figure(costs, f"{at(pace)}, {part}", count, "µs CPU", f"an answer, {at(pace)}: {part}")
        for count, seated in clusters.items():
            for figure in both_waits(seated.waits, NODES, pace):
                yield Figure(f"an answer, {at(pace)}: its ack", nodes(count), figure.value, figure.unit)
    what = f"{at(AT_ONCE)}, {NODES}"
    for count in clusters:
        rate = 1e6 / costs.median(what, count)
        yield Figure("answers, all at once", nodes(count), rate, "answers/CPU s", *_ratio(costs, what, count))
    for count in clusters:
        yield _figure(costs, f"{at(AT_ONCE)}/s", count, "answers/s", "answers, all at once")


def _broadcasts(costs: Costs, counts: Sequence[int]) -> Iterator[Figure]:
    what = f"{BROADCAST}, {NODES}"
    for count in counts:
        yield _figure(costs, what, count, "µs CPU", BROADCAST)
    for count in counts:
        rate = 1e6 / costs.median(what, count)
        yield Figure("frames of broadcasts", nodes(count), rate, "frames/CPU s", *_ratio(costs, what, count))
    for count in counts:
        yield _figure(costs, f"{BROADCAST}/s", count, "frames/s", "frames of broadcasts")


def _rests(costs: Costs, counts: Sequence[int]) -> Iterator[Figure]:
    for part in (NODES, POSTGRES, REDIS):
        what = f"{IDLE}, {part}"
        for count in counts:
            ms = costs.median(what, count) / 1000
            yield Figure(
                f"{IDLE}: {part}",
                nodes(count),
                ms,
                "ms CPU/s",
                costs.ratio(what, count, what, counts[0]),
                nodes(counts[0]),
            )


def _figure(costs: Costs, what: str, count: int, unit: str, shown: str) -> Figure:
    return Figure(
        shown, nodes(count), costs.median(what, count), unit, costs.ratio(what, count, what, 1), LONE
    )


def _ratio(costs: Costs, what: str, count: int) -> tuple[float, str]:
    """Of a rate that was computed from costs."""
    return costs.ratio(what, 1, what, count), LONE


def nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}"
