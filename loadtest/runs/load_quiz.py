"""The quiz of a load run: as many questions of every type as it takes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

_KINDS: tuple[tuple[dict[str, Any], str, str], ...] = (
    (
        {"type": "single", "choices": ["red", "green", "blue", "yellow"], "correct": "blue"},
        "2",
        "1",
    ),
    ({"type": "true_false", "correct": True}, "true", "false"),
    ({"type": "numeric", "correct": 42, "tolerance": 1}, "42", "7"),
    ({"type": "single", "choices": ["north", "south"], "correct": "north"}, "0", "1"),
    ({"type": "multiple", "choices": ["one", "two", "three"], "correct": ["one", "three"]}, "[0,2]", "[1]"),
    ({"type": "text", "accept": ["hello", "good day"]}, '"Hello"', '"goodbye"'),
)
"""Questions, and what to answer if right and if wrong, as JSON."""


@dataclass(frozen=True, slots=True)
class LoadQuiz:
    """`id` follows from the content, so that no cache can have another quiz under it."""

    id: str
    data: dict[str, Any]
    answers: list[tuple[str, str]]


def load_quiz(questions: int, question_s: float) -> LoadQuiz:
    kinds = [_KINDS[place % len(_KINDS)] for place in range(questions)]
    data = {
        "title": f"Load, {questions} questions of {question_s:g} s",
        "questions": [
            {**question, "text": f"Question {number} of a load run?", "time_limit_s": question_s}
            for number, (question, _, _) in enumerate(kinds, 1)
        ],
    }
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    return LoadQuiz(f"load-{digest}", data, [(right, wrong) for _, right, wrong in kinds])
