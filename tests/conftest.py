"""What suites of tests share: a PostgreSQL and a Redis for the whole run, and a schema for each test."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from math import inf
from pathlib import Path

import psutil
import pytest
import trustme
from hypothesis import HealthCheck, settings

from engine.actors.delivery import fanout
from engine.aio import open_asyncio
from engine.shards.embedded_redis import EmbeddedRedis
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.migrations import migrate
from engine.storage.postgres import Database
from tests.e2e.node import with_postgres

# A machine that is busy with other things must not fail a property: no example has a time limit.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made, and none of them is garbage: to look for it among them would cost each
    process a second now, and each test that looks for garbage as much again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


_numbers = count(1)

MEMORY = "/dev/shm"
ROOM_BYTES = 4 << 30


def _keep_data_in_memory() -> None:
    """Databases and spools of the tests, where there is room: dozens of database clusters are copied, and
    every commit is synced. Tests end processes and not the machine, so what was synced is as safe here. What
    pytest keeps after a run stays on the disk."""
    if "TMPDIR" in os.environ or not Path(MEMORY).is_dir():
        return
    if min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ["TMPDIR"] = tempfile.tempdir = MEMORY


_keep_data_in_memory()


# Reads until the tests have ended, however they do: a server would outlive tests that are killed.
_CLEAN_UP = """
cat
for file in "$0"/*/postgres/postmaster.pid; do
    if test -e "$file"; then kill -QUIT "$(head -n 1 "$file")"; fi
done
for attempt in 1 2 3 4 5; do rm -rf "$0" && break; sleep 0.2; done
"""


@pytest.fixture(scope="session")
def short_tmp_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name. Servers of data directories in it are stopped
    at the end."""
    path = Path(tempfile.mkdtemp(prefix="fanfare-"))
    with subprocess.Popen(
        ["sh", "-c", _CLEAN_UP, path], stdin=subprocess.PIPE, start_new_session=True
    ) as cleaner:
        yield path
        assert cleaner.stdin is not None
        cleaner.stdin.close()


@pytest.fixture(scope="session")
def postgres_dsn(short_tmp_path: Path) -> str:
    """A PostgreSQL that runs until the end of the tests. Its default schema stays empty."""
    return EmbeddedPostgres(with_postgres(short_tmp_path / "shared")).start()


@asynccontextmanager
async def fresh_database(postgres_dsn: str, *, tables: bool = True) -> AsyncIterator[tuple[Database, str]]:
    """A schema of its own in the server, and its DSN. Needs `open_asyncio()` around it."""
    name = f"test_{next(_numbers)}"
    dsn = f"{postgres_dsn}&search_path={name}"
    async with Database.open(dsn) as database:
        await database.execute(f"CREATE SCHEMA {name}")
        if tables:
            await migrate.apply(database)
        yield database, dsn


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For localhost: the files of the chain, which ends with an authority of its own, and of the key."""
    directory = tmp_path_factory.mktemp("tls")
    chain, key = directory / "chain.pem", directory / "key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    authority.cert_pem.write_to_path(chain, append=True)
    return chain, key


@pytest.fixture(autouse=True)
def whole_broadcasts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time is virtual, how fast the machine is must not decide where a broadcast gives way: it goes
    out in one slice, unless the test says how long a slice is."""
    if "mock_clock" in request.fixturenames or "autojump_clock" in request.fixturenames:
        monkeypatch.setattr(fanout, "SLICE_S", inf)


@pytest.fixture
async def asyncio_loop() -> AsyncIterator[None]:
    async with open_asyncio():
        yield


@pytest.fixture
async def empty_database(asyncio_loop: None, postgres_dsn: str) -> AsyncIterator[tuple[Database, str]]:
    """A database without tables, and its DSN."""
    async with fresh_database(postgres_dsn, tables=False) as found:
        yield found


@pytest.fixture
async def database_and_dsn(asyncio_loop: None, postgres_dsn: str) -> AsyncIterator[tuple[Database, str]]:
    async with fresh_database(postgres_dsn) as found:
        yield found


@pytest.fixture
async def database(database_and_dsn: tuple[Database, str]) -> Database:
    """An empty database with its tables."""
    return database_and_dsn[0]


@pytest.fixture
async def database_dsn(database_and_dsn: tuple[Database, str]) -> str:
    """How to reach `database` from elsewhere."""
    return database_and_dsn[1]


@pytest.fixture(scope="session")
def redis_url(short_tmp_path: Path) -> Iterator[str]:
    """A Redis that runs until the end of the tests. Use a name of a cluster that nobody else uses."""
    server = EmbeddedRedis(short_tmp_path / "redis")
    yield server.start()
    server.stop()


@pytest.fixture
def cluster() -> str:
    """A name for the cluster of one test."""
    return f"test-{next(_numbers)}"
