"""What a right answer is worth: named rules, chosen by the quiz.

    speed   points * (1 - (elapsed / limit) / 2), rounded half up: 2 s of 30 s at 1000 points is 967.
            Full points under 500 ms; never below half.
    flat    the points of the question, however long it took.

Whole numbers throughout: the same answer scores the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from engine.domain.errors import DomainError
from engine.domain.validation import Fields, Problems

FULL_POINTS_BELOW_MS: Final = 500
STREAK_STEP: Final = 100
STREAK_MOST: Final = 500


def speed(points: int, limit_ms: int, elapsed_ms: int) -> int:
    """floor(points * (1 - (elapsed / limit) / 2) + 1/2), over the common denominator 2 * limit.

    Time outside 0..limit counts as its nearer end.
    """
    if elapsed_ms < FULL_POINTS_BELOW_MS:
        return points
    if elapsed_ms > limit_ms:
        elapsed_ms = limit_ms
    return (points * (2 * limit_ms - elapsed_ms) + limit_ms) // (2 * limit_ms)


def flat(points: int, limit_ms: int, elapsed_ms: int) -> int:  # noqa: ARG001  # one signature for all rules
    """The points, however long it took."""
    return points


RULES: Final[Mapping[str, Callable[[int, int, int], int]]] = {"speed": speed, "flat": flat}


@dataclass(frozen=True, slots=True)
class Scoring:
    """A rule by its name, with or without the bonus for answering right in a row.

    Raises:
        DomainError: `bad_field` for a rule that does not exist.
    """

    rule: str = "speed"
    streak: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise DomainError("bad_field", f"`rule` must be one of: {', '.join(RULES)}", "rule")

    def points(self, question_points: int, limit_ms: int, elapsed_ms: int, correct: bool, streak: int) -> int:
        """What one answer earns.

        Args:
            question_points: the full worth of the question. A question worth 0 earns no bonus either.
            limit_ms: the question's time limit.
            elapsed_ms: play time since the question opened.
            correct: a wrong answer earns 0.
            streak: right answers in a row including this one; +100 from the second on, at most +500.
        """
        if not correct or not question_points:
            return 0
        earned = RULES[self.rule](question_points, limit_ms, elapsed_ms)
        if self.streak and streak > 1:
            earned += min(STREAK_STEP * (streak - 1), STREAK_MOST)
        return earned

    @classmethod
    def read(cls, data: object, path: str, problems: Problems) -> Scoring:
        """Read the `scoring` of a quiz. Mistakes go to `problems`, and the default is used instead."""
        fields = Fields.of(data, path, problems, ("rule", "streak"))
        if fields is None:
            return cls()
        return cls(
            rule=fields.one_of("rule", tuple(RULES), default="speed"),
            streak=fields.flag("streak", default=False),
        )

    def to_dict(self) -> dict[str, object]:
        return {"rule": self.rule, "streak": self.streak}
