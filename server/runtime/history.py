"""The last minutes of a node, as people look at them: a ring of small samples, and what has happened.

How to think about it: the node counts anyway. Every few seconds its counts are read once; the difference of
two readings is a sample, and what has changed between them is an event. Nothing is noted when it happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from math import isfinite

from engine.latency import LatencyStatistics
from server.wire.api.live import Kind, LiveEvent, LiveSample
from server.wire.api.operations import State

SAMPLE_S = 5.0
"""Between two readings."""

SAMPLES_MAX = 180
"""A quarter of an hour."""

MINUTE_READINGS = 12

EVENTS_MAX = 100

COUNTED: tuple[Kind, ...] = ("taken_over", "handed_on", "not_handed_on", "crashed")
"""Events that are counted since the start of the node."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node counts, at one moment.

    Attributes:
        at: in ms since the epoch.
        busy: the share of the last seconds in which the loop had something to do.
        queued: facts that wait for PostgreSQL.
        acks, refused, counted: since the start; `counted` has those of `COUNTED`.
        quarantined: sessions out of service now.
        members: the names of the other nodes that give signs of life.
        states: of the components, by name.
    """

    at: int
    latency: LatencyStatistics
    sessions: int = 0
    players: int = 0
    connections: int = 0
    queued: int = 0
    busy: float = 0.0
    acks: int = 0
    refused: int = 0
    counted: Mapping[Kind, int] = field(default_factory=dict)
    quarantined: int = 0
    draining: bool = False
    members: Set[str] = frozenset()
    states: Mapping[str, State] = field(default_factory=dict)


class History:
    """Of one node, from its first reading on; bounded."""

    def __init__(self) -> None:
        self._last: Reading | None = None
        self._samples: deque[LiveSample] = deque(maxlen=SAMPLES_MAX)
        self._events: deque[LiveEvent] = deque(maxlen=EVENTS_MAX)
        self._latencies: deque[LatencyStatistics] = deque(maxlen=MINUTE_READINGS + 1)

    def take(self, reading: Reading) -> None:
        """Note a reading, and what has changed since the one before it."""
        last = self._last
        reading = self._last = replace(reading, states=known(last.states if last else {}, reading.states))
        self._latencies.append(reading.latency)
        if last is None:
            self._events.append(LiveEvent(reading.at, "started"))
            last = Reading(reading.at, reading.latency, members=reading.members)
        else:
            self._samples.append(sample(last, reading))
        for event in changes(last, reading):
            self._events.append(event)

    def p99_ms(self) -> float | None:
        """From receipt to ack, of the last minute; None without any answer."""
        if not self._latencies:
            return None
        first, last = self._latencies[0], self._latencies[-1]
        counts = [new - old for new, old in zip(last.counts, first.counts, strict=True)]
        return percentile_ms(last.bounds_s, counts, 99)

    def samples(self, after: int = -1) -> list[LiveSample]:
        """Those after this moment, the oldest first."""
        return [each for each in self._samples if each.at > after]

    def events(self, after: int = -1) -> list[LiveEvent]:
        """Those after this moment, the oldest first."""
        return [each for each in self._events if each.at > after]


def sample(before: Reading, now: Reading) -> LiveSample:
    """What lies between two readings."""
    over_s = max(now.at - before.at, 1) / 1000
    counts = [new - old for new, old in zip(now.latency.counts, before.latency.counts, strict=True)]
    bounds_s = now.latency.bounds_s
    return LiveSample(
        at=now.at,
        answers_per_s=round((now.acks - before.acks) / over_s, 1),
        refused_per_s=round((now.refused - before.refused) / over_s, 1),
        p50_ms=percentile_ms(bounds_s, counts, 50),
        p99_ms=percentile_ms(bounds_s, counts, 99),
        busy=round(now.busy, 3),
        sessions=now.sessions,
        players=now.players,
        connections=now.connections,
        queued=now.queued,
    )


def percentile_ms(bounds_s: tuple[float, ...], counts: list[int], percent: float) -> float | None:
    """As Prometheus estimates it: durations are taken to be spread evenly within their bucket, and those
    above the last finite bound to be as long as that. None without any."""
    wanted = sum(counts) * percent / 100
    below_s = seen = 0.0
    for bound_s, count in zip(bounds_s, counts, strict=True):
        if count and seen + count >= wanted:
            inside = below_s + (bound_s - below_s) * (wanted - seen) / count if isfinite(bound_s) else below_s
            return round(1000 * inside, 1)
        seen += count
        below_s = bound_s
    return None


def known(before: Mapping[str, State], now: Mapping[str, State]) -> Mapping[str, State]:
    """The states with the last one that was known in the place of `unknown`, which is no news."""
    return {name: before.get(name, "ok") if state == "unknown" else state for name, state in now.items()}


def changes(before: Reading, now: Reading) -> Iterator[LiveEvent]:
    """What has happened between two readings. A component that has always been well is no event."""
    at = now.at
    for kind in COUNTED:
        if (count := now.counted.get(kind, 0) - before.counted.get(kind, 0)) > 0:
            yield LiveEvent(at, kind, count)
    if now.quarantined > before.quarantined:
        yield LiveEvent(at, "quarantined", now.quarantined - before.quarantined)
    if now.draining and not before.draining:
        yield LiveEvent(at, "draining")
    for name in sorted(now.members - before.members):
        yield LiveEvent(at, "node_joined", about=name)
    for name in sorted(before.members - now.members):
        yield LiveEvent(at, "node_left", about=name)
    for name, state in now.states.items():
        if state != before.states.get(name, "ok"):
            yield LiveEvent(at, "component", about=name, state=state)
