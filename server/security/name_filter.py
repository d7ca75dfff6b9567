"""The tables against which names are held, from the packages that keep them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackagePath, files
from string import ascii_uppercase

import orjson

from engine.domain.name_rules import NameRules

LANGUAGES: Mapping[str, str] = {
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "nb": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
}
"""Those whose list can be used. That of Turkish calls everyday words and first names swearwords."""


@cache
def load_name_rules() -> NameRules:
    """Takes some 50 ms, once. Only the packages' data are read: their own search costs a thousand times as
    much."""
    return NameRules(_skeletons(), _words())


def _words() -> dict[str, list[str]]:
    lists = _files("glin-profanity", "dictionaries")
    return {
        language: orjson.loads(lists[f"{name}.json"].read_binary())["words"]
        for language, name in LANGUAGES.items()
    }


def _skeletons() -> dict[int, str]:
    """One stand-in for all characters that can be taken for each other: the ASCII letter or digit among them,
    if there is one, small before large.

    Sequences that look like one character (rn and m) are left out: Marnie and Mamie are two people.
    """
    data = _files("confusable-homoglyphs", "confusable_homoglyphs")["confusables.json"].read_binary()
    found: Mapping[str, list[Mapping[str, str]]] = orjson.loads(data)
    leader: dict[str, str] = {}

    def leading(char: str) -> str:
        while (above := leader.get(char, char)) != char:
            char = above
        return char

    for char, others in found.items():
        for other in (each["c"] for each in others):
            if len(char) == len(other) == 1:
                first, second = sorted((leading(char), leading(other)), key=_rank)
                leader[second] = first
    skeletons = {ord(char): leading(char) for char in leader if leading(char) != char}
    return skeletons | _letters_of_another_shape()


_SHAPES = (
    "LATIN LETTER SMALL CAPITAL",
    "NEGATIVE CIRCLED LATIN CAPITAL LETTER",
    "NEGATIVE SQUARED LATIN CAPITAL LETTER",
)


def _letters_of_another_shape() -> dict[int, str]:
    """Small capitals, and capitals in filled circles and squares. Neither the package nor Unicode's normal
    forms take them for letters."""
    shapes: dict[int, str] = {}
    for letter in ascii_uppercase:
        for shape in _SHAPES:
            with suppress(KeyError):  # there is no small capital Q or X
                shapes[ord(unicodedata.lookup(f"{shape} {letter}"))] = letter.lower()
    return shapes


def _rank(char: str) -> tuple[bool, bool, str]:
    return not char.isascii(), not char.isalpha(), char.swapcase()


def _files(package: str, folder: str) -> dict[str, PackagePath]:
    """Those of an installed package, found without importing it, by their names."""
    return {path.name: path for path in files(package) or () if path.parent.name == folder}
