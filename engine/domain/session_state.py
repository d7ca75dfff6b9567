"""What a session is at a moment, and what may be read of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from engine.domain.answers import Answer, Answers
from engine.domain.clock import PlayClock
from engine.domain.extra_time import ExtraTime
from engine.domain.facts import AnswerMerged, Choice, Fact, PlayerJoined
from engine.domain.leaderboard import Leaderboard
from engine.domain.name_rules import PLAIN, NameRules
from engine.domain.names import Names, numbered
from engine.domain.phases import Phase
from engine.domain.players import Player
from engine.domain.questions import Question
from engine.domain.quiz import Quiz
from engine.domain.self_pace import SelfPace, Stage
from engine.domain.settings import Settings

_NOT_OF_THE_FACTS: Final = frozenset({"_untaken", "_away", "_unawaited", "_erased_users", "_released_at"})
"""What two sessions may differ in and still be equal."""


def _order_of_attempts(attempt: Player) -> tuple[int, int, int]:
    return -attempt.score, attempt.elapsed_ms, attempt.id


class SessionState:
    """The state of one session. Only facts change it (`ReplayedSession`), except for which players are
    present. Queries change nothing."""

    def __init__(
        self, quiz: Quiz, settings: Settings, created_at: int, name_rules: NameRules = PLAIN
    ) -> None:
        self.quiz: Final = settings.applied_to(quiz)
        self.settings: Final = settings
        self.created_at: Final = created_at
        self.phase = Phase.LOBBY
        self.locked = False
        self.approval = settings.approval
        """Whether the host lets players in one by one."""
        self.host_generation = 0
        """How often the host was replaced. Host tokens of this generation are valid."""
        self.seq = 0
        self.opened_at: int | None = None
        """When the current or last question opened; pauses are not taken out."""
        self._players: dict[int, Player] = {}
        self._later: Final[dict[int, Player]] = {}
        """The points of attempts that are not the first of a player, by the number of the attempt."""
        self._running: Final = Leaderboard()
        """With every answer that was taken."""
        self._shown: Leaderboard | None = None
        """Without those that are not shown yet, as long as there may be some: see `_hold_back`."""
        self._names: Final = Names(name_rules)
        self._users: dict[str, int] = {}
        """The seat of each user of the app."""
        # Hashes of the users that were erased, who do not get another seat. They mean nothing outside of this
        # process, and no fact holds them.
        self._erased_users: set[int] = set()
        self._answers: list[Answers] = []
        self.self_pace: Final = SelfPace(quiz, settings, created_at) if settings.pace == "self" else None
        """The ways of the players, each at their own pace; None where all are at one question."""
        if self.self_pace is not None:
            self.phase = Phase.OPEN
            self._answers = [Answers(question, 0) for question in self.quiz.questions]
            if settings.reveal != "each":
                self._shown = Leaderboard()
        self._paused_in: Phase | None = None
        self._clock = PlayClock(created_at)
        self._untaken: list[Fact] = []
        # No facts, but what is so at the moment: who is not here, and of these those for whom the open
        # question is not held open.
        self._away: set[int] = set()
        self._unawaited: set[int] = set()
        self._watching: set[int] = set()
        """Players who joined while the question was open, and may answer from the next one on."""
        self._extra: Final = ExtraTime()
        self._released_at = 0
        """The open question, held for players with extra time, closes at this moment at the earliest."""
        # By player, question and time of receipt: so that a merge may be repeated.
        self._merged: set[tuple[int, int, int]] = set()
        self._skipped: set[int] = set()
        # Whose answers to the question that was skipped last still count.
        self._unsettled: list[int] = []
        # Merged answers to questions that have not been opened here: by question, then by player.
        self._ahead: dict[int, dict[int, AnswerMerged]] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SessionState):
            return NotImplemented
        return self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    def _state(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_OF_THE_FACTS}

    @property
    def number(self) -> int:
        """The current or last question, counted from 1; 0 before the first, and where each player is at
        another one."""
        return 0 if self.self_pace else len(self._answers)

    @property
    def of(self) -> int:
        return len(self.quiz.questions)

    @property
    def question(self) -> Question | None:
        """The current or last question; None without one."""
        return self._answers[-1].question if self.number else None

    @property
    def question_open(self) -> bool:
        """Whether the current question is not closed yet; also while paused."""
        return bool(self.number) and self._answers[-1].closed_seq is None

    @property
    def withholds(self) -> bool:
        """Whether there are answers that do not show in the standing yet."""
        if self.self_pace:
            return self._shown is not None
        return self.settings.board == "at_close" and self.question_open

    @property
    def leaderboard(self) -> Leaderboard:
        """The standing as anybody may see it; not to be changed. With the board `at_close`, an answer moves
        the standing when its question is closed: otherwise it would tell which answers are right while other
        players still answer."""
        return self._running if self._shown is None else self._shown

    @property
    def players(self) -> Mapping[int, Player]:
        """All players that ever joined, removed ones included. Their scores count every accepted answer, and
        must not be shown: `leaderboard` has the scores to show."""
        return self._players

    @property
    def numbers(self) -> int:
        """How many numbers were given out, to players and to attempts of players (`SelfPace`). They count
        from 1."""
        return len(self._players) + len(self._later)

    def number_of(self, player: int, attempt: int) -> int | None:
        """The number under which a player makes an attempt; None without such a player or attempt."""
        if player not in self._players:
            return None
        if self.self_pace is None:
            return player if attempt == 1 else None
        return self.self_pace.number_of(player, attempt)

    def _person(self, number: int) -> Player:
        """The player whose number this is, or whose attempt has it. Raises KeyError."""
        own = self.self_pace
        return self._players[number if own is None else own.player_of(number)]

    def _playing(self, number: int) -> Player:
        """Who has the points, the time and the streak of the attempt with this number. Raises KeyError."""
        return self._players.get(number) or self._later[number]

    def _best(self, player: int) -> Player:
        """The attempt of a player that counts: the one with the most points, then the least time, then the
        lowest number."""
        own = self.self_pace
        numbers = (player,) if own is None else own.numbers_of(player)
        return min(map(self._playing, numbers), key=_order_of_attempts)

    def _best_through(self, player: int) -> Player | None:
        """As `_best`, of the attempts that the player is through with; None if there are none."""
        own = self.self_pace
        assert own is not None, "only players at their own pace are through"
        through = [number for number in own.numbers_of(player) if own.way(number).stage is Stage.DONE]
        return min(map(self._playing, through), key=_order_of_attempts, default=None)

    @property
    def active(self) -> int:
        """How many players there are, without removed ones."""
        return len(self._running)

    @property
    def answered(self) -> int:
        """Answers to the current or last question; with the pace `self` how many players are through."""
        if self.self_pace:
            return self.self_pace.done
        return self._answers[-1].answered if self._answers else 0

    def counts(self) -> list[int]:
        """Answers per choice to the current or last question, as `reveal.counts` in docs/protocol.md."""
        return list(self._answers[-1].counts) if self.number else []

    def name_of(self, player: int) -> str:
        """Raises KeyError."""
        return self._players[player].name

    def called(self, name: str) -> int | None:
        """The player whose name equals this one or is too similar; None if there is none. The name of an
        erased player is its placeholder."""
        return self._names.player(name)

    def seat_of_user(self, user_id: str) -> int | None:
        """The player that is this user of the app; None if there is none."""
        return self._users.get(user_id)

    def was_erased(self, user_id: str) -> bool:
        """Whether the player that was this user was erased, as far as this process knows: nothing that is
        stored tells it."""
        return hash(user_id) in self._erased_users

    def seat_of(self, fact: PlayerJoined) -> int | None:
        """The player whom an earlier owner had admitted by this fact; None if there is none. It is the player
        of the same user. For a guest it is the guest whose name equals this one, or is too similar, or was
        numbered because users have the name."""
        if fact.user_id is not None:
            return self._users.get(fact.user_id)
        player = self.called(fact.name)
        number = 2
        while player is not None and self._players[player].user_id is not None:
            player = self.called(numbered(fact.name, number))
            number += 1
        return player

    def streak(self, player: int) -> int:
        """Right answers in a row, as anybody may see it: without those that were skipped, and with the board
        `live`, the open question included once it is answered. With the pace `self` those of the attempt
        with this number. Raises KeyError."""
        who = self._playing(player)
        if self.self_pace:
            return self._own_streak(who)
        closed = self.number - self.question_open
        if self._shown is not None and who.streak_question > closed:
            return self._row_up_to(closed, player)
        if self._shown is None and self.question_open:
            answer = self._answers[-1].of(player)
            if answer is not None and not answer.correct:
                return 0
        return who.streak if who.streak_question >= self._before(closed + 1) else 0

    def score_of_attempt(self, number: int) -> int:
        """The points of an attempt, whether it is the one that counts or not. To be shown to a player who may
        know them, and to nobody else. Raises KeyError."""
        return self._playing(number).score

    def _own_streak(self, who: Player) -> int:
        """Right answers in a row up to the last question that the player has left behind."""
        assert self.self_pace is not None
        way = self.self_pace.way(who.id)
        last = way.asked if way.asked and way.stage is not Stage.ASKED else way.before(way.asked)
        return who.streak if last and who.streak_question == last else 0

    def _row_up_to(self, question: int, player: int) -> int:
        """Right answers in a row that end with this question."""
        row = 0
        while question := self._before(question + 1):
            answer = self._answers[question - 1].of(player)
            if answer is None or not answer.correct:
                break
            row, question = row + 1, question - 1
        return row

    def answer_of(self, player: int, question: int) -> tuple[Choice, int] | None:
        """The choice and its elapsed play time in ms; None when there is no answer."""
        if not 1 <= question <= len(self._answers):
            return None
        answer = self._answers[question - 1].of(player)
        return None if answer is None else (answer.choice, answer.elapsed_ms)

    def result_of(self, player: int) -> tuple[bool | None, int]:
        """Right or wrong, and the points, for the last closed question; (None, 0) when it was not answered,
        or was skipped."""
        closed = self.number - 1 if self.question_open else self.number
        if closed in self._skipped:
            return None, 0
        answer = self._answers[closed - 1].of(player) if closed else None
        return (None, 0) if answer is None else (answer.correct, answer.points)

    def mark_of(self, player: int, question: int) -> tuple[bool | None, int]:
        """Right or wrong, and the points, for any question; (None, 0) without an answer."""
        answer = self._answers[question - 1].of(player)
        return (None, 0) if answer is None else (answer.correct, answer.points)

    def answered_each(self) -> list[int]:
        """Answers to each question that was opened; with the pace `self` to every question."""
        return [answers.answered for answers in self._answers]

    def skipped(self, question: int) -> bool:
        """Whether this question was skipped, and counts for no player."""
        return question in self._skipped

    def _preceding(self, player: int, question: int) -> int:
        """The question before this one on the way of a player, among those that count; 0 before the first."""
        if self.self_pace:
            return self.self_pace.way(player).before(question)
        return self._before(question)

    def _before(self, question: int) -> int:
        """The question before this one, among those that count; 0 before the first."""
        question -= 1
        while question in self._skipped:
            question -= 1
        return question

    def _standing(self, player: int, question: int) -> tuple[int, Answer] | None:
        """When the answer that stands was received, and the answer; None without one."""
        if question <= len(self._answers):
            answers = self._answers[question - 1]
            answer = answers.of(player)
            return None if answer is None else (answers.at_of(player), answer)
        ahead = self._ahead.get(question, {}).get(player)
        if ahead is None:
            return None
        return ahead.at, Answer(ahead.choice, ahead.elapsed_ms, ahead.correct, ahead.points)

    @property
    def deadline(self) -> int | None:
        """The next moment at which `elapse` has something to do; None when nothing happens by itself."""
        if self.phase is Phase.OPEN:
            assert self.self_pace is not None
            return self.self_pace.closes_at
        if self.phase is Phase.QUESTION:
            own_ms = self._answers[-1].question.limit_ms * self._extra.longest // 100
            return max(self._clock.moment(own_ms), self._released_at)
        if self.settings.pace == "auto":
            if self.phase is Phase.REVEAL:
                return self.shown_until
            if self.phase is Phase.LOBBY and self.settings.lobby_ms is not None:
                return self._clock.moment(self.settings.lobby_ms)
        return None

    def counts_down(self, since: int) -> bool:
        """Whether a countdown of all, or the clock of some player, may have run at that moment or later."""
        if self.self_pace:
            return self.phase is Phase.OPEN and self.self_pace.clocks_run(since)
        return self.deadline is not None

    @property
    def may_rest(self) -> bool:
        """Whether nothing is amiss if no node looks at the session until it is asked for something: only its
        end may be due by then."""
        return self.phase is Phase.OPEN or self.deadline is None

    @property
    def shown_until(self) -> int | None:
        """Until when the closed question is shown at least; None if none is shown."""
        return self._clock.moment(self.settings.reveal_ms) if self.phase is Phase.REVEAL else None

    def remaining_ms(self, now: int) -> int | None:
        """Play time left to answer; it stands still while paused. None when no question is open."""
        if not self.question_open:
            return None
        return max(0, self._answers[-1].question.limit_ms - self._clock.elapsed_ms(now))

    def over_ms(self, now: int) -> int:
        """For how long the question is open after its time limit, because some players have extra time."""
        if not self.question_open or not self._extra:
            return 0
        return max(0, self._clock.elapsed_ms(now) - self._answers[-1].question.limit_ms)

    def extra_time_of(self, player: int) -> int:
        """The player's time limit, in percent of that of a question; 0 for none."""
        return self._extra.of(player)

    @property
    def with_extra_time(self) -> Collection[int]:
        """The players that have extra time."""
        return self._extra.players

    def watches(self, player: int) -> bool:
        """Whether this player joined while the current question was open, and may not answer it."""
        return player in self._watching

    def opens_in_ms(self, now: int) -> int | None:
        """How long until the open question takes answers, and its play time runs; 0 once it does. It stands
        still while paused. None when no question is open."""
        return self._clock.opens_in_ms(now) if self.question_open else None

    def withholds_choices(self, now: int) -> bool:
        """Whether the choices of the open question are still withheld from players."""
        return bool(self.settings.reading_ms and self.opens_in_ms(now))

    @property
    def opens_at(self) -> int:
        """When the open question began to take answers, or will if nothing stops the clock; 0 when it did so
        at once."""
        return self._clock.opens_at
