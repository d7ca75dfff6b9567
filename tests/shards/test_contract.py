"""What every `Heartbeats` and every `Bus` must do: the real ones and those that stand in for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import redis.asyncio
import trio

from engine.aio import call, open_asyncio
from engine.shards.ports import (
    BUS_BYTES_MAX,
    WEIGHT_MAX,
    Beat,
    Bus,
    BusMessage,
    BusUnavailable,
    Heartbeats,
    Load,
    Member,
)
from engine.shards.redis import open_redis
from tests.shards.fakes import MemoryRedis
from tests.shards.making import member_of

A, B = member_of("a"), member_of("b", weight=3, role="realtime")


@dataclass
class End:
    """What a node has of Redis."""

    heartbeats: Heartbeats
    bus: Bus


@dataclass
class Two:
    """Two nodes, and what a test does to their Redis."""

    a: End
    b: End
    expire: Callable[[str], Awaitable[None]]
    forget_everything: Callable[[], Awaitable[None]]
    unreachable: Heartbeats


@asynccontextmanager
async def in_memory() -> AsyncIterator[Two]:
    store = MemoryRedis()
    store.cut_off = {"c"}

    async def expire(run: str) -> None:
        store.expire(run)

    async def forget_everything() -> None:
        store.restart()

    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        a, b = (End(store.heartbeats(node), store.bus(node)) for node in "ab")
        yield Two(a, b, expire, forget_everything, store.heartbeats("c"))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def in_redis(url: str, cluster: str) -> AsyncIterator[Two]:
    client = redis.asyncio.Redis.from_url(url)

    async def expire(run: str) -> None:
        assert 2_000 < await call(client.pttl, f"{cluster}:node:{run}") <= 3_000
        await call(client.pexpire, f"{cluster}:node:{run}", 0)

    async def forget_everything() -> None:
        await call(client.flushall)

    nowhere = "unix:///nowhere/redis.sock"
    async with (
        open_asyncio(),
        open_redis(url, cluster, ttl_s=3.0) as one,
        open_redis(url, cluster, ttl_s=3.0) as other,
        open_redis(nowhere, cluster, ttl_s=3.0) as none,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(one.bus.run)
        await nursery.start(other.bus.run)
        a, b = End(one.heartbeats, one.bus), End(other.heartbeats, other.bus)
        yield Two(a, b, expire, forget_everything, none.heartbeats)
        await call(client.aclose)
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["memory", "redis"])
async def two(request: pytest.FixtureRequest, cluster: str) -> AsyncIterator[Two]:
    if request.param == "memory":
        async with in_memory() as found:
            yield found
    else:
        async with in_redis(request.getfixturevalue("redis_url"), cluster) as found:
            yield found


def runs(beat: Beat) -> list[str]:
    return sorted(member.run for member, _ in beat.members)


async def test_a_heartbeat_returns_all_nodes(two: Two) -> None:
    load = Load(sessions=1, players=2, connections=3, queued=4, lag_ms=5.5, busy=0.25)
    alone = await two.a.heartbeats.beat(A, load)
    assert alone.members == [(A, load)]
    both = await two.b.heartbeats.beat(B, Load())
    assert sorted(both.members, key=lambda each: each[0].run) == [(A, load), (B, Load())]
    assert both.store_run == alone.store_run
    assert not both.strange


async def test_the_last_word_counts(two: Two) -> None:
    await two.a.heartbeats.beat(A, Load())
    draining = replace(A, draining=True)
    assert (await two.a.heartbeats.beat(draining, Load(sessions=1))).members == [(draining, Load(sessions=1))]


async def test_a_heartbeat_ends(two: Two) -> None:
    await two.a.heartbeats.beat(A, Load())
    await two.b.heartbeats.beat(B, Load())
    await two.expire(A.run)
    assert runs(await two.b.heartbeats.beat(B, Load())) == [B.run]
    assert runs(await two.a.heartbeats.beat(A, Load())) == [A.run, B.run]


async def test_a_heartbeat_tells_for_how_long_it_is_good(two: Two) -> None:
    await two.a.heartbeats.beat(A, Load())
    left_s = (await two.b.heartbeats.beat(B, Load())).left_s
    assert left_s.keys() == {A.run, B.run}
    assert 2.0 < left_s[A.run] <= left_s[B.run] <= 3.0


async def test_a_look_without_a_heartbeat_is_not_listed(two: Two) -> None:
    assert runs(await two.b.heartbeats.look()) == []
    beat = await two.a.heartbeats.beat(A, Load(sessions=1))
    looked = await two.b.heartbeats.look()
    assert (looked.members, looked.store_run) == (beat.members, beat.store_run)
    assert runs(await two.a.heartbeats.beat(A, Load())) == [A.run]


async def test_a_heartbeat_is_taken_back(two: Two) -> None:
    await two.a.heartbeats.beat(A, Load())
    await two.a.heartbeats.withdraw(A)
    await two.a.heartbeats.withdraw(A)
    assert runs(await two.b.heartbeats.beat(B, Load())) == [B.run]


async def test_a_redis_that_forgot_everything_is_another(two: Two) -> None:
    before = await two.a.heartbeats.beat(A, Load())
    await two.forget_everything()
    after = await two.b.heartbeats.beat(B, Load())
    assert runs(after) == [B.run]
    assert after.store_run != before.store_run
    assert (await two.b.heartbeats.beat(B, Load())).store_run == after.store_run


async def test_a_redis_out_of_reach_is_unavailable(two: Two) -> None:
    with pytest.raises(BusUnavailable):
        await two.unreachable.beat(A, Load())
    with pytest.raises(BusUnavailable):
        await two.unreachable.withdraw(A)


class Ear:
    """Hears messages, and lets a test wait for them."""

    def __init__(self, bus: Bus) -> None:
        self.heard: list[BusMessage] = []
        self._send, self._receive = trio.open_memory_channel[BusMessage](10_000)
        bus.listen(self._send.send_nowait)

    async def until(self, count: int) -> list[BusMessage]:
        with trio.fail_after(10):
            while len(self.heard) < count:
                self.heard.append(await self._receive.receive())
        return self.heard


async def test_everybody_hears_what_is_published_oneself_included(two: Two) -> None:
    ears = [Ear(two.a.bus), Ear(two.b.bus), Ear(two.b.bus)]
    message = {"kind": "quiz", "id": "séance", "n": [1, None, 2.5]}
    two.a.bus.publish(message)
    for ear in ears:
        assert await ear.until(1) == [message]


async def test_one_senders_messages_come_in_their_order_and_once(two: Two) -> None:
    ear = Ear(two.b.bus)
    for n in range(500):
        two.a.bus.publish({"kind": "n", "n": n})
    assert [message["n"] for message in await ear.until(500)] == list(range(500))


async def test_what_is_too_large_is_refused(two: Two) -> None:
    ear = Ear(two.b.bus)
    with pytest.raises(ValueError, match="too many"):
        two.a.bus.publish({"kind": "x", "data": "x" * BUS_BYTES_MAX})
    two.a.bus.publish({"kind": "x", "data": "x" * (BUS_BYTES_MAX - 100)})
    assert len(await ear.until(1)) == 1


def test_members_are_what_they_were(cluster: str) -> None:
    assert Member.parse(A.to_dict()) == A
    assert Member.parse(A.to_dict() | {"colour": "red"}) == A


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": None},
        {"run": 7},
        {"role": "reader"},
        {"weight": 0},
        {"weight": WEIGHT_MAX + 1},
        {"weight": True},
        {"weight": "1"},
        {"started_at": 1.5},
        {"draining": 1},
        {"marks": {"secret": 7}},
        {"marks": ["secret"]},
    ],
    ids=str,
)
def test_a_member_with_a_wrong_field_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a member"):
        Member.parse(A.to_dict() | wrong)


@pytest.mark.parametrize("missing", ["name", "weight", "link_url", "started_at"])
def test_a_member_without_a_field_is_refused(missing: str) -> None:
    data = A.to_dict()
    del data[missing]
    with pytest.raises(ValueError, match=missing):
        Member.parse(data)


@pytest.mark.parametrize("data", [None, [], "a", 7, {}])
def test_other_data_is_not_a_member(data: object) -> None:
    with pytest.raises(ValueError, match="not a member"):
        Member.parse(data)
