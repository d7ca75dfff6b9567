"""What answers are worth by a key, computed from the facts alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.domain.answer_keys import Correction, Key, corrected, key_of, with_key
from engine.domain.errors import DomainError
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    AttemptBegun,
    Fact,
    PlayerJoined,
    PlayerKicked,
    PlayerReadmitted,
    QuestionShown,
    QuestionSkipped,
)
from engine.domain.leaderboard import Entry, Leaderboard
from engine.domain.players import Player
from engine.domain.quiz import Quiz


class Mark(NamedTuple):
    """The outcome of an answer."""

    correct: bool
    points: int


AnswerKey = tuple[int, int]
"""Question and player: there is one answer at most of each that stands."""

Answered = AnswerAccepted | AnswerMerged

Marks = Mapping[AnswerKey, Mark]


def standing_answers(facts: Iterable[Fact]) -> dict[AnswerKey, Answered]:
    """The answers that count: of the answers of a player to a question the one that was received first, and
    on a tie the one that was stored first."""
    found: dict[AnswerKey, Answered] = {}
    for fact in facts:
        if isinstance(fact, AnswerAccepted | AnswerMerged):
            standing = found.get((fact.question, fact.player))
            if standing is None or fact.at < standing.at:
                found[fact.question, fact.player] = fact
    return found


class Marking:
    """Marks answers in the order in which they became facts, as a session does when it takes them."""

    def __init__(self, quiz: Quiz, *, self_paced: bool = False) -> None:
        self._quiz = quiz
        self._self_paced = self_paced
        self._players: dict[int, Player] = {}
        # By player and question: when the answer that stands was received, and whether it is right.
        self._standing: dict[int, dict[int, tuple[int, bool]]] = {}
        self.skipped: set[int] = set()
        # With the pace `self`: the questions of each player in the order in which they became known.
        self._ways: dict[int, list[int]] = {}

    def show(self, player: int, question: int) -> None:
        """The player goes through the quiz at the player's own pace, and this question comes next."""
        self._ways.setdefault(player, []).append(question)

    def skip(self, question: int) -> None:
        """Make this question count for no player."""
        self.skipped.add(question)
        for player, standing in self._standing.items():
            if question in standing:
                self._count_streak(self._players[player], standing)

    def _before(self, player: int, question: int) -> int:
        """The question before this one, among those that count."""
        if (way := self._ways.get(player)) is not None:
            place = way.index(question) if question in way else len(way)
            return way[place - 1] if place else 0
        question -= 1
        while question in self.skipped:
            question -= 1
        return question

    def mark(self, answer: Answered) -> Mark:
        """Raises IndexError when the quiz has no such question."""
        who = self._players.setdefault(answer.player, Player(answer.player, ""))
        way = self._ways.setdefault(who.id, []) if self._self_paced else None
        if way is not None and answer.question not in way:
            way.append(answer.question)
        mark = self._merged(answer, who) if isinstance(answer, AnswerMerged) else self._accepted(answer, who)
        standing = self._standing.setdefault(answer.player, {})
        if answer.question not in standing or answer.at < standing[answer.question][0]:
            standing[answer.question] = answer.at, mark.correct
        if isinstance(answer, AnswerMerged):
            self._count_streak(who, standing)
        return mark

    def _merged(self, answer: AnswerMerged, who: Player) -> Mark:
        """Points stay as the owner gave them when it accepted the answer, because its streaks are not known
        any more. They are computed only where the key has changed."""
        question = self._quiz.questions[answer.question - 1]
        correct = question.judge(answer.choice)
        if correct == answer.correct:
            return Mark(correct, answer.points)
        streak = who.streak_with(self._before(who.id, answer.question)) if correct else 0
        return Mark(correct, self.points_of(answer, correct, streak))

    def points_of(self, answer: Answered, correct: bool, streak: int) -> int:
        question = self._quiz.questions[answer.question - 1]
        return self._quiz.scoring.points(
            question.points, question.limit_ms, answer.elapsed_ms, correct, streak
        )

    def _accepted(self, answer: AnswerAccepted, who: Player) -> Mark:
        question = self._quiz.questions[answer.question - 1]
        correct = question.judge(answer.choice)
        streak = who.streak_with(self._before(who.id, answer.question)) if correct else 0
        who.streak = streak
        if correct:
            who.streak_question = answer.question
        return Mark(correct, self.points_of(answer, correct, streak))

    def _count_streak(self, who: Player, standing: Mapping[int, tuple[int, bool]]) -> None:
        """As if the answers that stand, and count, had come in the order of the questions."""
        who.streak = who.streak_question = 0
        counting = sorted(standing.keys() - self.skipped)
        if (way := self._ways.get(who.id)) is not None:
            counting.sort(key=way.index)
        for question in counting:
            if standing[question][1]:
                who.streak = who.streak_with(self._before(who.id, question))
                who.streak_question = question
            else:
                who.streak = 0


def is_self_paced(facts: Iterable[Fact]) -> bool:
    """Whether some player was shown a question alone."""
    return any(isinstance(fact, QuestionShown) for fact in facts)


def marks(quiz: Quiz, facts: Sequence[Fact]) -> dict[AnswerKey, Mark]:
    """All answers that stand, and count, marked by the keys of `quiz`. The facts come in the order of
    `seq`."""
    marking = Marking(quiz, self_paced=is_self_paced(facts))
    stand = {answer.seq for answer in standing_answers(facts).values()}
    marked = {}
    for fact in facts:
        if isinstance(fact, AnswerAccepted | AnswerMerged):
            mark = marking.mark(fact)
            if fact.seq in stand:
                marked[fact.question, fact.player] = mark
        elif isinstance(fact, QuestionSkipped):
            marking.skip(fact.question)
        elif isinstance(fact, QuestionShown):
            marking.show(fact.player, fact.question)
    return {answer: mark for answer, mark in marked.items() if answer[0] not in marking.skipped}


def changed(marked: Marks, facts: Iterable[Fact]) -> dict[AnswerKey, Mark]:
    """The marks in `marked` that differ from the mark at the time of the answer."""
    taken = standing_answers(facts)
    return {
        answer: mark
        for answer, mark in marked.items()
        if mark != (taken[answer].correct, taken[answer].points)
    }


class Attempt(NamedTuple):
    """The attempt of a player that counts: the number of its answers, its points and its time."""

    number: int
    score: int
    elapsed_ms: int


def best_attempts(facts: Sequence[Fact], marked: Marks) -> dict[int, Attempt]:
    """The attempt that counts of each player, kicked ones left out: most points, then least time, then the
    lowest number. An answer that is not in `marked` counts for nothing."""
    numbers: dict[int, list[int]] = {}
    removed: set[int] = set()
    for fact in facts:
        if isinstance(fact, PlayerJoined):
            numbers.setdefault(fact.player, []).append(fact.player)
        elif isinstance(fact, AttemptBegun):
            numbers.setdefault(fact.player, []).append(fact.plays_as)
        elif isinstance(fact, PlayerKicked):
            removed.add(fact.player)
        elif isinstance(fact, PlayerReadmitted):
            removed.discard(fact.player)
    totals: dict[int, tuple[int, int]] = {}
    for key, answer in standing_answers(facts).items():
        if key in marked:
            score, elapsed_ms = totals.get(answer.player, (0, 0))
            totals[answer.player] = (score + marked[key].points, elapsed_ms + answer.elapsed_ms)
    best = {}
    for player, own in numbers.items():
        if player not in removed:
            attempts = (Attempt(number, *totals.get(number, (0, 0))) for number in own)
            best[player] = min(attempts, key=lambda each: (-each.score, each.elapsed_ms, each.number))
    return best


def standing(facts: Sequence[Fact], marked: Marks) -> list[Entry]:
    """Everyone in order, kicked players left out, with the points that `marked` says; an answer that is not
    in it counts for nothing."""
    board = Leaderboard()
    for player, best in best_attempts(facts, marked).items():
        board.add(player)
        board.update(player, best.score, best.elapsed_ms)
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
    """Compute a correction, on top of `earlier` ones.

    Raises:
        DomainError: `same_key` if the question already has this key; else the problem of the key (see
        `with_key`).
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
