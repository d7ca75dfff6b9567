"""Asking the database from outside who runs a session, or ran it."""

from __future__ import annotations

from engine.aio import open_asyncio
from engine.storage.catalog import PostgresCatalog
from engine.storage.sessions import PostgresSessionStore
from server.cli.operate.sql import owners_of
from tests.conftest import fresh_database
from tests.storage.making import AT, EVERY_KIND, record_of


async def test_the_owner_is_told_also_after_it_has_let_go(postgres_dsn: str) -> None:
    async with open_asyncio(), fresh_database(postgres_dsn) as (database, dsn):
        catalog = PostgresCatalog(database, lambda: AT)
        store = PostgresSessionStore(database, catalog)
        stored = await catalog.add(EVERY_KIND)
        runs, rests, new = [record_of(stored.id, code=f"00000{n}") for n in range(3)]
        for record in (runs, rests, new):
            await store.create(record)
        await database.execute(
            "INSERT INTO nodes (node, address, alive_at) VALUES ('one', $1, now())",
            '{"ws_url": "ws://one/ws"}',
        )
        await store.claim(runs.id, "one")
        claimed = await store.claim(rests.id, "one")
        assert await store.grant(rests.id, claimed.epoch, "one", None)
        # psql knows no search_path in an address.
        asked = f"{postgres_dsn}&options=-csearch_path%3D{dsn.rpartition('=')[2]}"
        found = await owners_of(asked, [runs.id, rests.id, new.id])
    assert found == dict.fromkeys((runs.id, rests.id), "ws://one/ws")
