"""The composition root: a node from one configuration, and the order in which its parts come and go.

Each part is a block inside the block of what it needs. On the way out the realtime and HTTP edges end first
and tell their clients, then the actors, then the write-behind commits what is queued, then the database goes.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import trio

from engine.actors.clock import GAP_S, SessionClock, gap_s
from engine.actors.close_reasons import CloseReason
from engine.actors.merging import Merging
from engine.actors.options import ActorOptions
from engine.actors.pacing import Pacing
from engine.actors.registry import Registry
from engine.actors.upkeep import Upkeep
from engine.boundary import Boundary
from engine.latency import Latency
from engine.shards.fingerprint import marks_of
from engine.shards.link import auth
from engine.shards.lone_node import lone_router
from engine.shards.ports import BusMessage, Member, Role
from engine.shards.redis import open_redis
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory
from engine.storage.catalog import CachedCatalog
from engine.storage.journal.retained import Retained
from engine.storage.migrations import migrate
from engine.storage.session_ids import new_id
from engine.storage.spool.journal import SWITCH_INTERVAL_S
from engine.storage.spool.put_aside import PostgresSpooledFacts
from engine.trace import new_trace_id
from server import file_limit
from server.admission import NotLetIn
from server.cluster import Clustering
from server.config.config import Config
from server.http import serving
from server.http.app import create_app
from server.http.cluster import own_load
from server.http.services import Services
from server.listening import Ports, StartError, bound, open_ports, url_of
from server.realtime.conversation import ConversationDeps
from server.realtime.transport import Transport
from server.realtime.transports import make_transport
from server.runtime.background import background_task
from server.runtime.gc_policy import Collector
from server.runtime.loop_watch import Beat, LoopWatch
from server.runtime.machine_clock import machine_s
from server.runtime.sampling import sampler_of
from server.runtime.timers import Timers
from server.runtime.tracing import ANSWER_BYTES_MAX, Tracing, collector_of
from server.security.connection_tokens import ConnectionTokens
from server.security.fetch import Fetcher
from server.security.identities import identity_words, open_identities
from server.security.identity import Identities
from server.security.limits import Attempts
from server.security.name_filter import load_name_rules
from server.security.sign_in import SignIn, open_sign_in
from server.security.tokens import SecretError, Tokens, load_author_key, load_secret
from server.storage import Storage, open_database, open_storage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """The addresses of a node, as bound or as configured, and how many sessions it recovered."""

    http_url: str
    ws_url: str
    sessions_recovered: int
    author_key: str | None
    """The author key that was made because none is configured."""


async def serve(config: Config, *, task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED) -> None:
    """Run a node until cancelled; then end it in good order, which takes a few seconds at most.

    Raises StartError if it cannot start, and any error after which it must not go on.
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


@dataclass(frozen=True, slots=True)
class _Base:
    """What all parts of a node use."""

    config: Config
    run: str
    clock: SessionClock
    boundary: Boundary
    pacing: Pacing
    tokens: Tokens
    connection_tokens: ConnectionTokens
    author_key: str
    sign_in: SignIn | None
    resumes: Latency
    """How long clients waited that came back by WebSocket."""


@dataclass(frozen=True, slots=True)
class _Sessions:
    """The sessions of a node, and how they are found."""

    registry: Registry
    router: Router
    recovered: int


async def _assemble(config: Config, stack: AsyncExitStack) -> tuple[Running, Clustering | None]:
    file_limit.raise_limit()
    config = _for_this_node(config)
    ports = open_ports(config, stack.enter_context(ExitStack()))
    # Pages come from there, whichever port it turned out to be.
    base = _base(replace(config, http_port=ports.http.getsockname()[1]))
    retained = Retained(node=base.run, now_ms=base.clock.now_ms)
    database = await stack.enter_async_context(open_database(config, retained))
    cluster = None if config.redis_url is None else await _cluster(base, stack, ports, config.redis_url)
    storage = await open_storage(
        base.config,
        stack,
        database,
        retained,
        cluster,
        run=base.run,
        clock=base.clock,
        pacing=base.pacing,
        boundary=base.boundary,
    )
    tracing = await _tracing(base, stack)
    if cluster is not None and tracing is not None:
        cluster.tell_hop = tracing.note_hop
        cluster.redis.bus.listen(tracing.note_heard)
    sessions = await _sessions(base, stack, storage, cluster)
    if tracing is not None:
        slow = sessions.registry.slow_answers
        slow.new_trace_id, slow.tell, slow.tell_broadcast = new_trace_id, tracing.note, tracing.note_broadcast
    merging = Merging(
        sessions.registry, storage.store, PostgresSpooledFacts(database), base.run, base.boundary
    )
    await stack.enter_async_context(background_task(merging.run))
    services = await _edges(base, stack, ports, storage, sessions, cluster, tracing)
    if cluster is not None:
        # Last of all: from here on others send clients and sessions to this node.
        await stack.enter_async_context(background_task(cluster.serve_links))
        with _let_in():
            await cluster.knock()
        await stack.enter_async_context(background_task(partial(cluster.appear, partial(own_load, services))))
        stack.push_async_callback(cluster.leave)
    running = Running(
        http_url=ports.http_url,
        ws_url=ports.ws_url,
        sessions_recovered=sessions.recovered,
        author_key=base.author_key if config.author_key is None else None,
    )
    return running, cluster


def _base(config: Config) -> _Base:
    gap = GAP_S if config.redis_url is None else gap_s(config.lease_s)
    clock, pacing = SessionClock(gap_s=gap, machine_s=machine_s), Pacing(stamped=True)
    try:
        secret = load_secret(config.secret, config.data_dir)
        tokens = Tokens(secret, config.token_ttl_s, clock)
        sign_in = open_sign_in(config, secret, clock)
        shared_secret = None if config.redis_url is None else config.secret
        author_key = load_author_key(config.author_key, shared_secret, config.data_dir)
    except SecretError as error:
        raise StartError(str(error)) from error
    run = f"{config.node}-{uuid.uuid4().hex[:8]}"
    connection_tokens = ConnectionTokens(secret, clock.now_ms)
    return _Base(
        config, run, clock, Boundary(), pacing, tokens, connection_tokens, author_key, sign_in, Latency()
    )


async def _tracing(base: _Base, stack: AsyncExitStack) -> Tracing | None:
    """What sends spans, if the environment names a collector."""
    try:
        collector = collector_of(
            os.environ, node=base.config.node or base.run, run=base.run, version=version("fanfare")
        )
    except ValueError as error:
        raise StartError(f"OTEL_EXPORTER_OTLP_TIMEOUT: {error}") from error
    if collector is None:
        return None
    fetcher = Fetcher(collector.timeout_s, ANSWER_BYTES_MAX)
    tracing = Tracing(collector, fetcher, sampler_of(os.environ), base.clock.ms_at)
    await stack.enter_async_context(background_task(tracing.run))
    return tracing


async def _cluster(base: _Base, stack: AsyncExitStack, ports: Ports, redis_url: str) -> Clustering:
    """Connect to Redis and bind the link port. The node is not announced yet."""
    config = base.config
    link_socket = stack.enter_context(bound(config.link_host, config.link_port, "link_port"))
    redis = await stack.enter_async_context(
        open_redis(redis_url, config.cluster, ttl_s=config.lease_s, boundary=base.boundary)
    )
    await stack.enter_async_context(background_task(redis.bus.run))
    member = Member(
        name=config.node or base.run,
        run=base.run,
        role=cast(Role, config.role),
        weight=config.weight,
        http_url=ports.http_url,
        ws_url=ports.ws_url,
        play_url=ports.play_url or ports.http_url,
        link_url=config.link_url or url_of("ws", link_socket, None),
        version=version("fanfare"),
        started_at=base.clock.now_ms(),
        marks=marks_of(
            (config.secret or "").encode(),
            config.author_key,
            identity=identity_words(config),
            schema=(migrate.OLDEST_BESIDE, len(migrate.STEPS)),
            protocol=(auth.VERSION_OLDEST, auth.VERSION),
        ),
    )
    return Clustering(config, member, redis, link_socket, base.clock, machine_s, base.boundary)


async def _sessions(
    base: _Base, stack: AsyncExitStack, storage: Storage, cluster: Clustering | None
) -> _Sessions:
    config, clock, store = base.config, base.clock, storage.store
    registry: Registry = await stack.enter_async_context(
        background_task(partial(_in_a_nursery, lambda nursery: _registry(base, nursery, storage, cluster)))
    )
    stack.callback(registry.close, CloseReason.SHUTDOWN)
    storage.journal.watch(registry.owned)
    upkeep = Upkeep(registry, store, clock, max_age_s=config.session_max_age_s, boundary=base.boundary)
    await stack.enter_async_context(background_task(_forever(upkeep.sweep)))
    await stack.enter_async_context(background_task(_forever(upkeep.keep_time)))
    recovered = 0
    if cluster is None:
        recovered = await upkeep.recover()
        router: Router = await stack.enter_async_context(
            background_task(
                partial(_in_a_nursery, lambda nursery: _lone_router(base, nursery, storage, registry))
            )
        )
    else:
        await stack.enter_async_context(background_task(cluster.links.run))
        factory = SessionFactory(
            storage.catalog, store, cluster.members, clock, lambda: new_id(clock.now_ms()), _new_code
        )
        journal = storage.journal
        router = await stack.enter_async_context(
            background_task(
                partial(cluster.route, registry, store, factory, journal, lambda: journal.straight)
            )
        )
        cluster.redis.bus.listen(partial(_forget_quiz, storage.catalog))
    stack.callback(router.close, CloseReason.SHUTDOWN)
    return _Sessions(registry, router, recovered)


def _registry(base: _Base, nursery: trio.Nursery, storage: Storage, cluster: Clustering | None) -> Registry:
    config = base.config
    return Registry(
        nursery,
        store=storage.store,
        catalog=storage.catalog,
        journal=storage.journal,
        tokens=base.tokens,
        clock=base.clock,
        owner=base.run,
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
        boundary=base.boundary,
        pacing=base.pacing,
    )


def _lone_router(base: _Base, nursery: trio.Nursery, storage: Storage, registry: Registry) -> Router:
    return lone_router(
        nursery,
        registry=registry,
        store=storage.store,
        catalog=storage.catalog,
        clock=base.clock,
        me=base.run,
        new_id=lambda: new_id(base.clock.now_ms()),
        new_code=_new_code,
        boundary=base.boundary,
    )


async def _edges(
    base: _Base,
    stack: AsyncExitStack,
    ports: Ports,
    storage: Storage,
    sessions: _Sessions,
    cluster: Clustering | None,
    tracing: Tracing | None,
) -> Services:
    """Let clients in: by the realtime port and by HTTP."""
    timers = Timers(base.boundary)
    await stack.enter_async_context(background_task(timers.run))
    attempts = Attempts(base.config.attempts_per_min)
    identities, ring = open_identities(base.config, base.clock, base.boundary)
    if ring is not None:
        await stack.enter_async_context(background_task(ring.run))
    transport = make_transport(
        ConversationDeps(
            sessions.router,
            base.tokens,
            base.clock,
            attempts,
            base.config.messages_per_s,
            base.config.messages_burst,
            tuple if cluster is None else cluster.pages,
            base.boundary,
            timers.call_later,
            base.pacing,
            identities,
            tracing,
            base.connection_tokens,
            base.resumes,
        ),
        base.config,
    )
    services = _services(
        base, stack, ports, storage, sessions, cluster, attempts, identities, transport, tracing
    )
    app = create_app(services)
    await stack.enter_async_context(
        background_task(_kept(app.live.run, "keeping the last minutes", base.boundary))
    )
    await stack.enter_async_context(
        background_task(_kept(app.health.run, "looking how the node is", base.boundary))
    )
    if ports.realtime is not None:
        await stack.enter_async_context(
            background_task(partial(transport.serve, [ports.realtime], ssl_context=ports.tls))
        )
    shutdown = trio.Event()
    await stack.enter_async_context(
        background_task(partial(serving.serve, app, ports.http, base.config, shutdown), end=shutdown.set)
    )
    loop_watch, collector = services.loop_watch, services.collector
    await stack.enter_async_context(
        background_task(_kept(loop_watch.run, "watching the loop", base.boundary))
    )
    await stack.enter_async_context(
        background_task(_kept(collector.run, "collecting garbage", base.boundary))
    )
    return services


def _services(
    base: _Base,
    stack: AsyncExitStack,
    ports: Ports,
    storage: Storage,
    sessions: _Sessions,
    cluster: Clustering | None,
    attempts: Attempts,
    identities: Identities,
    transport: Transport,
    tracing: Tracing | None,
) -> Services:
    """What the API uses, and the watch over the loop and the garbage."""
    registry = sessions.registry

    def follow(beat: Beat) -> None:
        registry.pace.follow(beat.busy, beat.over_s)
        base.pacing.follow(beat.busy, beat.over_s, beat.starved)

    loop_watch = LoopWatch(follow)
    collector = Collector(
        loop_watch.busy, lambda: any(actor.session.question_open for actor in registry.active())
    )
    stack.enter_context(collector.installed())
    stack.enter_context(loop_watch.installed())
    return Services(
        config=base.config,
        clock=base.clock,
        registry=registry,
        directory=sessions.router,
        store=storage.store,
        catalog=storage.catalog,
        journal=storage.journal,
        tokens=base.tokens,
        author_key=base.author_key,
        identities=identities,
        attempts=attempts,
        loop_watch=loop_watch,
        collector=collector,
        ws_url=ports.ws_url,
        play_url=ports.play_url,
        transports=lambda: [transport.statistics()] if ports.realtime is not None else [],
        version=version("fanfare"),
        scores=storage.scores,
        quiz_caches=storage.quiz_caches,
        capacity=storage.capacity,
        boundary=base.boundary,
        cluster=None if cluster is None else cluster.node,
        sign_in=base.sign_in,
        tracing=tracing,
        resumes=base.resumes,
    )


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


def _new_code() -> str:
    return str(100_000 + secrets.randbelow(900_000))
