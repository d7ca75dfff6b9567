"""What a page costs: the rows that PostgreSQL reads for it, whatever else is in the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from engine.storage import listing
from engine.storage.catalog import PostgresCatalog
from engine.storage.postgres import Connection, Database, Row
from tests.storage.making import AT, quiz_of

MANY = 400


class Explaining:
    """A database that explains a statement in place of answering it, planned as for a table so large that to
    read all of it is out of the question."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        async def work(connection: Connection) -> Sequence[Row]:
            for way in ("seqscan", "hashjoin", "mergejoin"):
                await connection.execute(f"SET LOCAL enable_{way} = off")
            return await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *args)

        return await self._database.in_transaction(work)


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in plan:
        yield plan
    for each in plan.get("Plans", []):
        yield from scans(each)


async def rows_read(database: Database, *args: Any) -> int:
    """Rows of quizzes that one page is made from, those that a filter throws away included."""
    [row] = await listing.quizzes_page(Explaining(database), "id", *args)  # type: ignore[arg-type]
    (plan,) = json.loads(next(iter(row)))
    return sum(
        round((each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) * each["Actual Loops"])
        for each in scans(plan["Plan"])
    )


async def _fill(database: Database) -> None:
    definition = json.dumps(quiz_of().to_dict())
    await database.execute(
        """
        INSERT INTO quizzes (id, version, title, language, definition, created_at, owner_id)
        SELECT 'q' || n, 1, 'Quiz ' || n, 'en', $1, now(), 'owner' || n % 20
        FROM generate_series(1, $2::int) AS n
        """,
        definition,
        MANY,
    )
    await database.execute("ANALYZE quizzes")


async def test_a_page_reads_what_is_on_it_and_not_the_whole_table(database: Database) -> None:
    await _fill(database)
    catalog = PostgresCatalog(database, lambda: AT)
    await catalog.add(quiz_of("Ünits of measure"), "units", "ada")
    middle = ("Quiz 2", "q")
    assert await rows_read(database, 10, middle, None, None) <= 40
    assert await rows_read(database, 10, None, ["ada"], None) <= 10
    assert await rows_read(database, 10, middle, ["owner3", None], None) <= 60
    assert await rows_read(database, 10, None, None, "üNITS") <= 10
    assert await rows_read(database, 10, None, ["ada", None], "üNITS") <= 10
    assert await rows_read(database, 10, None, None, "nothing like it") == 0


async def test_a_page_of_an_author_reads_few_of_many_quizzes_without_an_owner(database: Database) -> None:
    """Which come behind those of all other authors."""
    await _fill(database)
    await database.execute(
        """
        INSERT INTO quizzes (id, version, title, language, definition, created_at)
        SELECT 'z' || id, version, 'Z' || title, language, definition, created_at FROM quizzes
        """
    )
    await database.execute("ANALYZE quizzes")
    assert await rows_read(database, 10, None, ["owner3", None], None) <= 40


async def test_a_title_is_folded_whatever_the_locale_of_the_database(database: Database) -> None:
    both = [chr(code) for code in range(0x21, 0x2000) if chr(code).isalpha()]
    [row] = await database.fetch("SELECT fold_title($1) AS folded", "".join(both))
    for given, folded in zip(both, row["folded"], strict=True):
        assert folded in (given.lower(), given) if len(given.lower()) == 1 else folded == given
        if given.isascii() or 0xC0 <= ord(given) < 0x250:
            assert folded == (given.lower() if len(given.lower()) == 1 else given)


@pytest.mark.parametrize("text", ["", "a", "ab"])
async def test_short_texts_are_found_too(database: Database, text: str) -> None:
    catalog = PostgresCatalog(database, lambda: AT)
    await catalog.add(quiz_of("XAB"), "one")
    await catalog.add(quiz_of("none"), "other")
    found = [each.id for each in await catalog.page(9, title=text or None)]
    assert found == (["one"] if text else ["one", "other"])
