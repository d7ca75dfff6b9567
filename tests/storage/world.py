"""A database with sessions, and nodes that reach it through a gate: what tests of the journal begin with."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from engine.domain import facts as f
from engine.ports import SessionRecord
from engine.storage.catalog import PostgresCatalog
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from engine.storage.spool.journal import SpoolingStatistics, SpoolJournal
from engine.storage.spool.segments import Spool
from tests.storage.gate import Gate
from tests.storage.making import AT, quiz_of, record_of

WAITING = (
    "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
)
"""A condition of PostgreSQL: a statement waits for a lock."""


@dataclass
class World:
    database: Database
    store: PostgresSessionStore
    quiz_id: str

    async def session(self, owner: str = "node") -> tuple[SessionRecord, int]:
        """A claimed session and its epoch."""
        record = record_of(self.quiz_id)
        await self.store.create(record)
        return record, (await self.store.claim(record.id, owner)).epoch

    async def facts(self, session_id: str) -> list[f.Fact]:
        return list((await self.store.claim(session_id, "reader")).facts)

    def journal(self, **more: Any) -> WriteBehind:
        return WriteBehind(self.database, **{"owner": "node", "now_ms": lambda: AT, **more})

    @asynccontextmanager
    async def running(self, **more: Any) -> AsyncIterator[WriteBehind]:
        journal = self.journal(**more)
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            yield journal
            nursery.cancel_scope.cancel()

    async def until(self, condition: str) -> None:
        """Until Postgres says so."""
        while not await self.database.fetch(f"SELECT WHERE {condition}"):  # noqa: ASYNC110  # another process
            await trio.sleep(0.005)


async def world_in(database: Database) -> World:
    catalog = PostgresCatalog(database, lambda: AT)
    stored = await catalog.add(quiz_of())
    return World(database, PostgresSessionStore(database, catalog), stored.id)


@dataclass
class Held:
    """A session that a node holds."""

    session_id: str
    epoch: int
    fences: int = 0

    def fenced(self) -> None:
        self.fences += 1


class Disk:
    """Stands in for `os.write`. `room` bytes are left; `fails` makes every write fail after it was done, as a
    sync does whose pages did not get to the disk."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.fails = False

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[: self.room]
            self.room -= len(data)
        written = os.write(descriptor, data)
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return written


class Believes:
    """A lease that a test decides about."""

    def __init__(self, certain: bool = True) -> None:
        self.is_certain = certain

    def certain(self, now_s: float) -> bool:
        return self.is_certain


@dataclass
class Node:
    """A write-behind with a spool, its way to Postgres, and what a test may do to each."""

    journal: WriteBehind
    spool: Spool
    disk: Disk
    lease: Believes

    @property
    def active(self) -> bool:
        return not self.journal.straight

    @property
    def spooling(self) -> SpoolingStatistics:
        statistics = self.journal.statistics().spooling
        assert statistics is not None
        return statistics

    async def drained(self) -> None:
        with trio.fail_after(30):
            await self.journal.wait_straight()


@dataclass
class Away:
    """`world` sees the database whatever the gate does; nodes go through the gate."""

    world: World
    gate: Gate
    directory: Path
    behind: Database

    @asynccontextmanager
    async def node(self, **more: Any) -> AsyncIterator[Node]:
        """A node that ends as if it was killed: what it has queued by then is gone."""
        disk = Disk()
        lease = more.pop("lease", None) or Believes()
        spool = Spool(
            self.directory / "spool", write=disk.write, segment_bytes=more.pop("segment_bytes", 4_000)
        )
        options = {key: more.pop(key) for key in ("bytes_max",) if key in more}
        options["clock_s"] = more.get("clock_s", trio.current_time)
        journal = WriteBehind(
            self.behind,
            owner="node",
            now_ms=lambda: AT,
            spool=SpoolJournal(spool, lease=lease, now_ms=lambda: AT, **options),
            **{"spool_after_s": 0.1, "retry_max_s": 0.1, "shutdown_s": 0.0, **more},
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            yield Node(journal, spool, disk, lease)
            nursery.cancel_scope.cancel()
        spool.close()
