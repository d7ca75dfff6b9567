"""The rows of `user_scores`, made out of the facts: each in one statement, which may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.storage.postgres import Connection, Database

_TIMEOUT_S = 100.0
"""A session of 100,000 players has a million answers."""


async def score_session(connection: Connection, session_id: str) -> None:
    """In a transaction: make the rows of `user_scores` of a session what the facts say, for those who have
    finished. Repeated, it changes nothing. A session that is not stored keeps the rows that it has."""
    # Two who score the same session must not overtake each other: each looks after it has the lock.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 9))", session_id)
    await connection.execute(_SCORE, session_id, timeout=_TIMEOUT_S)


async def score_players(
    connection: Connection, session_id: str, players: Sequence[int], finished_at: Sequence[datetime | None]
) -> None:
    """In a transaction: make the rows of players who are through with an attempt, of a session that runs on;
    whoever was removed has none. `players` has the numbers of these attempts: what each has scored is read by
    an index, since a session may have a million players, and replaces the row if it is better. Where
    `finished_at` is None, all attempts of the player are looked through, which takes longer. In a session
    that is over, nothing changes."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 9))", session_id)
    await connection.execute(_SCORE_PLAYERS, session_id, players, finished_at)


async def forget_user(database: Database, user_id: str) -> int:
    """Delete all scores of a user. Returns how many there were. The leaderboards follow."""
    row = await database.fetchrow(_FORGET, user_id)
    return 0 if row is None else int(row["gone"])


EXPECTED = """
SELECT DISTINCT ON (user_id) session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms, rank,
       players, finished_at
FROM (
    SELECT s.session_id, f.user_id, f.quiz_id, s.name, s.score, s.correct, s.answered, s.elapsed_ms,
           s.rank, count(*) OVER () AS players, f.finished_at, s.number
    FROM standings s
    LEFT JOIN finished_plays f ON f.session_id = s.session_id AND f.number = s.number
    WHERE s.session_id = $1 AND (SELECT finished_at IS NOT NULL FROM sessions WHERE id = $1)
    UNION ALL
    SELECT a.session_id, f.user_id, f.quiz_id, a.name, a.score, a.correct, a.answered, a.elapsed_ms,
           NULL, NULL, f.finished_at, a.number
    FROM attempt_scores a
    JOIN finished_plays f ON f.session_id = a.session_id AND f.number = a.number
    WHERE a.session_id = $1 AND (SELECT finished_at IS NULL FROM sessions WHERE id = $1)
) AS standing
WHERE user_id IS NOT NULL AND finished_at IS NOT NULL
ORDER BY user_id, score DESC, elapsed_ms, number
"""
"""What `user_scores` should have of a session: while it runs, of the attempts alone that players are through
with. If a merge has given a user two seats, the better counts."""

_SCORE = f"""
WITH there AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM sessions WHERE id = $1) AS session,
           EXISTS (SELECT FROM players WHERE session_id = $1 AND user_id IS NOT NULL) AS users
), expected AS MATERIALIZED (
    SELECT e.* FROM there, LATERAL ({EXPECTED}) AS e WHERE there.users
), gone AS (
    DELETE FROM user_scores u USING there
    WHERE there.session AND u.session_id = $1
      AND NOT EXISTS (SELECT FROM expected e WHERE e.user_id = u.user_id)
)
INSERT INTO user_scores AS u (session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms, rank,
                              players, finished_at)
SELECT session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms, rank, players, finished_at
FROM expected ORDER BY user_id
ON CONFLICT (session_id, user_id) DO UPDATE
SET (quiz_id, name, score, correct, answered, elapsed_ms, rank, players, finished_at)
  = (excluded.quiz_id, excluded.name, excluded.score, excluded.correct, excluded.answered,
     excluded.elapsed_ms, excluded.rank, excluded.players, excluded.finished_at)
WHERE u.* IS DISTINCT FROM excluded.*
"""

_SCORE_PLAYERS = """
WITH wanted AS (
    SELECT s.id AS session_id, s.quiz_id, n.user_id, n.name, n.number,
           CASE WHEN w.finished_at IS NOT NULL THEN w.finished_at ELSE (
               SELECT max(d.at) FROM session_changes d
               WHERE d.session_id = $1::uuid AND d.kind = 'done' AND d.player = n.number) END AS finished_at,
           EXISTS (SELECT FROM removed_players k WHERE k.session_id = n.session_id AND k.player = n.player)
               AS removed,
           jsonb_array_length(q.definition -> 'questions') AS questions
    FROM unnest($2::integer[], $3::timestamptz[]) AS w (player, finished_at)
    CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT c.player FROM session_changes c
            WHERE c.session_id = $1::uuid AND c.kind = 'attempt' AND c.by_ms = w.player), w.player) AS id
    ) AS whose
    CROSS JOIN LATERAL (
        SELECT * FROM attempts
        WHERE session_id = $1::uuid AND player = whose.id AND (number = w.player OR w.finished_at IS NULL)
        OFFSET 0 -- so that each is looked up, and not all attempts of the session read
    ) AS n
    JOIN sessions s ON s.id = $1::uuid
    JOIN quizzes q ON q.id = s.quiz_id AND q.version = s.quiz_version
    WHERE s.finished_at IS NULL AND n.user_id IS NOT NULL
), gone AS (
    DELETE FROM user_scores u USING wanted w
    WHERE w.removed AND u.session_id = w.session_id AND u.user_id = w.user_id
), scored AS (
    SELECT DISTINCT ON (w.user_id) w.*, t.*
    FROM (SELECT * FROM wanted WHERE NOT removed AND finished_at IS NOT NULL) AS w, LATERAL (
        SELECT coalesce(sum(a.points), 0) AS score, count(*) FILTER (WHERE a.correct) AS correct,
               count(a.player) AS answered, coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
        FROM generate_series(1, w.questions) AS asked (question)
        JOIN standing_answers a
            ON a.session_id = $1::uuid AND a.question = asked.question::smallint AND a.player = w.number) AS t
    ORDER BY w.user_id, t.score DESC, t.elapsed_ms, w.number
)
INSERT INTO user_scores AS u (session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms,
                              finished_at)
SELECT session_id, user_id, quiz_id, name, score, correct, answered, elapsed_ms, finished_at
FROM scored ORDER BY user_id
ON CONFLICT (session_id, user_id) DO UPDATE
SET (name, score, correct, answered, elapsed_ms, finished_at)
  = (excluded.name, excluded.score, excluded.correct, excluded.answered, excluded.elapsed_ms,
     excluded.finished_at)
WHERE (excluded.score, u.elapsed_ms) > (u.score, excluded.elapsed_ms)
"""

_FORGET = """
WITH gone AS (DELETE FROM user_scores WHERE user_id = $1 RETURNING 1)
SELECT count(*) AS gone FROM gone
"""
