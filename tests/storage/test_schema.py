"""The schema is applied once, whole, by one node at a time, and says what everything in it is."""

from __future__ import annotations

import pytest
import trio

from engine.storage.migrations import migrate
from engine.storage.postgres import Database

Empty = tuple[Database, str]


async def _version(database: Database) -> int:
    [row] = await database.fetch("SELECT max(version) AS version FROM schema_version")
    version: int = row["version"]
    return version


async def test_several_nodes_may_start_at_once(empty_database: Empty) -> None:
    database, _ = empty_database
    versions = []

    async def start() -> None:
        versions.append(await migrate.apply(database))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(start)
    assert versions == [len(migrate.STEPS)] * 5
    [row] = await database.fetch("SELECT count(*) AS n FROM schema_version")
    assert row["n"] == len(migrate.STEPS)


async def test_only_missing_steps_are_applied(empty_database: Empty) -> None:
    database, _ = empty_database
    assert await migrate.apply(database, ["CREATE TABLE a ()"]) == 1
    assert await migrate.apply(database, ["CREATE TABLE a ()", "CREATE TABLE b (); CREATE TABLE c ()"]) == 2
    assert await migrate.apply(database, ["CREATE TABLE a ()", "CREATE TABLE b (); CREATE TABLE c ()"]) == 2
    await database.fetch("SELECT FROM a, b, c")


async def test_a_step_that_fails_leaves_nothing(empty_database: Empty) -> None:
    database, _ = empty_database
    await migrate.apply(database, ["CREATE TABLE a ()"])
    with pytest.raises(Exception, match="syntax"):
        await migrate.apply(database, ["CREATE TABLE a ()", "CREATE TABLE b ()", "CREATE TABEL c ()"])
    assert await _version(database) == 1
    assert await migrate.apply(database, ["CREATE TABLE a ()", "CREATE TABLE b ()"]) == 2


async def test_a_newer_schema_is_left_alone(empty_database: Empty) -> None:
    database, _ = empty_database
    await migrate.apply(database, ["CREATE TABLE a ()", "CREATE TABLE b ()"])
    with pytest.raises(migrate.SchemaTooNew, match=r"schema version 2.*up to 1"):
        await migrate.apply(database, ["CREATE TABLE a ()"])


async def test_every_table_and_column_has_a_comment(database: Database) -> None:
    rows = await database.fetch(
        """
        SELECT c.relname || coalesce('.' || a.attname, '') AS name
        FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)
        """
    )
    assert [row["name"] for row in rows] == []
