"""Text that people type: names fit to show to everyone, and spellings that count as the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from engine.domain.errors import DomainError

NAME_MAX: Final = 32
NAME_RAW_MAX: Final = 200
MARKS_MAX: Final = 4
"""Stacked marks that a name keeps on a letter: Tibetan needs four, Hebrew three, a wall of accents thirty."""

_JOINER: Final = "\u200d"
_NON_JOINER: Final = "\u200c"
_VIRAMA: Final = 9
"""Combining class of the sign that takes the vowel from an Indic letter."""
EMOJI_STYLE: Final = "\ufe0f"
"""Says that what stands before it is an emoji."""
FLAG: Final = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{1,6}\U000e007f")
"""The flag of a part of a country, spelt with tag characters."""
_FLAGS: Final = tuple(
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)
"""England, Scotland, Wales: the only flags spelt with tag characters."""

_BLANKS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that show nothing; to a reader they are spaces."""

INVISIBLE_MARKS: Final = frozenset(
    ["\u034f", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f"]
    + [chr(code) for code in range(0xFE00, 0xFE0F)]
    + [chr(code) for code in range(0xE0100, 0xE01F0)]
)
"""Marks that show nothing. The emoji style selector is not among them."""

SHAPES: Final = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    }
)
"""What a keyboard makes of quotes and hyphens."""

_SPELLING: Final = SHAPES | str.maketrans(
    {
        "\u00e6": "ae",
        "\u0153": "oe",
        "\u00f8": "o",
        "\u0142": "l",
        "\u0111": "d",
        "\u00f0": "d",
        "\u0127": "h",
        "\u0131": "i",
    }
)
"""With the accented letters that Unicode does not take apart."""

_ACCENTS: Final = frozenset(
    {1, 202, 214, 216, 218, 220, 222, 224, 226, 228, 230, 232, 233, 234, 240, *range(10, 37)}
)
"""Combining classes of accents and of Hebrew and Arabic points. The marks of other scripts (kana voicing,
virama, Thai tones) make another letter, so they are not accents."""


def clean_name(raw: object) -> str:
    """A name as everyone may see it: 1 to 32 characters, composed (NFC), single spaces.

    Control, bidirectional and other format characters are taken out, except those that emoji are made of or
    that a script needs; so are marks stacked higher than any script needs.

    Raises:
        DomainError: `name_too_long`; `name_invalid` when it is no text or nothing visible is left.
    """
    if not isinstance(raw, str):
        raise DomainError("name_invalid", "The name must be text.", "name")
    if len(raw) > NAME_RAW_MAX:
        raise DomainError("name_too_long", f"The name must have at most {NAME_MAX} characters.", "name")
    name = _cleaned(raw)
    if not name:
        raise DomainError("name_invalid", "The name must have at least one visible character.", "name")
    if len(name) > NAME_MAX:
        raise DomainError("name_too_long", f"The name must have at most {NAME_MAX} characters.", "name")
    return name


def shortened_name(raw: str) -> str:
    """As `clean_name`, of any text: what is too long is cut off. Empty when nothing visible is left."""
    return _cleaned(_cleaned(raw[:NAME_RAW_MAX])[:NAME_MAX])


def _cleaned(raw: str) -> str:
    if raw.isascii() and raw.isprintable():
        return " ".join(raw.split())
    return _visible(unicodedata.normalize("NFC", raw))


def _visible(text: str) -> str:
    kept: list[str] = []
    marks = 0
    at = 0
    while at < len(text):
        flag = next((flag for flag in _FLAGS if text.startswith(flag, at)), None)
        if flag is not None:
            kept.append(flag)
            at += len(flag)
            marks = 0
            continue
        char = text[at]
        at += 1
        if _is_mark(char):
            # A mark needs something to stand on. Spacing marks follow their letter and pile up nothing.
            stacks = unicodedata.category(char) != "Mc"
            if kept and not kept[-1].isspace() and marks + stacks <= MARKS_MAX:
                kept.append(char)
                marks += stacks
        elif char in (_JOINER, _NON_JOINER):
            if kept and _joins(char, kept, text[at : at + 1]):
                kept.append(char)
        elif char.isspace() or char in _BLANKS:
            kept.append(" ")
            marks = 0
        elif _is_shown(char):
            kept.append(char)
            marks = 0
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Mc", "Me") and char not in INVISIBLE_MARKS


def _is_shown(char: str) -> bool:
    # Emoji newer than Python's tables are unassigned to them.
    category = unicodedata.category(char)
    return (category[0] != "C" or (category == "Cn" and _is_emoji(char))) and char not in INVISIBLE_MARKS


def _is_emoji(char: str) -> bool:
    return "\U0001f000" <= char <= "\U0001faff" or "\u2190" <= char <= "\u2bff"


def _joins(joiner: str, before: Sequence[str], after: str) -> bool:
    """Whether a joiner says something here: it makes one emoji of two, or is part of the spelling, as behind
    a virama in Indic scripts and, between two letters, in Persian."""
    last = before[-1]
    if joiner == _JOINER and (_is_emoji(last[-1]) or last == EMOJI_STYLE):
        return bool(after) and _is_emoji(after)
    if unicodedata.combining(last[-1]) == _VIRAMA:
        return True
    letter = next((char for char in reversed(before) if not _is_mark(char[-1])), "")
    return joiner == _NON_JOINER and _is_arabic(letter) and _is_arabic(after)


def _is_arabic(char: str) -> bool:
    return len(char) == 1 and unicodedata.bidirectional(char) == "AL" and unicodedata.category(char) == "Lo"


def fold(text: str) -> str:
    """The same for every spelling that counts as the same: case, accents, runs of spaces, typographic quotes
    and hyphens, and invisible characters make no difference."""
    if text.isascii() and text.isprintable() and "`" not in text:
        return " ".join(text.lower().split())
    # Composed first: Unicode has several accents standing alone, and the table knows the one they become.
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_SPELLING))
    apart = unicodedata.normalize("NFKD", plain.casefold())
    bare = "".join(char for char in apart if _is_significant(char)).translate(_SPELLING)
    return " ".join(unicodedata.normalize("NFKC", bare).casefold().split())


def _is_significant(char: str) -> bool:
    if unicodedata.combining(char) in _ACCENTS or char in INVISIBLE_MARKS or char == EMOJI_STYLE:
        return False
    return char.isspace() or unicodedata.category(char) not in ("Cc", "Cf", "Cs")


def clean_answer(raw: str) -> str:
    """Typed text as it is stored: composed (NFC), on one line, without control and format characters, except
    those that change the sign they belong to: tags of flags, and joiners."""
    if raw.isascii() and raw.isprintable():
        return " ".join(raw.split())
    while (text := _without_format(raw)) != raw:
        raw = text  # composing may have moved what a joiner stood beside
    return text


def _without_format(raw: str) -> str:
    kept: list[str] = []
    rest = 0
    for at, char in enumerate(raw):
        if at < rest:
            continue
        if char == "\U0001f3f4" and (flag := FLAG.match(raw, at)):
            kept.append(flag[0])
            rest = flag.end()
        elif char in (_JOINER, _NON_JOINER):
            if kept and _joins(char, kept, raw[at + 1 : at + 2]):
                kept.append(char)
        elif char.isspace() or unicodedata.category(char) not in ("Cc", "Cf", "Cs"):
            kept.append(char)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())
