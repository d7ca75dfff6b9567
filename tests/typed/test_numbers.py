"""How typed numbers and codes are read: the table in numbers.txt, in a file and by the pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.session_keys import is_session_key
from server.quizfile import QuizFileError, parse
from server.text_input import numbers_of, session_key_of
from tests.typed.table import rows

ROWS = [
    ["" if typed == "(empty)" else typed, languages.split(), page, file or page, why]
    for typed, languages, page, file, why in rows("numbers.txt", 5)
]
QUIZ = "title: T\nquestions:\n- type: numeric\n  text: How high?"
CODES = list(rows("codes.txt", 2))


def said(numbers: list[Any]) -> str:
    return " or ".join(f"{each:.15g}" for each in numbers) or "none"


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(ROWS) >= 60
    assert len({language for row in ROWS for language in row[1]}) >= 12


@pytest.mark.parametrize(
    ("typed", "languages", "page", "file", "why"), ROWS, ids=[f"{row[0]}:{'-'.join(row[1])}" for row in ROWS]
)
def test_a_number_in_a_file_is_read(typed: str, languages: list[str], page: str, file: str, why: str) -> None:
    try:
        [question] = parse(f"{QUIZ}\n  correct: {json.dumps(typed)}", "quiz.yaml").quiz.questions
    except QuizFileError as error:
        [problem] = error.problems
        if file == "none":
            assert problem.message.startswith("must be a number, not "), why
        else:
            assert f"may be {file}: write it without" in problem.message, why
    else:
        assert said([question.correct]) == file, why


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_number_as_python_writes_it_is_that_number(number: float) -> None:
    found = numbers_of(str(number))
    assert number in found
    assert len(found) == 1 or len(str(number).partition(".")[2]) == 3


@given(st.text("0123456789.,'+-eE \u0661\u066b\u066c\u200e\uff15", max_size=12) | st.text(max_size=90))
def test_any_text_has_at_most_two_meanings(text: str) -> None:
    assert len(numbers_of(text)) <= 2


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"8849"', 8849),
        ("8,849.5", 8849.5),
        ("٨٨٤٩", 8849),
        ("−5", -5),
        ('"–0,5"', -0.5),
        ("8.849", 8.849),  # a number of YAML
        ("1 000 000", 1_000_000),
    ],
)
def test_a_quiz_file_has_numbers_as_people_write_them(written: str, read: float) -> None:
    [question] = parse(f"{QUIZ}\n  correct: {written}\n  points: ١٠٠", "quiz.yaml").quiz.questions
    assert (question.correct, question.points) == (read, 100)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("8,849", "'8,849' may be 8849 or 8.849: write it without a sign between groups of digits"),
        ('"8.849"', "'8.849' may be 8849 or 8.849: write it without a sign between groups of digits"),
        ("high", "must be a number, not 'high'"),
    ],
)
def test_a_number_in_doubt_is_a_mistake(written: str, message: str) -> None:
    with pytest.raises(QuizFileError) as caught:
        parse(f"{QUIZ}\n  correct: {written}", "quiz.yaml")
    [problem] = caught.value.problems
    assert (problem.message, problem.path, problem.line) == (message, "questions[0].correct", 5)


@pytest.mark.parametrize(("typed", "what"), CODES, ids=[row[1] for row in CODES])
def test_a_code_is_read_however_it_is_typed(typed: str, what: str) -> None:
    assert session_key_of(typed) == "123456"


def test_an_id_is_read_and_all_else_is_left_as_it_is() -> None:
    key = "0190a8f0-7a3b-4c4d-8e5f-123456789abc"
    assert session_key_of(f" {key.upper()}\n") == key
    for text in ("", "12345", "1234567", "a quiz", "http://192.168.1.50:5001/"):
        assert session_key_of(text) == text


@given(st.text(max_size=40))
def test_what_is_found_in_any_text_is_a_key_or_the_text(text: str) -> None:
    found = session_key_of(text)
    assert found == text or is_session_key(found)
