"""What is left of disk and partitions is seen, and what was seen stays while PostgreSQL is away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psutil

from engine.boundary import Boundary
from engine.ports import StorageUnavailable
from engine.storage.partitions import Partitions
from engine.storage.postgres import Database
from server.runtime.capacity import CapacityWatch

DAY_MS = 86_400_000
NOW = 1_800_000_000_000


async def test_slices_that_begin_later_are_ahead(database: Database, tmp_path: Path) -> None:
    await Partitions(database, lambda: NOW, slice_days=1).maintain()
    boundary = Boundary()
    for later_days, ahead in ((0, 2), (1, 1), (9, 0)):
        watch = CapacityWatch(tmp_path, database, lambda later=later_days: NOW + later * DAY_MS, boundary)
        await watch.look()
        assert watch.seen.partitions_ahead == ahead
        assert watch.seen.slot_lag_bytes == {}
        assert watch.seen.disk_bytes == psutil.disk_usage(str(tmp_path)).total >= watch.seen.disk_free_bytes
    assert boundary.mistakes_total == 0


class Slots:
    """A database with a slot, until it goes away."""

    away = False

    async def fetch(self, _sql: str) -> Sequence[Any]:
        if self.away:
            raise StorageUnavailable("away")
        return [{"name": "replica", "bytes": 7}]

    async def in_transaction(self, _work: object) -> Sequence[Any]:
        return []


async def test_what_was_seen_stays_while_postgresql_is_away(tmp_path: Path) -> None:
    slots = Slots()
    watch = CapacityWatch(tmp_path, cast(Database, slots), lambda: NOW, Boundary())
    for slots.away in (False, True):
        await watch.look()
        assert (watch.seen.partitions_ahead, watch.seen.slot_lag_bytes) == (0, {"replica": 7})
