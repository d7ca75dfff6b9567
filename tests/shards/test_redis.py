"""Redis as it is when things go wrong: restarted, killed, frozen, full of what others have written."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis.asyncio
import trio

from engine import ports
from engine.aio import call, open_asyncio
from engine.domain.quiz import Quiz
from engine.shards import redis as redis_module
from engine.shards.embedded_redis import EmbeddedRedis
from engine.shards.ports import BUS_BYTES_MAX, BusMessage, BusUnavailable, Load
from engine.shards.redis import RedisServices, errors, open_redis
from engine.trace import Trace, current
from tests.fakes import MemoryCatalog
from tests.shards.making import member_of
from tests.storage.making import quiz_of

A, B = member_of("a"), member_of("b")


@pytest.fixture
def server(short_tmp_path: Path, cluster: str) -> Iterator[EmbeddedRedis]:
    """One of its own, to be killed."""
    server = EmbeddedRedis(short_tmp_path / cluster)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def services(server: EmbeddedRedis, cluster: str) -> AsyncIterator[RedisServices]:
    async with open_asyncio(), open_redis(server.url, cluster, ttl_s=3.0) as services:
        yield services


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """Another program that uses the shared Redis."""
    async with open_asyncio():
        client = redis.asyncio.Redis.from_url(redis_url)
        yield client
        await call(client.aclose)


def kill(server: EmbeddedRedis, number: int = signal.SIGKILL) -> None:
    assert server.pid is not None
    os.kill(server.pid, number)


class Ear:
    def __init__(self, services: RedisServices) -> None:
        self._send, self._receive = trio.open_memory_channel[BusMessage](10_000)
        services.bus.listen(self._send.send_nowait)

    async def next(self) -> BusMessage:
        with trio.fail_after(10):
            return await self._receive.receive()


async def test_a_killed_redis_is_unavailable_and_another_one_when_it_is_back(
    services: RedisServices, server: EmbeddedRedis
) -> None:
    before = await services.heartbeats.beat(A, Load())
    kill(server)
    for _ in range(2):
        with pytest.raises(BusUnavailable):
            await services.heartbeats.beat(A, Load())
    with pytest.raises(BusUnavailable):
        await services.heartbeats.withdraw(A)
    server.start()
    after = await services.heartbeats.beat(B, Load())
    assert [member for member, _ in after.members] == [B]
    assert after.store_run != before.store_run


def test_what_asyncio_says_of_a_lost_connection_is_that_redis_is_unavailable() -> None:
    loop: Any = None
    with pytest.raises(BusUnavailable), errors():
        loop._add_writer(1, None)
    with pytest.raises(AttributeError), errors():
        loop.a_mistake_of_ours()


async def test_a_frozen_redis_is_given_up_within_its_time_out(
    services: RedisServices, server: EmbeddedRedis
) -> None:
    await services.heartbeats.beat(A, Load())
    kill(server, signal.SIGSTOP)
    try:
        began_s = trio.current_time()
        with pytest.raises(BusUnavailable):
            await services.heartbeats.beat(A, Load())
        assert trio.current_time() - began_s < 5
    finally:
        kill(server, signal.SIGCONT)
    assert len((await services.heartbeats.beat(A, Load())).members) == 1


async def test_a_heartbeat_that_is_given_up_half_way_spoils_no_other(
    services: RedisServices, server: EmbeddedRedis
) -> None:
    before = await services.heartbeats.beat(A, Load())
    kill(server, signal.SIGSTOP)
    try:
        with trio.move_on_after(0.1) as scope:
            await services.heartbeats.beat(A, Load())
        assert scope.cancelled_caught
    finally:
        kill(server, signal.SIGCONT)
    after = await services.heartbeats.beat(B, Load())
    assert {member.run for member, _ in after.members} == {A.run, B.run}
    assert after.store_run == before.store_run


async def test_the_bus_comes_back_by_itself(services: RedisServices, server: EmbeddedRedis) -> None:
    ear = Ear(services)
    async with trio.open_nursery() as nursery:
        await nursery.start(services.bus.run)
        services.bus.publish({"kind": "n", "n": 1})
        assert await ear.next() == {"kind": "n", "n": 1}
        assert services.bus.delay.latency.statistics().count == 1
        kill(server)
        server.start()
        async with trio.open_nursery() as publishing:
            # Until it is connected again nobody hears anything, and nothing says when that is.
            publishing.start_soon(publish_on_and_on, services)
            assert await ear.next() == {"kind": "n", "n": 2}
            publishing.cancel_scope.cancel()
        statistics = services.bus.statistics()
        assert statistics.connected
        assert statistics.connections == 2
        nursery.cancel_scope.cancel()
    assert not services.bus.statistics().connected


async def test_a_silent_bus_is_asked_for_a_sign_of_life(
    services: RedisServices, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, away = trio.Event(), trio.Event()
    ping = redis.asyncio.client.PubSub.ping

    async def counted_ping(subscription: redis.asyncio.client.PubSub) -> None:
        await ping(subscription)
        asked.set()

    monkeypatch.setattr(redis.asyncio.client.PubSub, "ping", counted_ping)
    monkeypatch.setattr(redis_module, "_SILENCE_S", 0.01)
    monkeypatch.setattr(redis_module, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(redis_module._log, "warning", lambda *_: away.set())
    ear = Ear(services)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(services.bus.run)
            await asked.wait()
            services.bus.publish({"kind": "n", "n": 1})
            assert await ear.next() == {"kind": "n", "n": 1}
            assert services.bus.statistics().connections == 1
            kill(server, signal.SIGSTOP)
            try:
                await away.wait()
            finally:
                kill(server, signal.SIGCONT)
            async with trio.open_nursery() as publishing:
                publishing.start_soon(publish_on_and_on, services)
                assert await ear.next() == {"kind": "n", "n": 2}
                publishing.cancel_scope.cancel()
            assert services.bus.statistics().connections == 2
            nursery.cancel_scope.cancel()


async def publish_on_and_on(services: RedisServices) -> None:
    while True:
        services.bus.publish({"kind": "n", "n": 2})
        await trio.sleep(0.05)


async def test_a_bus_that_is_away_drops_what_is_published(cluster: str) -> None:
    async with open_asyncio(), open_redis("unix:///nowhere/redis.sock", cluster, ttl_s=3.0) as services:
        for n in range(1_200):
            services.bus.publish({"kind": "n", "n": n})
        assert services.bus.statistics().queued == 1_000
        assert services.bus.statistics().dropped == 200
        async with trio.open_nursery() as nursery:
            await nursery.start(services.bus.run)
            nursery.cancel_scope.cancel()
        statistics = services.bus.statistics()
        assert (statistics.queued, statistics.dropped, statistics.sent) == (0, 1_200, 0)
        assert not statistics.connected


async def test_what_was_published_before_the_end_is_sent(redis_url: str, cluster: str) -> None:
    async with (
        open_asyncio(),
        open_redis(redis_url, cluster, ttl_s=3.0) as one,
        open_redis(redis_url, cluster, ttl_s=3.0) as other,
        trio.open_nursery() as nursery,
    ):
        ear = Ear(other)
        await nursery.start(other.bus.run)
        async with trio.open_nursery() as close_reason:
            await close_reason.start(one.bus.run)
            close_reason.cancel_scope.cancel()
            one.bus.publish({"kind": "member", "what": "left"})
        assert await ear.next() == {"kind": "member", "what": "left"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b"\xff",
        b"[1]",
        b'"text"',
        b'{"kind":"n","n":0}',
        b'{"v":2,"kind":"n","n":0}',
        orjson.dumps({"v": 1, "data": "x" * BUS_BYTES_MAX}),
    ],
    ids=["text", "bytes", "list", "string", "no version", "a later version", "too large"],
)
async def test_messages_that_are_not_ours_are_passed_over(
    data: bytes, client: redis.asyncio.Redis, redis_url: str, cluster: str
) -> None:
    async with open_redis(redis_url, cluster, ttl_s=3.0) as services, trio.open_nursery() as nursery:
        ear = Ear(services)
        await nursery.start(services.bus.run)
        await call(client.publish, f"{cluster}:bus", data)
        services.bus.publish({"kind": "n", "n": 1})
        assert await ear.next() == {"kind": "n", "n": 1}
        assert services.bus.statistics().passed_over == 1
        nursery.cancel_scope.cancel()


async def test_a_heartbeat_that_is_not_understood_is_told_apart_from_none(
    client: redis.asyncio.Redis, redis_url: str, cluster: str
) -> None:
    later = {
        "v": 1,
        "member": B.to_dict() | {"colour": "red"},
        "load": {"sessions": 3, "new": 1, "busy": "?"},
    }
    async with open_redis(redis_url, cluster, ttl_s=3.0) as services:
        for run, data in ((B.run, orjson.dumps(later)), ("c/1", b"{}"), ("d/1", b'{"v":1,"member":{}}')):
            await call(client.sadd, f"{cluster}:nodes", run)
            await call(client.set, f"{cluster}:node:{run}", data)
        beat = await services.heartbeats.beat(A, Load())
        assert sorted(beat.members, key=lambda each: each[0].run) == [(A, Load()), (B, Load(sessions=3))]
        assert beat.strange == {"c/1", "d/1"}


async def test_runs_whose_heartbeat_ended_are_forgotten(
    client: redis.asyncio.Redis, redis_url: str, cluster: str
) -> None:
    async with open_redis(redis_url, cluster, ttl_s=3.0) as services:
        await call(client.sadd, f"{cluster}:nodes", "x/1", "y/1")
        await services.heartbeats.beat(A, Load())
        assert await call(client.smembers, f"{cluster}:nodes") == {A.run.encode()}


async def test_clusters_do_not_see_each_other(redis_url: str, cluster: str) -> None:
    async with (
        open_asyncio(),
        open_redis(redis_url, cluster, ttl_s=3.0) as one,
        open_redis(redis_url, cluster + "-other", ttl_s=3.0) as other,
    ):
        await one.heartbeats.beat(A, Load())
        assert [member for member, _ in (await other.heartbeats.beat(B, Load())).members] == [B]


class Counting:
    """A catalog that says what it was asked."""

    def __init__(self) -> None:
        self.catalog = MemoryCatalog(now_ms=7)
        self.asked: list[tuple[str, int | None]] = []

    async def add(
        self,
        quiz: Quiz,
        quiz_id: str | None = None,
        owner_id: str | None = None,
        allow: Callable[[str | None], None] = ports.anyone,
    ) -> ports.StoredQuiz:
        return await self.catalog.add(quiz, quiz_id, owner_id, allow)

    async def get(self, quiz_id: str, version: int | None = None) -> ports.StoredQuiz:
        self.asked.append((quiz_id, version))
        return await self.catalog.get(quiz_id, version)

    async def page(
        self,
        limit: int,
        after: tuple[str, str] | None = None,
        owners: ports.Owners = None,
        title: str | None = None,
    ) -> ports.Sequence[ports.QuizSummary]:
        return await self.catalog.page(limit, after, owners, title)

    async def versions(self, quiz_id: str, limit: int) -> ports.Sequence[ports.QuizSummary]:
        return await self.catalog.versions(quiz_id, limit)


async def test_nodes_share_the_quizzes_they_looked_up(services: RedisServices) -> None:
    behind, never = Counting(), Counting()
    one, other = services.quiz_cache(behind), services.quiz_cache(never)
    first = await one.add(quiz_of("One"), None, "ada")
    assert first.owner_id == "ada"
    assert await one.get(first.id) == first
    assert behind.asked == [(first.id, None)]
    assert await other.get(first.id) == first
    assert await other.get(first.id, 1) == first
    assert never.asked == []
    assert [summary.id for summary in await one.page(9)] == [first.id]


async def test_an_edit_is_seen_and_announced(services: RedisServices) -> None:
    behind, ear = Counting(), Ear(services)
    cache = services.quiz_cache(behind)
    async with trio.open_nursery() as nursery:
        await nursery.start(services.bus.run)
        first = await cache.add(quiz_of("One"))
        assert await ear.next() == {"kind": "quiz", "id": first.id}
        await cache.get(first.id)
        second = await cache.add(quiz_of("Two"), first.id)
        assert await ear.next() == {"kind": "quiz", "id": first.id}
        assert await cache.get(first.id) == second
        assert await cache.get(first.id, 1) == first
        nursery.cancel_scope.cancel()


async def test_what_is_kept_ends(client: redis.asyncio.Redis, redis_url: str, cluster: str) -> None:
    async with open_redis(redis_url, cluster, ttl_s=3.0) as services:
        cache = services.quiz_cache(Counting())
        stored = await cache.add(quiz_of("One"))
        await cache.get(stored.id)
        assert 0 < await call(client.pttl, f"{cluster}:owned-quiz:1:{stored.id}:newest") <= 60_000
        assert 60_000 < await call(client.pttl, f"{cluster}:owned-quiz:1:{stored.id}:1") <= 86_400_000


async def test_what_nobody_has_is_not_found(services: RedisServices) -> None:
    cache = services.quiz_cache(Counting())
    with pytest.raises(ports.QuizNotFound):
        await cache.get("none")
    with pytest.raises(ports.QuizNotFound):
        await cache.get("none", 1)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"quiz": {}, "created_at": 1}'])
async def test_what_cannot_be_read_is_asked_for_behind(
    data: bytes, client: redis.asyncio.Redis, redis_url: str, cluster: str
) -> None:
    async with open_redis(redis_url, cluster, ttl_s=3.0) as services:
        behind = Counting()
        cache = services.quiz_cache(behind)
        stored = await cache.add(quiz_of("One"))
        await call(client.set, f"{cluster}:owned-quiz:1:{stored.id}:1", data)
        assert await cache.get(stored.id, 1) == stored
        assert behind.asked == [(stored.id, 1)]
        assert await cache.get(stored.id, 1) == stored
        assert behind.asked == [(stored.id, 1)]


async def test_quizzes_are_there_without_redis(services: RedisServices, server: EmbeddedRedis) -> None:
    behind = Counting()
    cache = services.quiz_cache(behind)
    first = await cache.add(quiz_of("One"))
    kill(server)
    assert await cache.get(first.id) == first
    second = await cache.add(quiz_of("Two"), first.id)
    assert await cache.get(first.id) == second
    assert behind.asked == [(first.id, None), (first.id, None)]


async def test_what_follows_from_a_sampled_request_takes_its_trace_along(services: RedisServices) -> None:
    heard = Ear(services)
    async with trio.open_nursery() as nursery:
        await nursery.start(services.bus.run)
        before = current.set(Trace("ab" * 16, "cd" * 8))
        services.bus.publish({"kind": "quiz", "id": "q"})
        current.set(Trace("ab" * 16, "cd" * 8, sampled=False))
        services.bus.publish({"kind": "quiz", "id": "r"})
        current.reset(before)
        traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
        assert await heard.next() == {"kind": "quiz", "id": "q", "traceparent": traceparent}
        assert await heard.next() == {"kind": "quiz", "id": "r"}
        nursery.cancel_scope.cancel()
