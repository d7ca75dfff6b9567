"""Connections: whose doing an error is, and what cancellation leaves behind."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from engine.aio import call, open_asyncio
from engine.ports import StorageUnavailable
from engine.storage.postgres import Connection, Database, UniqueViolation
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


async def test_who_gives_up_does_not_wait_for_a_server_that_does_not_answer(
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


async def test_an_error_that_nobody_waits_for_any_more_is_logged_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def give_up() -> None:
        asyncio.get_running_loop().create_future().set_exception(ConnectionError("lost"))

    async with open_asyncio():
        await call(give_up)
        gc.collect()
        await wait_all_tasks_blocked()
        await call(asyncio.sleep, 0)
    assert "never retrieved: ConnectionError('lost')" in caplog.text


async def test_the_bridge_lets_no_other_error_pass() -> None:
    async def plan_a_mistake() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with open_asyncio():
            await call(plan_a_mistake)
            await trio.sleep_forever()


async def test_the_bridge_needs_its_block() -> None:
    async def nothing() -> None:
        pass

    with pytest.raises(RuntimeError):
        await call(nothing)
