"""What tests of several suites share: a real PostgreSQL for the whole run, and an empty schema in it for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from engine.storage import schema
from engine.storage.aio import open_asyncio
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.postgres import Database

_schemas = count(1)


@pytest.fixture(scope="session")
def short_tmp_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="fanfare-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_dsn(short_tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL that runs until the end of the tests. Its default schema stays empty."""
    server = EmbeddedPostgres(short_tmp_path / "shared")
    yield server.start()
    server.stop("immediate")


@pytest.fixture
async def asyncio_loop() -> AsyncIterator[None]:
    async with open_asyncio():
        yield


@pytest.fixture
async def empty_dsn(asyncio_loop: None, postgres_dsn: str) -> str:
    """A place of its own in the shared server, without tables. Several connections may use it."""
    name = f"test_{next(_schemas)}"
    async with Database.open(postgres_dsn) as database:
        await database.execute(f"CREATE SCHEMA {name}")
    return f"{postgres_dsn}&search_path={name}"


@pytest.fixture
async def database_dsn(empty_dsn: str) -> str:
    """As `empty_dsn`, with the tables."""
    async with Database.open(empty_dsn) as database:
        await schema.apply(database)
    return empty_dsn


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    async with Database.open(database_dsn) as database:
        yield database
