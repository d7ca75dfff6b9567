"""What a page of a long list of quizzes costs: by keyset, by owner, and by a text in the title.

As many quizzes as a service of thousands of authors has are in one PostgreSQL. Each figure is of the whole
question, from the catalog and back. Before anything is measured, it is made sure of each that its plan reads
no table from beginning to end.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import trio

from bench.figures import Figure, percentile
from engine.aio import open_asyncio
from engine.ports import Owners
from engine.storage import listing
from engine.storage.catalog import PostgresCatalog
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.migrations import migrate
from engine.storage.postgres import Database, Row
from tests.storage.making import AT, quiz_of

QUIZZES = 100_000
OWNERS = 2_000
CALLS = 300
PAGE = 50
WORDS = [
    "rivers",
    "capitals",
    "numbers",
    "verbs",
    "history",
    "planets",
    "animals",
    "music",
    "colours",
    "measures",
    "poems",
    "cities",
    "bones",
    "trees",
    "islands",
    "painters",
    "inventions",
    "fractions",
    "idioms",
    "flags",
]

_FILL = """
INSERT INTO quizzes (id, version, title, language, definition, created_at, owner_id)
SELECT 'q' || n, 1,
       initcap(($2::text[])[1 + n::bigint * 7919 % $3]) || ' and '
           || ($2::text[])[1 + n::bigint * 104729 % $3] || ' ' || n,
       'en', $1, now(), CASE WHEN n % 10 = 0 THEN NULL ELSE 'owner' || n % $4 END
FROM generate_series($5::int, $6::int) AS n
"""

Ask = Callable[[int], tuple[tuple[str, str] | None, Owners, str | None]]
"""By the number of the question: from where on, of whom, and with what in the title."""


class _Explaining:
    """A database that explains a statement in place of answering it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        return await self._database.fetch(f"EXPLAIN (FORMAT JSON) {sql}", *args)


def _scans(plan: dict[str, Any]) -> Iterator[str]:
    if plan.get("Relation Name") == "quizzes":
        yield plan["Node Type"]
    for each in plan.get("Plans", []):
        yield from _scans(each)


async def fill(database: Database, quizzes: int) -> None:
    definition = json.dumps(quiz_of().to_dict())
    for first in range(1, quizzes + 1, 10_000):
        last = min(first + 9_999, quizzes)
        await database.execute(_FILL, definition, WORDS, len(WORDS), OWNERS, first, last)
    await database.execute("VACUUM ANALYZE quizzes")


def questions(quizzes: int, rng: Random) -> dict[str, Ask]:
    """What is asked for, by what it is called."""

    def anywhere() -> tuple[str, str]:
        return f"{rng.choice(WORDS).title()} and {rng.choice(WORDS)}", "q"

    return {
        "the first page": lambda _: (None, None, None),
        "a page in the midst": lambda _: (anywhere(), None, None),
        "an author's, and those without owner": lambda n: (None, [f"owner{n % OWNERS}", None], None),
        "a text that one title has": lambda _: (None, None, f" {rng.randint(quizzes // 2, quizzes)}"),
        "a text that no title has": lambda _: (None, None, "no such thing"),
        "a word that one title of ten has": lambda n: (None, None, WORDS[n % len(WORDS)].upper()),
        "two words that one title of 400 has": lambda n: (
            None,
            None,
            f"{WORDS[n % len(WORDS)]} and {WORDS[n // len(WORDS) % len(WORDS)]}",
        ),
    }


async def measure(directory: Path, quizzes: int, calls: int) -> list[Figure]:
    server = EmbeddedPostgres(directory)
    dsn = await trio.to_thread.run_sync(server.start)
    try:
        async with open_asyncio(), Database.open(dsn, statement_timeout_s=120.0) as database:
            await migrate.apply(database)
            await fill(database, quizzes)
            catalog = PostgresCatalog(database, lambda: AT)
            at = f"{quizzes:,} quizzes"
            figures: list[Figure] = []
            for what, ask in questions(quizzes, Random(1)).items():
                explaining: Any = _Explaining(database)
                [row] = await listing.quizzes_page(explaining, "id", PAGE, *ask(0))
                ways = set(_scans(json.loads(next(iter(row)))[0]["Plan"]))
                assert quizzes < QUIZZES or "Seq Scan" not in ways, f"{what}: {ways}"
                times_ms = []
                for n in range(calls):
                    asked = ask(n)
                    began = time.perf_counter()
                    await catalog.page(PAGE, *asked)
                    times_ms.append(1e3 * (time.perf_counter() - began))
                figures += [
                    Figure(f"{what}, p{percent}", at, percentile(times_ms, percent / 100), "ms")
                    for percent in (50, 99)
                ]
            return figures
    finally:
        await trio.to_thread.run_sync(server.stop)


def run(quizzes: int = QUIZZES, calls: int = CALLS) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as directory:
        return trio.run(partial(measure, Path(directory), quizzes, calls))
