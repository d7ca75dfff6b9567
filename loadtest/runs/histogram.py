"""Durations counted in buckets that grow with them: any percentile to within 3 %, in a few hundred counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_SUB_BITS = 5
_EXACT = 1 << (_SUB_BITS + 1)
"""Below this many microseconds every value has a bucket of its own; above, 32 buckets to each doubling."""


class Histogram:
    """Counts durations. Those that are added up keep what they can tell."""

    __slots__ = ("_counts", "count", "max_s", "sum_s")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, duration_s: float) -> None:
        """A negative duration counts as none."""
        bucket = bucket_of(int(duration_s * 1e6))
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.sum_s += duration_s
        if duration_s > self.max_s:
            self.max_s = duration_s

    def merge(self, other: Histogram) -> None:
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)

    def percentile_s(self, percent: float) -> float | None:
        """What `percent` of the durations do not exceed, as the middle of its bucket, or the longest itself;
        None of nothing."""
        if not self.count:
            return None
        if percent >= 100:
            return self.max_s
        wanted, seen = self.count * percent / 100, 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(_middle_us(bucket) / 1e6, self.max_s)
        return self.max_s

    def percentiles_ms(self, percents: Iterable[float]) -> dict[str, float | None]:
        """By name, as `p99.9`, in milliseconds to a hundredth."""
        found = {f"p{percent:g}": self.percentile_s(percent) for percent in percents}
        return {name: None if value is None else round(value * 1000, 2) for name, value in found.items()}

    def to_dict(self) -> dict[str, object]:
        return {
            "counts": [[bucket, count] for bucket, count in sorted(self._counts.items())],
            "sum_s": self.sum_s,
            "max_s": self.max_s,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Histogram:
        """From what `to_dict` gave, also after it was JSON."""
        made = cls()
        counts, sum_s, max_s = data["counts"], data["sum_s"], data["max_s"]
        assert isinstance(counts, list)
        assert isinstance(sum_s, float | int)
        assert isinstance(max_s, float | int)
        made._counts = dict(counts)
        made.count = sum(made._counts.values())
        made.sum_s, made.max_s = float(sum_s), float(max_s)
        return made


def bucket_of(microseconds: int) -> int:
    """The number of the bucket. Grows with the duration."""
    if microseconds < _EXACT:
        return max(microseconds, 0)
    doublings = microseconds.bit_length() - (_SUB_BITS + 1)
    return (doublings << _SUB_BITS) + (microseconds >> doublings)


def _middle_us(bucket: int) -> float:
    if bucket < _EXACT:
        return float(bucket)
    doublings = (bucket >> _SUB_BITS) - 1
    least = (bucket - (doublings << _SUB_BITS)) << doublings
    return least + ((1 << doublings) - 1) / 2
