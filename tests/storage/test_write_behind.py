"""Group commit, fencing under races, faults of ours and of Postgres."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings

from engine.aio import open_asyncio
from engine.domain import facts as f
from engine.domain.session import Session
from engine.ports import Commit, StorageUnavailable
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.journal.rows import FactRows, choice_from_json, choice_to_json
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from tests.conftest import fresh_database
from tests.storage.making import (
    AT,
    ONE_OF_EACH,
    Listener,
    answered,
    choices,
    fact_lists,
    joined,
    record_of,
    results_of,
)
from tests.storage.waiting import until
from tests.storage.world import WAITING, World, world_in

# Group commit


async def test_what_waits_is_committed_together(world: World) -> None:
    journal = world.journal()
    sessions = [await world.session() for _ in range(20)]
    listeners = [Listener() for _ in sessions]
    for seq in (1, 2, 3):
        for (record, epoch), listener in zip(sessions, listeners, strict=True):
            journal.append(record.id, epoch, [joined(seq)], listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await journal.drain()
        nursery.cancel_scope.cancel()
    statistics = journal.statistics()
    assert (statistics.batches_total, statistics.committed_total) == (1, 60)
    assert statistics.latency.count == 1
    assert [listener.seqs for listener in listeners] == [[3]] * 20
    for record, _ in sessions:
        assert [fact.seq for fact in await world.facts(record.id)] == [1, 2, 3]


async def test_a_batch_is_bounded_and_order_holds(world: World) -> None:
    record, epoch = await world.session()
    facts = [joined(seq) for seq in range(1, 21)]
    listener = Listener()
    async with world.running(batch_facts_max=10) as journal:
        journal.append(record.id, epoch, facts[:3], listener)
        journal.append(record.id, epoch, facts[3:19], listener)
        journal.append(record.id, epoch, facts[19:], listener)
        await journal.drain()
    assert listener.seqs == [3, 13, 20]
    assert journal.statistics().batches_total == 3
    assert await world.facts(record.id) == facts


async def test_a_backlog_goes_in_larger_batches_and_not_in_endless_ones(world: World) -> None:
    record, epoch = await world.session()
    facts = [joined(seq) for seq in range(1, 96)]
    listener = Listener()
    async with world.running(batch_facts_max=10) as journal:
        for seq in range(0, 95, 5):
            journal.append(record.id, epoch, facts[seq : seq + 5], listener)
        await journal.drain()
    assert listener.seqs == [40, 80, 90, 95]
    assert await world.facts(record.id) == facts


async def test_everybody_who_drains_is_woken(world: World) -> None:
    record, epoch = await world.session()
    listener = Listener()
    async with world.running() as journal:
        for seq in (1, 2):
            journal.append(record.id, epoch, [joined(seq)], listener)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.drain)
                nursery.start_soon(journal.drain)
            assert listener.seq == seq
        await journal.drain()


async def test_many_listeners_are_told_in_slices(world: World) -> None:
    rows = await world.database.fetch(
        "INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, owner, epoch, created_at) "
        "SELECT gen_random_uuid(), 500000 + n, $1, 1, '{}', 'node', 1, now() FROM generate_series(1, 120) n "
        "RETURNING id",
        world.quiz_id,
    )
    turns = 0
    seen: list[int] = []

    class Counting(Listener):
        def committed(self, seq: int, commit: Commit | None = None) -> None:
            seen.append(turns)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    journal = world.journal()
    for row in rows:
        journal.append(str(row["id"]), 1, [joined(1)], Counting())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        nursery.start_soon(journal.run)
        await journal.drain()
        nursery.cancel_scope.cancel()
    assert len(seen) == 120
    # trio shuffles: the others may come first in one turn and last in the next.
    assert max(seen.count(turn) for turn in set(seen)) <= 2 * 50


# One kind of facts

ONE_KIND: dict[str, Sequence[f.Fact]] = {
    "answers": [answered(1, 7, choice="a \U0001f389"), answered(2, 8, points=900), answered(2, 8)],
    "players": [joined(1), joined(2, name="Zoë"), joined(2, name="Zoë")],
    "an answer": [answered(1, 7, choice=(2, 0), points=500)],
    "a player": [joined(1, name="Zoë")],
}


@pytest.mark.parametrize("sessions", [1, 3])
@pytest.mark.parametrize("kind", ONE_KIND)
async def test_a_statement_for_one_kind_of_facts_does_what_the_one_for_all_does(
    world: World, kind: str, sessions: int
) -> None:
    """Also for a session under an epoch that is over, for one of another owner, and said again."""
    asked: list[tuple[str, int]] = []
    for _ in range(sessions):
        record, epoch = await world.session()
        asked.append((record.id, epoch))
    batch = Batch()
    over, theirs = asked[0], (await world.session("other"))[0]
    cases = [asked, [(over[0], over[1] + 1), *asked[1:]], [(theirs.id, 1), *asked[1:]]]
    for owner in ("node", None):
        for case in cases:
            batch = Batch()
            for session_id, epoch in case:
                batch.add(session_id, epoch, FactRows(ONE_KIND[kind]))
            sql, arguments = batch.statement(owner)
            assert sql != COMMIT
            assert len(arguments) < len(batch.arguments(owner)) / 2
            lean, twice = await outcomes(world, batch, (sql, arguments), (sql, arguments))
            [general] = await outcomes(world, batch, (COMMIT, batch.arguments(owner)))
            assert lean == twice == general
            assert (lean[0] == set()) == (case is asked or (owner is None and case is cases[2]))


async def outcomes(
    world: World, batch: Batch, *statements: tuple[str, Sequence[object]]
) -> list[tuple[set[int], list[tuple[object, ...]]]]:
    """Who is fenced, and what is stored, after each of some statements, all of which are taken back."""
    found = []
    connection = world.database.connection()
    await connection.fetch("BEGIN")
    for sql, arguments in statements:
        fenced = batch.fenced(await connection.fetch(sql, *arguments))
        rows = await connection.fetch(_STORED)
        found.append((fenced, [tuple(row) for row in rows]))
    await connection.fetch("ROLLBACK")
    await connection.aclose()
    return found


_STORED = """
SELECT 'answers' AS kind, to_jsonb(a)::text AS fact FROM answers a
UNION ALL SELECT 'players', to_jsonb(p)::text FROM players p
ORDER BY 1, 2
"""


async def test_facts_of_several_kinds_go_in_one_statement(world: World) -> None:
    record, epoch = await world.session()
    for facts in (ONE_OF_EACH, [joined(1), answered(2, 1)], [f.Finished(1, AT)]):
        batch = Batch()
        batch.add(record.id, epoch, FactRows(facts))
        assert batch.statement("node") == (COMMIT, batch.arguments("node"))


# Equality


@given(choices)
def test_every_choice_survives_json(choice: f.Choice) -> None:
    back = choice_from_json(choice_to_json(choice))
    assert (back, type(back)) == (choice, type(choice))


@given(facts=fact_lists)
@settings(max_examples=15, deadline=None)
async def test_facts_are_read_as_they_were_written(postgres_dsn: str, facts: list[f.Fact]) -> None:
    # Every example is a trio run of its own, so the database is opened in it.
    async with open_asyncio(), fresh_database(postgres_dsn) as (database, _):
        world = await world_in(database)
        record, epoch = await world.session()
        async with world.running() as journal:
            journal.append(record.id, epoch, facts[:7], Listener())
            journal.append(record.id, epoch, facts[7:], Listener())
            await journal.drain()
        back = await world.facts(record.id)
    assert back == facts
    # Equality alone takes 1, 1.0 and True for the same.
    assert [type(getattr(fact, "choice", None)) for fact in back] == [
        type(getattr(fact, "choice", None)) for fact in facts
    ]


async def test_a_played_session_is_recovered_equal_and_its_results_are_its_leaderboard(world: World) -> None:
    record = replace(record_of(world.quiz_id), settings=replace(record_of("x").settings, player_limit=100))
    await world.store.create(record)
    claimed = await world.store.claim(record.id, "node")
    session = Session(claimed.quiz, record.settings, record.created_at)
    for n in range(12):
        session.join(f"Player {n}", AT + n)
    session.start(AT + 100)
    for player in range(1, 11):
        session.answer(player, 1, player % 3 > 0, AT + 1000 + 700 * (player // 2))
    session.kick(4, AT + 9000)
    session.finish(AT + 9500)
    facts = session.take_facts()
    async with world.running() as journal:
        journal.append(record.id, claimed.epoch, facts, Listener())
        await journal.drain()
    back = await world.store.claim(record.id, "node")
    assert list(back.facts) == facts
    assert Session.recover(back.quiz, back.record.settings, back.record.created_at, back.facts) == session
    assert [
        (result.rank, result.player, result.score, result.elapsed_ms, result.name)
        for result in await results_of(world.store, record.id)
    ] == [
        (entry.rank, entry.player, entry.score, entry.elapsed_ms, session.name_of(entry.player))
        for entry in session.leaderboard.ranked()
    ]


# Fencing under races. A second connection holds the session's row in an open transaction.


async def test_a_commit_that_meets_a_claim_waits_and_is_fenced(world: World) -> None:
    record, epoch = await world.session()
    rival = world.database.connection()
    await rival.fetch("BEGIN")
    await rival.fetch("UPDATE sessions SET epoch = epoch + 1, owner = 'rival' WHERE id = $1", record.id)
    listener = Listener()
    async with world.running() as journal:
        journal.append(record.id, epoch, ONE_OF_EACH, listener)
        await world.until(WAITING)
        journal.append(record.id, epoch, [f.Paused(14, AT)], listener)
        assert (listener.seqs, listener.fences) == ([], 0)
        await rival.fetch("COMMIT")
        await listener.until_fenced()
        await journal.drain()
    await rival.aclose()
    assert (listener.seqs, listener.fences) == ([], 1)
    assert await world.facts(record.id) == []
    assert (await world.store.find(record.id)).finished_at is None


async def test_a_commit_that_meets_a_claim_that_is_given_up_goes_through(world: World) -> None:
    record, epoch = await world.session()
    rival = world.database.connection()
    await rival.fetch("BEGIN")
    await rival.fetch("UPDATE sessions SET epoch = epoch + 1 WHERE id = $1", record.id)
    listener = Listener()
    async with world.running() as journal:
        journal.append(record.id, epoch, ONE_OF_EACH, listener)
        await world.until(WAITING)
        await rival.fetch("ROLLBACK")
        await listener.until(13)
    await rival.aclose()
    assert listener.fences == 0


async def test_a_claim_that_meets_a_commit_waits_and_sees_its_facts(world: World) -> None:
    record, epoch = await world.session()
    batch = Batch()
    batch.add(record.id, epoch, FactRows(ONE_OF_EACH))
    writer = world.database.connection()
    await writer.fetch("BEGIN")
    assert len(await writer.fetch(COMMIT, *batch.arguments())) == 1
    found: list[f.Fact] = []

    async def claim() -> None:
        found.extend((await world.store.claim(record.id, "other")).facts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(claim)
        await world.until(WAITING)
        assert found == []
        await writer.fetch("COMMIT")
    await writer.aclose()
    assert found == list(ONE_OF_EACH)


async def test_the_sessions_of_one_batch_are_fenced_one_by_one(world: World) -> None:
    sessions = [await world.session() for _ in range(10)]
    listeners = [Listener() for _ in sessions]
    for record, _ in sessions[::2]:
        await world.store.claim(record.id, "rival")
    journal = world.journal()
    for (record, epoch), listener in zip(sessions, listeners, strict=True):
        journal.append(record.id, epoch, ONE_OF_EACH, listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await journal.drain()
        nursery.cancel_scope.cancel()
    assert [(listener.seq, listener.fences) for listener in listeners] == [(0, 1), (13, 0)] * 5
    assert journal.statistics().fenced_total == 5


# Faults of ours


@pytest.mark.parametrize(
    "fact",
    [
        answered(2, 1, choice=math.nan),
        answered(2, 1, choice=math.inf),
        joined(2, name="a\0b"),
        joined(2, name="half \ud800"),
    ],
)
async def test_what_cannot_be_stored_is_refused_and_harms_nobody(world: World, fact: f.Fact) -> None:
    record, epoch = await world.session()
    listener = Listener()
    async with world.running() as journal:
        with pytest.raises(ValueError):  # noqa: PT011  # by kind and encoding alike
            journal.append(record.id, epoch, [joined(1), fact], listener)
        assert journal.statistics().queued == 0
        journal.append(record.id, epoch, [joined(1)], listener)
        await listener.until(1)


@pytest.mark.parametrize("spoil", ["TABLE answers", "COLUMN"])
async def test_a_mistake_of_ours_ends_the_writer_and_nothing_is_reported(world: World, spoil: str) -> None:
    record, epoch = await world.session()
    listener = Listener()
    journal = world.journal()
    facts: list[f.Fact] = [joined(1), answered(2, 1)]
    if spoil == "COLUMN":
        facts[1] = answered(2, 1, question=100_000)
    else:
        await world.database.execute(f"DROP {spoil} CASCADE")
    journal.append(record.id, epoch, facts, listener)
    with pytest.raises(ExceptionGroup) as caught:
        await journal.run()
    assert not caught.group_contains(StorageUnavailable)
    assert (listener.seqs, listener.fences) == ([], 0)
    assert not journal.has_room()
    with pytest.raises(StorageUnavailable):
        await journal.drain()


# The end


async def test_what_is_queued_is_committed_at_the_end(world: World) -> None:
    record, epoch = await world.session()
    listener = Listener()
    async with world.running() as journal:
        journal.append(record.id, epoch, ONE_OF_EACH, listener)
    assert listener.seq == 13
    assert await world.facts(record.id) == list(ONE_OF_EACH)


async def test_the_end_comes_even_when_postgres_does_not(asyncio_loop: None, tmp_path: Path) -> None:
    listener = Listener()
    async with Database.open(f"postgresql://postgres@/postgres?host={tmp_path}") as database:
        journal = WriteBehind(database, owner="node", now_ms=lambda: AT, shutdown_s=0.05)
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            journal.append(record_of("x").id, 1, ONE_OF_EACH, listener)
            nursery.cancel_scope.cancel()
    assert (listener.seqs, listener.fences) == ([], 0)
    assert not journal.statistics().healthy
    with pytest.raises(StorageUnavailable):
        await journal.drain()


# Signs of life


async def test_the_node_shows_that_it_is_alive(world: World) -> None:
    record, _ = await world.session(owner="node/1")
    now = AT + 5000
    async with world.running(owner="node/1", now_ms=lambda: now, alive_interval_s=0.005):
        assert (await world.store.claim(record.id, "node/2")).last_alive_at == AT + 5000
        await world.store.claim(record.id, "node/1")
        now = AT + 7001
        await world.until(
            "EXISTS (SELECT FROM nodes WHERE extract(epoch FROM alive_at) * 1000 = 1790000007124)"
        )
    assert (await world.store.claim(record.id, "node/2")).last_alive_at == AT + 7001
    # node/2 never showed itself and wrote nothing.
    assert (await world.store.claim(record.id, "node/3")).last_alive_at is None


async def test_old_signs_of_life_are_forgotten_unless_a_session_waits(world: World) -> None:
    week_ms = 7 * 24 * 3600 * 1000
    await world.session(owner="needed")
    for owner in ("needed", "gone"):
        async with world.running(owner=owner):
            pass
    async with world.running(owner="late", now_ms=lambda: AT + week_ms + 1):
        pass
    rows = await world.database.fetch("SELECT node FROM nodes ORDER BY node")
    assert [row["node"] for row in rows] == ["late", "needed"]


# Postgres away


async def test_a_commit_whose_connection_breaks_is_repeated(world: World) -> None:
    record, epoch = await world.session()
    rival = world.database.connection()
    await rival.fetch("BEGIN")
    await rival.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", record.id)
    listener = Listener()
    async with world.running() as journal:
        journal.append(record.id, epoch, ONE_OF_EACH, listener)
        await world.until(WAITING)
        await world.database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        await until(lambda: not journal.statistics().healthy)
        assert listener.seqs == []
        await rival.fetch("ROLLBACK")
        await listener.until(13)
        assert journal.statistics().healthy
        assert journal.statistics().retries_total == 1
    await rival.aclose()
    assert await world.facts(record.id) == list(ONE_OF_EACH)


@pytest.fixture
def own_server(short_tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(short_tmp_path / "restarted")
    yield server
    server.stop("immediate")


async def test_facts_outlive_a_crash_of_postgres(own_server: EmbeddedPostgres) -> None:
    dsn = await trio.to_thread.run_sync(own_server.start)
    async with open_asyncio(), fresh_database(dsn) as (database, _):
        world = await world_in(database)
        record, epoch = await world.session()
        listener = Listener()
        sent = 0

        async def play(journal: WriteBehind) -> None:
            nonlocal sent
            while True:
                if journal.has_room():
                    sent += 1
                    journal.append(record.id, epoch, [joined(sent)], listener)
                await trio.sleep(0.001)

        async with world.running(facts_max=200) as journal, trio.open_nursery() as nursery:
            nursery.start_soon(play, journal)
            await listener.until(20)
            await trio.to_thread.run_sync(own_server.stop, "immediate")
            reported = listener.seq
            await until(lambda: not journal.has_room())
            with pytest.raises(StorageUnavailable):
                await world.store.find(record.id)
            statistics = journal.statistics()
            assert (statistics.healthy, statistics.queued) == (False, 200)
            assert listener.seq == reported == sent - 200

            await trio.to_thread.run_sync(own_server.start)
            await listener.until(sent)
            nursery.cancel_scope.cancel()
        assert journal.statistics().healthy
        assert listener.seq == sent
        assert listener.fences == 0
        assert await world.facts(record.id) == [joined(seq) for seq in range(1, sent + 1)]
