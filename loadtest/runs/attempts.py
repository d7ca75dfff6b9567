"""How ledgers number answers: by the question, and in each attempt after the first so much higher."""

from __future__ import annotations

from typing import Final

_STEP: Final = 1_000
"""More than a quiz may have questions."""


def numbered(question: int, attempt: int) -> int:
    return question + (attempt - 1) * _STEP


def question_of(number: int) -> int:
    return number % _STEP


def attempt_of(number: int) -> int:
    return number // _STEP + 1


def named(number: int) -> str:
    """For people."""
    attempt = attempt_of(number)
    question = f"question {question_of(number)}"
    return question if attempt == 1 else f"{question} of attempt {attempt}"
