"""The database behind a node, for commands that work on it directly: whether the node runs or not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from engine.storage.postgres import Database
    from server.config.config import Config

F = TypeVar("F", bound=Callable[..., Any])

STATEMENT_TIMEOUT_S = 600.0


def database_options(command: F) -> F:
    """Adds `--database-url`, `--data-dir` and `--config`."""
    command = click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file with the settings of the node.  [default: fanfare.toml, if it is there]",
    )(command)
    command = click.option(
        "--data-dir", metavar="PATH", help="Data directory of a node with an embedded database."
    )(command)
    return click.option("--database-url", metavar="URL", help="Address of the node's PostgreSQL.")(command)


def configured(database_url: str | None, data_dir: str | None, file: Path | None) -> Config:
    """The settings of the node that is meant. Raises ConfigError."""
    from server.config.config import Config

    if data_dir is not None and database_url is None:
        # Whoever names a data directory means the database in it, whatever is configured.
        config = Config.load(file, {**os.environ, "FANFARE_DATABASE_URL": ""}, {"data_dir": data_dir})
        if config.database_url is not None:
            raise click.UsageError(f"{file or 'fanfare.toml'} names a database_url: leave --data-dir away.")
        return config
    return Config.load(file, os.environ, {"database_url": database_url})


@asynccontextmanager
async def opened(config: Config, *, any_version: bool = False) -> AsyncIterator[Database]:
    """The configured database, or the embedded one: the one that runs, or else started for as long as this
    takes.

    Raises ClickException: no database there, or, without `any_version`, one whose schema is not that of this
    release.
    """
    from engine.aio import open_asyncio
    from engine.ports import StorageUnavailable, Unreadable
    from engine.storage.migrations import migrate
    from engine.storage.postgres import Database

    async with (
        _dsn(config) as dsn,
        open_asyncio(),
        Database.open(dsn, connections_max=2, statement_timeout_s=STATEMENT_TIMEOUT_S) as database,
    ):
        try:
            found = await migrate.version(database)
            if found != len(migrate.STEPS) and not any_version:
                raise click.ClickException(
                    f"the database has schema version {found}, this release has {len(migrate.STEPS)}: "
                    + (
                        "use a release at least as new as the one that used it last"
                        if found > len(migrate.STEPS)
                        else "bring it up to date with `fanfare db migrate`, or start a node"
                    )
                )
            yield database
        except StorageUnavailable as error:
            raise click.ClickException(f"PostgreSQL: {error}") from error
        except Unreadable as error:
            raise click.ClickException(f"{error}. A later release may read it") from error


@asynccontextmanager
async def _dsn(config: Config) -> AsyncIterator[str]:
    import trio

    from engine.storage import embedded

    if config.database_url is not None:
        yield config.database_url
        return
    if not (config.data_dir / "postgres" / "PG_VERSION").exists():
        raise click.ClickException(
            f"there is no database in {config.data_dir}: name one with --data-dir or --database-url"
        )
    server: embedded.EmbeddedPostgres | None = None
    try:
        try:
            dsn = embedded.dsn(config.data_dir)
        except embedded.NotRunning:
            server = embedded.EmbeddedPostgres(config.data_dir)
            dsn = await trio.to_thread.run_sync(server.start)
    except embedded.EmbeddedPostgresError as error:
        raise click.ClickException(f"the embedded PostgreSQL: {error}") from error
    try:
        yield dsn
    finally:
        if server is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.stop)


def now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
