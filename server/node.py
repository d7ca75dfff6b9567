"""The composition root: a node from one configuration, and the order in which its parts come and go.

Each part is a block inside the block of what it needs. On the way out the realtime and HTTP edges end first
and tell their clients, then the actors, then the write-behind commits what is queued, then the database goes.
"""

from __future__ import annotations

import errno
import logging
import resource
import secrets
import socket
import ssl
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import trio

from engine.actors.clock import GAP_S, SessionClock, gap_s
from engine.actors.close_reasons import CloseReason
from engine.actors.merging import Merging
from engine.actors.options import ActorOptions
from engine.actors.registry import Registry
from engine.actors.upkeep import Upkeep
from engine.aio import open_asyncio
from engine.boundary import Boundary
from engine.domain.quiz import Quiz
from engine.lease import LoneLease
from engine.ports import QuizCatalog, StorageUnavailable
from engine.shards.fingerprint import marks_of
from engine.shards.link import auth
from engine.shards.lone_node import lone_router
from engine.shards.ports import BusMessage, Member, Role
from engine.shards.redis import open_redis
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory
from engine.storage.catalog import CachedCatalog, PostgresCatalog
from engine.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from engine.storage.heartbeat import Alone, Leased
from engine.storage.journal.retained import Retained
from engine.storage.journal.writer import WriteBehind
from engine.storage.migrations import migrate
from engine.storage.partitions import Partitions
from engine.storage.postgres import Database
from engine.storage.session_ids import new_id
from engine.storage.sessions import PostgresSessionStore
from engine.storage.spool.journal import SWITCH_INTERVAL_S, SpoolJournal
from engine.storage.spool.put_aside import PostgresSpooledFacts
from engine.storage.spool.records import SpoolDamaged
from engine.storage.spool.segments import Spool, SpoolInUse
from server import samples
from server.cluster import Clustering, NotLetIn
from server.config.config import Config
from server.http import serving
from server.http.app import create_app
from server.http.cluster import own_load
from server.http.services import Services
from server.realtime.conversation import ConversationDeps
from server.realtime.transports import make_transport
from server.runtime.background import background_task
from server.runtime.gc_policy import Collector
from server.runtime.loop_watch import LoopWatch
from server.runtime.timers import Timers
from server.security.client_address import EVERYWHERE
from server.security.limits import Attempts
from server.security.name_filter import load_name_rules
from server.security.tokens import SecretError, Tokens, load_author_key, load_secret

log = logging.getLogger(__name__)


class StartError(Exception):
    """The node cannot start. One sentence for the person who started it."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where a node can be reached, as bound or as configured, and what it brought back."""

    http_url: str
    ws_url: str
    sessions_recovered: int
    author_key: str | None
    """The one that was made for want of a configured one."""


async def serve(config: Config, *, task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED) -> None:
    """Run a node until cancelled; then end it in good order, which takes a few seconds at most.

    Raises StartError when it cannot start, and whatever shows that it must not go on.
    """
    async with AsyncExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        running, cluster = await _assemble(config, stack)
        task_status.started(running)
        if cluster is not None:
            with _let_in():
                await cluster.guard()
        await trio.sleep_forever()


@contextmanager
def _let_in() -> Iterator[None]:
    try:
        yield
    except NotLetIn as error:
        raise StartError(str(error)) from error


async def _assemble(config: Config, stack: AsyncExitStack) -> tuple[Running, Clustering | None]:
    _allow_many_files()
    config = _for_this_node(config)
    http_socket = stack.enter_context(_bound(config.host, config.http_port, "http_port"))
    realtime_socket = None
    if config.role != "api":
        realtime_socket = stack.enter_context(_bound(config.host, config.realtime_port, "realtime_port"))
    # Pages come from there, whichever port it turned out to be.
    config = replace(config, http_port=http_socket.getsockname()[1])
    tls = _tls(config)
    clock = SessionClock(
        gap_s=GAP_S if config.redis_url is None else gap_s(config.lease_s), machine_s=_clock_s
    )
    boundary = Boundary()
    try:
        tokens = Tokens(load_secret(config.secret, config.data_dir), config.token_ttl_s, clock)
        shared_secret = None if config.redis_url is None else config.secret
        author_key = load_author_key(config.author_key, shared_secret, config.data_dir)
    except SecretError as error:
        raise StartError(str(error)) from error
    http_url = config.public_url or _url("http", http_socket, tls)
    ws_url = play_url = ""
    if realtime_socket is not None:
        ws_url = config.public_ws_url or _url("ws", realtime_socket, tls) + "/ws"
        play_url = config.public_url or _url(
            "http", realtime_socket if config.carrier == "reactor" else http_socket, tls
        )

    run = f"{config.node}-{uuid.uuid4().hex[:8]}"
    retained = Retained(node=run, now_ms=clock.now_ms)
    database = await stack.enter_async_context(_database(config, retained))
    cluster = None
    if config.redis_url is not None:
        link_socket = stack.enter_context(_bound(config.link_host, config.link_port, "link_port"))
        redis = await stack.enter_async_context(
            open_redis(config.redis_url, config.cluster, ttl_s=config.lease_s, boundary=boundary)
        )
        await stack.enter_async_context(background_task(redis.bus.run))
        member = Member(
            name=config.node or run,
            run=run,
            role=cast(Role, config.role),
            weight=config.weight,
            http_url=http_url,
            ws_url=ws_url,
            play_url=play_url or http_url,
            link_url=config.link_url or _url("ws", link_socket, None),
            version=version("fanfare"),
            started_at=clock.now_ms(),
            marks=marks_of(
                (config.secret or "").encode(),
                config.author_key,
                schema=(migrate.OLDEST_BESIDE, len(migrate.STEPS)),
                protocol=(auth.VERSION_OLDEST, auth.VERSION),
            ),
        )
        cluster = Clustering(config, member, redis, link_socket, clock, _clock_s, boundary)

    only_node = LoneLease()
    spool = SpoolJournal(
        stack.enter_context(_spool(config)),
        lease=only_node if cluster is None else cluster.lease,
        now_ms=clock.now_ms,
        clock_s=_clock_s,
        bytes_max=config.spool_bytes_max,
    )
    journal = WriteBehind(
        database,
        owner=run,
        now_ms=clock.now_ms,
        spool=spool,
        spool_after_s=config.spool_after_s,
        retained=retained,
        sign=Alone(only_node) if cluster is None else Leased(cluster.lease, cluster.address),
        clock_s=_clock_s,
        facts_max=config.journal_facts_max,
    )
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
    catalog = CachedCatalog(stored if cluster is None else cluster.redis.quiz_cache(stored))
    store = PostgresSessionStore(database, catalog, retained)
    if config.samples:
        await _add_samples(catalog)

    registry: Registry = await stack.enter_async_context(
        background_task(
            partial(
                _in_a_nursery,
                lambda nursery: Registry(
                    nursery,
                    store=store,
                    catalog=catalog,
                    journal=journal,
                    tokens=tokens,
                    clock=clock,
                    owner=run,
                    options=ActorOptions(
                        tick_ms=config.tick_ms,
                        tick_max_ms=config.tick_max_ms,
                        mailbox_max=config.mailbox_max,
                        history_max=config.history_max,
                        idle_s=config.session_idle_s,
                        max_age_s=config.session_max_age_s,
                        joins_per_s=config.joins_per_s,
                        seats_per_address_max=config.seats_per_address_max,
                        seats_per_address_per_s=config.seats_per_address_per_s,
                    ),
                    sessions_max=config.sessions_max,
                    name_rules=load_name_rules(),
                    gone=None if cluster is None else cluster.members.gone,
                    in_doubt=(lambda: False) if cluster is None else cluster.in_doubt,
                    boundary=boundary,
                ),
            )
        )
    )
    stack.callback(registry.close, CloseReason.SHUTDOWN)
    journal.watch(registry.owned)
    upkeep = Upkeep(registry, store, clock, max_age_s=config.session_max_age_s, boundary=boundary)
    await stack.enter_async_context(background_task(_forever(upkeep.sweep)))
    await stack.enter_async_context(background_task(_forever(upkeep.keep_time)))
    recovered = 0
    if cluster is None:
        recovered = await upkeep.recover()
        router: Router = await stack.enter_async_context(
            background_task(
                partial(
                    _in_a_nursery,
                    lambda nursery: lone_router(
                        nursery,
                        registry=registry,
                        store=store,
                        catalog=catalog,
                        clock=clock,
                        me=run,
                        new_id=lambda: new_id(clock.now_ms()),
                        new_code=_new_code,
                        boundary=boundary,
                    ),
                )
            )
        )
    else:
        await stack.enter_async_context(background_task(cluster.links.run))
        factory = SessionFactory(
            catalog, store, cluster.members, clock, lambda: new_id(clock.now_ms()), _new_code
        )
        router = await stack.enter_async_context(
            background_task(
                partial(cluster.route, registry, store, factory, journal, lambda: journal.straight)
            )
        )
        cluster.redis.bus.listen(partial(_forget_quiz, catalog))
    stack.callback(router.close, CloseReason.SHUTDOWN)
    merging = Merging(registry, store, PostgresSpooledFacts(database), run, boundary)
    await stack.enter_async_context(background_task(merging.run))

    waiting = Timers(boundary)
    await stack.enter_async_context(background_task(waiting.run))
    attempts = Attempts(config.attempts_per_min)
    transport = make_transport(
        ConversationDeps(
            router,
            tokens,
            clock,
            attempts,
            config.messages_per_s,
            config.messages_burst,
            tuple if cluster is None else cluster.pages,
            boundary,
            waiting.call_later,
        ),
        config,
    )
    loop_watch = LoopWatch(registry.pace.follow)
    collector = Collector(
        loop_watch.busy, lambda: any(actor.session.question_open for actor in registry.active())
    )
    stack.enter_context(collector.installed())
    stack.enter_context(loop_watch.installed())
    services = Services(
        config=config,
        clock=clock,
        registry=registry,
        directory=router,
        store=store,
        catalog=catalog,
        journal=journal,
        tokens=tokens,
        author_key=author_key,
        attempts=attempts,
        loop_watch=loop_watch,
        collector=collector,
        ws_url=ws_url,
        play_url=play_url,
        transports=lambda: [transport.statistics()] if realtime_socket is not None else [],
        version=version("fanfare"),
        boundary=boundary,
        cluster=None if cluster is None else cluster.node,
    )
    app = create_app(services)
    if realtime_socket is not None:
        await stack.enter_async_context(
            background_task(partial(transport.serve, [realtime_socket], ssl_context=tls))
        )
    shutdown = trio.Event()
    await stack.enter_async_context(
        background_task(partial(serving.serve, app, http_socket, config, shutdown), end=shutdown.set)
    )
    await stack.enter_async_context(background_task(_kept(loop_watch.run, "watching the loop", boundary)))
    await stack.enter_async_context(background_task(_kept(collector.run, "collecting garbage", boundary)))
    if cluster is not None:
        # Last of all: from here on others send clients and sessions to this node.
        await stack.enter_async_context(background_task(cluster.serve_links))
        with _let_in():
            await cluster.knock()
        await stack.enter_async_context(background_task(partial(cluster.appear, partial(own_load, services))))
        stack.push_async_callback(cluster.leave)
    running = Running(
        http_url=http_url,
        ws_url=ws_url,
        sessions_recovered=recovered,
        author_key=author_key if config.author_key is None else None,
    )
    return running, cluster


def _for_this_node(config: Config) -> Config:
    """With its name, and that name in its addresses."""
    name = config.node or socket.gethostname()
    return replace(
        config,
        node=name,
        public_url=config.public_url and config.public_url.replace("{node}", name),
        public_ws_url=config.public_ws_url and config.public_ws_url.replace("{node}", name),
    )


def _forget_quiz(catalog: CachedCatalog, message: BusMessage) -> None:
    if message.get("kind") == "quiz" and isinstance(message.get("id"), str):
        catalog.invalidate(str(message["id"]))


def _kept(
    task: Callable[[], Awaitable[None]], work: str, boundary: Boundary
) -> Callable[..., Awaitable[None]]:
    """A task that runs forever. After a mistake it begins anew."""

    async def run(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            with boundary.within(work):
                await task()
            await trio.sleep(1.0)

    return run


async def _in_a_nursery(make: Callable[[trio.Nursery], object], *, task_status: trio.TaskStatus[Any]) -> None:
    """Make a part that starts tasks of its own, and keep its nursery open."""
    async with trio.open_nursery() as nursery:
        task_status.started(make(nursery))
        await trio.sleep_forever()


def _forever(task: Callable[[], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A task that runs forever and has a boundary of its own."""

    async def forever(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await task()

    return forever


@asynccontextmanager
async def _database(config: Config, retained: Retained) -> AsyncIterator[Database]:
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


def _clock_s() -> float:
    """Seconds that also pass while this process is stopped and, on Linux, while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


async def _add_samples(catalog: QuizCatalog) -> None:
    """On the first start only: what an author has made of a sample since then stays, and so does that one was
    deleted."""
    for quiz_id, loaded in zip(samples.ids(), samples.load_all(), strict=True):
        if not await catalog.is_taken(quiz_id):
            await catalog.add(Quiz.parse(loaded.data), quiz_id)


def _bound(host: str, port: int, setting: str) -> socket.socket:
    """A bound TCP socket that does not listen yet. Raises StartError."""
    option = "--" + setting.replace("_", "-")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"cannot listen on {host}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Only a listening socket keeps a second node from binding the same port.
        bound.listen(1)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} on {host} is taken: stop what listens there, or choose another with {option}"
            ) from error
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return bound


def _new_code() -> str:
    return str(100_000 + secrets.randbelow(900_000))


def _url(scheme: str, bound: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = bound.getsockname()[:2]
    # By a loopback name one is its author without a key, by one that stands for all addresses not.
    host = EVERYWHERE.get(host, host)
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}{'s' if tls else ''}://{host}:{port}"


def _tls(config: Config) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"the certificate {config.tls_cert} with its key: {error}") from error
    return context


def _allow_many_files() -> None:
    """A connection is an open file: use all that the process is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
