"""What typed answers are judged: the table in answers.txt, and what must hold for all others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import Refusal
from engine.domain.spellings import forms
from engine.domain.text import clean_answer, fold
from tests.domain.making import question_of
from tests.domain.test_text import ANY_TEXT, NASTY
from tests.typed.table import rows

ROWS = list(rows("answers.txt", 5))
SIGNS = st.text(
    "aB1é .,-\u2013'\u02bb\"!?\u00bf\u00b7\u0640\u06a9\u064a\u200c\u0967\u2026\u0307\u0130\u1e9e", max_size=12
)
TEXTS = st.one_of(ANY_TEXT, NASTY, SIGNS)
MATCHES = st.sampled_from(["loose", "spelling", "exact"])


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(ROWS) >= 150
    assert len({tuple(row[:3]) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("match", "accepted", "typed", "judged", "why"), ROWS, ids=[f"{row[1]}:{row[2]}" for row in ROWS]
)
def test_what_is_typed_is_judged(match: str, accepted: str, typed: str, judged: str, why: str) -> None:
    question = question_of(type="text", accept=accepted.split(" / "), match=match)
    read = question.read(typed)
    assert not isinstance(read, Refusal)
    assert question.judge(read) == {"right": True, "wrong": False}[judged], why


@given(TEXTS, MATCHES)
def test_what_is_kept_is_judged_as_what_was_typed(raw: str, match: str) -> None:
    assert forms(clean_answer(raw), match) == forms(raw, match)  # type: ignore[arg-type]


@given(TEXTS)
def test_whoever_types_what_is_accepted_is_right(text: str) -> None:
    """And is by `loose` whatever satisfies the others."""
    for other in (text, text.upper(), f"{text}\u200b"):
        for match in ("spelling", "exact"):
            if forms(text, match) == forms(other, match):  # type: ignore[arg-type]
                assert forms(text) & forms(other)


@given(TEXTS)
def test_what_was_the_same_by_the_older_foldings_is_the_same(text: str) -> None:
    for other in (fold(text), text.upper()):
        if forms(text, "loose", 1) == forms(other, "loose", 1):
            assert forms(text) & forms(other)


@given(TEXTS, MATCHES)
def test_a_form_is_empty_only_if_nothing_can_be_seen(text: str, match: str) -> None:
    found = forms(text, match)  # type: ignore[arg-type]
    assert found
    assert "" not in found or found == {""}
    if match == "loose":
        assert ("" in found) == (not fold(text))
