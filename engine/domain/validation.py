"""Reads data that a person wrote: every mistake is found, named and located.

`Problems` collects the mistakes in the order of the document; `Fields` reads the members of one mapping and
reports mistakes there. A wrong member reads as a stand-in of the right type, so that reading goes on and
finds the next mistake; a caller checks `Problems.count` before it uses the result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any, Final, TypeVar

from engine.domain.errors import DomainError

Word = TypeVar("Word", bound=str)

_MISSING: Final = object()
_SHOWN_MAX: Final = 40
_WHOLE_FLOATS: Final = 2**53
"""Above this a float cannot tell neighbouring whole numbers apart, and JSON may not carry them. A stored
whole number beyond it cannot be used either, because it could not be sent to clients."""

_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters except tab and line feed, and halves of surrogate pairs: not every store takes them."""

_HALVES: Final = re.compile("[\ud800-\udfff]")


class Problems:
    """Mistakes in the order of the document, at most `most` of them.

    The mistake that reaches the bound is raised; with a bound of 1 that is the first.

    A stored document may break a rule or have unknown fields: it was valid when it was written, by this
    release or another. So it is read with `strict` off, and then only unusable data is a mistake.
    """

    def __init__(self, most: int, *, strict: bool = True) -> None:
        self.found: list[DomainError] = []
        self.strict = strict
        self._most = most

    @property
    def count(self) -> int:
        return len(self.found)

    def add(self, code: str, message: str, path: str) -> None:
        error = DomainError(code, message, path or None)
        self.found.append(error)
        if len(self.found) >= self._most:
            raise error

    def rule(self, code: str, message: str, path: str) -> bool:
        """Add what can be read and breaks a rule. False, and nothing is added, unless reading is strict."""
        if self.strict:
            self.add(code, message, path)
        return self.strict


def member(path: str, name: str) -> str:
    """The path of a member: ``questions[2]`` and ``text`` make ``questions[2].text``."""
    return f"{path}.{name}" if path else name


def shown(value: object) -> str:
    """A value as an error may quote it: short, whatever it is."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{_cut(value)}'"
    if isinstance(value, int):
        return str(value) if abs(value) <= _WHOLE_FLOATS else "a huge number"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _cut(text: str) -> str:
    cut = text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
    return cut if cut.isprintable() else ascii(cut)[1:-1]


def tidied(text: str, longest: int) -> str:
    """In NFC, with line feeds alone ending lines, without blanks around it.

    Normalising is quadratic in a run of accents, so text that is far beyond `longest` stays as it is.
    """
    if len(text) > 4 * longest:
        return text
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def number(value: object) -> int | float | None:
    """A finite number, or None for everything else. True and False are not numbers here.

    Whole numbers beyond 2^53 become floats, as they do in any JSON reader that knows only those.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > _WHOLE_FLOATS:
        try:
            return float(value)
        except OverflowError:
            return None
    return value if isfinite(value) else None


class Fields:
    """The members of one mapping. Unknown members break a rule, and the known ones are listed."""

    def __init__(
        self, data: Mapping[Any, object], path: str, problems: Problems, known: Sequence[str]
    ) -> None:
        self._data = data
        self.path = path
        self.problems = problems
        for name in data:
            if not (isinstance(name, str) and name in known):
                seen = _cut(name) if isinstance(name, str) else shown(name)
                self.rule(
                    seen, f"'{seen}' is not a field here; known are: {', '.join(known)}", "unknown_field"
                )

    @classmethod
    def of(cls, data: object, path: str, problems: Problems, known: Sequence[str]) -> Fields | None:
        """None, and a problem, when `data` is no mapping."""
        if not isinstance(data, Mapping):
            problems.add("bad_field", f"must be a mapping of fields, not {shown(data)}", path)
            return None
        return cls(data, path, problems, known)

    def add(self, name: str, message: str, code: str = "bad_field") -> None:
        """Report a problem of the member `name`."""
        self.problems.add(code, message, member(self.path, name))

    def rule(self, name: str, message: str, code: str = "bad_field") -> bool:
        """As `Problems.rule`, of the member `name`."""
        return self.problems.rule(code, message, member(self.path, name))

    def has(self, name: str) -> bool:
        return name in self._data

    def get(self, name: str) -> object:
        """As it stands in the document; None when it is absent."""
        return self._data.get(name)

    def _read(self, name: str, required: bool) -> object:
        value = self._data.get(name, _MISSING)
        if value is _MISSING and required:
            self.add(name, f"`{name}` is missing", "missing_field")
        return value

    def text(self, name: str, longest: int, shortest: int = 1, default: str | None = None) -> str:
        """Text of `shortest` to `longest` characters, without a default required."""
        value = self._read(name, required=default is None)
        if value is _MISSING:
            return default or ""
        return read_text(value, member(self.path, name), self.problems, longest, shortest)

    def whole(self, name: str, least: int, most: int, default: int) -> int:
        """A whole number between `least` and `most`, both allowed."""
        value = self._data.get(name, default)
        wrong = f"must be a whole number from {least} to {most}, not {shown(value)}"
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _WHOLE_FLOATS:
            self.add(name, wrong)
            return default
        if not least <= value <= most and self.rule(name, wrong):
            return default
        return value

    def milliseconds(self, name: str, least_s: int, most_s: int, default_s: int) -> int:
        """A time written in seconds, with up to three decimals, as whole milliseconds."""
        value = number(self._data.get(name, default_s))
        wrong = f"must be a number of seconds from {least_s} to {most_s}, not {shown(self._data.get(name))}"
        if value is None or not 0 < value < _WHOLE_FLOATS / 1000:
            self.add(name, wrong)
            return default_s * 1000
        if not least_s <= value <= most_s and self.rule(name, wrong):
            return default_s * 1000
        exact_ms = Decimal(str(value)) * 1000
        if exact_ms != int(exact_ms):
            self.rule(name, "must have at most three decimals")
        return max(1, int(exact_ms))

    def number(self, name: str, default: int | None = None) -> int | float:
        """A finite number, without a default required."""
        value = self._read(name, required=default is None)
        if value is _MISSING:
            return default or 0
        read = number(value)
        if read is None:
            self.add(name, f"must be a number, not {shown(value)}")
            return 0
        return read

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false, without a default required."""
        value = self._read(name, required=default is None)
        if value is _MISSING:
            return bool(default)
        if not isinstance(value, bool):
            self.add(name, f"must be true or false, not {shown(value)}")
            return False
        return value

    def one_of(self, name: str, options: Sequence[Word], default: Word) -> Word:
        """One of a few words."""
        value = self._data.get(name, default)
        for option in options:
            if option == value:
                return option
        self.add(name, f"must be one of: {', '.join(options)}; not {shown(value)}")
        return default

    def texts(self, name: str, least: int, most: int, longest: int) -> list[str]:
        """A list of `least` to `most` texts of at most `longest` characters. Required."""
        value = self._read(name, required=True)
        if value is _MISSING:
            return []
        if not isinstance(value, list | tuple):
            self.add(name, f"must be a list, not {shown(value)}")
            return []
        wrong = f"must have {least} to {most} entries, not {len(value)}"
        if least and not value:
            # No rule of a release: nothing can be chosen from an empty list.
            self.add(name, wrong)
            return []
        if not least <= len(value) <= most and self.rule(name, wrong):
            return []
        path = member(self.path, name)
        return [read_text(entry, f"{path}[{i}]", self.problems, longest) for i, entry in enumerate(value)]


def read_text(value: object, path: str, problems: Problems, longest: int, shortest: int = 1) -> str:
    """Text in NFC without blanks around it; empty, and a problem, when it is none or of the wrong length."""
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | int | float) else ""
        problems.add("bad_field", f"must be text, not {shown(value)}{hint}", path)
        return ""
    tidy = tidied(value, longest)
    wanted = f"{shortest} to {longest}" if shortest else f"at most {longest}"
    if not shortest <= len(tidy) <= longest and problems.rule(
        "bad_field", f"must have {wanted} characters, not {len(tidy)}", path
    ):
        return ""
    if _UNPRINTABLE.search(tidy) and problems.rule("bad_field", "must not contain control characters", path):
        return ""
    if _HALVES.search(tidy):
        problems.add("bad_field", "must not contain halves of characters", path)
        return ""
    return tidy
