"""Connections: whose doing an error is, and what cancellation leaves behind."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from engine.aio import call
from engine.ports import StorageUnavailable
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.postgres import Connection, Database, NotDurable, UniqueViolation
from server.cli.operate import doctor
from server.config.config import Config
from server.listening import StartError
from server.node import serve
from tests.counting import counted_timers
from tests.storage.gate import Gate


async def test_a_server_that_is_not_there_is_unavailable(asyncio_loop: None, tmp_path: Path) -> None:
    async with Database.open(f"postgresql://postgres@/postgres?host={tmp_path}") as database:
        with pytest.raises(StorageUnavailable):
            await database.fetch("SELECT 1")
        with pytest.raises(StorageUnavailable):
            await database.connection().fetch("SELECT 1")


async def test_a_port_that_refuses_is_unavailable(asyncio_loop: None, closed_port: int) -> None:
    async with Database.open(f"postgresql://postgres@127.0.0.1:{closed_port}/postgres") as database:
        with pytest.raises(StorageUnavailable, match=r"refused|Connect call failed"):
            await database.fetch("SELECT 1")


async def test_a_database_that_does_not_exist_is_named(asyncio_loop: None, postgres_dsn: str) -> None:
    async with Database.open(postgres_dsn.replace("/postgres?", "/nowhere?")) as database:
        with pytest.raises(StorageUnavailable, match='"nowhere" does not exist'):
            await database.fetch("SELECT 1")


async def test_a_server_that_does_not_answer_is_unavailable_after_a_while(database_dsn: str) -> None:
    async with Database.open(database_dsn, statement_timeout_s=0.05) as database:
        with pytest.raises(StorageUnavailable):
            await database.fetch("SELECT pg_sleep(10)")
        with pytest.raises(StorageUnavailable):
            await database.connection().fetch("SELECT pg_sleep(10)")
        assert len(await database.fetch("SELECT 1")) == 1


async def test_each_statement_has_its_own_time_however_long_after_another(database: Database) -> None:
    dedicated = database.connection()
    await dedicated.fetch("SELECT 1")
    for timeout_s in (0.3, 0.2, 0.25):
        await dedicated.fetch("SELECT 1", timeout_s=timeout_s)
        await trio.sleep(timeout_s / 2)
        began_s = trio.current_time()
        with pytest.raises(StorageUnavailable, match="no answer within"):
            await dedicated.fetch("SELECT pg_sleep(10)", timeout_s=timeout_s)
        assert trio.current_time() - began_s >= timeout_s
        assert len(await dedicated.fetch("SELECT 1", timeout_s=9)) == 1
    await dedicated.aclose()


async def test_waiting_while_others_use_all_connections_is_no_trouble(database_dsn: str) -> None:
    async with (
        Database.open(database_dsn, connections_max=1, connect_timeout_s=0.5) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(database.fetch, "SELECT pg_sleep(1.2)")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(database.fetch, "SELECT 1")


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("sql", ["SELECT 1/0", "SELEKT", "SELECT * FROM nowhere", "SELECT $1::int"])
async def test_mistakes_of_ours_are_not_taken_for_trouble(database: Database, sql: str) -> None:
    dedicated = database.connection()
    for fetch in (database.fetch, dedicated.fetch):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # any but the one
            await fetch(sql)
        assert not isinstance(caught.value, StorageUnavailable)
        assert len(await fetch("SELECT 1")) == 1
    await dedicated.aclose()


async def test_a_violated_constraint_passes_unchanged(database: Database) -> None:
    insert = "INSERT INTO nodes VALUES ('a', now())"
    await database.execute(insert)
    with pytest.raises(UniqueViolation):
        await database.execute(insert)


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute("INSERT INTO nodes VALUES ('a', now())")
        raise KeyError("given up")

    with pytest.raises(KeyError):
        await database.in_transaction(work)
    assert await database.fetch("SELECT FROM nodes") == []


async def test_a_lost_connection_is_replaced(database: Database) -> None:
    dedicated = database.connection()
    [mine] = await dedicated.fetch("SELECT pg_backend_pid() AS pid")
    [pooled] = await database.fetch("SELECT pg_backend_pid() AS pid")
    with pytest.raises(StorageUnavailable):
        await database.fetch(
            "SELECT pg_terminate_backend($1), pg_terminate_backend($2)", mine["pid"], pooled["pid"]
        )
    assert len(await database.fetch("SELECT 1")) == 1
    # The loss may be noticed before the next statement or by it.
    try:
        await dedicated.fetch("SELECT 1")
    except StorageUnavailable:
        assert len(await dedicated.fetch("SELECT 1")) == 1
    await dedicated.aclose()


async def test_a_statement_leaves_no_timer_in_the_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    dedicated = database.connection()
    await dedicated.fetch("SELECT 1")
    loop = await call(running_loop)
    timers = counted_timers(loop, monkeypatch)
    for _ in range(20):
        await dedicated.fetch("SELECT 1")
    assert timers == []
    await database.fetch("SELECT 1")
    assert timers, "a pool sets them: this test sees them"
    await dedicated.aclose()


async def running_loop() -> Any:
    return asyncio.get_running_loop()


# What may lose what it has committed


async def test_what_is_committed_outlives_a_crash_whatever_the_default_of_database_and_role_is(
    own_database: tuple[Database, str],
) -> None:
    outside, dsn = own_database
    await outside.execute("ALTER DATABASE careless SET synchronous_commit = off")
    await outside.execute("ALTER ROLE postgres IN DATABASE careless SET synchronous_commit = local")
    async with Database.open(dsn) as database:
        dedicated = database.connection()
        for fetch in (database.fetch, dedicated.fetch):
            assert [tuple(row) for row in await fetch("SHOW synchronous_commit")] == [("on",)]
        await dedicated.aclose()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_may_lose_what_it_has_committed_is_refused_until_it_is_mended(
    own_database: tuple[Database, str], tmp_path: Path, setting: str
) -> None:
    outside, dsn = own_database
    await outside.execute(f"ALTER SYSTEM SET {setting} = off")
    await outside.execute("SELECT pg_reload_conf()")
    async with Database.open(dsn) as database:
        dedicated = database.connection()
        for fetch in (database.fetch, dedicated.fetch):
            await _until_answer(fetch, f"{setting} is off, so a crash would lose answers")
        [told] = await doctor.database(Config(database_url=dsn))
        assert (told.state, setting in told.detail) == ("failed", True)
        with pytest.raises(ExceptionGroup) as caught:
            await serve(Config(database_url=dsn, http_port=0, realtime_port=0, data_dir=tmp_path))
        assert caught.group_contains(StartError, match=f"PostgreSQL at .*: {setting} is off")
        await outside.execute(f"ALTER SYSTEM RESET {setting}")
        await outside.execute("SELECT pg_reload_conf()")
        for fetch in (database.fetch, dedicated.fetch):
            await _until_answer(fetch, "terminating connection")
        [told] = await doctor.database(Config(database_url=dsn))
        assert told.state == "ok"
        await dedicated.aclose()


async def _until_answer(fetch: Callable[[str], Awaitable[object]], wanted: str) -> None:
    """Until a connection of its own is answered with this: a server reads its settings in its own time."""
    with trio.fail_after(10):
        while True:
            with pytest.raises(StorageUnavailable) as caught:
                await fetch("SELECT pg_terminate_backend(pg_backend_pid())")
            if wanted in str(caught.value):
                assert isinstance(caught.value, NotDurable) == ("off" in wanted)
                return
            await trio.sleep(0.01)


@pytest.fixture
async def own_database(asyncio_loop: None, short_tmp_path: Path) -> AsyncIterator[tuple[Database, str]]:
    """A server that is this test's alone, and the DSN of a database in it, `careless`. The connection to the
    server was made before anything is wrong with it."""
    server = EmbeddedPostgres(short_tmp_path / f"careless-{next(_servers)}")
    dsn = await trio.to_thread.run_sync(server.start)
    async with Database.open(dsn, connections_max=1) as outside:
        await outside.execute("CREATE DATABASE careless")
        yield outside, dsn.replace("/postgres?", "/careless?")
    await trio.to_thread.run_sync(server.stop, "immediate")


_servers = count(1)

FAREWELL = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to unexpected postmaster exit\0\0"
"""As PostgreSQL words it when its first process was killed."""


class Relay:
    """The way to the server. After `last_words` every answer of the server is followed at once by what it
    says before it closes a connection, without closing it yet: on a network the two come apart."""

    def __init__(self, dsn: str) -> None:
        asked = parse_qs(urlsplit(dsn).query)
        self._upstream = f"{asked['host'][0]}/.s.PGSQL.{asked['port'][0]}"
        self._clients: list[trio.SocketStream] = []
        self.last_words = False

    async def carry(self, client: trio.SocketStream) -> None:
        self._clients.append(client)
        async with client, await trio.open_unix_socket(self._upstream) as server, trio.open_nursery() as both:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in source:
                        parting = self.last_words and source is server
                        await sink.send_all(data + (self.farewell if parting else b""))
                both.cancel_scope.cancel()

            both.start_soon(pump, client, server)
            both.start_soon(pump, server, client)

    async def bid_farewell(self) -> None:
        """To all who are connected."""
        for client in self._clients:
            await client.send_all(self.farewell)
        await wait_all_tasks_blocked(0.05)

    @property
    def farewell(self) -> bytes:
        return b"E" + (len(FAREWELL) + 4).to_bytes(4, "big") + FAREWELL


@pytest.fixture
async def relayed(
    asyncio_loop: None, postgres_dsn: str, nursery: trio.Nursery
) -> AsyncIterator[tuple[Database, Relay]]:
    relay = Relay(postgres_dsn)
    [listener] = await nursery.start(partial(trio.serve_tcp, relay.carry, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    async with Database.open(f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable") as database:
        yield database, relay


async def test_a_farewell_between_two_statements_is_a_lost_connection(
    relayed: tuple[Database, Relay],
) -> None:
    database, relay = relayed
    dedicated = database.connection()
    for fetch in (database.fetch, dedicated.fetch):
        await fetch("SELECT 1")
    await relay.bid_farewell()
    for fetch in (database.fetch, dedicated.fetch):
        with pytest.raises(StorageUnavailable):
            await fetch("SELECT 1")
        assert len(await fetch("SELECT 1")) == 1
    await dedicated.aclose()


async def test_a_farewell_right_behind_an_answer_costs_only_the_connection(
    relayed: tuple[Database, Relay],
) -> None:
    database, relay = relayed
    dedicated = database.connection()
    for fetch in (database.fetch, dedicated.fetch):
        await fetch("SELECT 1")
        relay.last_words = True
        # Either the answer counts, or it is not known whether it does.
        with suppress(StorageUnavailable):
            assert len(await fetch("SELECT 1")) == 1
        relay.last_words = False
        with suppress(StorageUnavailable):
            await fetch("SELECT 1")
        assert len(await fetch("SELECT 1")) == 1
    await dedicated.aclose()


async def test_cancellation_leaves_every_connection_in_order(database_dsn: str) -> None:
    randomly = random.Random(7)
    async with Database.open(database_dsn, connections_max=3) as database:

        async def work(connection: Connection) -> None:
            await connection.execute("INSERT INTO nodes VALUES ('half-done', now())")
            await connection.fetch("SELECT pg_sleep(0.005)")
            raise KeyError("never committed")

        async def use() -> None:
            for _ in range(15):
                with trio.move_on_after(randomly.random() * 0.012):
                    await database.fetch("SELECT pg_sleep(0.004)")
                with trio.move_on_after(randomly.random() * 0.012):
                    with pytest.raises(KeyError):
                        await database.in_transaction(work)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(use)
        for n in range(20):
            [row] = await database.fetch("SELECT $1::int AS n", n)
            assert row["n"] == n
        assert await database.fetch("SELECT FROM nodes") == []
        [row] = await database.fetch(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        )
        assert row["n"] == 0


async def test_a_cancelled_query_does_not_wait_for_a_server_that_does_not_answer(
    asyncio_loop: None, database_dsn: str
) -> None:
    async with Gate(database_dsn).standing() as gate, Database.open(gate.dsn) as database:
        await database.fetch("SELECT 1")
        gate.set("frozen")
        began = trio.current_time()
        with trio.move_on_after(0.2):
            await database.fetch("SELECT 1")
        assert trio.current_time() - began < 2
        gate.set("open")
        assert len(await database.fetch("SELECT 1")) == 1


async def test_a_cancelled_dedicated_connection_starts_anew(database: Database) -> None:
    dedicated = database.connection()
    await dedicated.fetch("SELECT 1")
    with trio.move_on_after(0.01) as scope:
        await dedicated.fetch("SELECT pg_sleep(10)")
    assert scope.cancelled_caught
    assert len(await dedicated.fetch("SELECT 1")) == 1
    await dedicated.aclose()
    await dedicated.aclose()


async def test_calls_from_tasks_do_not_mix(database: Database) -> None:
    seen = []

    async def ask(n: int) -> None:
        [row] = await database.fetch("SELECT $1::int AS n", n)
        seen.append(row["n"] == n)

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(ask, n)
    assert seen == [True] * 50


async def test_a_look_may_take_longer_than_to_connect_and_one_that_was_cut_short_is_made_again(
    database_dsn: str, asyncio_loop: None
) -> None:
    looks: list[str] = []

    async def look(connection: Connection) -> None:
        looks.append("begun")
        await connection.execute("SELECT pg_sleep(0.6)")
        looks.append("ended")

    async with Database.open(database_dsn, look, connect_timeout_s=0.5) as database:
        dedicated = database.connection()
        with trio.move_on_after(0.2):
            await dedicated.fetch("SELECT 1")
        assert "ended" not in looks
        assert [row[0] for row in await dedicated.fetch("SELECT 1")] == [1]
        assert looks[-2:] == ["begun", "ended"]
        await dedicated.aclose()
