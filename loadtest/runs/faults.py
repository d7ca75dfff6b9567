"""Faults in a load run: nodes that are killed, or started again one by one, and what it cost whom."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from loadtest.runs.fleet import Generator
from loadtest.runs.histogram import Histogram
from loadtest.runs.timeline import Timeline

BACK_PERCENT = 99.0
PERCENTS = (50.0, 99.0, 100.0)


class Breakable(Protocol):
    """The nodes of a run, by their place among its nodes, for whoever is to break them."""

    def running(self) -> Sequence[int]:
        """Those that run now."""

    def name(self, place: int) -> str:
        """As the node calls itself."""

    def kill(self, place: int) -> None:
        """At once, and for good."""

    async def restart(self, place: int) -> int:
        """End it in good order, start it again at the same addresses, and wait until it is ready. Returns its
        new process id."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When what is to happen, in seconds from the beginning of play. A roll restarts all nodes that run, one
    after the other."""

    kill_s: Sequence[float] = ()
    roll_s: Sequence[float] = ()

    def __bool__(self) -> bool:
        return bool(self.kill_s or self.roll_s)


@dataclass(slots=True)
class Fault:
    """One node that was killed or restarted. Moments are those of the machine's monotonic clock."""

    kind: str
    node: str
    at_s: float
    ready_at_s: float | None = None
    """When it was ready again, after a restart."""


class Faults:
    """Strikes when it is time, and lets all generators know before and after.

    Args:
        ws_urls: of the nodes, by place.
        rng: chooses whom to kill.
    """

    def __init__(
        self, nodes: Breakable, ws_urls: Sequence[str], crowds: Sequence[Generator], rng: random.Random
    ) -> None:
        self.struck: list[Fault] = []
        self.restarted: list[int] = []
        """Process ids of nodes that were started again."""
        self._nodes = nodes
        self._ws_urls = ws_urls
        self._crowds = crowds
        self._rng = rng
        self._striking = trio.Lock()

    async def run(self, moments: Moments) -> None:
        """Until all has happened that is to happen. What is due while a node is being restarted waits for
        that, so that no two are away by plan."""
        async with trio.open_nursery() as nursery:
            for after_s in moments.kill_s:
                nursery.start_soon(self._kill, after_s)
            for after_s in moments.roll_s:
                nursery.start_soon(self._roll, after_s)

    async def _kill(self, after_s: float) -> None:
        await trio.sleep(after_s)
        async with self._striking:
            running = self._nodes.running()
            if len(running) < 2:
                return
            place = self._rng.choice(running)
            number = await self._mark(place)
            self._nodes.kill(place)
            await self._strike(number, Fault("kill", self._nodes.name(place), time.monotonic()))

    async def _roll(self, after_s: float) -> None:
        await trio.sleep(after_s)
        for place in list(self._nodes.running()):
            async with self._striking:
                if place in self._nodes.running():
                    await self._restart(place)

    async def _restart(self, place: int) -> None:
        number = await self._mark(place)
        fault = Fault("restart", self._nodes.name(place), time.monotonic())
        await self._strike(number, fault)
        self.restarted.append(await self._nodes.restart(place))
        fault.ready_at_s = time.monotonic()

    async def _mark(self, place: int) -> int:
        """Every generator knows whom it will concern before it happens."""
        number = len(self.struck)
        async with trio.open_nursery() as nursery:
            for crowd in self._crowds:
                nursery.start_soon(crowd.mark, number, self._ws_urls[place])
        return number

    async def _strike(self, number: int, fault: Fault) -> None:
        self.struck.append(fault)
        for crowd in self._crowds:
            await crowd.struck(number, fault.at_s)


def costs(
    struck: Sequence[Fault], told: Sequence[Mapping[str, Mapping[str, Any]]], timeline: Timeline
) -> list[dict[str, Any]]:
    """For the report: each fault, and what it cost. Times count from the moment of the fault; how long
    a player was away, or waited for an ack, is each one's longest.

    Args:
        told: by each generator, as `Crowd.faults` has it.
    """
    return [
        _cost(fault, [each[str(number)] for each in told if str(number) in each], timeline)
        for number, fault in enumerate(struck)
    ]


def _cost(fault: Fault, told: Sequence[Mapping[str, Any]], timeline: Timeline) -> dict[str, Any]:
    back, away, ack = (_merged(each[name] for each in told) for name in ("back", "away", "ack"))
    affected = sum(each["affected"] for each in told)
    acked_at = [each["first_ack_at"] for each in told if each["first_ack_at"] is not None]
    wanted = affected * BACK_PERCENT / 100
    back_s = back.percentile_s(100 * wanted / back.count) if back.count and back.count >= wanted else None
    beside = Histogram()
    if affected:
        first = int(fault.at_s - timeline.zero_s)
        last = max(timeline.seconds) if back_s is None else int(fault.at_s + back_s - timeline.zero_s) + 1
        for number in range(first, last + 1):
            if number in timeline.seconds:
                beside.merge(timeline.seconds[number].durations["beside"])
    return {
        "kind": fault.kind,
        "node": fault.node,
        "at_s": round(fault.at_s - timeline.zero_s, 1),
        "restart_s": None if fault.ready_at_s is None else round(fault.ready_at_s - fault.at_s, 2),
        "affected": affected,
        "back": back.count,
        "away_ms": away.percentiles_ms(PERCENTS),
        "ack_ms": ack.percentiles_ms(PERCENTS),
        "first_ack_ms": round((min(acked_at) - fault.at_s) * 1000, 1) if acked_at else None,
        "back_99_ms": None if back_s is None else round(back_s * 1000, 1),
        "beside_ack_ms": beside.percentiles_ms(PERCENTS),
    }


def _merged(parts: Iterable[Mapping[str, Any]]) -> Histogram:
    merged = Histogram()
    for part in parts:
        merged.merge(Histogram.from_dict(part))
    return merged
