"""The schema is applied once, whole, by one node at a time, and says what everything in it is."""

from __future__ import annotations

from hashlib import sha256
from importlib import resources

import pytest
import trio

from engine.storage.migrations import migrate
from engine.storage.postgres import Database
from engine.storage.session_ids import TIME_MAX_MS, first_id

RELEASED = {
    "0001_quizzes_sessions_and_facts.sql": (
        "20de8965a8df3519d1a9f0b2ce1d6b995a2f2e3d18a8c6e715f231f40b3ba4fd"
    ),
    "0002_partitions_by_session_id.sql": ("91e773d27b169cdd5373fd25e2fc2b1cc8f518d65c8cd8cb7c8b7cfab92f909e"),
    "0003_corrections.sql": ("ab8e73dbb80929ed2899dbbe43c17facdf1ba5997d6b2318eeb0b5c333329809"),
    "0004_spooled_facts.sql": ("f3438e16a2d9f5d3d2871aca227de29b23ceb56eed421bf92b91efb6a4b83d88"),
    "0005_leases.sql": ("f8fd068db0a5bb802bfa7ca6b681c3a2487154ae3edb1011a545a07f001b7422"),
    "0006_erasing.sql": ("dc878aa7fe3890e4bff4be14a72c69956382f296b790fadaacfd5e7fdf77d3ab"),
    "0007_skipped_questions_and_readmitted_players.sql": (
        "cb786fa35dcbae260cf4a6c6c829d93fe7d3d83d2f90a63de11967ca43ae63e8"
    ),
    "0008_users.sql": ("394f94fa9ae3f3fbd69fcc49cf646ab4ed01c6a5076270a8ab73516dcc19ff7e"),
    "0009_owners_and_lists.sql": ("cc57cea50c2e0ccb8f407c6dcb0c732dd308d55c67df3f491f461715a7317d1b"),
    "0010_scores_of_users.sql": ("6ef748b98ca32b34fb614337256f0a563d1b1853dbd97374fbe9b9135a1778f3"),
    "0011_extra_time.sql": ("6bb3fe7d25bd8b8f7c603bde18002a3241b39a20b47340036c6f668bd60b649d"),
    "0012_self_paced_sessions.sql": ("5f1645f99a82f3ca51343f45d942fc63c42d538af551d333bb09d364bd46b7fe"),
    "0013_scores_of_self_paced_players.sql": (
        "1a6757cdb01f137db0d3d5d8bf4a538dc023e1b3c2da5ac6e79a6c3bfe02c4ee"
    ),
    "0014_scores_tell_nothing_early.sql": (
        "6f596a391306be0d49acff56ac6f9e96f8f26f5086e3a287a318324898095ba7"
    ),
    "0015_scores_of_removed_players.sql": (
        "ef59592d28b8105addfc023a43fae3e2db6e37c55040d7e438b76d6957e77a3e"
    ),
    "0016_quizzes_without_an_owner.sql": ("caf8a9eff3fb7b41fc72029b9b8643434f91adff878059c2ff2080a3dc272738"),
    "0017_attempts.sql": ("9b74194635ecc8dc85c11d1597b74ffe5a106dc612fb26be9c8970a5d326e6e9"),
}
"""A released step is never edited: databases that have applied it would stay as they are, and differ from new
ones. Change the schema with a new file, and add the hash of that file here."""

Empty = tuple[Database, str]


async def _version(database: Database) -> int:
    [row] = await database.fetch("SELECT max(version) AS version FROM schema_version")
    version: int = row["version"]
    return version


def test_a_released_step_is_never_edited() -> None:
    folder = resources.files("engine.storage.migrations")
    files = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.endswith(".sql")}
    assert {name: sha256(files[name]).hexdigest() for name in sorted(files)} == RELEASED


def test_the_files_are_numbered_without_a_gap_and_are_the_steps_in_this_order() -> None:
    assert [name[:5] for name in RELEASED] == [f"{n:04}_" for n in range(1, len(RELEASED) + 1)]
    texts = [text.encode() for text in migrate.STEPS]
    assert [sha256(text).hexdigest() for text in texts] == list(RELEASED.values())


def test_the_step_to_partitions_and_the_ids_agree_on_where_the_ids_of_earlier_releases_begin() -> None:
    assert f"FROM ('{first_id(TIME_MAX_MS)}') TO (MAXVALUE)" in migrate.STEPS[1]


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
