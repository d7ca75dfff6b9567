"""What is left of that which fills up over days: the disk, the partitions ahead, the disk of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # ships no types
import trio

from engine.boundary import Boundary
from engine.ports import StorageUnavailable
from engine.storage.partitions import slices_ahead
from engine.storage.postgres import Database

_INTERVAL_S: Final = 60.0

_SLOTS: Final = """
SELECT slot_name AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS bytes
FROM pg_replication_slots WHERE restart_lsn IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Capacity:
    """As it was last seen.

    Attributes:
        disk_bytes, disk_free_bytes: of the file system with the data directory; free for this user.
        partitions_ahead: slices of time that begin after now; None before PostgreSQL has answered.
        slot_lag_bytes: log that PostgreSQL keeps for each replication slot, by its name.
    """

    disk_bytes: int = 0
    disk_free_bytes: int = 0
    partitions_ahead: int | None = None
    slot_lag_bytes: Mapping[str, int] = field(default_factory=dict)


class CapacityWatch:
    """Looks once a minute. While PostgreSQL is away, what it said last stays."""

    def __init__(
        self, data_dir: Path, database: Database, now_ms: Callable[[], int], boundary: Boundary
    ) -> None:
        self._data_dir = data_dir
        self._database = database
        self._now_ms = now_ms
        self._boundary = boundary
        self.seen = Capacity()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            with self._boundary.within("the look at what is left of disk and partitions"):
                await self.look()
            await trio.sleep(_INTERVAL_S)

    async def look(self) -> None:
        # In a thread: a file system may hang.
        disk = await trio.to_thread.run_sync(psutil.disk_usage, str(self._data_dir), abandon_on_cancel=True)
        ahead, lag = self.seen.partitions_ahead, self.seen.slot_lag_bytes
        try:
            ahead = await slices_ahead(self._database, self._now_ms())
            lag = {row["name"]: row["bytes"] for row in await self._database.fetch(_SLOTS)}
        except StorageUnavailable:
            pass
        self.seen = Capacity(disk.total, disk.free, ahead, lag)
