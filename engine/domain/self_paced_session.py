"""The commands of players who go through the quiz each at their own pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.domain.answers import Answers
from engine.domain.errors import Refusal
from engine.domain.facts import (
    AnswerAccepted,
    AttemptBegun,
    Choice,
    DeadlineMoved,
    PlayerDone,
    QuestionShown,
)
from engine.domain.phases import Phase, refuse
from engine.domain.players import Player
from engine.domain.questions import Question
from engine.domain.replay import ReplayedSession
from engine.domain.self_pace import SelfPace, Stage, Way
from engine.domain.settings import OPEN_MAX_MS

PLAYER_NOT_FOUND: Final = Refusal("player_not_found", "Nobody here has this number.")
KICKED: Final = Refusal("kicked", "The host removed this player.")
WRONG_QUESTION: Final = Refusal("wrong_question", "This question is not the current one and has not been.")
QUESTION_CLOSED: Final = Refusal("question_closed", "The time for this question is over.")
LATE: Final = Refusal("late", "The answer came after the time limit.")
FINISHED: Final = Refusal("session_finished", "The session is over.")
NOT_OPEN_YET: Final = Refusal("not_open_yet", "The session is not open yet.")
_LED: Final = Refusal("illegal_move", "The next question opens for all players of this session at once.")
_NO_MORE_ATTEMPTS: Final = Refusal("bad_field", "This session has fewer attempts.", "attempt")
_NOT_THROUGH: Final = Refusal("illegal_move", "The attempt before this one is not over.")
_DEADLINE: Final = Refusal(
    "bad_field", "A deadline lies in the future, behind the opening, 90 days ahead at the most.", "closes_at"
)


@dataclass(frozen=True, slots=True)
class Repeated:
    """The player has answered this question before: the first answer counts, and nothing has changed.

    `same` tells whether this choice equals that of the first answer, which is committed with the fact `seq`.
    """

    question: int
    elapsed_ms: int
    same: bool
    seq: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The question that the player has to answer now. It is committed with the fact `seq`.

    `missed` is the question whose time was over when this one was shown; 0 if there is none."""

    question: int
    seq: int
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Through:
    """The player has left every question behind. That is committed with the fact `seq`. `missed` is as for
    `Asked`."""

    seq: int
    missed: int = 0


class SelfPacedSession(ReplayedSession):
    """What players ask of a session with the pace `self`."""

    def show_next(
        self, player: int, order: Sequence[int], at: int, attempt: int = 1
    ) -> Asked | Through | Refusal:
        """Show the player the next question in `order`, and start its clock; the same one again as long as it
        can be answered. `order` has every question of the quiz once. An `attempt` that follows one that the
        player is through with begins with that: asked for again, it goes on."""
        who = self._in(player)
        if isinstance(who, Refusal):
            return who
        own = self.self_pace
        if own is None:
            return FINISHED if self.phase is Phase.FINISHED else _LED
        number = own.number_of(player, attempt)
        if number is None and (refusal := self._refuse_attempt(player, attempt)) is not None:
            return refusal
        way = own.way(number) if number is not None else Way()
        if way.stage is Stage.DONE:
            return Through(self.seq)
        if self.phase is Phase.FINISHED or own.is_over(at):
            return FINISHED
        if own.is_ahead(at):
            return NOT_OPEN_YET
        if number is None:
            number = self.numbers + 1
            self._record(AttemptBegun(self.seq + 1, at, player, attempt, number))
        missed = 0
        if way.stage is Stage.ASKED:
            if not own.time_over(number, at):
                return Asked(way.asked, self.seq)
            missed = way.asked
        question = own.following(number, order)
        if question is None:
            self._record(PlayerDone(self.seq + 1, at, number))
            return Through(self.seq, missed)
        self._record(QuestionShown(self.seq + 1, at, number, question))
        return Asked(question, self.seq, missed)

    def _refuse_attempt(self, player: int, attempt: int) -> Refusal | None:
        """Why a player cannot begin an attempt."""
        assert self.self_pace is not None
        if not 1 <= attempt <= self.settings.attempts:
            return _NO_MORE_ATTEMPTS
        before = self.self_pace.number_of(player, attempt - 1)
        over = before is not None and self.self_pace.way(before).stage is Stage.DONE
        return None if over else _NOT_THROUGH

    def _in(self, player: int) -> Player | Refusal:
        """The player, if a client may be that player."""
        who = self._players.get(player)
        if who is None or who.erased:
            return PLAYER_NOT_FOUND
        return KICKED if who.kicked else who

    def _answer_at_own_pace(
        self, number: int, question: int, raw_choice: object, at: int, held_ms: int
    ) -> AnswerAccepted | Repeated | Refusal:
        """As `Session.answer`, in the attempt with this number. `question` is the number by which the quiz
        has it."""
        assert self.self_pace is not None
        who = self._playing(number)
        way = self.self_pace.way(who.id)
        if question not in way.questions:
            return FINISHED if self.phase is Phase.FINISHED else WRONG_QUESTION
        answers = self._answers[question - 1]
        asked = answers.question
        choice = asked.read(raw_choice)
        if isinstance(choice, Refusal):
            return choice
        repeated = self._repeated(answers, who.id, question, choice)
        if repeated is not None:
            return repeated
        at = self.self_pace.received(who.id, at, held_ms)
        if self.phase is Phase.FINISHED or self.self_pace.is_over(at):
            return FINISHED
        if question != way.asked or way.stage is not Stage.ASKED:
            return QUESTION_CLOSED
        elapsed_ms = self.self_pace.answered_ms(who.id, at)
        if elapsed_ms is None:
            return LATE
        fact = self._accept(who, asked, question, choice, at, elapsed_ms, way.before(question))
        if len(way.questions) == self.of:
            self._record(PlayerDone(self.seq + 1, at, who.id))
        return fact

    @staticmethod
    def _repeated(answers: Answers, player: int, question: int, choice: Choice) -> Repeated | None:
        """The answer of the player that stands; None if there is none."""
        standing = answers.choice_of(player)
        if standing is None:
            return None
        return Repeated(question, answers.elapsed_ms_of(player), choice == standing, answers.seq_of(player))

    def _accept(
        self,
        who: Player,
        asked: Question,
        question: int,
        choice: Choice,
        at: int,
        elapsed_ms: int,
        before: int,
    ) -> AnswerAccepted:
        """Judge and score an answer that came in time, and record it. `before` is the question that came
        before this one for the player."""
        correct = asked.judge(choice)
        streak = who.streak_with(before) if correct else 0
        points = self.quiz.scoring.points(asked.points, asked.limit_ms, elapsed_ms, correct, streak)
        fact = AnswerAccepted(self.seq + 1, at, who.id, question, choice, elapsed_ms, correct, points)
        self._record(fact)
        return fact

    def merge_attempt(self, fact: AttemptBegun) -> None:
        """An earlier owner had let the player begin this attempt; `fact.player` is a number of this session.
        What was answered in it counts, whatever the player has done here, and after the end too. Nothing
        happens if the player has begun it here."""
        if self.self_pace is None or fact.player not in self._players:
            return
        if self.self_pace.number_of(fact.player, fact.attempt) is None:
            number = self.numbers + 1
            self._record(AttemptBegun(self.seq + 1, fact.at, fact.player, fact.attempt, number))

    def merge_shown(self, fact: QuestionShown) -> None:
        """An earlier owner had shown this question: its clock goes on, less the outages since. Not if the
        player has another question to answer by now, or has this one on the way already, by whatever clock;
        `fact.player` is a number of this session."""
        own, at = self._merges(fact)
        if own is None or not 1 <= fact.question <= self.of:
            return
        way = own.way(fact.player)
        waits = way.stage is Stage.ASKED and not own.time_over(fact.player, at)
        if way.stage is not Stage.DONE and not waits and fact.question not in way.questions:
            self._record(QuestionShown(self.seq + 1, at, fact.player, fact.question))

    def merge_done(self, fact: PlayerDone) -> None:
        """An earlier owner knew that the player was through. Not if the player has a question to answer
        here."""
        own, at = self._merges(fact)
        if own is None:
            return
        way = own.way(fact.player)
        waits = way.stage is Stage.ASKED and not own.time_over(fact.player, at)
        if way.stage is not Stage.DONE and not waits and len(way.questions) == self.of:
            self._record(PlayerDone(self.seq + 1, at, fact.player))

    def _merges(self, fact: QuestionShown | PlayerDone) -> tuple[SelfPace | None, int]:
        """When the step of a player happened, by the clock that runs now; None if it is not to be merged."""
        own = self.self_pace
        if own is None or self.phase is Phase.FINISHED:
            return None, 0
        who = self._players.get(own.player_of(fact.player))
        if who is None or who.kicked:
            return None, 0
        at = own.carried(fact.at)
        return (None, 0) if own.is_ahead(at) or own.is_over(at) else (own, at)

    def merge_deadline(self, fact: DeadlineMoved, now: int) -> None:
        """An earlier owner had moved the deadline. Where the host has moved it later, that stands; a deadline
        that is over by now ends the session now, and a session that has ended stays so."""
        own = self.self_pace
        if own is None or self.phase is Phase.FINISHED or fact.at <= own.deadline_moved_at:
            return
        closes_at = max(fact.closes_at, now)
        if closes_at != own.closes_at:
            self._record(DeadlineMoved(self.seq + 1, fact.at, closes_at))

    def extend(self, closes_at: int, at: int) -> Refusal | None:
        """Move the deadline, to a later or an earlier moment. Nothing happens when it is there already."""
        refusal = refuse("extend", self.phase)
        if refusal is not None:
            return refusal
        assert self.self_pace is not None, "only a self-paced session is open"
        never_open = self.self_pace.is_ahead(at) and closes_at <= self.self_pace.opens_at
        if never_open or not at < closes_at <= at + OPEN_MAX_MS:
            return _DEADLINE
        if closes_at != self.self_pace.closes_at:
            self._record(DeadlineMoved(self.seq + 1, at, closes_at))
        return None
