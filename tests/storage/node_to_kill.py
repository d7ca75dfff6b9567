"""A node that commits facts to one session as fast as it can, and prints what was acknowledged, until killed.

Arguments: its data directory, and its name as an owner.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from engine.aio import open_asyncio
from engine.ports import Commit
from engine.storage.catalog import PostgresCatalog
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.journal.writer import WriteBehind
from engine.storage.migrations import migrate
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from tests.storage.making import joined, quiz_of, record_of


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Printing:
    def committed(self, seq: int, commit: Commit | None = None) -> None:
        print(seq, flush=True)

    def fenced(self) -> None:
        print("fenced", flush=True)


async def main(data_dir: str, owner: str) -> None:
    dsn = await trio.to_thread.run_sync(EmbeddedPostgres(Path(data_dir)).start)
    async with open_asyncio(), Database.open(dsn) as database, trio.open_nursery() as nursery:
        await migrate.apply(database)
        catalog = PostgresCatalog(database, now_ms)
        store = PostgresSessionStore(database, catalog)
        journal = WriteBehind(database, owner=owner, now_ms=now_ms, alive_interval_s=0.05)
        await nursery.start(journal.run)
        record = record_of((await catalog.add(quiz_of())).id)
        await store.create(record)
        claimed = await store.claim(record.id, owner)
        print(record.id, flush=True)
        seq = 0
        while True:
            if journal.statistics().queued < 2_000:
                facts = [joined(n) for n in range(seq + 1, seq + 11)]
                seq += 10
                journal.append(record.id, claimed.epoch, facts, Printing())
            await trio.sleep(0.001)


trio.run(main, *sys.argv[1:])
