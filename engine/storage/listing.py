"""Pages of quizzes and of sessions.

How to think about it: a page begins behind the last row of the page before it (a keyset, no offset), so a
page costs the same however far back it lies, and rows that are added or deleted meanwhile shift nothing.
Every condition has an index: of each owner there is one range of it, read in the order of the listing. A text
in a title is found by the parts of two and three characters that it consists of.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.ports import Owners
from engine.storage.postgres import Database, Row

GRAM_CHARS_MIN = 2
"""A shorter text is in most titles: then titles are read in the order of the listing until a page is full."""


class _Arguments:
    """The arguments of a statement that is put together, and how each is called in it."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def add(self, value: object, kind: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


async def quizzes_page(
    database: Database,
    columns: str,
    limit: int,
    after: tuple[str, str] | None,
    owners: Owners,
    title: str | None,
) -> Sequence[Row]:
    """These columns of quizzes: as `QuizCatalog.page`."""
    arguments = _Arguments()
    shared = [
        "q.deleted_at IS NULL",
        "NOT EXISTS (SELECT FROM quizzes n "
        "WHERE n.id = q.id AND n.version > q.version AND n.deleted_at IS NULL)",
    ]
    if after is not None:
        behind = (f'{arguments.add(each, "text")} COLLATE "C"' for each in after)
        shared.append(f'(q.title COLLATE "C", q.id COLLATE "C") > ({", ".join(behind)})')
    if title is not None:
        shared += _in_title("q", title, arguments)
    found = _of_owners(
        "q.id, q.version",
        "quizzes q",
        "q",
        shared,
        'q.title COLLATE "C", q.id COLLATE "C"',
        limit,
        owners,
        arguments,
    )
    return await database.fetch(
        f"""
        SELECT {columns} FROM quizzes JOIN ({found}) AS found USING (id, version)
        ORDER BY title COLLATE "C", id COLLATE "C" LIMIT {arguments.add(limit, "bigint")}
        """,
        *arguments.values,
    )


async def sessions_page(
    database: Database, limit: int, after: tuple[int, str] | None, owners: Owners, title: str | None
) -> Sequence[Row]:
    """As `SessionStore.page`."""
    arguments = _Arguments()
    shared, source = [], "sessions s"
    if after is not None:
        at = f"'epoch'::timestamptz + {arguments.add(after[0], 'float8')} * interval '1 ms'"
        shared.append(f"(s.created_at, s.id) < ({at}, {arguments.add(after[1], 'uuid')})")
    if title is not None:
        source += " JOIN quizzes t ON t.id = s.quiz_id AND t.version = s.quiz_version"
        shared += _in_title("t", title, arguments)
    found = _of_owners("s.*", source, "s", shared, "s.created_at DESC, s.id DESC", limit, owners, arguments)
    return await database.fetch(
        f"""
        SELECT s.id, s.code, s.quiz_id, q.title, s.owner_id,
               (extract(epoch FROM s.created_at) * 1000)::bigint AS created_at,
               (extract(epoch FROM s.finished_at) * 1000)::bigint AS finished_at,
               (SELECT count(*) FROM players p WHERE p.session_id = s.id AND NOT EXISTS (
                    SELECT FROM removed_players k WHERE k.session_id = s.id AND k.player = p.player))
               AS players
        FROM (SELECT * FROM ({found}) AS each
              ORDER BY created_at DESC, id DESC LIMIT {arguments.add(limit, "bigint")}) AS s
        JOIN quizzes q ON q.id = s.quiz_id AND q.version = s.quiz_version
        ORDER BY s.created_at DESC, s.id DESC
        """,
        *arguments.values,
    )


def _in_title(table: str, text: str, arguments: _Arguments) -> list[str]:
    folded = f"fold_title({arguments.add(text, 'text')})"
    conditions = [f"position({folded} IN {table}.folded_title) > 0"]
    if len(text) >= GRAM_CHARS_MIN:
        conditions.append(f"title_grams({table}.folded_title) @> title_grams({folded})")
    return conditions


def _of_owners(
    columns: str,
    source: str,
    table: str,
    shared: Sequence[str],
    order: str,
    limit: int,
    owners: Owners,
    arguments: _Arguments,
) -> str:
    """One range of the index for each owner: of several at once, PostgreSQL would read all to sort them."""
    if owners is None:
        whose: list[list[str]] = [[]]
    else:
        whose = [
            [
                f"{table}.owner_id IS NULL"
                if each is None
                else f"{table}.owner_id = {arguments.add(each, 'text')}"
            ]
            for each in owners
        ]
    most = arguments.add(limit, "bigint")
    parts = [
        f"(SELECT {columns} FROM {source} WHERE {' AND '.join(['true', *shared, *own])} "
        f"ORDER BY {order} LIMIT {most})"
        for own in whose
    ]
    return " UNION ALL ".join(parts)
