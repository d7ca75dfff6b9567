"""Applies the steps of the schema: the files `0001_*.sql`, `0002_*.sql` and so on beside this module.

Each step is applied once, in the order of the numbers. Nodes may start at the same time: an advisory lock
lets one node at a time look and apply. All missing steps are applied in one transaction. A released step is
never edited; a change of the schema is a new step.

A step may be applied while another node writes. The step waits for each table lock for a second at most,
because all other statements queue up behind a waiting lock. After that the transaction is rolled back, the
other statements get through, and the runner tries again.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import trio

from engine.ports import StorageUnavailable
from engine.storage.postgres import Connection, Database, LockNotAvailable

_LOCK = 0x66616E66617265  # "fanfare"

_LOCK_TRIES = 30
_LOCK_PAUSE_S = 0.5
_STEP_TIMEOUT_S = 3600.0


def _steps() -> tuple[str, ...]:
    folder = resources.files("engine.storage.migrations")
    files = [each for each in folder.iterdir() if each.name.endswith(".sql")]
    return tuple(each.read_text("utf-8") for each in sorted(files, key=lambda each: each.name))


STEPS: Sequence[str] = _steps()
"""The text of each step, by its number less one."""


OLDEST_BESIDE = 1
"""A release whose schema is at least this may still write to a database that this one has brought up to date:
so nodes of both run side by side during an upgrade."""


class SchemaTooNew(Exception):
    """The database was last used by a newer release, which this one must not write to."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the database has schema version {found}, this release knows versions up to {known}: "
            "run a release at least as new as the one that used the database last"
        )
        self.found = found
        self.known = known


async def apply(database: Database, steps: Sequence[str] = STEPS) -> int:
    """Bring the database up to date and return its version. Safe from several nodes at once, and again.

    Raises SchemaTooNew and StorageUnavailable; nothing has changed then.
    """
    for _ in range(_LOCK_TRIES - 1):
        try:
            return await _apply(database, steps)
        except StorageUnavailable as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
        await trio.sleep(_LOCK_PAUSE_S)
    return await _apply(database, steps)


async def version(database: Database) -> int:
    """How many steps have been applied; 0 in an empty database. Raises StorageUnavailable."""

    async def work(connection: Connection) -> int:
        if await connection.fetchval("SELECT to_regclass('schema_version') IS NULL"):
            return 0
        return await _found(connection)

    return await database.in_transaction(work)


async def _apply(database: Database, steps: Sequence[str]) -> int:
    async def work(connection: Connection) -> int:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=_STEP_TIMEOUT_S)
        await connection.execute(_VERSION_TABLE)
        found = await _found(connection)
        if found > len(steps):
            raise SchemaTooNew(found, len(steps))
        await connection.execute("SET LOCAL lock_timeout = '1s'")
        for version, step in enumerate(steps[found:], start=found + 1):
            await connection.execute(step, timeout=_STEP_TIMEOUT_S)
            await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", version)
        return len(steps)

    return await database.in_transaction(work)


async def _found(connection: Connection) -> int:
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_version")
    return version


_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_version IS 'The steps of the schema that have been applied.';
COMMENT ON COLUMN schema_version.version IS 'Number of the step, from 1.';
COMMENT ON COLUMN schema_version.applied_at IS 'When it was applied.';
"""
