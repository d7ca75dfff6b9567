"""A PostgreSQL that comes back without its last commits: what was acknowledged is written again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.domain import facts as f
from engine.ports import SessionRecord, StorageUnavailable, StoredQuiz, Unreadable
from engine.storage.catalog import CachedCatalog, PostgresCatalog
from engine.storage.journal.retained import Retained
from engine.storage.journal.writer import WriteBehind
from engine.storage.migrations import migrate
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from engine.storage.spool.put_aside import PostgresSpooledFacts
from server.cli.chaos.postgres import StagedPostgres
from tests.storage.making import AT, Listener, answered, joined, quiz_of, record_of


@dataclass
class Node:
    """What of a node speaks with the database. All of it is named `node`."""

    database: Database
    retained: Retained
    store: PostgresSessionStore
    catalog: CachedCatalog
    journal: WriteBehind

    async def session(self, quiz_id: str | None = None) -> tuple[SessionRecord, int, Listener]:
        """A claimed session, its epoch, and a listener."""
        if quiz_id is None:
            quiz_id = (await self.catalog.add(quiz_of(), "a quiz")).id
        record = record_of(quiz_id)
        await self.store.create(record)
        return record, (await self.store.claim(record.id, "node")).epoch, Listener()

    async def write(self, record: SessionRecord, epoch: int, listener: Listener, *facts: f.Fact) -> None:
        self.journal.append(record.id, epoch, facts, listener)
        with trio.fail_after(30):
            await listener.until(facts[-1].seq)

    async def looked(self) -> None:
        """Until a connection that is new has been looked at."""
        with trio.fail_after(30):
            while True:
                with suppress(StorageUnavailable):
                    await self.database.execute("SELECT pg_terminate_backend(pg_backend_pid())")
                try:
                    await self.database.execute("SELECT 1")
                except StorageUnavailable:
                    await trio.sleep(0.01)
                else:
                    return

    @property
    def counted(self) -> tuple[int, int, int, int]:
        """Losses, facts written again, put aside, lost."""
        seen = self.journal.statistics().retained
        return seen.losses_total, seen.written_again_total, seen.put_aside_total, seen.lost_total


@asynccontextmanager
async def node_over(dsn: str, now_ms: Callable[[], int] = lambda: AT, **more: Any) -> AsyncIterator[Node]:
    retained = Retained(node="node", now_ms=now_ms, **more)
    async with Database.open(dsn, retained.look, connections_max=2) as database:
        await migrate.apply(database)
        catalog = CachedCatalog(PostgresCatalog(database, lambda: AT))
        store = PostgresSessionStore(database, catalog, retained)
        journal = WriteBehind(
            database,
            owner="node",
            now_ms=now_ms,
            retained=retained,
            alive_interval_s=0.05,
            retry_max_s=0.1,
            shutdown_s=1.0,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            yield Node(database, retained, store, catalog, journal)
            nursery.cancel_scope.cancel()


@pytest.fixture
async def node(database_dsn: str) -> AsyncIterator[Node]:
    async with node_over(database_dsn) as node:
        yield node


async def stored(database: Database, record: SessionRecord) -> list[f.Fact]:
    """Whoever claims it next finds this."""
    store = PostgresSessionStore(database, CachedCatalog(PostgresCatalog(database, lambda: AT)))
    return list((await store.claim(record.id, "reader")).facts)


PLAY: list[f.Fact] = [
    joined(1),
    joined(2),
    f.QuestionOpened(3, AT + 3, 1),
    answered(4, 1, points=500),
    answered(5, 2, points=300),
    f.QuestionClosed(6, AT + 6, 1),
    joined(7, 3),
]


# The real thing


async def test_what_a_server_has_lost_is_written_again_and_the_session_goes_on_and_comes_back(
    asyncio_loop: None, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = StagedPostgres(short_tmp_path / "losing", connections_max=20)
    await server.start()
    async with node_over(server.dsn) as node:
        played = await node.session()
        resting = await node.session()
        claimed_again, *_ = await node.session()
        await node.write(*played, *PLAY[:4])
        await node.write(*resting, *PLAY[:1])
        await server.copy()
        await node.write(*played, *PLAY[4:6])
        await node.write(*resting, *PLAY[1:2])
        epoch = (await node.store.claim(claimed_again.id, "node")).epoch
        listener = Listener()
        await node.write(claimed_again, epoch, listener, *PLAY[:2])
        new_quiz = await node.catalog.add(quiz_of("New"))
        created = await node.session(new_quiz.id)
        await node.write(*created, *PLAY[:3])
        finished = await node.session(new_quiz.id)
        await node.write(*finished, joined(1), f.Finished(2, AT + 2))
        nobodys = record_of(new_quiz.id)
        await node.store.create(nobodys)

        await server.restore()

        # Those who play go on; of the others nothing is heard but that the node is alive.
        await node.write(*played, *PLAY[6:])
        await node.write(*created, *PLAY[3:])
        await node.looked()
        assert played[2].fences == created[2].fences == 0
        losses, again, aside, lost = node.counted
        assert (losses > 0, again, aside, lost) == (True, 2 + 1 + 2 + 3 + 2, 0, 0)
        rows = await node.database.fetch("SELECT id, epoch, owner, finished_at IS NULL AS runs FROM sessions")
        assert {str(row["id"]): (row["epoch"], row["owner"], row["runs"]) for row in rows} == {
            played[0].id: (played[1], "node", True),
            resting[0].id: (resting[1], "node", True),
            claimed_again.id: (epoch, "node", True),
            created[0].id: (created[1], "node", True),
            finished[0].id: (finished[1], "node", False),
            nobodys.id: (0, None, True),
        }
        assert await stored(node.database, played[0]) == PLAY
        assert await stored(node.database, created[0]) == PLAY
        assert await stored(node.database, resting[0]) == PLAY[:2]
        assert await stored(node.database, claimed_again) == PLAY[:2]
        assert (await node.store.find(nobodys.code)).id == nobodys.id
    await server.end()
    told = [r.levelname for r in caplog.records if "has come back without the last" in r.message]
    assert told[:1] == ["ERROR"]


# As if it had lost them


async def loses(node: Node, record: SessionRecord, after: int, **row: object) -> None:
    """The facts after `after`, and what was written to the row of the session."""
    for table in ("players", "answers", "session_changes"):
        lost = f"DELETE FROM {table} WHERE session_id = $1 AND seq > $2"
        await node.database.execute(lost, record.id, after)
    for column, value in row.items():
        await node.database.execute(f"UPDATE sessions SET {column} = $2 WHERE id = $1", record.id, value)


async def test_a_database_that_has_all_is_not_written_to(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        record, epoch, listener = await node.session()
        await node.write(record, epoch, listener, *PLAY)
        if n == 1:
            assert await node.store.grant(record.id, epoch, "node", "other")
        elif n == 2:
            other = PostgresSessionStore(node.database, node.catalog)
            await other.claim(record.id, "other")
    await node.looked()
    assert node.counted == (0, 0, 0, 0)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_of_connections_that_come_back_together_one_writes_again_what_is_missing(node: Node) -> None:
    record, epoch, listener = await node.session()
    await node.write(record, epoch, listener, *PLAY)
    await loses(node, record, 2)
    connections = [node.database.connection() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(connection.fetch, "SELECT 1")
    assert node.counted == (1, 5, 0, 0)
    for connection in connections:
        await connection.aclose()
    assert await stored(node.database, record) == PLAY


@pytest.mark.parametrize("seen", ["before it had the epoch", "with the same epoch", "with a later epoch"])
async def test_a_new_owner_keeps_the_session_and_gets_the_acknowledged_facts(node: Node, seen: str) -> None:
    record, epoch, listener = await node.session()
    for _ in range(2):
        epoch = (await node.store.claim(record.id, "node")).epoch
    await node.write(record, epoch, listener, *PLAY)
    # The other has gone on from the second fact.
    theirs = {"before it had the epoch": epoch - 1, "with the same epoch": epoch}.get(seen, epoch + 1)
    await loses(node, record, 2, epoch=theirs, owner="other")
    await node.database.execute(
        "INSERT INTO session_changes (session_id, seq, kind, locked, at) VALUES ($1, 3, 'lock', true, now())",
        record.id,
    )
    await node.looked()
    assert node.counted == (1, 0, 4, 0)
    spooled = await PostgresSpooledFacts(node.database).spooled(record.id)
    assert [fact for part in spooled for fact in part.facts] == PLAY[3:]
    node.journal.append(record.id, epoch, [joined(8, 4)], listener)
    with trio.fail_after(30):
        await listener.until_fenced()
    assert listener.seq == 7
    found = await stored(node.database, record)
    assert [type(fact) for fact in found] == [f.PlayerJoined, f.PlayerJoined, f.LockChanged]


async def test_what_another_owner_had_confirmed_just_before_is_known_from_the_claim(node: Node) -> None:
    record, epoch, listener = await node.session()
    await node.write(record, epoch, listener, *PLAY[:4])
    async with node_over_same(node) as next_owner:
        epoch = (await next_owner.store.claim(record.id, "node")).epoch
        await next_owner.write(record, epoch, Listener(), *PLAY[4:])
        await loses(node, record, 1, epoch=epoch - 1)
        await next_owner.looked()
        assert next_owner.counted == (1, 6, 0, 0)
    assert await stored(node.database, record) == PLAY


@asynccontextmanager
async def node_over_same(node: Node) -> AsyncIterator[Node]:
    async with node_over(node.database._dsn) as another:
        yield another


async def test_what_is_no_longer_kept_is_said_to_be_lost_and_the_rest_is_merged_after_the_hole(
    database_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with node_over(database_dsn, facts_max=3) as node:
        record, epoch, listener = await node.session()
        for fact in PLAY:
            await node.write(record, epoch, listener, fact)
        await loses(node, record, 2)
        await node.looked()
        assert node.counted == (1, 3, 0, 2)
        assert "has lost 2 acknowledged facts before the fact 5" in caplog.text
        # Nobody who claims it dies of the hole; what lies behind waits to be merged, and its place is free.
        claimed = await node.store.claim(record.id, "node")
        assert list(claimed.facts) == PLAY[:2]
        assert "lacks the facts 3 to 4" in caplog.text
        spooled = await PostgresSpooledFacts(node.database).spooled(record.id)
        assert [fact for part in spooled for fact in part.facts] == PLAY[4:]
        second = Listener()
        further = [f.QuestionOpened(3, AT, 1), answered(4, 2, points=1)]
        await node.write(record, claimed.epoch, second, *further)
        assert await stored(node.database, record) == [*PLAY[:2], *further]


async def test_a_session_that_is_over_and_lacks_facts_is_not_brought_to_life(database_dsn: str) -> None:
    async with node_over(database_dsn) as node:
        record, epoch, listener = await node.session()
        await node.write(record, epoch, listener, *PLAY, f.Finished(PLAY[-1].seq + 1, AT))
        await node.database.execute("DELETE FROM answers WHERE session_id = $1", record.id)
        with pytest.raises(Unreadable, match="is over, and the database has lost facts of it"):
            await node.store.claim(record.id, "node")
        assert (await node.store.find(record.id)).finished_at is not None


async def test_a_session_that_retention_has_dropped_or_whose_code_is_anothers_stays_away(
    database_dsn: str,
) -> None:
    now = AT
    async with node_over(database_dsn, lambda: now) as node:
        record, epoch, listener = await node.session()
        await node.write(record, epoch, listener, *PLAY)
        await loses(node, record, 0)
        await node.database.execute("DELETE FROM sessions WHERE id = $1", record.id)
        other = replace(record_of(record.quiz_id), code=record.code)
        await PostgresSessionStore(node.database, node.catalog).create(other)
        await node.looked()
        assert node.counted == (1, 0, 0, 7)
        record, epoch, listener = await node.session()
        await node.write(record, epoch, listener, *PLAY)
        now += 90_000_000
        await loses(node, record, 0)
        await node.database.execute("DELETE FROM sessions WHERE id = $1", record.id)
        await node.looked()
        assert node.counted == (1, 0, 0, 7)
        [row] = await node.database.fetch("SELECT count(*) AS n FROM sessions")
        assert row["n"] == 1


async def test_what_is_written_again_keeps_its_owner(node: Node) -> None:
    quiz = await node.catalog.add(quiz_of("Of Ada"), "ada's", "ada")
    record = replace(record_of(quiz.id), owner_id="ada")
    await node.store.create(record)
    await node.store.claim(record.id, "node")
    await node.database.execute("DELETE FROM sessions WHERE id = $1", record.id)
    await node.database.execute("DELETE FROM quizzes WHERE id = $1", quiz.id)
    await node.looked()
    assert (await node.store.find(record.id)).owner_id == "ada"
    assert [each.owner_id for each in await node.catalog.versions(quiz.id, 9)] == ["ada"]


async def test_a_session_that_was_deleted_is_not_taken_for_lost(node: Node) -> None:
    """Nor by a node that was not the one to delete it."""
    record, epoch, listener = await node.session()
    await node.write(record, epoch, listener, *PLAY, f.Finished(8, AT + 8))
    await PostgresSessionStore(node.database, node.catalog).delete(record.id)
    await node.looked()
    assert node.counted == (0, 0, 0, 0)
    assert not await node.database.fetch("SELECT FROM sessions")
    other, epoch, listener = await node.session()
    await node.write(other, epoch, listener, *PLAY)
    await node.looked()
    assert [row["id"] for row in await node.database.fetch("SELECT id::text FROM sessions")] == [other.id]


# What it costs


class Counted(list[f.Fact]):
    """A part that counts how many of its facts were looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[f.Fact]:
        for fact in super().__iter__():
            Counted.looked_at += 1
            yield fact


def test_to_claim_many_sessions_looks_at_each_fact_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "looked_at", 0)
    retained = Retained(node="node", now_ms=lambda: AT)
    quiz = StoredQuiz("quiz", 1, quiz_of(), AT)
    records = [record_of("quiz") for _ in range(50)]
    for record in records:
        retained.created(record, quiz)
    for fact in PLAY:  # facts of all sessions lie among one another
        for record in records:
            retained.stored(record.id, Counted([fact]))
    for record in records:
        retained.claimed(record, quiz, 2, "node", PLAY)
    assert Counted.looked_at == len(PLAY) * len(records)


async def test_to_write_many_sessions_again_looks_at_each_fact_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counted, "looked_at", 0)
    sessions = [await node.session() for _ in range(10)]
    for record, _, _ in sessions:
        node.retained.stored(record.id, Counted(PLAY))
    await node.looked()
    assert node.counted == (1, len(PLAY) * len(sessions), 0, 0)
    assert Counted.looked_at == len(PLAY) * len(sessions)
    assert await stored(node.database, sessions[0][0]) == PLAY


def test_of_the_facts_beyond_the_bound_the_oldest_are_forgotten_and_of_a_forgotten_session_all() -> None:
    retained = Retained(node="node", now_ms=lambda: AT, facts_max=4)
    quiz = StoredQuiz("quiz", 1, quiz_of(), AT)
    first, second = record_of("quiz"), record_of("quiz")
    for record in (first, second):
        retained.created(record, quiz)
    retained.stored(first.id, PLAY[:2])
    retained.stored(second.id, PLAY[:2])
    retained.stored(first.id, PLAY[2:4])
    assert retained._kept(first.id) == PLAY[2:4]
    assert retained._kept(second.id) == PLAY[:2]
    retained.forget(first.id)
    assert retained._kept(first.id) == []
    retained.stored(second.id, PLAY[2:4])
    assert retained._kept(second.id) == PLAY[:4]
