"""The last minutes of a node: samples from what it counts anyway, and what has happened."""

from __future__ import annotations

from dataclasses import replace

from engine.latency import BOUNDS_S, Latency, LatencyStatistics
from server.runtime.history import EVENTS_MAX, SAMPLES_MAX, History, Reading, percentile_ms

NONE = Latency().statistics()


def counted(*counts: int) -> LatencyStatistics:
    return replace(NONE, counts=counts + (0,) * (len(BOUNDS_S) - len(counts)))


def test_a_sample_is_the_difference_of_two_readings() -> None:
    history = History()
    history.take(Reading(10_000, counted(4), sessions=1, players=3, acks=4))
    assert history.samples() == []
    history.take(Reading(15_000, counted(4, 0, 0, 10), sessions=2, players=9, acks=14, refused=1, busy=0.5))
    (sample,) = history.samples()
    assert (sample.at, sample.answers_per_s, sample.refused_per_s) == (15_000, 2.0, 0.2)
    assert (sample.sessions, sample.players, sample.busy) == (2, 9, 0.5)
    # The four that were quick are those of before.
    assert sample.p50_ms is not None
    assert 1000 * BOUNDS_S[2] < sample.p50_ms < 1000 * BOUNDS_S[3]


def test_a_time_without_answers_has_no_latency() -> None:
    history = History()
    for at in (0, 5_000):
        history.take(Reading(at, counted(7), acks=7))
    (sample,) = history.samples()
    assert (sample.answers_per_s, sample.p50_ms, sample.p99_ms) == (0, None, None)


def test_percentiles_lie_within_their_bucket_and_below_the_last_finite_bound() -> None:
    assert percentile_ms((1.0, 2.0, float("inf")), [0, 100, 0], 50) == 1_500
    assert percentile_ms((1.0, 2.0, float("inf")), [0, 1, 99], 99) == 2_000
    assert percentile_ms((1.0, 2.0, float("inf")), [0, 0, 0], 99) is None


def test_no_more_is_kept_than_a_quarter_of_an_hour_and_so_many_events() -> None:
    history = History()
    for number in range(2 * SAMPLES_MAX):
        history.take(Reading(5_000 * number, NONE, counted={"taken_over": number}))
    samples, events = history.samples(), history.events()
    assert (len(samples), len(events)) == (SAMPLES_MAX, EVENTS_MAX)
    assert samples[-1].at - samples[0].at == 5_000 * (SAMPLES_MAX - 1)
    assert history.samples(samples[-3].at) == samples[-2:]
    assert history.events(events[-2].at) == events[-1:]


def test_what_has_changed_is_told_once() -> None:
    history = History()
    first = Reading(0, NONE, members=frozenset({"a", "b"}), states={"postgresql": "ok"})
    history.take(first)
    assert [event.kind for event in history.events()] == ["started"]
    second = replace(
        first,
        at=5_000,
        counted={"taken_over": 2, "handed_on": 0, "crashed": 1},
        quarantined=1,
        draining=True,
        members=frozenset({"a", "c"}),
        states={"postgresql": "degraded"},
    )
    history.take(second)
    history.take(replace(second, at=10_000))
    told = [(event.kind, event.count, event.about, event.state) for event in history.events(0)]
    assert told == [
        ("taken_over", 2, "", None),
        ("crashed", 1, "", None),
        ("quarantined", 1, "", None),
        ("draining", 1, "", None),
        ("node_joined", 1, "c", None),
        ("node_left", 1, "b", None),
        ("component", 1, "postgresql", "degraded"),
    ]
    history.take(replace(second, at=15_000, states={"postgresql": "ok"}))
    (back,) = history.events(10_000)
    assert (back.about, back.state) == ("postgresql", "ok")


def test_what_is_not_known_is_no_event() -> None:
    history = History()
    for at, state in enumerate(["unknown", "ok", "unknown", "degraded", "unknown", "degraded", "ok"]):
        history.take(Reading(at, NONE, states={"loop": state}))  # type: ignore[dict-item]  # states
    told = [(event.at, event.state) for event in history.events(0)]
    assert told == [(3, "degraded"), (6, "ok")]


def test_a_node_that_starts_in_trouble_says_so() -> None:
    history = History()
    history.take(Reading(0, NONE, states={"postgresql": "down", "redis": "ok"}))
    assert [(event.kind, event.about) for event in history.events()] == [
        ("started", ""),
        ("component", "postgresql"),
    ]
