"""A session elsewhere, as the clients that are connected here see it: nodes without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from engine.actors import relay_messages, subscriptions
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Detach, Host, Identity, Join, Rejoin, Watch
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from engine.actors.slow_answers import SlowAnswer
from engine.domain.shuffling import seed_of
from engine.ports import SessionRecord
from engine.shards import relay as relays
from engine.shards.link.hops import Hop
from engine.shards.relay import EMPTY_S, HOLD_S, INBOX_MAX, Relay
from engine.shards.session_location import RemoteLocation
from engine.trace import Trace
from tests.actors.test_reads import Transport
from tests.actors.world import START_MS, Client, settle
from tests.shards.nodes import RELAY_ABOVE, Cluster, Node, cluster_of


def told(client: Client) -> list[Mapping[str, Any]]:
    """As it comes over the wire."""
    return [orjson.loads(orjson.dumps(frame.message)) for frame in client.frames]


def relay_at(node: Node, record: SessionRecord) -> Relay:
    relay = node.relay(record)
    assert relay is not None, f"{node.member.name} does not relay {record.id}"
    return relay


async def later(clock: MockClock, seconds: float) -> None:
    """What is due meanwhile happens when it is due."""
    until = trio.current_time() + seconds
    while trio.current_time() < until - 1e-9:
        clock.jump(min(0.05, until - trio.current_time()))
        await settle()


# -- the same as at the owner ------------------------------------------------------------------------


async def a_whole_quiz(clock: MockClock, elsewhere: bool) -> Mapping[str, Sequence[object]]:
    """What each of them has heard, in order, and how it ended. The host, a spectator and two players are
    connected to another node than the session's, or not."""
    heard: dict[str, Client] = {}
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        a.journal.auto = "now"  # or acks might come before leaderboards or after them
        node = b if elsewhere else a
        heard["Ada"] = ada = await node.join(record, "Ada")
        heard["Ben"] = ben = await a.join(record, "Ben")
        heard["host"] = await node.rejoin(record, "host")
        heard["spectator"] = await node.watch(record)
        # Both nodes take part in both runs, so that deadlines are the same.
        await b.watch(record)
        await node.do(record, "start")
        clock.jump(1)
        await settle()
        await node.answers(record, ada, 1, 0)
        clock.jump(1)
        await settle()
        await a.answers(record, ben, 2, 1)
        await later(clock, 0.5)
        await node.do(record, "next")
        heard["Cem"] = cem = await node.join(record, "Cem")
        await later(clock, 0.5)
        await node.answers(record, cem, 3, 0, question=2)
        await node.answers(record, cem, 3, 0, question=2)
        await node.answers(record, cem, 3, 1, question=2)
        await node.answers(record, cem, 3, 1, question=1)
        for do in ("pause", "resume", "lock"):
            await node.do(record, do)
            clock.jump(1)
            await settle()
        at = {"epoch": ada.last("joined")["epoch"], "offset": ada.last("reveal")["offset"]}
        heard["Ada again"] = again = await node.rejoin(record, "player", 1, **at)
        heard["spectator again"] = await node.watch(record, **at)
        heard["host again"] = await node.rejoin(record, "host", **at)
        heard["somebody new"] = await node.join(record, "Dan")
        await later(clock, 20)
        await node.do(record, "next")
        await later(clock, 0.3)
        await node.answers(record, again, 1, 0, question=3)
        await node.do(record, "kick", player=3)
        await later(clock, 0.3)
        await node.do(record, "finish")
        await later(clock, 40)
    return {
        name: [*told(client), client.close_reason and client.close_reason.name]
        for name, client in heard.items()
    }


async def test_clients_of_a_relay_see_exactly_what_clients_of_the_owner_see(mock_clock: MockClock) -> None:
    owners, relayed = await a_whole_quiz(mock_clock, False), await a_whole_quiz(mock_clock, True)
    for name in owners:
        assert relayed[name] == owners[name], name
    kinds = {message["t"] for message in owners["Ada again"][:-1]}  # type: ignore[index]  # a message
    assert kinds >= {"joined", "question", "state", "reveal", "result", "leaderboard", "ack", "finished"}
    assert owners["Ada"][-1] == "REPLACED"
    assert owners["Cem"][-1] == "KICKED"
    assert owners["spectator again"][-1] == "FINISHED"
    asked = [message for message in owners["host again"][:-1] if message["t"] == "question"]  # type: ignore[index]  # a message
    assert asked
    assert all("correct" in question for question in asked)


async def test_a_player_gets_the_ack_once_and_only_after_the_commit(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.join(record, "Ben")
        await b.do(record, "start")
        a.journal.auto = "off"
        await b.answers(record, ada, 1)
        assert ada.got("ack") == []
        a.journal.commit()
        await settle()
        assert [ack["status"] for ack in ada.got("ack")] == ["accepted"]


async def test_what_an_answer_spends_on_the_way_counts_for_it(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.join(record, "Ben")
        await b.do(record, "start")
        cluster.links.delay_s = lambda near, far: 0.04
        mock_clock.jump(2)
        await b.answers(record, ada, 1)
        for _ in range(2):
            assert ada.got("ack") == []
            mock_clock.jump(0.04)
            await settle()
        assert ada.last("ack")["elapsed_ms"] == 2040


async def test_a_deadline_waits_until_the_kernels_of_other_nodes_have_nothing_from_before_it(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, early_close=False)
        ada, ben = await b.join(record, "Ada"), await a.join(record, "Ben")
        await b.watch(record)
        transport = Transport(b.registry.pacing.reads)
        await a.do(record, "start")
        deadline = b.clock.now_ms() + 20_000
        await later(mock_clock, 20.1)
        assert transport.asked == 1, "for the owner"
        transport.reads.begin()
        await later(mock_clock, 0.9)
        assert not ben.got("reveal")
        now = b.clock.now_ms()
        b.router.deliver(record.id, Answer(ada, 1, "a", 1, 0, now, held_ms=now - deadline + 2))
        transport.end()
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 19_998
        assert ben.last("reveal")["counts"] == [1, 0, 0]


async def test_a_relay_tells_the_time_by_the_clock_of_its_node(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        ahead = b.router._clock = SessionClock(START_MS + 5_000)
        record = await cluster.session(a)
        clients = [await b.join(record, "Ada"), await b.rejoin(record, "host"), await b.watch(record)]
        await b.do(record, "start")
        mock_clock.jump(1)
        await settle()
        clients.append(late := await b.watch(record))
        await a.do(record, "pause")
        assert {client.last("state")["now"] for client in clients} == {ahead.now_ms()}
        assert late.last("joined")["state"]["now"] == ahead.now_ms()
        for early in clients[:3]:
            assert early.last("joined")["state"]["now"] == START_MS + 5_000
            assert early.last("question")["now"] == START_MS + 5_000
            assert early.last("question")["remaining_ms"] == 20_000


async def test_one_frame_a_broadcast_goes_to_a_node_however_many_clients_it_has(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        clients = [await b.watch(record) for _ in range(20)]
        await b.do(record, "start")
        assert [client.kinds.count("question") for client in clients] == [1] * 20
        assert a.here(record).subscribers == 1
        frames = {id(client.frames[-1]) for client in clients}
        assert len(frames) == 1, "encoded once for all of them"


async def test_a_refused_join_takes_no_seat_at_the_relay(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await a.join(record, "Ada")
        refused = await b.join(record, "Ada")
        assert (refused.errors, refused.close_reason) == (["name_taken"], None)
        assert relay_at(b, record).subscribers == 0


async def test_a_new_player_in_a_large_standing_gets_the_results_of_its_chunks(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_messages, "ROWS_PER_CHUNK", 2)
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        clients = [await b.join(record, f"Player {n}") for n in range(1, 6)]
        await b.do(record, "start")
        for player, client in enumerate(clients, start=1):
            await b.answers(record, client, player)
            mock_clock.jump(1)
        await settle()
        results = [client.last("result") for client in clients]
        assert [result["rank"] for result in results] == [1, 2, 3, 4, 5]
        assert [line["rank"] for line in results[2]["around"]] == [1, 2, 3, 4, 5]
        assert [client.kinds.count("result") for client in clients] == [1] * 5


# -- coming and going --------------------------------------------------------------------------------


async def test_a_client_that_left_while_it_was_let_in_gets_no_seat(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await b.watch(record)
        a.journal.auto = "off"
        ada = await b.join(record, "Ada")
        await b.sent(record.id, Detach(ada))
        a.journal.commit()
        await settle()
        assert relay_at(b, record).subscribers == 1
        assert ada.frames == []


async def test_a_repeated_join_on_one_connection_is_admitted_once(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        client = Client()
        await b.sent(record.code, Join(client, "", cluster.clock.now_ms()))
        assert client.errors == ["name_invalid"]
        await b.sent(record.code, Join(client, "Ada", cluster.clock.now_ms()))
        assert client.kinds == ["error", "joined"]
        assert relay_at(b, record).subscribers == 1


async def test_a_relay_without_clients_ends_after_a_while(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        watching = await b.watch(record)
        await b.sent(record.id, Detach(watching))
        await later(mock_clock, EMPTY_S - 0.5)
        relay = relay_at(b, record)
        await later(mock_clock, 1)
        assert relay.over
        assert b.relay(record) is None
        assert a.here(record).subscribers == 0, "the owner can rest"


async def test_a_relay_whose_client_is_being_let_in_does_not_end(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        a.journal.auto = "off"
        ada = await b.join(record, "Ada")
        await later(mock_clock, EMPTY_S + 1)
        a.journal.commit()
        await settle()
        assert (ada.kinds, ada.close_reason) == (["joined"], None)


async def test_a_join_at_a_relay_that_has_ended_is_told_to_come_again(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        watching = await b.watch(record)
        relay = relay_at(b, record)
        relay.end(CloseReason.RESTARTING)
        assert watching.close_reason is CloseReason.RESTARTING
        late = Client()
        relay.deliver(Watch(late))
        assert late.errors == ["busy"]
        await settle()
        assert (await b.watch(record)).kinds[0] == "joined", "the next one is another relay"


async def test_a_client_that_comes_while_the_link_is_lost_is_let_in_once_it_is_back(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await b.join(record, "Ada")
        await broken(cluster, a, b)
        ben, gone, again = await b.join(record, "Ben"), await b.join(record, "Cem"), await b.watch(record)
        relay_at(b, record).deliver(Detach(gone))
        assert [(each.frames, each.close_reason) for each in (ben, again)] == [([], None)] * 2
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 2)
        assert (ben.kinds[0], again.kinds[0], gone.frames) == ("joined", "joined", [])
        await b.do(record, "start")
        assert ben.offsets == again.offsets == [1]
        assert a.here(record).session.active == 2


async def test_a_client_that_waits_for_the_link_is_sent_on_when_the_relay_ends(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await b.join(record, "Ada")
        await broken(cluster, a, b)
        ben = await b.join(record, "Ben")
        relay_at(b, record).end(CloseReason.TAKEN_OVER)
        assert (ben.frames, ben.close_reason) == ([], CloseReason.TAKEN_OVER)


async def test_a_kicked_player_is_disconnected_at_the_relay(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await a.do(record, "kick", player=1)
        assert ada.close_reason is CloseReason.KICKED
        assert relay_at(b, record).subscribers == 0


async def test_the_newer_connection_of_a_token_wins_across_nodes(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        at_b = await b.join(record, "Ada")
        at_c = await c.rejoin(record, "player", 1)
        assert (at_b.close_reason, at_c.close_reason) == (CloseReason.REPLACED, None)
        at_a = await a.rejoin(record, "player", 1)
        assert (at_c.close_reason, at_a.close_reason) == (CloseReason.REPLACED, None)
        again = await b.rejoin(record, "player", 1)
        assert (at_a.close_reason, again.close_reason) == (CloseReason.REPLACED, None)
        newest = await b.rejoin(record, "player", 1)
        assert (again.close_reason, newest.close_reason) == (CloseReason.REPLACED, None)


async def test_a_relay_that_is_flooded_ends_as_a_slow_consumer(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "INBOX_MAX", 5)
    assert INBOX_MAX > 5
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        watching = await b.watch(record)
        relay = relay_at(b, record)
        frame = relay_messages.disconnect(9, CloseReason.KICKED)
        for _ in range(6):
            relay.receive(frame, None)
        assert (watching.close_reason, relay.over) == (CloseReason.SLOW_CONSUMER, True)


async def test_clients_in_the_inbox_are_closed_when_the_relay_ends(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        relay = b.router.relay_for(await found(b, record))
        client = Client()
        relay.deliver(Watch(client))
        relay.receive(relay_messages.admitted("spectator", None, []), (client, False))
        relay.end(CloseReason.SHUTDOWN)
        assert client.close_reason is CloseReason.SHUTDOWN
        other = Client()
        relay.receive(relay_messages.admitted("spectator", None, []), (other, False))
        assert other.close_reason is CloseReason.RESTARTING


async def found(node: Node, record: SessionRecord) -> Any:
    return await node.router.find(record.id)


async def test_the_end_of_the_owners_actor_ends_the_clients_as_it_would_there(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        watching = await b.watch(record)
        a.registry.close(CloseReason.UNAVAILABLE)
        await settle()
        assert watching.close_reason is CloseReason.UNAVAILABLE
        assert b.relay(record) is None


# -- the link ----------------------------------------------------------------------------------------


async def broken(cluster: Cluster, one: Node, other: Node) -> None:
    cluster.links.cut(one.run, other.run)
    await settle()


async def test_a_link_that_comes_back_leaves_no_gap_when_nothing_was_missed(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada, host = await b.join(record, "Ada"), await b.rejoin(record, "host")
        await b.do(record, "start")
        await broken(cluster, a, b)
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 0.3)
        await b.answers(record, ada, 1)
        await b.do(record, "next")
        assert (ada.close_reason, host.close_reason) == (None, None)
        assert ada.offsets == host.offsets == [1, 2, 3]
        assert ada.kinds.count("ack") == 1


async def test_questions_that_were_missed_are_brought(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada, host = await b.join(record, "Ada"), await b.rejoin(record, "host")
        await broken(cluster, a, b)
        await a.do(record, "start")
        await a.do(record, "pause")
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 0.3)
        assert (ada.close_reason, ada.offsets, host.offsets) == (None, [1, 2], [1, 2])
        assert ("correct" in ada.last("question"), "correct" in host.last("question")) == (False, True)


@pytest.mark.parametrize("why", ["reveal", "epoch"])
async def test_a_client_that_missed_too_much_comes_back(
    why: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "RESULTS_AT_ONCE_MAX", 0)
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.do(record, "start")
        await broken(cluster, a, b)
        if why == "reveal":
            await a.do(record, "close")
        else:
            cluster.store.take_over(record.id, a.run)
            await a.do(record, "pause")
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 0.5)
        assert ada.close_reason is CloseReason.TAKEN_OVER, "at once, for everything is there"
        back = await b.rejoin(record, "player", 1, epoch=ada.last("joined")["epoch"], offset=1)
        await settle()
        if why == "reveal":
            assert back.offsets == [2]
            assert back.last("result")["number"] == 1
        else:
            assert back.last("joined")["state"]["phase"] == "question"


async def test_results_that_were_missed_are_brought(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.do(record, "start")
        await broken(cluster, a, b)
        await a.do(record, "close")
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 0.5)
        assert (ada.close_reason, ada.offsets) == (None, [1, 2])
        assert [result["number"] for result in ada.got("result")] == [1]


async def test_a_link_that_stays_away_ends_the_clients_after_a_while(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await broken(cluster, a, b)
        await later(mock_clock, HOLD_S - 0.5)
        assert ada.close_reason is None
        await later(mock_clock, 0.6)
        assert ada.close_reason is CloseReason.RESTARTING
        assert b.relay(record) is None


async def test_the_time_is_counted_anew_once_it_has_worked(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        for _ in range(4):
            await broken(cluster, a, b)
            await later(mock_clock, 0.75 * HOLD_S)
            cluster.links.heal(a.run, b.run)
            await later(mock_clock, 2)
        await b.do(record, "start")
        assert (ada.close_reason, ada.offsets) == (None, [1])


async def test_an_answer_whose_ack_is_lost_with_the_link_is_said_again(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.join(record, "Ben")
        await b.do(record, "start")
        a.journal.auto = "off"
        await b.answers(record, ada, 1)
        await broken(cluster, a, b)
        assert (ada.close_reason, ada.errors) == (None, ["busy"])
        await b.answers(record, ada, 1)
        assert ada.errors == ["busy", "busy"], "at once while there is no link"
        cluster.links.heal(a.run, b.run)
        a.journal.auto = "now"
        a.journal.commit()
        await later(mock_clock, 0.3)
        await b.answers(record, ada, 1)
        assert ada.last("ack")["status"] == "accepted"
        assert relay_at(b, record).subscribers == 2


async def test_a_client_with_another_command_when_the_link_is_lost_comes_back(mock_clock: MockClock) -> None:
    """Whether it was done is not known."""
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        host, ben = await b.rejoin(record, "host"), await b.join(record, "Ben")
        a.journal.auto = "off"
        b.router.deliver(record.id, Host(host, "h", "start"))
        await settle()
        await broken(cluster, a, b)
        assert (host.close_reason, ben.close_reason) == (CloseReason.RESTARTING, None)
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 0.3)
        assert relay_at(b, record).subscribers == 1


async def test_a_client_that_is_being_let_in_when_the_link_is_lost_comes_anew(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await b.watch(record)
        a.journal.auto = "off"
        ada = await b.join(record, "Ada")
        await broken(cluster, a, b)
        assert ada.close_reason is CloseReason.RESTARTING
        assert relay_at(b, record).subscribers == 1


async def test_a_standing_that_was_cut_off_does_not_count_twice(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.do(record, "start")
        relay = relay_at(b, record)
        # The reveal has come, and of the standing the first chunk alone.
        reveal = {"t": "reveal", "offset": 2, "number": 1, "correct": 0, "counts": [0, 0, 0]}
        (first, _) = relay_messages.standing(a.here(record).session)
        relay.receive(relay_messages.cast(Frame(reveal)), None)
        relay.receive(first, None)
        await settle()
        await broken(cluster, a, b)
        await a.do(record, "close")
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 0.5)
        assert (ada.close_reason, ada.kinds.count("reveal")) == (None, 1)
        await b.do(record, "next")
        await b.answers(record, ada, 1, 0, question=2)
        assert ada.kinds.count("reveal") == 2
        assert [result["number"] for result in ada.got("result")] == [1, 2]


# -- moving ------------------------------------------------------------------------------------------


async def test_clients_of_a_third_node_stay_when_the_session_moves(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        ada, host = await c.join(record, "Ada"), await c.rejoin(record, "host")
        await c.do(record, "start")
        assert await a.rebalancer.hand_on(record.id, b.member)
        await settle()
        assert relay_at(c, record).owner.run == b.run
        await c.answers(record, ada, 1)
        await c.do(record, "next")
        assert (ada.close_reason, ada.offsets, host.offsets) == (None, [1, 2, 3], [1, 2, 3])
        assert ada.kinds.count("ack") == ada.kinds.count("result") == 1
        assert b.here(record).subscribers == 2, "c, and a until it notices that it has nobody"


async def test_clients_come_to_the_session_when_it_moves_to_their_node(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        await b.do(record, "start")
        assert await a.rebalancer.hand_on(record.id, b.member)
        await settle()
        assert ada.close_reason is CloseReason.TAKEN_OVER
        assert b.relay(record) is None, "a node does not relay its own session"
        ada = await b.rejoin(record, "player", 1, epoch=ada.last("joined")["epoch"], offset=1)
        assert ada.last("joined")["state"] is None
        assert await b.rebalancer.hand_on(record.id, c.member)
        await settle()
        await b.do(record, "pause")
        assert ada.offsets == [2]


async def test_clients_that_can_move_are_sent_on_one_after_another(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        clients = [await a.watch(record, may_move=True) for _ in range(4)]
        stays = await a.watch(record)
        gone: list[bool] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(moved_over, a, b, record, 4.0, gone)
            for expected in (1, 2, 3, 4):
                await settle()
                assert sum(client.close_reason is CloseReason.MOVED for client in clients) == expected
                mock_clock.jump(1)
        assert clients[0].kinds[-1] == "moved"
        assert clients[0].last("moved") == {"t": "moved", "url": b.member.ws_url, "after_ms": 0}
        assert (stays.close_reason, gone) == (None, [True])


async def moved_over(a: Node, b: Node, record: SessionRecord, over_s: float, gone: list[bool]) -> None:
    """Hand a session on, with its clients spread over so many seconds."""
    snapshot = await a.registry.give_away(record.id)
    assert snapshot is not None
    assert await a.rebalancer._granted(snapshot, b.member)
    relay = a.router.relay_after(RemoteLocation(record, b.member), snapshot)
    await relay.move_all(b.member.ws_url, over_s)
    gone.append(True)


async def test_a_relay_whose_last_client_was_moved_ends(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, player_limit=RELAY_ABOVE + 1)
        watching = await b.watch(record, may_move=True)
        await relay_at(b, record).move_all(a.member.ws_url, 0)
        assert watching.close_reason is CloseReason.MOVED
        await later(mock_clock, EMPTY_S + 1)
        assert b.relay(record) is None
        assert a.here(record).subscribers == 0, "the owner can rest"


async def test_a_shared_session_is_relayed_for_those_who_could_move_too(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, player_limit=RELAY_ABOVE + 1)
        ada = await b.join(record, "Ada", may_move=True)
        assert (ada.kinds, ada.close_reason) == (["joined"], None)
        assert relay_at(b, record).shared
        await a.rebalancer.hand_on(record.id, b.member)
        watching = await a.watch(record, may_move=True)
        assert watching.kinds == ["joined"]


async def test_a_host_at_a_relay_is_replaced_like_any_other(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        host = await b.rejoin(record, "host")
        other = Client()
        await a.sent(record.id, Rejoin(other, "host"))
        assert (host.close_reason, other.close_reason) == (CloseReason.REPLACED, None)


@pytest.mark.parametrize("after", ["move", "lost link"])
async def test_a_host_at_a_relay_is_known_there_after_it_has_taken_part_anew(
    after: str, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        host = await c.rejoin(record, "host")
        if after == "move":
            assert await a.rebalancer.hand_on(record.id, b.member)
        else:
            await broken(cluster, a, c)
            cluster.links.heal(a.run, c.run)
            await later(mock_clock, 0.3)
        assert host.close_reason is None
        other = await b.rejoin(record, "host")
        assert (host.close_reason, other.close_reason) == (CloseReason.REPLACED, None)


# -- who is there ------------------------------------------------------------------------------------


def connected(node: Node, record: SessionRecord) -> set[object]:
    """Who the owner takes to be connected, the host included."""
    audience = node.here(record).live.audience
    return {key for key in [*range(1, 10), "host"] if key in audience.connected}


async def test_the_owner_knows_who_leaves_a_relay(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada, ben, host = (
            await b.join(record, "Ada"),
            await b.join(record, "Ben"),
            await a.rejoin(record, "host"),
        )
        assert connected(a, record) == {1, 2, "host"}
        await b.sent(record.id, Detach(ada))
        await later(mock_clock, 0.3)
        assert connected(a, record) == {2, "host"}
        assert host.last("roster")["off"] == [1]
        await a.do(record, "kick", player=2)
        assert (connected(a, record), ben.close_reason) == ({"host"}, CloseReason.KICKED)


async def test_a_player_at_a_relay_alone_is_told_of_extra_time(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, shuffle_choices=True)
        ada, ben = await b.join(record, "Ada"), await b.join(record, "Ben")
        assert ada.last("joined")["shuffle"] == seed_of(record.id, 1)
        await a.do(record, "extra_time", player=1, percent=150)
        await later(mock_clock, 0.3)
        assert ada.last("extra_time") == {"t": "extra_time", "factor": 1.5}
        assert ben.got("extra_time") == []
        again = await b.rejoin(record, "player", 1)
        assert again.last("joined")["extra_time"] == 1.5


async def test_a_host_at_a_relay_hears_of_the_players_there(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        host, spectator = await b.rejoin(record, "host"), await b.watch(record)
        await c.join(record, "Ada")
        await later(mock_clock, 0.3)
        roster = host.last("roster")
        assert (roster["joined"], roster["on"]) == ([{"id": 1, "name": "Ada"}], [1])
        assert spectator.got("roster") == []
        await b.sent(record.id, Detach(host))
        assert connected(a, record) == {1}


@pytest.mark.parametrize("first", ["old", "new"])
async def test_a_client_that_comes_back_to_a_relay_while_it_leaves_stays_connected(
    first: str, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        old, new = await b.join(record, "Ada"), Client()
        steps = [Detach(old), Rejoin(new, "player", 1)]
        for command in steps if first == "old" else reversed(steps):
            b.router.deliver(record.id, command)
        await settle()
        assert connected(a, record) == {1}
        assert new.kinds[0] == "joined"
        other = await a.rejoin(record, "player", 1)
        assert (new.close_reason, other.close_reason) == (CloseReason.REPLACED, None)


async def test_a_client_that_leaves_while_it_comes_back_is_not_connected(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        old, new = await b.join(record, "Ada"), Client()
        for command in (Rejoin(new, "player", 1), Detach(old), Detach(new)):
            b.router.deliver(record.id, command)
        await settle()
        assert connected(a, record) == set()
        await a.do(record, "kick", player=1)
        refused = await b.rejoin(record, "player", 1)
        assert (refused.errors, connected(a, record)) == (["kicked"], set())


async def test_a_client_that_left_a_relay_while_its_session_moved_is_not_connected(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        host, ada, ben = [
            await c.rejoin(record, "host"),
            await c.join(record, "Ada"),
            await c.join(record, "Ben"),
        ]
        await later(mock_clock, 0.3)
        cluster.links.delay_s = lambda near, far: 0.05
        moved: list[bool] = []
        b.nursery.start_soon(handed_on, a, b, record, moved)
        await later(mock_clock, 0.2)
        c.router.deliver(record.id, Detach(ada))
        await later(mock_clock, 2)
        assert moved == [True]
        assert connected(b, record) == {2, "host"}
        assert (host.close_reason, ben.close_reason) == (None, None)
        everybody = host.last("roster")
        assert (everybody["off"], everybody["on"]) == ([1], [2])


async def handed_on(a: Node, b: Node, record: SessionRecord, moved: list[bool]) -> None:
    moved.append(await a.rebalancer.hand_on(record.id, b.member))


async def test_clients_that_are_sent_on_are_connected_at_the_new_node(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await a.join(record, "Ada", may_move=True)
        moved: list[bool] = []
        a.nursery.start_soon(handed_on, a, b, record, moved)
        await later(mock_clock, 1)
        assert (moved, ada.close_reason, connected(b, record)) == ([True], CloseReason.MOVED, set())
        await b.rejoin(record, "player", 1)
        assert connected(b, record) == {1}


async def test_a_user_that_takes_the_own_seat_at_the_same_node_stays_connected(mock_clock: MockClock) -> None:
    """The former connection ends while the owner is asked: nobody knows yet that it is the same seat."""
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, player_limit=100_000)
        phone, tablet = Client(), Client()
        ada = Identity("ada", "Ada")
        await b.sent(record.code, Join(phone, None, cluster.clock.now_ms(), identity=ada))
        b.router.deliver(record.code, Join(tablet, None, cluster.clock.now_ms(), identity=ada))
        b.router.deliver(record.id, Detach(phone))
        await settle()
        assert tablet.last("joined")["player"] == 1
        assert connected(a, record) == {1}
        await b.sent(record.id, Detach(tablet))
        assert connected(a, record) == set()


async def test_a_user_without_a_token_comes_back_at_another_node(mock_clock: MockClock) -> None:
    """The former connection of that seat ends meanwhile; and answers come without a token as well."""
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, player_limit=100_000)
        phone, stream, over_http = Client(), Client(), Client()
        ada = Identity("ada", "Ada")
        await b.sent(record.code, Join(phone, None, cluster.clock.now_ms(), identity=ada))
        b.router.deliver(record.code, Rejoin(stream, "player", user="ada"))
        b.router.deliver(record.id, Detach(phone))
        await settle()
        assert stream.last("joined")["player"] == 1
        assert connected(a, record) == {1}
        await b.do(record, "start")
        answer = Answer(over_http, 0, "x", 1, 0, cluster.clock.now_ms(), user="ada")
        await b.sent(record.code, answer)
        assert over_http.last("ack")["status"] == "accepted"
        await b.sent(record.id, Detach(stream))
        assert connected(a, record) == set()
        stranger = Client()
        await b.sent(record.code, Rejoin(stranger, "player", user="ben"))
        assert stranger.errors == ["player_not_found"]


async def test_joins_of_one_user_at_two_nodes_at_once_are_one_player() -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, player_limit=100_000)
        clients = [Client(), Client(), Client()]
        for client, node in zip(clients, (b, a, b), strict=True):
            join = Join(client, None, cluster.clock.now_ms(), identity=Identity("ada", "Ada"))
            node.router.deliver(record.code, join)
        await settle()
        assert {client.last("joined")["player"] for client in clients} == {1}
        assert len(a.here(record).session.players) == 1
        assert sum(client.close_reason is None for client in clients) == 1


# -- the door ----------------------------------------------------------------------------------------


async def test_a_player_that_waits_at_another_node_is_admitted_there(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", options=ActorOptions(seats_per_address_max=1)) as (cluster, [a, b]):
        record = await cluster.session(a, approval=True)
        host = await b.rejoin(record, "host")

        async def ask(name: str, ticket: str) -> Client:
            client = Client()
            join = Join(client, name, cluster.clock.now_ms(), address="192.0.2.7", ticket=ticket)
            await b.sent(record.code, join)
            return client

        assert (await ask("Ada", "ticket-a")).kinds == ["waiting"]
        await later(mock_clock, 0.5)
        assert host.last("waiting_list")["players"] == [{"id": 1, "name": "Ada"}]
        await b.do(record, "admit", player=1)
        ada = await ask("Ada", "ticket-a")
        assert ada.last("joined")["player"] == 1
        await b.do(record, "start")
        assert ada.got("question")
        assert (await ask("Ben", "ticket-b")).errors == ["address_full"], "the owner counts for all nodes"


async def test_a_removed_player_is_refused_at_another_node_under_another_name() -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = Client()
        await b.sent(record.code, Join(ada, "Ada", cluster.clock.now_ms()))
        assert ada.last("joined")["player"] == 1
        await b.do(record, "kick", player=1)
        again = Client()
        join = Join(again, "Ben", cluster.clock.now_ms(), former_session=record.id, former_player=1)
        await b.sent(record.code, join)
        assert again.errors == ["kicked"]


# -- tracing ---------------------------------------------------------------------------------------


async def test_an_answer_takes_its_trace_to_the_owner_and_the_hop_is_told(mock_clock: MockClock) -> None:
    hops: list[Hop] = []
    told: list[tuple[SlowAnswer, Trace | None]] = []
    async with cluster_of("a", "b", tell_hop=hops.append) as (cluster, [a, b]):
        record = await cluster.session(a, early_close=False)
        ada, ben = await b.join(record, "Ada"), await b.join(record, "Ben")
        await a.do(record, "start")
        a.registry.slow_answers.tell = lambda answer, trace, commit: told.append((answer, trace))
        assert hops == [], "whoever does not ask for it is followed only if it is slow or fails"
        trace = Trace("ab" * 16, "cd" * 8)
        await b.sent(record.id, Answer(ada, 1, "a", 1, 0, b.clock.now_ms(), trace=trace))
        a.journal.auto = "off"
        await b.sent(record.id, Answer(ben, 2, "a", 1, 0, b.clock.now_ms()))
        mock_clock.jump(0.4)
        a.journal.commit()
        await settle()
        assert [len(client.got("ack")) for client in (ada, ben)] == [1, 1]
        first, second = hops
        assert (first.trace, first.what, first.node, first.error) == (trace, "answer", "a", None)
        assert (second.trace.sampled, second.trace.parent_id, second.took_ms) == (False, None, 400)
        for hop, (answer, at_owner) in zip(hops, told, strict=True):
            assert at_owner == hop.trace.below(hop.span_id)
            assert answer.trace_id == hop.trace.trace_id
        await cluster.kill(a)
        await b.sent(record.id, Answer(ada, 1, "b", 1, 0, b.clock.now_ms()))
        assert hops[-1].error == "restarting"
