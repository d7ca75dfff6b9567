"""Leases and claims that meet in the database, and what a node with a lease makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from engine.domain import facts as f
from engine.lease import ClusterLease
from engine.ports import OwnedElsewhere
from engine.storage import sessions
from engine.storage.heartbeat import Leased
from engine.storage.journal.retained import PUT_ASIDE
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database, DedicatedConnection
from engine.storage.spool.put_aside import PostgresSpooledFacts
from tests.storage.making import AT, Listener, joined
from tests.storage.waiting import until
from tests.storage.world import WAITING, Away, Held, World

TTL_S = 60.0


def always(_: str) -> bool:
    return True


def leased() -> Leased:
    return Leased(ClusterLease(ttl_s=TTL_S, margin_s=10.0), lambda: '"here"')


async def renewed(where: Database | DedicatedConnection, run: str = "node") -> int:
    """Renew the lease of a run; since when it has held."""
    sql, arguments = leased().statement(run, AT)
    [row] = await where.fetch(sql, *arguments)
    since: int = row["lease_since"]
    return since


async def ends(world: World, run: str = "node", after: str = "0 s") -> None:
    await world.database.execute(
        "UPDATE nodes SET lease_until = clock_timestamp() + $2::text::interval WHERE node = $1", run, after
    )


async def holds(world: World, run: str = "node") -> bool:
    [row] = await world.database.fetch(
        "SELECT coalesce(lease_until > clock_timestamp(), false) AS holds FROM nodes WHERE node = $1", run
    )
    return bool(row["holds"])


@asynccontextmanager
async def rival(world: World) -> AsyncIterator[DedicatedConnection]:
    """A connection with an open transaction."""
    connection = world.database.connection()
    await connection.fetch("BEGIN")
    yield connection
    await connection.aclose()


async def looks(rival: DedicatedConnection, session_id: str, owner: str = "node") -> Sequence[Any]:
    """What a claim does before it asks whether the owner is gone."""
    await rival.fetch(sessions._LOCK, session_id)
    return await rival.fetch(sessions._LEASE, owner)


async def takes(rival: DedicatedConnection, session_id: str) -> None:
    """What it does afterwards."""
    await rival.fetch(sessions._CLAIM, session_id, "rival")
    await rival.fetch("COMMIT")


# Statements that meet


async def test_a_lease_says_since_when_it_has_held_however_often_it_is_asked(world: World) -> None:
    since = await renewed(world.database)
    assert await renewed(world.database) == since
    await ends(world)
    assert not await holds(world)
    again = await renewed(world.database)
    assert again > since
    assert await renewed(world.database) == again
    assert await holds(world)


async def test_a_renewal_that_meets_a_claim_is_told_that_the_lease_had_ended(world: World) -> None:
    record, _ = await world.session()
    since = await renewed(world.database)
    await ends(world)
    told = []

    async def renew() -> None:
        told.append(await renewed(world.database))

    async with rival(world) as taker, trio.open_nursery() as nursery:
        [lease] = await looks(taker, record.id)
        assert not lease["holds"]
        nursery.start_soon(renew)
        await world.until(WAITING)
        assert told == []
        await takes(taker, record.id)
    assert told[0] > since
    owner = (await world.store.find(record.id)).owner
    assert owner is not None
    assert owner.run == "rival"


async def test_a_lease_that_ends_while_its_renewal_waits_had_ended(world: World) -> None:
    record, _ = await world.session()
    since = await renewed(world.database)
    told = []

    async def renew() -> None:
        told.append(await renewed(world.database))

    async with rival(world) as taker, trio.open_nursery() as nursery:
        await ends(world, after="0.2 s")
        [lease] = await looks(taker, record.id)
        assert lease["holds"]
        nursery.start_soon(renew)
        await world.until(WAITING)
        await taker.fetch("SELECT pg_sleep(0.25)")
        await taker.fetch("ROLLBACK")
    assert told[0] > since


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_a_claim_that_meets_a_renewal_sees_it(world: World, ending: str) -> None:
    record, _ = await world.session()
    await renewed(world.database)
    await ends(world)
    outcome = []

    async def claim() -> None:
        try:
            outcome.append((await world.store.claim(record.id, "taker", always)).epoch)
        except OwnedElsewhere as refused:
            outcome.append(refused.owner)

    async with rival(world) as node, trio.open_nursery() as nursery:
        await renewed(node)
        nursery.start_soon(claim)
        await world.until(WAITING)
        assert outcome == []
        await node.fetch(ending)
    assert outcome == (["node"] if ending == "COMMIT" else [2])


# A node with a lease


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Node:
    journal: WriteBehind
    lease: ClusterLease
    clock: Clock
    held: list[Held] = field(default_factory=list)

    @property
    def certain(self) -> bool:
        return self.lease.certain(self.clock())


@asynccontextmanager
async def node(world: World, *held: Held, **more: Any) -> AsyncIterator[Node]:
    clock = Clock()
    lease = ClusterLease(ttl_s=TTL_S, margin_s=10.0)
    sign = Leased(lease, lambda: '{"name": "node"}')
    journal = world.journal(sign=sign, clock_s=clock, alive_interval_s=0.01, **more)
    journal.watch(lambda: held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        yield Node(journal, lease, clock, list(held))
        nursery.cancel_scope.cancel()


async def test_a_node_has_its_lease_while_it_runs_and_gives_it_back(world: World) -> None:
    record, epoch = await world.session()
    async with node(world, Held(record.id, epoch)) as running:
        await until(lambda: running.certain)
        owner = (await world.store.find(record.id)).owner
        assert owner is not None
        assert (owner.address, owner.holds) == ('{"name": "node"}', True)
        with pytest.raises(OwnedElsewhere):
            await world.store.claim(record.id, "other", always)
        listener = Listener()
        running.journal.append(record.id, epoch, [joined(1)], listener)
    assert listener.seq == 1
    assert not running.certain
    assert not await holds(world)
    assert list((await world.store.claim(record.id, "other", always)).facts) == [joined(1)]


async def test_a_node_that_could_not_commit_everything_keeps_its_lease(world: World) -> None:
    record, epoch = await world.session()
    async with rival(world) as other:
        await other.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", record.id)
        async with node(world, shutdown_s=0.05) as running:
            await until(lambda: running.certain)
            running.journal.append(record.id, epoch, [joined(1)], Listener())
    assert await holds(world)


async def test_a_node_alone_has_no_lease(world: World) -> None:
    async with world.running():
        [row] = await world.database.fetch("SELECT lease_since, lease_until, address FROM nodes")
        assert tuple(row) == (None, None, None)


async def test_a_stopped_node_finds_the_sessions_that_were_taken(world: World) -> None:
    taken, kept, granted = [await world.session() for _ in range(3)]
    held = [Held(record.id, epoch) for record, epoch in (taken, kept, granted)]
    async with node(world, *held) as running:
        await until(lambda: running.certain)
        await world.store.claim(taken[0].id, "other")
        await world.store.grant(granted[0].id, granted[1], "node", "other")
        assert [each.fences for each in held] == [0, 0, 0]
        running.clock.now_s += TTL_S
        assert not running.certain
        await until(lambda: running.certain)
    assert [each.fences for each in held] == [1, 0, 1]


async def test_a_gap_that_the_node_did_not_notice_makes_it_look_as_well(world: World) -> None:
    record, epoch = await world.session()
    held = Held(record.id, epoch)
    async with node(world, held) as running:
        await until(lambda: running.certain)
        async with rival(world) as taker:
            await taker.fetch(sessions._LOCK, record.id)
            await taker.fetch("UPDATE nodes SET lease_until = clock_timestamp() WHERE node = 'node'")
            await takes(taker, record.id)
        await until(lambda: held.fences > 0)
        await until(lambda: running.certain)


async def test_the_proof_waits_for_whoever_is_taking_a_session(world: World) -> None:
    """The taker has found no lease, for there was none yet."""
    record, epoch = await world.session()
    held = Held(record.id, epoch)
    async with rival(world) as taker:
        assert await looks(taker, record.id) == []
        async with node(world, held) as running:
            await world.until(WAITING)
            assert not running.certain
            assert held.fences == 0
            await takes(taker, record.id)
            await until(lambda: running.certain)
    assert held.fences == 1


async def test_a_heartbeat_keeps_it_acknowledging_without_the_database(
    away: Away,
) -> None:
    record, epoch = await away.world.session()
    clock = Clock()
    lease = ClusterLease(ttl_s=TTL_S, margin_s=10.0)
    async with away.node(
        lease=lease, sign=Leased(lease, str), clock_s=clock, alive_interval_s=0.01
    ) as running:
        for _ in range(4):
            lease.heartbeat_confirmed(clock(), clock())
            clock.now_s += 0.4 * TTL_S
        await until(lambda: lease.certain(clock()))
        lease.heartbeat_confirmed(clock(), clock())
        away.gate.set("shut")
        for _ in range(4):
            clock.now_s += 0.4 * TTL_S
            lease.heartbeat_confirmed(clock(), clock())
        listener = Listener()
        running.journal.append(record.id, epoch, [joined(1)], listener)
        with trio.fail_after(30):
            await listener.until(1)
        clock.now_s += TTL_S
        assert not lease.certain(clock())
        away.gate.set("open")
        await running.drained()
    assert await away.world.facts(record.id) == [joined(1)]


# What was acknowledged from a spool, and whose it is to see to


async def test_what_waits_in_the_books_is_seen_to_by_owners_and_else_by_anybody(
    world: World,
) -> None:
    store = PostgresSpooledFacts(world.database)
    ids = {}
    for name, owner, over in (
        ("mine", "me", False),
        ("mine, over", "me", True),
        ("alive", "live", False),
        ("alive, over", "live", True),
        ("gone", "gone", False),
        ("gone, over", "gone", True),
        ("nobody's", None, False),
        ("nobody's, over", None, True),
    ):
        record, epoch = await world.session(owner or "me")
        ids[record.id] = name
        if over:
            async with world.running(owner=owner or "me") as journal:
                journal.append(record.id, epoch, [f.Finished(1, AT)], Listener())
                await journal.drain()
        if owner is None:
            await world.store.grant(record.id, epoch, "me", None)
        await world.database.execute(PUT_ASIDE, record.id, 1, 1, 1, "node", "[]")
    await renewed(world.database, "live")
    await renewed(world.database, "gone")
    await ends(world, "gone")
    assert {ids[each] for each in await store.waiting("me")} == {"mine", "mine, over"}
    await world.database.execute("UPDATE spooled_facts SET put_at = put_at - interval '1 minute'")
    anybodys = {"gone, over", "nobody's", "nobody's, over"}
    assert {ids[each] for each in await store.waiting("me")} == {"mine", "mine, over", *anybodys}
    assert {ids[each] for each in await store.waiting("live")} == {
        "alive",
        "alive, over",
        *anybodys,
        "mine, over",
    }
