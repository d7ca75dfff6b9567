"""The key of a question: its correct answer, apart from the rest of the question.

A key is these fields of a quiz file: `correct`, `accept`, or `correct` and `tolerance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from engine.domain.errors import DomainError
from engine.domain.questions import read_question
from engine.domain.quiz import Question, Quiz, TypedText
from engine.domain.validation import Problems

Key = Mapping[str, object]

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "single": ("correct",),
    "multiple": ("correct",),
    "true_false": ("correct",),
    "text": ("accept",),
    "numeric": ("correct", "tolerance"),
}
"""The fields of a key, by the type of the question."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The key of a question was found wrong after the session.

    `number` counts from 1 within the session; `question` as well. `by` and `reason` are for people; both may
    be empty.
    """

    number: int
    question: int
    old_key: Key
    new_key: Key
    by: str
    reason: str
    at: int


def key_of(question: Question) -> Key:
    data = question.own_dict()
    return {name: data[name] for name in FIELDS[question.type]}


def with_key(quiz: Quiz, number: int, key: Key, *, strict: bool = True) -> Quiz:
    """The quiz with another key for the question `number`, counted from 1. Fields that the key leaves out
    stay as they are. `strict`: the question has to keep the rules of today.

    Raises:
        DomainError: there is no such question, or this cannot be its key; the path is that of a quiz file.
    """
    if not 1 <= number <= len(quiz.questions):
        raise DomainError(
            "bad_field", f"the quiz has questions 1 to {len(quiz.questions)}, not {number}", "question"
        )
    question = quiz.questions[number - 1]
    known = FIELDS[question.type]
    for name in key:
        if name not in known:
            raise DomainError(
                "unknown_field", f"'{name}' is not a field here; known are: {', '.join(known)}", name
            )
    changed = read_question(
        {**question.to_dict(), **key}, f"questions[{number - 1}]", Problems(1, strict=strict)
    )
    assert changed is not None, "with a bound of one, the first problem is raised"
    if isinstance(question, TypedText) and isinstance(changed, TypedText):
        changed = replace(changed, foldings=question.foldings)
    return replace(quiz, questions=(*quiz.questions[: number - 1], changed, *quiz.questions[number:]))


def corrected(quiz: Quiz, corrections: Sequence[Correction]) -> Quiz:
    """The quiz with the keys that hold after all corrections, made in their order. Raises DomainError."""
    for each in corrections:
        quiz = with_key(quiz, each.question, each.new_key, strict=False)
    return quiz
