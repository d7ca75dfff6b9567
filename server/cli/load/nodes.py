"""Nodes for a load run: several processes over one embedded database, each alone or all in one cluster."""

from __future__ import annotations

import math
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from server.cli.cluster.node_process import CROWDED, NODE, START_WITHIN_S, NodeProcess, node_process
from server.file_limit import files_allowed, room
from server.listening import free_ports

if TYPE_CHECKING:
    from engine.shards.embedded_redis import EmbeddedRedis

PLAYERS_PER_NODE_MAX = 19_000
"""Few large nodes do the same work with fewer, larger commits than many small ones. A process may often have
no more than 20,000 files."""

COMING_BACK_PER_NODE = 400
"""Connections that are not used any more, which the node does not know yet."""

UNEVEN = 1.02
"""How many more players than others a node of a cluster may get. Each node deals out evenly the sessions that
are made at it; a session is not divided."""

DATABASE_CONNECTIONS_PER_NODE = 12
READY_EVERY_S = 0.1


def players_per_node() -> int:
    """How many players a node gets unless `--spawn` says how many nodes there are: as many as the limit of
    open files allows, and PLAYERS_PER_NODE_MAX at most."""
    return max(min(room(0).realtime - COMING_BACK_PER_NODE, PLAYERS_PER_NODE_MAX), 1)


def check_room(players: int, nodes: int) -> None:
    """Refuse to run more players than the nodes can take. Raises ClickException."""
    each = math.ceil(players / nodes)
    allowed = files_allowed()
    if each + COMING_BACK_PER_NODE > room(0, allowed).realtime:
        raise click.ClickException(
            f"A process may have {allowed:,} open files, and {each:,} players on one node need more: "
            "more nodes, please (--spawn)."
        )


class LoadNode:
    """A node in a process of its own, which may be killed, or ended and started again in its place."""

    def __init__(
        self,
        name: str,
        data_dir: Path,
        options: Sequence[str],
        program: Sequence[str],
        author_key: str | None = None,
    ) -> None:
        self.name = name
        self.process: NodeProcess | None = None
        """None while it does not run."""
        self._data_dir = data_dir
        self._options = options
        self._program = program
        self._author_key = author_key
        self._life = trio.CancelScope()
        self._again = False
        self._up = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the node until it is killed. Started once it is up. Raises ClickException if it does not start,
        or dies."""
        self._data_dir.mkdir()
        self._again = True
        while self._again:
            self._again = False
            with trio.CancelScope() as self._life:
                async with node_process(
                    self._data_dir, self._options, self._program, self._author_key
                ) as self.process:
                    self._up.set()
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await trio.sleep_forever()
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self._life.cancel()
        self.process = None

    async def restart(self) -> NodeProcess:
        self._again, self._up = True, trio.Event()
        self._life.cancel()
        await self._up.wait()
        assert self.process is not None
        await _ready(self.process.url)
        return self.process


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a run, by index, as in `loadtest.runs.faults.Breakable`.

    Args:
        database: the DSN of the shared database.
        author_key: the same for all nodes.
        redis_pid: None without a cluster.
    """

    nodes: Sequence[LoadNode]
    database: str
    database_pid: int
    author_key: str
    redis_pid: int | None = None

    @property
    def processes(self) -> list[NodeProcess]:
        return [node.process for node in self.nodes if node.process is not None]

    def running(self) -> list[int]:
        return [place for place, node in enumerate(self.nodes) if node.process is not None]

    def name(self, place: int) -> str:
        return self.nodes[place].name

    def kill(self, place: int) -> None:
        self.nodes[place].kill()

    async def restart(self, place: int) -> int:
        return (await self.nodes[place].restart()).pid


@asynccontextmanager
async def spawned(
    count: int, directory: Path, options: Sequence[str] = (), *, cluster: bool = False
) -> AsyncGenerator[Nodes]:
    """Start nodes; afterwards they, their database and their Redis have ended.

    All of them are up before any session is opened: a lone node that starts takes over every unfinished
    session of its database. Those of a cluster find each other through a Redis, and keep their ports when
    they are started again. Raises ClickException.
    """
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(_database(directory, count))
        shared = ["--database-url", dsn, "--no-samples"]
        # All players come from a few addresses of this machine.
        shared += [*CROWDED, "--connections-per-address-max", str(PLAYERS_PER_NODE_MAX * 2)]
        redis_pid = None
        if cluster:
            redis = await stack.enter_async_context(_redis(directory / "redis"))
            redis_pid = redis.pid
            shared += ["--redis-url", redis.url, "--secret", secrets.token_hex(32)]
        own = _ports_of(count) if cluster else [[] for _ in range(count)]
        author_key = secrets.token_urlsafe(18)
        asked = [[*shared, *each, *options] for each in own]
        async with running(directory, asked, author_key=author_key) as nodes:
            yield Nodes(nodes, dsn, _server_pid(directory), author_key, redis_pid)


@asynccontextmanager
async def running(
    directory: Path,
    options: Sequence[Sequence[str]],
    program: Sequence[str] = NODE,
    author_key: str | None = None,
) -> AsyncGenerator[list[LoadNode]]:
    """One node for each list of options, with its data in the directory; afterwards they have ended. Raises
    ClickException, also within a group and from within the block, when one does not start or dies."""
    nodes = [
        LoadNode(
            f"load-{number}",
            directory / f"node-{number}",
            [*each, "--node", f"load-{number}"],
            program,
            author_key,
        )
        for number, each in enumerate(options, 1)
    ]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
        yield nodes
        nursery.cancel_scope.cancel()


def _ports_of(count: int) -> list[list[str]]:
    """For each node, options that name ports which are free now."""
    names = ("--http-port", "--realtime-port", "--link-port")
    free = iter(free_ports(len(names) * count))
    return [[f"{name}={next(free)}" for name in names] for _ in range(count)]


async def _ready(url: str) -> None:
    """Wait until a node says that it is. Raises ClickException."""
    from loadtest.client.api import Api, ApiUnreachable

    async with Api(url) as api:
        with trio.move_on_after(START_WITHIN_S):
            while True:
                with suppress(ApiUnreachable):
                    if (await api.readiness())["ready"]:
                        return
                await trio.sleep(READY_EVERY_S)
    raise click.ClickException(f"The node at {url} was not ready within {START_WITHIN_S:g} s")


@asynccontextmanager
async def _redis(directory: Path) -> AsyncGenerator[EmbeddedRedis]:
    from engine.shards.embedded_redis import EmbeddedRedis, EmbeddedRedisError

    embedded = EmbeddedRedis(directory)
    try:
        await trio.to_thread.run_sync(embedded.start)
    except EmbeddedRedisError as exc:
        raise click.ClickException(f"The embedded Redis: {exc}") from exc
    try:
        yield embedded
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(embedded.stop)


@asynccontextmanager
async def _database(directory: Path, nodes: int) -> AsyncGenerator[str]:
    from engine.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError

    embedded = EmbeddedPostgres(directory, connections_max=10 + nodes * DATABASE_CONNECTIONS_PER_NODE)
    try:
        dsn = await trio.to_thread.run_sync(embedded.start)
    except EmbeddedPostgresError as exc:
        raise click.ClickException(f"The embedded PostgreSQL: {exc}") from exc
    try:
        yield dsn
    finally:
        with trio.CancelScope(shield=True), suppress(EmbeddedPostgresError):
            await trio.to_thread.run_sync(embedded.stop)


def _server_pid(directory: Path) -> int:
    """As PostgreSQL itself writes it down."""
    return int((directory / "postgres" / "postmaster.pid").read_text().splitlines()[0])
