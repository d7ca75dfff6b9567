"""Facts that came from a spool after another had taken their session, until its owner has merged them."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from engine.ports import SpooledFacts
from engine.storage.postgres import Database
from engine.storage.spool.codec import decode_facts


class PostgresSpooledFacts:
    """Port `SpooledFactsStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, owner: str) -> Sequence[str]:
        return [str(row["session_id"]) for row in await self._database.fetch(_WAITING, owner)]

    async def spooled(self, session_id: str) -> Sequence[SpooledFacts]:
        rows = await self._database.fetch(_SPOOLED, session_id)
        return [
            SpooledFacts(row["id"], row["epoch"], decode_facts(orjson.loads(row["facts"])), row["merged"])
            for row in rows
        ]

    async def set_merged(self, ids: Sequence[int]) -> None:
        await self._database.execute(
            "UPDATE spooled_facts SET merged_at = now() WHERE id = ANY($1) AND merged_at IS NULL", ids
        )


# An unfinished session whose owner is gone gets another one, who sees to it.
_WAITING = """
SELECT DISTINCT f.session_id
FROM spooled_facts f
JOIN sessions s ON s.id = f.session_id
LEFT JOIN nodes n ON n.node = s.owner
WHERE f.merged_at IS NULL
  AND (s.owner = $1
       OR f.put_at < now() - interval '5 seconds'
          AND (s.owner IS NULL
               OR s.finished_at IS NOT NULL AND coalesce(n.lease_until <= clock_timestamp(), true)))
"""

_SPOOLED = """
SELECT id, epoch, facts::text AS facts, merged_at IS NOT NULL AS merged
FROM spooled_facts WHERE session_id = $1 ORDER BY id
"""
