"""Quiz files: YAML, or JSON, which YAML contains, with every complaint naming its line and its field.

A file is read more narrowly than YAML 1.1 allows, because a quiz is written by hand by people who never
heard of YAML's surprises. Only true and false are booleans: `no` is a text, and so are 1:30 and 2024-01-31.
Where the quiz wants a text, a bare number or boolean is taken as it is written: `choices: [1989, 1990]` are
two texts. Where it wants a number, a text is taken as a number that somebody typed, in any script. Anchors,
aliases and tags are refused, which leaves nothing that can grow when it is expanded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from engine.domain.quiz import Quiz
from server.text_input import doubt_of, numbers_of

FILE_BYTES_MAX = 1_048_576
"""As long as the body that the HTTP API takes by default."""

VALUES_MAX = 12_000
"""Names, values, lists and mappings in one file. The longest quiz that is allowed needs about 7,000."""

DEPTH_MAX = 8
"""A quiz needs four: the quiz, its questions, a question, its choices."""

NUMBER_CHARS_MAX = 40
"""Longer rows of digits stay texts."""

INTEGERS = range(-(2**63), 2**64)
"""Larger numbers are read as the HTTP API reads them, as fractions."""

_NULL = re.compile(r"(?:null|~)?")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL = re.compile(r"[-+]?0[0-9]")
"""The prefix of numbers that are ten to one reader of YAML and eight to another."""
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a quiz file.

    `line` and `column` count from 1 and are None when the file could not be read at all; `path` is the
    field, None when the complaint is about the file as a whole or about its syntax.
    """

    file: str
    code: str
    message: str
    line: int | None = None
    column: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


class QuizFileError(Exception):
    """The file holds no valid quiz. `problems` has at least one, in the order in which they were found;
    `data` is what the file says, None when it could not be read at all."""

    def __init__(self, problems: tuple[Problem, ...], data: dict[str, object] | None = None) -> None:
        super().__init__(problems)
        self.problems = problems
        self.data = data

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True, slots=True)
class LoadedQuiz:
    """A quiz as it stood in a file.

    `id` is the file's name without its ending; `data` is what the HTTP API takes as the quiz.
    """

    id: str
    file: str
    data: dict[str, object]
    quiz: Quiz


def load(path: Path) -> LoadedQuiz:
    """Read one quiz file. Reads the disk: for the command line and for start-up, not for a running loop.

    Raises QuizFileError, also when the file cannot be read.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _refused(name, "unreadable", f"cannot be read: {error.strerror or error}") from error
    return parse(raw, name)


def parse(text: str | bytes, name: str) -> LoadedQuiz:
    """Read a quiz from the text of a file called `name`. Raises QuizFileError."""
    reading = _Reading(name, _decoded(text, name))
    data = reading.quiz()
    _keep_as_written(data, reading.written)
    doubts = _read_numbers(data)
    problems = Quiz.problems(data)
    if problems:
        raise QuizFileError(
            tuple(
                Problem(
                    name,
                    error.code,
                    doubts.get(error.path or "", error.message),
                    *reading.place(error.path),
                    error.path,
                )
                for error in problems
            ),
            data,
        )
    return LoadedQuiz(Path(name).stem, name, data, Quiz.parse(data))


class _Reading:
    """One pass over the events of a YAML document, which builds plain data and remembers where it stood.

    `written` has the source text of every bare number and boolean, by path.
    """

    def __init__(self, name: str, text: str) -> None:
        self.written: dict[str, str] = {}
        self._name = name
        self._text = text
        self._places: dict[str, tuple[int, int]] = {"": (1, 1)}
        self._values = 0
        self._events: Iterator[Event] = iter(())

    def quiz(self) -> dict[str, object]:
        """The whole document. Raises QuizFileError for a mistake of syntax."""
        try:
            return self._document()
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            message = f"the character U+{error.character:04X} cannot stand in a quiz file"
            raise _refused(self._name, "bad_yaml", message, line) from error
        except yaml.MarkedYAMLError as error:
            raise _refused(self._name, "bad_yaml", *_explained(error)) from error

    def place(self, path: str | None) -> tuple[int, int]:
        """Line and column of a field, or of the nearest thing around it when it is missing."""
        path = path or ""
        while path not in self._places:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._places[path]

    def _document(self) -> dict[str, object]:
        self._events = iter(yaml.parse(self._text, Loader=yaml.SafeLoader))
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), StreamEndEvent):
            raise _refused(self._name, "bad_yaml", "the file is empty")
        first = next(self._events)
        if not isinstance(first, MappingStartEvent):
            raise self._refusal(first, "a quiz begins with a name and its value, as in `title: Capitals`")
        self._admit(first, "", 1)
        quiz = self._mapping("", 1)
        next(self._events)  # the end of the document
        after = next(self._events)
        if not isinstance(after, StreamEndEvent):
            raise self._refusal(after, "one file holds one quiz: nothing may follow it after `---`")
        return quiz

    def _value(self, event: Event, path: str, depth: int) -> object:
        self._admit(event, path, depth)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path, depth)
        assert isinstance(event, ScalarEvent)
        return self._scalar(event, path)

    def _mapping(self, path: str, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            self._admit(event, path, depth)
            if not isinstance(event, ScalarEvent):
                raise self._refusal(event, "the name of a field must be a word", path)
            key = self._whole(event, event.value, path)
            inner = f"{path}.{key}" if path else key
            if key in found:
                line = self._places[inner][0]
                raise self._refusal(event, f"is given twice, first in line {line}", inner, "duplicate_field")
            self._places[inner] = _position(event)
            found[key] = self._value(next(self._events), inner, depth + 1)
        return found

    def _sequence(self, path: str, depth: int) -> list[object]:
        found: list[object] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            inner = f"{path}[{len(found)}]"
            self._places[inner] = _position(event)
            found.append(self._value(event, inner, depth + 1))
        return found

    def _scalar(self, event: ScalarEvent, path: str) -> object:
        text = event.value
        if event.style is not None:  # in quotes, or a block of text
            return self._whole(event, text, path)
        if _NULL.fullmatch(text):
            return None
        boolean = bool(_TRUE.fullmatch(text))
        if boolean or _FALSE.fullmatch(text):
            self.written[path] = text
            return boolean
        if len(text) > NUMBER_CHARS_MAX or not _DECIMAL.fullmatch(text):
            return self._whole(event, text, path)
        number = float(text)
        if _INTEGER.fullmatch(text) and int(text) in INTEGERS:
            number = int(text)
        if not math.isfinite(number):
            return text
        self.written[path] = text
        return number

    def _whole(self, event: ScalarEvent, text: str, path: str) -> str:
        """The text with its surrogate pairs joined: JSON writes an emoji as two escapes."""
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise self._refusal(event, "this text has half a character in it", path) from error

    def _admit(self, event: Event, path: str, depth: int) -> None:
        self._values += 1
        if self._values > VALUES_MAX:
            raise self._refusal(
                event, f"more than {VALUES_MAX:,} values are more than any quiz has", None, "too_large"
            )
        if depth > DEPTH_MAX:
            raise self._refusal(event, "nothing in a quiz is nested this deeply", path)
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
            raise self._refusal(event, _NO_ANCHOR, path)
        if isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent) and event.tag is not None:
            raise self._refusal(event, _NO_TAG, path)

    def _refusal(
        self, event: Event, message: str, path: str | None = None, code: str = "bad_yaml"
    ) -> QuizFileError:
        return _refused(self._name, code, message, *_position(event), path or None)


_NO_ANCHOR = "a text that begins with * or & must stand in quotes (YAML's aliases are not understood here)"
_NO_TAG = "a text that begins with ! must stand in quotes (YAML's tags are not understood here)"

_SENTENCES = (
    # What the YAML parser says, what it most often means in a quiz, and whether the mistake stands where
    # the parser began (rather than where it gave up).
    (
        "mapping values are not allowed here",
        "a text with a colon and a space must stand in quotes, or the indentation is off",
        False,
    ),
    (r"found character '\t'", "indent with spaces, not with tabs", False),
    ("while scanning an alias", _NO_ANCHOR, True),
    ("while scanning an anchor", _NO_ANCHOR, True),
    ("while scanning a tag", _NO_TAG, True),
    ("found unexpected end of stream", "the quote that is opened here is never closed", True),
    ("could not find expected ':'", "the name of a field must be followed by a colon and a space", True),
    ("expected <block end>", "the indentation or the quotes do not fit what stands before this", False),
    ("expected ',' or", "values in brackets must be separated by commas, and the bracket closed", False),
    ("cannot start any token", "a text that begins with this character must stand in quotes", False),
    ("found unknown escape character", "in double quotes, a backslash must be written twice", False),
)


def _explained(error: yaml.MarkedYAMLError) -> tuple[str, int | None, int | None]:
    """Sentence, line and column of a mistake in the syntax."""
    said = f"{error.context or ''}; {error.problem or ''}"
    sentence, at_start = f"this is not YAML: {error.problem or error.context}", False
    for part, meaning, began in _SENTENCES:
        if part in said:
            sentence, at_start = meaning, began
            break
    mark = (error.context_mark if at_start else None) or error.problem_mark or error.context_mark
    return (sentence, mark.line + 1, mark.column + 1) if mark else (sentence, None, None)


def _position(event: Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None  # the parser marks every event
    return mark.line + 1, mark.column + 1


def _keep_as_written(quiz: dict[str, object], written: dict[str, str]) -> None:
    """Turn numbers and booleans back into what the author wrote, wherever a quiz has a text."""
    _as_written(quiz, ("title", "description", "language"), "", written)
    questions = quiz.get("questions")
    for index, question in enumerate(questions if isinstance(questions, list) else ()):
        if not isinstance(question, dict):
            continue
        by_text = question.get("type") in ("single", "multiple")
        names = ("text", "choices", "accept", "correct") if by_text else ("text", "choices", "accept")
        _as_written(question, names, f"questions[{index}].", written)


def _read_numbers(quiz: dict[str, object]) -> dict[str, str]:
    """Turn texts into the numbers that they are, wherever a quiz has a number. Returns what to tell of those
    that may mean two, by path."""
    doubts = {}
    questions = quiz.get("questions")
    for index, question in enumerate(questions if isinstance(questions, list) else ()):
        if not isinstance(question, dict):
            continue
        own = ("correct", "tolerance") if question.get("type") == "numeric" else ()
        for name in ("time_limit_s", "points", *own):
            text = question.get(name)
            if not isinstance(text, str) or _OCTAL.match(text):
                continue
            found = numbers_of(text)
            if len(found) == 1:
                question[name] = found[0]
            elif doubt := doubt_of(text):
                doubts[f"questions[{index}].{name}"] = doubt
    return doubts


def _as_written(
    fields: dict[str, object], names: Iterable[str], prefix: str, written: dict[str, str]
) -> None:
    for name in names:
        path = prefix + name
        value = fields.get(name)
        if path in written:
            fields[name] = written[path]
        elif isinstance(value, list):
            fields[name] = [written.get(f"{path}[{index}]", item) for index, item in enumerate(value)]


def _decoded(raw: str | bytes, name: str) -> str:
    if len(raw) > FILE_BYTES_MAX:
        raise _refused(name, "too_large", f"is longer than {FILE_BYTES_MAX:,} bytes: no quiz is")
    text = raw if isinstance(raw, str) else _utf8(raw, name)
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML may not
    return text


def _utf8(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refused(name, "bad_yaml", "this is not UTF-8: save the file as UTF-8", line) from error


def _refused(
    file: str,
    code: str,
    message: str,
    line: int | None = None,
    column: int | None = None,
    path: str | None = None,
) -> QuizFileError:
    return QuizFileError((Problem(file, code, message, line, column, path),))
