from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.runs.histogram import Histogram, bucket_of

durations = st.lists(st.floats(0.0, 3600.0), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


@given(durations, st.sampled_from([1.0, 50.0, 90.0, 99.0, 100.0]))
def test_a_percentile_is_right_to_three_percent(values: list[float], percent: float) -> None:
    exact = sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]
    assert filled(values).percentile_s(percent) == pytest.approx(exact, rel=0.03, abs=2e-6)


@given(durations, durations)
def test_two_that_are_merged_are_as_one(ours: list[float], theirs: list[float]) -> None:
    merged = filled(ours)
    merged.merge(filled(theirs))
    both = filled(ours + theirs)
    assert merged.percentiles_ms((10, 50, 99, 100)) == both.percentiles_ms((10, 50, 99, 100))
    assert merged.count == both.count
    assert merged.max_s == both.max_s


@given(durations)
def test_what_was_json_is_the_same(values: list[float]) -> None:
    made = filled(values)
    read = Histogram.from_dict(json.loads(json.dumps(made.to_dict())))
    assert read.to_dict() == made.to_dict()
    assert read.count == made.count


@given(st.integers(0, 10**10), st.integers(0, 10**10))
def test_buckets_keep_the_order(one: int, other: int) -> None:
    assert (bucket_of(min(one, other))) <= bucket_of(max(one, other))


def test_the_longest_is_exact() -> None:
    assert filled([0.001, 3.0]).percentiles_ms((100,)) == {"p100": 3000.0}


def test_nothing_has_no_percentile() -> None:
    assert Histogram().percentile_s(99) is None
    assert Histogram().percentiles_ms((99.9,)) == {"p99.9": None}


def test_a_negative_duration_counts_as_none() -> None:
    assert filled([-1.0]).percentile_s(50) == 0.0
