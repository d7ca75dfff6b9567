"""Self-paced sessions after an owner's death: what it had acknowledged from its spool is merged late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.audit import Evidence, audit
from engine.domain.extra_time import UNTIMED
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    AttemptBegun,
    DeadlineMoved,
    ExtraTimeGiven,
    Fact,
    Finished,
    PlayerDone,
    PlayerJoined,
    QuestionShown,
)
from engine.domain.self_pace import Stage
from engine.domain.session import Repeated, Session
from tests.domain.making import CREATED_AT, session_of

ORDER = [1, 2, 3]
LIMIT_MS = 30_000
T = CREATED_AT


def merge(session: Session, facts: Sequence[Fact], now: int) -> None:
    """As `engine.actors.merging`, of players who had joined before."""
    begun = [fact for fact in facts if isinstance(fact, AttemptBegun)]
    for fact in begun:
        session.merge_attempt(fact)
    numbers = {fact.plays_as: session.number_of(fact.player, fact.attempt) for fact in begun}
    for fact in facts:
        if isinstance(fact, AnswerAccepted | QuestionShown | PlayerDone):
            number = numbers.get(fact.player, fact.player)
            assert number is not None
            fact = replace(fact, player=number)
        match fact:
            case QuestionShown():
                session.merge_shown(fact)
            case PlayerDone():
                session.merge_done(fact)
            case ExtraTimeGiven():
                session.merge_extra_time(fact)
            case DeadlineMoved():
                session.merge_deadline(fact, now)
            case AnswerAccepted():
                session.merge_answer(fact)
    session.settle_merged(now)


class TakenOver:
    """A session whose owner died with facts in its spool, and that has another owner since."""

    def __init__(self, players: int = 1, **settings: Any) -> None:
        session = session_of(players, pace="self", **settings)
        self.facts = session.take_facts()
        self.former = session
        self.session = self.recovered()

    def recovered(self) -> Session:
        return Session.recover(self.former.quiz, self.former.settings, T, self.facts)

    def taken(self, at: int, alive_at: int) -> Session:
        """The next owner goes on."""
        self.session.move_clock(at - alive_at, at, taken_over=True)
        return self.session

    def merged(self, now: int) -> None:
        """The spool is merged, twice: the second time changes no answers."""
        spooled = self.former.take_facts()
        merge(self.session, spooled, now)
        self.facts += self.session.take_facts()
        merge(self.session, spooled, now + 1)
        assert not [fact for fact in self.session._untaken if isinstance(fact, AnswerMerged)]
        self.check()

    def check(self) -> None:
        """Recovery is equal, and the audit finds nothing but that there are no results."""
        self.facts += self.session.take_facts()
        assert self.recovered() == self.session
        ended = [fact.at for fact in self.facts if isinstance(fact, Finished)]
        finished_at = ended[0] if ended else None
        evidence = Evidence(self.session.quiz, T, finished_at, self.facts, (), {}, (), self.session.settings)
        assert {each.kind for each in audit(evidence)} <= {"standing"}


def test_a_clock_that_the_dead_owner_began_gets_the_outage_back() -> None:
    two = TakenOver()
    two.former.show_next(1, ORDER, T + 10_000)
    session = two.taken(T + 60_000, alive_at=T + 15_000)
    two.merged(T + 61_000)
    assert session.self_pace is not None
    assert session.self_pace.remaining_ms(1, T + 61_000) == LIMIT_MS - 5_000 - 1_000
    answer = session.answer(1, 1, 1, T + 61_000)
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == 6_000


def test_a_clock_keeps_its_pace_though_the_next_owners_clock_is_behind() -> None:
    two = TakenOver()
    two.former.show_next(1, ORDER, T + 10_000)
    session = two.taken(T + 5_000, alive_at=T + 12_000)  # 8 s behind, and taken after a second
    two.merged(T + 6_000)
    assert session.self_pace is not None
    assert session.self_pace.remaining_ms(1, T + 6_000) == LIMIT_MS - 2_000 - 1_000


def test_a_question_that_passed_at_the_dead_owner_stays_so() -> None:
    two = TakenOver()
    late = T + LIMIT_MS + 1_000
    two.former.show_next(1, ORDER, T)
    two.former.show_next(1, ORDER, late)
    session = two.taken(late + 20_000, alive_at=late)
    two.merged(late + 20_000)
    assert session.self_pace is not None
    way = session.self_pace.way(1)
    assert (way.asked, way.stage, way.merged) == (2, Stage.ASKED, False)
    assert session.self_pace.remaining_ms(1, late + 20_000) == LIMIT_MS


def test_who_was_through_at_the_dead_owner_is_through() -> None:
    two = TakenOver(reveal="end")
    for number in ORDER:
        two.former.show_next(1, ORDER, T)
        two.former.answer(1, number, 1, T + 1_000)
    session = two.taken(T + 20_000, alive_at=T + 1_000)
    session.show_next(1, ORDER, T + 20_000)
    two.merged(T + 21_000)
    assert session.answered == 1
    assert session.leaderboard.score(1) == session.players[1].score > 0


def test_who_let_the_last_question_pass_is_through_unless_it_is_asked_again() -> None:
    for again in (False, True):
        two = TakenOver()
        at = T
        for number in ORDER:
            two.former.show_next(1, ORDER, at)
            if number < len(ORDER):
                two.former.answer(1, number, 1, at)
        at += LIMIT_MS + 1_000
        two.former.show_next(1, ORDER, at)
        session = two.taken(at + 20_000, alive_at=at)
        if again:
            for number in ORDER:
                session.show_next(1, ORDER, at + 20_000)
                if number < len(ORDER):
                    session.answer(1, number, 1, at + 20_000)
        two.merged(at + 21_000)
        assert session.answered == (0 if again else 1)


def test_an_answer_to_a_later_question_leaves_the_present_one_to_be_answered() -> None:
    two = TakenOver()
    for number in ORDER[:2]:
        two.former.show_next(1, ORDER, T)
        two.former.answer(1, number, 1, T)
    session = two.taken(T + 20_000, alive_at=T)
    session.show_next(1, ORDER, T + 20_000)
    two.merged(T + 21_000)
    assert isinstance(session.answer(1, 1, 0, T + 22_000), Repeated)
    assert isinstance(session.answer(1, 2, 0, T + 22_000), Repeated)
    session.show_next(1, ORDER, T + 23_000)
    assert isinstance(session.answer(1, 3, 0, T + 23_000), AnswerAccepted)
    assert session.answered == 1
    two.check()


def test_extra_time_of_the_dead_owner_holds_unless_the_host_gave_other_since() -> None:
    two = TakenOver(4)
    for player, percent in ((1, 200), (2, UNTIMED), (3, 200), (4, 200)):
        two.former.give_extra_time(player, percent, T + 1_000)
    session = two.taken(T + 20_000, alive_at=T + 1_000)
    session.give_extra_time(3, 150, T + 20_000)
    session.erase(4, T + 20_000)
    merge(session, two.former.take_facts(), T + 21_000)
    assert [session.extra_time_of(player) for player in (1, 2, 3, 4)] == [200, UNTIMED, 150, 100]
    session.show_next(1, ORDER, T + 22_000)
    answer = session.answer(1, 1, 1, T + 22_000 + LIMIT_MS + 10_000)
    assert isinstance(answer, AnswerAccepted)
    assert answer.elapsed_ms == (LIMIT_MS + 10_000) // 2


def test_a_led_question_is_held_for_a_player_whose_extra_time_was_merged() -> None:
    session = session_of(2)
    session.start(T)
    session.merge_extra_time(ExtraTimeGiven(9, T - 1_000, 1, 200))
    assert session.deadline == T + 2 * LIMIT_MS


def test_a_deadline_of_the_dead_owner_holds_unless_the_host_moved_it_since() -> None:
    for since, expected in ((None, T + 500_000), (T + 300_000, T + 300_000)):
        two = TakenOver(open_ms=60_000)
        two.former.extend(T + 500_000, T + 1_000)
        session = two.taken(T + 20_000, alive_at=T + 1_000)
        if since is not None:
            session.extend(since, T + 20_000)
        two.merged(T + 21_000)
        assert session.deadline == expected


def test_a_deadline_that_is_over_by_now_ends_the_session_now() -> None:
    two = TakenOver(open_ms=60_000)
    two.former.extend(T + 10_000, T + 1_000)
    session = two.taken(T + 20_000, alive_at=T + 1_000)
    session.show_next(1, ORDER, T + 20_000)
    assert isinstance(session.answer(1, 1, 1, T + 20_500), AnswerAccepted)
    two.merged(T + 21_000)
    session.elapse(T + 21_000)
    assert session.phase == "finished"
    two.check()


def test_a_session_that_has_ended_stays_so() -> None:
    two = TakenOver(open_ms=60_000)
    two.former.extend(T + 500_000, T + 1_000)
    two.former.give_extra_time(1, 200, T + 1_000)
    two.former.show_next(1, ORDER, T + 1_000)
    two.session.elapse(T + 60_000)
    two.merged(T + 61_000)
    assert two.session.phase == "finished"
    assert two.session.extra_time_of(1) == 100


def test_an_attempt_that_both_owners_let_a_player_begin_is_one() -> None:
    two = TakenOver(2, attempts=2)
    for number in ORDER:
        two.former.show_next(1, ORDER, T)
        two.former.answer(1, number, 0, T)
    two.facts += two.former.take_facts()
    two.session = two.recovered()
    two.former.show_next(1, ORDER, T + 1_000, 2)
    two.former.answer(1, 1, 1, T + 2_000, attempt=2)
    session = two.taken(T + 20_000, alive_at=T + 2_000)
    joined = session.join("C", T + 20_000)
    assert isinstance(joined, PlayerJoined)
    assert joined.player == two.former.number_of(1, 2) == 3
    session.show_next(1, ORDER, T + 21_000, 2)
    two.merged(T + 22_000)
    assert session.self_pace is not None
    assert session.self_pace.last_attempt(1) == 2
    assert session.answer_of(4, 1) == (1, 1_000)
    assert session.answer_of(3, 1) is None
    again = session.answer(1, 1, 0, T + 23_000, attempt=2)
    assert isinstance(again, Repeated)
    assert session.leaderboard.score(1) > 0


def test_an_attempt_of_the_dead_owner_counts_though_the_next_knew_not_that_the_first_was_over() -> None:
    two = TakenOver(1, attempts=2)
    for attempt in (1, 2):
        for number in ORDER:
            two.former.show_next(1, ORDER, T, attempt)
            two.former.answer(1, number, attempt - 1, T, attempt=attempt)
    session = two.taken(T + 20_000, alive_at=T)
    session.show_next(1, ORDER, T + 20_000)
    session.finish(T + 21_000)
    two.merged(T + 22_000)
    assert session.leaderboard.score(1) == 3_000


_steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["next", "next", "answer", "answer", "extra", "extend", "kick", "through", "through"]
        ),
        st.integers(1, 2),
        st.integers(0, 1),
        st.integers(0, 20_000),
    ),
    max_size=16,
)


def played(session: Session, at: int, steps: list[tuple[str, int, int, int]]) -> int:
    """Returns when it was over."""
    for do, player, choice, wait_ms in steps:
        at += wait_ms
        session.elapse(at)
        own, order = session.self_pace, [2, 3, 1] if player == 2 else ORDER
        assert own is not None
        attempt = own.last_attempt(player)
        number = session.number_of(player, attempt)
        assert number is not None
        again = own.way(number).stage is Stage.DONE
        match do:
            case "next":
                session.show_next(player, order, at, attempt + again)
            case "answer":
                session.answer(player, own.way(number).asked, choice, at, attempt=attempt)
            case "through":
                for _ in ORDER:
                    session.show_next(player, order, at, attempt + again)
                    asked = own.way(session.number_of(player, attempt + again) or number).asked
                    session.answer(player, asked, choice, at, attempt=attempt + again)
            case "extra":
                session.give_extra_time(player, 200 - 100 * choice, at)
            case "extend":
                session.extend(at + 40_000, at)
            case "kick" if choice and wait_ms > 15_000:
                session.kick(player, at)
    return at


@settings(max_examples=40)
@given(_steps, _steps, _steps, _steps, st.integers(-8_000, 30_000), st.sampled_from(["each", "end"]))
def test_whatever_both_owners_did_what_was_acknowledged_stands(
    before: list[tuple[str, int, int, int]],
    spooled: list[tuple[str, int, int, int]],
    since: list[tuple[str, int, int, int]],
    after: list[tuple[str, int, int, int]],
    outage_ms: int,
    reveal: str,
) -> None:
    two = TakenOver(2, open_ms=400_000, reveal=reveal, attempts=3)
    at = played(two.former, T, before)
    two.facts += two.former.take_facts()
    two.session = two.recovered()
    at = played(two.former, at, spooled)
    acked = [fact for fact in two.former._untaken if isinstance(fact, AnswerAccepted)]
    mine = {
        two.former.number_of(player, attempt): (player, attempt) for player in (1, 2) for attempt in (1, 2, 3)
    }
    session = two.taken(at + outage_ms, alive_at=at)
    at = played(session, at + outage_ms, since)
    two.merged(at)
    played(session, at, after)
    two.check()
    kept: dict[tuple[int, int], list[AnswerAccepted | AnswerMerged]] = {}
    for fact in two.facts:
        if isinstance(fact, AnswerAccepted | AnswerMerged):
            kept.setdefault((fact.player, fact.question), []).append(fact)
    for each in acked:
        number = session.number_of(*mine[each.player])
        assert number is not None
        same = [fact for fact in kept[number, each.question] if fact.at == each.at]
        assert replace(each, seq=0, player=number) in [
            AnswerAccepted(0, f.at, f.player, f.question, f.choice, f.elapsed_ms, f.correct, f.points)
            for f in same
        ]
    for given_ in kept.values():
        assert sum(isinstance(fact, AnswerAccepted) for fact in given_) <= 1
