"""What an answer costs that comes to a node which does not run its session.

Two nodes are a cluster, and one session runs on one of them. Its players answer by `POST`, a question to this
node and the next to the other, which passes the answers on over the link and the acks back. Both ways take
turns, on the realtime port and on the API's own, as fast as the connections go and at a rate that waits for
nobody. Afterwards the same answers are posted again by the other way: each must get the very same ack, byte
for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

from bench.answer_wire import AT_ONCE, SLOW_TICK_MS, at, quiz
from bench.clusters import BenchNode, Cluster, cluster
from bench.figures import Costs, Figure, percentile
from bench.http_answers import Hall, Posters

PLAYERS = 2_000
API_PLAYERS = 400
CONNECTIONS = 200
API_CONNECTIONS = 50
RATE_PER_S = 1_000
API_RATE_PER_S = 150
ROUNDS = 6

DIRECT = "to its owner"
FORWARDED = "to another node"
OWNER, OTHER, BOTH, POSTGRES = "the owner", "the other node", "both nodes", "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Door:
    """A port of both nodes, and how it is asked."""

    name: str
    owner: int
    other: int
    players: int
    connections: int
    per_s: int

    def what(self, way: str, part: str) -> str:
        return f"{self.name}, {way}: {part}"


def doors(owner: BenchNode, other: BenchNode, share: float) -> tuple[Door, Door]:
    """Args: share: of the players and connections."""

    def some(count: int) -> int:
        return max(int(share * count), 1)

    return (
        Door("realtime port", owner.port, other.port, some(PLAYERS), some(CONNECTIONS), RATE_PER_S),
        Door(
            "API port",
            owner.http_port,
            other.http_port,
            some(API_PLAYERS),
            some(API_CONNECTIONS),
            API_RATE_PER_S,
        ),
    )


class Roads:
    """Answers on their ways, and what they cost."""

    def __init__(
        self, served: Cluster, owner: BenchNode, other: BenchNode, hall: Hall, ports: Sequence[Door]
    ) -> None:
        self.doors = ports
        self._served = served
        self._owner = owner
        self._other = other
        self._hall = hall
        self.costs = Costs()
        self.waits_ms: dict[tuple[str, int], list[float]] = {}

    def turn(self, door: Door, way: str, pace: int) -> None:
        """One question, answered by as many as use this door. Raises AssertionError if a repeated answer gets
        another ack."""
        requests = self._hall.ask()[: door.players]
        here, there = (door.owner, door.other) if way == DIRECT else (door.other, door.owner)
        posters = Posters(here, door.connections)
        # Accepting the connections counts for nothing.
        posters.post(requests[: door.connections])
        requests = requests[door.connections :]
        before_s = self._cpu_s()
        found = posters.post(requests, pace or None)
        for part, now_s, then_s in zip((OWNER, OTHER, POSTGRES), self._cpu_s(), before_s, strict=True):
            self.costs.add(door.what(way, part), pace, (now_s - then_s) * 1e6 / len(requests))
        both = sum(self.costs.rounds(door.what(way, part), pace)[-1] for part in (OWNER, OTHER))
        self.costs.add(door.what(way, BOTH), pace, both)
        waits = self.waits_ms.setdefault((door.what(way, BOTH), pace), [])
        waits += [1000 * each for each in found.waits_s]
        posters.close()
        again = Posters(there, door.connections)
        assert again.post(requests).bodies == found.bodies
        again.close()

    def _cpu_s(self) -> tuple[float, float, float]:
        return self._owner.cpu_s(), self._other.cpu_s(), self._served.database_cpu_s()


async def measure(share: float, rounds: int) -> Roads:
    async with cluster(2, "--tick-ms", str(SLOW_TICK_MS)) as served:
        address, owner = await served.open_session(quiz(8 * (rounds + 1)))
        (other,) = (node for node in served.nodes if node is not owner)
        ports = doors(owner, other, share)
        hall = Hall(address, max(door.players for door in ports))
        try:
            for number in range(rounds + 1):
                if number < 2:
                    # The first round counts for nothing.
                    roads = Roads(served, owner, other, hall, ports)
                for door in ports:
                    for pace in (AT_ONCE, door.per_s):
                        for way in (DIRECT, FORWARDED):
                            roads.turn(door, way, pace)
        finally:
            hall.close()
        return roads


def run(share: float = 1.0, rounds: int = ROUNDS) -> list[Figure]:
    roads = trio.run(measure, share, rounds)
    return [
        figure
        for door in roads.doors
        for pace in (AT_ONCE, door.per_s)
        for figure in _figures(roads, door, pace)
    ]


def _figures(roads: Roads, door: Door, pace: int) -> Iterator[Figure]:
    costs = roads.costs
    base = door.what(DIRECT, BOTH)
    for way in (DIRECT, FORWARDED):
        for part in (BOTH, OWNER, OTHER, POSTGRES):
            what = door.what(way, part)
            ratio = costs.ratio(what, pace, base, pace) if part == BOTH else None
            yield Figure(what, at(pace), costs.median(what, pace), "µs CPU", ratio, DIRECT if ratio else "")
    for way in (DIRECT, FORWARDED):
        what = door.what(way, BOTH)
        if not pace:
            rate = 1e6 / costs.median(what, pace)
            yield Figure(what, at(pace), rate, "answers/CPU s", costs.ratio(base, pace, what, pace), DIRECT)
        for part, unit in ((0.5, "ms p50"), (0.99, "ms p99")):
            wait_ms = percentile(roads.waits_ms[what, pace], part)
            base_ms = percentile(roads.waits_ms[base, pace], part)
            yield Figure(what, at(pace), wait_ms, unit, wait_ms / base_ms, DIRECT)
