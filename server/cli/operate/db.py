"""`fanfare db`: the database of a node, for operators."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.operate.database import configured, database_options, now_ms, opened
from server.cli.terminal import output, run

if TYPE_CHECKING:
    from engine.storage.partitions import Maintained, Slice


@click.group()
def db() -> None:
    """Look at the database of a node, bring it up to date, and look after its partitions.

    Works on the configured database, or on the embedded one in the data directory, whether the node runs or
    not.
    """


@db.command()
@database_options
def status(database_url: str | None, data_dir: str | None, file: Path | None) -> None:
    """Show the schema's version, and rows and sizes by partition.

    The numbers of rows are estimates of PostgreSQL's.
    """

    async def main() -> int:
        from engine.storage.migrations import migrate
        from engine.storage.partitions import slices

        config = configured(database_url, data_dir, file)
        async with opened(config, any_version=True) as database:
            version = await migrate.version(database)
            click.echo(f"Schema version {version}; this release has {len(migrate.STEPS)}.")
            if version != len(migrate.STEPS):
                return 1
            found = await slices(database)
        _print_slices(found)
        ahead = max((each.ends_at for each in found if each.ends_at is not None), default=0) - now_ms()
        if ahead <= 0:
            click.echo(
                "There is no partition for new sessions: they go to `default`. Run `fanfare db maintain`."
            )
            return 1
        click.echo(f"Partitions reach {ahead / 86_400_000:.0f} days ahead.")
        kept = config.retention_days
        click.echo("Retention: off." if kept is None else f"Retention: {kept} days.")
        return 0

    run(main)


@db.command()
@database_options
def maintain(database_url: str | None, data_dir: str | None, file: Path | None) -> None:
    """Make partitions ahead and drop old ones, as a running node does every hour.

    `partition_days` and `retention_days` are read from the configuration, like by `fanfare serve`. Sessions
    that have not ended are never dropped.
    """

    async def main() -> int:
        from engine.storage.partitions import Partitions

        config = configured(database_url, data_dir, file)
        async with opened(config) as database:
            partitions = Partitions(
                database, now_ms, slice_days=config.partition_days, retention_days=config.retention_days
            )
            done = await partitions.maintain()
        _tell(done)
        return 0

    run(main)


@db.command()
@database_options
def migrate(database_url: str | None, data_dir: str | None, file: Path | None) -> None:
    """Bring the schema up to date, as a node does when it starts."""

    async def main() -> int:
        from engine.storage.migrations import migrate

        async with opened(configured(database_url, data_dir, file), any_version=True) as database:
            before = await migrate.version(database)
            try:
                after = await migrate.apply(database)
            except migrate.SchemaTooNew as error:
                raise click.ClickException(str(error)) from error
        click.echo(
            f"The schema has version {after} already."
            if before == after
            else f"The schema went from version {before} to {after}."
        )
        return 0

    run(main)


def _print_slices(found: list[Slice]) -> None:
    from rich.table import Table

    table = Table("Partition", "Created from", "to before", box=None)
    for column in ("Sessions", "Players", "Answers", "Changes", "MiB"):
        table.add_column(column, justify="right")
    for each in found:
        table.add_row(
            each.name,
            _day(each.begins_at),
            _day(each.ends_at),
            *(f"{count:,}" for count in each.rows.values()),
            f"{sum(each.bytes.values()) / 2**20:,.1f}",
        )
    output().print(table)


def _tell(done: Maintained) -> None:
    from engine.storage.partitions import WHY_KEPT

    click.echo(f"Made: {', '.join(done.created) or 'none, there are enough'}.")
    click.echo(f"Dropped: {', '.join(done.dropped) or 'none'}.")
    for name, why in done.kept.items():
        click.echo(f"Old enough, but kept: {name}; {WHY_KEPT[why]}.")


def _day(at_ms: int | None) -> str:
    return "" if at_ms is None else time.strftime("%Y-%m-%d", time.gmtime(at_ms / 1000))
