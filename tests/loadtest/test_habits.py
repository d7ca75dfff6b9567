"""What bots answer, and that a seed fixes it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.bots.habits import IN_TIME_SHARE, CrowdPlan, Habits
from loadtest.bots.knowledge import Knowledge, guess, mistyped, wrong
from tests.loadtest.scripted import Message, question

QUIZ = {
    "questions": [
        {"type": "single", "text": "One?", "choices": ["a", "b", "c"], "correct": "b"},
        {"type": "multiple", "text": "Many?", "choices": ["a", "b", "c"], "correct": ["c", "a"]},
        {"type": "true_false", "text": "True?", "correct": False},
        {"type": "text", "text": "Type?", "accept": ["Oslo", "Kristiania"]},
        {"type": "numeric", "text": "How many?", "correct": 42.5, "tolerance": 1},
    ]
}


def asked(number: int) -> Message:
    known: dict[str, Any] = QUIZ["questions"][number - 1]
    return question(
        number, number, type=known["type"], text=known["text"], choices=known.get("choices"), points=1000
    )


@pytest.mark.parametrize(("number", "choice"), [(1, 1), (2, [0, 2]), (3, False), (4, "Oslo"), (5, 42.5)])
def test_the_right_choice_as_the_wire_wants_it(number: int, choice: object) -> None:
    assert Knowledge(QUIZ).right(asked(number)) == choice


def test_knowledge_of_another_quiz_is_no_knowledge() -> None:
    knowledge = Knowledge(QUIZ)
    assert knowledge.right(asked(1) | {"text": "Another?"}) is None
    assert knowledge.right(asked(1) | {"number": 6}) is None
    assert knowledge.right(asked(1) | {"choices": ["x", "y"]}) is None
    assert Knowledge().right(asked(1)) is None


@given(seed=st.integers(0, 10_000), number=st.integers(1, 5))
@settings(max_examples=100)
def test_wrong_is_wrong_and_guesses_fit(seed: int, number: int) -> None:
    rng = random.Random(seed)
    right = Knowledge(QUIZ).right(asked(number))
    assert wrong(asked(number), right, rng) != right
    choice = guess(asked(number), rng)
    fits = {
        1: lambda: choice in (0, 1, 2),
        2: lambda: choice == sorted(set(choice)) and choice and set(choice) <= {0, 1, 2},  # type: ignore[arg-type, call-overload]
        3: lambda: isinstance(choice, bool),
        4: lambda: isinstance(choice, str) and choice,
        5: lambda: isinstance(choice, int),
    }
    assert fits[number]()


@given(text=st.text(min_size=1, max_size=20), seed=st.integers(0, 1000))
@settings(max_examples=100)
def test_typos_leave_something_to_read(text: str, seed: int) -> None:
    assert mistyped(text, random.Random(seed))


def test_the_seed_and_the_number_fix_what_a_bot_does() -> None:
    def intents(seed: int, number: int) -> list[object]:
        habits = Habits(CrowdPlan(10, seed=seed), number, Knowledge(QUIZ))
        return [habits.intend(asked(each)) for each in range(1, 6)]

    assert intents(1, 1) == intents(1, 1)
    assert intents(1, 1) != intents(1, 2)
    assert intents(1, 1) != intents(2, 1)


def test_a_crowd_is_mixed_and_answers_in_time() -> None:
    plan = CrowdPlan(300)
    crowd = [Habits(plan, number, Knowledge(QUIZ)) for number in range(1, 301)]
    intents = [habits.intend(asked(1)) for habits in crowd]
    spoken = [intent for intent in intents if intent is not None]
    right = sum(intent.choice == 1 for intent in spoken)
    assert 0.5 < right / len(spoken) < 0.9
    assert 1 <= intents.count(None) <= 25
    assert 15 <= sum(habits.by_http for habits in crowd) <= 50
    assert any(intent.twice for intent in spoken)
    assert any(intent.cut_after_s is not None for intent in spoken)
    assert all(0 < intent.think_s <= 20 * IN_TIME_SHARE for intent in spoken)


def test_a_short_remainder_hurries_everyone() -> None:
    habits = Habits(CrowdPlan(1, silent_share=0.0), 1, Knowledge())
    intent = habits.intend(asked(1) | {"remaining_ms": 300})
    assert intent is not None
    assert intent.think_s <= 0.27
