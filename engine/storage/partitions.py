"""The partitions of sessions and their facts: made ahead of time, and dropped when they are old enough.

The tables in `TABLES` are partitioned alike, by ranges of the ids of sessions, which are ranges of time
(`session_ids`). One such range is a *slice*: a partition of each table, with all that happened in the
sessions that were created in it. Two more partitions of each table have no time: `past` with the ids of
earlier releases, and `default`, which takes whatever has no slice. Nothing is lost when a slice is not made
in time: what has gathered in the default partition meanwhile is moved into it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar
from uuid import UUID

import trio

from engine.ports import StorageUnavailable
from engine.storage.erasing import BESIDE, empty_deleted_quizzes, forget_deleted_sessions
from engine.storage.postgres import Connection, Database, LockNotAvailable
from engine.storage.session_ids import TIME_MAX_MS, first_id, made_at

_log = logging.getLogger(__name__)

TABLES: Final = {
    "sessions": "id",
    "players": "session_id",
    "answers": "session_id",
    "session_changes": "session_id",
}
"""The partitioned tables, each with the column of the session id, in the order in which they are locked."""

_LOCK: Final = 0x66616E70617274  # "fanpart"
_DAY_MS: Final = 86_400_000
_AHEAD: Final = 2
"""Slices that are there beyond the one of now."""

_LOCK_TRIES: Final = 5
_LOCK_PAUSE_S: Final = 1.0
_TIMEOUT_S: Final = 600.0
_INTERVAL_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Slice:
    """A partition of each table.

    `name` ends the names of its tables. `begins_at` and `ends_at` bound the creation of its sessions, the end
    not included; both are None for `past` and `default`. `rows` by table are estimates; `bytes` by table
    include indexes.
    """

    name: str
    begins_at: int | None
    ends_at: int | None
    rows: dict[str, int]
    bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    begins_at: int | None
    ends_at: int | None


T = TypeVar("T")

Kept = Literal["unfinished", "locked"]

Outcome = Kept | Literal["dropped"] | None
"""Of trying to drop a slice; None when there is nothing in it that is old enough."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one round did: names of slices. `kept` are those that are old enough to go and could not."""

    created: Sequence[str]
    dropped: Sequence[str]
    kept: dict[str, Kept]


class Partitions:
    """Keeps slices ahead of time and drops old ones. Any number of nodes may do it at once.

    Args:
        slice_days: how long each slice that is made from now on lasts.
        retention_days: sessions are kept for this long after their creation; None keeps them for ever.
    """

    def __init__(
        self,
        database: Database,
        now_ms: Callable[[], int],
        *,
        slice_days: int = 30,
        retention_days: int | None = None,
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._slice_ms = slice_days * _DAY_MS
        self._retention_ms = None if retention_days is None else retention_days * _DAY_MS

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """A round at once, and one an hour from then on. Reports as started after the first.

        Never raises: a node plays on without new slices, and the default partition takes what has none.
        """
        while True:
            try:
                done = await self.maintain()
            except Exception as error:  # noqa: BLE001 - also a right that the database's user lacks
                _log.warning("partitions were not looked after: %s: %s", type(error).__name__, error)
            else:
                _tell(done)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(_INTERVAL_S)

    async def maintain(self) -> Maintained:
        """One round. Raises StorageUnavailable; what was done before that stays."""
        created: list[str] = []
        while (name := await self._in_turn(self._create_next)) is not None:
            created.append(name)
        await self._database.in_transaction(forget_deleted_sessions)
        dropped: list[str] = []
        kept: dict[str, Kept] = {}
        if self._retention_ms is not None:
            until = self._now_ms() - self._retention_ms
            for found in await self._database.in_transaction(_found):
                if found.ends_at is not None and found.ends_at > until:
                    continue
                outcome = await self._drop(found, until)
                if outcome == "dropped":
                    dropped.append(found.name)
                elif outcome is not None:
                    kept[found.name] = outcome
            if dropped:
                await self._database.in_transaction(empty_deleted_quizzes)
        return Maintained(created, dropped, kept)

    async def _create_next(self, connection: Connection) -> str | None:
        """Make the next slice that is missing and return its name; None when there are enough."""
        now = self._now_ms()
        ends = [each.ends_at for each in await _found(connection) if each.ends_at is not None]
        begins_at = max([now - now % _DAY_MS, *ends])
        ends_at = begins_at + self._slice_ms
        if begins_at > now + _AHEAD * self._slice_ms or ends_at > TIME_MAX_MS:
            return None
        name = f"{_day(begins_at):%Y%m%d}"
        await _create(connection, name, begins_at, ends_at)
        return name

    async def _drop(self, found: _Found, until: int) -> Outcome:
        async def work(connection: Connection) -> Outcome:
            if found.ends_at is None:
                return await _empty(connection, found.name, until)
            return await _drop(connection, found)

        try:
            return await self._in_turn(work)
        except StorageUnavailable as error:
            if isinstance(error.__cause__, LockNotAvailable):
                return "locked"
            raise

    async def _in_turn(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """One node at a time, in a transaction that waits for no lock longer than a second: a waiting lock
        holds up all statements that come after it."""

        async def alone(connection: Connection) -> T:
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            return await work(connection)

        for _ in range(_LOCK_TRIES - 1):
            try:
                return await self._database.in_transaction(alone)
            except StorageUnavailable as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    raise
            await trio.sleep(_LOCK_PAUSE_S)
        return await self._database.in_transaction(alone)


async def slices(database: Database) -> list[Slice]:
    """What there is, in the order of time; `past` and `default` first."""

    async def work(connection: Connection) -> list[Slice]:
        found = await _found(connection)
        rows = await connection.fetch(_SIZES)
        sizes = {row["name"]: (row["rows"], row["bytes"]) for row in rows}
        return [
            Slice(
                each.name,
                each.begins_at,
                each.ends_at,
                {table: sizes[f"{table}_{each.name}"][0] for table in TABLES},
                {table: sizes[f"{table}_{each.name}"][1] for table in TABLES},
            )
            for each in found
        ]

    return await database.in_transaction(work)


async def slices_ahead(database: Database, now_ms: int) -> int:
    """How many slices begin after `now_ms`. Raises StorageUnavailable."""
    found = await database.in_transaction(_found)
    return sum(each.begins_at is not None and each.begins_at > now_ms for each in found)


async def _found(connection: Connection) -> list[_Found]:
    found = []
    for row in await connection.fetch(_PARTITIONS):
        name = row["name"].removeprefix("sessions_")
        ids = [UUID(each) for each in re.findall(r"'([0-9a-f-]{36})'", row["bound"])]
        if len(ids) == 2:
            found.append(_Found(name, made_at(ids[0]), made_at(ids[1])))
        else:
            found.append(_Found(name, None, None))
    return sorted(found, key=lambda each: each.begins_at or 0)


async def _create(connection: Connection, name: str, begins_at: int, ends_at: int) -> None:
    """Fill a slice from the default partition, and attach it. The order matters: to attach a slice reads
    everything that is left in the default partition."""
    low, high = first_id(begins_at), first_id(ends_at)
    # Writers wait. One that had chosen the default partition for a row just before would be told afterwards
    # that the row does not belong there any more. A commit begins by locking rows of sessions; a weaker lock
    # would let it do that, and wait for it then while it waits for us.
    await connection.execute(f"LOCK TABLE {_PARENTS} IN EXCLUSIVE MODE")
    for table, column in TABLES.items():
        await connection.execute(
            f"""
            CREATE TABLE {table}_{name} (LIKE {table} INCLUDING ALL);
            COMMENT ON TABLE {table}_{name} IS
                'Sessions created from {_day(begins_at):%Y-%m-%d} to before {_day(ends_at):%Y-%m-%d}, UTC.';
            WITH moved AS (
                DELETE FROM {table}_default WHERE {column} >= '{low}' AND {column} < '{high}' RETURNING *
            )
            INSERT INTO {table}_{name} SELECT * FROM moved;
            ALTER TABLE {table} ATTACH PARTITION {table}_{name} FOR VALUES FROM ('{low}') TO ('{high}');
            """,
            timeout=_TIMEOUT_S,
        )
    # To the trigger on the default partition, what was moved was deleted.
    await connection.execute(
        f"INSERT INTO live_codes SELECT code, id FROM sessions_{name} WHERE finished_at IS NULL"
    )


async def _drop(connection: Connection, found: _Found) -> Outcome:
    # A session that has ended never runs again, so this may be asked before anything is locked.
    if await _any_unfinished(connection, found.name):
        return "unfinished"
    await connection.execute(f"LOCK TABLE {_PARENTS} IN ACCESS EXCLUSIVE MODE")
    assert found.begins_at is not None
    assert found.ends_at is not None
    if await connection.fetchval(
        "SELECT EXISTS (SELECT FROM live_codes WHERE session_id >= $1 AND session_id < $2)",
        first_id(found.begins_at),
        first_id(found.ends_at),
    ):
        return "unfinished"
    await _forget_beside(connection, found.name)
    for table in TABLES:
        await connection.execute(f"DROP TABLE {table}_{found.name}")
    return "dropped"


async def _empty(connection: Connection, name: str, until: int) -> Outcome:
    outcome = await _may_be_emptied(connection, name, until)
    if outcome != "dropped":
        return outcome
    tables = ", ".join(f"{table}_{name}" for table in TABLES)
    await connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
    outcome = await _may_be_emptied(connection, name, until)
    if outcome == "dropped":
        await _forget_beside(connection, name)
        await connection.execute(f"TRUNCATE {tables}")
    return outcome


async def _forget_beside(connection: Connection, name: str) -> None:
    """Tables with rows of few sessions only have no partitions: rows are deleted from them one by one."""
    for table in BESIDE:
        await connection.execute(
            f"DELETE FROM {table} c WHERE EXISTS (SELECT FROM sessions_{name} s WHERE s.id = c.session_id)"
        )


async def _may_be_emptied(connection: Connection, name: str, until: int) -> Outcome:
    newest = await connection.fetchval(
        f"SELECT (extract(epoch FROM max(created_at)) * 1000)::bigint FROM sessions_{name}"
    )
    if newest is None or newest >= until:
        return None
    return "unfinished" if await _any_unfinished(connection, name) else "dropped"


async def _any_unfinished(connection: Connection, name: str) -> bool:
    found: bool = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM sessions_{name} WHERE finished_at IS NULL)", timeout=_TIMEOUT_S
    )
    return found


def _day(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _tell(done: Maintained) -> None:
    if done.created:
        _log.info("partitions made ahead: %s", ", ".join(done.created))
    if done.dropped:
        _log.info("partitions dropped by retention: %s", ", ".join(done.dropped))
    for name, why in done.kept.items():
        _log.warning("the partition %s is old enough to go, but stays: %s", name, WHY_KEPT[why])


WHY_KEPT: Final[dict[Kept, str]] = {
    "unfinished": "a session in it has not ended",
    "locked": "somebody reads or writes it for long",
}

_PARENTS = ", ".join(f"ONLY {table}" for table in TABLES)

_PARTITIONS = """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'sessions'::regclass
"""

_SIZES = f"""
SELECT c.relname AS name,
       greatest(s.n_live_tup, c.reltuples, 0)::bigint AS rows,
       pg_total_relation_size(c.oid) AS bytes
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE i.inhparent IN ({", ".join(f"'{table}'::regclass" for table in TABLES)})
"""
