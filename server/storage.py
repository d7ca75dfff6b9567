"""The storage of a node: the database, the path of facts to it, and the queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

import trio

from engine.actors.clock import SessionClock
from engine.actors.pacing import Pacing
from engine.aio import open_asyncio
from engine.boundary import Boundary
from engine.domain.quiz import Quiz
from engine.lease import LoneLease
from engine.ports import CacheCounts, QuizCatalog, StorageUnavailable
from engine.scores import Rule
from engine.shards.board_sets import RedisBoardSets
from engine.storage.catalog import CachedCatalog, PostgresCatalog
from engine.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from engine.storage.heartbeat import Alone, Leased
from engine.storage.journal.retained import Retained
from engine.storage.journal.writer import WriteBehind
from engine.storage.migrations import migrate
from engine.storage.partitions import Partitions
from engine.storage.postgres import Database, UnknownTimeZone
from engine.storage.sessions import PostgresSessionStore
from engine.storage.spool.journal import SpoolJournal
from engine.storage.spool.records import SpoolDamaged
from engine.storage.spool.segments import Spool, SpoolInUse
from server import samples
from server.cluster import Clustering
from server.config.config import Config
from server.listening import StartError
from server.runtime.background import background_task
from server.runtime.capacity import CapacityWatch
from server.runtime.machine_clock import machine_s
from server.scores import Scores


@dataclass(frozen=True, slots=True)
class Storage:
    """The parts that others use."""

    journal: WriteBehind
    catalog: CachedCatalog
    store: PostgresSessionStore
    scores: Scores
    quiz_caches: Mapping[str, CacheCounts]
    capacity: CapacityWatch


async def open_storage(
    config: Config,
    stack: AsyncExitStack,
    database: Database,
    retained: Retained,
    cluster: Clustering | None,
    *,
    run: str,
    clock: SessionClock,
    pacing: Pacing,
    boundary: Boundary,
) -> Storage:
    """Start what keeps facts and reads them. What an earlier run acknowledged is in the database then.

    Raises StartError.
    """
    journal = _journal(config, stack, database, retained, cluster, run=run, clock=clock, pacing=pacing)
    await stack.enter_async_context(background_task(journal.run))
    partitions = Partitions(
        database,
        clock.now_ms,
        slice_days=config.partition_days,
        retention_days=config.retention_days,
    )
    await stack.enter_async_context(background_task(partitions.run))
    # What an earlier run acknowledged is in the database before any session is claimed.
    await journal.wait_straight()
    stored: QuizCatalog = PostgresCatalog(database, clock.now_ms)
    counts: dict[str, CacheCounts] = {}
    if cluster is not None:
        stored = shared = cluster.redis.quiz_cache(stored)
        counts["redis"] = shared.counts
    catalog = CachedCatalog(stored)
    counts["memory"] = catalog.counts
    if config.samples:
        await _add_samples(catalog)
    scores = Scores(
        database,
        rule=cast(Rule, config.leaderboard_rule),
        zone=config.leaderboard_zone,
        sets=None if cluster is None else RedisBoardSets(cluster.redis),
        boundary=boundary,
    )
    try:
        await scores.today()
    except UnknownTimeZone:
        raise StartError(
            f"leaderboard_zone: PostgreSQL knows no time zone {config.leaderboard_zone}"
        ) from None
    await stack.enter_async_context(background_task(scores.run))
    capacity = CapacityWatch(config.data_dir, database, clock.now_ms, boundary)
    await stack.enter_async_context(background_task(capacity.run))
    store = PostgresSessionStore(database, catalog, retained)
    return Storage(journal, catalog, store, scores, counts, capacity)


def _journal(
    config: Config,
    stack: AsyncExitStack,
    database: Database,
    retained: Retained,
    cluster: Clustering | None,
    *,
    run: str,
    clock: SessionClock,
    pacing: Pacing,
) -> WriteBehind:
    only_node = LoneLease()
    spool = SpoolJournal(
        stack.enter_context(_spool(config)),
        lease=only_node if cluster is None else cluster.lease,
        now_ms=clock.now_ms,
        clock_s=machine_s,
        bytes_max=config.spool_bytes_max,
    )
    return WriteBehind(
        database,
        owner=run,
        now_ms=clock.now_ms,
        spool=spool,
        spool_after_s=config.spool_after_s,
        retained=retained,
        sign=Alone(only_node) if cluster is None else Leased(cluster.lease, cluster.address),
        clock_s=machine_s,
        facts_max=config.journal_facts_max,
        pause_s=lambda: pacing.wait_s,
    )


@asynccontextmanager
async def open_database(config: Config, retained: Retained) -> AsyncIterator[Database]:
    """A database with the schema of this release: the configured one, or the embedded one."""
    async with AsyncExitStack() as stack:
        try:
            dsn = config.database_url
            if dsn is None:
                dsn = await stack.enter_async_context(_embedded(config))
            await stack.enter_async_context(open_asyncio())
            database = await stack.enter_async_context(Database.open(dsn, retained.look))
            await migrate.apply(database)
        except EmbeddedPostgresError as error:
            raise StartError(f"the embedded PostgreSQL: {error}") from error
        except StorageUnavailable as error:
            raise StartError(f"PostgreSQL at {config.shown('database_url')}: {error}") from error
        except migrate.SchemaTooNew as error:
            raise StartError(str(error)) from error
        yield database


@asynccontextmanager
async def _embedded(config: Config) -> AsyncIterator[str]:
    embedded = EmbeddedPostgres(config.data_dir)
    dsn = await trio.to_thread.run_sync(embedded.start)
    try:
        yield dsn
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(embedded.stop)


@contextmanager
def _spool(config: Config) -> Iterator[Spool]:
    try:
        spool = Spool(config.data_dir / "spool")
    except SpoolDamaged as error:
        raise StartError(
            f"{error}. Without it, acknowledged answers would be missing, so the node does not start. "
            "`fanfare spool show` shows what can be read; `fanfare spool cut` keeps it, the rest is put aside"
        ) from error
    except SpoolInUse as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"the spool in {config.data_dir / 'spool'}: {error.strerror or error}") from error
    try:
        yield spool
    finally:
        spool.close()


async def _add_samples(catalog: QuizCatalog) -> None:
    """On the first start only: a sample that an author has changed since then stays changed, and a deleted
    one stays deleted."""
    for quiz_id, loaded in zip(samples.ids(), samples.load_all(), strict=True):
        if not await catalog.is_taken(quiz_id):
            await catalog.add(Quiz.parse(loaded.data), quiz_id)
