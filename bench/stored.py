"""What is stored: bytes a row, the time of reading one session among many, and of work on whole tables.

Two million answers come in by group commits, from 50 sessions at a time. Then 99,000 smaller sessions are
added to the same partition.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from uuid import UUID

import trio

from bench.figures import Figure, percentile
from engine.aio import open_asyncio
from engine.domain import facts as f
from engine.domain.audit import audit
from engine.domain.quiz import Quiz
from engine.domain.session import Settings
from engine.ports import SessionRecord
from engine.storage.catalog import PostgresCatalog
from engine.storage.corrections import Corrections
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.migrations import migrate
from engine.storage.partitions import TABLES, Partitions, slices
from engine.storage.postgres import Database, DedicatedConnection
from engine.storage.results import RESULTS
from engine.storage.session_ids import new_id
from engine.storage.sessions import PostgresSessionStore
from tests.storage.making import results_of

SESSIONS = 1_000
MORE_SESSIONS = 99_000
AT_A_TIME = 50
PLAYERS = 100
QUESTIONS = 20
READS = 200
COMMITS = 300
FEW_SLICES = 3
MORE_SLICES = 57
NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
NAMES = ("Ann", "Charlotte", "Quizmaster 3000", "Zoe B.")
OWNER = "node-1-0123abcd"


class Filling:
    """Sessions that play at the same time, and the facts that they have come to."""

    def __init__(self, connection: DedicatedConnection, ids: Sequence[str]) -> None:
        self._connection = connection
        self._seqs = dict.fromkeys(ids, 0)
        self._rng = Random(1)

    async def play(self) -> None:
        for first in range(1, PLAYERS + 1, 10):
            await self._commit([("joined", player, 0) for player in range(first, first + 10)])
        for question in range(1, QUESTIONS + 1):
            await self._commit([("opened", 0, question)])
            for first in range(1, PLAYERS + 1, 10):
                await self._commit([("answered", player, question) for player in range(first, first + 10)])
            await self._commit([("closed", 0, question)])
        await self._commit([("finished", 0, 0)])

    async def _commit(self, what: Sequence[tuple[str, int, int]]) -> None:
        batch = Batch()
        for session_id in self._seqs:
            batch.add(session_id, 1, FactRows([self._fact(session_id, *each) for each in what]))
        await self._connection.fetch(COMMIT, *batch.arguments())

    def _fact(self, session_id: str, kind: str, player: int, question: int) -> f.Fact:
        self._seqs[session_id] = seq = self._seqs[session_id] + 1
        at, rng = NOW_MS + seq, self._rng
        match kind:
            case "joined":
                return f.PlayerJoined(seq, at, player, f"{rng.choice(NAMES)} {player}")
            case "opened":
                return f.QuestionOpened(seq, at, question)
            case "closed":
                return f.QuestionClosed(seq, at, question)
            case "finished":
                return f.Finished(seq, at)
        correct = rng.random() < 0.6
        elapsed_ms = rng.randrange(500, 20_000)
        return f.AnswerAccepted(
            seq, at, player, question, rng.randrange(4), elapsed_ms, correct, 900 if correct else 0
        )


async def fill(database: Database, sessions: int) -> list[str]:
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    connection = database.connection()
    await connection.fetch("SET synchronous_commit = off")  # no figure here is of the disk
    ids: list[str] = []
    for start in range(0, sessions, AT_A_TIME):
        new = [new_id(NOW_MS + start * 100) for _ in range(AT_A_TIME)]
        for n, session_id in enumerate(new, start):
            await store.create(SessionRecord(session_id, f"{n:06}", "quiz", 1, Settings(), NOW_MS))
            await store.claim(session_id, OWNER)
        await Filling(connection, new).play()
        ids += new
    await connection.aclose()
    return ids


async def fill_more(database: Database, sessions: int) -> None:
    """Many small sessions that are over: five players, five questions."""
    for start in range(0, sessions, 1_000):
        ids = [UUID(new_id(NOW_MS + start)) for _ in range(1_000)]
        for sql in _MORE:
            await database.execute(sql, ids)


_MORE = (
    "INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at, epoch, finished_at) "
    "SELECT id, '123456', 'quiz', 1, '{}', now(), 1, now() FROM unnest($1::uuid[]) AS id",
    "INSERT INTO players SELECT id, p, 'Player ' || p, now(), p "
    "FROM unnest($1::uuid[]) AS id, generate_series(1, 5) p",
    "INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at) "
    "SELECT id, q, p, 5 + 5 * q + p, '1', 1000, true, 900, now() "
    "FROM unnest($1::uuid[]) AS id, generate_series(1, 5) q, generate_series(1, 5) p",
    "INSERT INTO session_changes (session_id, seq, kind, question, at) "
    "SELECT id, 100 + q, 'opened', q, now() "
    "FROM unnest($1::uuid[]) AS id, generate_series(1, 5) q",
)


async def results_ms(database: Database, ids: Sequence[str]) -> float:
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    took_s = []
    for session_id in ids[:READS]:
        started = time.perf_counter()
        await results_of(store, session_id)
        took_s.append(time.perf_counter() - started)
    return 1000 * percentile(took_s, 0.5)


async def result_pages(database: Database, session_id: str) -> int:
    """Pages of 8 KiB that the results of a session are read from."""
    row = await database.fetchrow(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {RESULTS}", session_id)
    assert row is not None
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def commit_ms(database: Database, session_id: str) -> float:
    """A commit of a single answer, without the wait for the disk."""
    connection = database.connection()
    await connection.fetch("SET synchronous_commit = off")
    took_s = []
    for n in range(1, COMMITS + 1):
        batch = Batch()
        fact = f.AnswerAccepted(100_000 + n, NOW_MS, 1_000 + n, 1, 0, 1_000, True, 900)
        batch.add(session_id, 1, FactRows([fact]))
        sql, arguments = batch.statement()
        started = time.perf_counter()
        await connection.fetch(sql, *arguments)
        took_s.append(time.perf_counter() - started)
    await connection.aclose()
    await database.execute(f"DELETE FROM answers WHERE session_id = '{session_id}' AND player > 1000")
    return 1000 * percentile(took_s, 0.5)


async def audit_us(database: Database, ids: Sequence[str]) -> float:
    """An answer's share of reading a session and auditing it. It finds much: the points here are made up."""
    corrections = Corrections(database, PostgresCatalog(database, lambda: 0))
    started = time.perf_counter()
    for session_id in ids:
        audit((await corrections.evidence(session_id))[1])
    return 1e6 * (time.perf_counter() - started) / (len(ids) * PLAYERS * QUESTIONS)


async def seconds(database: Database, sql: str) -> float:
    started = time.perf_counter()
    await database.execute(sql)
    return time.perf_counter() - started


async def wal_bytes(database: Database) -> int:
    row = await database.fetchrow("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS n")
    assert row is not None
    return int(row["n"])


async def measure_new(database: Database, sessions: int, more_sessions: int) -> list[Figure]:
    await prepare(database, migrate.STEPS)
    partitions = Partitions(database, lambda: NOW_MS)
    await partitions.maintain()
    answers = sessions * PLAYERS * QUESTIONS
    at = f"{answers:,} answers"
    wal = await wal_bytes(database)
    ids = await fill(database, sessions)
    wal = await wal_bytes(database) - wal
    figures = []
    [name] = {row["name"] for row in await database.fetch(_NAME)}
    rows = {
        "sessions": sessions,
        "players": sessions * PLAYERS,
        "answers": answers,
        "session_changes": sessions * (2 * QUESTIONS + 1),
    }
    for table in TABLES:
        row = await database.fetchrow(_SIZE, f"{table}_{name}")
        assert row is not None
        figures.append(Figure(f"{table}, table", at, row["heap"] / rows[table], "bytes a row"))
        figures.append(Figure(f"{table}, indexes", at, row["indexes"] / rows[table], "bytes a row"))
    figures.append(Figure("write-ahead log", at, wal / answers, "bytes an answer"))
    await database.execute(f"REINDEX TABLE answers_{name}")
    row = await database.fetchrow(_SIZE, f"answers_{name}")
    assert row is not None
    figures.append(Figure("answers, indexes made anew", at, row["indexes"] / answers, "bytes a row"))
    freeze_s = await seconds(database, f"VACUUM (FREEZE) answers_{name}")
    figures.append(Figure("vacuum and freeze", at, 1e6 * freeze_s / answers, "s a million"))
    await database.execute("ANALYZE")
    few_ms, few_pages = await results_ms(database, ids), await result_pages(database, ids[-1])
    await fill_more(database, more_sessions)
    await database.execute("ANALYZE")
    many_ms, many_pages = await results_ms(database, ids), await result_pages(database, ids[-1])
    few, many = f"{sessions:,} sessions", f"{sessions + more_sessions:,} sessions"
    figures += [
        Figure("results of one session", few, few_ms, "ms", 1.0, few),
        Figure("results of one session", many, many_ms, "ms", many_ms / few_ms, few),
        Figure("results of one session", few, few_pages, "pages", 1.0, few),
        Figure("results of one session", many, many_pages, "pages", many_pages / few_pages, few),
    ]
    figures.append(Figure("audit", few, await audit_us(database, ids[:20]), "µs an answer"))
    few_ms = await commit_ms(database, ids[0])
    for day in range(MORE_SLICES):
        await Partitions(database, lambda at=NOW_MS + (88 + day) * DAY_MS: at, slice_days=1).maintain()
    many_ms = await commit_ms(database, ids[0])
    few, many = f"{FEW_SLICES} slices", f"{FEW_SLICES + MORE_SLICES} slices"
    assert len(await slices(database)) == FEW_SLICES + MORE_SLICES + 2
    figures += [
        Figure("a commit of one answer", few, few_ms, "ms", 1.0, few),
        Figure("a commit of one answer", many, many_ms, "ms", many_ms / few_ms, few),
    ]
    started = time.perf_counter()
    done = await Partitions(database, lambda: NOW_MS + 100 * DAY_MS, retention_days=60).maintain()
    assert name in done.dropped
    figures.append(Figure("slices made and one dropped", at, time.perf_counter() - started, "s"))
    return figures


async def measure_step(database: Database, sessions: int) -> list[Figure]:
    """The move of a database of the first release to partitions."""
    await prepare(database, migrate.STEPS[:1])
    await database.execute("SELECT setseed(0.5)")
    for sql in _OLD:
        await database.execute(sql, sessions)
    answers = sessions * PLAYERS * QUESTIONS
    started = time.perf_counter()
    await migrate.apply(database)
    took_s = time.perf_counter() - started
    return [Figure("the step to partitions", f"{answers:,} answers", 1e6 * took_s / answers, "s a million")]


_OLD = (
    "INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at, epoch, finished_at) "
    "SELECT gen_random_uuid(), '123456', 'quiz', 1, '{}', now(), 1, now() FROM generate_series(1, $1::int)",
    f"INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at) "
    f"SELECT id, q, p, 1 + {PLAYERS} * q + p, '1', 1000, true, 900, now() "
    f"FROM (SELECT id FROM sessions LIMIT $1::int) s, generate_series(1, {QUESTIONS}) q, "
    f"generate_series(1, {PLAYERS}) p",
)

_NAME = "SELECT DISTINCT replace(tableoid::regclass::text, 'sessions_', '') AS name FROM sessions"

_SIZE = "SELECT pg_table_size($1::regclass) AS heap, pg_indexes_size($1::regclass) AS indexes"


async def prepare(database: Database, steps: Sequence[str]) -> None:
    await migrate.apply(database, steps)
    question = {"type": "true_false", "text": "Sure?", "correct": True}
    quiz = Quiz.parse({"title": "Bench", "questions": [question] * QUESTIONS})
    # In the columns that every release has.
    await database.execute(
        "INSERT INTO quizzes (id, version, title, language, definition, created_at) "
        "VALUES ('quiz', 1, 'Bench', 'en', $1, now())",
        json.dumps(quiz.to_dict()),
    )


async def measure_all(dsn: str, sessions: int, more_sessions: int) -> list[Figure]:
    figures = []
    async with open_asyncio():
        async with Database.open(dsn, statement_timeout_s=600.0) as database:
            await database.execute("CREATE SCHEMA before")
            figures += await measure_new(database, sessions, more_sessions)
        async with Database.open(f"{dsn}&search_path=before", statement_timeout_s=600.0) as database:
            figures += await measure_step(database, sessions)
    return figures


def run(sessions: int = SESSIONS, more_sessions: int = MORE_SESSIONS) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as directory:
        server = EmbeddedPostgres(Path(directory))
        dsn = server.start()
        try:
            return trio.run(measure_all, dsn, sessions, more_sessions)
        finally:
            server.stop()
