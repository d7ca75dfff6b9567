"""One group commit: facts of many sessions in one statement, each session under its own epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from engine.storage.journal.rows import AnswerRow, ChangeRow, FactRows, PlayerRow
from engine.storage.postgres import Row

# How to think about it: PostgreSQL runs every part of a statement, whether there are rows for it or not. Most
# commits have answers alone, or players that join alone, and often of one session. So there are statements of
# these parts alone, and `Batch.statement` chooses.

# `$1` and `$2` are the sessions' ids and epochs. That the ids are said once more, as an array, keeps the plan
# to the partitions in which they are, however many there have become.
_LIVE = """live AS MATERIALIZED (
    SELECT batch.n, s.id
    FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS batch (id, epoch, n)
    JOIN sessions s ON s.id = batch.id AND s.epoch = batch.epoch
    WHERE s.id = ANY ($1::uuid[]) AND (${owner}::text IS NULL OR s.owner = ${owner})
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)"""

_ONE_LIVE = """live AS MATERIALIZED (
    SELECT 1 AS n, s.id
    FROM sessions s
    WHERE s.id = $1::uuid AND s.epoch = $2::bigint AND (${owner}::text IS NULL OR s.owner = ${owner})
    FOR NO KEY UPDATE OF s
)"""

_JOINED = """joined AS (
    INSERT INTO players (session_id, player, name, joined_at, seq, user_id)
    SELECT live.id, p.player, p.name, 'epoch'::timestamptz + p.at * interval '1 ms', p.seq, p.user_id
    FROM {rows}
         AS p ({n}player, name, at, seq, user_id)
    {join}
    ON CONFLICT DO NOTHING
)"""

_ANSWERED = """answered AS (
    INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
    SELECT live.id, a.question, a.player, a.seq, a.choice, a.elapsed_ms, a.correct, a.points,
           'epoch'::timestamptz + a.at * interval '1 ms'
    FROM {rows}
         AS a ({n}question, player, seq, choice, elapsed_ms, correct, points, at)
    {join}
    ON CONFLICT DO NOTHING
)"""

_PLAYER_TYPES = ("integer", "text", "float8", "integer", "text")
_ANSWER_TYPES = ("smallint", "integer", "integer", "jsonb", "integer", "boolean", "integer", "float8")


def _of_many(write: str, types: Sequence[str], first: int) -> str:
    """Rows of many sessions: the arguments from `first` on are the sessions' numbers, and the columns."""
    return write.format(
        rows=f"unnest({_arrays(('bigint', *types), first)})", n="n, ", join="JOIN live USING (n)"
    )


def _of_one(write: str, types: Sequence[str], first: int) -> str:
    """Rows of one session: the arguments from `first` on are the columns."""
    return write.format(rows=f"unnest({_arrays(types, first)})", n="", join="CROSS JOIN live")


def _of_row(write: str, types: Sequence[str], first: int) -> str:
    """One row of one session: the arguments from `first` on are its values."""
    values = ", ".join(f"${number}::{name}" for number, name in enumerate(types, first))
    return write.format(rows=f"(VALUES ({values}))", n="", join="CROSS JOIN live")


def _arrays(types: Sequence[str], first: int) -> str:
    return ", ".join(f"${number}::{name}[]" for number, name in enumerate(types, first))


_CHANGE_TYPES = ("integer", "text", "smallint", "integer", "bigint", "boolean", "float8")

# Where the arguments of `COMMIT` begin: each table has the numbers of the sessions before its columns.
_PLAYERS = 3
_ANSWERS = _PLAYERS + 1 + len(_PLAYER_TYPES)
_CHANGES = _ANSWERS + 1 + len(_ANSWER_TYPES)
_FINISHED = _CHANGES + 1 + len(_CHANGE_TYPES)
_MERGED = _FINISHED + 2
_OWNER = _MERGED + 1 + len(_ANSWER_TYPES)

COMMIT = f"""
WITH {_LIVE.format(owner=_OWNER)}, {_of_many(_JOINED, _PLAYER_TYPES, _PLAYERS)},
{_of_many(_ANSWERED, _ANSWER_TYPES, _ANSWERS)}, changed AS (
    INSERT INTO session_changes (session_id, seq, kind, question, player, by_ms, locked, at)
    SELECT live.id, c.seq, c.kind, c.question, c.player, c.by_ms, c.locked,
           'epoch'::timestamptz + c.at * interval '1 ms'
    FROM unnest({_arrays(("bigint", *_CHANGE_TYPES), _CHANGES)})
         AS c (n, seq, kind, question, player, by_ms, locked, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
), ended AS (
    UPDATE sessions SET finished_at = 'epoch'::timestamptz + f.at * interval '1 ms'
    FROM unnest({_arrays(("bigint", "float8"), _FINISHED)}) AS f (n, at)
    JOIN live USING (n)
    WHERE sessions.id = live.id AND sessions.id = ANY ($1::uuid[]) AND sessions.finished_at IS NULL
), merged AS (
    INSERT INTO merged_answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
    SELECT live.id, m.question, m.player, m.seq, m.choice, m.elapsed_ms, m.correct, m.points,
           'epoch'::timestamptz + m.at * interval '1 ms'
    FROM unnest({_arrays(("bigint", *_ANSWER_TYPES), _MERGED)})
         AS m (n, question, player, seq, choice, elapsed_ms, correct, points, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
)
SELECT n FROM live
"""
"""Locks the sessions whose epoch and owner still hold, writes the facts of those alone, and returns their
numbers. A database that has lost a claim may grant the same epoch to two owners.

A claim that got hold of a row first is waited for, and its new epoch is seen; one that comes later waits
until the facts are in. Facts that are there already change nothing.
"""


def _one_kind(
    live: str, of: Callable[[str, Sequence[str], int], str], write: str, types: Sequence[str]
) -> str:
    numbers = 1 if of is _of_many else 0
    owner = _PLAYERS + numbers + len(types)
    return f"\nWITH {live.format(owner=owner)}, {of(write, types, _PLAYERS)}\nSELECT n FROM live\n"


COMMIT_PLAYERS = _one_kind(_LIVE, _of_many, _JOINED, _PLAYER_TYPES)
"""As `COMMIT`, of players that joined, and nothing else."""

COMMIT_ANSWERS = _one_kind(_LIVE, _of_many, _ANSWERED, _ANSWER_TYPES)
"""As `COMMIT`, of answers, and nothing else."""

COMMIT_PLAYERS_OF_ONE = _one_kind(_ONE_LIVE, _of_one, _JOINED, _PLAYER_TYPES)
"""As `COMMIT`, of players that joined one session: its id and its epoch are no arrays."""

COMMIT_ANSWERS_OF_ONE = _one_kind(_ONE_LIVE, _of_one, _ANSWERED, _ANSWER_TYPES)
"""As `COMMIT`, of answers in one session: its id and its epoch are no arrays."""

COMMIT_PLAYER = _one_kind(_ONE_LIVE, _of_row, _JOINED, _PLAYER_TYPES)
"""As `COMMIT`, of one player that joined: without arrays."""

COMMIT_ANSWER = _one_kind(_ONE_LIVE, _of_row, _ANSWERED, _ANSWER_TYPES)
"""As `COMMIT`, of one answer: without arrays."""

_Row = TypeVar("_Row", bound=tuple[Any, ...])


class _Table(Generic[_Row]):
    """Rows of one table with the numbers of their sessions."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._numbers: list[int] = []
        self._rows: list[_Row] = []

    def add(self, number: int, rows: Sequence[_Row]) -> None:
        self._numbers += [number] * len(rows)
        self._rows += rows

    def __bool__(self) -> bool:
        return bool(self._rows)

    def columns(self) -> Sequence[Sequence[object]]:
        """One array a column, that of the numbers first."""
        return [self._numbers, *(zip(*self._rows, strict=True) if self._rows else [()] * self._columns)]


class Batch:
    """What one commit writes. Sessions are numbered from 1 in the order in which they were first added."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._players = _Table[PlayerRow](len(_PLAYER_TYPES))
        self._answers = _Table[AnswerRow](len(_ANSWER_TYPES))
        self._changes = _Table[ChangeRow](len(_CHANGE_TYPES))
        self._finished: dict[int, int] = {}
        self._merged = _Table[AnswerRow](len(_ANSWER_TYPES))

    def add(self, session_id: str, epoch: int, rows: FactRows) -> int:
        """Returns the number of the session."""
        number = self._numbers.setdefault((session_id, epoch), len(self._numbers) + 1)
        self._players.add(number, rows.players)
        self._answers.add(number, rows.answers)
        self._changes.add(number, rows.changes)
        self._merged.add(number, rows.merged)
        if rows.finished_at is not None:
            self._finished[number] = rows.finished_at
        return number

    def statement(self, owner: str | None = None) -> tuple[str, Sequence[object]]:
        """The cheapest statement that writes the batch, and its arguments. `owner` is as for `arguments`."""
        if self._changes or self._merged or self._finished or bool(self._players) == bool(self._answers):
            return COMMIT, self.arguments(owner)
        if self._answers:
            of_row, of_one, of_many = COMMIT_ANSWER, COMMIT_ANSWERS_OF_ONE, COMMIT_ANSWERS
            columns = self._answers.columns()
        else:
            of_row, of_one, of_many = COMMIT_PLAYER, COMMIT_PLAYERS_OF_ONE, COMMIT_PLAYERS
            columns = self._players.columns()
        if len(self._numbers) > 1:
            ids, epochs = zip(*self._numbers, strict=True)
            return of_many, [ids, epochs, *columns, owner]
        [(session_id, epoch)] = self._numbers
        numbers, *columns = columns
        if len(numbers) > 1:
            return of_one, [session_id, epoch, *columns, owner]
        return of_row, [session_id, epoch, *(value for [value] in columns), owner]

    def arguments(self, owner: str | None = None) -> Sequence[object]:
        """The arguments of `COMMIT`. `owner` is whose the sessions are to be; None when that is not known."""
        return [
            [session_id for session_id, _ in self._numbers],
            [epoch for _, epoch in self._numbers],
            *self._players.columns(),
            *self._answers.columns(),
            *self._changes.columns(),
            list(self._finished.keys()),
            list(self._finished.values()),
            *self._merged.columns(),
            owner,
        ]

    def fenced(self, live: Sequence[Row]) -> set[int]:
        """The numbers of the sessions that are missing from the result of the statement."""
        return set(self._numbers.values()) - {row["n"] for row in live}
