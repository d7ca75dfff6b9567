"""Sessions in which every player goes through the quiz at the player's own pace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.domain.audit import Evidence, Line, audit
from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.errors import DomainError, Refusal
from engine.domain.extra_time import UNTIMED
from engine.domain.facts import (
    AnswerAccepted,
    AttemptBegun,
    Finished,
    PlayerDone,
    PlayerJoined,
    QuestionShown,
)
from engine.domain.rescoring import marks, standing
from engine.domain.self_paced_session import Asked, Through
from engine.domain.session import Repeated, Session
from engine.domain.settings import Settings
from tests.domain.making import CREATED_AT, quiz_of, session_of, singles

ORDER = [1, 2, 3]
LIMIT_MS = 30_000
T = CREATED_AT


def of_own_pace(players: int = 1, **settings: Any) -> Session:
    return session_of(players, pace="self", **settings)


def asked(session: Session, player: int, at: int, order: list[int] = ORDER) -> Asked:
    outcome = session.show_next(player, order, at)
    assert isinstance(outcome, Asked)
    return outcome


def code(outcome: object) -> str:
    assert isinstance(outcome, Refusal)
    return outcome.code


def test_a_player_goes_through_the_quiz_alone() -> None:
    session = of_own_pace(2)
    for number in ORDER:
        assert asked(session, 1, T).question == number
        assert isinstance(session.answer(1, number, 1, T), AnswerAccepted)
    assert isinstance(session.show_next(1, ORDER, T), Through)
    assert asked(session, 2, T).question == 1
    assert session.leaderboard.score(1) == 3_000
    assert session.leaderboard.score(2) == 0
    assert session.answered == 1
    assert session.phase == "open"


def test_the_question_stays_the_same_and_its_clock_runs_on() -> None:
    session = of_own_pace()
    asked(session, 1, T)
    session.take_facts()
    assert asked(session, 1, T + 20_000) == Asked(1, session.seq)
    assert session.take_facts() == []
    assert session.self_pace is not None
    assert session.self_pace.remaining_ms(1, T + 20_000) == 10_000
    answer = session.answer(1, 1, 1, T + 20_000)
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == 20_000


def test_an_answer_after_the_time_is_late_and_the_player_goes_on() -> None:
    session = of_own_pace()
    asked(session, 1, T)
    too_late = T + LIMIT_MS + RECEIPT_GRACE_MS + 1
    assert code(session.answer(1, 1, 1, too_late)) == "late"
    assert asked(session, 1, too_late) == Asked(2, session.seq, missed=1)
    assert code(session.answer(1, 1, 1, too_late)) == "question_closed"
    assert code(session.answer(1, 3, 1, too_late)) == "wrong_question"


@pytest.mark.parametrize(("held_ms", "counts"), [(2_000, True), (990, False)])
def test_an_answer_that_is_read_after_the_deadline_counts_as_of_when_it_came(
    held_ms: int, counts: bool
) -> None:
    session = of_own_pace(open_from=T, open_ms=60_000)
    asked(session, 1, T + 50_000)
    answer = session.answer(1, 1, 1, T + 61_000, held_ms)
    if counts:
        assert isinstance(answer, AnswerAccepted)
        assert answer.elapsed_ms == 9_000
    else:
        assert code(answer) == "session_finished"


def test_without_a_limit_the_player_may_think_for_a_week() -> None:
    session = of_own_pace(untimed=True)
    asked(session, 1, T)
    a_week = T + 7 * 86_400_000
    assert asked(session, 1, a_week).question == 1
    answer = session.answer(1, 1, 1, a_week)
    assert isinstance(answer, AnswerAccepted)
    assert (answer.elapsed_ms, answer.points) == (LIMIT_MS, 500)


def test_a_player_with_extra_time_has_a_longer_limit_and_slower_time() -> None:
    session = of_own_pace(2)
    session.give_extra_time(1, 200, T)
    asked(session, 1, T)
    asked(session, 2, T)
    at = T + LIMIT_MS + 10_000
    assert code(session.answer(2, 1, 1, at)) == "late"
    answer = session.answer(1, 1, 1, at)
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == 20_000
    facts = session.take_facts()
    assert Session.recover(session.quiz, session.settings, T, facts) == session


@pytest.mark.parametrize(("most", "too_late"), [(4, False), (2, True)])
def test_an_untimed_player_has_no_limit_unless_the_session_bounds_it(most: int, too_late: bool) -> None:
    session = of_own_pace(extra_time_max=most)
    session.give_extra_time(1, UNTIMED, T)
    asked(session, 1, T)
    at = T + 3 * LIMIT_MS
    assert session.self_pace is not None
    assert session.self_pace.remaining_ms(1, at) == (0 if too_late else None)
    answer = session.answer(1, 1, 1, at)
    if too_late:
        assert code(answer) == "late"
        return
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == 3 * LIMIT_MS // 4
    facts = session.take_facts()
    assert Session.recover(session.quiz, session.settings, T, facts) == session
    found = audit(Evidence(session.quiz, T, None, facts, (), {}, (), session.settings))
    assert [each.kind for each in found] == ["standing"]  # there are no results


def test_a_player_who_lets_the_last_question_pass_is_through_when_asking_for_more() -> None:
    session = of_own_pace()
    at = T
    for number in ORDER:
        assert asked(session, 1, at).question == number
        at += LIMIT_MS + 1_000
    assert isinstance(session.show_next(1, ORDER, at), Through)
    assert isinstance(session.take_facts()[-1], PlayerDone)
    assert session.show_next(1, ORDER, at) == Through(session.seq)
    assert session.take_facts() == []


def test_the_session_opens_and_closes_by_the_clock() -> None:
    session = of_own_pace(open_from=T + 1_000, open_ms=60_000)
    assert code(session.show_next(1, ORDER, T)) == "not_open_yet"
    asked(session, 1, T + 1_000)
    assert session.deadline == T + 61_000
    session.elapse(T + 60_999)
    assert session.phase == "open"
    late = T + 61_000 + RECEIPT_GRACE_MS + 1
    assert code(session.answer(1, 1, 1, late)) == "session_finished"
    assert code(session.show_next(1, ORDER, late)) == "session_finished"
    session.elapse(late + 10_000)
    assert session.take_facts()[-1] == Finished(session.seq, T + 61_000)
    assert session.deadline is None


def test_a_session_without_a_date_to_open_from_is_open_whatever_the_clock_says() -> None:
    """A clock that is set back while the node is down may come to before the session was made."""
    session = of_own_pace(2)
    asked(session, 1, T - 60_000)
    assert isinstance(session.answer(1, 1, 1, T - 59_000), AnswerAccepted)
    session.merge_shown(QuestionShown(session.seq + 1, T - 58_000, 2, 1))
    session.finish(T - 50_000)
    facts = session.take_facts()
    assert [type(fact) for fact in facts[-4:-1]] == [QuestionShown, AnswerAccepted, QuestionShown]
    lines = [Line(1, 1, session.leaderboard.score(1), 1, 1, 1_000), Line(2, 2, 0, 0, 0, 0)]
    evidence = Evidence(session.quiz, T, T - 50_000, facts, (), {}, lines, session.settings)
    assert audit(evidence) == []


def test_the_host_moves_the_deadline() -> None:
    session = of_own_pace(open_ms=60_000)
    assert session.extend(T + 120_000, T) is None
    assert session.extend(T + 120_000, T) is None
    assert session.deadline == T + 120_000
    assert len(session.take_facts()) == 2  # of the join, and of the first of the two
    assert code(session.extend(T, T)) == "bad_field"
    assert cast(Refusal, session.extend(T, T)).path == "closes_at"
    assert code(session.extend(T + 91 * 86_400_000, T)) == "bad_field"


def test_a_deadline_comes_after_the_opening() -> None:
    session = of_own_pace(open_from=T + 60_000)
    assert code(session.extend(T + 60_000, T)) == "bad_field"
    assert session.extend(T + 60_001, T) is None


def test_an_outage_is_given_back_to_the_clocks_that_ran() -> None:
    session = of_own_pace(2)
    asked(session, 1, T)
    session.move_clock(10_000, T + 15_000)
    asked(session, 2, T + 15_000)
    assert session.self_pace is not None
    assert session.self_pace.remaining_ms(1, T + 15_000) == 25_000
    assert session.self_pace.remaining_ms(2, T + 15_000) == 30_000
    session.take_facts()
    session.move_clock(86_400_000, T + 86_700_000)
    assert session.take_facts() == []  # no clock ran when it began


def through(session: Session, *choices: int, player: int = 1, attempt: int = 1, at: int = T) -> None:
    """Go through the quiz with these choices, of which 1 is right."""
    for number, choice in zip(ORDER, choices, strict=True):
        assert isinstance(session.show_next(player, ORDER, at, attempt), Asked)
        answer = session.answer(player, number, choice, at + 1_000, attempt=attempt)
        assert isinstance(answer, AnswerAccepted)


def test_the_best_attempt_counts_and_asking_twice_begins_one_alone() -> None:
    session = of_own_pace(2, attempts=2)
    assert code(session.show_next(1, ORDER, T, 2)) == "illegal_move"
    through(session, 1, 1, 0)
    best = session.leaderboard.score(1)
    assert isinstance(session.show_next(1, ORDER, T), Through)
    first = session.show_next(1, ORDER, T, 2)
    assert isinstance(first, Asked)
    assert session.show_next(1, ORDER, T + 100, 2) == first
    assert isinstance(session.show_next(1, ORDER, T), Through)
    through(session, 1, 0, 0, attempt=2)
    assert session.leaderboard.score(1) == best
    assert code(session.show_next(1, ORDER, T, 3)) == "bad_field"
    assert isinstance(session.show_next(1, ORDER, T, 2), Through)
    joined = session.join("Late", T)
    assert isinstance(joined, PlayerJoined)
    assert joined.player == 4  # 3 is the second attempt
    assert (session.active, session.answered) == (3, 1)


def test_an_answer_that_names_no_attempt_belongs_to_the_first() -> None:
    """A client that has not heard of the second may send one again."""
    session = of_own_pace(attempts=2)
    through(session, 1, 1, 1)
    session.show_next(1, ORDER, T, 2)
    assert session.answer(1, 1, 0, T) == Repeated(1, 1_000, False, 3)
    assert session.self_pace is not None
    assert session.self_pace.way(2).asked == 1
    assert code(session.answer(1, 1, 0, T, attempt=3)) == "wrong_question"


def test_extra_time_and_removal_are_of_the_player_in_every_attempt() -> None:
    session = of_own_pace(attempts=2)
    through(session, 1, 0, 0)
    session.give_extra_time(1, 200, T)
    session.show_next(1, ORDER, T, 2)
    answer = session.answer(1, 1, 1, T + 50_000, attempt=2)
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == 25_000
    session.kick(1, T + 50_000)
    assert code(session.show_next(1, ORDER, T + 50_000, 2)) == "kicked"
    assert code(session.answer(1, 1, 1, T + 50_000, attempt=2)) == "kicked"


@pytest.mark.parametrize(
    ("reveal", "running", "through"),
    [("each", 1_000, 3_000), ("end", 0, 3_000), ("deadline", 0, 0), ("never", 0, 0)],
)
def test_the_board_tells_no_more_than_the_player_may_know(reveal: str, running: int, through: int) -> None:
    session = of_own_pace(2, reveal=reveal)
    asked(session, 1, T)
    session.answer(1, 1, 1, T)
    assert session.leaderboard.score(1) == running
    for number in (2, 3):
        asked(session, 1, T)
        session.answer(1, number, 1, T)
    assert session.leaderboard.score(1) == through
    assert session.finish(T) is None
    assert session.leaderboard.score(1) == 3_000


def test_a_streak_follows_the_order_in_which_the_player_was_asked() -> None:
    quiz = quiz_of(*singles(3), scoring={"rule": "flat", "streak": True})
    session = session_of(1, quiz, pace="self")
    points = []
    for number in (3, 1, 2):
        assert asked(session, 1, T, [3, 1, 2]).question == number
        answer = session.answer(1, number, 1, T)
        assert isinstance(answer, AnswerAccepted)
        points.append(answer.points)
    assert points == [1_000, 1_100, 1_200]
    assert session.streak(1) == 3


def test_what_an_earlier_owner_had_shown_goes_on_by_its_clock() -> None:
    session = of_own_pace()
    session.merge_shown(QuestionShown(9, T + 100, 1, 1))
    assert asked(session, 1, T + 5_000).question == 1
    answer = session.answer(1, 1, 1, T + 5_100)
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == 5_000
    session.take_facts()
    session.merge_shown(QuestionShown(9, T, 1, 1))
    asked(session, 1, T + 6_000)
    session.take_facts()
    session.merge_shown(QuestionShown(10, T, 1, 3))
    assert session.take_facts() == []


def test_a_merged_answer_is_on_the_way_even_if_its_showing_is_not_known() -> None:
    session = of_own_pace()
    asked(session, 1, T)
    answer = AnswerAccepted(7, T + 50, 1, 1, 1, 50, True, 1_000)
    session.merge_answer(answer)
    session.merge_answer(replace(answer, question=2))
    assert asked(session, 1, T + 100).question == 3
    session.answer(1, 3, 0, T + 200)
    assert session.answered == 1
    assert session.leaderboard.score(1) == 2_000


@pytest.mark.parametrize(
    "facts",
    [
        [QuestionShown(2, T, 1, 1), QuestionShown(3, T, 1, 1)],
        [AnswerAccepted(2, T, 1, 1, 1, 0, True, 1_000)],
        [QuestionShown(2, T, 1, 4)],
        [PlayerDone(2, T, 1), QuestionShown(3, T, 1, 1)],
        [PlayerDone(2, T, 1), PlayerDone(3, T, 1)],
        [AttemptBegun(2, T, 1, 1, 2)],
        [AttemptBegun(2, T, 2, 2, 2)],
        [AttemptBegun(2, T, 1, 2, 1)],
        [AttemptBegun(2, T, 1, 2, 2), AttemptBegun(3, T, 1, 2, 3)],
    ],
)
def test_facts_that_cannot_have_happened_to_a_player_are_not_replayed(facts: list[Any]) -> None:
    session = of_own_pace()
    with pytest.raises(DomainError) as caught:
        session.replay(facts)
    assert caught.value.code == "bad_fact"


@pytest.mark.parametrize(
    ("name", "value"),
    [("untimed", True), ("open_ms", 60_000), ("open_from", 1), ("reveal", "never"), ("attempts", 2)],
)
def test_settings_of_this_pace_belong_to_it_alone(name: str, value: Any) -> None:
    Settings(pace="self", **{name: value})
    for pace in ("host", "auto"):
        with pytest.raises(DomainError) as caught:
            Settings(**{"pace": pace, name: value})
        assert caught.value.path == name
    for name, value in (("lobby_ms", 5), ("host_away_s", 60)):
        with pytest.raises(DomainError):
            Settings(**{"pace": "self", name: value})


QUIZ = quiz_of(*singles(3, time_limit_s=10), scoring={"rule": "speed", "streak": True})
OWN_LIMIT_MS = 10_000


Attempt = tuple[int, int]
"""A player, and which attempt of the player's."""


class OwnPaceMachine(RuleBasedStateMachine):
    """Any sequence of commands, against a model that keeps when each player was shown which question."""

    @initialize(
        untimed=st.booleans(),
        reveal=st.sampled_from(["each", "end", "deadline", "never"]),
        open_ms=st.sampled_from([None, 60_000]),
        attempts=st.integers(1, 3),
    )
    def create(self, untimed: bool, reveal: str, open_ms: int | None, attempts: int) -> None:
        self.settings = Settings(
            pace="self",
            untimed=untimed,
            reveal=reveal,
            open_ms=open_ms,
            attempts=attempts,
            get_ready_ms=0,  # type: ignore[arg-type]
        )
        self.session = Session(QUIZ, self.settings, T)
        self.twin = Session(QUIZ, self.settings, T)
        self.facts: list[Any] = []
        self.now = T
        self.orders: dict[int, list[int]] = {}
        # By player and attempt: the questions that were shown, when by the player's own clock, what was
        # answered, and what it brought.
        self.shown: dict[Attempt, list[int]] = {}
        self.ran_ms: dict[Attempt, int] = {}
        self.answered: dict[tuple[Attempt, int], int] = {}
        self.totals: dict[Attempt, tuple[int, int]] = {}
        self.kicked: set[int] = set()
        self.done: set[Attempt] = set()
        for name in "ab":
            self.join(name)

    def over(self) -> bool:
        return self.session.phase == "finished"

    def current(self, of: Attempt) -> int | None:
        """The question that still takes the player's answer."""
        shown = self.shown[of]
        if not shown or (of, shown[-1]) in self.answered:
            return None
        in_time = self.settings.untimed or self.ran_ms[of] <= OWN_LIMIT_MS + RECEIPT_GRACE_MS
        return shown[-1] if in_time else None

    def begin(self, player: int, attempt: int) -> None:
        self.shown[player, attempt] = []
        self.ran_ms[player, attempt] = 0
        self.totals[player, attempt] = (0, 0)

    def player(self, pick: int) -> int:
        players = sorted(self.orders)
        return players[pick % len(players)]

    def last(self, player: int) -> int:
        return max(attempt for who, attempt in self.shown if who == player)

    def best(self, player: int, *, through: bool = False) -> tuple[int, int]:
        """The points and the time of the attempt that counts."""
        totals = [
            total for of, total in self.totals.items() if of[0] == player and (not through or of in self.done)
        ]
        return min(totals, key=lambda total: (-total[0], total[1]), default=(0, 0))

    @rule(name=st.sampled_from(["c", "d"]))
    def join(self, name: str) -> None:
        outcome = self.session.join(name, self.now)
        if isinstance(outcome, PlayerJoined):
            self.begin(outcome.player, 1)
            self.orders[outcome.player] = [[1, 2, 3], [3, 1, 2], [2, 3, 1]][outcome.player % 3]

    @rule(pick=st.integers(0, 3), ahead=st.integers(-1, 2))
    def next(self, pick: int, ahead: int) -> None:
        player = self.player(pick)
        attempt = self.last(player) + ahead
        of = (player, attempt)
        outcome = self.session.show_next(player, self.orders[player], self.now, attempt)
        if player in self.kicked:
            assert code(outcome) == "kicked"
            return
        if of not in self.shown:
            if not 1 <= attempt <= self.settings.attempts:
                assert code(outcome) == "bad_field"
                return
            if (player, attempt - 1) not in self.done:
                assert code(outcome) == "illegal_move"
                return
            if not self.over():
                self.begin(*of)
        rest = [each for each in self.orders[player] if each not in self.shown.get(of, ())]
        if of in self.done:
            assert isinstance(outcome, Through)
        elif self.over():
            assert code(outcome) == "session_finished"
        elif (current := self.current(of)) is not None:
            assert isinstance(outcome, Asked)
            assert (outcome.question, outcome.missed) == (current, 0)
        elif rest:
            assert isinstance(outcome, Asked)
            assert outcome.question == rest[0]
            self.shown[of].append(rest[0])
            self.ran_ms[of] = 0
        else:
            assert isinstance(outcome, Through)
            self.done.add(of)

    @rule(
        pick=st.integers(0, 3), back=st.integers(-1, 2), question=st.integers(1, 3), choice=st.integers(0, 2)
    )
    def answer(self, pick: int, back: int, question: int, choice: int) -> None:
        player = self.player(pick)
        of = (player, self.last(player) - back)
        outcome = self.session.answer(player, question, choice, self.now, attempt=of[1])
        if player in self.kicked:
            assert code(outcome) == "kicked"
        elif question not in self.shown.get(of, ()):
            assert code(outcome) == ("session_finished" if self.over() else "wrong_question")
        elif choice == 2:
            assert code(outcome) == "bad_choice"
        elif (of, question) in self.answered:
            assert isinstance(outcome, Repeated)
            assert outcome.same == (self.answered[of, question] == choice)
        elif self.over():
            assert code(outcome) == "session_finished"
        elif self.current(of) != question:
            assert code(outcome) == ("late" if self.shown[of][-1] == question else "question_closed")
        else:
            assert isinstance(outcome, AnswerAccepted)
            assert outcome.elapsed_ms == min(self.ran_ms[of], OWN_LIMIT_MS)
            self.answered[of, question] = choice
            score, elapsed_ms = self.totals[of]
            self.totals[of] = (score + outcome.points, elapsed_ms + outcome.elapsed_ms)
            if len(self.shown[of]) == 3:
                self.done.add(of)

    @rule(pick=st.integers(0, 3), choices=st.lists(st.integers(0, 1), min_size=3, max_size=3))
    def go_on_to_the_end(self, pick: int, choices: list[int]) -> None:
        """So that there are later attempts."""
        for choice in choices:
            self.next(pick, 0)
            shown = self.shown[self.player(pick), self.last(self.player(pick))]
            if shown:
                self.answer(pick, 0, shown[-1], choice)
        self.next(pick, 1)

    @rule(ms=st.sampled_from([0, 400, 3_000, 10_005, 10_006, 25_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        for of in self.ran_ms:
            self.ran_ms[of] += ms
        self.session.elapse(self.now)

    @rule(ms=st.sampled_from([700, 30_000]))
    def outage(self, ms: int) -> None:
        if not self.over():
            self.now += ms
            self.session.extend_clock(ms, self.now)
            self.session.elapse(self.now)

    @rule(pick=st.integers(0, 3), back=st.booleans())
    def kick(self, pick: int, back: bool) -> None:
        player = self.player(pick)
        if not self.over():
            assert self.session.kick(player, self.now) is None
            self.kicked.add(player)
            if back:
                assert self.session.readmit(player, self.now) is None
                self.kicked.discard(player)

    @rule(ms=st.sampled_from([10_000, 90_000]))
    def extend(self, ms: int) -> None:
        refusal = self.session.extend(self.now + ms, self.now)
        assert (refusal is None) != self.over()

    @invariant()
    def the_facts_are_all_there_is_to_know(self) -> None:
        news = self.session.take_facts()
        self.facts += news
        self.twin.replay(news)
        assert self.twin == self.session

    @invariant()
    def the_board_shows_what_may_be_known(self) -> None:
        for player in self.orders.keys() - self.kicked:
            score = self.session.leaderboard.score(player)
            if self.over() or self.settings.reveal == "each":
                assert score == self.best(player)[0]
            elif self.settings.reveal == "end":
                assert score == self.best(player, through=True)[0]
            else:
                assert score == 0
        through = {player for player, _ in self.done}
        assert self.session.answered == len(through)

    def teardown(self) -> None:
        if not self.over():
            self.session.finish(self.now)
        self.facts += self.session.take_facts()
        assert Session.recover(QUIZ, self.settings, T, self.facts) == self.session
        stands = standing(self.facts, marks(QUIZ, self.facts))
        assert stands == list(self.session.leaderboard.ranked())
        lines = []
        for entry in stands:
            best = self.best(entry.player)
            assert best == (entry.score, entry.elapsed_ms)
            # Of equal ones the first.
            of = next(of for of, total in self.totals.items() if of[0] == entry.player and total == best)
            own = [q for each, q in self.answered if each == of]
            right = sum(self.answered[of, q] == 1 for q in own)
            lines.append(Line(entry.rank, entry.player, entry.score, right, len(own), entry.elapsed_ms))
        ended = next(fact.at for fact in self.facts if isinstance(fact, Finished))
        assert audit(Evidence(QUIZ, T, ended, self.facts, (), {}, lines, self.settings)) == []


OwnPaceMachine.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=30)
TestOwnPace = OwnPaceMachine.TestCase


def test_the_audit_finds_what_did_not_follow_the_clock_of_the_player() -> None:
    session = of_own_pace()
    asked(session, 1, T)
    session.answer(1, 1, 1, T + 1_000)
    asked(session, 1, T + 2_000)
    session.finish(T + 3_000)
    facts = session.take_facts()
    line = Line(1, 1, session.leaderboard.score(1), 1, 1, 1_000)

    def kinds(*changed: Any) -> list[str]:
        made = list(facts)
        for fact in changed:
            made[fact.seq - 1] = fact
        evidence = Evidence(session.quiz, T, T + 3_000, made, (), {}, [line], session.settings)
        return [difference.kind for difference in audit(evidence)]

    assert kinds() == []
    assert "elapsed" in kinds(replace(facts[1], at=T + 500))  # shown later than the answer says
    assert "order" in kinds(replace(facts[3], question=1))  # shown twice
    assert "order" in kinds(replace(facts[2], seq=4), replace(facts[3], seq=3))  # gone on too early
