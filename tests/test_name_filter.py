# ruff: noqa: RUF001 - letters that look like others are what this is about
"""Names held against the tables of the packages that keep them."""

from __future__ import annotations

import pytest

from engine.domain.generated_names import PAIRS, given_name
from engine.domain.name_rules import PLAIN
from engine.domain.text import clean_name, fold
from loadtest.bots.bot import _NAMES
from loadtest.runs.ledger import Ledger
from server.security.name_filter import LANGUAGES, load_name_rules

RULES = load_name_rules()


def refused(name: str, language: str = "en") -> bool:
    return RULES.refuses(fold(name), RULES.skeleton(name), language)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_no_number_is_a_swearword(language: str) -> None:
    """Though 455 and 717 look like some."""
    numbers = (*range(2_000), 7_175, 45_500, 71_717, 806_455)
    assert [number for number in numbers if refused(f"Team {number}", language)] == []
    assert [number for number in numbers if refused(f"{number}", language)] == []
    for name in ("P", "Player", "player-", "team_", "5a-"):
        assert [number for number in numbers if refused(f"{name}{number}", language)] == []


@pytest.mark.parametrize("name", ["a55", "4ss", "@55", "A$$", "t17s", "Team 455 a55"])
def test_digits_may_stand_for_letters(name: str) -> None:
    assert refused(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Dick",
            "Cockburn",
            "Scunthorpe",
            "Penistone",
            "Hancock",
            "Dickens",
            "Cumming",
            "Cumberbatch",
            "Hooker",
        ),
        *("Assad", "Fatma", "Fatima", "Phuc", "Nguyễn Phúc", "Dong", "Wang", "Xi", "Shitake", "Matsushita"),
        *(
            "Essex",
            "Sussex",
            "Niger",
            "Titus",
            "Analise",
            "Bassam",
            "Kant",
            "Fuchs",
            "Wankel",
            "Schmuck",
            "Gay",
        ),
        *(
            "Anita",
            "Peter",
            "Regina",
            "Rosette",
            "Marica",
            "Mona",
            "Pinto",
            "Brad Pitt",
            "Concha",
            "Pelé",
            "Reva",
        ),
        *(
            "Hostetter",
            "Madmin",
            "Ghost",
            "Modesty",
            "Ruth",
            "Mia Con Dios",
            "Team 69",
            "Ada Lovelace",
            "Zoë 🎺",
        ),
        *("王芳", "محمد", "Ольга", "Σωκράτης", "さくら", "김민준", "दीपिका", "B2B", "007"),
    ],
)
@pytest.mark.parametrize("language", ["en", "de-AT", "fr", "es", "it", "nl", "pt-BR", "tr", "xx"])
def test_people_may_have_their_names(name: str, language: str) -> None:
    assert not refused(name, language)


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(
            ("fuck", "en"),
            ("FuCk", "de"),
            ("f.u.c.k", "en"),
            ("f u c k", "fr"),
            ("fuuuuck", "en"),
            ("xXfuckXx", "en"),
        ),
        *(
            ("sh1t", "en"),
            ("$h!t", "en"),
            ("ѕhіt", "en"),
            ("𝖘𝖍𝖎𝖙", "en"),
            ("son of a b1tch", "en"),
            ("N1gger", "es"),
        ),
        *(
            ("Arschloch", "en"),
            ("A r s c h l o c h", "de"),
            ("scheiße", "de"),
            ("SCHEISSE", "fr"),
            ("Ficken", "de"),
        ),
        *(
            ("putain", "fr"),
            ("fils de pute", "fr"),
            ("Hijo de  Puta", "es"),
            ("gilipollas", "es"),
            ("mierda", "it"),
        ),
        *(
            ("cazzo", "it"),
            ("stronzo", "en"),
            ("kurwa", "pl"),
            ("Kurwa", "en"),
            ("caralho", "pt"),
            ("klootzak", "nl"),
        ),
    ],
)
def test_swearwords_are_no_names(name: str, language: str) -> None:
    assert refused(name, language)


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "HOST!!", "★ host ★", "Ноst", "H0st", "Admin", "4dmin", "Admin 1", "Мoderator"),
        *("The Host", "ʜᴏꜱᴛ", "🅷🅾🆂🆃"),
    ],
)
def test_nobody_looks_as_if_they_led(name: str) -> None:
    assert refused(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna", "Аnnа"),
        ("Anna", "𝔄nna"),
        ("Ian", "lan"),
        ("Zoë", "Zoe"),
        ("BOB", "b0b"),
        ("Alice", "A1ice"),
        ("Max", "Μах"),
        ("Ada", "ᴀᴅᴀ"),
        ("Ada", "🅰🅳🅰"),
    ],
)
def test_names_that_look_alike(one: str, other: str) -> None:
    assert one != other
    assert RULES.skeleton(one) == RULES.skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ian", "Lan"),
        ("Marnie", "Mamie"),
        ("Anna 1", "Anna 2"),
        ("Team 10", "Team 01"),
        ("Eva", "Eve"),
        ("🎺", "🎻"),
    ],
)
def test_names_that_do_not(one: str, other: str) -> None:
    assert RULES.skeleton(one) != RULES.skeleton(other)


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_names_that_a_session_gives_are_all_different(language: str) -> None:
    names = [given_name(number, language) for number in range(1, 2 * PAIRS, 7)]
    assert len({RULES.skeleton(name) for name in names}) == len(names)
    assert not any(refused(name, language) for name in names)


def test_there_are_words_of_every_language() -> None:
    assert {"en", "de", "fr", "es", "it", "nl", "pl", "pt"} <= set(LANGUAGES)
    for language in LANGUAGES:
        assert len(RULES._words[language]) > 20 + (0 if language == "en" else len(RULES._everywhere)) - 20
    assert not PLAIN.refuses("fuck", "fuck", "en"), "without tables nothing is known"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian: the half-space
        ("\u200cعلی\u200c", "علی"),
        ("شری\u0650\u200cف", "شری\u0650\u200cف"),
        ("ক্\u200dষ", "ক্\u200dষ"),  # Bengali, behind a virama
        ("ന്\u200d", "ന്\u200d"),  # Malayalam: a letter of its own, at the end of a word
        ("Ad\u200ca", "Ada"),
        ("A\u200dda", "Ada"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("👩\u200c🚀", "👩🚀"),
        ("علی\u200c\u200cرضا", "علی\u200cرضا"),
    ],
)
def test_joiners_stay_where_a_script_needs_them(raw: str, kept: str) -> None:
    assert clean_name(raw) == kept
    assert fold(kept).replace("\u200c", "").replace("\u200d", "") == fold(kept)


def test_bots_are_let_in() -> None:
    """By names that differ for everybody else as well."""
    names = [Ledger(f"{word} {number}").name for number in range(1, 400) for word in _NAMES]
    assert len({RULES.skeleton(name) for name in names}) == len(set(names))
    assert not any(refused(name) for name in names)
