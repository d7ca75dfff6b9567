"""Results of sessions: rank, score and times of each player, from the view `standings`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from engine.aio import rest
from engine.ports import RESULTS_PER_SLICE, PlayerResult
from engine.storage.postgres import Connection, Database, Row

RESTS = 3.0
"""How long nothing is read after a slice, in times of what the slice took. Of a large session there are
hundreds of slices, and a request of somebody else takes some 25 turns of the loop: without rests it meets
one in each."""


async def read_results(
    database: Database,
    session_id: str,
    take: Callable[[Sequence[PlayerResult]], None],
    up_to: int | None,
) -> bool:
    """Give all results to `take`, a slice at a time, best first; with `up_to` as if no question after that
    had been answered. False when there are none."""
    sql, args = (RESULTS, ()) if up_to is None else (_RESULTS_UP_TO, (up_to,))

    async def read(connection: Connection) -> bool:
        cursor = await connection.cursor(sql, session_id, *args)
        found = False
        while rows := await cursor.fetch(RESULTS_PER_SLICE):
            began = time.perf_counter()
            take(_results(rows))
            found = True
            if len(rows) == RESULTS_PER_SLICE:
                await rest(RESTS * (time.perf_counter() - began))
        return found

    return await database.in_transaction(read)


async def players_in(database: Database, session_id: str) -> int:
    """How many have a result."""
    row = await database.fetchrow(_COUNT, session_id)
    return 0 if row is None else int(row["players"])


async def first_results(database: Database, session_id: str, count: int) -> Sequence[PlayerResult]:
    """The best."""
    return _results(await database.fetch(f"{RESULTS} LIMIT $2", session_id, count))


async def results_around(
    database: Database, session_id: str, player: int, reach: int
) -> Sequence[PlayerResult]:
    """The result of a player and those next to it; nothing for a player without one."""
    return _results(await database.fetch(_AROUND, session_id, player, reach))


async def results_by_player(
    database: Database, session_id: str, after: int, limit: int
) -> Sequence[PlayerResult]:
    """By the number of the player, from the one after `after` on."""
    return _results(await database.fetch(_BY_PLAYER, session_id, after, limit))


def _results(rows: Sequence[Row]) -> list[PlayerResult]:
    return [
        PlayerResult(rank, player, name, int(score), correct, answered, int(elapsed_ms))
        for rank, player, name, score, correct, answered, elapsed_ms in rows
    ]


RESULTS = """
SELECT rank, player, name, score, correct, answered, elapsed_ms
FROM standings WHERE session_id = $1
ORDER BY rank, elapsed_ms, player
"""

# Of a session that runs, where no answer is corrected yet.
_RESULTS_UP_TO = """
SELECT rank() OVER (ORDER BY score DESC) AS rank, player, name, score, correct, answered, elapsed_ms
FROM (
    SELECT s.player, s.name,
           s.score - coalesce(sum(a.points), 0) AS score,
           s.correct - count(*) FILTER (WHERE a.correct) AS correct,
           s.answered - count(a.player) AS answered,
           s.elapsed_ms - coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
    FROM standings s
    LEFT JOIN standing_answers a ON a.session_id = $1 AND a.player = s.number AND a.question > $2
    WHERE s.session_id = $1
    GROUP BY s.player, s.name, s.number, s.score, s.correct, s.answered, s.elapsed_ms
) AS shown
ORDER BY rank, elapsed_ms, player
"""

_BY_PLAYER = """
SELECT rank, player, name, score, correct, answered, elapsed_ms
FROM standings WHERE session_id = $1 AND player > $2
ORDER BY player LIMIT $3
"""

_AROUND = """
WITH placed AS (
    SELECT *, row_number() OVER (ORDER BY rank, elapsed_ms, player) AS place
    FROM standings WHERE session_id = $1
)
SELECT placed.rank, placed.player, placed.name, placed.score, placed.correct, placed.answered,
       placed.elapsed_ms
FROM placed JOIN placed me ON me.player = $2 AND placed.place BETWEEN me.place - $3 AND me.place + $3
ORDER BY placed.place
"""

_COUNT = """
SELECT count(*) AS players FROM players p
WHERE session_id = $1 AND NOT EXISTS (
    SELECT FROM removed_players k WHERE k.session_id = p.session_id AND k.player = p.player)
"""
