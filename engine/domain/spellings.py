"""When two spellings of an answer count as the same.

How to think about it: a spelling has one form or several, and two spellings are the same if they share one.
Several, because being the same does not pass on: *e-mail* is as good as *email* and as *e mail*, and yet
*newyork* is not New York. So a hyphen leaves two forms, one with a blank and one with nothing in its place.

The differences that are folded away are those that a person who knows the answer may type by habit, keyboard
or script. docs/quizzes.md lists them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal

from engine.domain.text import EMOJI_STYLE, FLAG, INVISIBLE_MARKS, SHAPES, clean_answer, fold

Match = Literal["loose", "spelling", "exact"]

MATCHES: Final[tuple[Match, ...]] = ("loose", "spelling", "exact")

FOLDINGS: Final = 2
"""The version of `loose`. A session keeps the version that it was opened with, so that all answers to it are
judged alike. Version 1 folded accents, case, blanks and the shapes of quotes and hyphens only."""

_KEYBOARDS: Final = str.maketrans(
    {"\u06a9": "\u0643", "\u06aa": "\u0643", "\u06cc": "\u064a", "\u0640": None, "\u2044": "/"}
)
"""Kaf and yeh as Persian and Urdu keyboards have them, the Arabic stroke that only fills the line, and the
slash that Unicode puts into fractions."""

_LOOSE: Final = str.maketrans(
    {
        **dict.fromkeys("\u0649\u06d0", "\u064a"),
        **dict.fromkeys("\u0629\u06c1\u06c3\u06d5", "\u0647"),
        "\u0671": "\u0627",
        **dict.fromkeys("\u02bb\u02bd\u02be\u02bf\u02c8\u055a\u05f3\ua78b\ua78c\u2035", "'"),
        **dict.fromkeys('"\u05f4\u00ab\u00bb\u2039\u203a\u201f\u300c\u300d\u300e\u300f\u300a\u300b', None),
        **dict.fromkeys("\u05be\u058a\u2015\u00b7\u2027\u30fb", "-"),
    }
)
"""Yeh without dots, teh marbuta and the hehs of other languages, alef wasla; apostrophes; quotation marks;
hyphens, and the dots between the parts of a name in Japanese and Catalan."""

_POINTS: Final = range(10, 37)
"""Combining classes of Hebrew and Arabic points, which are hardly ever typed."""

_DIGIT: Final = re.compile(r"[^\W\D0-9]")
_NON_JOINER: Final = re.compile("(?<=[\u0610-\u06ff])\u200c(?=[\u0620-\u063f\u0641-\u064a\u066e-\u06d3])")
"""Between two letters, where `clean_answer` has left it."""
_OPENING: Final = "\u00bf\u00a1 "
_FINAL: Final = ".!?\u2026\u3002\u061f\u06d4\u0964\u0965\u0589\u055c\u055e "
_PLAIN: Final = re.compile(r"[A-Za-z0-9 ]+")

_INITIALS: Final = re.compile(r"(?<=\b[^\W\d_]\.) (?=[^\W\d_]\.)")
_AFTER_WORDS: Final = re.compile(r"[.,](?=\s|$)")
_BETWEEN_DIGITS: Final = re.compile(r"(?<=\d)-(?=\d)|(?<=\s)-+(?=\s)")
_HYPHEN: Final = re.compile(r"(?<=\S)-(?=\S)")
_DOT: Final = re.compile(r"(?<=\S)\.(?=[^\s\d])|(?<=[^\s\d])\.(?=\d)")
_APOSTROPHE: Final = re.compile(r"(?<!\d)'|'(?!\d)")
_EITHER: Final = (_APOSTROPHE, _HYPHEN, _DOT)
"""What may be left out, or be a blank."""


@lru_cache(maxsize=1024)  # players type the same
def forms(text: str, match: Match = "loose", foldings: int = FOLDINGS) -> frozenset[str]:
    """The forms of a spelling. Each is empty only if the text has nothing visible.

    Args:
        match: `loose` as people accept it; `spelling`: accents, hyphens and the like must be right;
            `exact`: case as well.
        foldings: the version of `loose`.
    """
    if match == "exact":
        return frozenset([_exact(text)])
    if match == "spelling":
        return frozenset([_spelling(text)])
    if foldings == 1:
        return frozenset([fold(text)])
    if _PLAIN.fullmatch(text):
        return frozenset([fold(text)])
    return _loose(text)


def _loose(text: str) -> frozenset[str]:
    if "\u200c" in text:
        text = _NON_JOINER.sub("-", clean_answer(text))
    plain = fold(FLAG.sub(_flag_spelt, text))
    whole = _digits(plain.translate(_KEYBOARDS).translate(_LOOSE))
    whole = _INITIALS.sub("", whole).lstrip(_OPENING).rstrip(_FINAL)
    whole = _BETWEEN_DIGITS.sub(" ", _AFTER_WORDS.sub("", whole))
    found = {whole}
    for sign in _EITHER:
        if sign.search(whole):
            found = {sign.sub(instead, form) for form in found for instead in ("", " ")}
    found = {" ".join(form.split()) for form in found}
    # An answer may well be a sign that is left out in others, as in: which mark ends a question?
    return frozenset([plain]) if "" in found else frozenset(found)


def _spelling(text: str) -> str:
    plain = unicodedata.normalize("NFKC", _exact(text).replace("\u0130", "i"))
    lower = unicodedata.normalize("NFKC", plain.lower())
    bare = "".join(char for char in lower if unicodedata.combining(char) not in _POINTS)
    whole = " ".join(_digits(bare.translate(_KEYBOARDS)).split())
    return whole.lstrip(_OPENING).rstrip(_FINAL) or whole


def _exact(text: str) -> str:
    kept = clean_answer(text).translate(SHAPES)
    return "".join(char for char in kept if char not in INVISIBLE_MARKS and char != EMOJI_STYLE)


def _digits(text: str) -> str:
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)


def _flag_spelt(found: re.Match[str]) -> str:
    """A flag with its tags as letters, which are not passed over."""
    flag = found[0]
    return flag[0] + "".join(chr(ord(tag) - 0xE0000) for tag in flag[1:-1])
