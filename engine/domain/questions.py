"""The five types of question: valid answers, right answers, and what may be shown before the close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import ClassVar, Final

from engine.domain.errors import Refusal
from engine.domain.facts import Choice
from engine.domain.spellings import FOLDINGS, MATCHES, Match, forms
from engine.domain.text import clean_answer, fold
from engine.domain.validation import Fields, Problems, member, number, shown, tidied

TEXT_MAX: Final = 300
CHOICES_MIN: Final = 2
CHOICES_MAX: Final = 8
CHOICE_MAX: Final = 120
SPELLINGS_MAX: Final = 20
SPELLING_MAX: Final = 100
ANSWER_MAX: Final = 200
TIME_LIMIT_MIN_S: Final = 1
TIME_LIMIT_MAX_S: Final = 600
TIME_LIMIT_DEFAULT_S: Final = 20
POINTS_MAX: Final = 10_000
POINTS_DEFAULT: Final = 1_000

_EXACT: Final = Context(prec=700)
"""Floats lie between 1e-324 and 1e308 with 17 digits each: a sum of two has at most 650."""

_COMMON: Final = ("type", "text", "time_limit_s", "points")


@dataclass(frozen=True, slots=True)
class Question(ABC):
    """One question. Built by `Quiz.parse`, which lets nothing invalid through.

    `limit_ms` is the time to answer; `points` is what a right answer is worth at most, before any bonus.
    """

    text: str
    limit_ms: int
    points: int

    type: ClassVar[str]
    own_fields: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def correct(self) -> object:
        """The correct answer, as `reveal.correct` in docs/protocol.md. Not for players before the close."""

    @property
    @abstractmethod
    def cells(self) -> int:
        """How many counts a reveal shows."""

    @abstractmethod
    def read(self, raw: object) -> Choice | Refusal:
        """A choice from its JSON value; `bad_choice` when it does not fit this question."""

    @abstractmethod
    def judge(self, choice: Choice) -> bool:
        """Whether a choice that `read` gave is right."""

    @abstractmethod
    def cells_of(self, choice: Choice, correct: bool) -> Sequence[int]:
        """Which of the counts an answer belongs to."""

    @abstractmethod
    def own_dict(self) -> dict[str, object]:
        """The fields that only this type has, as in a quiz file."""

    def count(self, answers: Iterable[tuple[Choice, bool]]) -> list[int]:
        """Answers per choice, from (choice, correct) pairs: `reveal.counts` of docs/protocol.md."""
        counts = [0] * self.cells
        for choice, correct in answers:
            for cell in self.cells_of(choice, correct):
                counts[cell] += 1
        return counts

    def public(self) -> dict[str, object]:
        """What everyone may see while the question is open. The right answer is not in it."""
        choices = getattr(self, "choices", None)
        return {
            "type": self.type,
            "text": self.text,
            "choices": None if choices is None else list(choices),
            "limit_ms": self.limit_ms,
            "points": self.points,
        }

    def to_dict(self) -> dict[str, object]:
        """As in a quiz file."""
        whole, rest = divmod(self.limit_ms, 1000)
        return {
            "type": self.type,
            "text": self.text,
            "time_limit_s": self.limit_ms / 1000 if rest else whole,
            "points": self.points,
            **self.own_dict(),
        }


@dataclass(frozen=True, slots=True)
class SingleChoice(Question):
    """One choice out of several; `right` is the index of the right one."""

    choices: tuple[str, ...]
    right: int

    type: ClassVar[str] = "single"
    own_fields: ClassVar[tuple[str, ...]] = ("choices", "correct")

    @classmethod
    def build(cls, fields: Fields, text: str, limit_ms: int, points: int) -> SingleChoice:
        choices = _read_choices(fields)
        right = None
        if _has_right(fields, "correct"):
            right = _index(fields.get("correct"), "correct", choices, fields)
        return cls(text, limit_ms, points, choices, right or 0)

    @property
    def correct(self) -> int:
        return self.right

    @property
    def cells(self) -> int:
        return len(self.choices)

    def read(self, raw: object) -> Choice | Refusal:
        # The exact type: True is an int to Python, but it is no index.
        if type(raw) is int and 0 <= raw < len(self.choices):
            return raw
        return Refusal("bad_choice", f"The choice must be an index from 0 to {len(self.choices) - 1}.")

    def judge(self, choice: Choice) -> bool:
        return choice == self.right

    def cells_of(self, choice: Choice, correct: bool) -> Sequence[int]:  # noqa: ARG002  # one signature for all types
        return (choice,)  # type: ignore[return-value]  # `read` gives an index

    def own_dict(self) -> dict[str, object]:
        return {"choices": list(self.choices), "correct": self.choices[self.right]}


@dataclass(frozen=True, slots=True)
class MultipleChoice(Question):
    """Any number of choices out of several, at least one; right is exactly `right`, sorted indices."""

    choices: tuple[str, ...]
    right: tuple[int, ...]

    type: ClassVar[str] = "multiple"
    own_fields: ClassVar[tuple[str, ...]] = ("choices", "correct")

    @classmethod
    def build(cls, fields: Fields, text: str, limit_ms: int, points: int) -> MultipleChoice:
        choices = _read_choices(fields)
        return cls(text, limit_ms, points, choices, cls._read_right(fields, choices))

    @staticmethod
    def _read_right(fields: Fields, choices: tuple[str, ...]) -> tuple[int, ...]:
        named = fields.get("correct")
        if not _has_right(fields, "correct"):
            return ()
        if not isinstance(named, list | tuple):
            fields.add("correct", f"must be a list of right choices, not {shown(named)}")
            return ()
        if len(named) > CHOICES_MAX and fields.rule(
            "correct", f"must have at most {CHOICES_MAX} entries, not {len(named)}"
        ):
            return ()
        right: list[int] = []
        for place, entry in enumerate(named):
            index = _index(entry, f"correct[{place}]", choices, fields)
            if index in right:
                fields.rule(f"correct[{place}]", f"{shown(entry)} is listed twice", "duplicate_choice")
            elif index is not None:
                right.append(index)
        return tuple(sorted(right))

    @property
    def correct(self) -> list[int]:
        return list(self.right)

    @property
    def cells(self) -> int:
        return len(self.choices)

    def read(self, raw: object) -> Choice | Refusal:
        most = len(self.choices)
        if isinstance(raw, list | tuple) and 0 < len(raw) <= most:
            chosen = tuple(sorted({index for index in raw if type(index) is int and 0 <= index < most}))
            if len(chosen) == len(raw):
                return chosen
        return Refusal("bad_choice", f"The choice must be a list of different indices from 0 to {most - 1}.")

    def judge(self, choice: Choice) -> bool:
        return choice == self.right

    def cells_of(self, choice: Choice, correct: bool) -> Sequence[int]:  # noqa: ARG002  # one signature for all types
        return choice  # type: ignore[return-value]  # `read` gives indices

    def own_dict(self) -> dict[str, object]:
        return {"choices": list(self.choices), "correct": [self.choices[index] for index in self.right]}


@dataclass(frozen=True, slots=True)
class TrueFalse(Question):
    """A statement that is true or false."""

    right: bool

    type: ClassVar[str] = "true_false"
    own_fields: ClassVar[tuple[str, ...]] = ("correct",)

    @classmethod
    def build(cls, fields: Fields, text: str, limit_ms: int, points: int) -> TrueFalse:
        return cls(text, limit_ms, points, fields.flag("correct") if _has_right(fields, "correct") else False)

    @property
    def correct(self) -> bool:
        return self.right

    @property
    def cells(self) -> int:
        return 2

    def read(self, raw: object) -> Choice | Refusal:
        if isinstance(raw, bool):
            return raw
        return Refusal("bad_choice", "The choice must be true or false.")

    def judge(self, choice: Choice) -> bool:
        return choice is self.right

    def cells_of(self, choice: Choice, correct: bool) -> Sequence[int]:  # noqa: ARG002  # one signature for all types
        return (0,) if choice else (1,)

    def own_dict(self) -> dict[str, object]:
        return {"correct": self.right}


@dataclass(frozen=True, slots=True)
class TypedText(Question):
    """Text that the player types; right is every spelling that counts as the same as an accepted one.

    `match` says how much has to be right; `foldings` is the version of what `loose` passes over.
    """

    accept: tuple[str, ...]
    match: Match = "loose"
    foldings: int = FOLDINGS
    _forms: frozenset[str] = field(init=False, repr=False, compare=False)

    type: ClassVar[str] = "text"
    own_fields: ClassVar[tuple[str, ...]] = ("accept", "match")

    def __post_init__(self) -> None:
        accepted = (forms(spelling, self.match, self.foldings) for spelling in self.accept)
        object.__setattr__(self, "_forms", frozenset().union(*accepted))

    @classmethod
    def build(cls, fields: Fields, text: str, limit_ms: int, points: int) -> TypedText:
        match: Match = fields.one_of("match", MATCHES, default="loose")
        accept: list[str] = []
        if _has_right(fields, "accept"):
            accept = fields.texts("accept", 1, SPELLINGS_MAX, SPELLING_MAX)
        seen: set[str] = set()
        for place, spelling in enumerate(accept):
            # Not all that counts as the same is refused: who lists both USA and U.S.A. does no harm.
            folded = fold(spelling) if match == "loose" else min(forms(spelling, match))
            if folded and folded in seen:
                fields.rule(
                    f"accept[{place}]", f"{shown(spelling)} counts as the same as another", "duplicate_choice"
                )
            elif spelling and not folded:
                fields.rule(f"accept[{place}]", f"{shown(spelling)} has no letters, digits or symbols")
            seen.add(folded)
        return cls(text, limit_ms, points, tuple(accept), match)

    @property
    def correct(self) -> list[str]:
        return list(self.accept)

    @property
    def cells(self) -> int:
        return 2

    def read(self, raw: object) -> Choice | Refusal:
        if isinstance(raw, str) and len(raw) <= ANSWER_MAX:
            text = clean_answer(raw)
            if text:
                return text
        return Refusal("bad_choice", f"The choice must be text of 1 to {ANSWER_MAX} characters.")

    def judge(self, choice: Choice) -> bool:
        return isinstance(choice, str) and not self._forms.isdisjoint(
            forms(choice, self.match, self.foldings)
        )

    def cells_of(self, choice: Choice, correct: bool) -> Sequence[int]:  # noqa: ARG002  # one signature for all types
        return (0,) if correct else (1,)

    def own_dict(self) -> dict[str, object]:
        return {"accept": list(self.accept), "match": self.match}

    def public(self) -> dict[str, object]:
        return {**Question.public(self), "match": self.match}


@dataclass(frozen=True, slots=True)
class Numeric(Question):
    """A number; right is everything at most `tolerance` away from `right`.

    Compared as the decimals that people write, not as binary fractions: 0.3 is within 0.1 of 0.2.
    """

    right: int | float
    tolerance: int | float = 0
    _low: Decimal = field(init=False, repr=False, compare=False)
    _high: Decimal = field(init=False, repr=False, compare=False)

    type: ClassVar[str] = "numeric"
    own_fields: ClassVar[tuple[str, ...]] = ("correct", "tolerance")

    def __post_init__(self) -> None:
        right, tolerance = Decimal(str(self.right)), Decimal(str(self.tolerance))
        object.__setattr__(self, "_low", _EXACT.subtract(right, tolerance))
        object.__setattr__(self, "_high", _EXACT.add(right, tolerance))

    @classmethod
    def build(cls, fields: Fields, text: str, limit_ms: int, points: int) -> Numeric:
        right = fields.number("correct") if _has_right(fields, "correct") else 0
        tolerance = fields.number("tolerance", default=0)
        if tolerance < 0:
            fields.rule("tolerance", f"must not be negative, but is {shown(tolerance)}")
        return cls(text, limit_ms, points, right, tolerance)

    @property
    def correct(self) -> int | float:
        return self.right

    @property
    def cells(self) -> int:
        return 2

    def read(self, raw: object) -> Choice | Refusal:
        read = number(raw)
        return Refusal("bad_choice", "The choice must be a number.") if read is None else read

    def judge(self, choice: Choice) -> bool:
        return self._low <= Decimal(str(choice)) <= self._high

    def cells_of(self, choice: Choice, correct: bool) -> Sequence[int]:  # noqa: ARG002  # one signature for all types
        return (0,) if correct else (1,)

    def own_dict(self) -> dict[str, object]:
        return {"correct": self.right, "tolerance": self.tolerance}


TYPES: Final[Mapping[str, type[SingleChoice | MultipleChoice | TrueFalse | TypedText | Numeric]]] = {
    kind.type: kind for kind in (SingleChoice, MultipleChoice, TrueFalse, TypedText, Numeric)
}


def read_question(data: object, path: str, problems: Problems) -> Question | None:
    """One entry of `questions`; None, with at least one problem more, when it is not valid."""
    found = problems.count
    if not isinstance(data, Mapping):
        problems.add("bad_field", f"must be a mapping of fields, not {shown(data)}", path)
        return None
    if "type" not in data:
        problems.add(
            "missing_field", f"`type` is missing; it is one of: {', '.join(TYPES)}", member(path, "type")
        )
        return None
    name = data["type"]
    kind = TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        problems.add(
            "bad_field", f"must be one of: {', '.join(TYPES)}; not {shown(name)}", member(path, "type")
        )
        return None
    fields = Fields(data, path, problems, _COMMON + kind.own_fields)
    text = fields.text("text", TEXT_MAX)
    limit_ms = fields.milliseconds("time_limit_s", TIME_LIMIT_MIN_S, TIME_LIMIT_MAX_S, TIME_LIMIT_DEFAULT_S)
    points = fields.whole("points", 0, POINTS_MAX, POINTS_DEFAULT)
    question = kind.build(fields, text, limit_ms, points)
    return question if problems.count == found else None


def _has_right(fields: Fields, name: str) -> bool:
    """Whether the field with the correct answer has a value."""
    if fields.has(name) and fields.get(name) not in (None, [], ()):
        return True
    fields.add(name, f"`{name}` does not say what is right", "no_right_answer")
    return False


def _read_choices(fields: Fields) -> tuple[str, ...]:
    choices = fields.texts("choices", CHOICES_MIN, CHOICES_MAX, CHOICE_MAX)
    seen: set[str] = set()
    for place, choice in enumerate(choices):
        if choice and choice in seen:
            fields.rule(f"choices[{place}]", f"{shown(choice)} is there twice", "duplicate_choice")
        seen.add(choice)
    return tuple(choices)


def _index(named: object, name: str, choices: tuple[str, ...], fields: Fields) -> int | None:
    """Where among the choices the text is that the field `name` holds; None, and a problem, when nowhere."""
    if not isinstance(named, str):
        fields.add(name, f"must be the text of a choice, not {shown(named)}")
        return None
    tidy = tidied(named, CHOICE_MAX)
    if tidy in choices:
        return choices.index(tidy)
    # Without readable choices nothing can be among them, and that was reported.
    if choices:
        fields.add(name, f"{shown(named)} is not one of the choices", "no_right_answer")
    return None
