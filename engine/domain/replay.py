"""How facts change a session, when they happen and again in recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from engine.domain.answers import Answers
from engine.domain.errors import DomainError
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    AttemptBegun,
    ClockExtended,
    DeadlineMoved,
    ExtraTimeGiven,
    Fact,
    Finished,
    HostReplaced,
    LockChanged,
    Paused,
    PlayerDone,
    PlayerJoined,
    PlayerKicked,
    PlayerReadmitted,
    QuestionClosed,
    QuestionOpened,
    QuestionShown,
    QuestionSkipped,
    Resumed,
    erased_name,
)
from engine.domain.leaderboard import Leaderboard
from engine.domain.phases import Phase, move
from engine.domain.players import Player
from engine.domain.session_state import SessionState


class ReplayedSession(SessionState):
    """Applies facts: nothing else changes what a session is."""

    def replay(self, facts: Iterable[Fact], *, piecemeal: bool = False) -> None:
        """Apply stored facts that follow the last fact applied. `take_facts` does not give them out.
        `piecemeal`: as in `skip`.

        Raises:
            DomainError: `bad_fact` for a fact that cannot have happened. The session is of no use then.
        """
        for fact in facts:
            self._apply(fact)
        if not piecemeal:
            self.settle_skip()

    def settle_skip(self, most: int | None = None) -> bool:
        """After a skip, or the replay of a skip: take back the points of up to `most` more players, of all by
        default. True while players are left: until then scores and ranks are neither as before nor as
        after."""
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

    def _record(self, fact: Fact) -> None:
        """A fact that happens now."""
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
        who = self._players[fact.player] = Player(fact.player, fact.name, user_id=fact.user_id)
        if fact.user_id is not None:
            self._users[fact.user_id] = fact.player
        if fact.erased:
            self._call_erased(who)
        else:
            self._names.give(fact.name, fact.player)
        for board in self._boards:
            board.add(fact.player)
        if self._joined_late(fact):
            self._watching.add(fact.player)
            self._unawaited.add(fact.player)
        if fact.erased:
            self._miss((fact.player,))

    def _joined_late(self, fact: PlayerJoined) -> bool:
        """Whether the player joined while the open question was open, and has to wait for the next one."""
        if self.settings.late_join != "next" or not self.question_open:
            return False
        return self.opened_at is not None and fact.at >= self.opened_at

    def _apply_player_kicked(self, fact: PlayerKicked) -> None:
        self._players[fact.player].kicked = True
        self._away.discard(fact.player)
        self._unawaited.discard(fact.player)
        self._release(fact.player, fact.at)
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
        self._rank(who)
        self._show(who)
        if fact.player in self._watching:
            self._unawaited.add(fact.player)
        if who.erased:
            self._miss((fact.player,))
        self._hold(fact.player)

    def _apply_extra_time_given(self, fact: ExtraTimeGiven) -> None:
        self._release(fact.player, fact.at)
        self._extra.give(fact.player, fact.percent, fact.at)
        if self.self_pace:
            self.self_pace.give_extra_time(fact.player, fact.percent)
        self._hold(fact.player)

    def _apply_answer_accepted(self, fact: AnswerAccepted) -> None:
        who = self._playing(fact.player)
        if self.self_pace:
            self.self_pace.answer(fact)
        self._answers[fact.question - 1].add(fact, self.numbers)
        self._unawaited.discard(fact.player)
        self._release(fact.player, fact.at)
        who.score += fact.points
        who.elapsed_ms += fact.elapsed_ms
        if fact.correct:
            who.streak = who.streak_with(self._preceding(fact.player, fact.question))
            who.streak_question = fact.question
        self._rank(self._person(fact.player))

    def _rank(self, person: Player) -> None:
        """Rank the player, who is in, by the attempt that counts."""
        best = self._best(person.id)
        self._running.update(person.id, best.score, best.elapsed_ms)

    def _apply_answer_merged(self, fact: AnswerMerged) -> None:
        who, person = self._playing(fact.player), self._person(fact.player)
        if self.self_pace:
            self.self_pace.merge_answer(fact.player, fact.question)
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
            self._answers[fact.question - 1].put(fact, self.numbers, counted=not person.kicked)
            if fact.question == self.number:
                self._unawaited.discard(fact.player)
                self._release(fact.player, fact.at)
        else:
            self._ahead.setdefault(fact.question, {})[fact.player] = fact
            if self.phase is not Phase.FINISHED:
                self._hold_back()
        self._count_streak(who)
        if not person.kicked:
            self._rank(person)
            self._show(person)

    def _count_streak(self, who: Player) -> None:
        """Count a streak anew, as if the answers that stand and count had come in the order of the
        questions."""
        who.streak = who.streak_question = 0
        questions: Iterable[int] = range(1, max([len(self._answers), *self._ahead]) + 1)
        if self.self_pace:
            questions = self.self_pace.way(who.id).questions
        for question in questions:
            standing = None if question in self._skipped else self._standing(who.id, question)
            if standing is None:
                continue
            if standing[1].correct:
                who.streak = who.streak_with(self._preceding(who.id, question))
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
        """Rank the player, who is in, by the answers that may be seen alone."""
        if self._shown is None:
            return
        if self.self_pace:
            best = self._best_through(who.id) if self.settings.reveal == "end" else None
            if best is not None:
                self._shown.update(who.id, best.score, best.elapsed_ms)
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
        self._watching, self._released_at = set(), 0
        self._hold_each(answers)
        self.opened_at = fact.at
        self._clock.restart(fact.at, fact.ready_ms)

    def _apply_question_closed(self, fact: QuestionClosed) -> None:
        self.phase = move(fact, self.phase, None)
        self._close_answers(fact)

    def _close_answers(self, fact: QuestionClosed | QuestionSkipped) -> None:
        self._answers[-1].close(fact.seq)
        self._extra.close()
        self._show_closed()
        self._clock.restart(fact.at)

    def _apply_question_skipped(self, fact: QuestionSkipped) -> None:
        was_open = self.question_open
        self.phase = move(fact, self.phase, None)
        if was_open:
            self._close_answers(fact)
        self._skipped.add(fact.question)
        self._unsettled = self._answers[-1].players()

    def _apply_question_shown(self, fact: QuestionShown) -> None:
        self.phase = move(fact, self.phase, None)
        assert self.self_pace is not None, "only a self-paced session is open"
        self.self_pace.show(fact)

    def _apply_attempt_begun(self, fact: AttemptBegun) -> None:
        if self.self_pace is None or fact.player not in self._players or fact.plays_as != self.numbers + 1:
            raise DomainError("bad_fact", f"player {fact.player} cannot play as {fact.plays_as}")
        self.self_pace.begin(fact)
        self._later[fact.plays_as] = Player(fact.plays_as, "")

    def _apply_player_done(self, fact: PlayerDone) -> None:
        self.phase = move(fact, self.phase, None)
        assert self.self_pace is not None, "only a self-paced session is open"
        self.self_pace.finish(fact)
        who = self._person(fact.player)
        if not who.kicked:
            self._show(who)

    def _apply_deadline_moved(self, fact: DeadlineMoved) -> None:
        self.phase = move(fact, self.phase, None)
        assert self.self_pace is not None, "only a self-paced session is open"
        self.self_pace.move_deadline(fact)

    def _apply_paused(self, fact: Paused) -> None:
        self._paused_in, self.phase = self.phase, move(fact, self.phase, None)
        self._clock.stop(fact.at)

    def _apply_resumed(self, fact: Resumed) -> None:
        self.phase = move(fact, self.phase, self._paused_in)
        self._paused_in = None
        self._clock.go_on(fact.at)
        self._not_due_before(fact.at)

    def _apply_clock_extended(self, fact: ClockExtended) -> None:
        self._clock.extend(fact.by_ms, fact.at)
        self._not_due_before(fact.at)
        if self.self_pace:
            self.self_pace.give_back(fact.by_ms, fact.at)

    def _apply_lock_changed(self, fact: LockChanged) -> None:
        self.locked = fact.locked is True
        if not self.locked:
            self.approval = fact.locked is None

    def _apply_host_replaced(self, fact: HostReplaced) -> None:  # noqa: ARG002 - that it was is all
        self.host_generation += 1

    def _apply_finished(self, fact: Finished) -> None:
        self.phase = move(fact, self.phase, None)
        self._shown = None

    def _call_erased(self, who: Player) -> None:
        if who.user_id is not None:
            self._users.pop(who.user_id, None)
            self._erased_users.add(hash(who.user_id))
        who.name, who.user_id, who.erased = erased_name(who.id), None, True
        self._names.give_erased(who.name, who.id)

    def _miss(self, players: Iterable[int]) -> None:
        away = {player for player in players if player in self._running}
        self._away |= away
        if self.question_open:
            answers = self._answers[-1]
            self._unawaited |= {player for player in away if answers.choice_of(player) is None}

    def _await(self, player: int) -> None:
        self._away.discard(player)
        if player not in self._watching:
            self._unawaited.discard(player)
            self._hold(player)

    def _hold_each(self, answers: Answers) -> None:
        """A question opens: hold it for those players with extra time that are present, and in."""
        players = [player for player in self._extra.players if player in self._running]
        self._extra.open(players, self._unawaited.union(answers.players()) if players else ())

    def _hold(self, player: int) -> None:
        """Hold the open question for this player, if the player has extra time and the question is one to
        wait with."""
        if not self._extra or not self.question_open or self._answers[-1].choice_of(player) is not None:
            return
        if player in self._running and player not in self._unawaited:
            self._extra.hold(player)

    def _release(self, player: int, at: int) -> None:
        """No longer hold the open question for this player. If that was the last one, it is due by now."""
        if self._extra.release(player):
            self._not_due_before(at)

    def _not_due_before(self, at: int) -> None:
        """A question that is open after its time limit closes at this moment at the earliest: until then it
        was held for a player, or the clock stood still."""
        if self._extra:
            self._released_at = max(self._released_at, at)


_APPLY: Final[Mapping[type[Fact], Callable[[ReplayedSession, Any], None]]] = {
    PlayerJoined: ReplayedSession._apply_player_joined,
    PlayerKicked: ReplayedSession._apply_player_kicked,
    PlayerReadmitted: ReplayedSession._apply_player_readmitted,
    ExtraTimeGiven: ReplayedSession._apply_extra_time_given,
    AnswerAccepted: ReplayedSession._apply_answer_accepted,
    AnswerMerged: ReplayedSession._apply_answer_merged,
    AttemptBegun: ReplayedSession._apply_attempt_begun,
    QuestionOpened: ReplayedSession._apply_question_opened,
    QuestionClosed: ReplayedSession._apply_question_closed,
    QuestionSkipped: ReplayedSession._apply_question_skipped,
    QuestionShown: ReplayedSession._apply_question_shown,
    PlayerDone: ReplayedSession._apply_player_done,
    DeadlineMoved: ReplayedSession._apply_deadline_moved,
    Paused: ReplayedSession._apply_paused,
    Resumed: ReplayedSession._apply_resumed,
    ClockExtended: ReplayedSession._apply_clock_extended,
    LockChanged: ReplayedSession._apply_lock_changed,
    HostReplaced: ReplayedSession._apply_host_replaced,
    Finished: ReplayedSession._apply_finished,
}
