"""Partitions: what was stored before them stays, what is written meanwhile too, and old slices go whole."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
import trio

from engine.domain import facts as f
from engine.ports import CodeTaken, SessionRecord
from engine.storage import heartbeat
from engine.storage import partitions as p
from engine.storage.catalog import PostgresCatalog
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.journal.writer import WriteBehind
from engine.storage.migrations import migrate
from engine.storage.partitions import TABLES
from engine.storage.postgres import Database, Row
from engine.storage.results import RESULTS
from engine.storage.session_ids import TIME_MAX_MS, first_id, made_at, new_id
from engine.storage.sessions import PostgresSessionStore
from tests.storage.making import AT, ONE_OF_EACH, Listener, answered, joined, quiz_of, record_of

DAY_MS = 86_400_000
BEFORE = migrate.STEPS[:1]

# What the first release says, which knows nothing of partitions, of merged answers and of users.
OLD_COMMIT = """
WITH live AS MATERIALIZED (
    SELECT batch.n, s.id
    FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS batch (id, epoch, n)
    JOIN sessions s ON s.id = batch.id AND s.epoch = batch.epoch
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
), joined AS (
    INSERT INTO players (session_id, player, name, joined_at, seq)
    SELECT live.id, p.player, p.name, 'epoch'::timestamptz + p.at * interval '1 ms', p.seq
    FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::float8[], $7::integer[])
         AS p (n, player, name, at, seq)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
),
answered AS (
    INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
    SELECT live.id, a.question, a.player, a.seq, a.choice, a.elapsed_ms, a.correct, a.points,
           'epoch'::timestamptz + a.at * interval '1 ms'
    FROM unnest($8::bigint[], $9::smallint[], $10::integer[], $11::integer[], $12::jsonb[],
                $13::integer[], $14::boolean[], $15::integer[], $16::float8[])
         AS a (n, question, player, seq, choice, elapsed_ms, correct, points, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
), changed AS (
    INSERT INTO session_changes (session_id, seq, kind, question, player, by_ms, locked, at)
    SELECT live.id, c.seq, c.kind, c.question, c.player, c.by_ms, c.locked,
           'epoch'::timestamptz + c.at * interval '1 ms'
    FROM unnest($17::bigint[], $18::integer[], $19::text[], $20::smallint[], $21::integer[], $22::bigint[],
                $23::boolean[], $24::float8[])
         AS c (n, seq, kind, question, player, by_ms, locked, at)
    JOIN live USING (n)
    ON CONFLICT DO NOTHING
), ended AS (
    UPDATE sessions SET finished_at = 'epoch'::timestamptz + f.at * interval '1 ms'
    FROM unnest($25::bigint[], $26::float8[]) AS f (n, at)
    JOIN live USING (n)
    WHERE sessions.id = live.id AND sessions.finished_at IS NULL
)
SELECT n FROM live
"""


def old_arguments(batch: Batch) -> Sequence[object]:
    """Without the users, and the merged answers and the owner at the end."""
    arguments = batch.arguments()
    return [*arguments[:7], *arguments[8:27]]


Empty = tuple[Database, str]


class Stored:
    """A database with whatever steps of the schema, and the ports over it."""

    def __init__(self, database: Database, now_ms: int = AT) -> None:
        self.database = database
        self.now_ms = now_ms
        self.catalog = PostgresCatalog(database, lambda: AT)
        self.store = PostgresSessionStore(database, self.catalog)

    def partitions(self, slice_days: int = 30, retention_days: int | None = None) -> p.Partitions:
        return p.Partitions(
            self.database, lambda: self.now_ms, slice_days=slice_days, retention_days=retention_days
        )

    async def session(
        self, *facts: f.Fact, session_id: str | None = None, at: int = AT, code: str | None = None
    ) -> SessionRecord:
        quiz = await self.catalog.add(quiz_of(), "quiz")
        record = replace(record_of(quiz.id, code, at), id=session_id or new_id(at))
        await self.store.create(record)
        if facts:
            claimed = await self.store.claim(record.id, "writer")
            batch = Batch()
            batch.add(record.id, claimed.epoch, FactRows(facts))
            await self.database.fetch(COMMIT, *batch.arguments())
        return record

    async def facts(self, record: SessionRecord) -> Sequence[f.Fact]:
        return (await self.store.claim(record.id, "reader")).facts

    async def where(self, record: SessionRecord) -> set[str]:
        """The partitions that have rows of the session."""
        found = set()
        for table, column in TABLES.items():
            rows = await self.database.fetch(
                f"SELECT DISTINCT tableoid::regclass::text AS name FROM {table} WHERE {column} = $1",
                record.id,
            )
            found |= {row["name"].rpartition("_")[2] for row in rows}
        return found

    async def names(self) -> list[str]:
        return [each.name for each in await p.slices(self.database)]


@pytest.fixture
def stored(database: Database) -> Stored:
    return Stored(database)


async def everything(database: Database) -> dict[str, list[Row]]:
    """Of the tables of the first release, all that was in them then."""
    columns = dict.fromkeys(("quizzes", *TABLES, "standings"), "*")
    columns["quizzes"] = "id, version, title, language, definition, created_at"
    columns["players"] = "session_id, player, name, joined_at, seq"
    columns["standings"] = "session_id, rank, player, name, score, correct, answered, elapsed_ms"
    columns["sessions"] = "id, code, quiz_id, quiz_version, settings, owner, epoch, created_at, finished_at"
    return {
        table: [tuple(row) for row in await database.fetch(f"SELECT {names} FROM {table} ORDER BY 1, 2, 3")]
        for table, names in columns.items()
    }


# -- ids ---------------------------------------------------------------------------------------------


def test_ids_are_in_the_order_of_time_and_are_uuids_of_version_7() -> None:
    times = [AT, AT, AT + 1, AT + DAY_MS]
    ids = [UUID(new_id(at)) for at in times]
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert [made_at(each) for each in ids] == times
    assert len(set(ids)) == 4
    assert ids[1] < first_id(AT + 1) <= ids[2] < ids[3]


# -- the step ----------------------------------------------------------------------------------------


async def old_quiz(database: Database) -> None:
    """A quiz as the first release stored it."""
    await database.execute(
        "INSERT INTO quizzes VALUES ('quiz', 1, 'Capitals', 'en', $1, now())", json.dumps(quiz_of().to_dict())
    )


async def old_sessions(database: Database, count: int) -> list[SessionRecord]:
    """Sessions as the first release stored them: half of them over, with ids all over the space."""
    await old_quiz(database)
    rng = random.Random(1)
    records = []
    for n in range(count):
        # Every fourth id is where the ids of version 7 go.
        number = rng.getrandbits(120) | (rng.randrange(256) if n % 4 else n % 3 + 1) << 120
        record = replace(record_of("quiz", created_at=AT - n), id=str(UUID(int=number, version=4)))
        await database.execute(
            "INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at, epoch) "
            "VALUES ($1, $2, 'quiz', 1, '{\"pace\": \"auto\"}', now(), 1)",
            record.id,
            record.code,
        )
        facts = ONE_OF_EACH if n % 2 else ONE_OF_EACH[:9]
        batch = Batch()
        batch.add(record.id, 1, FactRows(facts))
        await database.fetch(OLD_COMMIT, *old_arguments(batch))
        records.append(record)
    return records


async def test_what_was_stored_before_is_the_same_afterwards(empty_database: Empty) -> None:
    database, _ = empty_database
    await migrate.apply(database, BEFORE)
    records = await old_sessions(database, 40)
    before = await everything(database)
    await migrate.apply(database)
    assert await everything(database) == before
    await Stored(database).partitions().maintain()
    assert await everything(database) == before
    store = Stored(database).store
    assert {each.id for each in await store.unfinished()} == {each.id for each in records[::2]}
    for n, record in enumerate(records):
        claimed = await store.claim(record.id, "next")
        assert list(claimed.facts) == list(ONE_OF_EACH if n % 2 else ONE_OF_EACH[:9])


async def test_the_old_tables_are_kept_and_not_rewritten(empty_database: Empty) -> None:
    database, _ = empty_database
    await migrate.apply(database, BEFORE)
    records = await old_sessions(database, 8)
    files = "SELECT pg_relation_filenode('{}') AS file"
    before = {table: (await database.fetch(files.format(table)))[0]["file"] for table in TABLES}
    await migrate.apply(database)
    after = {table: (await database.fetch(files.format(f"{table}_past")))[0]["file"] for table in TABLES}
    assert after == before
    stored = Stored(database)
    assert [await stored.where(record) for record in records] == [{"default"}, *[{"past"}] * 3] * 2
    [row] = await database.fetch(
        "SELECT count(*) AS n FROM pg_constraint WHERE contype = 'f' AND conrelid = 'sessions_past'::regclass"
    )
    assert row["n"] == 1


async def test_a_session_of_before_is_played_on(empty_database: Empty) -> None:
    database, _ = empty_database
    await migrate.apply(database, BEFORE)
    records = await old_sessions(database, 5)
    await migrate.apply(database)
    stored = Stored(database)
    for record in records[::2]:
        with pytest.raises(CodeTaken):
            await stored.session(code=record.code)
        claimed = await stored.store.claim(record.id, "next")
        batch = Batch()
        batch.add(record.id, claimed.epoch, FactRows(ONE_OF_EACH[9:]))
        await database.fetch(COMMIT, *batch.arguments())
        assert list(await stored.facts(record)) == list(ONE_OF_EACH)
        await stored.session(code=record.code)


async def test_nothing_is_lost_when_the_step_is_applied_under_load(
    empty_database: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers commit and sessions begin and end while the step is applied and slices are made."""

    def statement(batch: Batch, _: str) -> tuple[str, Sequence[object]]:
        return OLD_COMMIT, old_arguments(batch)

    monkeypatch.setattr(Batch, "statement", statement)
    monkeypatch.setattr(heartbeat, "FORGET_NODES", "SELECT $1::float8")
    database, _ = empty_database
    await migrate.apply(database, BEFORE)
    await old_quiz(database)
    listeners: dict[str, Listener] = {}
    written: dict[str, int] = {}
    busy, applied = trio.Event(), trio.Event()

    async def play(journal: WriteBehind, new: bool) -> None:
        """One session after another, of 200 facts each, until some time after the step."""
        after = 0
        while after < 3:
            after += applied.is_set()
            session_id = new_id(AT) if new else str(uuid4())
            code = f"{len(written) + 100_000}"
            written[session_id] = 0
            if len(written) == 12:
                busy.set()
            listener = listeners[session_id] = Listener()
            await database.execute(
                "INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at, epoch) "
                "VALUES ($1, $2, 'quiz', 1, '{}', now(), 1)",
                session_id,
                code,
            )
            for seq in range(1, 200, 10):
                facts: list[f.Fact] = [joined(n) for n in range(seq, seq + 10)]
                if seq > 100:
                    facts = [answered(n, n - 100, choice=n) for n in range(seq, seq + 10)]
                journal.append(session_id, 1, facts, listener)
                written[session_id] = seq + 9
                await trio.lowlevel.checkpoint()
            await listener.until(150)
            journal.append(session_id, 1, [f.Finished(201, AT)], listener)
            written[session_id] = 201

    async with trio.open_nursery() as nursery:
        journal = WriteBehind(database, owner="writer", now_ms=lambda: AT)
        await nursery.start(journal.run)
        async with trio.open_nursery() as players:
            for new in (False, False, True, True):
                players.start_soon(play, journal, new)
            await busy.wait()
            await migrate.apply(database)
            await Stored(database).partitions().maintain()
            applied.set()
        await journal.drain()
        assert journal.statistics().fenced_total == 0
        nursery.cancel_scope.cancel()

    store = Stored(database).store
    assert len(written) > 12
    for session_id, seq in written.items():
        assert listeners[session_id].seq == seq
        claimed = await store.claim(session_id, "reader")
        assert [fact.seq for fact in claimed.facts] == list(range(1, seq + 1))
        assert claimed.record.finished_at == AT
    assert await store.unfinished() == []


async def test_the_step_waits_for_a_lock_without_holding_up_who_comes_after(empty_database: Empty) -> None:
    database, dsn = empty_database
    await migrate.apply(database, BEFORE)
    async with Database.open(dsn) as other:
        reading, read_on = trio.Event(), trio.Event()

        async def read_for_long() -> None:
            connection = other.connection()
            await connection.fetch("BEGIN")
            await connection.fetch("SELECT count(*) FROM answers")
            reading.set()
            await read_on.wait()
            await connection.fetch("COMMIT")
            await connection.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_for_long)
            await reading.wait()
            nursery.start_soon(migrate.apply, database)
            # Queues up behind the step, which lets go after a second.
            with trio.fail_after(10):
                for _ in range(3):
                    await other.fetch("SELECT count(*) FROM answers")
            read_on.set()
    assert "default" in await Stored(database).names()


# -- slices ------------------------------------------------------------------------------------------


async def test_slices_are_made_ahead_without_gaps(stored: Stored) -> None:
    done = await stored.partitions(slice_days=7).maintain()
    assert (len(done.created), done.dropped, done.kept) == (3, [], {})
    _, _, *found = await p.slices(stored.database)
    assert [each.name for each in found] == list(done.created)
    assert found[0].begins_at is not None
    assert AT - DAY_MS < found[0].begins_at <= AT
    for one, next_one in pairwise(found):
        assert one.ends_at == next_one.begins_at
    assert all(each.ends_at == (each.begins_at or 0) + 7 * DAY_MS for each in found)
    assert (await stored.partitions(slice_days=7).maintain()).created == []
    stored.now_ms += 7 * DAY_MS
    assert len((await stored.partitions(slice_days=1).maintain()).created) == 0
    stored.now_ms += 13 * DAY_MS
    assert len((await stored.partitions(slice_days=1).maintain()).created) == 2


async def test_several_nodes_make_them_at_once(stored: Stored) -> None:
    created: list[str] = []

    async def maintain() -> None:
        created.extend((await stored.partitions().maintain()).created)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(maintain)
    assert sorted(created) == (await stored.names())[2:]
    assert len(created) == 3


async def test_a_session_lies_in_the_slice_of_its_creation(stored: Stored) -> None:
    await stored.partitions().maintain()
    names = (await stored.names())[2:]
    first = await stored.session(*ONE_OF_EACH)
    second = await stored.session(*ONE_OF_EACH, at=AT + 31 * DAY_MS)
    assert [await stored.where(each) for each in (first, second)] == [{names[0]}, {names[1]}]


async def test_what_came_before_its_slice_is_moved_into_it_and_plays_on(stored: Stored) -> None:
    record = await stored.session(*ONE_OF_EACH[:9], code="424242")
    assert await stored.where(record) == {"default"}
    await stored.partitions().maintain()
    assert await stored.where(record) == {(await stored.names())[2]}
    assert list(await stored.facts(record)) == list(ONE_OF_EACH[:9])
    with pytest.raises(CodeTaken):
        await stored.session(code="424242")
    claimed = await stored.store.claim(record.id, "next")
    batch = Batch()
    batch.add(record.id, claimed.epoch, FactRows(ONE_OF_EACH[9:]))
    await stored.database.fetch(COMMIT, *batch.arguments())
    assert list(await stored.facts(record)) == list(ONE_OF_EACH)
    await stored.session(code="424242")


async def test_slices_are_made_from_under_sessions_that_play(stored: Stored) -> None:
    """The clock jumps past all slices, so that whoever plays is in the default partition; then it is made."""
    written: list[SessionRecord] = []
    over = False
    more = trio.Event()

    async def play(journal: WriteBehind) -> None:
        while not over:
            record = await stored.session(at=stored.now_ms)
            claimed = await stored.store.claim(record.id, "writer")
            listener = Listener()
            for seq in range(1, 61, 5):
                facts = [joined(n) for n in range(seq, seq + 5)]
                journal.append(record.id, claimed.epoch, facts, listener)
                await listener.until(seq - 10)
                if seq == 31:
                    written.append(record)
                    more.set()
            await listener.until(60)

    async with trio.open_nursery() as nursery:
        journal = WriteBehind(stored.database, owner="writer", now_ms=lambda: AT, batch_facts_max=20)
        await nursery.start(journal.run)
        async with trio.open_nursery() as players:
            for _ in range(4):
                players.start_soon(play, journal)
            for _ in range(10):
                stored.now_ms += 10 * DAY_MS
                for _ in range(6):
                    more = trio.Event()
                    await more.wait()
                assert len((await stored.partitions(slice_days=1).maintain()).created) == 3
            over = True
        statistics = journal.statistics()
        nursery.cancel_scope.cancel()
    assert (statistics.fenced_total, statistics.retries_total) == (0, 0)
    for record in written:
        assert list(await stored.facts(record)) == [joined(n) for n in range(1, 61)]
        assert len(await stored.where(record)) == 1


async def test_a_session_that_is_deleted_by_hand_frees_its_code(stored: Stored) -> None:
    record = await stored.session(code="424242")
    await stored.database.execute("DELETE FROM sessions WHERE id = $1", record.id)
    await stored.session(code="424242")


async def test_no_slice_is_made_where_ids_of_version_4_begin(stored: Stored) -> None:
    stored.now_ms = TIME_MAX_MS - 40 * DAY_MS
    assert len((await stored.partitions().maintain()).created) == 1


# -- retention ---------------------------------------------------------------------------------------


async def test_old_slices_are_dropped_whole_and_nothing_else(stored: Stored) -> None:
    await stored.partitions().maintain()
    old = await stored.session(*ONE_OF_EACH)
    young = await stored.session(*ONE_OF_EACH, at=AT + 31 * DAY_MS)
    names = (await stored.names())[2:]
    stored.now_ms = AT + 59 * DAY_MS
    assert (await stored.partitions(retention_days=30).maintain()).dropped == []
    stored.now_ms = AT + 61 * DAY_MS
    done = await stored.partitions(retention_days=30).maintain()
    assert (done.dropped, done.kept) == ([names[0]], {})
    assert await stored.where(old) == set()
    assert list(await stored.facts(young)) == list(ONE_OF_EACH)
    assert (await stored.partitions().maintain()).dropped == []


async def test_a_slice_with_an_unfinished_session_stays(stored: Stored) -> None:
    await stored.partitions().maintain()
    await stored.session(*ONE_OF_EACH)
    unfinished = await stored.session(*ONE_OF_EACH[:9])
    name = (await stored.names())[2]
    stored.now_ms = AT + 400 * DAY_MS
    done = await stored.partitions(retention_days=30).maintain()
    assert done.kept == {name: "unfinished"}
    assert len(done.dropped) == 2
    assert list(await stored.facts(unfinished)) == list(ONE_OF_EACH[:9])


async def test_sessions_without_a_time_go_when_all_of_them_are_old(stored: Stored) -> None:
    past = await stored.session(*ONE_OF_EACH, session_id="f0000000-0000-4000-8000-000000000000")
    running = await stored.session(
        *ONE_OF_EACH[:9], session_id="f0000000-0000-4000-8000-000000000001", at=AT + DAY_MS
    )
    stored.now_ms = AT + 31 * DAY_MS
    assert (await stored.partitions(retention_days=30).maintain()).kept == {}
    stored.now_ms = AT + 32 * DAY_MS
    assert (await stored.partitions(retention_days=30).maintain()).kept == {"past": "unfinished"}
    claimed = await stored.store.claim(running.id, "next")
    batch = Batch()
    batch.add(running.id, claimed.epoch, FactRows(ONE_OF_EACH[9:]))
    await stored.database.fetch(COMMIT, *batch.arguments())
    assert (await stored.partitions(retention_days=30).maintain()).dropped == ["past"]
    assert await stored.where(past) == await stored.where(running) == set()
    assert "past" in await stored.names()


async def test_a_slice_that_somebody_reads_stays_for_now(
    stored: Stored, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p, "_LOCK_TRIES", 1)
    await stored.partitions().maintain()
    name = (await stored.names())[2]
    stored.now_ms = AT + 61 * DAY_MS
    async with Database.open(database_dsn) as other:
        reader = other.connection()
        await reader.fetch("BEGIN")
        await reader.fetch(f"SELECT count(*) FROM answers_{name}")
        assert (await stored.partitions(retention_days=30).maintain()).kept == {name: "locked"}
        await reader.fetch("COMMIT")
        await reader.aclose()
    assert (await stored.partitions(retention_days=30).maintain()).dropped == [name]


async def test_the_node_lives_when_slices_cannot_be_made(
    empty_database: Empty, caplog: pytest.LogCaptureFixture
) -> None:
    database, _ = empty_database  # without any tables
    async with trio.open_nursery() as nursery:
        await nursery.start(Stored(database).partitions().run)
        nursery.cancel_scope.cancel()
    assert "partitions were not looked after" in caplog.text


# -- plans -------------------------------------------------------------------------------------------


async def plan(database: Database, sql: str, *args: object) -> str:
    rows = await database.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}", *args)
    return "\n".join(row["QUERY PLAN"] for row in rows)


def touched(text: str) -> set[str]:
    """Which of the partitions a plan names, parts that were never run and indexes left out."""
    lines = [line for line in text.splitlines() if "never executed" not in line]
    return {
        name
        for line in lines
        for name in re.findall(r" on (?:sessions|players|answers|session_changes)_(\w+)", line)
        if "pkey" not in name
    }


async def test_a_commit_touches_the_partitions_of_its_sessions_alone(stored: Stored) -> None:
    await stored.partitions().maintain()
    names = (await stored.names())[2:]
    record = await stored.session(*ONE_OF_EACH[:9])
    other = await stored.session(joined(1))
    answers = [answered(100 + player, player) for player in range(5)]
    for facts in (ONE_OF_EACH[9:], answers, [joined(100)]):
        one, two = Batch(), Batch()
        one.add(record.id, 1, FactRows(facts))
        two.add(record.id, 1, FactRows(facts))
        two.add(other.id, 1, FactRows(facts))
        for batch in (one, two):
            sql, arguments = batch.statement("writer")
            text = await plan(stored.database, sql, *arguments)
            assert touched(text) & {"past", "default", *names} == {names[0]}


async def test_results_touch_one_partition_and_only_rows_of_the_session(stored: Stored) -> None:
    await stored.partitions().maintain()
    names = (await stored.names())[2:]
    records = [await stored.session(*ONE_OF_EACH) for _ in range(300)]
    await stored.database.execute("ANALYZE")
    text = await plan(stored.database, RESULTS, records[3].id)
    assert touched(text) == {names[0]}
    assert not re.search(r"Seq Scan on (sessions|players|answers|session_changes)", text)
