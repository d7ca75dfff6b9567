"""The bots' ledgers: what is written down, and which disagreements with the results are found."""

from __future__ import annotations

import pytest

from loadtest.runs.ledger import (
    Ledger,
    StoredResult,
    compare,
    percentile_ms,
    read_results,
    tally,
)
from tests.loadtest.scripted import Message, result


def acknowledged(question: int, elapsed_ms: int = 1000, status: str = "accepted") -> Message:
    return {"t": "ack", "id": "1", "question": question, "status": status, "elapsed_ms": elapsed_ms}


def ledger() -> Ledger:
    """Two answers, one of them right, heard to the end."""
    book = Ledger("Ada 1", player=7)
    for question in (1, 2):
        book.sent(question)
        book.acked(acknowledged(question), 0.010 * question)
    book.result(result(1, 950, 950))
    book.result(result(2, 0, 950, correct=False))
    book.final = (950, 3)
    return book


def row(**changes: int) -> StoredResult:
    values = {"rank": 3, "player": 7, "score": 950, "correct": 1, "answered": 2, "elapsed_ms": 2000} | changes
    return StoredResult(name="Ada 1", **values)


def told(book: Ledger, *stored: StoredResult) -> list[str]:
    return [mismatch.what for mismatch in compare([book], stored)]


def test_equal_ledgers_have_no_mismatch() -> None:
    assert compare([ledger()], [row(), StoredResult(1, 8, "A human", 5000, 2, 2, 900)]) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"answered": 1}, ["answers"]),
        ({"answered": 3}, ["answers"]),
        ({"score": 949}, ["score", "sum of points"]),
        ({"rank": 2}, ["rank"]),
        ({"correct": 2}, ["right answers"]),
        ({"elapsed_ms": 1999}, ["answering time"]),
        ({"player": 9}, ["player in the results"]),
    ],
)
def test_every_column_is_compared(change: dict[str, int], what: list[str]) -> None:
    assert told(ledger(), row(**change)) == what


def test_a_mismatch_names_the_bot_and_both_sides() -> None:
    (mismatch,) = compare([ledger()], [row(rank=2)])
    assert str(mismatch) == "Ada 1: rank: told 3, stored 2"


def test_an_answer_without_an_ack_may_or_may_not_be_stored() -> None:
    book = ledger()
    book.sent(3)
    assert told(book, row()) == []
    assert told(book, row(answered=3, elapsed_ms=2500)) == []
    assert told(book, row(answered=4, elapsed_ms=2500)) == ["answers"]


def test_an_acknowledged_answer_must_be_stored_whatever_else_was_missed() -> None:
    book = ledger()
    book.final = None
    book.sent(3)
    assert told(book, row(answered=1)) == ["answers"]


def test_a_result_that_was_missed_is_no_contradiction_but_the_final_score_is_compared() -> None:
    book = ledger()
    del book.told[1]
    assert book.unheard == 1
    assert told(book, row()) == []
    assert told(book, row(score=900)) == ["score"]


def test_points_beyond_the_stored_score_are_a_contradiction_even_if_the_end_was_missed() -> None:
    book = ledger()
    book.final = None
    assert told(book, row(score=1200)) == []
    assert told(book, row(score=900)) == ["score, not heard to the end", "sum of points, not all heard"]


def test_points_must_add_up_to_the_score() -> None:
    book = ledger()
    book.final = (1000, 3)
    assert told(book, row(score=1000)) == ["sum of points"]


def test_the_same_ack_again_is_fine_and_another_is_a_fault() -> None:
    book = ledger()
    book.acked(acknowledged(1), 0.01)
    assert book.faults == []
    book.acked(acknowledged(1, elapsed_ms=1001), 0.01)
    assert told(book, row()) == [
        "question 1: two acks for one answer, Ack(status='accepted', elapsed_ms=1000) and "
        "Ack(status='accepted', elapsed_ms=1001)"
    ]


def test_duplicate_is_a_fault_for_who_never_changes_an_answer() -> None:
    book = Ledger("Ada 1")
    book.acked(acknowledged(1, status="duplicate"), 0.01)
    assert book.faults == ["question 1: `duplicate` for an answer that never changed"]


def test_a_refusal_or_an_empty_result_after_an_ack_is_a_fault() -> None:
    book = ledger()
    book.refuse(1, "late")
    assert book.faults == ["question 1: `late` after it was acknowledged"]
    book = Ledger("Ada 1")
    book.acked(acknowledged(1), 0.01)
    book.result(result(1, 0, 0, correct=None))
    assert book.faults == ["question 1: acknowledged, but the result knows no answer"]


def test_two_different_results_are_a_fault_unless_the_session_was_restored_between() -> None:
    book = Ledger("Ada 1")
    book.sent(1)
    book.result(result(1, 950, 950))
    book.restored()
    book.result(result(1, 900, 900))
    assert book.faults == []
    assert book.told[1].points == 900
    book.result(result(1, 800, 800))
    assert len(book.faults) == 1


def test_restoring_keeps_what_was_acknowledged() -> None:
    book = ledger()
    book.restored()
    assert sum(told.points for told in book.told.values()) == 950


def twice() -> Ledger:
    """Two attempts of two questions; the second attempt is the better one."""
    book = Ledger("Ada 1", player=7)
    for attempt, points in ((1, 500), (2, 900)):
        for question in (1, 2):
            scored = points if question == 1 else 0
            told = result(question, scored, points, correct=question == 1)
            book.acked(acknowledged(question, 1000 * attempt) | {"result": told}, 0.01, attempt)
        book.through({"score": points, "review": None, "attempt": attempt})
    return book


def test_of_several_attempts_the_best_is_held_against_the_results() -> None:
    second = row(score=900, correct=1, answered=2, elapsed_ms=4000)
    assert compare([twice()], [second]) == []
    assert told(twice(), row(score=500, elapsed_ms=2000)) == ["score"]
    assert told(twice(), row(score=900, elapsed_ms=2000)) != []
    assert told(twice(), row(score=900, answered=4, elapsed_ms=6000)) != []
    book = twice()
    book.acked(acknowledged(1, 2001), 0.01, 2)
    assert compare([book], [second])[0].what.startswith("question 1 of attempt 2: two acks")


def test_the_review_at_the_end_is_held_against_what_was_told_before() -> None:
    book = twice()
    reviewed = [result(1, 900, 900), result(2, 100, 900, correct=True)]
    book.through({"score": 900, "review": reviewed, "attempt": 2})
    assert [fault.partition(":")[0] for fault in book.faults] == ["question 2 of attempt 2"]


def test_an_answer_refused_before_a_restart_may_be_accepted_after_it() -> None:
    book = Ledger("Ada 1")
    book.sent(1)
    book.refuse(1, "wrong_question")
    book.acked(acknowledged(1), 0.01)
    assert (book.faults, book.refused) == ([], {})


def test_tally_adds_up() -> None:
    late = Ledger("Björn 2", player=8)
    late.sent(2)
    late.refuse(2, "late")
    late.sent(3)
    never_in = Ledger("Chloé 3")
    added = tally([ledger(), late, never_in])
    assert (added.players, added.answered, added.score, added.refused, added.unsettled) == (2, 2, 950, 1, 1)
    assert (added.ack_p50_ms, added.ack_p99_ms) == (10.0, 20.0)
    assert tally([never_in]).ack_p50_ms is None


def test_percentiles_take_a_value_that_occurred() -> None:
    values = [each / 1000 for each in range(1, 101)]
    assert percentile_ms(values, 0.50) == 50
    assert percentile_ms(values, 0.99) == 99
    assert percentile_ms([0.004], 0.99) == 4
    assert percentile_ms([], 0.5) is None


def test_results_are_read_from_csv_with_any_name_in_it() -> None:
    text = (
        "rank,player,name,score,correct,answered,elapsed_ms\r\n"
        '1,2,"Ada ""the, quick""\nLovelace",1900,2,2,2100\r\n'
        "2,1,'=SUM(A1),0,0,0,0\r\n"
    )
    first, second = read_results(text)
    assert first == StoredResult(1, 2, 'Ada "the, quick"\nLovelace', 1900, 2, 2, 2100)
    assert second.name == "'=SUM(A1)"


@pytest.mark.parametrize(
    "text", ["", "rank,player\n1,2\n", "rank,player,name,score,correct,answered,elapsed_ms\n1,x,y,1,1,1,1\n"]
)
def test_other_csv_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"columns|invalid literal"):
        read_results(text)
