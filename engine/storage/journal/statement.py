"""One group commit: facts of many sessions in one statement, each session under its own epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from engine.storage.journal.rows import AnswerRow, ChangeRow, FactRows, PlayerRow
from engine.storage.postgres import Row

COMMIT = """
WITH live AS MATERIALIZED (
    SELECT batch.n, s.id
    FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS batch (id, epoch, n)
    JOIN sessions s ON s.id = batch.id AND s.epoch = batch.epoch
    WHERE s.id = ANY ($1::uuid[]) AND ($36::text IS NULL OR s.owner = $36)
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
), joined AS (
    INSERT INTO players (session_id, player, name, joined_at, seq)
    SELECT live.id, p.player, p.name, 'epoch'::timestamptz + p.at * interval '1 ms', p.seq
    FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::float8[], $7::integer[])
         AS p (n, player, name, at, seq)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
), answered AS (
    INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
    SELECT live.id, a.question, a.player, a.seq, a.choice, a.elapsed_ms, a.correct, a.points,
           'epoch'::timestamptz + a.at * interval '1 ms'
    FROM unnest($8::bigint[], $9::smallint[], $10::integer[], $11::integer[], $12::jsonb[], $13::integer[],
                $14::boolean[], $15::integer[], $16::float8[])
         AS a (n, question, player, seq, choice, elapsed_ms, correct, points, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
), changed AS (
    INSERT INTO session_changes (session_id, seq, kind, question, player, by_ms, locked, at)
    SELECT live.id, c.seq, c.kind, c.question, c.player, c.by_ms, c.locked,
           'epoch'::timestamptz + c.at * interval '1 ms'
    FROM unnest($17::bigint[], $18::integer[], $19::text[], $20::smallint[], $21::integer[], $22::bigint[],
                $23::boolean[], $24::float8[])
         AS c (n, seq, kind, question, player, by_ms, locked, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
), ended AS (
    UPDATE sessions SET finished_at = 'epoch'::timestamptz + f.at * interval '1 ms'
    FROM unnest($25::bigint[], $26::float8[]) AS f (n, at)
    JOIN live USING (n)
    WHERE sessions.id = live.id AND sessions.id = ANY ($1::uuid[]) AND sessions.finished_at IS NULL
), merged AS (
    INSERT INTO merged_answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
    SELECT live.id, m.question, m.player, m.seq, m.choice, m.elapsed_ms, m.correct, m.points,
           'epoch'::timestamptz + m.at * interval '1 ms'
    FROM unnest($27::bigint[], $28::smallint[], $29::integer[], $30::integer[], $31::jsonb[], $32::integer[],
                $33::boolean[], $34::integer[], $35::float8[])
         AS m (n, question, player, seq, choice, elapsed_ms, correct, points, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
)
SELECT n FROM live
"""
"""Locks the sessions whose epoch and owner still hold, writes the facts of those alone, and returns their
numbers. A database that has lost a claim may grant the same epoch to two owners.

A claim that got hold of a row first is waited for, and its new epoch is seen; one that comes later waits
until the facts are in. Facts that are there already change nothing. That the ids are said once more, as an
array, keeps the plan to the partitions in which they are, however many there have become.
"""

_PLAYER_COLUMNS = 4
_ANSWER_COLUMNS = 8
_CHANGE_COLUMNS = 7

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

    def columns(self) -> Sequence[Sequence[object]]:
        """One array a column, that of the numbers first."""
        return [self._numbers, *(zip(*self._rows, strict=True) if self._rows else [()] * self._columns)]


class Batch:
    """What one commit writes. Sessions are numbered from 1 in the order in which they were first added."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._players = _Table[PlayerRow](_PLAYER_COLUMNS)
        self._answers = _Table[AnswerRow](_ANSWER_COLUMNS)
        self._changes = _Table[ChangeRow](_CHANGE_COLUMNS)
        self._finished: dict[int, int] = {}
        self._merged = _Table[AnswerRow](_ANSWER_COLUMNS)

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
        """The numbers of the sessions that are missing from the result of `COMMIT`."""
        return set(self._numbers.values()) - {row["n"] for row in live}
