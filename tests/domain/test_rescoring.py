"""A session whose key is corrected afterwards ends as if it had been played with the right key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain import facts as f
from engine.domain.answer_keys import Correction, Key, key_of, with_key
from engine.domain.audit import KINDS, LOOK, Difference, Evidence, Line, audit
from engine.domain.errors import DomainError
from engine.domain.leaderboard import Entry
from engine.domain.quiz import Quiz
from engine.domain.rescoring import Mark, Rescore, changed, marks, rescore, standing
from engine.domain.session import Session, Settings
from tests.domain.making import CREATED_AT, quiz_of
from tests.settings import at_once

QUESTIONS: list[dict[str, Any]] = [
    {"type": "single", "text": "1", "choices": ["a", "b", "c"], "correct": "b"},
    {"type": "multiple", "text": "2", "choices": ["a", "b", "c"], "correct": ["a"]},
    {"type": "true_false", "text": "3", "correct": True},
    {"type": "text", "text": "4", "accept": ["yes"]},
    {"type": "numeric", "text": "5", "correct": 10, "tolerance": 1, "points": 500},
    {"type": "single", "text": "6", "choices": ["a", "b"], "correct": "a", "points": 0},
]
CHOICES: list[list[Any]] = [
    [0, 1, 2],
    [[0], [0, 1], [2]],
    [True, False],
    ["yes", "NO", "no"],
    [9, 10.5, 20],
    [0, 1],
]
KEYS: list[list[Key]] = [
    [{"correct": "a"}, {"correct": "b"}, {"correct": "c"}],
    [{"correct": ["a"]}, {"correct": ["b", "a"]}, {"correct": ["c"]}],
    [{"correct": True}, {"correct": False}],
    [{"accept": ["yes"]}, {"accept": ["no", "maybe"]}],
    [{"correct": 10}, {"tolerance": 0}, {"correct": 20, "tolerance": 0.5}],
    [{"correct": "a"}, {"correct": "b"}],
]

keys = st.integers(1, len(QUESTIONS)).flatmap(
    lambda number: st.tuples(st.just(number), st.sampled_from(KEYS[number - 1]))
)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(1, 4), st.integers(0, 2)),
        st.tuples(st.just("answer"), st.integers(1, 4), st.integers(0, 2)),
        st.tuples(st.sampled_from(["kick", "join", "readmit"]), st.integers(1, 5), st.just(0)),
        st.tuples(st.sampled_from(["next", "pause", "resume", "skip"]), st.just(0), st.just(0)),
    ),
    max_size=60,
)


def play(quiz: Quiz, plan: Sequence[tuple[str, int, int]], waits: Sequence[int]) -> Session:
    """What everybody does and when; whether an answer is right changes nothing about it."""
    session = Session(quiz, at_once(pace="host", early_close=False), CREATED_AT)
    at = CREATED_AT
    for n in range(3):
        session.join(f"player {n}", at)
    session.start(at)
    for (what, player, choice), wait_ms in zip(plan, waits, strict=False):
        at += wait_ms
        session.elapse(at)
        if what == "answer" and session.number:
            options = CHOICES[session.number - 1]
            session.answer(player, session.number, options[choice % len(options)], at)
        elif what == "kick":
            session.kick(player, at)
        elif what == "readmit":
            session.readmit(player, at)
        elif what == "join":
            session.join(f"late {player}", at)
        elif what == "next":
            session.close(at)
            session.next(at)
        elif what == "skip":
            session.skip(at)
        elif what == "pause":
            session.pause(at)
        elif what == "resume":
            session.resume(at)
    session.finish(at)
    return session


def taken(session: Session) -> list[f.Fact]:
    return session.take_facts()


def corrected_by(quiz: Quiz, facts: Sequence[f.Fact], wanted: Sequence[tuple[int, Key]]) -> list[Rescore]:
    done: list[Rescore] = []
    for question, key in wanted:
        try:
            earlier = [each.correction for each in done]
            done.append(rescore(quiz, facts, earlier, question, key, by="me", reason="", at=CREATED_AT))
        except DomainError as error:
            assert error.code == "same_key"  # noqa: PT017 - any other fails
    return done


def lines(facts: Sequence[f.Fact], marked: Any) -> list[Line]:
    """The results, as the database computes them: in another way than `standing`."""
    last = {
        fact.player: type(fact) for fact in facts if isinstance(fact, f.PlayerKicked | f.PlayerReadmitted)
    }
    kicked = {player for player, kind in last.items() if kind is f.PlayerKicked}
    skipped = {fact.question for fact in facts if isinstance(fact, f.QuestionSkipped)}
    answers = [a for a in facts if isinstance(a, f.AnswerAccepted) and a.question not in skipped]
    found = {}
    for fact in facts:
        if isinstance(fact, f.PlayerJoined) and fact.player not in kicked:
            mine = [a for a in answers if a.player == fact.player]
            got = [marked[a.question, a.player] for a in mine]
            found[fact.player] = (
                sum(each.points for each in got),
                sum(each.correct for each in got),
                len(mine),
                sum(a.elapsed_ms for a in mine),
            )
    return [
        Line(1 + sum(other[0] > each[0] for other in found.values()), player, *each)
        for player, each in found.items()
    ]


def evidence_of(quiz: Quiz, facts: Sequence[f.Fact], done: Sequence[Rescore] = ()) -> Evidence:
    marked: Any = {
        (fact.question, fact.player): Mark(fact.correct, fact.points)
        for fact in facts
        if isinstance(fact, f.AnswerAccepted)
    }
    corrected_marks = dict(done[-1].changed) if done else {}
    ends = [fact.at for fact in facts if isinstance(fact, f.Finished)]
    return Evidence(
        quiz,
        CREATED_AT,
        ends[-1] if ends else None,
        facts,
        [each.correction for each in done],
        corrected_marks,
        lines(facts, marked | corrected_marks),
    )


@given(
    plan=moves,
    waits=st.lists(st.integers(0, 9_000), min_size=60, max_size=60),
    wanted=st.lists(keys, max_size=6),
    streak=st.booleans(),
    rule=st.sampled_from(["speed", "flat"]),
)
def test_a_corrected_session_equals_the_one_played_with_the_right_keys(
    plan: Any, waits: Any, wanted: Any, streak: bool, rule: str
) -> None:
    quiz = quiz_of(*QUESTIONS, scoring={"rule": rule, "streak": streak})
    facts = taken(play(quiz, plan, waits))
    assert audit(evidence_of(quiz, facts)) == []

    right = quiz
    for question, key in wanted:
        right = with_key(right, question, key)
    as_played = play(right, plan, waits)
    done = corrected_by(quiz, facts, wanted)
    played = taken(as_played)

    assert audit(evidence_of(quiz, facts, done)) == []
    if done:
        assert done[-1].after == list(as_played.leaderboard.ranked())
        assert done[0].before == standing(facts, marks(quiz, facts))
        # A question that was skipped is worth nothing by any key.
        skipped = {fact.question for fact in facts if isinstance(fact, f.QuestionSkipped)}
        marked, marked_then = (
            {
                (a.question, a.player): (a.correct, a.points)
                for a in each
                if isinstance(a, f.AnswerAccepted) and a.question not in skipped
            }
            for each in (facts, played)
        )
        assert marked | done[-1].changed == marked_then
        back = corrected_by(
            quiz, facts, [*wanted, *[(n + 1, key_of(q)) for n, q in enumerate(quiz.questions)]]
        )
        assert back[-1].changed == {}
        assert back[-1].after == done[0].before


def one_session() -> tuple[Quiz, list[f.Fact]]:
    quiz = quiz_of(*QUESTIONS, scoring={"rule": "speed", "streak": True})
    plan = [("answer", 1, 1), ("answer", 2, 0), ("next", 0, 0), ("answer", 1, 0), ("answer", 2, 0)]
    return quiz, taken(play(quiz, plan, [1_000] * 5))


def test_a_streak_after_the_corrected_question_changes_too() -> None:
    quiz, facts = one_session()
    done = rescore(quiz, facts, [], 1, {"correct": "a"}, by="me", reason="typo", at=7)
    assert done.correction == Correction(1, 1, {"correct": "b"}, {"correct": "a"}, "me", "typo", 7)
    # The second is right for both; its bonus goes to the one who has a row now.
    assert done.changed == {
        (1, 1): (False, 0),
        (1, 2): (True, 950),
        (2, 1): (True, 975),
        (2, 2): (True, 1_050),
    }
    assert done.before[0] == Entry(1, 1, 975 + 1_075, 2_000)
    assert done.after[0] == Entry(1, 2, 950 + 1_050, 4_000)


@pytest.mark.parametrize(
    ("question", "key", "code", "path"),
    [
        (1, {"correct": "z"}, "no_right_answer", "questions[0].correct"),
        (2, {"correct": []}, "no_right_answer", "questions[1].correct"),
        (3, {"correct": "yes"}, "bad_field", "questions[2].correct"),
        (4, {"correct": "yes"}, "unknown_field", "correct"),
        (4, {"accept": ["a", "A"]}, "duplicate_choice", "questions[3].accept[1]"),
        (5, {"tolerance": -1}, "bad_field", "questions[4].tolerance"),
        (0, {"correct": "a"}, "bad_field", "question"),
        (7, {"correct": "a"}, "bad_field", "question"),
        (1, {"correct": "b"}, "same_key", "correct"),
    ],
)
def test_keys_that_cannot_be(question: int, key: Key, code: str, path: str) -> None:
    quiz, facts = one_session()
    with pytest.raises(DomainError) as caught:
        rescore(quiz, facts, [], question, key, by="", reason="", at=0)
    assert (caught.value.code, caught.value.path) == (code, path)


# -- what an audit finds -----------------------------------------------------------------------------


def test_every_kind_of_fact_is_looked_at() -> None:
    assert set(LOOK) == set(get_args(f.Fact))


def kinds(found: Sequence[Difference]) -> set[str]:
    assert {each.kind for each in found} <= set(KINDS)
    return {each.kind for each in found}


def tampered(facts: list[f.Fact], at: int, **changes: Any) -> list[f.Fact]:
    """The `at`th answer changed."""
    index = [n for n, fact in enumerate(facts) if isinstance(fact, f.AnswerAccepted)][at]
    return [*facts[:index], replace(facts[index], **changes), *facts[index + 1 :]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"points": 1}, {"points", "standing"}),
        ({"correct": False}, {"correct", "standing"}),
        ({"choice": 0}, {"correct", "points", "standing"}),
        ({"choice": 7}, {"choice", "correct", "points", "standing"}),
        ({"choice": True}, {"choice"}),
        ({"elapsed_ms": 30_000}, {"elapsed", "late", "points", "standing"}),
        ({"elapsed_ms": 1_001}, {"elapsed"}),
        ({"question": 2}, {"not_open", "twice", "choice", "correct", "points", "standing"}),
        ({"question": 9}, {"unknown_question", "standing"}),
        ({"player": 9}, {"unknown_player"}),
        ({"seq": 99}, {"seq"}),
    ],
)
def test_an_answer_that_was_tampered_with_is_found(changes: Any, expected: set[str]) -> None:
    quiz, facts = one_session()
    assert expected <= kinds(audit(evidence_of(quiz, tampered(facts, 0, **changes))))


def test_a_fact_that_is_missing_leaves_a_gap() -> None:
    quiz, facts = one_session()
    for gone in range(len(facts) - 1):
        kept = facts[:gone] + facts[gone + 1 :]
        assert "seq" in kinds(audit(evidence_of(quiz, kept)))
    assert kinds(audit(evidence_of(quiz, facts[:-1]))) == set()
    ended = replace(evidence_of(quiz, facts[:-1]), finished_at=5)
    assert kinds(audit(ended)) == {"finished_at"}


def test_an_answer_after_a_kick_while_paused_or_after_the_close_is_found() -> None:
    quiz, facts = one_session()
    opened = next(n for n, fact in enumerate(facts) if isinstance(fact, f.QuestionOpened)) + 1
    for fact, kind in (
        (f.PlayerKicked(0, CREATED_AT, 1), "kicked"),
        (f.Paused(0, CREATED_AT), "not_open"),
        (f.QuestionClosed(0, CREATED_AT, 1), "not_open"),
    ):
        course = [*facts[:opened], fact, *facts[opened:]]
        numbered = [replace(each, seq=seq) for seq, each in enumerate(course, 1)]
        assert kind in kinds(audit(evidence_of(quiz, numbered)))


def test_facts_in_the_wrong_order_are_found() -> None:
    quiz, facts = one_session()
    for extra in (
        f.QuestionOpened(0, 0, 1),
        f.Resumed(0, 0),
        f.LockChanged(0, 0, True),
        f.HostReplaced(0, 0),
        f.PlayerJoined(0, 0, 9, "x"),
    ):
        course = [replace(each, seq=seq) for seq, each in enumerate([*facts, extra], 1)]
        assert "order" in kinds(audit(evidence_of(quiz, course)))


def test_a_session_of_an_earlier_release_is_audited_and_corrected_by_its_own_foldings() -> None:
    """What it took for wrong was wrong, also where another question is corrected now."""
    document = quiz_of(
        {"type": "text", "text": "1", "accept": ["Lisbon"]},
        {"type": "true_false", "text": "2", "correct": True},
    )
    quiz = Settings.stored({}).applied_to(document)
    session = Session(quiz, Settings.stored({}), CREATED_AT)
    session.join("Ada", CREATED_AT)
    session.start(CREATED_AT)
    session.answer(1, 1, "Lisbon.", CREATED_AT + 1_000)
    session.close(CREATED_AT + 2_000)
    session.next(CREATED_AT + 2_000)
    session.answer(1, 2, False, CREATED_AT + 3_000)
    session.finish(CREATED_AT + 4_000)
    facts = taken(session)
    assert [fact.correct for fact in facts if isinstance(fact, f.AnswerAccepted)] == [False, False]
    assert audit(evidence_of(quiz, facts)) == []
    assert kinds(audit(evidence_of(document, facts))) == {"correct", "points", "standing"}
    other = corrected_by(quiz, facts, [(2, {"correct": False})])
    assert list(other[0].changed) == [(2, 1)]
    assert audit(evidence_of(quiz, facts, other)) == []
    same = corrected_by(quiz, facts, [(1, {"accept": ["Lisbon", "Porto"]})])
    assert same[0].changed == {}


def test_an_answer_before_the_question_took_any_is_found() -> None:
    quiz = quiz_of(*QUESTIONS)
    session = Session(quiz, Settings(early_close=False), CREATED_AT)
    session.join("Ada", CREATED_AT)
    session.start(CREATED_AT)
    session.answer(1, 1, 1, CREATED_AT + 4_000)
    session.close(CREATED_AT + 5_000)
    facts = taken(session)
    assert [fact.elapsed_ms for fact in facts if isinstance(fact, f.AnswerAccepted)] == [1_000]
    assert audit(evidence_of(quiz, facts)) == []
    early = [
        replace(fact, at=CREATED_AT + 2_999) if isinstance(fact, f.AnswerAccepted) else fact for fact in facts
    ]
    assert kinds(audit(evidence_of(quiz, early))) == {"not_open"}


def test_a_skipped_question_that_was_not_asked_or_was_skipped_already_is_found() -> None:
    quiz = quiz_of(*QUESTIONS)
    facts = taken(play(quiz, [("answer", 1, 1), ("skip", 0, 0)], [1_000] * 2))[:-1]
    assert audit(evidence_of(quiz, facts)) == []
    for extra in (f.QuestionSkipped(0, 0, 1), f.QuestionSkipped(0, 0, 2)):
        course = [replace(each, seq=seq) for seq, each in enumerate([*facts, extra], 1)]
        assert "order" in kinds(audit(evidence_of(quiz, course)))
    [skip] = [fact for fact in facts if isinstance(fact, f.QuestionSkipped)]
    closed = [f.QuestionClosed(skip.seq, skip.at, 1) if fact is skip else fact for fact in facts]
    unskipped = replace(evidence_of(quiz, facts), facts=closed)
    assert kinds(audit(unskipped)) == {"standing"}


def test_results_that_are_not_those_of_the_answers_are_found() -> None:
    quiz, facts = one_session()
    evidence = evidence_of(quiz, facts)
    first = evidence.results[0]
    for results in (evidence.results[1:], [first._replace(score=1), *evidence.results[1:]]):
        [found] = audit(replace(evidence, results=results))
        assert (found.kind, found.player) == ("standing", first.player)


def test_corrections_that_do_not_hold_are_found() -> None:
    quiz, facts = one_session()
    done = corrected_by(quiz, facts, [(1, {"correct": "a"}), (3, {"correct": False})])
    good = evidence_of(quiz, facts, done)
    assert audit(good) == []
    assert kinds(audit(replace(good, corrected_marks={}))) == {"corrected"}
    assert kinds(audit(replace(good, corrections=[]))) == {"corrected", "standing"}
    first, second = good.corrections
    assert "correction" in kinds(audit(replace(good, corrections=[second, first])))
    wrong = replace(first, old_key={"correct": "c"})
    assert kinds(audit(replace(good, corrections=[wrong, second]))) == {"correction"}
    assert changed(marks(quiz, facts), facts) == {}
