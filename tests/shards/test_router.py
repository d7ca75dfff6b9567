"""Where a command goes, and what is known of where sessions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import orjson
import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Detach, Host, Join, Look, Next, Rejoin, SubscribeNode, Watch
from engine.actors.refusals import SessionFinished
from engine.boundary import Mistake
from engine.domain.session import Settings
from engine.ports import OwnedElsewhere, SessionNotFound, SessionRecord, StorageUnavailable
from engine.shards import router as routing
from engine.shards import session_location, session_locator
from engine.shards.ports import Member
from engine.shards.relay import HOLD_S
from engine.shards.router import LOOK_AGAIN_S, RemoteSession
from engine.shards.session_factory import DEALS_PER_NODE
from engine.shards.session_location import RemoteLocation
from engine.shards.session_locator import ENDED_LATELY_MS, REMEMBERED_S, NoOwnerYet
from tests.actors.world import QUIZ, Client, settle
from tests.keys import NOT_QUITE
from tests.shards.making import member_of
from tests.shards.nodes import FOREVER_MS, RELAY_ABOVE, Cluster, Node, cluster_of


async def at(node: Node, record: SessionRecord) -> str | None:
    """Where the node finds a session: the run of another node, or None for its own."""
    found = await node.router.find(record.id)
    return found.member.run if isinstance(found, RemoteLocation) else None


def stranger(
    cluster: Cluster, record: SessionRecord, run: str, *, holds: bool, address: object = None
) -> None:
    """The session belongs to a run that nobody knows."""
    cluster.store.take_over(record.id, run)
    if holds:
        cluster.store.leases[run] = FOREVER_MS
    if address is not None:
        cluster.store.addresses[run] = orjson.dumps(address).decode()


# -- where a session is ------------------------------------------------------------------------------


async def test_a_session_is_where_its_owner_lives_whatever_the_ring_says(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a, belongs_to=b)
        assert await at(c, record) == a.run
        assert await at(b, record) == a.run
        assert await at(a, record) is None


async def test_a_session_of_this_run_is_brought_back_here(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.record(b)
        cluster.store.take_over(record.id, a.run)
        assert await at(a, record) is None
        assert a.here(record).epoch == 2


async def test_a_session_that_nobody_owns_is_where_the_ring_has_it(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        theirs, mine = await cluster.record(b), await cluster.record(a)
        assert await at(a, theirs) == b.run
        assert b.registry.here(theirs.id) is None, "nobody has asked for it yet"
        assert isinstance(await a.router.find(mine.code), SessionActor)


async def test_one_whom_redis_does_not_show_is_found_by_the_address_in_the_store(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        record = await cluster.record(a)
        hidden = member_of("hidden")
        stranger(cluster, record, hidden.run, holds=True, address=hidden.to_dict())
        found = await a.router.find(record.id)
        assert isinstance(found, RemoteLocation)
        assert found.member == hidden
        a.known.missed.add(hidden.run)
        assert await at(a, record) == hidden.run, "its lease holds, so nobody else may"


@pytest.mark.parametrize("address", [None, {"name": "hidden"}, "nonsense"])
async def test_one_who_holds_and_cannot_be_reached_is_waited_for(
    address: object, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        record = await cluster.record(a)
        stranger(cluster, record, "hidden/1", holds=True, address=address)
        a.known.missed.add("hidden/1")
        with pytest.raises(NoOwnerYet):
            await a.router.find(record.id)


async def test_the_session_of_one_who_is_gone_is_where_the_ring_has_it(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        mine, theirs = await cluster.record(a), await cluster.record(b)
        for record in (mine, theirs):
            stranger(cluster, record, "dead/1", holds=False)
        a.known.missed.add("dead/1")
        assert await at(a, theirs) == b.run
        assert await at(a, mine) is None
        assert cluster.store.epoch(mine.id) == 2
        assert a.router.routed.taken_over == 1, "a client's look-up takes over as well"


async def test_as_long_as_it_is_not_certain_that_the_owner_is_gone_clients_wait_and_then_hear_busy(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        record = await cluster.record(a)
        stranger(cluster, record, "dead/1", holds=False)
        with pytest.raises(NoOwnerYet):
            await a.router.get(record.code)
        ada = await a.join(record, "Ada")
        assert ada.kinds == []
        mock_clock.jump(HOLD_S)
        await settle()
        assert (ada.errors, ada.close_reason) == (["busy"], None)
        assert cluster.store.epoch(record.id) == 1


@pytest.mark.parametrize("told", ["members", "bus", "nobody"])
async def test_a_join_without_an_owner_waits_until_another_node_runs_the_session(
    told: str, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.record(b)
        stranger(cluster, record, "dead/1", holds=False)
        find, looks = cluster.store.find, []

        async def look(key: str) -> SessionRecord:
            looks.append(key)
            return await find(key)

        cluster.store.find = look  # type: ignore[method-assign]  # counted
        clients = [await a.join(record, f"player {n}") for n in range(100)]
        assert [client.kinds for client in clients] == [[]] * 100
        assert len(looks) == 1, "one look for all"
        for node in (a, b):
            node.known.missed.add("dead/1")
        if told == "members":
            a.router.locator.members_changed()
        elif told == "bus":
            await b.router.get(record.id)
        else:
            mock_clock.jump(LOOK_AGAIN_S)
        await settle()
        assert all(client.kinds == ["joined"] for client in clients)
        assert b.here(record) is not None
        assert len(looks) <= 4


async def test_the_faster_of_two_nodes_gets_the_session_and_the_other_is_told(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        both = a.member, b.member
        record = await cluster.record(a)
        # Each of them thinks that the session is its own to take.
        b.known.see(b.member)
        ada = Client()
        a.router.deliver(record.code, Join(ada, "Ada", cluster.clock.now_ms()))
        ben = Client()
        b.router.deliver(record.code, Join(ben, "Ben", cluster.clock.now_ms()))
        await settle()
        assert cluster.store.epoch(record.id) == 1
        # Who lost and does not know the winner keeps its client until it does.
        assert sorted([ada.kinds, ben.kinds]) in ([[], ["joined"]], [["joined"], ["joined"]])
        b.known.see(*both)
        b.router.locator.members_changed()
        await settle()
        assert cluster.store.epoch(record.id) == 1
        assert ada.kinds == ben.kinds == ["joined"]


async def test_a_node_that_loses_every_race_for_a_session_gives_up(mock_clock: MockClock) -> None:
    class Losing:
        tries = 0

        async def claim(self, session_id: str, *_: object) -> object:
            self.tries += 1
            await trio.lowlevel.checkpoint()
            raise OwnedElsewhere(session_id, "somebody")

    async with cluster_of("a") as (cluster, [a]):
        record = await cluster.record(a)
        losing = Losing()
        cluster.store.claim = losing.claim  # type: ignore[method-assign,assignment]  # it only fails
        with pytest.raises(NoOwnerYet):
            await a.router.find(record.id)
        assert losing.tries == routing.ROUTE_TRIES


async def test_a_session_that_has_ended_lately_is_still_with_its_owner(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, results_public=True)
        await a.do(record, "finish")
        assert await at(b, record) == a.run
        late = await b.watch(record)
        assert late.last("joined")["state"]["phase"] == "finished"
        mock_clock.jump(ENDED_LATELY_MS / 1000)
        await settle()
        b.router.locator.forget(record.id)
        with pytest.raises(SessionFinished) as over:
            await b.router.find(record.code)
        assert over.value.record.id == record.id


async def test_a_session_that_has_ended_is_nobodys_to_bring_back(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await a.do(record, "finish")
        await cluster.kill(a)
        cluster.store.leases[a.run] = 0
        cluster.miss(a.run)
        with pytest.raises(SessionFinished):
            await b.router.find(record.id)
        late = await b.join(record, "Ada")
        assert late.errors == ["session_finished"]


async def test_nobody_knows_a_session_that_is_not_stored(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (_, [a, _]):
        with pytest.raises(SessionNotFound):
            await a.router.get("000000")
        client = Client()
        await a.sent("000000", Host(client, "mine", "start"))
        assert (client.errors, client.last("error")["id"]) == (["session_not_found"], "mine")


async def test_a_node_for_the_api_alone_takes_no_session(mock_clock: MockClock) -> None:
    async with cluster_of() as (cluster, _):
        web = await cluster.start("web", role="api")
        played = await cluster.start("played")
        record = await cluster.record(played)
        assert await at(web, record) == played.run
        web.router.locator.forget(record.id)
        await cluster.kill(played)
        cluster.all_see()
        with pytest.raises(NoOwnerYet):
            await web.router.find(record.id)
        watching = await web.watch(record)
        mock_clock.jump(HOLD_S)
        await settle()
        assert watching.errors == ["busy"]


async def test_one_who_is_draining_gets_no_session_and_keeps_what_it_has(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        kept, free = await cluster.session(a), await cluster.record(a)
        a.member = replace(a.member, draining=True)
        cluster.all_see()
        assert await at(b, kept) == a.run
        assert await at(a, free) == b.run


async def test_storage_away_is_busy_and_not_a_session_that_is_not_there(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        cluster.store.available = False
        assert (await b.join(record, "Ada")).errors == ["busy"]
        with pytest.raises(StorageUnavailable):
            await b.router.get(record.id)
        assert (await a.join(record, "Ada")).kinds == ["joined"], "what is here needs no look"


async def test_concurrent_requests_for_a_session_share_one_look(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        looks = Counter[str]()
        find = cluster.store.find

        async def counted(key: str) -> SessionRecord:
            looks[key] += 1
            return await find(key)

        cluster.store.find = counted  # type: ignore[method-assign]  # counts
        clients = [Client() for _ in range(5)]
        for client in clients:
            b.router.deliver(record.code, Rejoin(client, "host"))
        await settle()
        assert looks == {record.code: 1}


# -- how a command gets there ------------------------------------------------------------------------


async def test_a_client_that_can_move_gets_moved(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        for client in (
            await b.join(record, "Ada", may_move=True),
            await b.rejoin(record, "host", may_move=True),
            await b.watch(record, may_move=True),
        ):
            assert client.last("moved")["url"] == a.member.ws_url
            assert client.close_reason is CloseReason.MOVED
        assert b.relay(record) is None
        assert b.router.routed.moved == 3
        assert a.here(record).session.active == 0, "nobody has joined yet"


async def test_a_client_that_cannot_move_is_relayed(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await b.join(record, "Ada")
        assert (ada.kinds, ada.close_reason) == (["joined"], None)
        assert b.relay(record) is not None
        moved = await b.join(record, "Ben", may_move=True)
        assert moved.close_reason is CloseReason.MOVED, "though there is a relay"


async def test_nobody_is_sent_to_an_owner_that_may_hang(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        b.known.late.add(a.run)
        ada = await b.join(record, "Ada", may_move=True)
        assert (ada.kinds, ada.close_reason) == (["joined"], None), "it does not hang, as it turns out"
        ben = await b.join(record, "Ben", may_move=True)
        assert (ben.kinds, ben.close_reason) == (["joined"], None), "though there is a relay"
        b.known.late.clear()
        assert (await b.join(record, "Cem", may_move=True)).close_reason is CloseReason.MOVED


async def test_everybody_is_relayed_in_a_session_that_is_shared(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, player_limit=RELAY_ABOVE + 1)
        ada = await b.join(record, "Ada", may_move=True)
        assert (ada.kinds, ada.close_reason) == (["joined"], None)
        just_not = await cluster.session(a, player_limit=RELAY_ABOVE)
        assert (await b.join(just_not, "Ada", may_move=True)).close_reason is CloseReason.MOVED


async def test_a_request_goes_to_the_owner_and_its_answer_comes_back(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        session = await b.router.get(record.code)
        assert isinstance(session, RemoteSession)
        assert (session.session_id, session.code, session.member.run) == (record.id, record.code, a.run)
        joined, looked, done = Client(), Client(), Client()
        session.send(Join(joined, "Ada", cluster.clock.now_ms(), attach=False))
        session.send(Host(done, "h", "start"))
        session.send(Look(looked))
        await settle()
        assert joined.last("joined")["player"] == 1
        assert done.last("done")["phase"] == "question"
        assert looked.kinds == ["look"]
        assert b.relay(record) is None, "nobody listens"
        assert b.router.routed.forwarded == 3


async def test_a_host_s_command_that_is_sent_twice_is_one_step_wherever_it_goes(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await b.do(record, "start")
        await b.do(record, "close")
        seen = {"seen_number": 1, "seen_phase": "reveal"}
        first, second = await b.do(record, "next", **seen), await a.do(record, "next", **seen)
        assert (first.errors, second.errors) == ([], ["illegal_move"])
        assert a.here(record).session.number == 2


async def test_when_something_was_received_travels_as_how_long_ago_that_was(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await a.join(record, "Ada")
        await a.join(record, "Ben")
        await a.do(record, "start")
        mock_clock.jump(3)
        ack = Client()
        await b.sent(record.id, Answer(ack, 1, "a", 1, 0, cluster.clock.now_ms() - 500))
        assert ack.last("ack")["elapsed_ms"] == 2_500


async def test_a_player_at_the_own_pace_plays_by_way_of_another_node(mock_clock: MockClock) -> None:
    """And comes back at the owner itself, to the same question and what is left of its time."""
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, pace="self")
        ada = await b.join(record, "Ada")
        await b.sent(record.id, Next(ada, 1, "n"))
        assert ada.last("question")["number"] == 1
        mock_clock.jump(3)
        await b.sent(record.id, Answer(ada, 1, "a", 1, 0, cluster.clock.now_ms()))
        assert ada.last("ack")["elapsed_ms"] == 3_000
        assert ada.last("ack")["result"]["correct"]
        await b.sent(record.id, Next(ada, 1, "n"))
        mock_clock.jump(4)
        again = await a.rejoin(record, "player", 1)
        state = again.last("joined")["state"]
        assert (state["question"]["number"], state["question"]["remaining_ms"]) == (2, 16_000)


async def test_what_comes_over_a_link_is_not_passed_on_again(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        # b is wrong about where it is, and c knows better.
        b.router.locator.remember(RemoteLocation(record, c.member))
        client = Client()
        await b.sent(record.id, Host(client, "mine", "start"))
        assert (client.errors, client.last("error")["id"]) == (["busy"], "mine")
        assert not a.here(record).session.question_open
        assert c.router.routed.forwarded == 0
        again = Client()
        await b.sent(record.id, Host(again, "mine", "start"))
        assert again.kinds == ["done"], "it has looked again"


async def test_what_comes_over_a_link_brings_a_session_to_life_that_belongs_here(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.record(a)
        assert (await b.join(record, "Ada")).kinds == ["joined"]
        assert a.here(record).session.active == 1


async def test_what_comes_over_a_link_is_looked_up_anew(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.record(a)
        a.router.locator.remember(RemoteLocation(record, c.member))
        client = Client()
        await b.sent(record.id, Host(client, "h", "start"))
        assert client.kinds == ["done"]


async def test_a_link_that_is_lost_has_the_session_looked_up_again(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        assert await at(b, record) == a.run
        cluster.links.cut(a.run, b.run)
        client = Client()
        await b.sent(record.id, Host(client, "h", "start"))
        assert client.close_reason is CloseReason.RESTARTING
        assert b.router.locator._remembered == {}


async def test_a_detach_is_not_looked_up(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        cluster.store.available = False
        await b.sent(record.id, Detach(Client()))
        b.deliver(record.id, Detach(Client()))
        await settle()
        assert len(b.router._queues) == 0


async def test_so_many_may_wait_to_be_routed_and_no_more(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "WAITING_MAX", 3)
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        clients = [Client() for _ in range(5)]
        for number, client in enumerate(clients):
            b.router.deliver(record.code, Host(client, f"h{number}", "lock"))
        assert [client.errors for client in clients] == [[], [], [], ["busy"], ["busy"]]
        assert clients[3].last("error")["id"] == "h3"
        await settle()
        assert [client.kinds for client in clients[:3]] == [["done"]] * 3
        assert (await b.do(record, "lock")).kinds == ["done"], "there is room again"


async def test_what_waits_for_a_session_reaches_it_in_the_order_in_which_it_came(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        for node in (a, b):
            record = await cluster.record(a)
            client = Client()
            for number in range(60):
                node.router.deliver(record.id, Host(client, str(number), "lock", on=number % 2 == 0))
                if number % 7 == 0:
                    await trio.lowlevel.checkpoint()
            await settle()
            assert [done["id"] for done in client.got("done")] == [str(number) for number in range(60)]


async def test_a_node_takes_part_before_its_clients_are_let_in(mock_clock: MockClock) -> None:
    """Also when the session has to be brought to life first."""
    async with cluster_of("a", "b") as (cluster, [a, b]):
        for _ in range(20):
            record = await cluster.record(a)
            watching = await b.watch(record)
            assert (watching.kinds, watching.close_reason) == (["joined"], None)


async def test_one_who_leaves_while_the_session_is_brought_to_life_takes_no_part(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.record(a)
        node = Client()
        a.deliver(record.id, SubscribeNode(node, b.run))
        a.deliver(record.id, Detach(node))
        await settle()
        assert a.here(record).subscribers == 0


# -- what is remembered ------------------------------------------------------------------------------


async def test_where_a_session_is_is_remembered_for_a_while(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        assert await at(b, record) == a.run
        cluster.store.available = False
        assert await at(b, record) == a.run
        found = await b.router.find(record.code)
        assert isinstance(found, RemoteLocation)
        mock_clock.jump(REMEMBERED_S + 0.1)
        with pytest.raises(StorageUnavailable):
            await b.router.find(record.id)


async def test_one_who_has_left_is_not_remembered(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        assert await at(b, record) == a.run
        b.known.see(b.member)
        cluster.store.leases[a.run] = 0
        with pytest.raises(NoOwnerYet):
            await b.router.find(record.id)


async def test_what_is_remembered_is_bounded(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_locator, "REMEMBERED_MAX", 4)
    async with cluster_of("a", "b") as (cluster, [a, b]):
        records = [await cluster.session(a) for _ in range(3)]
        for record in records:
            assert await at(b, record) == a.run
        assert set(b.router.locator._remembered) == {
            key for record in records[1:] for key in (record.id, record.code)
        }


async def test_an_announcement_tells_where_a_session_is(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        told = session_location.announcement(record, a.run)
        for message in (
            {"kind": "session"},
            {**told, "kind": "other"},
            {**told, "id": 7},
            {**told, "settings": {"pace": "never"}},
        ):
            b.router.hear(message)
            assert b.router.locator._remembered == {}
        b.router.hear(told)
        cluster.store.available = False
        assert await at(b, record) == a.run, "without a look into the store"


async def test_an_announcement_of_a_run_that_is_not_known_makes_a_node_look(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        assert await at(b, record) == a.run
        b.router.hear(session_location.announcement(record, "c/1"))
        assert b.router.locator._remembered == {}
        b.router.hear(session_location.announcement(record, b.run))
        assert b.router.locator._remembered == {}, "whether it is here is known here"


# -- sessions on their way ---------------------------------------------------------------------------


async def test_what_comes_for_a_session_on_its_way_is_kept_in_order(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.record(a)
        a.router.hold(RemoteLocation(record, b.member))
        commands = [Host(Client(), str(number), "lock") for number in range(3)]
        a.router.deliver(record.id, commands[0])
        a.router.deliver(record.code, commands[1])
        a.deliver(record.id, commands[2])
        assert await at(a, record) == b.run, "nobody brings it back here meanwhile"
        assert a.router.release(record) == commands
        assert a.router.release(record) == []


async def test_so_many_may_wait_for_a_session_on_its_way(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "WAITING_MAX", 2)
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.record(a)
        a.router.hold(RemoteLocation(record, b.member))
        clients = [Client() for _ in range(3)]
        for client in clients:
            a.router.deliver(record.id, Host(client, "h", "lock"))
        assert [client.errors for client in clients] == [[], [], ["busy"]]


# -- new sessions ------------------------------------------------------------------------------------


async def test_each_node_gets_its_share_of_new_sessions_in_turn(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        c = await cluster.start("c", weight=2)
        made = [a.router._factory.deal_id(100) for _ in range(40)]
        shares = Counter(a.known.ring.owner_of(each) for each in made)
        assert shares == {"a": 10, "b": 10, "c": 20}
        early = Counter(a.known.ring.owner_of(each) for each in made[:8])
        assert early == {"a": 2, "b": 2, "c": 4}
        await cluster.kill(c)
        cluster.all_see()
        more = Counter(a.known.ring.owner_of(a.router._factory.deal_id(100)) for _ in range(10))
        assert more == {"a": 5, "b": 5}


async def test_large_sessions_count_for_more(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (_, [a, _]):
        first = a.known.ring.owner_of(a.router._factory.deal_id(300))
        small = Counter(a.known.ring.owner_of(a.router._factory.deal_id(100)) for _ in range(3))
        assert small == {"b" if first == "a" else "a": 3}


async def test_without_nodes_that_take_sessions_any_id_will_do(mock_clock: MockClock) -> None:
    async with cluster_of() as (cluster, _):
        web = await cluster.start("web", role="api")
        web.router._factory._new_id = lambda: "any"
        assert web.router._factory.deal_id(100) == "any"


async def test_ids_that_will_not_fall_to_a_node_are_taken_as_they_are(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (_, [a, _]):
        tried = Counter[str]()

        def stubborn() -> str:
            tried["always the same"] += 1
            return "always the same"

        a.router._factory._new_id = stubborn
        assert {a.router._factory.deal_id(100) for _ in range(2)} == {"always the same"}
        assert sum(tried.values()) <= 2 * 2 * DEALS_PER_NODE


async def test_a_new_session_comes_to_life_where_it_belongs(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        quiz = await cluster.catalog.add(QUIZ)
        records = [await a.router.create(quiz.id, Settings()) for _ in range(4)]
        mine = [record for record in records if a.registry.here(record.id)]
        theirs = [record for record in records if not a.registry.here(record.id)]
        assert (len(mine), len(theirs)) == (2, 2)
        for record in theirs:
            assert await at(a, record) == b.run, "known without a look"
            assert (await a.join(record, "Ada")).kinds == ["joined"]
            assert b.here(record).session.active == 1


def test_a_member_says_all_that_another_needs() -> None:
    member: Member = member_of("a")
    told: Mapping[str, object] = member.to_dict()
    assert Member.parse(orjson.loads(orjson.dumps(told))) == member


@pytest.mark.parametrize("by", ["deliver", "get"])
async def test_a_look_that_ends_in_a_mistake_is_one_for_all_who_wait(
    by: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, _]):
        good = await cluster.record(a)
        find, looks = cluster.store.find, []

        async def mistaken(key: str) -> SessionRecord:
            if key == good.code:
                return await find(key)
            looks.append(key)
            await trio.lowlevel.checkpoint()
            raise ValueError("a mistake of ours")

        monkeypatch.setattr(cluster.store, "find", mistaken)
        raised = []

        async def get() -> None:
            try:
                await a.router.get("999999")
            except Mistake as mistake:
                raised.append(mistake)

        clients = [Client() for _ in range(1_000)]
        for client in clients:
            if by == "deliver":
                a.router.deliver("999999", Watch(client))
            else:
                a.nursery.start_soon(get)
        await settle()
        assert len(looks) == a.boundary.mistakes_total == 1
        if by == "deliver":
            assert all(client.errors == ["busy"] for client in clients)
        else:
            assert len(raised) == 1_000
        assert (await a.join(good, "Ada")).got("joined")


async def test_what_is_no_key_of_a_session_is_neither_looked_for_nor_passed_on(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):

        async def look(key: str) -> SessionRecord:
            raise AssertionError(key)

        monkeypatch.setattr(cluster.store, "find", look)
        for key in NOT_QUITE:
            over_a_link, here = Client(), Client()
            a.links.send(b.member, key, Watch(over_a_link))
            a.router.deliver(key, Watch(here))
            assert here.errors == ["session_not_found"], "at once"
            with pytest.raises(SessionNotFound):
                await a.router.find(key)
            await settle()
            assert over_a_link.errors == ["session_not_found"]
