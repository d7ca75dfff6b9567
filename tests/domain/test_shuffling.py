"""The order in which players see questions and choices."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import DomainError
from engine.domain.settings import Settings
from engine.domain.shuffling import order_of_choices, order_of_questions, seed_of

SEEDS = st.integers(0, 2**32 - 1)

VECTORS = [
    (0, 1, 4, [2, 0, 1, 3]),
    (1, 1, 4, [2, 1, 3, 0]),
    (2**32 - 1, 1, 8, [0, 7, 4, 2, 1, 6, 3, 5]),
    (305419896, 7, 6, [4, 0, 5, 2, 1, 3]),
    (305419896, 8, 6, [0, 2, 3, 4, 5, 1]),
]
"""Seed, question, choices, and their order. Clients of other makers compute these too: they never change."""


@pytest.mark.parametrize(("seed", "question", "count", "order"), VECTORS)
def test_the_order_of_choices_is_that_of_the_protocol(
    seed: int, question: int, count: int, order: list[int]
) -> None:
    assert order_of_choices(seed, question, count) == order


def test_a_player_has_the_same_seed_in_every_release() -> None:
    session = "01a223b4-0000-4000-8000-000000000000"
    assert seed_of(session, 1) == 3253509930
    assert seed_of(session, 2) == 4131389248
    assert order_of_questions(3253509930, 10) == [3, 4, 5, 7, 2, 10, 1, 6, 8, 9]


@given(SEEDS, st.integers(1, 200), st.integers(2, 8))
def test_an_order_has_every_choice_once(seed: int, question: int, count: int) -> None:
    assert sorted(order_of_choices(seed, question, count)) == list(range(count))


@given(SEEDS, st.integers(1, 200))
def test_an_order_has_every_question_once(seed: int, count: int) -> None:
    assert sorted(order_of_questions(seed, count)) == list(range(1, count + 1))


def test_no_order_is_preferred() -> None:
    players, questions = range(1, 4_801), range(1, 4_801)
    over_players = Counter(tuple(order_of_choices(seed_of("s", player), 1, 4)) for player in players)
    over_questions = Counter(tuple(order_of_choices(seed_of("s", 7), each, 4)) for each in questions)
    for counted in (over_players, over_questions):
        assert len(counted) == 24
        assert all(140 < count < 260 for count in counted.values())  # of 200 each


@pytest.mark.parametrize("pace", ["host", "auto"])
def test_questions_are_not_shuffled_where_all_get_the_same_one(pace: str) -> None:
    with pytest.raises(DomainError) as refused:
        Settings.parse({"pace": pace, "shuffle_questions": True})
    assert refused.value.path == "shuffle_questions"
