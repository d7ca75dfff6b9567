"""One live run of a quiz.

A session changes in one way only: a command that the rules allow becomes a fact, and the fact is applied.
Recovery applies the same facts again, and so arrives at an equal session. Time comes in with every
command, in milliseconds since the epoch; the session has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.domain.answers import Answer, Answers
from engine.domain.clock import PlayClock
from engine.domain.errors import DomainError, Refusal
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    Choice,
    ClockExtended,
    Fact,
    Finished,
    HostReplaced,
    LockChanged,
    Paused,
    PlayerJoined,
    PlayerKicked,
    PlayerReadmitted,
    QuestionClosed,
    QuestionOpened,
    QuestionSkipped,
    Resumed,
    erased_name,
)
from engine.domain.generated_names import given_name
from engine.domain.leaderboard import Leaderboard
from engine.domain.name_rules import PLAIN, NameRules, stands_for_erased
from engine.domain.phases import Phase, move, refuse
from engine.domain.players import Player
from engine.domain.questions import Question
from engine.domain.quiz import Quiz
from engine.domain.settings import Settings
from engine.domain.text import clean_name, fold

__all__ = ["Applied", "Phase", "Player", "Repeated", "Session", "Settings"]

_PLAYER_NOT_FOUND: Final = Refusal("player_not_found", "Nobody here has this number.")
_KICKED: Final = Refusal("kicked", "The host removed this player.")
_WRONG_QUESTION: Final = Refusal("wrong_question", "This question is not the current one and has not been.")
_QUESTION_CLOSED: Final = Refusal("question_closed", "The time for this question is over.")
_NOT_OPEN_YET: Final = Refusal("not_open_yet", "The question is shown, and takes no answers yet.")
_LATE: Final = Refusal("late", "The answer came after the time limit.")
_PAUSED: Final = Refusal("paused", "The session is paused.")
_FINISHED: Final = Refusal("session_finished", "The session is over.")
_LOCKED: Final = Refusal("session_locked", "The host lets nobody else in.")
_FULL: Final = Refusal("session_full", "The session has no room for more players.")
_NOTHING_TO_SKIP: Final = Refusal("illegal_move", "No question is open or shown that could be skipped.")
_NAME_MISSING: Final = Refusal("missing_field", "A player of this session gives a name.")
_NAME_TAKEN: Final = Refusal("name_taken", "Somebody here has this name already, or one that looks like it.")
_NAME_REFUSED: Final = Refusal("name_refused", "This name is not for players here.")


@dataclass(frozen=True, slots=True)
class Applied:
    """The player may come in under this name once the host agrees. Nothing has changed."""

    name: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """The player had answered this question before; that answer stands and nothing has changed.

    `same` tells whether this choice equals the one that stands. The commit of the fact `seq` covers
    the answer that stands.
    """

    question: int
    elapsed_ms: int
    same: bool
    seq: int


class Session:
    """The aggregate: phases, players, answers, scores and the play clock of one session.

    Commands return a `Refusal`, and then nothing has changed, or what came of them. Reading never changes
    anything. Two sessions are equal when they would answer every command alike.
    """

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
        """How often the session was taken over: that of the host tokens that are good."""
        self.seq = 0
        self.opened_at: int | None = None
        """When the current or last question opened; pauses are not taken out."""
        self._players: dict[int, Player] = {}
        self._running: Final = Leaderboard()
        """With every answer that was taken."""
        self._shown: Leaderboard | None = None
        """Without those that are not shown yet, as long as there may be some: see `_hold_back`."""
        self._name_rules: Final = name_rules
        self._names: dict[str, int] = {}
        self._skeletons: dict[str, int] = {}
        self._erased: dict[str, int] = {}
        # Of the erased names of removed players, whose door stays shut: not the names, but hashes of them,
        # which mean nothing outside of this process. No facts either.
        self._shut: set[int] = set()
        self._answers: list[Answers] = []
        self._paused_in: Phase | None = None
        self._clock = PlayClock(created_at)
        self._untaken: list[Fact] = []
        # No facts, but what is so at the moment: who is not here, and of these those for whom the open
        # question is not held open.
        self._away: set[int] = set()
        self._unawaited: set[int] = set()
        # By player, question and time of receipt: so that a merge may be repeated.
        self._merged: set[tuple[int, int, int]] = set()
        self._skipped: set[int] = set()
        # Whose answers to the question that was skipped last still count.
        self._unsettled: list[int] = []
        # Merged answers to questions that have not been opened here: by question, then by player.
        self._ahead: dict[int, dict[int, AnswerMerged]] = {}

    @classmethod
    def recover(cls, quiz: Quiz, settings: Settings, created_at: int, facts: Iterable[Fact]) -> Session:
        """The session that recorded these facts, given in the order of `seq`. See `replay`."""
        session = cls(quiz, settings, created_at)
        session.replay(facts)
        return session

    def replay(self, facts: Iterable[Fact], *, piecemeal: bool = False) -> None:
        """Apply stored facts that follow the last one applied. They are not given out by `take_facts`.
        `piecemeal`: as in `skip`.

        Raises:
            DomainError: `bad_fact` for one that cannot have happened. The session is of no use then.
        """
        for fact in facts:
            self._apply(fact)
        if not piecemeal:
            self.settle_skip()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Session):
            return NotImplemented
        return self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    def _state(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in _NOT_OF_THE_FACTS}

    # Reading

    @property
    def number(self) -> int:
        """The current or last question, counted from 1; 0 before the first."""
        return len(self._answers)

    @property
    def of(self) -> int:
        return len(self.quiz.questions)

    @property
    def question(self) -> Question | None:
        """The current or last question; None before the first."""
        return self._answers[-1].question if self._answers else None

    @property
    def question_open(self) -> bool:
        """Whether the current question is not closed yet; also while paused."""
        return bool(self._answers) and self._answers[-1].closed_seq is None

    @property
    def withholds(self) -> bool:
        """Whether a question is open whose answers do not show in the standing before it is closed."""
        return self.settings.board == "at_close" and self.question_open

    @property
    def leaderboard(self) -> Leaderboard:
        """The standing as anybody may see it; not to be changed. With the board `at_close`, an answer moves
        it when its question is closed: else it would tell who is right while others still answer."""
        return self._running if self._shown is None else self._shown

    @property
    def players(self) -> Mapping[int, Player]:
        """All who ever joined, kicked ones too. Their scores are those of all answers that were taken, for
        nobody to see: `leaderboard` has what is shown."""
        return self._players

    @property
    def active(self) -> int:
        """How many players there are, kicked ones left out."""
        return len(self._running)

    @property
    def answered(self) -> int:
        """Answers to the current or last question."""
        return self._answers[-1].answered if self._answers else 0

    def counts(self) -> list[int]:
        """Answers per choice to the current or last question, as `reveal.counts` in docs/protocol.md."""
        return list(self._answers[-1].counts) if self._answers else []

    def name_of(self, player: int) -> str:
        """Raises KeyError."""
        return self._players[player].name

    def called(self, name: str) -> int | None:
        """The player whose name is this or too much like it; None when nobody's is. An erased one is called
        what stands in place of the name."""
        found = self._names.get(_likeness(name))
        return self._erased.get(name) if found is None else found

    def streak(self, player: int) -> int:
        """Right answers in a row, as anybody may see it: without those that were skipped, and with the board
        `live`, the open question included once it is answered. Raises KeyError."""
        who = self._players[player]
        closed = self.number - self.question_open
        if self._shown is not None and who.streak_question > closed:
            return self._row_up_to(closed, player)
        if self._shown is None and self.question_open:
            answer = self._answers[-1].of(player)
            if answer is not None and not answer.correct:
                return 0
        return who.streak if who.streak_question >= self._before(closed + 1) else 0

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
        if not 1 <= question <= self.number:
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

    def skipped(self, question: int) -> bool:
        """Whether this question counts for nobody."""
        return question in self._skipped

    def _before(self, question: int) -> int:
        """The question before this one, among those that count; 0 before the first."""
        question -= 1
        while question in self._skipped:
            question -= 1
        return question

    @property
    def deadline(self) -> int | None:
        """The next moment at which `elapse` has something to do; None when nothing happens by itself."""
        if self.phase is Phase.QUESTION:
            return self._clock.moment(self._answers[-1].question.limit_ms)
        if self.settings.pace == "auto":
            if self.phase is Phase.REVEAL:
                return self.shown_until
            if self.phase is Phase.LOBBY and self.settings.lobby_ms is not None:
                return self._clock.moment(self.settings.lobby_ms)
        return None

    @property
    def shown_until(self) -> int | None:
        """Until when the question that is closed now is to be shown at least; None when none is shown."""
        return self._clock.moment(self.settings.reveal_ms) if self.phase is Phase.REVEAL else None

    def remaining_ms(self, now: int) -> int | None:
        """Play time left to answer; it stands still while paused. None when no question is open."""
        if not self.question_open:
            return None
        return max(0, self._answers[-1].question.limit_ms - self._clock.elapsed_ms(now))

    def opens_in_ms(self, now: int) -> int | None:
        """How long until the open question takes answers, and its play time runs; 0 once it does. It stands
        still while paused. None when no question is open."""
        return self._clock.opens_in_ms(now) if self.question_open else None

    def withholds_choices(self, now: int) -> bool:
        """Whether the choices of the open question are not for everybody to see yet."""
        return bool(self.settings.reading_ms and self.opens_in_ms(now))

    @property
    def opens_at(self) -> int:
        """When the open question began to take answers, or will if nothing stops the clock; 0 when it did so
        at once."""
        return self._clock.opens_at

    # Players

    def join(self, name: object, at: int, *, admitted: bool = False) -> PlayerJoined | Applied | Refusal:
        """Let a new player in, under a name nobody here has or had: the given one, whatever `name` is, where
        names are given. `name` is None when it was left out. `admitted`: the host has agreed."""
        if self.phase is Phase.FINISHED:
            return _FINISHED
        if self.locked:
            return _LOCKED
        if self.active >= self.settings.player_limit:
            return _FULL
        if self.settings.names == "given":
            name = given_name(len(self._players) + 1, self.quiz.language)
        elif name is None:
            return _NAME_MISSING
        try:
            cleaned = clean_name(name)
        except DomainError as error:
            return Refusal(error.code, error.message)
        likeness, skeleton = _likeness(cleaned), self._name_rules.skeleton(cleaned)
        filtered = self.settings.name_filter and self.settings.names == "chosen"
        if filtered and self._name_rules.refuses(likeness, skeleton, self.quiz.language):
            return _NAME_REFUSED
        if stands_for_erased(likeness):
            return _NAME_REFUSED
        if likeness in self._names or skeleton in self._skeletons:
            return _NAME_TAKEN
        if hash(likeness) in self._shut or hash(skeleton) in self._shut:
            return _NAME_TAKEN
        if self.approval and not admitted:
            return Applied(cleaned)
        joined = PlayerJoined(self.seq + 1, at, len(self._players) + 1, cleaned)
        self._record(joined)
        return joined

    def answer(
        self, player: int, question: int, raw_choice: object, at: int
    ) -> AnswerAccepted | Repeated | Refusal:
        """Take an answer, judge and score it. The first one of a player to a question stands.

        `raw_choice` is the JSON value as it came. `at` earlier than the opening counts as no time at all.
        """
        who = self._players.get(player)
        if who is None:
            return _PLAYER_NOT_FOUND
        if who.erased:
            return _PLAYER_NOT_FOUND
        if who.kicked:
            return _KICKED
        if not 1 <= question <= len(self._answers):
            return _FINISHED if self.phase is Phase.FINISHED else _WRONG_QUESTION
        answers = self._answers[question - 1]
        asked = answers.question
        choice = asked.read(raw_choice)
        if isinstance(choice, Refusal):
            return choice
        standing = answers.choice_of(player)
        if standing is not None:
            stood_ms, seq = answers.elapsed_ms_of(player), answers.seq_of(player)
            return Repeated(question, stood_ms, choice == standing, seq)
        if self.phase is not Phase.QUESTION or answers.closed_seq is not None:
            return self._not_open(answers)
        if at < self._clock.opens_at:
            return _NOT_OPEN_YET
        elapsed_ms = self._clock.answered_ms(at, asked.limit_ms)
        if elapsed_ms is None:
            return _LATE
        correct = asked.judge(choice)
        streak = who.streak_with(self._before(question)) if correct else 0
        points = self.quiz.scoring.points(asked.points, asked.limit_ms, elapsed_ms, correct, streak)
        fact = AnswerAccepted(self.seq + 1, at, player, question, choice, elapsed_ms, correct, points)
        self._record(fact)
        self._close_if_all_answered(at)
        return fact

    def _not_open(self, answers: Answers) -> Refusal:
        if self.phase is Phase.FINISHED:
            return _FINISHED
        return _QUESTION_CLOSED if answers.closed_seq is not None else _PAUSED

    # What an earlier owner had acknowledged

    def merge_player(self, fact: PlayerJoined) -> None:
        """Let in who had been let in by an earlier owner of the session, whatever phase, lock and limit say.
        Whoever has that name already is taken to be the same player; else the next number is given."""
        if self.called(fact.name) is None:
            self._record(PlayerJoined(self.seq + 1, fact.at, len(self._players) + 1, fact.name))

    def merge_answer(self, fact: AnswerAccepted | AnswerMerged) -> None:
        """Take an answer that an earlier owner had acknowledged; `fact.player` is a number of this session.

        The answer that was received first stands, and on a tie the one that was here first. One that stands
        brings the points that it was given then; points that other answers were given do not change. An
        answer that is here already changes nothing, nor does one that cannot belong to this session.
        """
        player, question = fact.player, fact.question
        if player not in self._players or not 1 <= question <= self.of:
            return
        standing = self._standing(player, question)
        same = standing is not None and standing[0] == fact.at and standing[1].choice == fact.choice
        if same or (player, question, fact.at) in self._merged:
            return
        self._record(
            AnswerMerged(
                self.seq + 1,
                fact.at,
                player,
                question,
                fact.choice,
                fact.elapsed_ms,
                fact.correct,
                fact.points,
            )
        )

    def settle_merged(self, at: int) -> None:
        """After a merge: close the question if now all have answered."""
        self._close_if_all_answered(at)

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

    # The host, and the clock

    def start(self, at: int) -> Refusal | None:
        """Open the first question."""
        refusal = refuse("start", self.phase)
        if refusal is None:
            self._open(1, at)
        return refusal

    def next(self, at: int) -> Refusal | None:
        """Open the question after the one that is closed; after the last, finish."""
        refusal = refuse("next", self.phase)
        if refusal is None:
            self._advance(at)
        return refusal

    def close(self, at: int) -> Refusal | None:
        """Close the question before its time is over."""
        refusal = refuse("close", self.phase)
        if refusal is None:
            self._close(at)
        return refusal

    def skip(self, at: int, *, piecemeal: bool = False) -> Refusal | None:
        """Have the question that is open, or shown, count for nobody; an open one is closed. Nothing happens
        when that was done already. `piecemeal`: `settle_skip` takes the points back afterwards."""
        refusal = refuse("skip", self.phase)
        if refusal is not None:
            return refusal
        if self.phase is Phase.PAUSED and not self.question_open:
            return _NOTHING_TO_SKIP
        if self.number not in self._skipped:
            if self.phase is Phase.PAUSED:
                self._record(Resumed(self.seq + 1, at))
            self._record(QuestionSkipped(self.seq + 1, at, self.number))
            if not piecemeal:
                self.settle_skip()
        return None

    def settle_skip(self, most: int | None = None) -> bool:
        """After a skip, or the replay of one: take back what so many more players were given, all by default.
        Until this is False scores and ranks are neither as before nor as after."""
        for _ in range(len(self._unsettled) if most is None else min(most, len(self._unsettled))):
            who = self._players[self._unsettled.pop()]
            answer = self._answers[-1].of(who.id)
            assert answer is not None, "only who answered is settled"
            who.score -= answer.points
            who.elapsed_ms -= answer.elapsed_ms
            self._count_streak(who)
            if not who.kicked:
                self._running.update(who.id, who.score, who.elapsed_ms)
                self._show(who)
        return bool(self._unsettled)

    def pause(self, at: int) -> Refusal | None:
        """Stop the play clock, and take no answers."""
        refusal = refuse("pause", self.phase)
        if refusal is None:
            self._record(Paused(self.seq + 1, at))
        return refusal

    def resume(self, at: int) -> Refusal | None:
        """Go on where `pause` stopped."""
        refusal = refuse("resume", self.phase)
        if refusal is None:
            self._record(Resumed(self.seq + 1, at))
            self._close_if_all_answered(at)
        return refusal

    def finish(self, at: int) -> Refusal | None:
        """End the session; an open question is closed first."""
        refusal = refuse("finish", self.phase)
        if refusal is None:
            if self.phase is Phase.PAUSED:
                self._record(Resumed(self.seq + 1, at))
            if self.phase is Phase.QUESTION:
                self._close(at)
            self._record(Finished(self.seq + 1, at))
        return refusal

    def lock(self, on: bool, at: int) -> Refusal | None:
        """Let nobody else in, or let players in again, as before. Nothing happens when it is so already."""
        refusal = refuse("lock", self.phase)
        if refusal is None and on != self.locked:
            self._record(LockChanged(self.seq + 1, at, on or (None if self.approval else False)))
        return refusal

    def ask_first(self, on: bool, at: int) -> Refusal | None:
        """Let players in one by one, or as they come; either way the door is not locked any more."""
        refusal = refuse("approval", self.phase)
        if refusal is None and (on != self.approval or self.locked):
            self._record(LockChanged(self.seq + 1, at, None if on else False))
        return refusal

    def replace_host(self, at: int) -> Refusal | None:
        """Whoever has led the session until now does so no longer."""
        if self.phase is Phase.FINISHED:
            return _FINISHED
        self._record(HostReplaced(self.seq + 1, at))
        return None

    def kick(self, player: int, at: int) -> Refusal | None:
        """Remove a player for good. Nothing happens when that was done already."""
        refusal = refuse("kick", self.phase)
        if refusal is not None:
            return refusal
        who = self._players.get(player)
        if who is None:
            return _PLAYER_NOT_FOUND
        if not who.kicked:
            self._record(PlayerKicked(self.seq + 1, at, player))
            self._close_if_all_answered(at)
        return None

    def readmit(self, player: int, at: int) -> Refusal | None:
        """Let a player who was removed in again, under the same name and with all points. Nothing happens to
        one who is in."""
        refusal = refuse("readmit", self.phase)
        if refusal is not None:
            return refusal
        who = self._players.get(player)
        if who is None or who.erased:
            return _PLAYER_NOT_FOUND
        if who.kicked:
            if self.active >= self.settings.player_limit:
                return _FULL
            self._record(PlayerReadmitted(self.seq + 1, at, player))
        return None

    def erase(self, player: int, at: int) -> Refusal | None:
        """Take a player's name away, and let nobody be this player any more. What the player has answered
        stays, and counts. No question is held open for this player. The name is free again, unless the player
        was removed. Nothing happens when it was done already.

        This is no fact, but a change to one: without the name the stored facts give the same session.
        """
        who = self._players.get(player)
        if who is None:
            return _PLAYER_NOT_FOUND
        if not who.erased:
            likeness = _likeness(who.name)
            if self._names.get(likeness) == player:
                del self._names[likeness]
            skeleton = self._name_rules.skeleton(who.name)
            if self._skeletons.get(skeleton) == player:
                del self._skeletons[skeleton]
            if who.kicked:
                self._shut |= {hash(likeness), hash(skeleton)}
            self._call_erased(who)
            self.away((player,), at)
        return None

    def _call_erased(self, who: Player) -> None:
        who.name, who.erased = erased_name(who.id), True
        self._erased[who.name] = who.id

    def away(self, players: Iterable[int], at: int) -> None:
        """These are not here: as long as that is so, no question is held open for them."""
        self._miss(players)
        if self.question_open:
            self._close_if_all_answered(at)

    def _miss(self, players: Iterable[int]) -> None:
        away = {player for player in players if player in self._running}
        self._away |= away
        if self.question_open:
            answers = self._answers[-1]
            self._unawaited |= {player for player in away if answers.choice_of(player) is None}

    def back(self, player: int) -> None:
        """The player is here again. Nobody is an erased one any more."""
        if not self._players[player].erased:
            self._await(player)

    def _await(self, player: int) -> None:
        self._away.discard(player)
        self._unawaited.discard(player)

    def extend_clock(self, by_ms: int, at: int) -> None:
        """Give back the time during which nobody could answer. Does nothing when no countdown runs."""
        if by_ms > 0:
            self.move_clock(by_ms, at)

    def move_clock(self, by_ms: int, at: int) -> None:
        """From now on moments are given by a clock that is ahead by so much of the one that gave them until
        now, or behind, if that is negative. Does nothing when no countdown runs: the next begins with the new
        clock."""
        if by_ms and self.deadline is not None:
            self._record(ClockExtended(self.seq + 1, at, by_ms))

    def elapse(self, now: int) -> None:
        """Do all that is due by now, each thing dated at the moment it was due."""
        due = self.deadline
        while due is not None and due <= now:
            if self.phase is Phase.QUESTION:
                self._close(due)
            else:
                self._advance(due)
            due = self.deadline

    def take_facts(self) -> list[Fact]:
        """What was recorded since the last call."""
        taken, self._untaken = self._untaken, []
        return taken

    def _advance(self, at: int) -> None:
        if self.number < self.of:
            self._open(self.number + 1, at)
        else:
            self._record(Finished(self.seq + 1, at))

    def _open(self, question: int, at: int) -> None:
        self._record(QuestionOpened(self.seq + 1, at, question, self.settings.ready_ms))

    def _close(self, at: int) -> None:
        self._record(QuestionClosed(self.seq + 1, at, self.number))

    def _close_if_all_answered(self, at: int) -> None:
        if self.phase is not Phase.QUESTION or not self.settings.early_close:
            return
        answered = self._answers[-1].answered
        if answered and answered + len(self._unawaited) == len(self._running):
            self._close(at)

    # Facts: the only code that changes what the session is

    def _record(self, fact: Fact) -> None:
        self._apply(fact)
        self._untaken.append(fact)

    def _apply(self, fact: Fact) -> None:
        if fact.seq != self.seq + 1:
            raise DomainError("bad_fact", f"fact {fact.seq} cannot follow fact {self.seq}")
        if self._unsettled:
            self.settle_skip()
        _APPLY[type(fact)](self, fact)
        self.seq = fact.seq

    def _apply_player_joined(self, fact: PlayerJoined) -> None:
        who = self._players[fact.player] = Player(fact.player, fact.name)
        if fact.erased:
            self._call_erased(who)
        else:
            self._names[_likeness(fact.name)] = fact.player
            self._skeletons[self._name_rules.skeleton(fact.name)] = fact.player
        for board in self._boards:
            board.add(fact.player)
        if fact.erased:
            self._miss((fact.player,))

    def _apply_player_kicked(self, fact: PlayerKicked) -> None:
        self._players[fact.player].kicked = True
        self._await(fact.player)
        for board in self._boards:
            board.remove(fact.player)
        if self.question_open:
            self._answers[-1].withdraw(fact.player)

    def _apply_player_readmitted(self, fact: PlayerReadmitted) -> None:
        who = self._players[fact.player]
        who.kicked = False
        if self.question_open:
            self._answers[-1].count_again(fact.player)
        for board in self._boards:
            board.add(fact.player)
        self._running.update(fact.player, who.score, who.elapsed_ms)
        self._show(who)
        if who.erased:
            self._miss((fact.player,))

    def _apply_answer_accepted(self, fact: AnswerAccepted) -> None:
        who = self._players[fact.player]
        self._answers[fact.question - 1].add(fact, len(self._players))
        self._unawaited.discard(fact.player)
        who.score += fact.points
        who.elapsed_ms += fact.elapsed_ms
        if fact.correct:
            who.streak = who.streak_with(self._before(fact.question))
            who.streak_question = fact.question
        self._running.update(fact.player, who.score, who.elapsed_ms)

    def _apply_answer_merged(self, fact: AnswerMerged) -> None:
        who = self._players[fact.player]
        self._merged.add((fact.player, fact.question, fact.at))
        standing = self._standing(fact.player, fact.question)
        if standing is not None and standing[0] <= fact.at:
            return
        if fact.question not in self._skipped:
            if standing is not None:
                who.score -= standing[1].points
                who.elapsed_ms -= standing[1].elapsed_ms
            who.score += fact.points
            who.elapsed_ms += fact.elapsed_ms
        if fact.question <= len(self._answers):
            self._answers[fact.question - 1].put(fact, len(self._players), counted=not who.kicked)
            if fact.question == self.number:
                self._unawaited.discard(fact.player)
        else:
            self._ahead.setdefault(fact.question, {})[fact.player] = fact
            if self.phase is not Phase.FINISHED:
                self._hold_back()
        self._count_streak(who)
        if not who.kicked:
            self._running.update(fact.player, who.score, who.elapsed_ms)
            self._show(who)

    def _count_streak(self, who: Player) -> None:
        """As if the answers that stand, and count, had come in the order of their questions."""
        who.streak = who.streak_question = 0
        for question in range(1, max([len(self._answers), *self._ahead]) + 1):
            standing = None if question in self._skipped else self._standing(who.id, question)
            if standing is None:
                continue
            if standing[1].correct:
                who.streak = who.streak_with(self._before(question))
                who.streak_question = question

    @property
    def _boards(self) -> Iterable[Leaderboard]:
        return (self._running,) if self._shown is None else (self._running, self._shown)

    def _hold_back(self) -> None:
        """From now on, answers to the open question, and to those that have not been opened here, do not show
        in the standing, unless that is live."""
        if self._shown is None and self.settings.board == "at_close":
            self._shown = self._running.snapshot()

    def _show(self, who: Player) -> None:
        """Put the player, who is in, where the answers that may be seen do."""
        if self._shown is None:
            return
        score, elapsed_ms = who.score, who.elapsed_ms
        hidden = [*self._ahead, self.number] if self.question_open else [*self._ahead]
        for question in hidden:
            standing = self._standing(who.id, question)
            if standing is not None:
                score -= standing[1].points
                elapsed_ms -= standing[1].elapsed_ms
        self._shown.update(who.id, score, elapsed_ms)

    def _show_closed(self) -> None:
        """Show the answers to all questions that are closed."""
        self._shown = None
        if self._ahead:
            self._hold_back()
            for player in {player for ahead in self._ahead.values() for player in ahead}:
                if not self._players[player].kicked:
                    self._show(self._players[player])

    def _apply_question_opened(self, fact: QuestionOpened) -> None:
        self.phase = move(fact, self.phase, None)
        self._hold_back()
        answers = Answers(self.quiz.questions[fact.question - 1], len(self._players))
        self._unawaited = self._away - self._ahead.get(fact.question, {}).keys()
        for ahead in self._ahead.pop(fact.question, {}).values():
            answers.put(ahead, len(self._players), counted=not self._players[ahead.player].kicked)
        self._answers.append(answers)
        self.opened_at = fact.at
        self._clock.restart(fact.at, fact.ready_ms)

    def _apply_question_closed(self, fact: QuestionClosed) -> None:
        self.phase = move(fact, self.phase, None)
        self._answers[-1].close(fact.seq)
        self._show_closed()
        self._clock.restart(fact.at)

    def _apply_question_skipped(self, fact: QuestionSkipped) -> None:
        was_open = self.question_open
        self.phase = move(fact, self.phase, None)
        if was_open:
            self._answers[-1].close(fact.seq)
            self._show_closed()
            self._clock.restart(fact.at)
        self._skipped.add(fact.question)
        self._unsettled = self._answers[-1].players()

    def _apply_paused(self, fact: Paused) -> None:
        self._paused_in, self.phase = self.phase, move(fact, self.phase, None)
        self._clock.stop(fact.at)

    def _apply_resumed(self, fact: Resumed) -> None:
        self.phase = move(fact, self.phase, self._paused_in)
        self._paused_in = None
        self._clock.go_on(fact.at)

    def _apply_clock_extended(self, fact: ClockExtended) -> None:
        self._clock.extend(fact.by_ms, fact.at)

    def _apply_lock_changed(self, fact: LockChanged) -> None:
        self.locked = fact.locked is True
        if not self.locked:
            self.approval = fact.locked is None

    def _apply_host_replaced(self, fact: HostReplaced) -> None:  # noqa: ARG002 - that it was is all
        self.host_generation += 1

    def _apply_finished(self, fact: Finished) -> None:
        self.phase = move(fact, self.phase, None)
        self._shown = None


_NOT_OF_THE_FACTS: Final = frozenset({"_untaken", "_name_rules", "_away", "_unawaited", "_shut"})
"""What two sessions may differ in and still be equal."""


def _likeness(name: str) -> str:
    """Two names with the same one are too much alike. Of a name all of marks nothing is left to fold."""
    return fold(name) or name


_APPLY: Final[Mapping[type[Fact], Callable[[Session, Any], None]]] = {
    PlayerJoined: Session._apply_player_joined,
    PlayerKicked: Session._apply_player_kicked,
    PlayerReadmitted: Session._apply_player_readmitted,
    AnswerAccepted: Session._apply_answer_accepted,
    AnswerMerged: Session._apply_answer_merged,
    QuestionOpened: Session._apply_question_opened,
    QuestionClosed: Session._apply_question_closed,
    QuestionSkipped: Session._apply_question_skipped,
    Paused: Session._apply_paused,
    Resumed: Session._apply_resumed,
    ClockExtended: Session._apply_clock_extended,
    LockChanged: Session._apply_lock_changed,
    HostReplaced: Session._apply_host_replaced,
    Finished: Session._apply_finished,
}
