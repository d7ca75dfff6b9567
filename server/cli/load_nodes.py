"""Nodes for a load run: several processes over one embedded database."""

from __future__ import annotations

import math
import resource
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import trio

from server.cli.node_process import NodeProcess, node_process

PLAYERS_PER_NODE = 14_500
"""Of the 15,000 connections that a node takes by itself."""

COMING_BACK_PER_NODE = 500
"""Connections that nobody uses any more, and of which the node does not know it yet."""

DATABASE_CONNECTIONS_PER_NODE = 12


def room_for(players: int, nodes: int) -> list[str]:
    """Options for nodes that are to take more players than they do by themselves. Raises ClickException when
    the system does not allow it."""
    from server.cli.doctor import FILES_BESIDE

    each = math.ceil(players / nodes)
    if each <= PLAYERS_PER_NODE:
        return []
    connections = each + COMING_BACK_PER_NODE
    files = connections + FILES_BESIDE
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < files:
        raise click.ClickException(
            f"{each:,} players on one node need {files:,} open files, and a process may have {allowed:,}: "
            "more nodes, please (--spawn)."
        )
    return [f"--connections-max={connections}"]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes that run. `database` is the DSN of what they share."""

    running: Sequence[NodeProcess]
    database: str
    database_pid: int


@asynccontextmanager
async def spawned(count: int, directory: Path, options: Sequence[str] = ()) -> AsyncGenerator[Nodes]:
    """Start nodes; afterwards they and their database have ended.

    All of them are up before any session is opened: a node that starts takes over every unfinished session of
    its database. Raises ClickException.
    """
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(_database(directory, count))
        running = []
        for number in range(1, count + 1):
            data_dir = directory / f"node-{number}"
            data_dir.mkdir()
            shared = ["--database-url", dsn, "--node", f"load-{number}", "--no-samples"]
            # All players come from a few addresses of this machine.
            shared += ["--connections-per-address-max", str(PLAYERS_PER_NODE * 2)]
            running.append(await stack.enter_async_context(node_process(data_dir, (*shared, *options))))
        yield Nodes(running, dsn, _server_pid(directory))


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
