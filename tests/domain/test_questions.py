from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import DomainError, Refusal
from engine.domain.quiz import Question
from tests.domain.making import ONE_OF_EACH, question_of, quiz_of

SINGLE, MULTIPLE, TRUE_FALSE, TYPED, NUMERIC = quiz_of().questions
NUMBERS: list[Any] = [0, 1, -1, 0.0, 1e300]
NOT_NUMBERS: list[Any] = [None, True, "1", [], {}, math.nan, math.inf, -math.inf, 10**400]


def refused(question: Question, raw: object) -> bool:
    read = question.read(raw)
    assert not isinstance(read, Refusal) or read.code == "bad_choice"
    return isinstance(read, Refusal)


@pytest.mark.parametrize("raw", [-1, 3, True, False, 1.0, "1", "b", None, [1], {}, 10**30])
def test_a_single_choice_is_one_index(raw: object) -> None:
    assert refused(SINGLE, raw)


def test_single_choice() -> None:
    assert [SINGLE.read(i) for i in range(3)] == [0, 1, 2]
    assert [SINGLE.judge(i) for i in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    "raw", [[], [0, 0], [3], [-1], [True], [0, True], [0.0], ["a"], 0, "a", None, {}, [[0]], [0, 1, 2, 2]]
)
def test_a_multiple_choice_is_a_list_of_different_indices(raw: object) -> None:
    assert refused(MULTIPLE, raw)


def test_multiple_choice_is_right_as_a_whole_in_any_order() -> None:
    assert MULTIPLE.read([2, 0]) == (0, 2)
    assert MULTIPLE.judge((0, 2))
    assert not any(MULTIPLE.judge(choice) for choice in [(0,), (2,), (0, 1), (0, 1, 2), (1,)])


@pytest.mark.parametrize("raw", [0, 1, "true", None, [], {}, 1.0])
def test_true_or_false_is_nothing_else(raw: object) -> None:
    assert refused(TRUE_FALSE, raw)


def test_true_false() -> None:
    assert TRUE_FALSE.read(False) is False
    assert TRUE_FALSE.judge(True)
    assert not TRUE_FALSE.judge(False)


@pytest.mark.parametrize("raw", ["", "  ", "\u200b", "\x00", "x" * 201, 5, None, True, ["a"], {}])
def test_typed_text_is_visible_text_of_at_most_200_characters(raw: object) -> None:
    assert refused(TYPED, raw)


def test_typed_text_is_kept_as_typed_and_judged_as_folded() -> None:
    assert TYPED.read("  SAO\tpaulo\x00 ") == "SAO paulo"
    assert TYPED.read("x" * 200) == "x" * 200
    assert all(TYPED.judge(text) for text in ["SAO paulo", "são  paulo", "SAMPA"])
    assert not any(TYPED.judge(text) for text in ["Paulo", "saopaulo", "São Paulo, Brazil"])


def test_a_quiz_says_how_much_of_a_typed_answer_has_to_be_right() -> None:
    accept = ["Résumé", "Resume"]
    assert question_of(type="text", accept=accept, match="spelling").public()["match"] == "spelling"
    with pytest.raises(DomainError) as caught:
        question_of(type="text", accept=accept)
    assert (caught.value.code, caught.value.path) == ("duplicate_choice", "questions[0].accept[1]")
    with pytest.raises(DomainError) as caught:
        question_of(type="text", accept=accept, match="strict")
    assert (caught.value.code, caught.value.path) == ("bad_field", "questions[0].match")


def test_spellings_that_only_look_redundant_may_be_listed() -> None:
    """A quiz that lists what an earlier release did not know to be the same is still a quiz."""
    accept = ["USA", "U.S.A.", "e-mail", "email", "Lisbon", "Lisbon."]
    assert question_of(type="text", accept=accept).correct == accept


@pytest.mark.parametrize("raw", NOT_NUMBERS)
def test_a_numeric_choice_is_a_finite_number(raw: object) -> None:
    assert refused(NUMERIC, raw)


@pytest.mark.parametrize(
    ("correct", "tolerance", "right", "wrong"),
    [
        (0.2, 0.1, [0.1, 0.2, 0.3, 0.30], [0.30000000000000004, 0.09999999999999999, 0, -0.2]),
        (3, 0, [3, 3.0], [3.0000001, 2, -3]),
        (0, 0, [0, -0.0, 0.0], [5e-324]),
        (1e300, 1e-300, [1e300, 10**300], [1.0000000000000002e300]),
        (8849, 50, [8799, 8899, 8849.5], [8798.9, 8900]),
    ],
)
def test_numbers_are_compared_as_people_write_them(
    correct: float, tolerance: float, right: list[float], wrong: list[float]
) -> None:
    question = question_of(type="numeric", correct=correct, tolerance=tolerance)
    for raws, expected in ((right, True), (wrong, False)):
        for raw in raws:
            choice = question.read(raw)
            assert not isinstance(choice, Refusal)
            assert question.judge(choice) is expected, raw


def test_a_whole_number_too_large_for_json_is_kept_as_a_float() -> None:
    assert NUMERIC.read(2**53) == 2**53
    read = NUMERIC.read(10**100)
    assert isinstance(read, float)
    json.dumps(read)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=6,
    )
)
def test_any_choice_is_read_or_refused(raw: object) -> None:
    for question in (SINGLE, MULTIPLE, TRUE_FALSE, TYPED, NUMERIC):
        read = question.read(raw)
        if isinstance(read, Refusal):
            assert read.code == "bad_choice"
        else:
            correct = question.judge(read)
            assert isinstance(correct, bool)
            again = json.loads(json.dumps(read))
            assert question.read(again) == read
            assert sum(question.count([(read, correct)])) >= 1


def test_counts_per_choice() -> None:
    assert SINGLE.count([(0, False), (1, True), (1, True)]) == [1, 2, 0]
    assert MULTIPLE.count([((0, 2), True), ((2,), False)]) == [1, 0, 2]
    assert TRUE_FALSE.count([(True, True), (False, False), (False, False)]) == [1, 2]
    assert TYPED.count([("Sampa", True), ("Rio", False), ("x", False)]) == [1, 2]
    assert NUMERIC.count([(0.2, True)]) == [1, 0]


def test_what_a_reveal_calls_correct() -> None:
    assert [q.correct for q in (SINGLE, MULTIPLE, TRUE_FALSE, TYPED, NUMERIC)] == [
        1,
        [0, 2],
        True,
        ["São Paulo", "Sampa"],
        0.2,
    ]


def test_what_everyone_may_see() -> None:
    question = question_of(
        type="single", text="Which?", choices=["x", "y"], correct="y", time_limit_s=2.5, points=7
    )
    assert question.public() == {
        "type": "single",
        "text": "Which?",
        "choices": ["x", "y"],
        "limit_ms": 2500,
        "points": 7,
    }
    assert TYPED.public()["match"] == "loose"
    assert [q.public()["choices"] for q in (TRUE_FALSE, TYPED, NUMERIC)] == [None, None, None]


RIGHT_ANSWERS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "single": st.fixed_dictionaries({"correct": st.sampled_from(["a", "b", "c"])}),
    "multiple": st.fixed_dictionaries(
        {"correct": st.lists(st.sampled_from(["a", "b", "c"]), unique=True, min_size=1)}
    ),
    "true_false": st.fixed_dictionaries({"correct": st.booleans()}),
    "text": st.fixed_dictionaries(
        {"accept": st.lists(st.text("abcdef", min_size=1, max_size=5), min_size=1, max_size=5, unique=True)}
    ),
    "numeric": st.fixed_dictionaries({"correct": st.integers(), "tolerance": st.floats(0, 1e9)}),
}


@given(st.data())
def test_nothing_that_everyone_may_see_depends_on_the_right_answer(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(ONE_OF_EACH))
    one, other = (question_of(**{**base, **data.draw(RIGHT_ANSWERS[base["type"]])}) for _ in range(2))
    assert one.public() == other.public()
