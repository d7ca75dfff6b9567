"""`fanfare audit`: whether stored scores and ranks are what the rules make of the stored answers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.operate.database import configured, database_options, now_ms, opened
from server.cli.terminal import output, printable, run, session_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.domain.audit import Difference
    from engine.ports import SessionRecord
    from engine.storage.postgres import Database, Row

SHOWN_MAX = 200
"""Differences of one session in the table; JSON has them all."""


@click.command()
@session_argument("key", metavar="[SESSION]", required=False)
@click.option("--all", "everything", is_flag=True, help="Audit every session instead of one.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="With --all: sessions created from then on (UTC).",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@database_options
def audit(
    key: str | None,
    everything: bool,
    since: datetime | None,
    as_json: bool,
    database_url: str | None,
    data_dir: str | None,
    file: Path | None,
) -> None:
    """Recompute the session SESSION (its id or code) from its stored facts and compare.

    Every answer is judged and scored again, and the standing made again, with the rules of the game and the
    quiz as it was played, corrections included. The exit code is 0 only if all that is stored agrees. A
    session that still runs is audited as far as it is committed.

    Works on the configured database, or on the embedded one in the data directory, whether the node runs or
    not. Nothing is changed.
    """
    if (key is None) != everything:
        raise click.UsageError("Name a session, or use --all.")
    if since is not None and not everything:
        raise click.UsageError("--since belongs to --all.")

    async def main() -> int:
        from engine.domain.audit import audit as find_differences
        from engine.ports import SessionNotFound, Unreadable
        from engine.storage.catalog import CachedCatalog, PostgresCatalog
        from engine.storage.corrections import Corrections
        from engine.storage.sessions import PostgresSessionStore

        audited = 0
        differing: list[tuple[SessionRecord, list[Difference]]] = []
        async with opened(configured(database_url, data_dir, file)) as database:
            catalog = CachedCatalog(PostgresCatalog(database, now_ms))
            corrections = Corrections(database, catalog)

            async def look(session_id: str) -> SessionRecord:
                nonlocal audited
                record, evidence, _ = await corrections.evidence(session_id)
                audited += 1
                if found := [*find_differences(evidence), *await _of_users(database, session_id)]:
                    differing.append((record, found))
                return record

            if key is not None:
                try:
                    found = await PostgresSessionStore(database, catalog).find(key)
                    record = await look(found.id)
                except SessionNotFound:
                    raise click.ClickException(f"No session has the id or code {printable(key)}.") from None
                if record.finished_at is None and not as_json:
                    click.echo(f"Session {record.code} still runs: audited as far as it is committed.")
            else:
                from_ms = 0 if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
                async for session_id in corrections.created_since(from_ms):
                    try:
                        await look(session_id)
                    except SessionNotFound:
                        continue  # retention has dropped it meanwhile
                    except Unreadable as error:
                        click.echo(f"Not audited: {error}", err=True)
        if as_json:
            _print_json(audited, differing)
        else:
            _print(audited, differing)
        return 1 if differing else 0

    run(main)


async def _of_users(database: Database, session_id: str) -> list[Difference]:
    from engine.domain.audit import Difference
    from engine.storage.postgres import Connection
    from engine.storage.score_checks import wrong_scores

    async def read(connection: Connection) -> list[Difference]:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return [
            Difference("user_score", stored=_user(stored), computed=_user(computed))
            for stored, computed in await wrong_scores(connection, session_id)
        ]

    return await database.in_transaction(read)


def _user(row: Row | None) -> dict[str, object] | None:
    if row is None:
        return None
    names = ("user_id", "name", "score", "correct", "answered", "elapsed_ms", "rank", "players")
    return {name: row[name] for name in names} | {"finished_at": row["finished_at"].isoformat()}


def _print_json(audited: int, differing: Sequence[tuple[SessionRecord, list[Difference]]]) -> None:
    import orjson

    document = {
        "audited": audited,
        "differing": [
            {
                "session_id": record.id,
                "code": record.code,
                "quiz_id": record.quiz_id,
                "quiz_version": record.quiz_version,
                "differences": [asdict(each) for each in found],
            }
            for record, found in differing
        ],
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _print(audited: int, differing: Sequence[tuple[SessionRecord, list[Difference]]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from engine.domain.audit import KINDS

    for record, found in differing:
        click.echo(f"Session {record.id} (code {record.code}, quiz {printable(record.quiz_id)}):")
        table = Table(box=None)
        for column in ("Fact", "Question", "Player"):
            table.add_column(column, justify="right")
        for column in ("What", "Stored", "Computed"):
            table.add_column(column)
        for each in found[:SHOWN_MAX]:
            where = (each.seq, each.question, each.player)
            values = (KINDS[each.kind], _value(each.stored), _value(each.computed))
            table.add_row(*("" if n is None else str(n) for n in where), *map(Text, values))
        output().print(table)
        if len(found) > SHOWN_MAX:
            click.echo(f"and {len(found) - SHOWN_MAX:,} more; --json has them all.")
    sessions = f"{audited:,} session{'' if audited == 1 else 's'} audited"
    click.echo(f"{sessions}: {'no difference' if not differing else f'{len(differing):,} with differences'}.")


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(value)
