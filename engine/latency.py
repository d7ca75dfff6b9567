"""Durations counted in buckets."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, inf)


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """`counts[i]` durations were at most `bounds_s[i]` and above the bound before it."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)

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

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self._sum_s += duration_s

    def statistics(self) -> LatencyStatistics:
        return LatencyStatistics(BOUNDS_S, tuple(self._counts), self._sum_s)
