"""`fanfare spool`: what a node acknowledged and has not yet brought to its database."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from server.config.config import ConfigError, resolve


def _of_data_dir(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-dir", type=click.Path(path_type=Path), help="Of the node.  [default: as configured]"
    )(command)


def _directory(data_dir: Path | None) -> Path:
    try:
        found = resolve(None, os.environ, {"data_dir": data_dir}).config.data_dir / "spool"
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    if not found.is_dir():
        raise click.ClickException(f"there is no spool in {found}")
    return found


@click.group()
def spool() -> None:
    """Look into a node's spool, and put aside what is damaged in it."""


@spool.command()
@_of_data_dir
def show(data_dir: Path | None) -> None:
    """Say what the spool holds, session by session.

    The exit code is 1 when it is damaged; then only what lies before the damage is shown.
    """
    from engine.storage.spool.codec import decode
    from engine.storage.spool.records import SpoolDamaged, walk
    from engine.storage.spool.segments import segments

    directory = _directory(data_dir)
    facts = 0
    times: list[int] = []
    sessions: dict[tuple[str, int], list[int]] = {}
    damage: SpoolDamaged | None = None
    try:
        for _, record in walk(segments(directory)):
            facts += record.facts
            times = [*times[:1], record.at]
            for each in decode(record.payload):
                sessions.setdefault((each.session_id, each.epoch), []).extend(f.seq for f in each.facts)
    except SpoolDamaged as error:
        damage = error
    except FileNotFoundError:
        raise click.ClickException("the node is emptying this spool just now; look again") from None
    for (session_id, epoch), seqs in sessions.items():
        click.echo(f"session {session_id}, epoch {epoch}: {len(seqs)} facts, {min(seqs)} to {max(seqs)}")
    if times:
        first, last = (
            f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}" for at in (times[0], times[-1])
        )
        click.echo(f"{facts} facts, written from {first} to {last} UTC")
    elif damage is None:
        click.echo("The spool is empty.")
    if damage is not None:
        raise click.ClickException(str(damage))


@spool.command()
@_of_data_dir
def cut(data_dir: Path | None) -> None:
    """Keep what can be read of a damaged spool, and put the rest aside.

    The node must not run. Its next start brings to the database what was kept. Answers in the rest were
    acknowledged and will be missing.
    """
    from engine.storage.spool.segments import SpoolInUse
    from engine.storage.spool.segments import cut as cut_spool

    directory = _directory(data_dir)
    aside = directory.with_name(f"spool-damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    try:
        left = cut_spool(directory, aside)
    except (SpoolInUse, OSError) as error:
        raise click.ClickException(str(error)) from error
    if aside.exists():
        click.echo(f"{left} facts are kept; the damaged part is in {aside}")
    else:
        click.echo(f"The spool is not damaged; it holds {left} facts.")
