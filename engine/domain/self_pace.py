"""How each player of a self-paced session goes through the quiz.

How to think about it: every player has a small state machine and a clock. Facts alone move both:
`QuestionShown` starts the clock of one player, an answer stops it, `PlayerDone` ends the way. Nothing happens
when the time of a question is over, so no timer is needed: an answer that comes later is late, and the next
question may be shown.

                     QuestionShown                QuestionShown, once the time is over
             READY ----------------> ASKED -----------------------------> ASKED (the next question)
               ^                       |
               +------ an answer ------+

             READY, and ASKED once the time is over, -- PlayerDone --> DONE

A player who is DONE may begin another attempt, where the session has more than one. It has a number of its
own, in the same series as the numbers of players, and under that number a way of its own: the machine above,
from its start. So whatever holds for a player holds for each attempt. The `player` of a showing, an answer
and a PlayerDone is such a number; `player_of` tells whose it is.

Questions have the quiz's own numbers here. The `place` of a question on the way of a player, from 1, is the
number that the player sees.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.errors import DomainError
from engine.domain.extra_time import MOST, NONE, UNTIMED
from engine.domain.facts import (
    AnswerAccepted,
    AttemptBegun,
    DeadlineMoved,
    Fact,
    PlayerDone,
    QuestionShown,
)
from engine.domain.quiz import Quiz
from engine.domain.settings import Settings


class Stage(Enum):
    """Where a player is on the way."""

    READY = "no question of the player waits for an answer"
    ASKED = "a question was shown to the player, and is not answered; its time may be over"
    DONE = "the player is through"


MOVES: Final[Mapping[type[Fact], Mapping[Stage, Stage]]] = {
    QuestionShown: {Stage.READY: Stage.ASKED, Stage.ASKED: Stage.ASKED},
    AnswerAccepted: {Stage.ASKED: Stage.READY},
    PlayerDone: {Stage.READY: Stage.DONE, Stage.ASKED: Stage.DONE},
}
"""Which facts may happen to a player at which stage, and the stage after them."""


@dataclass(slots=True)
class Way:
    """The way of one player. `questions` are those that were shown, or whose answers were merged, in the
    order in which that became known here. `shown_at` belongs to the question that was shown last, and
    `given_back_ms` is what outages had given back to all players by then."""

    stage: Stage = Stage.READY
    asked: int = 0
    """The question that was shown last; 0 before the first."""
    shown_at: int = 0
    given_back_ms: int = 0
    questions: array[int] = field(default_factory=lambda: array("B"))
    merged: bool = False
    """Whether an answer was merged to a question that was not shown here. `questions` may then differ from
    the order in which the player is asked."""

    def place_of(self, question: int) -> int:
        """The number of a question as the player sees it; 0 if it is not on the way yet."""
        try:
            return self.questions.index(question) + 1
        except ValueError:
            return 0

    def question_at(self, place: int) -> int:
        """The question that the player sees under this number; 0 if there is none yet."""
        return self.questions[place - 1] if 1 <= place <= len(self.questions) else 0

    def before(self, question: int) -> int:
        """The question before this one; 0 before the first. A question that is not on the way comes after
        the last."""
        place = self.place_of(question)
        return self.question_at(place - 1 if place else len(self.questions))


class SelfPace:
    """The ways of all players of one session, and until when it is open. Moments are milliseconds since the
    epoch.

    Raises:
        DomainError: `bad_fact` for a fact that cannot have happened; nothing has changed then.
    """

    def __init__(self, quiz: Quiz, settings: Settings, created_at: int) -> None:
        self.untimed: Final = settings.untimed
        self.opens_at: Final = created_at if settings.open_from is None else settings.open_from
        self._open_from: Final = settings.open_from
        self.closes_at: int | None = None
        """The deadline; None: open until the host finishes the session."""
        if settings.open_ms is not None:
            self.closes_at = self.opens_at + settings.open_ms
        self.shown: Final = [0] * len(quiz.questions)
        """How often each question was shown to a player."""
        self.done = 0
        """How many players are through, with the first attempt at least."""
        self._limits_ms: Final = tuple(question.limit_ms for question in quiz.questions)
        self._percents: Final[dict[int, int]] = {}
        """The time limits of players with extra time, in percent of those of the questions; 0 for none."""
        self._ways: Final[dict[int, Way]] = {}
        self._attempts: Final[dict[int, dict[int, int]]] = {}
        """The attempts of players who have begun more than one: the number of each but the first."""
        self._players: Final[dict[int, int]] = {}
        """Whose the numbers of these attempts are."""
        self.deadline_moved_at = 0
        """When the host moved the deadline; 0 for never."""
        self._given_back_ms = 0
        """The length of all outages."""
        self._outages: Final[list[tuple[int, int]]] = []
        """The end of each outage and its length. A change to another clock counts as an outage, whose length
        may be negative."""
        self._clocks_run_until = 0
        """No clock of any player runs after this moment."""

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, SelfPace) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    # What is so

    def way(self, player: int) -> Way:
        """The way of a player, which is not to be changed; an empty one before the first question."""
        return self._ways.get(player) or Way()

    @property
    def later_attempts(self) -> int:
        """How many attempts were begun that are not the first of a player."""
        return len(self._players)

    def number_of(self, player: int, attempt: int) -> int | None:
        """The number under which a player makes an attempt; None if it was not begun. The first has the
        player's own."""
        return player if attempt == 1 else self._attempts.get(player, {}).get(attempt)

    def numbers_of(self, player: int) -> Collection[int]:
        """The numbers of all attempts of a player."""
        later = self._attempts.get(player)
        return (player,) if later is None else (player, *later.values())

    def last_attempt(self, player: int) -> int:
        """The last attempt that a player has begun; 1 before anything."""
        return max(self._attempts.get(player, (1,)))

    def is_through(self, player: int) -> bool:
        """Whether the player is through with an attempt."""
        return any(self.way(number).stage is Stage.DONE for number in self.numbers_of(player))

    def player_of(self, number: int) -> int:
        """The player whose attempt has this number."""
        return self._players.get(number, number)

    def elapsed_ms(self, player: int, at: int) -> int:
        """How long the question that was shown to a player last has been shown, without outages."""
        way = self.way(player)
        return max(0, at - way.shown_at - (self._given_back_ms - way.given_back_ms))

    def time_over(self, player: int, at: int) -> bool:
        """Whether the time of the question that was shown last is over, and no answer to it may come."""
        own_ms = self._limit_ms(player) * self._percent(player) // NONE
        return not self._is_untimed(player) and self.elapsed_ms(player, at) > own_ms + RECEIPT_GRACE_MS

    def answered_ms(self, player: int, at: int) -> int | None:
        """The time that counts for an answer that was received then; None if it came too late. Never more
        than the limit, also without one: scores and stored rows know no longer times."""
        if self.time_over(player, at):
            return None
        counts_ms = self.elapsed_ms(player, at) * NONE // self._percent(player)
        return min(counts_ms, self._limit_ms(player))

    def remaining_ms(self, player: int, at: int) -> int | None:
        """The time of the question that is left, whatever extra time the player has; None without a question,
        or without a limit."""
        if self.way(player).stage is not Stage.ASKED or self._is_untimed(player):
            return None
        return max(0, self._limit_ms(player) - self.elapsed_ms(player, at))

    def over_ms(self, player: int, at: int) -> int:
        """For how long the time of the question is over; a player with extra time may still answer."""
        if self.way(player).stage is not Stage.ASKED or self._is_untimed(player):
            return 0
        return max(0, self.elapsed_ms(player, at) - self._limit_ms(player))

    def received(self, player: int, at: int, held_ms: int) -> int:
        """As `PlayClock.received`, by the clock of this player."""
        return max(at - held_ms, min(at, self.way(player).shown_at))

    def is_ahead(self, at: int) -> bool:
        """Whether the session is not open yet. Without a date to open from it is open from the start, even
        if the clock was set back to before that."""
        return self._open_from is not None and at < self._open_from

    def is_over(self, at: int) -> bool:
        """Whether an answer that is received then comes after the deadline."""
        return self.closes_at is not None and at > self.closes_at + RECEIPT_GRACE_MS

    def following(self, player: int, order: Sequence[int]) -> int | None:
        """The first question in this order that is not on the way of the player; None if all are."""
        known = self.way(player).questions
        return next((question for question in order if question not in known), None)

    def carried(self, at: int) -> int:
        """A moment by the clock of an earlier owner, on the clock that runs now: time of later outages is
        added, so a clock that began then has run as far as it could."""
        for until, by_ms in self._outages:
            if at < max(until, until - by_ms):
                at += min(by_ms, until - at)
        return at

    def clocks_run(self, since: int) -> bool:
        """Whether the clock of some player may have run at that moment or later."""
        return since < self._clocks_run_until

    def _limit_ms(self, player: int) -> int:
        return self._limits_ms[self.way(player).asked - 1]

    def _percent(self, player: int) -> int:
        return self._percents.get(self.player_of(player), NONE) or MOST

    def _is_untimed(self, player: int) -> bool:
        return self.untimed or self._percents.get(self.player_of(player)) == UNTIMED

    # What happens

    def give_extra_time(self, player: int, percent: int) -> None:
        self._percents[player] = percent

    def show(self, fact: QuestionShown) -> None:
        way = self._ways.get(fact.player) or Way()
        if not 1 <= fact.question <= len(self.shown) or fact.question in way.questions:
            raise DomainError("bad_fact", f"question {fact.question} cannot be shown to player {fact.player}")
        way.stage = self._moved(fact, way.stage)
        way.asked, way.shown_at, way.given_back_ms = fact.question, fact.at, self._given_back_ms
        way.questions.append(fact.question)
        self._ways[fact.player] = way
        self.shown[fact.question - 1] += 1
        ends_at = fact.at + self._limits_ms[fact.question - 1] * MOST // NONE
        self._clocks_run_until = max(self._clocks_run_until, ends_at)

    def answer(self, fact: AnswerAccepted) -> None:
        way = self.way(fact.player)
        if fact.question != way.asked:
            raise DomainError("bad_fact", f"player {fact.player} was not asked question {fact.question}")
        way.stage = self._moved(fact, way.stage)

    def merge_answer(self, player: int, question: int) -> None:
        """An answer that an earlier owner took is an answer, whether that owner's showing is known here or
        not."""
        way = self._ways.setdefault(player, Way())
        if question not in way.questions:
            way.questions.append(question)
            way.merged = True
        if question == way.asked and way.stage is Stage.ASKED:
            way.stage = Stage.READY

    def begin(self, fact: AttemptBegun) -> None:
        if fact.attempt < 2 or self.number_of(fact.player, fact.attempt) is not None:
            raise DomainError("bad_fact", f"player {fact.player} cannot begin attempt {fact.attempt}")
        self._attempts.setdefault(fact.player, {})[fact.attempt] = fact.plays_as
        self._players[fact.plays_as] = fact.player

    def finish(self, fact: PlayerDone) -> None:
        way = self._ways.setdefault(fact.player, Way())
        way.stage = self._moved(fact, way.stage)
        self.done += fact.player not in self._players

    def move_deadline(self, fact: DeadlineMoved) -> None:
        self.closes_at, self.deadline_moved_at = fact.closes_at, fact.at

    def give_back(self, by_ms: int, at: int) -> None:
        """No player could answer for so long until then, or another clock goes on that is ahead by so
        much."""
        self._outages.append((at, by_ms))
        self._given_back_ms += by_ms
        self._clocks_run_until += by_ms

    @staticmethod
    def _moved(fact: QuestionShown | AnswerAccepted | PlayerDone, stage: Stage) -> Stage:
        moves = MOVES[type(fact)]
        if stage not in moves:
            raise DomainError(
                "bad_fact", f"{type(fact).__name__} cannot happen to a player who is {stage.name}"
            )
        return moves[stage]
