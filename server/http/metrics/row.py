"""One metric: a row of a table, and how it is written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from math import inf
from typing import Generic, Literal, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar

from engine.latency import LatencyStatistics

S = TypeVar("S")
Value = (
    float
    | Mapping[str, float]
    | Mapping[tuple[str, ...], float]
    | LatencyStatistics
    | Mapping[tuple[str, ...], LatencyStatistics]
)


@dataclass(frozen=True, slots=True)
class Row(Generic[S]):
    """One metric.

    Args:
        make: of its kind: COUNTER, GAUGE or HISTOGRAM.
        get: reads its value off a snapshot: a number; with labels, numbers by their values; for a histogram
            a latency.
        advice: what to do when it moves, or what it is for, in a short sentence of `docs/metrics.md`.
        over_nodes: how a gauge is aggregated over nodes; `each` is not: it is about one node. None for
            counters and histograms, whose kind says it.
    """

    make: Callable[[str, str, Value, Sequence[str]], Metric]
    name: str
    help: str
    get: Callable[[S], Value]
    labels: Sequence[str] = ()
    _: KW_ONLY
    advice: str
    over_nodes: Literal["sum", "max", "min", "each"] | None = None


def counter(name: str, help_text: str, value: Value, labels: Sequence[str] = ()) -> Metric:
    return _filled(CounterMetricFamily(name, help_text, labels=labels), value)


def gauge(name: str, help_text: str, value: Value, labels: Sequence[str] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, help_text, labels=labels), value)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, value: Value) -> Metric:
    assert not isinstance(value, LatencyStatistics)
    if not isinstance(value, Mapping):
        family.add_metric([], value)
        return family
    for labels, count in sorted(value.items()):
        assert isinstance(count, int | float)
        family.add_metric([labels] if isinstance(labels, str) else labels, count)
    return family


def _histogram(name: str, help_text: str, latency: Value, labels: Sequence[str] = ()) -> Metric:
    if isinstance(latency, LatencyStatistics):
        return HistogramMetricFamily(name, help_text, _buckets(latency), latency.sum_s)
    assert isinstance(latency, Mapping)
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for values, each in sorted(latency.items()):
        assert isinstance(each, LatencyStatistics)
        family.add_metric(values, _buckets(each), each.sum_s)
    return family


def _buckets(latency: LatencyStatistics) -> list[tuple[str, int] | tuple[str, int, Exemplar]]:
    """As prometheus_client takes them. Exemplars are written out for OpenMetrics alone."""
    buckets: list[tuple[str, int] | tuple[str, int, Exemplar]] = []
    for place, (bound_s, count) in enumerate(zip(latency.bounds_s, accumulate(latency.counts), strict=True)):
        bound = "+Inf" if bound_s == inf else str(bound_s)
        if (found := latency.exemplars.get(place)) is None:
            buckets.append((bound, count))
        else:
            labels = {"trace_id": found.trace_id}
            buckets.append((bound, count, Exemplar(labels, found.duration_s, found.at / 1000)))
    return buckets


COUNTER, GAUGE, HISTOGRAM = counter, gauge, _histogram


def metrics(rows: Iterable[Row[S]], snapshot: S) -> Iterator[Metric]:
    return (row.make(row.name, row.help, row.get(snapshot), row.labels) for row in rows)
