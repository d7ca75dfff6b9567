from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import DomainError
from engine.domain.facts import AnswerAccepted
from engine.domain.rescoring import marks
from engine.domain.scoring import Scoring
from tests.domain.making import quiz_of, singles, started

SPEED = Scoring()


@pytest.mark.parametrize(
    ("elapsed_ms", "points"),
    [
        (0, 1000),
        (499, 1000),
        (500, 992),
        (2_000, 967),
        (15_000, 750),
        (30_000, 500),
        (40_000, 500),
        (-5, 1000),
    ],
)
def test_speed_over_30_s_at_1000_points(elapsed_ms: int, points: int) -> None:
    assert SPEED.points(1000, 30_000, elapsed_ms, True, 1) == points


def test_halves_are_rounded_up() -> None:
    assert SPEED.points(1, 10_000, 10_000, True, 1) == 1
    assert SPEED.points(5, 10_000, 10_000, True, 1) == 3


@given(
    points=st.integers(0, 10_000),
    limit_ms=st.integers(1_000, 600_000),
    share=st.fractions(0, 1),
)
def test_speed_is_the_formula(points: int, limit_ms: int, share: Fraction) -> None:
    elapsed_ms = int(limit_ms * share)
    exact = points * (1 - Fraction(elapsed_ms, limit_ms) / 2)
    expected = points if elapsed_ms < 500 else floor(exact + Fraction(1, 2))
    assert SPEED.points(points, limit_ms, elapsed_ms, True, 1) == expected
    assert 2 * expected >= points


@given(rule=st.sampled_from(["speed", "flat"]), streak=st.booleans(), elapsed_ms=st.integers(0, 30_000))
def test_a_wrong_answer_earns_nothing(rule: str, streak: bool, elapsed_ms: int) -> None:
    assert Scoring(rule, streak).points(1000, 30_000, elapsed_ms, False, 0) == 0


def test_flat_does_not_look_at_the_time() -> None:
    assert [Scoring("flat").points(2000, 30_000, at, True, 1) for at in (0, 15_000, 30_000)] == [2000] * 3


def test_streak_bonus_begins_at_the_second_and_ends_at_500() -> None:
    scoring = Scoring("flat", streak=True)
    earned = [scoring.points(1000, 30_000, 0, True, streak) for streak in range(1, 9)]
    assert earned == [1000, 1100, 1200, 1300, 1400, 1500, 1500, 1500]


def test_streak_bonus_is_off_by_default() -> None:
    assert Scoring("flat").points(1000, 30_000, 0, True, 5) == 1000


def test_a_question_worth_nothing_earns_no_bonus() -> None:
    assert Scoring("flat", streak=True).points(0, 30_000, 0, True, 5) == 0


def test_an_unknown_rule_cannot_be_built() -> None:
    with pytest.raises(DomainError, match="speed, flat"):
        Scoring("fastest")


@pytest.mark.parametrize(
    ("settings", "earned"),
    [
        ({}, [1000, 967 + 100]),
        ({"scoring": "flat"}, [1000, 1000 + 100]),
        ({"streak": False}, [1000, 967]),
        ({"scoring": "flat", "streak": False}, [1000, 1000]),
    ],
)
def test_a_session_may_score_otherwise_than_its_quiz(settings: dict[str, Any], earned: list[int]) -> None:
    quiz = quiz_of(*singles(3), scoring={"rule": "speed", "streak": True})
    session = started(1, quiz, early_close=False, **settings)
    points = []
    for number, elapsed_ms in ((1, 0), (2, 2_000)):
        answered = session.answer(1, number, 1, (session.opened_at or 0) + elapsed_ms)
        assert isinstance(answered, AnswerAccepted)
        points.append(answered.points)
        session.close((session.opened_at or 0) + 3_000)
        session.next((session.opened_at or 0) + 4_000)
    assert points == earned
    facts = session.take_facts()
    assert [mark.points for mark in marks(session.quiz, facts).values()] == earned, (
        "marked again it is the same"
    )
