"""A quiz as its author wrote it. Immutable: an edit makes another one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from engine.domain.errors import DomainError
from engine.domain.questions import (
    MultipleChoice,
    Numeric,
    Question,
    SingleChoice,
    TrueFalse,
    TypedText,
    read_question,
)
from engine.domain.scoring import Scoring
from engine.domain.validation import Fields, Problems, shown

__all__ = ["MultipleChoice", "Numeric", "Question", "Quiz", "SingleChoice", "TrueFalse", "TypedText"]

TITLE_MAX: Final = 120
DESCRIPTION_MAX: Final = 500
QUESTIONS_MAX: Final = 200
PROBLEMS_MAX: Final = 50

_FIELDS: Final = ("title", "description", "language", "scoring", "questions")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Quiz:
    """Title, scoring and 1 to 200 questions in the order in which they are asked."""

    title: str
    description: str
    language: str
    scoring: Scoring
    questions: tuple[Question, ...]

    @classmethod
    def parse(cls, data: object) -> Quiz:
        """From the data of a JSON or YAML document (docs/quizzes.md).

        Raises:
            DomainError: the first thing that is wrong, with the path of the field.
        """
        quiz = cls._read(data, Problems(1))
        assert quiz is not None, "with a bound of one, the first problem is raised"
        return quiz

    @classmethod
    def stored(cls, data: object) -> Quiz:
        """From a document that was stored, by this release or another: unknown fields are passed over, and
        rules of today do not count.

        Raises:
            DomainError: the first thing that cannot be used.
        """
        quiz = cls._read(data, Problems(1, strict=False))
        assert quiz is not None, "with a bound of one, the first problem is raised"
        return quiz

    @classmethod
    def problems(cls, data: object) -> list[DomainError]:
        """All that is wrong with a document, in its order, up to 50; empty when `parse` would take it."""
        problems = Problems(PROBLEMS_MAX)
        # The one that reaches the bound is raised, and it is among those found.
        with suppress(DomainError):
            cls._read(data, problems)
        return problems.found

    @classmethod
    def _read(cls, data: object, problems: Problems) -> Quiz | None:
        if not isinstance(data, Mapping):
            problems.add("invalid_quiz", f"a quiz must be a mapping of fields, not {shown(data)}", "")
            return None
        fields = Fields(data, "", problems, _FIELDS)
        title = fields.text("title", TITLE_MAX)
        description = fields.text("description", DESCRIPTION_MAX, shortest=0, default="")
        language = fields.text("language", 35, default="en")
        if language and not _LANGUAGE.fullmatch(language):
            fields.rule("language", f"must be a language tag such as en or pt-BR, not {shown(language)}")
        scoring = Scoring.read(data["scoring"], "scoring", problems) if "scoring" in data else Scoring()
        questions = tuple(question for question in _read_questions(fields) if question is not None)
        return None if problems.count else cls(title, description, language, scoring, questions)

    def to_dict(self) -> dict[str, object]:
        """The document: `Quiz.parse(quiz.to_dict()) == quiz`."""
        return {
            "title": self.title,
            "description": self.description,
            "language": self.language,
            "scoring": self.scoring.to_dict(),
            "questions": [question.to_dict() for question in self.questions],
        }


def _read_questions(fields: Fields) -> list[Question | None]:
    if not fields.has("questions"):
        fields.add("questions", "`questions` is missing", "missing_field")
        return []
    entries = fields.get("questions")
    if not isinstance(entries, list | tuple):
        fields.add("questions", f"must be a list of questions, not {shown(entries)}")
        return []
    if not entries:
        fields.add("questions", "a quiz needs at least one question", "no_questions")
        return []
    # Said before any of them is looked at: what is far too long must not cost time either.
    if len(entries) > QUESTIONS_MAX and fields.rule(
        "questions",
        f"a quiz has at most {QUESTIONS_MAX} questions, not {len(entries)}",
        "too_many_questions",
    ):
        return []
    return [read_question(entry, f"questions[{at}]", fields.problems) for at, entry in enumerate(entries)]
