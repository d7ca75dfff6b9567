"""The answers to one question, in columns.

A session of 100,000 players and 20 questions holds two million answers. As an object each they would take
several hundred bytes; in columns indexed by player it is about thirty, and the close of a question
moves none of them.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from engine.domain.facts import AnswerAccepted, AnswerMerged, Choice
from engine.domain.questions import Question


class Answer(NamedTuple):
    """The answer of a player, its play time, and its outcome."""

    choice: Choice
    elapsed_ms: int
    correct: bool
    points: int


class Answers:
    """Who answered what, at most one answer a player. Players are small whole numbers from 1."""

    __slots__ = (
        "_ats",
        "_choices",
        "_correct",
        "_elapsed_ms",
        "_points",
        "_seqs",
        "_shared",
        "answered",
        "closed_seq",
        "counts",
        "question",
    )

    def __init__(self, question: Question, players: int) -> None:
        self.question = question
        self.answered = 0
        self.counts = [0] * question.cells
        self.closed_seq: int | None = None
        size = players + 1
        self._choices: list[Choice | None] = [None] * size
        self._elapsed_ms = array("i", [0]) * size
        self._points = array("i", [0]) * size
        self._ats = array("q", [0]) * size
        self._correct = bytearray(size)
        # While the question is open: the fact of each answer, and one object for equal choices.
        self._seqs = array("I", [0]) * size
        self._shared: dict[Choice, Choice] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answers):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    def _grow(self, size: int) -> None:
        more = size - len(self._choices)
        self._choices.extend([None] * more)
        for column in (self._elapsed_ms, self._points, self._ats, self._correct, self._seqs):
            column.extend([0] * more)

    def add(self, fact: AnswerAccepted, players: int) -> None:
        """Keep an answer. `players` is how many there are: the columns grow for all late joiners at once."""
        player = fact.player
        if player >= len(self._choices):
            self._grow(players + 1)
        choice = fact.choice
        if isinstance(choice, str | tuple):
            choice = self._shared.setdefault(choice, choice)
        self._choices[player] = choice
        self._elapsed_ms[player] = fact.elapsed_ms
        self._points[player] = fact.points
        self._ats[player] = fact.at
        self._correct[player] = fact.correct
        self._seqs[player] = fact.seq
        self.answered += 1
        for cell in self.question.cells_of(choice, fact.correct):
            self.counts[cell] += 1

    def put(self, fact: AnswerMerged, players: int, *, counted: bool) -> None:
        """Keep a merged answer, also after the close, in the place of what the player had answered. `counted`
        is false for a player whose answers count no more."""
        player = fact.player
        if player >= len(self._choices):
            self._grow(players + 1)
        if counted:
            self.withdraw(player)
            self.answered += 1
            for cell in self.question.cells_of(fact.choice, fact.correct):
                self.counts[cell] += 1
        self._choices[player] = fact.choice
        self._elapsed_ms[player] = fact.elapsed_ms
        self._points[player] = fact.points
        self._ats[player] = fact.at
        self._correct[player] = fact.correct
        if self.closed_seq is None:
            self._seqs[player] = fact.seq

    def withdraw(self, player: int) -> None:
        """Count a player's answer no more, if there is one; it stays known."""
        answer = self.of(player)
        if answer is not None:
            self.answered -= 1
            for cell in self.question.cells_of(answer.choice, answer.correct):
                self.counts[cell] -= 1

    def count_again(self, player: int) -> None:
        """Count a player's answer that was withdrawn, if there is one."""
        answer = self.of(player)
        if answer is not None:
            self.answered += 1
            for cell in self.question.cells_of(answer.choice, answer.correct):
                self.counts[cell] += 1

    def players(self) -> list[int]:
        """Who answered."""
        return [player for player, choice in enumerate(self._choices) if choice is not None]

    def close(self, seq: int) -> None:
        """Take no more answers. `seq` is the fact of the close: every answer is committed before it."""
        self.closed_seq = seq
        self._seqs = array("I")
        self._shared = {}

    def choice_of(self, player: int) -> Choice | None:
        return self._choices[player] if 0 < player < len(self._choices) else None

    def of(self, player: int) -> Answer | None:
        choice = self.choice_of(player)
        if choice is None:
            return None
        return Answer(choice, self._elapsed_ms[player], bool(self._correct[player]), self._points[player])

    def at_of(self, player: int) -> int:
        """When the answer of a player who answered was received."""
        return self._ats[player]

    def elapsed_ms_of(self, player: int) -> int:
        """The answer of a player that has answered."""
        return self._elapsed_ms[player]

    def seq_of(self, player: int) -> int:
        """The fact whose commit covers the answer of a player who answered."""
        return self._seqs[player] if self.closed_seq is None else self.closed_seq
