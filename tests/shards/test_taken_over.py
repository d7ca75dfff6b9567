"""A session whose owner hangs or dies, as clients at other nodes see it. A node that hangs ends no link: what
it said comes late, or never."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer
from engine.ports import SessionRecord
from engine.shards import session_location
from engine.shards.relay import HOLD_S, TRY_AGAIN_S
from tests.actors.world import Client, settle
from tests.shards.nodes import Cluster, Node, cluster_of
from tests.shards.test_relay import later, relay_at


async def hung(cluster: Cluster, node: Node) -> None:
    """All others are certain that it is gone. Its links are as they were, and it knows nothing of it."""
    cluster.store.leases[node.run] = 0
    others = [other for other in cluster.nodes if other is not node]
    for other in others:
        other.known.see(*(each.member for each in others))
        other.known.missed.add(node.run)
    await settle()


async def taken(nodes: list[Node]) -> Node:
    """By which of them."""
    for node in nodes:
        await node.rebalancer.take_over()
    await settle()
    [owner] = [node for node in nodes if any(node.registry.active())]
    return owner


@pytest.mark.parametrize("at", ["owner", "third"])
async def test_clients_of_a_hung_owner_go_on_at_once_with_the_next(at: str, mock_clock: MockClock) -> None:
    """However the next owner is found: the node runs the session itself now, or hears who does."""
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        clients = {node: await node.join(record, node.member.name) for node in (b, c)}
        await b.do(record, "start")
        await hung(cluster, a)
        assert {client.close_reason for client in clients.values()} == {None}
        owner = await taken([b, c])
        node = owner if at == "owner" else next(each for each in (b, c) if each is not owner)
        client = clients[node]
        assert client.close_reason is CloseReason.TAKEN_OVER
        joined = client.last("joined")
        back = await node.rejoin(
            record, "player", joined["player"], epoch=joined["epoch"], offset=client.offsets[-1]
        )
        assert back.last("joined")["state"]["phase"] == "question"
        await node.answers(record, back, joined["player"])
        assert back.last("ack")["status"] == "accepted"
        assert (node.relay(record) is None) == (at == "owner")


async def test_what_the_former_owner_says_when_it_wakes_reaches_nobody(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        ada, ben = await b.join(record, "Ada"), await c.join(record, "Ben")
        await b.do(record, "start")
        await hung(cluster, a)
        owner = await taken([b, c])
        third = b if owner is c else c
        back = await third.rejoin(record, "player", 1)
        heard = [len(client.frames) for client in (ada, ben, back)]
        assert not a.here(record).live.audience.relayed, "nobody listens to it"
        a.journal.auto = "off"  # it does not know yet that it was replaced
        await a.do(record, "close")
        await later(mock_clock, 1)
        assert [len(client.frames) for client in (ada, ben, back)] == heard


async def test_an_answer_on_its_way_to_a_hung_owner_is_said_to_the_next(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        await b.join(record, "Ada")
        await b.do(record, "start")
        a.journal.auto = "off"
        over_http = Client()
        for node in (b, c):
            node.router.deliver(record.id, Answer(over_http, 1, "a", 1, 0, cluster.clock.now_ms()))
        await settle()
        await hung(cluster, a)
        owner = await taken([b, c])
        assert over_http.got("ack") == [], "what was passed on waits for its link, which ends by its silence"
        for other in (b, c):
            cluster.links.cut(a.run, other.run)
        await settle()
        assert over_http.close_reason is CloseReason.RESTARTING or set(over_http.errors) == {"busy"}
        again = Client()
        await (b if owner is c else c).answers(record, again, 1)
        assert again.last("ack")["status"] == "accepted"


async def test_clients_stay_connected_until_the_next_owner_is_there(mock_clock: MockClock) -> None:
    """Also when nobody hears of it: the relay looks for itself, though not all the time."""
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        ada, ben = await b.join(record, "Ada"), await c.join(record, "Ben")
        cluster.redis.away = True
        looks = 0
        look = cluster.store.find

        async def find(key: str) -> SessionRecord:
            nonlocal looks
            looks += 1
            return await look(key)

        cluster.store.find = find  # type: ignore[method-assign]
        await cluster.kill(a)
        await later(mock_clock, HOLD_S / 2)
        assert (ada.close_reason, ben.close_reason) == (None, None)
        assert looks <= 2 * 5, "of two relays"
        cluster.store.leases[a.run] = 0
        cluster.miss(a.run)
        owner = await taken([b, c])
        assert {b: ada, c: ben}[owner].close_reason is CloseReason.TAKEN_OVER
        await later(mock_clock, TRY_AGAIN_S[1] + 0.1)
        assert (ada.close_reason, ben.close_reason) == (CloseReason.TAKEN_OVER, CloseReason.TAKEN_OVER)


async def test_a_session_that_has_ended_meanwhile_lets_its_clients_go(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await a.do(record, "finish")
        row = cluster.store._row(record.id)
        row.finished_at = cluster.clock.now_ms()
        await cluster.kill(a)
        cluster.store.leases[a.run] = 0
        cluster.miss(a.run)
        await later(mock_clock, 2)
        assert ada.close_reason is not None
        assert b.relay(record) is None


async def test_an_announcement_that_names_another_former_owner_changes_nothing(mock_clock: MockClock) -> None:
    """It is old: the relay knows better."""
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        for former in ("somebody/7", None):
            b.router.hear(session_location.announcement(record, c.run, former))
            await settle()
        assert ada.close_reason is None
        assert relay_at(b, record).owner.run == a.run
        await b.do(record, "start")
        assert ada.offsets == [1]
