"""What people type or paste where a number or a session is meant, in any script.

For the command line and quiz files alone: over the wire a number is a number of JSON, and a session has one
name. The pages read the same in JavaScript (`server/web/lib/typed.js`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Final

from engine.domain.session_keys import is_session_key

NUMBER_CHARS_MAX: Final = 80
"""Longer texts are no numbers."""

_DIGIT: Final = re.compile(r"[^\W\D0-9]")
_SIGNS: Final = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\uff0c\u060c", ","),
        **dict.fromkeys("\u2019\uff07", "'"),
        "\uff0b": "+",
        "\uff0e": ".",
    }
)
_NUMBER: Final = re.compile(r"([+-]?)\s*(.*?[0-9].*?)(e[+-]?[0-9]{1,4})?", re.IGNORECASE)
_WAYS: Final = tuple(
    re.compile(
        rf"([1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+|[1-9][0-9]?(?:{group}[0-9]{{2}})+{group}[0-9]{{3}}|[0-9]+)?"
        rf"(?:{point}([0-9]*))?"
    )
    for group in (",", r"\.", "'", r"\s", "\u066c")
    for point in (r"\.", ",", "\u066b")
    if group != point
)
"""To part groups and decimals. Groups have three digits, or as in India two before the last three."""

_LINKED: Final = re.compile(r"(?:code=|/)([0-9]{6})(?![0-9])")


def numbers_of(text: str) -> list[int | float]:
    """What a typed number may mean: one number most often, none, or two, the larger first, where its only
    point or comma may part groups or decimals."""
    if len(text) > NUMBER_CHARS_MAX:
        return []
    read = _NUMBER.fullmatch(_plain(text).translate(_SIGNS).strip())
    if read is None:
        return []
    sign, figures, exponent = read[1], read[2], read[3] or ""
    found: set[int | float] = set()
    for way in _WAYS:
        parts = way.fullmatch(figures)
        if parts is None:
            continue
        whole = sign + (re.sub(r"[^0-9]", "", parts[1] or "") or "0")
        number = float(f"{whole}.{parts[2] or ''}0{exponent}")
        if math.isfinite(number):
            found.add(number if parts[2] or exponent else int(whole))
    return sorted(found, key=abs, reverse=True)


def doubt_of(text: str) -> str | None:
    """What to tell of a number that may mean two; None if it does not."""
    found = numbers_of(text)
    if len(found) < 2:
        return None
    numbers = " or ".join(f"{each:.15g}" for each in found)
    return f"'{text}' may be {numbers}: write it without a sign between groups of digits"


def session_key_of(text: str) -> str:
    """The code or id of the session that was typed or pasted, also as a link; the text itself without one."""
    typed = _plain(text).strip()
    if is_session_key(typed.lower()):
        return typed.lower()
    linked = _LINKED.search(typed)
    if linked is not None:
        return linked[1]
    code = re.sub(r"[\s\-\u2010-\u2015]", "", typed)
    return code if is_session_key(code) else text


def _plain(text: str) -> str:
    """With ASCII digits, and without characters that only give a direction."""
    shown = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), shown)
