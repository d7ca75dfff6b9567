"""Leaderboards and the scores of users, read from PostgreSQL: each by an index, and bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from engine.scores import COUNTED_MAX, EMPTY, Board, Entry, Page
from engine.storage.postgres import Connection, Database, Row

FOREVER_MS = 4_000_000_000_000
"""Later than anybody finishes: milliseconds since the epoch, of the year 2096."""


@dataclass(frozen=True, slots=True)
class UserScore:
    """How a user did in one session. Times are milliseconds, `finished_at` since the epoch. `rank` and
    `players` are None until the session is over."""

    session_id: str
    quiz_id: str
    name: str
    score: int
    correct: int
    answered: int
    elapsed_ms: int
    rank: int | None
    players: int | None
    finished_at: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all plays of a user. `days` are the days in a row, up to today or yesterday, on which the user has
    finished a play; `days_best` is the longest such row."""

    plays: int
    score: int
    correct: int
    answered: int
    elapsed_ms: int
    days: int
    days_best: int


class Cursor(NamedTuple):
    """Where a page of scores ends."""

    finished_at: int
    session_id: str


class Seat(NamedTuple):
    """The player of a user in a session."""

    session_id: str
    player: int


class Leaderboards:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def day(self, zone: str) -> tuple[date, int]:
        """Today in this zone, and how many milliseconds of the day are left."""
        row = await self._database.fetchrow(_DAY, zone)
        assert row is not None
        return row["today"], int(row["left_ms"])

    async def number(self, board: Board) -> int | None:
        """Under which a leaderboard is stored, for good; None when it has had no entry yet."""
        row = await self._database.fetchrow(
            "SELECT id FROM leaderboards WHERE (rule, quiz_id, period, starts_on) = ($1, $2, $3, $4)",
            board.rule,
            board.quiz_id,
            board.period,
            board.starts_on,
        )
        return None if row is None else int(row["id"])

    async def entry(self, board: int, user_id: str) -> Entry | None:
        row = await self._database.fetchrow(f"{_ENTRIES} WHERE board = $1 AND user_id = $2", board, user_id)
        return None if row is None else entry_of(row)

    async def page(self, board: int, place: int, count: int) -> Page:
        """`place` is how many entries to leave out."""

        async def read(connection: Connection) -> Page:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            entries = [entry_of(row) for row in await connection.fetch(_PAGE, board, place, count)]
            total = await _counted(connection, board)
            if not entries:
                return Page((), None, None, total)
            return Page(entries, await _rank(connection, board, entries[0]), place, total)

        return await self._database.in_transaction(read)

    async def around(self, board: int, user_id: str, reach: int) -> Page:
        """The entry of a user, with as many as `reach` before and after it; no entries when there is none."""

        async def read(connection: Connection) -> Page:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            rows = await connection.fetch(_AROUND, board, user_id, reach)
            if not rows:
                return EMPTY
            entries = [entry_of(row) for row in rows]
            before = await connection.fetchval(_BEFORE, board, entries[0].user_id, COUNTED_MAX + 1)
            return Page(
                entries,
                await _rank(connection, board, entries[0]),
                None if before > COUNTED_MAX else int(before),
                await _counted(connection, board),
            )

        return await self._database.in_transaction(read)

    async def names(self, user_ids: Sequence[str]) -> dict[str, str]:
        """The latest name of each user."""
        rows = await self._database.fetch(_NAMES, list(user_ids))
        return {row["user_id"]: row["name"] for row in rows}

    async def scores(self, user_id: str, after: Cursor | None, limit: int) -> Sequence[UserScore]:
        """Newest first."""
        from_ms, from_id = after or Cursor(FOREVER_MS, "ffffffff-ffff-ffff-ffff-ffffffffffff")
        rows = await self._database.fetch(_SCORES, user_id, from_ms, from_id, limit)
        return [
            UserScore(
                str(row["session_id"]),
                row["quiz_id"],
                row["name"],
                row["score"],
                row["correct"],
                row["answered"],
                row["elapsed_ms"],
                row["rank"],
                row["players"],
                row["finished_at"],
            )
            for row in rows
        ]

    async def totals(self, user_id: str, today: date, zone: str) -> Totals:
        row = await self._database.fetchrow(_TOTALS, user_id, today, zone)
        assert row is not None
        return Totals(*(int(value) for value in row))

    async def seats(self, user_id: str, after: Seat | None, limit: int) -> Sequence[Seat]:
        """The players that this user is, in all sessions that are stored: from the one after `after` on."""
        rows = await self._database.fetch(_SEATS, user_id, *(after or _FIRST_SEAT), limit)
        return [Seat(str(row["session_id"]), row["player"]) for row in rows]


async def to_fill(connection: Connection, board: int, after: str, limit: int) -> list[Entry]:
    """asyncio-flavoured: entries by the ids of their users, from the one after `after` on."""
    rows = await connection.fetch(
        f"{_ENTRIES} WHERE board = $1 AND user_id > $2 ORDER BY user_id LIMIT $3", board, after, limit
    )
    return [entry_of(row) for row in rows]


def entry_of(row: Row) -> Entry:
    return Entry(row["user_id"], row["score"], row["elapsed_ms"], row["reached_at"])


async def _rank(connection: Connection, board: int, entry: Entry) -> int | None:
    higher: int = await connection.fetchval(_HIGHER, board, entry.score, COUNTED_MAX + 1)
    return None if higher > COUNTED_MAX else higher + 1


async def _counted(connection: Connection, board: int) -> int | None:
    total: int = await connection.fetchval(_COUNT, board, COUNTED_MAX + 1)
    return None if total > COUNTED_MAX else total


_FIRST_SEAT = Seat("00000000-0000-0000-0000-000000000000", 0)

_DAY = """
SELECT (now() AT TIME ZONE $1)::date AS today,
       extract(epoch FROM ((now() AT TIME ZONE $1)::date + 1)::timestamp AT TIME ZONE $1 - now()) * 1000
           AS left_ms
"""

_ENTRIES = """
SELECT user_id, score, elapsed_ms, (extract(epoch FROM reached_at) * 1000)::bigint AS reached_at
FROM leaderboard_entries
"""

_ORDER = "(-score), leaderboard_entries.elapsed_ms, leaderboard_entries.reached_at, user_id"

_PAGE = f"{_ENTRIES} WHERE board = $1 ORDER BY {_ORDER} OFFSET $2 LIMIT $3"

_HIGHER = """
SELECT count(*) FROM (
    SELECT FROM leaderboard_entries WHERE board = $1 AND (-score) < -$2::bigint LIMIT $3) AS higher
"""

_COUNT = "SELECT count(*) FROM (SELECT FROM leaderboard_entries WHERE board = $1 LIMIT $2) AS counted"

_BEFORE = """
SELECT count(*) FROM (
    SELECT FROM leaderboard_entries me, LATERAL (
        SELECT FROM leaderboard_entries e
        WHERE e.board = $1
          AND ((-e.score), e.elapsed_ms, e.reached_at, e.user_id)
            < ((-me.score), me.elapsed_ms, me.reached_at, me.user_id)
        LIMIT $3) AS before
    WHERE me.board = $1 AND me.user_id = $2) AS before
"""

_AROUND = """
WITH me AS MATERIALIZED (SELECT * FROM leaderboard_entries WHERE board = $1 AND user_id = $2),
near AS (
    SELECT * FROM me
    UNION ALL
    SELECT e.* FROM me, LATERAL (
        SELECT * FROM leaderboard_entries e
        WHERE e.board = $1
          AND ((-e.score), e.elapsed_ms, e.reached_at, e.user_id)
            < ((-me.score), me.elapsed_ms, me.reached_at, me.user_id)
        ORDER BY (-e.score) DESC, e.elapsed_ms DESC, e.reached_at DESC, e.user_id DESC LIMIT $3) AS e
    UNION ALL
    SELECT e.* FROM me, LATERAL (
        SELECT * FROM leaderboard_entries e
        WHERE e.board = $1
          AND ((-e.score), e.elapsed_ms, e.reached_at, e.user_id)
            > ((-me.score), me.elapsed_ms, me.reached_at, me.user_id)
        ORDER BY (-e.score), e.elapsed_ms, e.reached_at, e.user_id LIMIT $3) AS e
)
SELECT user_id, score, elapsed_ms, (extract(epoch FROM near.reached_at) * 1000)::bigint AS reached_at
FROM near ORDER BY (-score), near.elapsed_ms, near.reached_at, user_id
"""

_NAMES = """
SELECT w.user_id, n.name
FROM unnest($1::text[]) AS w (user_id), LATERAL (
    SELECT name FROM user_scores u WHERE u.user_id = w.user_id
    ORDER BY u.finished_at DESC, u.session_id DESC LIMIT 1) AS n
"""

_SCORES = """
SELECT session_id, quiz_id, name, score, correct, answered, elapsed_ms, rank, players,
       (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at
FROM user_scores
WHERE user_id = $1
  AND (user_scores.finished_at, session_id)
    < ('epoch'::timestamptz + $2::float8 * interval '1 ms', $3::uuid)
ORDER BY user_scores.finished_at DESC, session_id DESC LIMIT $4
"""

_TOTALS = """
WITH plays AS MATERIALIZED (
    SELECT score, correct, answered, elapsed_ms, (finished_at AT TIME ZONE $3)::date AS day
    FROM user_scores WHERE user_id = $1
), runs AS (
    SELECT max(day) AS last, count(*) AS days
    FROM (SELECT day, day - (row_number() OVER (ORDER BY day))::integer AS run
          FROM (SELECT DISTINCT day FROM plays) AS days) AS numbered
    GROUP BY run
)
SELECT count(*) AS plays, coalesce(sum(score), 0) AS score, coalesce(sum(correct), 0) AS correct,
       coalesce(sum(answered), 0) AS answered, coalesce(sum(elapsed_ms), 0) AS elapsed_ms,
       coalesce((SELECT max(days) FROM runs WHERE last >= $2::date - 1), 0) AS days,
       coalesce((SELECT max(days) FROM runs), 0) AS days_best
FROM plays
"""

_SEATS = """
SELECT session_id, player FROM players WHERE user_id = $1 AND (session_id, player) > ($2::uuid, $3::integer)
ORDER BY session_id, player LIMIT $4
"""
