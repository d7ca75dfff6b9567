"""`fanfare scores`: what users have scored over sessions, and the leaderboards that follow from it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from server.cli.operate.database import configured, database_options, now_ms, opened
from server.cli.terminal import printable, run, session_argument

if TYPE_CHECKING:
    from engine.scores import Rule
    from engine.storage.postgres import Database

_AT_ONCE = 50


@click.group()
def scores() -> None:
    """Make the scores of users anew from the facts, or compare them.

    Works on the configured database, or on the embedded one in the data directory, whether the node runs or
    not.
    """


@scores.command()
@session_argument("key", metavar="[SESSION]", required=False)
@click.option("--all", "everything", is_flag=True, help="Of every session instead of one.")
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d"]), help="With --all: sessions created from then on (UTC)."
)
@click.option("--after", help="With --all: go on after the session with this id.")
@database_options
def rebuild(
    key: str | None,
    everything: bool,
    since: datetime | None,
    after: str | None,
    database_url: str | None,
    data_dir: str | None,
    file: Path | None,
) -> None:
    """Make the scores of users in the session SESSION (its id or code) anew from what is stored of it.

    Nodes may run meanwhile. The leaderboards follow as soon as a node runs: by its settings, so this is also
    what to do after `leaderboard_rule` or `leaderboard_zone` was changed. Scores whose sessions retention has
    dropped stay as they are, and count again.
    """
    if (key is None) != everything:
        raise click.UsageError("Name a session, or use --all.")
    if not everything and (since is not None or after is not None):
        raise click.UsageError("--since and --after belong to --all.")

    async def main() -> int:
        from engine.domain.session_keys import is_id
        from engine.storage.score_checks import rebuild as rebuild_some
        from engine.storage.score_checks import rebuild_session

        if after is not None and not is_id(after):
            raise click.UsageError("--after is the id of a session.")
        async with opened(configured(database_url, data_dir, file)) as database:
            if key is not None:
                await rebuild_session(database, await _id_of(database, key))
                click.echo("The scores of the session are made anew.")
                return 0
            done, last, more = 0, after, True
            while more:
                found, more = await rebuild_some(
                    database, None if since is None else since.date(), last, _AT_ONCE
                )
                done += len(found)
                last = found[-1] if found else last
                if more:
                    click.echo(f"{done:,} sessions; to go on from here: --after {last}", err=True)
        click.echo(f"The scores of {done:,} session{'' if done == 1 else 's'} are made anew.")
        return 0

    run(main)


@scores.command()
@database_options
def audit(database_url: str | None, data_dir: str | None, file: Path | None) -> None:
    """Compare the leaderboards with the scores of users. `fanfare audit` compares these with the facts.

    The exit code is 0 only if they agree. While changes wait for a node, nothing is compared.
    """

    async def main() -> int:
        from engine.storage.score_checks import waiting, wrong_entries

        config = configured(database_url, data_dir, file)
        async with opened(config) as database:
            if left := await waiting(database):
                raise click.ClickException(f"{left:,} changes wait for a node to follow them.")
            compared, wrong = await wrong_entries(
                database, cast("Rule", config.leaderboard_rule), config.leaderboard_zone
            )
        click.echo(f"{compared:,} lines of leaderboards compared: {wrong:,} are not what the scores say.")
        return 1 if wrong else 0

    run(main)


async def _id_of(database: Database, key: str) -> str:
    from engine.ports import SessionNotFound
    from engine.storage.catalog import PostgresCatalog
    from engine.storage.sessions import PostgresSessionStore

    try:
        return (await PostgresSessionStore(database, PostgresCatalog(database, now_ms)).find(key)).id
    except SessionNotFound:
        raise click.ClickException(f"No session has the id or code {printable(key)}.") from None
