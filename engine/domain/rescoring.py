"""What answers are worth by a key, computed from the facts alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.domain.errors import DomainError
from engine.domain.facts import AnswerAccepted, Fact, PlayerJoined, PlayerKicked
from engine.domain.keys import Correction, Key, corrected, key_of, with_key
from engine.domain.leaderboard import Entry, Leaderboard
from engine.domain.players import Player
from engine.domain.quiz import Quiz


class Mark(NamedTuple):
    """What came of an answer."""

    correct: bool
    points: int


AnswerKey = tuple[int, int]
"""Question and player: there is one answer at most of each."""

Marks = Mapping[AnswerKey, Mark]


class Marking:
    """Marks answers in the order in which they were given, as a session does when it takes them."""

    def __init__(self, quiz: Quiz) -> None:
        self._quiz = quiz
        self._players: dict[int, Player] = {}

    def mark(self, answer: AnswerAccepted) -> Mark:
        """Raises IndexError when the quiz has no such question."""
        question = self._quiz.questions[answer.question - 1]
        who = self._players.setdefault(answer.player, Player(answer.player, ""))
        correct = question.judge(answer.choice)
        streak = who.streak_with(answer.question) if correct else 0
        who.streak = streak
        if correct:
            who.streak_question = answer.question
        points = self._quiz.scoring.points(
            question.points, question.limit_ms, answer.elapsed_ms, correct, streak
        )
        return Mark(correct, points)


def marks(quiz: Quiz, facts: Iterable[Fact]) -> dict[AnswerKey, Mark]:
    """All answers, marked by the keys of `quiz`. The facts come in the order of `seq`."""
    marking = Marking(quiz)
    return {
        (fact.question, fact.player): marking.mark(fact) for fact in facts if isinstance(fact, AnswerAccepted)
    }


def changed(marked: Marks, facts: Iterable[Fact]) -> dict[AnswerKey, Mark]:
    """Those of `marked` that are not what was found when the answer was taken."""
    taken = {
        (fact.question, fact.player): Mark(fact.correct, fact.points)
        for fact in facts
        if isinstance(fact, AnswerAccepted)
    }
    return {answer: mark for answer, mark in marked.items() if mark != taken[answer]}


def standing(facts: Iterable[Fact], marked: Marks) -> list[Entry]:
    """Everyone in order, kicked players left out, with the points that `marked` says."""
    totals: dict[int, tuple[int, int]] = {}
    for fact in facts:
        if isinstance(fact, PlayerJoined):
            totals.setdefault(fact.player, (0, 0))
        elif isinstance(fact, PlayerKicked):
            totals.pop(fact.player, None)
        elif isinstance(fact, AnswerAccepted) and fact.player in totals:
            score, elapsed_ms = totals[fact.player]
            points = marked[fact.question, fact.player].points
            totals[fact.player] = (score + points, elapsed_ms + fact.elapsed_ms)
    board = Leaderboard()
    for player, (score, elapsed_ms) in totals.items():
        board.add(player)
        board.update(player, score, elapsed_ms)
    return list(board.ranked())


@dataclass(frozen=True, slots=True)
class Rescore:
    """What a correction makes of a session.

    `changed` has every answer that is worth something else than when it was taken, by this correction and by
    those before it. `before` and `after` are the standing without it and with it.
    """

    correction: Correction
    changed: Marks
    before: Sequence[Entry]
    after: Sequence[Entry]


def rescore(
    quiz: Quiz,
    facts: Sequence[Fact],
    earlier: Sequence[Correction],
    question: int,
    key: Key,
    *,
    by: str,
    reason: str,
    at: int,
) -> Rescore:
    """Work out a correction, on top of `earlier` ones.

    Raises:
        DomainError: `same_key` when this is the key already; else what is wrong with it (see `with_key`).
    """
    current = corrected(quiz, earlier)
    new = with_key(current, question, key)
    if new == current:
        raise DomainError("same_key", f"this is the key of question {question} already", "correct")
    marked = marks(new, facts)
    correction = Correction(
        len(earlier) + 1,
        question,
        key_of(current.questions[question - 1]),
        key_of(new.questions[question - 1]),
        by,
        reason,
        at,
    )
    return Rescore(
        correction,
        changed(marked, facts),
        standing(facts, marks(current, facts)),
        standing(facts, marked),
    )
