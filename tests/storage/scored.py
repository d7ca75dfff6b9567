"""Sessions of users, put straight into the tables, and leaderboards as an independent SQL has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

from engine.domain.settings import Settings
from engine.scores import Board
from engine.storage.postgres import Database

ZONE = "Europe/Berlin"
Answer = tuple[int, int]
"""Points and time of an answer."""


async def a_quiz(database: Database, quiz_id: str = "capitals") -> str:
    await database.execute(
        "INSERT INTO quizzes VALUES ($1, 1, $1, 'en', '{}', now()) ON CONFLICT DO NOTHING", quiz_id
    )
    return quiz_id


async def played(
    database: Database,
    plays: Mapping[str | None, Sequence[Answer]],
    at: datetime,
    quiz_id: str = "capitals",
    *,
    finished: bool = True,
) -> str:
    """A session in which each user (None is a guest) gave these answers. Returns its id."""
    await a_quiz(database, quiz_id)
    session_id = str(uuid4())
    await database.execute(
        "INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at) "
        "VALUES ($1, lpad((SELECT count(*) FROM sessions)::text, 6, '0'), $2, 1, $4, $3)",
        session_id,
        quiz_id,
        at - timedelta(minutes=10),
        json.dumps(Settings().to_dict()),
    )
    for player, (user_id, answers) in enumerate(plays.items(), start=1):
        await database.execute(
            "INSERT INTO players (session_id, player, name, joined_at, seq, user_id) "
            "VALUES ($1, $2, $3, $4, $2, $5)",
            session_id,
            player,
            f"{user_id or 'guest'} {player}",
            at,
            user_id,
        )
        for question, (points, elapsed_ms) in enumerate(answers, start=1):
            await database.execute(
                "INSERT INTO answers VALUES ($1, $2, $3, $4, '0', $5, $6, $7, $8)",
                session_id,
                question,
                player,
                1000 * player + question,
                elapsed_ms,
                points > 0,
                points,
                at,
            )
    if finished:
        await finish(database, session_id, at)
    return session_id


async def finish(database: Database, session_id: str, at: datetime) -> None:
    await database.execute("UPDATE sessions SET finished_at = $2 WHERE id = $1", session_id, at)


Line = tuple[int, str, int, int, int]
"""Rank, user, score, time, when it was reached."""


async def independent(database: Database, board: Board, zone: str = ZONE) -> list[Line]:
    """The whole leaderboard, straight from the facts."""
    days = {"day": 1, "week": 7, "all": 100_000}[board.period]
    scores = """
        SELECT p.user_id, s.quiz_id, s.id, s.finished_at, sum(coalesce(a.points, 0)) AS score,
               sum(coalesce(a.elapsed_ms, 0)) AS elapsed_ms
        FROM sessions s JOIN players p ON p.session_id = s.id
        LEFT JOIN answers a ON a.session_id = s.id AND a.player = p.player
        WHERE s.finished_at IS NOT NULL AND p.user_id IS NOT NULL AND ($1 = '' OR s.quiz_id = $1)
          AND NOT EXISTS (SELECT FROM session_changes c
                          WHERE c.session_id = s.id AND c.kind = 'kicked' AND c.player = p.player)
          AND (s.finished_at AT TIME ZONE $4)::date BETWEEN $2 AND $3
        GROUP BY 1, 2, 3, 4"""
    if board.rule == "best":
        counted = f"""SELECT DISTINCT ON (user_id) user_id, score, elapsed_ms, finished_at AS at
                      FROM ({scores}) AS s ORDER BY user_id, score DESC, elapsed_ms, finished_at"""
    else:
        counted = f"""SELECT user_id, sum(score) AS score, sum(elapsed_ms) AS elapsed_ms,
                             max(finished_at) AS at
                      FROM ({scores}) AS s GROUP BY user_id"""
    rows = await database.fetch(
        f"""SELECT rank() OVER (ORDER BY score DESC) AS rank, user_id, score, elapsed_ms,
                   (extract(epoch FROM at) * 1000)::bigint AS at
            FROM ({counted}) AS c ORDER BY score DESC, elapsed_ms, c.at, user_id COLLATE "C" """,
        board.quiz_id,
        board.starts_on,
        board.starts_on + timedelta(days=days - 1),
        zone,
    )
    return [
        (row["rank"], row["user_id"], int(row["score"]), int(row["elapsed_ms"]), row["at"]) for row in rows
    ]


def boards_of(rule: str, days: Sequence[date], quizzes: Sequence[str]) -> set[Board]:
    return {
        Board.of(rule, quiz_id, period, day)  # type: ignore[arg-type]
        for quiz_id in (*quizzes, "")
        for period in ("day", "week", "all")
        for day in days
    }


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
