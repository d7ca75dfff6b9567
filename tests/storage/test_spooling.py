"""Postgres away or slow, the spool full or failing, another owner: what is acknowledged all the same."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest
import trio
from hypothesis import given

from engine.domain import facts as f
from engine.lease import LoneLease
from engine.ports import JOINS_SHARE, SessionRecord
from engine.storage import heartbeat
from engine.storage.heartbeat import Alone
from engine.storage.journal.queue import FactQueue
from engine.storage.spool.codec import SessionFacts, decode, encode
from engine.storage.spool.records import SpoolDamaged
from tests.storage.making import AT, ONE_OF_EACH, Listener, fact_lists, joined
from tests.storage.waiting import until
from tests.storage.world import Away, Believes, Held, Node


async def stored(away: Away, session_id: str) -> list[f.Fact]:
    return await away.world.facts(session_id)


# As it is kept


@given(facts=fact_lists)
def test_facts_come_back_from_the_spool_as_they_were(facts: list[f.Fact]) -> None:
    [back] = decode(encode([SessionFacts("id", 3, facts)]))
    assert back == SessionFacts("id", 3, facts)
    assert [type(getattr(fact, "choice", None)) for fact in back.facts] == [
        type(getattr(fact, "choice", None)) for fact in facts
    ]


def test_a_guest_is_kept_as_an_earlier_release_reads_it() -> None:
    """Such a release does not know the member of the user."""
    [[_, _, facts]] = orjson.loads(
        encode([SessionFacts("id", 3, [joined(1, 1, "Ann"), joined(2, 2, "Ben", "ben")])])
    )
    assert facts == [
        ["PlayerJoined", 1, AT + 1, 1, "Ann"],
        ["PlayerJoined", 2, AT + 2, 2, "Ben", False, "ben"],
    ]


@pytest.mark.parametrize("members", [[], [False]])
def test_what_an_earlier_release_has_kept_of_a_player_is_read_as_a_guest(members: list[object]) -> None:
    payload = orjson.dumps([["id", 3, [["PlayerJoined", 1, AT + 1, 1, "Ann", *members]]]])
    assert decode(payload) == [SessionFacts("id", 3, [joined(1, 1, "Ann")])]


# In and out


@pytest.mark.parametrize("state", ["shut", "frozen"])
async def test_without_postgres_facts_are_acknowledged_from_the_spool_and_get_there_later(
    away: Away, state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node(spool_after_s=1.0) as node:
        node.journal.append(record.id, epoch, ONE_OF_EACH[:2], listener)
        await listener.until(2)
        away.gate.set(state)
        for fact in ONE_OF_EACH[2:12]:
            node.journal.append(record.id, epoch, [fact], listener)
        await listener.until(12)
        node.journal.append(record.id, epoch, ONE_OF_EACH[12:], listener)
        await listener.until(13)
        statistics = node.spooling
        assert (statistics.active, statistics.spooled_total, statistics.facts) == (True, 11, 11)
        assert statistics.bytes > 0
        away.gate.set("open")
        await node.drained()
        assert listener.fences == 0
        after = node.spooling
        assert (after.facts, after.drained_total, after.put_aside_total) == (0, 11, 0)
        node.journal.append(record.id, epoch, [f.Paused(14, AT)], listener)
        await listener.until(14)
        assert node.journal.statistics().healthy
        assert not node.active
    assert await stored(away, record.id) == [*ONE_OF_EACH, f.Paused(14, AT)]
    said = [r.message for r in caplog.records if r.name == "engine.storage.journal.path"]
    assert [line.partition(": ")[0].split(",")[0] for line in said] == [
        "commits wait for Postgres",
        "facts go to the spool",
        "facts go straight to Postgres again",
    ]


async def test_a_commit_that_takes_too_long_is_not_waited_for(away: Away) -> None:
    record, epoch = await away.world.session()
    other, other_epoch = await away.world.session()
    rival = away.world.database.connection()
    await rival.fetch("BEGIN")
    await rival.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", record.id)
    listener, others = Listener(), Listener()
    async with away.node() as node:
        node.journal.append(record.id, epoch, ONE_OF_EACH, listener)
        node.journal.append(other.id, other_epoch, [joined(1)], others)
        await listener.until(13)
        await others.until(1)
        assert node.active
        await rival.fetch("ROLLBACK")
        await node.drained()
    await rival.aclose()
    assert await stored(away, record.id) == list(ONE_OF_EACH)
    assert await stored(away, other.id) == [joined(1)]


async def test_a_short_trouble_does_not_lead_to_the_spool(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node(spool_after_s=20.0) as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(1)], listener)
        await until(lambda: node.journal.statistics().retries_total > 1)
        away.gate.set("open")
        await listener.until(1)
        assert not node.active
        assert node.spooling.spooled_total == 0


async def test_live_facts_never_overtake_spooled_ones_and_the_drain_comes_to_its_end(away: Away) -> None:
    sessions = [await away.world.session() for _ in range(3)]
    listeners = [Listener() for _ in sessions]
    seqs = [0, 0, 0]
    feeding, draining = True, False

    async with away.node(batch_facts_max=20, spool_after_s=1.0) as node:

        def taken(enough: int) -> bool:
            return not node.active or node.spooling.drained_total >= enough

        async def play() -> None:
            while feeding:
                for n, (record, epoch) in enumerate(sessions):
                    seqs[n] += 1
                    node.journal.append(record.id, epoch, [joined(seqs[n])], listeners[n])
                # However slow the machine is, the drain takes twice as much as comes.
                enough = node.spooling.drained_total + 2 * len(sessions)
                await trio.sleep(0.001)
                if draining:
                    await until(partial(taken, enough))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            await listeners[0].until(10)
            away.gate.set("shut")
            await until(lambda: node.spooling.facts > 400)
            away.gate.set("open")
            draining = True
            while node.active:
                # What is there of a session has no gap at any moment.
                rows = await away.world.database.fetch(
                    "SELECT max(seq) AS last, count(*) AS n FROM players GROUP BY session_id"
                )
                assert all(row["last"] == row["n"] for row in rows)
            feeding = False
        await node.journal.drain()
        assert not node.active
    for n, (record, _) in enumerate(sessions):
        assert await stored(away, record.id) == [joined(seq) for seq in range(1, seqs[n] + 1)]
        assert (listeners[n].seq, listeners[n].seqs) == (seqs[n], sorted(listeners[n].seqs))


# Room


async def test_a_full_spool_turns_away_those_who_join_first(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node(bytes_max=5_000) as node:
        away.gate.set("shut")
        refused: list[int] = []
        seq = 0
        while node.journal.has_room():
            if not node.journal.has_room(JOINS_SHARE):
                refused.append(seq)
            seq += 1
            node.journal.append(record.id, epoch, [joined(seq)], listener)
            await listener.until(seq)
        assert 0.7 * seq < refused[0] < 0.9 * seq
        assert not node.journal.acknowledges_without_postgres()
        # What follows from the clock goes in all the same.
        node.journal.append(record.id, epoch, [f.Paused(seq + 1, AT)], listener)
        await listener.until(seq + 1)
        away.gate.set("open")
        await node.drained()
        assert node.journal.has_room()
        assert node.journal.has_room(JOINS_SHARE)
    assert len(await stored(away, record.id)) == seq + 1


async def test_joins_have_less_of_the_queue_too(away: Away) -> None:
    record, epoch = await away.world.session()
    async with away.node(facts_max=10, lease=Believes(False)) as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(seq) for seq in range(1, 9)], Listener())
        assert not node.journal.has_room(JOINS_SHARE)
        assert node.journal.has_room()
        node.journal.append(record.id, epoch, [joined(9), joined(10)], Listener())
        assert node.journal.why_full() == "the journal is full: the database does not keep up"
        await until(lambda: "certain" in str(node.journal.why_full()))


@pytest.mark.parametrize("state", ["shut", "frozen"])
async def test_that_the_database_does_not_answer_is_known_without_asking_it(
    away: Away, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SILENT_MAX_S", 0.5)
    async with away.node(alive_interval_s=0.01) as node:
        assert node.journal.database_problem() is None
        away.gate.set(state)
        await until(lambda: node.journal.database_problem() is not None)
        away.gate.set("open")
        await until(lambda: node.journal.database_problem() is None)


# A disk that does not take it


@pytest.mark.parametrize("trouble", ["full", "failing"])
async def test_what_the_disk_does_not_take_is_not_acknowledged_until_it_does(
    away: Away, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node() as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(1)], listener)
        await listener.until(1)
        if trouble == "full":
            node.disk.room = 10
        else:
            node.disk.fails = True
        node.journal.append(record.id, epoch, [joined(2)], listener)
        await until(lambda: node.spooling.failures_total > 2)
        assert listener.seq == 1
        assert not node.journal.has_room()
        assert node.spooling.failing
        assert str(node.journal.why_full()).startswith("the disk does not take the spool: ")
        node.disk.room, node.disk.fails = None, False
        await listener.until(2)
        await until(node.journal.has_room)
        assert node.journal.why_full() is None
        away.gate.set("open")
        await node.drained()
    assert await stored(away, record.id) == [joined(1), joined(2)]
    assert [r.levelname for r in caplog.records if "cannot be written" in r.message] == ["ERROR"]


async def test_postgres_comes_back_while_the_disk_fails(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node() as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(1)], listener)
        await listener.until(1)
        node.disk.room = 0
        node.journal.append(record.id, epoch, [joined(2)], listener)
        await until(lambda: node.spooling.failing)
        away.gate.set("open")
        await listener.until(2)
        assert not node.active
        assert node.journal.has_room()
    assert await stored(away, record.id) == [joined(1), joined(2)]


# Certainty


async def test_without_certainty_nothing_is_acknowledged_and_requests_are_turned_away(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node(lease=Believes(False)) as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(1)], listener)
        await until(lambda: not node.journal.has_room())
        assert (listener.seqs, node.spool.statistics().facts, node.active) == ([], 0, False)
        assert not node.journal.acknowledges_without_postgres()
        away.gate.set("open")
        await listener.until(1)
        await until(node.journal.has_room)
    assert await stored(away, record.id) == [joined(1)]


async def test_a_node_that_becomes_uncertain_while_it_writes_acknowledges_nothing(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node() as node:
        away.gate.set("shut")
        write = node.disk.write

        def stopped_meanwhile(descriptor: int, data: bytes) -> int:
            node.lease.is_certain = False
            return write(descriptor, data)

        node.spool._write = stopped_meanwhile
        node.journal.append(record.id, epoch, [joined(1)], listener)
        await until(lambda: node.spool.statistics().facts == 1)
        await until(lambda: not node.journal.has_room())
        assert listener.seqs == []
        away.gate.set("open")
        await listener.until(1)
    assert await stored(away, record.id) == [joined(1)]


class Counting(LoneLease):
    looks = 0

    def looked(self, now_s: float, signs: Mapping[str, int]) -> None:
        super().looked(now_s, signs)
        self.looks += 1


async def test_a_node_alone_becomes_certain_and_finds_the_sessions_that_it_lost(away: Away) -> None:
    lost, lost_epoch = await away.world.session()
    kept, kept_epoch = await away.world.session()
    await away.world.store.claim(lost.id, "came and went")
    held = [Held(lost.id, lost_epoch), Held(kept.id, kept_epoch)]
    only_node = Counting(settle_s=0.1, frozen_max_s=5.0)
    async with away.node(
        lease=only_node, sign=Alone(only_node), alive_interval_s=0.02, clock_s=trio.current_time
    ) as node:
        node.journal.watch(lambda: held)
        assert not node.journal.acknowledges_without_postgres()
        await until(node.journal.acknowledges_without_postgres)
        assert [each.fences for each in held] == [1, 0]
        async with away.world.running(
            owner="another", alive_interval_s=0.02, now_ms=lambda: AT + round(trio.current_time() * 1000)
        ):
            await until(lambda: not node.journal.acknowledges_without_postgres())
            # Looks are at least 0.02 s apart: this is four times as long as it takes to be certain again.
            enough = only_node.looks + 20
            await until(lambda: node.journal.acknowledges_without_postgres() or only_node.looks >= enough)
            assert not node.journal.acknowledges_without_postgres(), "another node is there"
        await until(node.journal.acknowledges_without_postgres)
        away.gate.set("shut")
        listener = Listener()
        node.journal.append(kept.id, kept_epoch, [joined(1)], listener)
        await listener.until(1)
        away.gate.set("open")
        await node.drained()
    assert await stored(away, kept.id) == [joined(1)]


async def test_a_node_that_spooled_for_a_session_with_another_owner_puts_the_facts_aside(away: Away) -> None:
    record, epoch = await away.world.session()
    kept, kept_epoch = await away.world.session()
    listener, keeping = Listener(), Listener()
    async with away.node() as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(1, 1, "Spooled")], listener)
        node.journal.append(kept.id, kept_epoch, [joined(1)], keeping)
        await listener.until(1)
        await away.world.store.claim(record.id, "other")
        node.lease.is_certain = False
        node.journal.append(record.id, epoch, [joined(2)], listener)
        away.gate.set("open")
        await listener.until_fenced()
        await node.drained()
        await node.journal.drain()
        assert listener.seqs == [1]
        assert keeping.seqs[-1] == 1
        assert keeping.fences == 0
        assert node.spooling.put_aside_total == 1
    assert await stored(away, record.id) == []
    assert await stored(away, kept.id) == [joined(1)]
    [row] = await away.world.database.fetch("SELECT * FROM spooled_facts")
    assert (str(row["session_id"]), row["epoch"], row["seq"], row["node"]) == (record.id, epoch, 1, "node")


# The next start


@asynccontextmanager
async def settling(node: Node, record: SessionRecord) -> AsyncIterator[trio.Event]:
    """Ends when nothing of the session is on its way any more; the event says whether it has come to that."""
    settled = trio.Event()

    async def settle() -> None:
        await node.journal.settled(record.id)
        settled.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle)
            yield settled


async def test_the_next_start_takes_the_spool_to_postgres_before_anything_is_claimed(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node() as node:
        away.gate.set("shut")
        for fact in ONE_OF_EACH[:5]:
            node.journal.append(record.id, epoch, [fact], listener)
            await listener.until(fact.seq)
    assert await stored_without_a_claim(away, record) == 0
    async with away.node() as node:
        assert node.active
        async with settling(node, record) as settled:
            tried = away.gate.refused
            await until(lambda: away.gate.refused > tried + 3)
            assert not settled.is_set()
            away.gate.set("open")
        claimed = await away.world.store.claim(record.id, "node")
        assert list(claimed.facts) == list(ONE_OF_EACH[:5])
        await node.drained()
        second = Listener()
        node.journal.append(record.id, claimed.epoch, ONE_OF_EACH[5:], second)
        await second.until(13)
        await node.drained()  # by whatever way the commit went
    assert await stored(away, record.id) == list(ONE_OF_EACH)


async def test_a_batch_on_its_way_is_waited_for_from_the_moment_it_leaves_the_queue(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = trio.Event()
    take = FactQueue.take

    def noted(self: FactQueue) -> Any:
        taken.set()
        return take(self)

    monkeypatch.setattr(FactQueue, "take", noted)
    # Whether the writer or we go first after a batch was taken is drawn anew each time.
    for _ in range(20):
        record, epoch = await away.world.session()
        listener = Listener()
        taken = trio.Event()
        async with away.node() as node:
            away.gate.set("shut")
            node.journal.append(record.id, epoch, [joined(1)], listener)
            await taken.wait()
            async with settling(node, record) as settled:
                tried = away.gate.refused
                await until(lambda tried=tried: away.gate.refused > tried)
                assert not settled.is_set(), "it may yet go to the spool"
                away.gate.set("open")
            assert await stored_without_a_claim(away, record) == 1


async def stored_without_a_claim(away: Away, record: SessionRecord) -> int:
    [row] = await away.world.database.fetch(
        "SELECT count(*) AS n FROM players WHERE session_id = $1", record.id
    )
    return int(row["n"])


async def test_a_spool_that_was_drained_in_part_may_be_taken_again(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node(segment_bytes=1 << 20) as node:
        away.gate.set("shut")
        for seq in range(1, 50):
            node.journal.append(record.id, epoch, [joined(seq)], listener)
            await listener.until(seq)
    for file in (away.directory / "spool").glob("*.spool"):
        (away.directory / file.name).write_bytes(file.read_bytes())
    away.gate.set("open")
    async with away.node() as node:
        await node.drained()
    for file in away.directory.glob("*.spool"):
        file.rename(away.directory / "spool" / file.name)
    async with away.node() as node:
        assert node.active
        await node.drained()
        assert node.spooling.put_aside_total == 0
    assert await stored(away, record.id) == [joined(seq) for seq in range(1, 50)]


async def test_facts_of_a_session_that_is_claimed_meanwhile_are_put_aside_once(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node(segment_bytes=1 << 20) as node:
        away.gate.set("shut")
        for fact in ONE_OF_EACH[:5]:
            node.journal.append(record.id, epoch, [fact], listener)
            await listener.until(fact.seq)
    await away.world.store.claim(record.id, "other")
    for file in (away.directory / "spool").glob("*.spool"):
        (away.directory / file.name).write_bytes(file.read_bytes())
    away.gate.set("open")
    for _ in range(2):
        async with away.node() as node:
            await node.drained()
        for file in away.directory.glob("*.spool"):
            (away.directory / "spool" / file.name).write_bytes(file.read_bytes())
    rows = await away.world.database.fetch("SELECT seq, count FROM spooled_facts ORDER BY id")
    assert sum(row["count"] for row in rows) == 5
    assert await stored(away, record.id) == []


async def test_facts_of_an_actor_that_crashed_are_not_spooled_after_the_next_claim(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node() as node:
        away.gate.set("shut")
        node.journal.append(record.id, epoch, [joined(1)], listener)
        await listener.until(1)
        node.disk.room = 0
        node.journal.append(record.id, epoch, [joined(2)], listener)
        await until(lambda: node.spooling.failing)
        node.journal.append(record.id, epoch, [joined(3)], listener)
        async with settling(node, record) as settled:
            failed = node.spooling.failures_total
            await until(lambda: node.spooling.failures_total > failed + 1)
            assert not settled.is_set()
            node.disk.room = None
            away.gate.set("open")
        await node.journal.drain()
        assert await stored(away, record.id) == [joined(1), joined(2)]
        assert node.spooling.put_aside_total == 0


async def test_a_spool_that_cannot_be_read_just_now_is_drained_later(
    away: Away, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    async with away.node() as node:
        away.gate.set("shut")
        failed = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def fails(facts_max: int) -> Any:
            token.run_sync_soon(failed.set)
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(node.spool, "read", fails)
            node.journal.append(record.id, epoch, [joined(1)], listener)
            await listener.until(1)
            await failed.wait()
            node.journal.append(record.id, epoch, [joined(2)], listener)
            await listener.until(2)
        away.gate.set("open")
        await node.drained()
    assert await stored(away, record.id) == [joined(1), joined(2)]
    assert len([r for r in caplog.records if "cannot be read" in r.message]) == 1


async def test_damage_that_is_met_while_the_node_runs_is_not_passed_over(away: Away) -> None:
    record, epoch = await away.world.session()
    listener = Listener()
    with pytest.RaisesGroup(SpoolDamaged, flatten_subgroups=True):
        async with away.node() as node:
            away.gate.set("shut")
            for seq in (1, 2, 3):
                node.journal.append(record.id, epoch, [joined(seq)], listener)
                await listener.until(seq)
            [path] = (away.directory / "spool").glob("*.spool")
            content = path.read_bytes()
            path.write_bytes(content[:-1] + b"?")
            away.gate.set("open")
            await trio.sleep_forever()
