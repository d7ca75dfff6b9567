"""How long reads and commits wait for company: not at all on a quiet node, calmly under a load that stays."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.actors.pacing import BUSY_MAX, BUSY_MIN, STARVED_TO, WAIT_MAX_MS, Pacing

BEAT_S = 0.25
BUSY = 1.0
SHARES = st.floats(0, 1)


def follow(pacing: Pacing, busy: float, seconds: float, starved: float = 0.0) -> float:
    """Milliseconds after so long."""
    for _ in range(round(seconds / BEAT_S)):
        pacing.follow(busy, BEAT_S, starved)
    return 1000 * pacing.wait_s


@given(st.lists(st.tuples(SHARES, st.floats(0.001, 20), SHARES), max_size=50))
def test_the_distance_stays_within_its_bounds(readings: list[tuple[float, float, float]]) -> None:
    pacing = Pacing()
    for busy, over_s, starved in readings:
        pacing.follow(busy, over_s, starved)
        assert 0 <= 1000 * pacing.wait_s <= WAIT_MAX_MS


@pytest.mark.parametrize("busy", [0.0, 0.3, BUSY_MAX])
def test_a_quiet_node_waits_for_nobody(busy: float) -> None:
    pacing = Pacing()
    assert follow(pacing, busy, 60) == 0


def test_a_node_without_time_to_spare_gathers_within_seconds_and_stops_within_one() -> None:
    pacing = Pacing()
    assert follow(pacing, BUSY, 3) > 8
    assert follow(pacing, BUSY, 60) == WAIT_MAX_MS
    assert follow(pacing, 0.0, 1) == 0


def test_between_the_bounds_the_distance_stays_as_it_is() -> None:
    pacing = Pacing()
    gathered_ms = follow(pacing, BUSY, 2)
    assert gathered_ms > 0
    follow(pacing, BUSY_MIN + 0.1, 3)
    stays_ms = follow(pacing, BUSY_MIN + 0.1, 1)
    assert stays_ms >= gathered_ms
    assert follow(pacing, BUSY_MIN + 0.1, 60) == stays_ms
    assert follow(pacing, BUSY_MIN - 0.1, 60) == 0


def test_a_busier_node_never_waits_less() -> None:
    distances = [follow(Pacing(), share / 100, 60) for share in range(101)]
    assert distances == sorted(distances)
    assert distances[-1] == pytest.approx(WAIT_MAX_MS)


def test_a_node_that_gets_no_processor_waits_for_nobody_from_the_next_reading_on() -> None:
    pacing = Pacing()
    assert follow(pacing, BUSY, 10) == WAIT_MAX_MS
    assert follow(pacing, BUSY, BEAT_S, starved=STARVED_TO) == 0
    assert follow(pacing, BUSY, BEAT_S, starved=0.9) == 0
    assert follow(pacing, BUSY, BEAT_S) == WAIT_MAX_MS


def test_a_stop_waits_for_nobody() -> None:
    pacing = Pacing()
    follow(pacing, BUSY, 5)
    pacing.end()
    assert pacing.wait_s == 0
    assert follow(pacing, BUSY, 5) == 0


# -- and what comes of it ----------------------------------------------------------------------------


def busy_share(answers_per_s: float, wait_s: float, step_us: float, answer_us: float) -> float:
    """Of a node that takes so long for each batch, and so long for each answer in it."""
    batches_per_s = answers_per_s / (1 + answers_per_s * wait_s)
    return min(1.0, (batches_per_s * step_us + answers_per_s * answer_us) / 1e6)


@given(st.floats(10, 20_000), st.floats(50, 800), st.floats(10, 120))
def test_under_a_load_that_stays_the_distance_does_not_swing(
    answers_per_s: float, step_us: float, answer_us: float
) -> None:
    pacing = Pacing()
    waits_ms = []
    for _ in range(160):
        pacing.follow(busy_share(answers_per_s, pacing.wait_s, step_us, answer_us), BEAT_S)
        waits_ms.append(1000 * pacing.wait_s)
    late = waits_ms[120:]
    changes = [after - before for before, after in pairwise(late)]
    longer, shorter = (sum(max(sign * change, 0) for change in changes) for sign in (1, -1))
    assert min(longer, shorter) < 0.001, "it nears its rest from one side, however slowly"


@given(st.floats(10, 20_000), st.floats(50, 800), st.floats(10, 120))
def test_after_a_load_the_distance_is_gone_within_a_second(
    answers_per_s: float, step_us: float, answer_us: float
) -> None:
    pacing = Pacing()
    for _ in range(160):
        pacing.follow(busy_share(answers_per_s, pacing.wait_s, step_us, answer_us), BEAT_S)
    assert follow(pacing, 0.0, 1) == 0
