"""Answers that an earlier owner had acknowledged: a player's first to a question stands, and all agree."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.audit import Evidence, Line, audit
from engine.domain.facts import AnswerAccepted, AnswerMerged, Fact, Finished, PlayerJoined
from engine.domain.rescoring import standing_answers
from engine.domain.session import Phase, Repeated, Session
from tests.domain.making import CREATED_AT, quiz_of, session_of, singles, started

LATER = CREATED_AT + 5_000
STREAKS = quiz_of(*singles(4), scoring={"streak": True})


def acked(
    player: int, question: int = 1, choice: int = 1, at: int = LATER, points: int = 900
) -> AnswerAccepted:
    """As another owner had it; choice 1 is right."""
    correct = choice == 1
    return AnswerAccepted(77, at, player, question, choice, 1234, correct, points if correct else 0)


def standing(session: Session) -> list[tuple[int, int, int]]:
    return [(entry.rank, entry.player, entry.score) for entry in session.leaderboard.ranked()]


def recovered(session: Session, facts: list[Fact]) -> Session:
    return Session.recover(session.quiz, session.settings, CREATED_AT, facts)


def test_an_answer_that_is_missing_counts_with_the_points_it_was_given() -> None:
    session = started(2, board="live")
    session.merge_answer(acked(2))
    assert standing(session) == [(1, 2, 900), (2, 1, 0)]
    assert session.answered == 1
    assert session.counts() == [0, 1]
    assert session.answer_of(2, 1) == (1, 1234)
    repeated = session.answer(2, 1, 0, LATER + 1)
    assert isinstance(repeated, Repeated)
    assert not repeated.same


def test_the_one_that_was_received_first_stands_whichever_came_here_first() -> None:
    session = started(2)
    session.answer(1, 1, 0, LATER)
    session.answer(2, 1, 0, LATER)
    session.merge_answer(acked(1, at=LATER - 1))
    session.merge_answer(acked(2, at=LATER + 1))
    assert standing(session) == [(1, 1, 900), (2, 2, 0)]
    assert session.counts() == [1, 1]
    assert session.answered == 2
    # The one that does not stand is on the record all the same.
    assert sum(isinstance(fact, AnswerMerged) for fact in session.take_facts()) == 2


def test_on_a_tie_the_one_that_was_here_stands() -> None:
    session = started(1)
    session.answer(1, 1, 0, LATER)
    session.merge_answer(acked(1, at=LATER))
    assert standing(session) == [(1, 1, 0)]


def test_an_earlier_one_takes_the_place_of_a_merged_one() -> None:
    session = started(1, board="live")
    for at, points in ((LATER, 900), (LATER - 2, 950), (LATER - 1, 925)):
        session.merge_answer(acked(1, at=at, points=points))
    assert standing(session) == [(1, 1, 950)]
    assert (session.answered, session.counts()) == (1, [0, 1])


def test_a_merge_that_is_repeated_changes_nothing() -> None:
    session = started(3)
    session.answer(1, 1, 1, LATER)
    first = session.take_facts()[-1]
    assert isinstance(first, AnswerAccepted)
    spooled = [first, acked(2), acked(2, at=LATER + 9), acked(3, question=2)]
    for fact in spooled:
        session.merge_answer(fact)
    facts = session.take_facts()
    assert len(facts) == 3
    for fact in spooled:
        session.merge_answer(fact)
    assert session.take_facts() == []


def test_an_answer_to_a_question_that_is_yet_to_be_opened_counts_and_is_there_when_it_is() -> None:
    session = started(2, board="live")
    session.merge_answer(acked(1, question=2))
    assert standing(session) == [(1, 1, 900), (2, 2, 0)]
    assert session.answered == 0
    session.close(LATER)
    session.next(LATER)
    assert (session.answered, session.counts()) == (1, [0, 1])
    assert isinstance(session.answer(1, 2, 0, LATER + 1), Repeated)
    assert session.answer_of(1, 2) == (1, 1234)


def test_what_is_merged_shows_once_its_question_is_closed() -> None:
    session = started(3, STREAKS, early_close=False)
    session.answer(1, 1, 1, CREATED_AT)
    session.close(LATER)
    session.next(LATER)
    session.merge_answer(acked(1, question=2))
    session.merge_answer(acked(2, question=3))
    assert standing(session) == [(1, 1, 1000), (2, 2, 0), (2, 3, 0)]
    assert [session.streak(player) for player in (1, 2, 3)] == [1, 0, 0]
    session.merge_answer(acked(3, question=1))
    assert standing(session) == [(1, 1, 1000), (2, 3, 900), (3, 2, 0)], "that one is closed"
    session.close(LATER)
    assert standing(session) == [(1, 1, 1900), (2, 3, 900), (3, 2, 0)]
    assert [session.streak(player) for player in (1, 2, 3)] == [2, 0, 0]
    assert recovered(session, session.take_facts()) == session
    session.next(LATER)
    session.kick(3, LATER)
    assert standing(session) == [(1, 1, 1900), (2, 2, 0)]
    session.close(LATER)
    assert standing(session) == [(1, 1, 1900), (2, 2, 900)]
    session.merge_answer(acked(2, question=4))
    assert standing(session) == [(1, 1, 1900), (2, 2, 900)]
    session.finish(LATER)
    assert standing(session) == [(1, 1, 1900), (2, 2, 1800)]
    assert session.streak(2) == 2


def test_after_the_end_it_counts_too() -> None:
    session = started(2)
    session.finish(LATER)
    session.merge_player(PlayerJoined(9, LATER - 10, 3, "Zoë"))
    session.merge_answer(acked(3))
    assert session.phase is Phase.FINISHED
    assert standing(session) == [(1, 3, 900), (2, 1, 0), (2, 2, 0)]


def test_the_streak_is_as_if_all_had_come_in_order() -> None:
    session = started(1, STREAKS)
    session.close(LATER)
    session.next(LATER)
    session.answer(1, 2, 1, LATER)
    assert session.streak(1) == 1
    session.merge_answer(acked(1, question=1, at=LATER - 1))
    assert session.streak(1) == 2
    session.close(LATER)
    session.next(LATER)
    third = session.answer(1, 3, 1, LATER)
    assert isinstance(third, AnswerAccepted)
    assert third.points == 1000 + 200
    session.merge_answer(acked(1, question=2, choice=0, at=CREATED_AT))
    assert session.streak(1) == 1


def test_a_player_who_was_removed_stays_removed() -> None:
    session = started(2)
    session.answer(1, 1, 1, LATER)
    session.kick(1, LATER)
    session.merge_answer(acked(1, at=LATER - 1))
    session.merge_answer(acked(1, question=2))
    assert standing(session) == [(1, 2, 0)]
    assert (session.answered, session.counts()) == (0, [0, 0])
    session.close(LATER)
    session.next(LATER)
    assert (session.answered, session.counts()) == (0, [0, 0])


def test_a_player_comes_in_whatever_the_lock_and_the_limit_say() -> None:
    session = session_of(2, player_limit=2)
    session.lock(True, LATER)
    session.merge_player(PlayerJoined(9, LATER, 3, "Zoë"))
    assert session.called("zoe") == 3
    session.merge_player(PlayerJoined(9, LATER, 3, "Zoë"))
    assert len(session.players) == 3


def test_a_player_of_a_user_is_told_by_the_user_and_a_guest_by_the_name() -> None:
    session = session_of(0)
    user, guest = PlayerJoined(8, LATER, 1, "Zoë", user_id="zoe"), PlayerJoined(9, LATER, 2, "Zoë")
    other = PlayerJoined(10, LATER, 3, "Zoë", user_id="another zoe")
    for _ in range(2):
        for fact in (user, guest, other):
            session.merge_player(fact)
    assert [session.seat_of(fact) for fact in (user, guest, other)] == [1, 2, 3]
    assert [(each.name, each.user_id) for each in session.players.values()] == [
        ("Zoë", "zoe"),
        ("Zoë 2", None),
        ("Zoë 3", "another zoe"),
    ]
    facts = session.take_facts()
    assert recovered(session, facts) == session
    assert not [
        each
        for each in audit(Evidence(session.quiz, CREATED_AT, None, facts, (), {}, []))
        if each.kind == "user"
    ]


def test_a_second_seat_of_a_user_is_found_by_the_audit() -> None:
    facts = [
        PlayerJoined(1, LATER, 1, "Zoë", user_id="zoe"),
        PlayerJoined(2, LATER, 2, "Zoë 2", user_id="zoe"),
    ]
    found = audit(Evidence(STREAKS, CREATED_AT, None, facts, (), {}, []))
    assert [(each.kind, each.player) for each in found if each.kind == "user"] == [("user", 2)]


def test_an_erased_player_is_no_user_any_more() -> None:
    session = session_of(0)
    session.merge_player(PlayerJoined(8, LATER, 1, "Zoë", user_id="zoe"))
    [fact] = session.take_facts()
    assert isinstance(fact, PlayerJoined)
    session.erase(1, LATER)
    assert session.seat_of_user("zoe") is None
    assert recovered(session, [replace(fact, name="#1", erased=True, user_id=None)]) == session


def test_a_number_that_was_given_to_another_is_not_given_twice() -> None:
    session = session_of(3)
    session.merge_player(PlayerJoined(9, LATER, 3, "Zoë"))
    assert session.called("Zoë") == 4
    assert session.called("player 3") == 3


def test_what_cannot_belong_to_the_session_changes_nothing() -> None:
    session = started(1)
    before = session.seq
    session.merge_answer(acked(2))
    session.merge_answer(acked(1, question=0))
    session.merge_answer(acked(1, question=4))
    assert session.seq == before


def test_a_question_that_all_have_answered_by_now_is_closed() -> None:
    session = started(2)
    session.answer(1, 1, 1, LATER)
    session.merge_answer(acked(2))
    session.settle_merged(LATER + 1)
    assert session.phase is Phase.REVEAL


_merges = st.tuples(
    st.just("merge"), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1), st.integers(0, 20_000)
)
_answers = st.tuples(
    st.just("answer"), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1), st.integers(0, 20_000)
)
_others = st.tuples(
    st.sampled_from(["close", "next", "kick", "join", "finish"]), st.integers(1, 5), *[st.just(0)] * 3
)


@given(
    st.lists(st.one_of(_merges, _merges, _answers, _answers, _others), max_size=40),
    st.sampled_from(["at_close", "live"]),
)
def test_recovery_and_scores_agree_whatever_was_merged_when(
    steps: list[tuple[str, int, int, int, int]], board: str
) -> None:
    session = started(3, STREAKS, early_close=False, board=board)
    facts = session.take_facts()
    for step, player, question, choice, at in steps:
        moment = CREATED_AT + at
        match step:
            case "merge":
                session.merge_answer(acked(player, question, choice, moment, 500 + at // 50))
            case "answer":
                session.answer(player, question, choice, moment)
            case "close":
                session.close(LATER)
            case "next":
                session.next(LATER)
            case "kick":
                session.kick(player, LATER)
            case "join":
                session.merge_player(PlayerJoined(9, LATER, player, f"late {player}"))
            case "finish" if player == 5:
                session.finish(LATER)
        facts += session.take_facts()
    assert recovered(session, facts) == session

    first: dict[tuple[int, int], AnswerAccepted | AnswerMerged] = {}
    for fact in facts:
        if isinstance(fact, AnswerAccepted | AnswerMerged):
            key = fact.player, fact.question
            if key not in first or fact.at < first[key].at:
                first[key] = fact
    for player in session.players.values():
        own = [fact for (who, _), fact in first.items() if who == player.id]
        assert player.score == sum(fact.points for fact in own)
        assert player.elapsed_ms == sum(fact.elapsed_ms for fact in own)
    closed = session.number - session.question_open
    for entry in session.leaderboard.ranked():
        shown = [
            fact
            for (who, question), fact in first.items()
            if who == entry.player and (question <= closed or board == "live" or session.phase == "finished")
        ]
        assert entry.score == sum(fact.points for fact in shown)
        assert entry.elapsed_ms == sum(fact.elapsed_ms for fact in shown)
    if session.question_open:
        now_open = [f for (p, q), f in first.items() if q == session.number]
        counted = [f for f in now_open if not session.players[f.player].kicked]
        assert session.answered == len(counted)
        assert session.counts() == [sum(f.choice == n for f in counted) for n in (0, 1)]


_plays = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(1, 5), st.integers(0, 1), st.integers(0, 9_000)),
        st.tuples(st.just("answer"), st.integers(1, 5), st.integers(0, 1), st.integers(0, 9_000)),
        st.tuples(
            st.sampled_from(["next", "kick", "join"]), st.integers(1, 5), st.just(0), st.integers(0, 99)
        ),
    ),
    max_size=20,
)


def play_on(session: Session, at: int, plays: list[tuple[str, int, int, int]]) -> int:
    """Returns when it was over."""
    for what, player, choice, wait_ms in plays:
        at += wait_ms
        session.elapse(at)
        match what:
            case "answer":
                session.answer(player, session.number, choice, at)
            case "kick" if player == 5:
                session.kick(player - 4, at)
            case "join":
                session.join(f"late {player}", at)
            case "next":
                session.close(at)
                session.next(at)
    return at


@given(_plays, _plays, _plays, st.booleans())
def test_an_audit_understands_what_was_merged(
    together: list[tuple[str, int, int, int]],
    apart: list[tuple[str, int, int, int]],
    here: list[tuple[str, int, int, int]],
    late: bool,
) -> None:
    session = started(3, STREAKS, early_close=False)
    at = play_on(session, CREATED_AT, together)
    facts = session.take_facts()
    other = recovered(session, facts)
    other.take_facts()
    play_on(other, at, apart)
    spooled = other.take_facts()
    at = play_on(session, at, here)
    if late:
        session.finish(at)
    for fact in spooled:
        if isinstance(fact, PlayerJoined):
            session.merge_player(fact)
    for fact in spooled:
        if isinstance(fact, AnswerAccepted):
            number = session.called(other.name_of(fact.player))
            assert number is not None
            session.merge_answer(replace(fact, player=number))
    session.finish(at)
    facts += session.take_facts()

    finished_at = next(fact.at for fact in facts if isinstance(fact, Finished))
    stand = standing_answers(facts)
    lines = []
    for entry in session.leaderboard.ranked():
        own = [answer for (_, player), answer in stand.items() if player == entry.player]
        right = sum(answer.correct for answer in own)
        lines.append(Line(entry.rank, entry.player, entry.score, right, len(own), entry.elapsed_ms))
    evidence = Evidence(session.quiz, CREATED_AT, finished_at, facts, (), {}, lines)
    assert audit(evidence) == []
