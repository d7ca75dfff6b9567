"""The processes that `fanfare chaos` breaks: a node and a PostgreSQL, or several nodes and a Redis too."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from engine.shards.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from loadtest.chaos.inject import StageFailed
from loadtest.chaos.proxy import Proxy, proxy_to
from loadtest.chaos.waves import IDENTITY_SECRET
from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from server.cli.chaos.network import Neighbours, neighbours
from server.cli.chaos.node import AUTHOR_KEY, NODE, StagedNode, disk_of, end_by_itself
from server.cli.chaos.postgres import StagedPostgres
from server.listening import free_ports

CONNECTIONS = 40
"""Connections of PostgreSQL for the first node and for tools; for each further node a third of that."""

SECRET = "of-nodes-that-are-gone-when-the-run-is-over"
"""Tokens of a run are good when it is proved again, though the disk of its nodes is gone."""

DRAINED_WITHIN_S = 60.0
"""A session that is over stays for half a minute."""

STRANGER = "stranger"
TURNED_AWAY_WITHIN_S = 20.0
"""From the start of a node that may not join to its end."""

NOTICED_WITHIN_S = 30.0
"""From the return of a PostgreSQL that has lost commits until every node has been to it."""

LOOK_EVERY_S = 0.1
LOOK_TIMEOUT_S = 3.0


class StagedRedis:
    """A Redis that can be started again, empty. Calls raise StageFailed."""

    def __init__(self, directory: Path) -> None:
        self._redis = EmbeddedRedis(directory)

    def socket_path(self) -> str:
        return unquote(urlsplit(self._redis.url).path)

    async def start(self) -> None:
        try:
            await trio.to_thread.run_sync(self._redis.start)
        except EmbeddedRedisError as exc:
            raise StageFailed(f"Redis: {exc}") from exc

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        await trio.to_thread.run_sync(self._redis.stop)

    def pause(self, on: bool) -> None:
        self._signal(signal.SIGSTOP if on else signal.SIGCONT)

    async def flush(self) -> None:
        try:
            stream = await trio.open_unix_socket(self.socket_path())
            async with stream:
                await stream.send_all(b"FLUSHALL SYNC\r\n")
                said = await stream.receive_some(64)
        except OSError as exc:
            raise StageFailed(f"Redis: {exc}") from exc
        if not said.startswith(b"+OK"):
            raise StageFailed(f"Redis says {said!r} to FLUSHALL")

    def _signal(self, sign: signal.Signals) -> None:
        if self._redis.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._redis.pid, sign)

    async def end(self) -> None:
        """In whatever state it is."""
        self.pause(False)
        await trio.to_thread.run_sync(self._redis.stop)


class Stage:
    """Made by `staged`. The ports of the nodes stay the same for as long as it lasts."""

    def __init__(
        self,
        staged_nodes: Sequence[StagedNode],
        postgres: StagedPostgres,
        to_postgres: Sequence[Proxy],
        redis: StagedRedis | None = None,
        to_redis: Sequence[Proxy] = (),
        between: Neighbours | None = None,
        program: Sequence[str] = NODE,
    ) -> None:
        self.nodes = len(staged_nodes)
        self._nodes = staged_nodes
        self._postgres = postgres
        self._to_postgres = to_postgres
        self._redis = redis
        self._to_redis = to_redis
        self._between = between
        self._program = program

    @property
    def url(self) -> str:
        """Of the first node."""
        return self._nodes[0].url

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self._nodes]

    def api(self, node: int = 0) -> Api:
        return Api(self._nodes[node].url, author_key=AUTHOR_KEY)

    @property
    def ws_urls(self) -> list[str]:
        return [node.ws_url for node in self._nodes]

    @property
    def database(self) -> str:
        """PostgreSQL itself, not by way of a proxy."""
        return self._postgres.dsn

    # -- the nodes -------------------------------------------------------------------------------

    async def start_node(self, node: int = 0) -> None:
        await self._nodes[node].start()

    async def kill_node(self, node: int = 0) -> None:
        await self._nodes[node].kill()

    async def end_node(self, node: int = 0) -> None:
        await self._nodes[node].terminate()

    def pause_node(self, node: int, on: bool) -> None:
        self._nodes[node].pause(on)

    def set_clock(self, node: int, ahead_s: float) -> None:
        self._nodes[node].set_clock(ahead_s)

    def fill_disk(self, node: int, on: bool) -> None:
        self._nodes[node].fill_disk(on)

    async def turn_away(self, node: int, *, twin: bool) -> None:
        name = _name(node) if twin else STRANGER
        secret = SECRET if twin else SECRET[::-1]
        what = "a second node of one name" if twin else "a node with another secret"
        http_port, realtime_port, link_port = free_ports(3)
        options = [
            *("--node", name, "--secret", secret),
            *("--http-port", str(http_port), "--realtime-port", str(realtime_port)),
            *("--link-port", str(link_port)),
            *_shared(self._to_postgres[node], self._to_redis[node]),
        ]
        beside = self._nodes[node].data_dir.with_name(f"{STRANGER}-{http_port}")
        code, said = await end_by_itself(beside, options, self._program, TURNED_AWAY_WITHIN_S)
        if code is None:
            raise StageFailed(f"{what} runs after {TURNED_AWAY_WITHIN_S:.0f} s, and should have ended{said}")
        if code <= 0 or not said:
            raise StageFailed(f"{what} ended with {code}, and should have said why{said}")

    async def drain_node(self, node: int) -> None:
        name, left = _name(node), "it is not known as draining"
        async with self.api(node) as api:
            with trio.move_on_after(DRAINED_WITHIN_S):
                await api.drain(name)
                while True:
                    shown = {each["name"]: each for each in (await api.cluster())["nodes"]}[name]
                    if shown["state"] == "draining":
                        left = f"{shown['sessions']} sessions are left"
                        if not shown["sessions"]:
                            return
                    await trio.sleep(LOOK_EVERY_S)
        raise StageFailed(f"{name} has not drained within {DRAINED_WITHIN_S:.0f} s: {left}")

    async def settled(self, within_s: float) -> None:
        if self._redis is not None:
            await self._each_is_back(within_s, self._missing)

    async def _each_is_back(self, within_s: float, missing_of: Callable[[Api], Awaitable[str]]) -> None:
        """Wait until no node lacks anything. `missing_of` tells what one does; empty if nothing."""
        async with trio.open_nursery() as nursery:
            for node in self._nodes:
                nursery.start_soon(self._is_back, node, within_s, missing_of)

    async def _is_back(
        self, node: StagedNode, within_s: float, missing_of: Callable[[Api], Awaitable[str]]
    ) -> None:
        missing = "it does not answer"
        async with Api(node.url, author_key=AUTHOR_KEY, timeout_s=LOOK_TIMEOUT_S) as api:
            with trio.move_on_after(within_s):
                while missing:
                    try:
                        missing = await missing_of(api)
                    except (ApiUnreachable, ApiRefused) as exc:
                        missing = str(exc)
                    if missing:
                        await trio.sleep(LOOK_EVERY_S)
        if missing:
            raise StageFailed(f"{node.data_dir.name} is not back after {within_s:.0f} s: {missing}")

    async def _missing(self, api: Api) -> str:
        """What keeps a node from being as before, in a word; empty if nothing does."""
        ready = await api.readiness()
        if not ready["ready"] or ready["degraded"]:
            return "; ".join([*ready["reasons"], *ready["degraded"]])
        cluster = await api.cluster()
        if not cluster["redis_up"]:
            return "Redis does not answer it"
        up = [each["name"] for each in cluster["nodes"] if each["state"] == "up"]
        return "" if len(up) == self.nodes else f"it knows {', '.join(up) or 'nobody'}"

    # -- what they need --------------------------------------------------------------------------

    def to_postgres(self, node: int) -> Proxy:
        return self._to_postgres[node]

    def to_redis(self, node: int) -> Proxy:
        return self._to_redis[node]

    def to_others(self, node: int) -> Sequence[Proxy]:
        assert self._between is not None, "a node alone has no neighbours"
        return self._between.of(node)

    async def start_postgres(self) -> None:
        await self._postgres.start()

    async def kill_postgres(self) -> None:
        await self._postgres.kill()

    async def kill_backend(self, share: float) -> None:
        await self._postgres.kill_backend(share)

    async def copy_postgres(self) -> None:
        await self._postgres.copy()

    async def restore_postgres(self) -> None:
        await self._postgres.restore()
        # A look into the database is the first thing that a node says on a new connection.
        await self._each_is_back(NOTICED_WITHIN_S, self._not_been_to_postgres)

    async def _not_been_to_postgres(self, api: Api) -> str:
        """Empty once it has."""
        await api.sessions(limit=1)
        return ""

    def pause_postgres(self, on: bool) -> None:
        self._postgres.pause(on)

    async def lock_answers(self, lasts_s: float) -> None:
        await self._postgres.lock_answers(lasts_s)

    @property
    def _its_redis(self) -> StagedRedis:
        assert self._redis is not None, "a node alone has no Redis"
        return self._redis

    async def start_redis(self) -> None:
        await self._its_redis.start()

    async def kill_redis(self) -> None:
        await self._its_redis.kill()

    def pause_redis(self, on: bool) -> None:
        self._its_redis.pause(on)

    async def flush_redis(self) -> None:
        await self._its_redis.flush()

    # -- from the beginning to the end -----------------------------------------------------------

    async def start(self) -> None:
        await self._postgres.start()
        if self._redis is not None:
            await self._redis.start()
        await self._nodes[0].start()  # it makes the tables
        async with trio.open_nursery() as nursery:
            for node in self._nodes[1:]:
                nursery.start_soon(node.start)

    async def end(self) -> None:
        """Whatever state the processes are in, they are gone afterwards."""
        # What stands still would keep the nodes from ending well.
        self._postgres.pause(False)
        if self._redis is not None:
            self._redis.pause(False)
        async with trio.open_nursery() as nursery:
            for node in self._nodes:
                node.pause(False)
                nursery.start_soon(node.end, signal.SIGTERM)
        await self._postgres.end()
        if self._redis is not None:
            await self._redis.end()


@asynccontextmanager
async def staged(
    directory: Path,
    options: Sequence[str] = (),
    program: Sequence[str] = NODE,
    nodes: int = 1,
    clock_library: Path | None = None,
) -> AsyncGenerator[Stage]:
    """Nodes and a PostgreSQL in a directory, and with several nodes a Redis; afterwards all have ended.

    Args:
        options: for `fanfare serve`.
        program: what takes the place of `fanfare`.
        nodes: several are a cluster, with a proxy between each node and each thing that it needs.
        clock_library: as StagedNode has it.

    Raises StageFailed, also within a group, from within the block when a node ends by itself.
    """
    postgres = StagedPostgres(directory, CONNECTIONS + (nodes - 1) * CONNECTIONS // 3)
    async with AsyncExitStack() as stack:
        data_dirs = [directory / (_name(place) if nodes > 1 else "node") for place in range(nodes)]
        for data_dir in data_dirs:
            stack.enter_context(disk_of(data_dir))
        free = free_ports(3 * nodes)
        ports = [free[3 * place : 3 * place + 3] for place in range(nodes)]
        to_postgres = [await stack.enter_async_context(proxy_to(postgres.socket_path)) for _ in data_dirs]
        redis: StagedRedis | None = None
        to_redis: list[Proxy] = []
        between: Neighbours | None = None
        made: list[StagedNode] = []
        if nodes > 1:
            redis = StagedRedis(directory / "redis")
            to_redis = [await stack.enter_async_context(proxy_to(redis.socket_path)) for _ in data_dirs]
            between = await stack.enter_async_context(
                neighbours([link_port for _, _, link_port in ports], lambda place: made[place].pid)
            )
        nursery = await stack.enter_async_context(trio.open_nursery())
        for place, (http_port, realtime_port, link_port) in enumerate(ports):
            if between is None:
                own = ["--node", "chaos", "--secret", SECRET, *_shared(to_postgres[place])]
            else:
                own = ["--node", _name(place), "--secret", SECRET]
                own += _shared(to_postgres[place], to_redis[place])
                own += [f"--link-port={link_port}", f"--link-url=ws://127.0.0.1:{between.ports[place]}"]
            settings = [*own, *options]
            made.append(
                StagedNode(
                    data_dirs[place], http_port, realtime_port, nursery, settings, program, clock_library
                )
            )
        stage = Stage(made, postgres, to_postgres, redis, to_redis, between, program)
        try:
            await stage.start()
            yield stage
        finally:
            with trio.CancelScope(shield=True):
                await stage.end()
        nursery.cancel_scope.cancel()


def _shared(to_postgres: Proxy, to_redis: Proxy | None = None) -> list[str]:
    """The settings that all nodes share: where the services are, and the app whose users play."""
    found = [f"--database-url=postgresql://postgres@127.0.0.1:{to_postgres.port}/postgres"]
    found += ["--identity=optional", f"--identity-secret={IDENTITY_SECRET}"]
    if to_redis is not None:
        found.append(f"--redis-url=redis://127.0.0.1:{to_redis.port}/0")
    return found


def _name(place: int) -> str:
    return f"node-{place + 1}"
