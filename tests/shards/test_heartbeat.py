"""A node's heartbeats, in virtual time: three nodes or two over a Redis in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
from trio.testing import MockClock

from engine.lease import ClusterLease
from engine.shards.heartbeat import Heartbeat
from engine.shards.membership import Changes, Membership
from engine.shards.ports import BusMessage, Load, Member
from tests.shards.fakes import MemoryRedis
from tests.shards.making import member_of

TTL_S = 3.0


@dataclass
class Node:
    member: Member
    state: Membership
    presence: Heartbeat
    lease: ClusterLease
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    told: list[tuple[str, str]] = field(default_factory=list)
    rings: list[list[str]] = field(default_factory=list)
    lost_one: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)

    def names(self) -> list[str]:
        return sorted(member.name for member in self.state.live.values())


class Cluster:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.redis = MemoryRedis(ttl_s=TTL_S)
        self._nursery = nursery

    async def start(self, name: str, run: int = 1) -> Node:
        state, lease = Membership(TTL_S), ClusterLease(ttl_s=TTL_S, margin_s=0.5)
        member = member_of(name, run)

        def on_changes(changes: Changes) -> None:
            for what in ("joined", "left", "changed"):
                node.told += [(what, each.run) for each in getattr(changes, what)]
            node.rings.append(list(state.ring.nodes))
            if changes.left:
                node.lost_one.set()

        def confirmed(asked_s: float) -> None:
            lease.heartbeat_confirmed(asked_s, trio.current_time())
            # Nothing is held here that would have to be found one's own.
            lease.proved(trio.current_time(), trio.current_time())

        presence = Heartbeat(
            state,
            self.redis.heartbeats(name),
            self.redis.bus(name),
            member,
            ttl_s=TTL_S,
            load=Load,
            on_changes=on_changes,
            on_confirmed=confirmed,
        )
        node = Node(member, state, presence, lease)

        async def run_it(task_status: trio.TaskStatus[None]) -> None:
            with node.scope:
                await presence.run(task_status)
            node.ended.set()

        await self._nursery.start(run_it)
        return node

    def kill(self, node: Node) -> None:
        """Without a farewell: nothing of it reaches Redis any more."""
        self.redis.cut_off.add(node.member.name)
        self.redis.forget(node.member.name)
        node.scope.cancel()


@asynccontextmanager
async def cluster_of(*names: str) -> AsyncIterator[tuple[Cluster, list[Node]]]:
    """Started one after the other, and so settled that Redis is believed."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery)
        await nursery.start(cluster.redis.run)
        nodes = [await cluster.start(name) for name in names]
        await trio.sleep(2 * TTL_S)
        yield cluster, nodes
        nursery.cancel_scope.cancel()


async def test_nodes_find_each_other_by_announcement(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery)
        await nursery.start(cluster.redis.run)
        a = await cluster.start("a")
        began_s = trio.current_time()
        b = await cluster.start("b")
        assert b.names() == ["a", "b"]
        await trio.sleep(0.2)
        assert a.names() == ["a", "b"]
        assert trio.current_time() - began_s < TTL_S / 3
        assert a.told == [("joined", "a/1"), ("joined", "b/1")]
        assert a.rings[-1] == ["a", "b"]
        assert a.state.ring.generation == b.state.ring.generation
        nursery.cancel_scope.cancel()


async def test_nodes_find_each_other_without_the_bus(autojump_clock: MockClock) -> None:
    async with cluster_of("a") as (cluster, [a]):
        cluster.redis.fates = lambda sender, receiver, message: ()
        await cluster.start("b")
        await trio.sleep(TTL_S / 3 + 0.1)
        assert a.names() == ["a", "b"]


async def test_repeated_and_reordered_announcements_do_no_harm(autojump_clock: MockClock) -> None:
    async with cluster_of("a") as (cluster, [a]):
        cluster.redis.fates = lambda sender, receiver, message: (0.0, 0.7, 1.4) if sender == "b" else (2.0,)
        b = await cluster.start("b")
        b.scope.cancel()
        again = await cluster.start("b", 2)
        await trio.sleep(2 * TTL_S)
        assert list(a.state.live) == ["a/1", "b/2"]
        assert list(again.state.live) == ["a/1", "b/2"]


async def test_a_node_that_ends_in_good_order_is_dropped_at_once(autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (_, [a, b]):
        b.scope.cancel()
        await trio.sleep(0.2)
        assert a.names() == ["a"]
        assert a.told[-1] == ("left", "b/1")
        assert a.rings[-1] == ["a"]
        assert a.state.gone("b/1", trio.current_time())


async def test_a_killed_node_is_gone_after_its_ttl(autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        killed_s = trio.current_time()
        cluster.kill(b)
        await trio.sleep(TTL_S / 2)
        assert a.names() == ["a", "b"]
        assert not a.state.gone("b/1", trio.current_time())
        await trio.sleep_until(killed_s + TTL_S + TTL_S / 3)
        assert a.names() == ["a"]
        assert a.state.gone("b/1", trio.current_time())
        assert not b.lease.certain(trio.current_time())


async def test_a_change_of_oneself_is_announced_at_once(autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (_, [a, b]):
        b.presence.announce(replace(b.member, draining=True))
        await trio.sleep(0.3)
        assert a.told[-1] == ("changed", "b/1")
        assert a.rings[-1] == ["a"]
        assert b.rings[-1] == ["a"]


async def test_while_redis_is_away_all_stay(autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        cluster.redis.away = True
        await trio.sleep(20 * TTL_S)
        assert a.names() == b.names() == ["a", "b"]
        assert not a.state.gone("b/1", trio.current_time())
        assert not a.lease.certain(trio.current_time())
        told = list(a.told)
        cluster.redis.away = False
        await trio.sleep(3 * TTL_S)
        assert a.names() == b.names() == ["a", "b"]
        assert a.told == told
        assert a.lease.certain(trio.current_time())


async def test_a_redis_that_starts_empty_loses_nobody(autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        cluster.redis.restart()
        for _ in range(60):
            await trio.sleep(0.1)
            assert a.names() == ["a", "b", "c"]
            assert not any(a.state.gone(f"{name}/1", trio.current_time()) for name in "bc")
        cluster.redis.restart()
        cluster.kill(c)
        await trio.sleep(TTL_S)
        assert a.names() == ["a", "b", "c"]
        await trio.sleep(TTL_S)
        assert a.names() == b.names() == ["a", "b"]


async def test_a_node_that_is_cut_off_stops_being_certain_before_others_consider_it_gone(
    autojump_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        cluster.redis.cut_off.add("b")
        await a.lost_one.wait()
        assert a.state.gone("b/1", trio.current_time())
        assert not b.lease.certain(trio.current_time() - 0.4)
        assert b.names() == ["a", "b"]
        cluster.redis.cut_off.clear()
        await trio.sleep(TTL_S)
        assert a.names() == b.names() == ["a", "b"]


async def test_a_heartbeat_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    async with cluster_of("a") as (cluster, [a]):
        cluster.redis.lag_s = lambda node: 0.49
        await trio.sleep(2 * TTL_S)
        assert a.state.reached
        assert a.lease.certain(trio.current_time())
        cluster.redis.lag_s = lambda node: 0.51
        await trio.sleep(2 * TTL_S)
        assert not a.state.reached
        assert not a.lease.certain(trio.current_time())


async def test_an_end_does_not_wait_for_redis(autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        cluster.redis.lag_s = lambda node: 1_000.0
        began_s = trio.current_time()
        a.scope.cancel()
        await a.ended.wait()
        assert trio.current_time() - began_s <= 1.0


async def test_many_announcements_cause_few_heartbeats(autojump_clock: MockClock) -> None:
    async with cluster_of("a") as (cluster, _):
        beats: list[str] = []

        def lag_s(node: str) -> float:
            beats.append(node)
            return 0.0

        cluster.redis.lag_s = lag_s
        crowd = cluster.redis.bus("x")
        for n in range(1000):
            crowd.publish({"kind": "member", "what": "joined", "name": f"n{n}", "run": f"n{n}/1"})
            await trio.sleep(0.001)
        assert len(beats) / 2 <= 12


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": "quiz", "run": "b/1", "what": "left"},
        {"kind": "member"},
        {"kind": "member", "what": "left", "run": 7},
        {"kind": "member", "what": "left", "run": ["b/1"]},
        {"kind": "member", "what": "left", "run": "a/1"},
        {"kind": "member", "what": "unheard of", "run": "b/1"},
    ],
)
async def test_strange_announcements_are_passed_over(message: BusMessage, autojump_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        cluster.redis.bus("x").publish(message)
        await trio.sleep(1)
        assert a.names() == ["a", "b"]
