"""Checks whether the stored results of a session follow from its facts by the rules.

Everything is computed again from the facts: which answers could be accepted, whether they were right, their
points, and the ranks. Stored results do not go into the computation; they are only compared with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from engine.domain import facts as f
from engine.domain.answer_keys import Correction, key_of, with_key
from engine.domain.clock import PlayClock
from engine.domain.errors import DomainError, Refusal
from engine.domain.extra_time import MOST
from engine.domain.phases import Phase, move
from engine.domain.questions import Question
from engine.domain.quiz import Quiz
from engine.domain.rescoring import (
    Mark,
    Marking,
    Marks,
    best_attempts,
    changed,
    is_self_paced,
    marks,
    standing,
)
from engine.domain.self_pace import SelfPace, Stage
from engine.domain.settings import Settings

KINDS: Final[Mapping[str, str]] = {
    "seq": "facts are missing, or two have the same number",
    "order": "the fact cannot have happened where it stands",
    "unknown_player": "the player never joined",
    "unknown_question": "the quiz has no such question",
    "not_open": "the question was not open",
    "user": "the user had a seat in the session before",
    "twice": "the player had answered this question before",
    "kicked": "the player had been removed",
    "choice": "nobody can have chosen this",
    "elapsed": "the clock says another time",
    "late": "the answer came after the time limit",
    "correct": "right or wrong by the key of the quiz",
    "points": "points by the rule of the quiz",
    "correction": "a correction that the quiz does not allow, or whose old key is not the one it replaced",
    "corrected": "the corrected answer",
    "finished_at": "the end on the record of the session",
    "user_score": "the score of a user over sessions",
    "standing": "rank, score, right answers, answers and time in the results",
}
"""What can differ, in one phrase each."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`kind` is one of KINDS. `stored` is the stored value and `computed` the value by the rules; None where
    there is none."""

    kind: str
    seq: int | None = None
    question: int | None = None
    player: int | None = None
    stored: object = None
    computed: object = None


class Line(NamedTuple):
    """One player in the results."""

    rank: int
    player: int
    score: int
    correct: int
    answered: int
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is stored of a session.

    `facts` are in the order of `seq`; `corrected_marks` are the answers whose points corrections have
    changed; `results` are the final results as the API shows them.
    """

    quiz: Quiz
    created_at: int
    finished_at: int | None
    facts: Sequence[f.Fact]
    corrections: Sequence[Correction]
    corrected_marks: Marks
    results: Sequence[Line]
    settings: Settings = field(default_factory=Settings)


def audit(evidence: Evidence) -> list[Difference]:
    """What does not agree, facts first and in their order; empty when all does."""
    found = _Course(evidence).differences()
    effective, more = _after_corrections(evidence)
    return found + more + _standing(evidence, effective)


class _Course:
    """Goes through the facts and remembers just enough to tell what could happen next."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._quiz = evidence.quiz
        self._marking = Marking(evidence.quiz, self_paced=is_self_paced(evidence.facts))
        self._found: list[Difference] = []
        self._own: SelfPace | None = None
        """The ways of the players, where each goes through the quiz at the own pace."""
        self._phase = Phase.LOBBY
        if evidence.settings.pace == "self":
            self._own = SelfPace(evidence.quiz, evidence.settings, evidence.created_at)
            self._phase = Phase.OPEN
        self._paused_in: Phase | None = None
        self._clock = PlayClock(evidence.created_at)
        self._number = 0
        self._players: set[int] = set()
        self._users: set[str] = set()
        self._kicked: set[int] = set()
        self._answered: set[tuple[int, int]] = set()
        self._percents: dict[int, int] = {}
        """The time limits of players with extra time, in percent of that of a question."""

    def differences(self) -> list[Difference]:
        expected = 1
        for fact in self._evidence.facts:
            if fact.seq != expected:
                self._found.append(Difference("seq", fact.seq, stored=fact.seq, computed=expected))
            expected = fact.seq + 1
            LOOK[type(fact)](self, fact)
        ended = [fact.at for fact in self._evidence.facts if isinstance(fact, f.Finished)]
        finished_at = ended[-1] if ended else None
        if finished_at != self._evidence.finished_at:
            self._found.append(
                Difference("finished_at", stored=self._evidence.finished_at, computed=finished_at)
            )
        return self._found

    def _disorder(self, fact: f.Fact, player: int | None = None) -> None:
        self._found.append(
            Difference(
                "order", fact.seq, player=player, stored=type(fact).__name__, computed=str(self._phase)
            )
        )

    def _joined(self, fact: f.PlayerJoined) -> None:
        # Who an earlier owner had let in comes in whatever the phase, after the end too.
        if fact.player != self._numbers + 1:
            self._disorder(fact, fact.player)
        self._players.add(fact.player)
        if fact.user_id is not None:
            if fact.user_id in self._users:
                self._found.append(Difference("user", fact.seq, player=fact.player, stored=fact.user_id))
            self._users.add(fact.user_id)

    @property
    def _numbers(self) -> int:
        return len(self._players) + (self._own.later_attempts if self._own else 0)

    def _person(self, number: int) -> int:
        """The player whose attempt has this number."""
        return self._own.player_of(number) if self._own else number

    def _attempt(self, fact: f.AttemptBegun) -> None:
        # As with players, an attempt that an earlier owner knew of comes in whatever the phase, and whatever
        # became of the one before it.
        if fact.player not in self._players:
            self._found.append(Difference("unknown_player", fact.seq, player=fact.player))
        bound = self._evidence.settings.attempts
        if self._own is None or fact.plays_as != self._numbers + 1 or fact.attempt > bound:
            self._disorder(fact, fact.player)
        if self._own is not None:
            try:
                self._own.begin(fact)
            except DomainError:
                self._disorder(fact, fact.player)

    def _was_kicked(self, fact: f.PlayerKicked) -> None:
        if fact.player not in self._players:
            self._found.append(Difference("unknown_player", fact.seq, player=fact.player))
        elif fact.player in self._kicked or self._phase is Phase.FINISHED:
            self._disorder(fact, fact.player)
        self._kicked.add(fact.player)

    def _readmitted(self, fact: f.PlayerReadmitted) -> None:
        if fact.player not in self._players:
            self._found.append(Difference("unknown_player", fact.seq, player=fact.player))
        elif fact.player not in self._kicked or self._phase is Phase.FINISHED:
            self._disorder(fact, fact.player)
        self._kicked.discard(fact.player)

    def _extra_time(self, fact: f.ExtraTimeGiven) -> None:
        if fact.player not in self._players:
            self._found.append(Difference("unknown_player", fact.seq, player=fact.player))
        elif self._phase is Phase.FINISHED:
            self._disorder(fact, fact.player)
        self._percents[fact.player] = fact.percent or MOST
        if self._own is not None:
            self._own.give_extra_time(fact.player, fact.percent)

    def _answer(self, fact: f.AnswerAccepted) -> None:
        here = (fact.seq, fact.question, fact.player)
        question = self._answered_question(fact)
        if question is None:
            return
        if self._person(fact.player) in self._kicked:
            self._found.append(Difference("kicked", *here))
        if (fact.question, fact.player) in self._answered:
            self._found.append(Difference("twice", *here))
        self._answered.add((fact.question, fact.player))
        if self._own is not None:
            open_now = self._is_asked(self._own, fact)
            ran_ms, number = self._own.elapsed_ms(fact.player, fact.at), self._own.way(fact.player).asked
        else:
            open_now = self._phase is Phase.QUESTION and fact.at >= self._clock.opens_at
            open_now = open_now and fact.question == self._number
            ran_ms, number = self._clock.elapsed_ms(fact.at), self._number
        if not open_now:
            self._found.append(
                Difference("not_open", *here, stored=fact.question, computed=f"{self._phase} {number}")
            )
        else:
            percent = self._percents.get(self._person(fact.player), 100)
            if self._own is not None:
                elapsed_ms = self._own.answered_ms(fact.player, fact.at)
                self._own.answer(fact)
            else:
                elapsed_ms = self._clock.answered_ms(fact.at, question.limit_ms, percent)
            if elapsed_ms is None:
                self._found.append(Difference("late", *here, ran_ms, question.limit_ms * percent // 100))
            elif fact.elapsed_ms != elapsed_ms:
                self._found.append(Difference("elapsed", *here, fact.elapsed_ms, elapsed_ms))
        self._time_and_choice(fact, question)
        correct, points = self._marking.mark(fact)
        if fact.correct != correct:
            self._found.append(Difference("correct", *here, fact.correct, correct))
        if fact.points != points:
            self._found.append(Difference("points", *here, fact.points, points))

    def _is_asked(self, own: SelfPace, fact: f.AnswerAccepted) -> bool:
        way = own.way(fact.player)
        is_open = self._phase is Phase.OPEN and not own.is_over(fact.at)
        return is_open and way.stage is Stage.ASKED and way.asked == fact.question

    def _own_step(self, fact: f.QuestionShown | f.PlayerDone) -> None:
        """A player who goes on must have answered the question before, or let its time pass."""
        person = self._person(fact.player)
        if person not in self._players:
            self._found.append(Difference("unknown_player", fact.seq, player=fact.player))
        if person in self._kicked:
            self._found.append(Difference("kicked", fact.seq, player=fact.player))
        own = self._own
        if own is None or self._phase is not Phase.OPEN or own.is_ahead(fact.at) or own.is_over(fact.at):
            self._disorder(fact, fact.player)
            return
        asked = own.way(fact.player).stage is Stage.ASKED
        if asked and not own.time_over(fact.player, fact.at):
            self._disorder(fact, fact.player)
        try:
            if isinstance(fact, f.PlayerDone):
                own.finish(fact)
            else:
                own.show(fact)
                self._marking.show(fact.player, fact.question)
        except DomainError:
            self._disorder(fact, fact.player)

    def _deadline(self, fact: f.DeadlineMoved) -> None:
        if self._own is None or self._phase is not Phase.OPEN:
            self._disorder(fact)
        else:
            self._own.move_deadline(fact)

    def _merged(self, fact: f.AnswerMerged) -> None:
        """It was taken by another owner, by whose clock and streaks nothing can be checked any more."""
        here = (fact.seq, fact.question, fact.player)
        question = self._answered_question(fact)
        if question is None:
            return
        if self._own is not None:
            self._own.merge_answer(fact.player, fact.question)
        self._time_and_choice(fact, question)
        correct, _ = self._marking.mark(fact)
        if fact.correct != correct:
            self._found.append(Difference("correct", *here, fact.correct, correct))
        else:
            streaks = range(1, fact.question + 1) if correct else (0,)
            possible = {self._marking.points_of(fact, correct, streak) for streak in streaks}
            if fact.points not in possible:
                self._found.append(Difference("points", *here, fact.points, sorted(possible)))

    def _answered_question(self, fact: f.AnswerAccepted | f.AnswerMerged) -> Question | None:
        """None if there is none; then nothing more can be said of the answer."""
        here = (fact.seq, fact.question, fact.player)
        if not 1 <= fact.question <= len(self._quiz.questions):
            self._found.append(Difference("unknown_question", *here))
            return None
        if self._person(fact.player) not in self._players:
            self._found.append(Difference("unknown_player", *here))
        return self._quiz.questions[fact.question - 1]

    def _time_and_choice(self, fact: f.AnswerAccepted | f.AnswerMerged, question: Question) -> None:
        here = (fact.seq, fact.question, fact.player)
        if fact.elapsed_ms > question.limit_ms:
            self._found.append(Difference("late", *here, fact.elapsed_ms, question.limit_ms))
        read = question.read(fact.choice)
        if isinstance(read, Refusal) or (type(read), read) != (type(fact.choice), fact.choice):
            self._found.append(Difference("choice", *here, fact.choice))

    def _moved(self, fact: f.Fact) -> None:
        try:
            target = move(fact, self._phase, self._paused_in)
        except DomainError:
            self._disorder(fact)
            # What comes after it is judged as if it had been in order.
            target = _USUAL.get(type(fact), self._paused_in or self._phase)
        if isinstance(fact, f.QuestionOpened):
            if fact.question != self._number + 1:
                self._disorder(fact)
            self._number = fact.question
            self._clock.restart(fact.at, fact.ready_ms)
        elif isinstance(fact, f.QuestionClosed):
            if fact.question != self._number:
                self._disorder(fact)
            self._clock.restart(fact.at)
        elif isinstance(fact, f.QuestionSkipped):
            if fact.question != self._number or fact.question in self._marking.skipped:
                self._disorder(fact)
            if self._phase is Phase.QUESTION:
                self._clock.restart(fact.at)
            self._marking.skip(fact.question)
        elif isinstance(fact, f.Paused):
            if self._paused_in is None:
                self._paused_in = self._phase
                self._clock.stop(fact.at)
        elif isinstance(fact, f.Resumed):
            if self._paused_in is not None:
                self._clock.go_on(fact.at)
            self._paused_in = None
        self._phase = target

    def _extended(self, fact: f.ClockExtended) -> None:
        self._clock.extend(fact.by_ms, fact.at)
        if self._own is not None:
            self._own.give_back(fact.by_ms, fact.at)

    def _locked(self, fact: f.LockChanged | f.HostReplaced) -> None:
        if self._phase is Phase.FINISHED:
            self._disorder(fact)


_USUAL: Final[Mapping[type[f.Fact], Phase]] = {
    f.QuestionOpened: Phase.QUESTION,
    f.QuestionClosed: Phase.REVEAL,
    f.QuestionSkipped: Phase.REVEAL,
    f.Paused: Phase.PAUSED,
    f.Finished: Phase.FINISHED,
}
"""Where a fact leads, wherever it comes from."""

LOOK: Final[Mapping[type[f.Fact], Callable[[_Course, Any], None]]] = {
    f.PlayerJoined: _Course._joined,
    f.PlayerKicked: _Course._was_kicked,
    f.PlayerReadmitted: _Course._readmitted,
    f.ExtraTimeGiven: _Course._extra_time,
    f.AnswerAccepted: _Course._answer,
    f.AnswerMerged: _Course._merged,
    f.ClockExtended: _Course._extended,
    f.LockChanged: _Course._locked,
    f.HostReplaced: _Course._locked,
    f.QuestionOpened: _Course._moved,
    f.QuestionClosed: _Course._moved,
    f.QuestionSkipped: _Course._moved,
    f.QuestionShown: _Course._own_step,
    f.AttemptBegun: _Course._attempt,
    f.PlayerDone: _Course._own_step,
    f.DeadlineMoved: _Course._deadline,
    f.Paused: _Course._moved,
    f.Resumed: _Course._moved,
    f.Finished: _Course._moved,
}
"""The checks for every kind of fact."""


def _after_corrections(evidence: Evidence) -> tuple[Marks, list[Difference]]:
    """The final points of each answer by the rules, and where the stored corrections differ."""
    found: list[Difference] = []
    quiz = evidence.quiz
    for count, each in enumerate(evidence.corrections, start=1):
        try:
            as_replaced = with_key(quiz, each.question, each.old_key)
            corrected = with_key(quiz, each.question, each.new_key)
        except DomainError as error:
            found.append(
                Difference("correction", question=each.question, stored=each.new_key, computed=str(error))
            )
            continue
        if each.number != count or as_replaced != quiz:
            replaced = key_of(quiz.questions[each.question - 1])
            found.append(
                Difference("correction", question=each.question, stored=each.old_key, computed=replaced)
            )
        quiz = corrected
    known = [fact for fact in evidence.facts if _markable(quiz, fact)]
    effective = marks(quiz, known)
    expected = changed(effective, known) if evidence.corrections else {}
    for answer in sorted({*evidence.corrected_marks, *expected}):
        stored, computed = evidence.corrected_marks.get(answer), expected.get(answer)
        if stored != computed:
            found.append(Difference("corrected", None, *answer, _members(stored), _members(computed)))
    return effective, found


def _markable(quiz: Quiz, fact: f.Fact) -> bool:
    return not isinstance(fact, f.AnswerAccepted | f.AnswerMerged) or 1 <= fact.question <= len(
        quiz.questions
    )


def _standing(evidence: Evidence, effective: Marks) -> list[Difference]:
    known = [fact for fact in evidence.facts if _markable(evidence.quiz, fact)]
    answered: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for (_, player), mark in effective.items():
        answered[player] += 1
        right[player] += mark.correct
    best = best_attempts(known, effective)
    computed = {
        entry.player: Line(
            entry.rank,
            entry.player,
            entry.score,
            right[best[entry.player].number],
            answered[best[entry.player].number],
            entry.elapsed_ms,
        )
        for entry in standing(known, effective)
    }
    stored = {line.player: line for line in evidence.results}
    return [
        Difference(
            "standing",
            player=player,
            stored=_members(stored.get(player)),
            computed=_members(computed.get(player)),
        )
        for player in sorted({*stored, *computed})
        if stored.get(player) != computed.get(player)
    ]


def _members(found: Line | Mark | None) -> object:
    return None if found is None else found._asdict()
