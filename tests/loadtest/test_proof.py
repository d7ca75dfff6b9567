"""The proof holds for ledgers that agree, and finds every way in which they can not."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from loadtest.chaos.proof import sums_that_differ
from loadtest.runs.attempts import numbered
from loadtest.runs.ledger import StoredResult
from loadtest.runs.proof import Proof, StoredAnswer, StoredSession, Verdict, prove, top_of
from loadtest.swarm.compact_ledger import CompactLedger, coded, lines, read

Case = tuple[list[CompactLedger], dict[int, StoredSession]]


def agreeing() -> Case:
    """Two players and two questions; Ben was wrong once, and silent once."""
    results = [
        StoredResult(rank=1, player=1, name="Ada", score=1900, correct=2, answered=2, elapsed_ms=3000),
        StoredResult(rank=2, player=2, name="Ben", score=0, correct=0, answered=1, elapsed_ms=5000),
    ]
    answers = [
        StoredAnswer(1, 1, 1000, True, 975),
        StoredAnswer(1, 2, 2000, True, 925),
        StoredAnswer(2, 1, 5000, False, 0),
    ]
    top = top_of(results)
    ada = CompactLedger(
        0,
        "Ada",
        player=1,
        acks={1: 1000, 2: 2000},
        results={1: coded(True, 975), 2: coded(True, 925)},
        score=1900,
        final=(1, 1900),
        top=top,
        ended="finished",
    )
    ben = CompactLedger(
        0,
        "Ben",
        player=2,
        acks={1: 5000},
        results={1: coded(False, 0), 2: coded(None, 0)},
        final=(2, 0),
        top=top,
        ended="finished",
    )
    return [ada, ben], {0: StoredSession(results, answers)}


def test_ledgers_that_agree_are_proven() -> None:
    ledgers, stored = agreeing()
    verdict = prove(ledgers, stored)
    assert verdict.holds
    assert (verdict.players, verdict.acks, verdict.rows, verdict.boards) == (2, 3, 3, 2)


def test_ledgers_that_were_a_file_agree_as_well() -> None:
    ledgers, stored = agreeing()
    assert list(read(list(lines(ledgers)))) != ledgers  # they are told apart by identity
    assert prove(read(list(lines(ledgers))), stored).holds


def answers(stored: dict[int, StoredSession]) -> list[StoredAnswer]:
    found = stored[0].answers
    assert isinstance(found, list)
    return found


def results(stored: dict[int, StoredSession]) -> list[StoredResult]:
    found = stored[0].results
    assert isinstance(found, list)
    return found


def lost_row(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    del answers(stored)[1]


def second_row(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    answers(stored).append(answers(stored)[0])


def ack_for_nothing(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[1].acks[2] = 77


def row_never_sent(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    answers(stored).append(StoredAnswer(2, 2, 100, True, 1000))


def row_that_was_refused(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    answers(stored).append(StoredAnswer(2, 2, 100, False, 0))
    ledgers[1].refused[2] = "late"


def other_time(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[0].acks[1] += 1


def other_points(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    answers(stored)[0] = answers(stored)[0]._replace(points=974)


def other_verdict(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    answers(stored)[2] = answers(stored)[2]._replace(correct=True)


def other_score(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[0].final = (1, 1899)


def other_rank(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[1].final = (1, 0)


def other_board(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[1].top = deepcopy(ledgers[1].top)
    assert ledgers[1].top is not None
    ledgers[1].top[0]["score"] = 975


def no_board(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[1].top = None


def more_in_results(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    results(stored)[1] = replace(results(stored)[1], answered=2)


def other_sum(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    results(stored)[0] = replace(results(stored)[0], elapsed_ms=2999)


def gap(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[0].gaps.append((1, 4, 6))


def learned_early(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[0].early.append((0, 900))


def fault(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[0].faults.append("question 1: two results")


def left(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers[0].final, ledgers[0].ended = None, "unreachable"


def never_in(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers.append(CompactLedger(0, "Cem", ended="busy"))


def forgotten(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers.append(CompactLedger(0, "Cem", player=3, final=(3, 0), ended="finished"))


def nobodys(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    del ledgers[0]


def two_ledgers(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    ledgers.append(ledgers[0])


def lost_session(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> None:
    del stored[0]


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lost_row, "acknowledged, not stored"),
        (second_row, "stored twice"),
        (ack_for_nothing, "acknowledged, not stored"),
        (row_never_sent, "stored, never acknowledged"),
        (row_that_was_refused, "stored, never acknowledged"),
        (other_time, "answering time"),
        (other_points, "points of an answer"),
        (other_verdict, "points of an answer"),
        (other_score, "score or rank"),
        (other_rank, "score or rank"),
        (other_board, "last leaderboard"),
        (no_board, "last leaderboard"),
        (more_in_results, "number of answers"),
        (other_sum, "answering time"),
        (gap, "gap"),
        (fault, "contradicting messages"),
        (learned_early, "learned early"),
        (left, "left early"),
        (never_in, "never in"),
        (forgotten, "player not stored"),
        (nobodys, "stored, never sent"),
        (two_ledgers, "two ledgers"),
        (lost_session, "player not stored"),
    ],
)
def test_tampering_is_found(
    tamper: Callable[[list[CompactLedger], dict[int, StoredSession]], None], kind: str
) -> None:
    ledgers, stored = agreeing()
    tamper(ledgers, stored)
    verdict = prove(ledgers, stored)
    assert not verdict.holds
    assert kind in verdict.broken
    assert verdict.examples[kind]


@pytest.mark.parametrize("tamper", [ack_for_nothing, other_time, more_in_results, other_score, nobodys])
def test_without_rows_the_results_tell(
    tamper: Callable[[list[CompactLedger], dict[int, StoredSession]], None],
) -> None:
    ledgers, stored = agreeing()
    stored[0].answers = None
    assert prove(ledgers, stored).holds
    tamper(ledgers, stored)
    assert not prove(ledgers, stored).holds


def test_an_answer_without_an_ack_may_be_stored_or_not() -> None:
    ledgers, stored = agreeing()
    ledgers[1].unsettled.add(2)
    assert prove(ledgers, stored).holds
    del ledgers[0].acks[2]
    ledgers[0].unsettled.add(2)
    assert prove(ledgers, stored).holds


def test_one_who_joined_and_never_heard_of_it_is_nobodys_fault() -> None:
    ledgers, stored = agreeing()
    results(stored).append(
        StoredResult(rank=2, player=3, name="Ben 2", score=0, correct=0, answered=0, elapsed_ms=0)
    )
    ledgers[0].top = ledgers[1].top = top_of(results(stored))
    assert prove(ledgers, stored).holds


def verdict_on(ledgers: list[CompactLedger], stored: dict[int, StoredSession]) -> Verdict:
    """Where players may miss the end."""
    proof = Proof(stored, may_give_up=True)
    for each in ledgers:
        proof.take(each)
    return proof.verdict()


@pytest.mark.parametrize("ended", ["unreachable", "session_finished"])
def test_one_who_missed_the_end_is_held_to_what_it_was_told_until_then(ended: str) -> None:
    ledgers, stored = agreeing()
    ada = ledgers[0]
    ada.final, ada.ended, ada.top = None, ended, None
    del ada.acks[2]
    ada.unsettled.add(2)
    ada.results[2] = coded(True, 1)  # of an answer that was lost before it was acknowledged, and sent again
    ledgers.append(CompactLedger(0, "Cem", ended=ended))
    verdict = verdict_on(ledgers, stored)
    assert verdict.holds, verdict.broken
    assert verdict.gave_up == 2
    ada.acks[1] += 1
    del answers(stored)[2]
    assert set(verdict_on(ledgers, stored).broken) == {
        "answering time",
        "acknowledged, not stored",
        "points of an answer",
    }


@pytest.mark.parametrize("ended", [None, "kicked"])
def test_one_who_is_stuck_has_not_missed_the_end(ended: str | None) -> None:
    ledgers, stored = agreeing()
    ledgers[0].final, ledgers[0].ended = None, ended
    assert verdict_on(ledgers, stored).broken == {"left early": 1}


def test_results_that_are_not_the_sum_of_the_answers() -> None:
    _, stored = agreeing()
    assert sums_that_differ(stored[0]) == []
    results(stored)[0] = replace(results(stored)[0], score=1901)
    assert sums_that_differ(stored[0]) == ["player 1: results [1901, 2, 2, 3000], answers [1900, 2, 2, 3000]"]


def test_no_ledgers_prove_nothing() -> None:
    assert not prove([], {}).holds


def test_ledgers_find_what_contradicts_itself() -> None:
    ledgers = CompactLedger(0, "Ada", player=1)
    assert ledgers.acked(1, "accepted", 100)
    assert not ledgers.acked(1, "accepted", 100)
    assert ledgers.faults == []
    ledgers.acked(1, "accepted", 101)
    ledgers.acked(2, "duplicate", 100)
    ledgers.refuse(1, "late")
    ledgers.refuse(3, "late")
    ledgers.acked(3, "accepted", 5)
    ledgers.told(1, None, 0, 0)
    ledgers.told(4, True, 10, 10)
    ledgers.told(4, True, 11, 11)
    assert len(ledgers.faults) == 6


def test_only_where_a_spool_was_merged_a_later_owner_may_not_have_known_of_an_acknowledged_answer() -> None:
    ledgers, stored = agreeing()
    ada = ledgers[0]
    ada.results.clear()
    ada.told(1, True, 975, 975)
    ada.restored()
    ada.told(1, None, 0, 0)
    ada.told(2, None, 0, 0)
    ada.final = (1, 0)
    assert (ada.faults, ada.unmerged) == ([], {1, 2})
    assert set(prove(read(list(lines(ledgers))), stored).broken) == {
        "contradicting messages",
        "score or rank",
    }
    stored[0].merged = True
    assert prove(read(list(lines(ledgers))), stored).holds
    answers(stored).pop(1)
    assert set(prove(ledgers, stored).broken) == {"acknowledged, not stored"}


def test_after_a_merge_the_answer_that_came_first_stands_whatever_its_time() -> None:
    """The later owner had asked the question once more, and acknowledged a quicker answer."""
    ledgers, stored = agreeing()
    quicker = ledgers[0].acks[1] - 600
    ledgers[0].acks[1] = quicker
    stored[0].merged = True
    assert set(prove(ledgers, stored).broken) == {"answering time"}
    answers(stored)[0] = answers(stored)[0]._replace(merged=True)
    assert prove(ledgers, stored).holds


def with_attempts() -> Case:
    """Two attempts of Ada, of which the second is the better one; Ben as before."""
    ledgers, stored = agreeing()
    ada = ledgers[0]
    for question, points in ((1, 990), (2, 980)):
        number = numbered(question, 2)
        ada.acks[number], ada.results[number] = 500, coded(True, points)
        answers(stored).append(StoredAnswer(1, number, 500, True, points))
    ada.final = (1, 1970)
    results(stored)[0] = replace(results(stored)[0], score=1970, elapsed_ms=1000)
    top = top_of(results(stored))
    for ledger in ledgers:
        ledger.top = top
    return ledgers, stored


def test_the_results_are_those_of_the_best_attempt() -> None:
    ledgers, stored = with_attempts()
    assert prove(ledgers, stored).holds, prove(ledgers, stored).examples
    assert sums_that_differ(stored[0]) == []

    results(stored)[0] = replace(results(stored)[0], score=1900, elapsed_ms=3000)
    assert prove(ledgers, stored).broken.keys() == {"best attempt", "score or rank", "last leaderboard"}
    assert sums_that_differ(stored[0]) == ["player 1: results [1900, 2, 2, 3000], answers [1970, 2, 2, 1000]"]


def test_an_answer_of_each_attempt_has_to_be_stored() -> None:
    ledgers, stored = with_attempts()
    lost = answers(stored).pop()
    verdict = prove(ledgers, stored)
    assert verdict.examples["acknowledged, not stored"] == ["session 0, Ada: question 2 of attempt 2"]
    answers(stored)[1] = lost
    verdict = prove(ledgers, stored)
    assert verdict.examples["acknowledged, not stored"] == ["session 0, Ada: question 2"]


def test_a_result_that_no_attempt_has_is_found() -> None:
    ledgers, stored = with_attempts()
    results(stored)[0] = replace(results(stored)[0], elapsed_ms=1001)
    assert "answering time" in prove(ledgers, stored).broken
