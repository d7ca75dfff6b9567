"""Scores of users made anew, and compared: with the facts, and leaderboards with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from engine.scores import Rule, is_kept
from engine.storage.postgres import Connection, Database, Row
from engine.storage.user_scores import EXPECTED, score_session


async def rebuild_session(database: Database, session_id: str) -> None:
    """Score a session anew, and have the leaderboards look at all scores of it again. Raises
    StorageUnavailable."""

    async def work(connection: Connection) -> None:
        await score_session(connection, session_id)
        await connection.execute(_LOOK_AGAIN, session_id)

    await database.in_transaction(work)


async def rebuild(
    database: Database, since: date | None, after: str | None, limit: int
) -> tuple[Sequence[str], bool]:
    """Rebuild up to `limit` sessions that are over, or have scores, in the order of their ids from the one
    after `after` on. Returns which, and whether there may be more. Raises StorageUnavailable."""
    rows = await database.fetch(_TO_REBUILD, since or date(1970, 1, 1), after or _FIRST, limit)
    for row in rows:
        await rebuild_session(database, str(row["id"]))
    return [str(row["id"]) for row in rows], len(rows) == limit


async def waiting(database: Database) -> int:
    """How many sessions and changes are on the lists."""
    row = await database.fetchrow(_WAITING)
    return 0 if row is None else int(row["waiting"])


async def wrong_scores(connection: Connection, session_id: str) -> list[tuple[Row | None, Row | None]]:
    """The scores of a session that are not what its facts say, as they are stored and as they should be.
    None of a session that waits to be scored, nor of one whose facts were dropped."""
    if not await connection.fetchval(_SCORED, session_id):
        return []
    stored = {row["user_id"]: row for row in await connection.fetch(_STORED, session_id)}
    expected = {row["user_id"]: row for row in await connection.fetch(EXPECTED, session_id)}
    return [
        (stored.get(user_id), expected.get(user_id))
        for user_id in sorted(stored.keys() | expected.keys())
        if _values(stored.get(user_id)) != _values(expected.get(user_id))
    ]


def _values(row: Row | None) -> tuple[object, ...] | None:
    return None if row is None else tuple(row)


async def wrong_entries(database: Database, rule: Rule, zone: str) -> tuple[int, int]:
    """How many entries of leaderboards are, or should be, there; and how many of them are not what the scores
    say. One leaderboard after another. Raises StorageUnavailable."""
    compared = wrong = 0
    today = await database.fetchrow("SELECT (now() AT TIME ZONE $1)::date AS today", zone)
    assert today is not None
    for board in await database.fetch("SELECT * FROM leaderboards WHERE rule = $1 ORDER BY id", rule):
        if not is_kept(board["period"], board["starts_on"], today["today"]):
            continue
        row = await database.fetchrow(
            _COMPARE[rule], board["id"], board["quiz_id"], board["period"], board["starts_on"], zone
        )
        assert row is not None
        compared += row["compared"]
        wrong += row["wrong"]
    return compared, wrong


_FIRST = "00000000-0000-0000-0000-000000000000"

_TO_REBUILD = """
(SELECT id FROM sessions WHERE id > $2::uuid AND created_at >= $1::date AND finished_at IS NOT NULL
 ORDER BY id LIMIT $3)
UNION
(SELECT session_id FROM user_scores WHERE session_id > $2::uuid AND finished_at >= $1::date
 GROUP BY session_id ORDER BY session_id LIMIT $3)
ORDER BY id LIMIT $3
"""

_LOOK_AGAIN = """
INSERT INTO score_changes (user_id, quiz_id, finished_at)
SELECT user_id, quiz_id, finished_at FROM user_scores WHERE session_id = $1 ORDER BY user_id
"""

_WAITING = """
SELECT (SELECT count(*) FROM unscored_sessions) + (SELECT count(*) FROM score_changes) AS waiting
"""

_SCORED = """
SELECT EXISTS (SELECT FROM sessions WHERE id = $1)
   AND NOT EXISTS (SELECT FROM unscored_sessions WHERE session_id = $1)
"""

_STORED = """
SELECT session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms, rank, players, finished_at
FROM user_scores WHERE session_id = $1
"""


def _compare(order: str, counted: str) -> str:
    return f"""
WITH counted AS (
    SELECT {counted}
    FROM user_scores
    WHERE ($2 = '' OR quiz_id = $2)
      AND ($3 = 'all' OR (finished_at AT TIME ZONE $5)::date >= $4::date
           AND (finished_at AT TIME ZONE $5)::date < $4::date + CASE $3 WHEN 'day' THEN 1 ELSE 7 END)
    {order}
)
SELECT count(*) AS compared,
       count(*) FILTER (WHERE (e.score, e.elapsed_ms, e.reached_at)
                           IS DISTINCT FROM (c.score, c.elapsed_ms, c.reached_at)) AS wrong
FROM (SELECT * FROM leaderboard_entries WHERE board = $1) AS e FULL JOIN counted c USING (user_id)
"""


_COMPARE: dict[Rule, str] = {
    "best": _compare(
        "ORDER BY user_id, score DESC, elapsed_ms, finished_at",
        "DISTINCT ON (user_id) user_id, score, elapsed_ms, finished_at AS reached_at",
    ),
    "sum": _compare(
        "GROUP BY user_id",
        "user_id, sum(score)::bigint AS score, sum(elapsed_ms)::bigint AS elapsed_ms, "
        "max(finished_at) AS reached_at",
    ),
}
"""Makes a whole leaderboard from the scores in another way than `_FOLLOW`, and compares."""
