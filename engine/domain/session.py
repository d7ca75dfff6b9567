"""One live run of a quiz.

A session changes in one way only: a command that the rules allow becomes a fact, and the fact is applied.
Recovery applies the same facts again, and so arrives at an equal session. Time comes in with every
command, in milliseconds since the epoch; the session has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engine.domain.answers import Answers
from engine.domain.errors import DomainError, Refusal
from engine.domain.extra_time import bounded
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    ClockExtended,
    ExtraTimeGiven,
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
)
from engine.domain.generated_names import given_name
from engine.domain.name_rules import stands_for_erased
from engine.domain.phases import Phase, refuse
from engine.domain.players import Player
from engine.domain.quiz import Quiz
from engine.domain.self_paced_session import (
    FINISHED,
    LATE,
    PLAYER_NOT_FOUND,
    QUESTION_CLOSED,
    WRONG_QUESTION,
    Repeated,
    SelfPacedSession,
)
from engine.domain.settings import Settings
from engine.domain.text import clean_name, shortened_name

__all__ = ["Applied", "Phase", "Player", "Repeated", "Session", "Settings"]

_NOT_OPEN_YET: Final = Refusal("not_open_yet", "The question is shown, and takes no answers yet.")
_PAUSED: Final = Refusal("paused", "The session is paused.")
_LOCKED: Final = Refusal("session_locked", "The host lets nobody else in.")
_STARTED: Final = Refusal("session_started", "The session has started, and nobody else joins.")
_JOINED_LATE: Final = Refusal(
    "joined_late", "You joined during this question, and answer from the next one on."
)
_FULL: Final = Refusal("session_full", "The session has no room for more players.")
_NOTHING_TO_SKIP: Final = Refusal("illegal_move", "No question is open or shown that could be skipped.")
IDENTITY_REQUIRED: Final = Refusal("identity_required", "Players of this session come by way of their app.")
_NAME_MISSING: Final = Refusal("missing_field", "A player of this session gives a name.")


@dataclass(frozen=True, slots=True)
class Applied:
    """The player may join under this name once the host agrees. Nothing has changed."""

    name: str


class Session(SelfPacedSession):
    """The aggregate: phases, players, answers, scores and the play clock of one session.

    Commands return their outcome, or a `Refusal`, and then nothing has changed. `SessionState` has the
    queries. Two sessions are equal if they would answer every command alike.
    """

    @classmethod
    def recover(cls, quiz: Quiz, settings: Settings, created_at: int, facts: Iterable[Fact]) -> Session:
        """The session that recorded these facts, given in the order of `seq`. See `replay`."""
        session = cls(quiz, settings, created_at)
        session.replay(facts)
        return session

    # Players

    def join(
        self,
        name: object,
        at: int,
        *,
        admitted: bool = False,
        user_id: str | None = None,
        signed_name: str | None = None,
    ) -> PlayerJoined | Applied | Refusal:
        """Admit a new player under a name that no player here has or had. Where names are given, the player
        gets a given one, whatever `name` is. `name` is None when it was left out.

        Args:
            admitted: the host has approved.
            user_id: the user of the app that the player is, who has no seat here.
            signed_name: what the app calls this user. It goes before `name`, is never refused, and gets a
                number when it is taken.
        """
        if self.phase is Phase.FINISHED:
            return FINISHED
        if self.locked:
            return _LOCKED
        if self.number and self.settings.late_join == "refused":
            return _STARTED
        if self.active >= self.settings.player_limit:
            return _FULL
        if user_id is None and self.settings.identity == "required":
            return IDENTITY_REQUIRED
        called = self._name_for(name, signed_name)
        if isinstance(called, Refusal):
            return called
        if self.approval and not admitted:
            return Applied(called)
        joined = PlayerJoined(self.seq + 1, at, self.numbers + 1, called, user_id=user_id)
        self._record(joined)
        return joined

    def _name_for(self, name: object, signed_name: str | None) -> str | Refusal:
        """The name of a new player."""
        language, filtered = self.quiz.language, self.settings.name_filter
        if self.settings.names == "given":
            name, filtered = given_name(len(self._players) + 1, language), False
        elif signed := shortened_name(signed_name or ""):
            if stands_for_erased(signed):
                signed = given_name(len(self._players) + 1, language)
            return self._names.free_for_user(signed, language)
        elif name is None:
            return _NAME_MISSING
        try:
            cleaned = clean_name(name)
        except DomainError as error:
            return Refusal(error.code, error.message)
        return self._names.refuse(cleaned, language, filtered=filtered) or cleaned

    def answer(
        self,
        player: int,
        question: int,
        raw_choice: object,
        at: int,
        held_ms: int = 0,
        attempt: int = 1,
    ) -> AnswerAccepted | Repeated | Refusal:
        """Take an answer, judge and score it. The first one of a player to a question stands, in each
        attempt.

        `raw_choice` is the JSON value as it came. `at` earlier than the opening counts as no time at all.
        `held_ms`: how long before `at`, when the node read it, it had lain in the kernel. That never counts
        against the player.
        """
        who = self._in(player)
        if isinstance(who, Refusal):
            return who
        number = self.number_of(player, attempt)
        if number is None:
            return FINISHED if self.phase is Phase.FINISHED else WRONG_QUESTION
        if self.self_pace:
            return self._answer_at_own_pace(number, question, raw_choice, at, held_ms)
        if not 1 <= question <= len(self._answers):
            return FINISHED if self.phase is Phase.FINISHED else WRONG_QUESTION
        answers = self._answers[question - 1]
        asked = answers.question
        choice = asked.read(raw_choice)
        if isinstance(choice, Refusal):
            return choice
        repeated = self._repeated(answers, player, question, choice)
        if repeated is not None:
            return repeated
        if self.phase is not Phase.QUESTION or answers.closed_seq is not None:
            return self._not_open(answers)
        if player in self._watching:
            return _JOINED_LATE
        received = self._clock.received(at, held_ms)
        if received < self._clock.opens_at:
            return _NOT_OPEN_YET
        elapsed_ms = self._clock.answered_ms(received, asked.limit_ms, self._extra.of(player))
        if elapsed_ms is None:
            return LATE
        fact = self._accept(who, asked, question, choice, received, elapsed_ms, self._before(question))
        self._close_if_all_answered(at)  # as of now: from then on the result is shown
        return fact

    def _not_open(self, answers: Answers) -> Refusal:
        if self.phase is Phase.FINISHED:
            return FINISHED
        return QUESTION_CLOSED if answers.closed_seq is not None else _PAUSED

    # What an earlier owner had acknowledged

    def merge_player(self, fact: PlayerJoined) -> None:
        """Admit a player that an earlier owner of the session had admitted, whatever phase, lock and
        limit say. Does nothing if the player is here (`seat_of`); otherwise the player gets the next
        number, and a name that no player here has."""
        if self.seat_of(fact) is None:
            name = self._names.free(fact.name, lambda name: self.called(name) is not None)
            joined = PlayerJoined(self.seq + 1, fact.at, self.numbers + 1, name, user_id=fact.user_id)
            self._record(joined)

    def merge_answer(self, fact: AnswerAccepted | AnswerMerged) -> None:
        """Take an answer that an earlier owner had acknowledged; `fact.player` is a number of this session.

        The answer that was received first stands, and on a tie the answer that was here first. An answer that
        stands brings the points that it was given then; the points of other answers do not change. An answer
        that is here already changes nothing, nor does an answer that cannot belong to this session.
        """
        player, question = fact.player, fact.question
        known = player in self._players or player in self._later
        if not known or not 1 <= question <= self.of:
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

    def merge_extra_time(self, fact: ExtraTimeGiven) -> None:
        """Give a player the extra time that an earlier owner had acknowledged; `fact.player` is a number of
        this session. What was given here later stands, and after the end nothing changes."""
        who = self._players.get(fact.player)
        if who is None or who.erased or self.phase is Phase.FINISHED:
            return
        if fact.at > self._extra.given_at(fact.player) and fact.percent != self._extra.of(fact.player):
            self._record(ExtraTimeGiven(self.seq + 1, fact.at, fact.player, fact.percent))

    def settle_merged(self, at: int) -> None:
        """After a merge: close the question if now all have answered."""
        self._close_if_all_answered(at)

    # The host, and the clock

    def start(self, at: int) -> Refusal | None:
        """Open the first question."""
        refusal = refuse("start", self.phase)
        if refusal is None:
            self._open(1, at)
        return refusal

    def next(self, at: int) -> Refusal | None:
        """Open the next question; after the last one, finish."""
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
        """Make the question that is open, or shown, count for no player; an open question is closed. Nothing
        happens if it was skipped already. Args: piecemeal: `settle_skip` takes the points back afterwards."""
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
        """Let no more players in, or let players in again, as before. Nothing happens when that is so
        already."""
        refusal = refuse("lock", self.phase)
        if refusal is None and on != self.locked:
            self._record(LockChanged(self.seq + 1, at, on or (None if self.approval else False)))
        return refusal

    def ask_first(self, on: bool, at: int) -> Refusal | None:
        """Let players in one by one, or as they come; either way joining is no longer locked."""
        refusal = refuse("approval", self.phase)
        if refusal is None and (on != self.approval or self.locked):
            self._record(LockChanged(self.seq + 1, at, None if on else False))
        return refusal

    def replace_host(self, at: int) -> Refusal | None:
        """Replace the host: earlier host tokens become invalid."""
        if self.phase is Phase.FINISHED:
            return FINISHED
        self._record(HostReplaced(self.seq + 1, at))
        return None

    def kick(self, player: int, at: int) -> Refusal | None:
        """Remove a player for good. Nothing happens when that was done already."""
        refusal = refuse("kick", self.phase)
        if refusal is not None:
            return refusal
        who = self._players.get(player)
        if who is None:
            return PLAYER_NOT_FOUND
        if not who.kicked:
            self._record(PlayerKicked(self.seq + 1, at, player))
            self._close_if_all_answered(at)
        return None

    def readmit(self, player: int, at: int) -> Refusal | None:
        """Readmit a removed player, with the same name and all points. Nothing happens to a player that is
        in."""
        refusal = refuse("readmit", self.phase)
        if refusal is not None:
            return refusal
        who = self._players.get(player)
        if who is None or who.erased:
            return PLAYER_NOT_FOUND
        if who.kicked:
            if self.active >= self.settings.player_limit:
                return _FULL
            self._record(PlayerReadmitted(self.seq + 1, at, player))
        return None

    def give_extra_time(self, player: int, percent: int, at: int) -> Refusal | None:
        """Give a player extra time, as far as the session's bound allows: a limit of so many percent, 100 for
        none, 0 for no limit. Nothing happens when that is so already."""
        refusal = refuse("extra_time", self.phase)
        if refusal is not None:
            return refusal
        who = self._players.get(player)
        if who is None or who.erased:
            return PLAYER_NOT_FOUND
        percent = bounded(percent, self.settings.extra_time_max, others_wait=self.self_pace is None)
        if percent != self._extra.of(player):
            self._record(ExtraTimeGiven(self.seq + 1, at, player, percent))
        return None

    def erase(self, player: int, at: int) -> Refusal | None:
        """Take a player's name away; no client can be this player any more. The player's answers stay, and
        count. No question is held open for this player. The name is free again, unless the player was
        removed. Nothing happens when it was done already.

        Erasing is no fact, but a change to one: without the name the stored facts give the same session.
        """
        who = self._players.get(player)
        if who is None:
            return PLAYER_NOT_FOUND
        if not who.erased:
            self._names.take_away(who.name, player, shut=who.kicked)
            self._call_erased(who)
            self.away((player,), at)
        return None

    def away(self, players: Iterable[int], at: int) -> None:
        """These players are not here: as long as that is so, no question is held open for them."""
        players = tuple(players)
        self._miss(players)
        if self._extra.release_each(players):
            self._not_due_before(at)
        if self.question_open:
            self._close_if_all_answered(at)

    def back(self, player: int) -> None:
        """The player is here again. An erased player never is."""
        if not self._players[player].erased:
            self._await(player)

    def extend_clock(self, by_ms: int, at: int) -> None:
        """Give back the time during which no player could answer. Does nothing when no countdown runs."""
        if by_ms > 0:
            self.move_clock(by_ms, at)

    def move_clock(self, by_ms: int, at: int, *, taken_over: bool = False) -> None:
        """From now on moments come from another clock, which is `by_ms` ahead of the former clock, or behind
        it, if that is negative. Does nothing when no countdown runs: the next countdown begins with the new
        clock. If the session was taken over, clocks of players may have run that will only be known once the
        facts of the former owner are merged (`merge_shown`)."""
        may_follow = taken_over and self.phase is Phase.OPEN
        if by_ms and (may_follow or self.counts_down(at - by_ms)):
            self._record(ClockExtended(self.seq + 1, at, by_ms))

    def elapse(self, now: int) -> None:
        """Do all that is due by now, each thing dated at the moment it was due."""
        due = self.deadline
        while due is not None and due <= now:
            if self.phase is Phase.QUESTION:
                self._close(due)
            elif self.phase is Phase.OPEN:
                self._record(Finished(self.seq + 1, due))
            else:
                self._advance(due)
            due = self.deadline

    def take_facts(self) -> list[Fact]:
        """The facts that were recorded since the last call."""
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
