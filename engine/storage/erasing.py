"""What is taken out of the database for good: sessions, names of players, and quizzes that nothing uses."""

from __future__ import annotations

import orjson

from engine.domain.facts import Fact, PlayerJoined, erased_name
from engine.domain.text import fold
from engine.ports import PlayerNotFound, SessionNotFound, SessionRunning
from engine.storage.postgres import Connection
from engine.storage.spool.codec import decode_facts, encode_facts

BESIDE = ("corrections", "corrected_answers", "merged_answers", "spooled_facts")
"""What is stored of few sessions only, and has no partitions. Each has a column session_id."""

_FACTS = ("answers", "session_changes", "players")
_TIMEOUT_S = 100.0
"""For each table: a session of 100,000 players has some millions of rows."""


async def delete_session(connection: Connection, session_id: str) -> None:
    """In a transaction. Raises SessionNotFound, SessionRunning."""
    row = await connection.fetchrow(
        "SELECT quiz_id, finished_at IS NOT NULL AS over FROM sessions WHERE id = $1 FOR UPDATE", session_id
    )
    if row is None:
        raise SessionNotFound(session_id)
    if not row["over"]:
        raise SessionRunning(session_id)
    for table in (*_FACTS, *BESIDE):
        await connection.execute(f"DELETE FROM {table} WHERE session_id = $1", session_id, timeout=_TIMEOUT_S)
    await connection.execute("DELETE FROM user_scores WHERE session_id = $1", session_id)
    await connection.execute("DELETE FROM sessions WHERE id = $1", session_id)
    await connection.execute("INSERT INTO deleted_sessions (session_id) VALUES ($1)", session_id)
    await empty_deleted_quizzes(connection, row["quiz_id"])


async def erase_player(connection: Connection, session_id: str, player: int) -> None:
    """In a transaction. Raises PlayerNotFound."""
    row = await connection.fetchrow(
        "SELECT name, user_id, erased_at IS NOT NULL AS erased FROM players "
        "WHERE session_id = $1 AND player = $2 FOR UPDATE",
        session_id,
        player,
    )
    if row is None:
        raise PlayerNotFound(player)
    if row["erased"]:
        return
    await connection.execute(
        "UPDATE players SET name = $3, user_id = NULL, erased_at = now() "
        "WHERE session_id = $1 AND player = $2",
        session_id,
        player,
        erased_name(player),
    )
    spooled = await connection.fetch(
        "SELECT id, facts::text AS facts FROM spooled_facts WHERE session_id = $1 FOR UPDATE", session_id
    )
    for part in spooled:
        facts = decode_facts(orjson.loads(part["facts"]))
        cleared = [_without_name(fact, row["name"], row["user_id"], player) for fact in facts]
        if cleared != facts:
            await connection.execute(
                "UPDATE spooled_facts SET facts = $2::jsonb WHERE id = $1",
                part["id"],
                orjson.dumps(encode_facts(cleared)).decode(),
            )


def _without_name(fact: Fact, name: str, user_id: str | None, player: int) -> Fact:
    """The fact of the same player loses name and user, whatever number an earlier owner had given: of a user
    the fact with the same user, of a guest that of a guest whose name is alike."""
    if not isinstance(fact, PlayerJoined) or fact.user_id != user_id:
        return fact
    if user_id is not None or fold(fact.name) == fold(name):
        return PlayerJoined(fact.seq, fact.at, fact.player, erased_name(player), erased=True)
    return fact


async def forget_deleted_sessions(connection: Connection) -> None:
    """Nobody who remembers one would put it back any more (`retained`)."""
    await connection.execute("DELETE FROM deleted_sessions WHERE deleted_at < now() - interval '3 days'")


async def empty_deleted_quizzes(connection: Connection, quiz_id: str | None = None) -> None:
    """Take out what is in the deleted versions that no session uses: of one quiz, or of all."""
    await connection.execute(_EMPTY, quiz_id)


_EMPTY = """
UPDATE quizzes q SET title = '', definition = 'null'
WHERE ($1::text IS NULL OR q.id = $1) AND q.deleted_at IS NOT NULL AND q.definition <> 'null'
  AND NOT EXISTS (SELECT FROM sessions s WHERE s.quiz_id = q.id AND s.quiz_version = q.version)
"""
