"""All that is stored of a session, to look at it as a whole, and the correction of a key after its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from engine.domain.answer_keys import Correction
from engine.domain.audit import Evidence, Line
from engine.domain.facts import Fact
from engine.domain.rescoring import Mark, Rescore
from engine.domain.session_keys import is_id
from engine.ports import QuizCatalog, SessionNotFound, SessionRecord
from engine.storage.journal.rows import READ_FACTS, fact_of
from engine.storage.postgres import Connection, Database, Row
from engine.storage.results import RESULTS
from engine.storage.sessions import SELECT, record_of

_FACTS_PER_FETCH = 500
_SESSIONS_PER_FETCH = 500


class NotFinished(Exception):
    """The session still runs: its players see scores that a correction could not reach."""


class CorrectedMeanwhile(Exception):
    """Somebody else corrected the session after its evidence was read. Nothing has changed."""


class Corrections:
    """The quiz of a session comes from `catalog`."""

    def __init__(self, database: Database, catalog: QuizCatalog) -> None:
        self._database = database
        self._catalog = catalog

    async def evidence(self, session_id: str) -> tuple[SessionRecord, Evidence, dict[int, str]]:
        """The session, all that is stored of it at one moment, and the names of its players.

        Raises SessionNotFound.
        """
        if not is_id(session_id):
            raise SessionNotFound(session_id)

        async def read(
            connection: Connection,
        ) -> tuple[Row, list[Fact], list[Correction], dict[tuple[int, int], Mark], list[Row]]:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            row = await connection.fetchrow(f"{SELECT} WHERE id = $1", session_id)
            if row is None:
                raise SessionNotFound(session_id)
            facts: list[Fact] = []
            cursor = await connection.cursor(READ_FACTS, session_id, 0)
            while rows := await cursor.fetch(_FACTS_PER_FETCH):
                facts += map(fact_of, rows)
            corrections = [_correction(each) for each in await connection.fetch(_CORRECTIONS, session_id)]
            marks = {
                (each["question"], each["player"]): Mark(each["correct"], each["points"])
                for each in await connection.fetch(_CORRECTED, session_id)
            }
            return row, facts, corrections, marks, list(await connection.fetch(RESULTS, session_id))

        row, facts, corrections, marks, results = await self._database.in_transaction(read)
        record = record_of(row)
        stored = await self._catalog.get(record.quiz_id, record.quiz_version)
        quiz = record.settings.applied_to(stored.quiz)
        lines = [
            Line(
                each["rank"],
                each["player"],
                int(each["score"]),
                each["correct"],
                each["answered"],
                int(each["elapsed_ms"]),
            )
            for each in results
        ]
        names = {each["player"]: each["name"] for each in results}
        evidence = Evidence(
            quiz,
            record.created_at,
            record.finished_at,
            facts,
            corrections,
            marks,
            lines,
            record.settings,
        )
        return record, evidence, names

    async def created_since(self, since: int) -> AsyncIterator[str]:
        """The ids of all sessions created from then on, oldest first, as they are when their turn comes."""
        after: tuple[object, object] = (since, "00000000-0000-0000-0000-000000000000")
        while rows := await self._database.fetch(_SINCE, *after, _SESSIONS_PER_FETCH):
            for row in rows:
                yield str(row["id"])
            after = (rows[-1]["created_at"], rows[-1]["id"])

    async def correct(self, session_id: str, rescore: Rescore) -> None:
        """Store a correction that was worked out from the evidence.

        Raises NotFinished, CorrectedMeanwhile, SessionNotFound; nothing has changed then.
        """
        correction = rescore.correction

        async def write(connection: Connection) -> None:
            row = await connection.fetchrow(_LOCK, session_id)
            if row is None:
                raise SessionNotFound(session_id)
            if row["finished_at"] is None:
                raise NotFinished
            if await connection.fetchval(_COUNT, session_id) != correction.number - 1:
                raise CorrectedMeanwhile
            await connection.execute(
                _CORRECT,
                session_id,
                correction.number,
                correction.question,
                json.dumps(dict(correction.old_key), ensure_ascii=False),
                json.dumps(dict(correction.new_key), ensure_ascii=False),
                correction.by,
                correction.reason,
                correction.at,
            )
            await connection.execute("DELETE FROM corrected_answers WHERE session_id = $1", session_id)
            await connection.execute(
                _MARK,
                session_id,
                [question for question, _ in rescore.changed],
                [player for _, player in rescore.changed],
                [mark.correct for mark in rescore.changed.values()],
                [mark.points for mark in rescore.changed.values()],
            )

        await self._database.in_transaction(write)


def _correction(row: Row) -> Correction:
    return Correction(
        row["number"],
        row["question"],
        json.loads(row["old_key"]),
        json.loads(row["new_key"]),
        row["by"],
        row["reason"],
        row["at"],
    )


_CORRECTIONS = """
SELECT number, question, old_key::text AS old_key, new_key::text AS new_key, by, reason,
       (extract(epoch FROM at) * 1000)::bigint AS at
FROM corrections WHERE session_id = $1 ORDER BY number
"""

_CORRECTED = "SELECT question, player, correct, points FROM corrected_answers WHERE session_id = $1"

_SINCE = """
SELECT id, (extract(epoch FROM created_at) * 1000)::bigint AS created_at FROM sessions
WHERE (created_at, id) > ('epoch'::timestamptz + $1::float8 * interval '1 ms', $2::uuid)
ORDER BY sessions.created_at, id LIMIT $3
"""

_LOCK = "SELECT finished_at FROM sessions WHERE id = $1 FOR UPDATE"

_COUNT = "SELECT count(*) FROM corrections WHERE session_id = $1"

_CORRECT = """
INSERT INTO corrections (session_id, number, question, old_key, new_key, by, reason, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'epoch'::timestamptz + $8::float8 * interval '1 ms')
"""

_MARK = """
INSERT INTO corrected_answers (session_id, question, player, correct, points)
SELECT $1, * FROM unnest($2::smallint[], $3::integer[], $4::boolean[], $5::integer[])
"""
