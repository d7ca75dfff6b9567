"""The names that a session gives to its players."""

from __future__ import annotations

import pytest

from engine.domain.errors import Refusal
from engine.domain.facts import PlayerJoined
from engine.domain.generated_names import PAIRS, given_name
from engine.domain.session import Session
from engine.domain.text import clean_name, fold
from tests.domain.making import CREATED_AT, quiz_of, session_of, singles


@pytest.mark.parametrize("language", ["en", "de"])
def test_all_are_different_and_names_that_could_have_been_chosen(language: str) -> None:
    count = 4 * PAIRS
    names = [given_name(number, language) for number in range(1, count + 1)]
    assert len({fold(name) for name in names}) == count
    assert [clean_name(name) for name in names] == names
    assert not any(char.isdigit() for name in names[:PAIRS] for char in name)
    assert all(name.endswith(" 2") for name in names[PAIRS : 2 * PAIRS])
    assert PAIRS > 4_000


def test_the_language_of_the_quiz_decides() -> None:
    assert given_name(1, "en") == given_name(1, "pt-BR") == "Brave Otter"
    assert given_name(1, "de") == given_name(1, "de-AT") == "Mutiger Otter"


def named(session: Session, name: object) -> str:
    joined = session.join(name, CREATED_AT)
    assert isinstance(joined, PlayerJoined)
    return joined.name


def test_where_names_are_given_a_sent_one_is_ignored() -> None:
    session = session_of(names="given", quiz=quiz_of(*singles(1), language="de-CH"))
    assert [named(session, name) for name in (None, "Ada", 7, "")] == [
        "Mutiger Otter",
        "Kluger Fuchs",
        "Sonniger Dachs",
        "Sanfter Biber",
    ]


def test_where_names_are_chosen_one_is_needed() -> None:
    refusal = session_of().join(None, CREATED_AT)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "missing_field"
