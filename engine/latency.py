"""Durations counted in buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, inf
from typing import NamedTuple

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, inf)
"""The promises to players (0.5 and 1 s) and what is called slow (0.25 s) are among them: alerts ask there."""


class Exemplar(NamedTuple):
    """One duration with its trace, and its moment in ms since the epoch."""

    duration_s: float
    trace_id: str
    at: int


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """`counts[i]` durations were at most `bounds_s[i]` and above the bound before it; `exemplars` has the
    last one of bucket `i` that is traced."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def __add__(self, other: LatencyStatistics) -> LatencyStatistics:
        """Both as one. Exemplars of `other` count first."""
        counts = tuple(map(sum, zip(self.counts, other.counts, strict=True)))
        exemplars = {**self.exemplars, **other.exemplars}
        return LatencyStatistics(self.bounds_s, counts, self.sum_s + other.sum_s, exemplars)

    def percentile_s(self, percent: float) -> float:
        """The bound under which `percent` of the durations lie; 0 without any."""
        wanted = self.count * percent / 100
        seen = 0
        for bound_s, count in zip(self.bounds_s, self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound_s
        return 0.0


class Latency:
    """Counts durations since its creation."""

    def __init__(self) -> None:
        self._counts = [0] * len(BOUNDS_S)
        self._sum_s = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self._sum_s += duration_s

    def note(self, exemplar: Exemplar) -> None:
        """A duration that was added is traced."""
        self._exemplars[bisect_left(BOUNDS_S, exemplar.duration_s)] = exemplar

    def statistics(self) -> LatencyStatistics:
        return LatencyStatistics(BOUNDS_S, tuple(self._counts), self._sum_s, dict(self._exemplars))


NO_LATENCY = Latency().statistics()
"""Of no durations."""


MINUTE_S = 60.0

KEPT_MAX = 240
"""Durations that are kept for the last minute: four a second."""


class Percentiles(NamedTuple):
    """Of the durations of the last minute, in seconds."""

    p50_s: float
    p99_s: float


class LastMinute:
    """Keeps the durations of the last minute, `KEPT_MAX` of them at most."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, float]] = deque(maxlen=KEPT_MAX)

    def add(self, now_s: float, duration_s: float) -> None:
        self._kept.append((now_s, duration_s))

    def percentiles(self, now_s: float) -> Percentiles | None:
        """None without a duration in the last minute."""
        found = sorted(duration_s for at_s, duration_s in self._kept if at_s >= now_s - MINUTE_S)
        if not found:
            return None
        return Percentiles(*(found[ceil(len(found) * share) - 1] for share in (0.5, 0.99)))


class Failure(NamedTuple):
    """An error of a service, and its moment by trio's clock."""

    at_s: float
    text: str


class Signs:
    """What the signs of life to a service have shown: how long its answers took, and its last error.

    Args:
        total: counts all answers, those of others with the same `total` among them.
    """

    def __init__(self, total: Latency | None = None) -> None:
        self.latency = LastMinute()
        self.total = total or Latency()
        self.failure: Failure | None = None

    def answered(self, asked_s: float, now_s: float) -> None:
        """The service has answered, at `now_s`, a question of `asked_s`."""
        self.latency.add(now_s, now_s - asked_s)
        self.total.add(now_s - asked_s)

    def failed(self, now_s: float, text: str) -> None:
        self.failure = Failure(now_s, text)
