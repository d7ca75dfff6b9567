from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.domain.errors import DomainError
from engine.domain.text import clean_answer, clean_name, fold

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
NASTY = st.text(
    st.sampled_from(
        "aéیر\u094dक\u200c"
        " \u0301\u0302\u200d\u200e\u202e\u2066\u2069\ufe0f\u20e3\x00\n\t\u3164\ud800👩💻🏴\U000e0067🏽1"
    ),
    max_size=40,
)

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Ada", "Ada"),
        ("  Ada \t\n Lovelace ", "Ada Lovelace"),
        ("A\u00a0da", "A da"),
        ("Jose\u0301", "José"),
        ("a\x00b\x1bc", "abc"),
        ("\u202eevil\u202c", "evil"),
        ("a\u2066b\u2069\u200ec\u061c", "abc"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("a\u200db", "ab"),
        ("\u0301\u0302Ada", "Ada"),
        ("Ada\u3164", "Ada"),
        ("\ud800Ada", "Ada"),
        (f"We {FAMILY}", f"We {FAMILY}"),
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),
        ("1\ufe0f\u20e3", "1\ufe0f\u20e3"),
        (f"{ENGLAND}!", f"{ENGLAND}!"),
        ("\U0001f3f4\U000e0061\U000e0062", "\U0001f3f4"),
        ("\U0001f3fd", "\U0001f3fd"),
        ("नमस्ते", "नमस्ते"),
        ("ကြွေးကျော်", "ကြွေးကျော်"),
        ("ครูใหญ่", "ครูใหญ่"),
    ],
)
def test_names_are_cleaned(raw: str, name: str) -> None:
    assert clean_name(raw) == name


def test_a_wall_of_accents_is_cut_down() -> None:
    assert clean_name("z" + "\u0335\u0336\u0337\u0338" * 20) == "z\u0335\u0336\u0337\u0338"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("", "name_invalid"),
        ("   ", "name_invalid"),
        ("\u202e\u200b\x00", "name_invalid"),
        ("\u3164\u2800", "name_invalid"),
        ("\ufe0f", "name_invalid"),
        ("\u0301", "name_invalid"),
        (None, "name_invalid"),
        (7, "name_invalid"),
        (True, "name_invalid"),
        (["Ada"], "name_invalid"),
        ("x" * 33, "name_too_long"),
        ("ü" * 33, "name_too_long"),
        (" " * 201, "name_too_long"),
        ("x" * 10_000_000, "name_too_long"),
    ],
)
def test_names_that_cannot_be(raw: object, code: str) -> None:
    with pytest.raises(DomainError) as caught:
        clean_name(raw)
    assert (caught.value.code, caught.value.path) == (code, "name")


def test_32_characters_are_allowed_however_many_blanks_surround_them() -> None:
    assert clean_name(" " * 60 + "x" * 32 + " " * 60) == "x" * 32


@given(st.one_of(ANY_TEXT, NASTY))
@example(ENGLAND)
@example(f"{FAMILY}\u200d")
def test_a_name_never_hides_anything(raw: str) -> None:
    try:
        name = clean_name(raw)
    except DomainError:
        return
    assert 1 <= len(name) <= 32
    assert name == name.strip()
    assert clean_name(name) == name
    name.encode()
    for char in name.replace(ENGLAND, ""):
        assert unicodedata.category(char) not in ("Cc", "Cs", "Co", "Zl", "Zp")
        assert char in "\u200c\u200d" or unicodedata.category(char) != "Cf"
        assert unicodedata.bidirectional(char) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("São Paulo", "sao paulo"),
        ("STRASSE", "straße"),
        ("  new   york ", "New York"),
        ("L\u2019Aquila", "l'aquila"),
        ("l\u00b4aquila", "l'aquila"),
        ("Jean\u2011Luc", "jean-luc"),
        ("Øster Łódź", "oster lodz"),
        ("İstanbul", "istanbul"),
        ("Ελλάδα", "ελλαδα"),
        ("ΟΔΟΣ", "οδος"),
        ("\uff46\uff55\uff4c\uff4c", "full"),
        ("Pa\u200bris\x00", "paris"),
        ("\u0643\u064e\u062a", "\u0643\u062a"),
        ("Cafe\u0301", "Café"),
    ],
)
def test_spellings_that_count_as_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("か", "が"), ("कि", "कु"), ("newyork", "new york"), ("ab", "abc"), ("1.5", "15"), ("👍🏽", "👍🏿")],
)
def test_spellings_that_do_not(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.one_of(ANY_TEXT, NASTY))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.one_of(ANY_TEXT, NASTY))
def test_a_typed_answer_can_be_stored_and_folds_like_what_was_typed(raw: str) -> None:
    kept = clean_answer(raw)
    kept.encode()
    assert "\x00" not in kept
    assert clean_answer(kept) == kept
    assert fold(kept) == fold(raw)
