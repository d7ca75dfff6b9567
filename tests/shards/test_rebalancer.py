"""Sessions change nodes, and nothing that was acknowledged is lost on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Detach, Host, Join, Look, Rejoin
from engine.actors.deadlines import HOSTS_WAITING_MAX
from engine.actors.live_session import CLOCKS_AGREE_MS
from engine.actors.options import ActorOptions
from engine.domain.facts import AnswerAccepted, ClockExtended
from engine.ports import SessionRecord, StorageUnavailable
from engine.shards import session_location
from engine.shards.ports import BusMessage
from engine.shards.rebalancer import (
    AT_ONCE,
    AT_ONCE_DRAINING,
    LOOK_AGAIN_S,
    LOOK_EVERY_S,
    PATIENCE_S,
    SETTLE_S,
)
from tests.actors.world import Client, settle
from tests.keys import session_id
from tests.shards.nodes import FOREVER_MS, RELAY_ABOVE, Cluster, Node, cluster_of
from tests.shards.test_relay import later, told


def owner_of(cluster: Cluster, record: SessionRecord) -> str | None:
    return cluster.store._row(record.id).owner


async def dead(cluster: Cluster, *nodes: Node, certain: bool = True) -> None:
    """These have been killed, and everybody knows."""
    for node in nodes:
        await cluster.kill(node)
        cluster.store.leases[node.run] = 0
        if certain:
            cluster.miss(node.run)


def drain(cluster: Cluster, node: Node) -> None:
    """The node has announced that it leaves."""
    node.member = replace(node.member, draining=True)
    cluster.all_see()


class Handing:
    """A hand-over, while the test does other things."""

    def __init__(self, node: Node, record: SessionRecord, to: Node) -> None:
        self.done: bool | None = None
        node.nursery.start_soon(self._run, node, record, to)

    async def _run(self, node: Node, record: SessionRecord, to: Node) -> None:
        self.done = await node.rebalancer.hand_on(record.id, to.member)


# -- taking over -------------------------------------------------------------------------------------


async def test_the_sessions_of_one_who_is_gone_are_taken_over(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        records = [await cluster.session(a) for _ in range(12)]
        heard: list[BusMessage] = []
        cluster.redis.bus(c.run).listen(heard.append)
        await dead(cluster, a)
        for node in (b, c):
            assert not await node.rebalancer.take_over(), "nothing is left to wait for"
        await settle()
        places = {record.id: owner_of(cluster, record) for record in records}
        assert set(places.values()) == {b.run, c.run}
        for record in records:
            assert places[record.id] == f"{b.known.ring.owner_of(record.id)}/1"
            assert cluster.store.epoch(record.id) == 2
        assert b.router.routed.taken_over + c.router.routed.taken_over == 12
        told_of = {message["id"]: message["run"] for message in heard if message["kind"] == "session"}
        assert told_of == places


@pytest.mark.parametrize("why", ["lease", "heartbeat"])
async def test_nothing_is_taken_while_one_of_the_two_may_still_hold(why: str, mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await cluster.kill(a)
        if why == "lease":
            cluster.miss(a.run)
        else:
            cluster.all_see()
            cluster.store.leases[a.run] = 0
        assert await b.rebalancer.take_over(), "it is to be looked at again soon"
        assert (owner_of(cluster, record), cluster.store.epoch(record.id)) == (a.run, 1)


async def test_nothing_is_taken_from_one_who_lives(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, belongs_to=b)
        cluster.store.leases[a.run] = 0
        assert not await b.rebalancer.take_over()
        assert owner_of(cluster, record) == a.run


async def test_the_claim_has_the_last_word(mock_clock: MockClock) -> None:
    """Between the look and the claim somebody may have come back."""
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await dead(cluster, a)
        looked = cluster.store.orphans

        async def orphans(live: Any) -> Any:
            found = await looked(live)
            cluster.store.leases[a.run] = FOREVER_MS
            return found

        cluster.store.orphans = orphans  # type: ignore[method-assign]  # what happens in between
        await b.rebalancer.take_over()
        assert (owner_of(cluster, record), b.router.routed.taken_over) == (a.run, 0)


async def test_what_is_brought_back_goes_on_with_the_clock_extended(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await a.join(record, "Ada")
        await a.do(record, "start")
        deadline = a.here(record).session.deadline
        assert deadline is not None
        mock_clock.jump(4)
        cluster.store.alive[a.run] = cluster.clock.now_ms()
        await dead(cluster, a)
        mock_clock.jump(3)
        await b.rebalancer.take_over()
        assert b.here(record).session.deadline == deadline + 3_000
        back = await b.rejoin(record, "player", 1, epoch=ada.last("joined")["epoch"], offset=1)
        assert back.last("joined")["state"]["question"]["remaining_ms"] == 16_000


async def test_storage_away_is_no_end_of_looking(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await dead(cluster, a)
        cluster.store.available = False
        with pytest.raises(StorageUnavailable):
            await b.rebalancer.take_over()
        await b.nursery.start(b.rebalancer.run)
        await later(mock_clock, 3)
        cluster.store.available = True
        await later(mock_clock, 1.1)
        assert owner_of(cluster, record) == b.run


async def test_a_node_for_the_api_takes_nothing(mock_clock: MockClock) -> None:
    async with cluster_of("a") as (cluster, [a]):
        web = await cluster.start("web", role="api")
        record = await cluster.session(a)
        await dead(cluster, a)
        assert not await web.rebalancer.take_over()
        assert owner_of(cluster, record) == a.run


async def test_a_session_that_was_granted_and_never_adopted_is_brought_to_life(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        snapshot = await a.registry.give_away(record.id)
        assert snapshot is not None
        assert await cluster.store.grant(record.id, snapshot.epoch, a.run, b.run)
        await b.rebalancer.take_over()
        assert b.here(record).epoch == snapshot.epoch + 1
        assert b.router.routed.taken_over == 0, "it was given"


async def test_sessions_that_are_over_stay_as_they_are(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await a.do(record, "finish")
        await dead(cluster, a)
        assert not await b.rebalancer.take_over()
        assert (b.registry.here(record.id), owner_of(cluster, record)) == (None, a.run)


async def test_a_node_looks_again_soon_while_a_lease_runs_out(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await b.nursery.start(b.rebalancer.run)
        await later(mock_clock, SETTLE_S + LOOK_EVERY_S)
        await cluster.kill(a)
        cluster.miss(a.run)
        b.rebalancer.wake()
        await later(mock_clock, 1)
        assert owner_of(cluster, record) == a.run
        cluster.store.leases[a.run] = 0
        await later(mock_clock, LOOK_AGAIN_S + 0.05)
        assert owner_of(cluster, record) == b.run


# -- handing on --------------------------------------------------------------------------------------


async def test_a_session_moves_in_the_middle_of_a_question(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada, ben = await a.join(record, "Ada"), await a.join(record, "Ben", may_move=True)
        host = await a.rejoin(record, "host")
        await a.do(record, "start")
        await a.answers(record, ada, 1)
        deadline = a.here(record).session.deadline
        mock_clock.jump(3)
        heard: list[BusMessage] = []
        cluster.redis.bus(b.run).listen(heard.append)

        handing = Handing(a, record, b)
        await settle()
        mock_clock.jump(0.01)
        await settle()
        assert handing.done
        assert (ben.close_reason, ben.last("moved")["url"]) == (CloseReason.MOVED, b.member.ws_url)
        assert (ada.close_reason, host.close_reason) == (None, None), "who cannot move stays, and is relayed"
        assert (a.registry.here(record.id), owner_of(cluster, record)) == (None, b.run)
        assert heard == [session_location.announcement(record, b.run)]

        moved = b.here(record)
        assert (moved.session.deadline, moved.session.answered) == (deadline, 1)
        ben = await b.rejoin(record, "player", 2, epoch=ben.last("joined")["epoch"], offset=1)
        assert ben.last("joined")["state"] is None, "it stands where it stood"
        await b.answers(record, ben, 2, 1)
        assert ada.last("reveal") == ben.last("reveal")
        assert (ada.last("result")["rank"], ben.last("result")["rank"]) == (1, 2)
        assert host.offsets == [1, 2]
        await a.do(record, "next")
        assert (ada.offsets, host.offsets) == ([1, 2, 3], [1, 2, 3])
        assert host.last("question")["correct"] == 0


async def test_nothing_moves_before_it_is_committed(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await a.join(record, "Ada")
        await a.join(record, "Ben")
        await a.do(record, "start")
        a.journal.auto = "off"
        await a.answers(record, ada, 1)
        handing = Handing(a, record, b)
        await settle()
        assert (handing.done, owner_of(cluster, record)) == (None, a.run)
        a.journal.commit()
        await settle()
        assert ada.kinds.count("ack") == 1
        assert (handing.done, owner_of(cluster, record)) == (True, b.run)


async def test_commands_that_come_meanwhile_are_answered_by_the_next_owner(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada, ben = await a.join(record, "Ada"), await a.join(record, "Ben")
        await a.do(record, "start")
        a.journal.auto = "off"
        await a.answers(record, ada, 1)
        handing = Handing(a, record, b)
        await settle()
        cluster.links.delay_s = lambda near, far: 0.02
        mock_clock.jump(1)
        # While it waits for the commit, and while the other node brings it to life.
        await a.answers(record, ben, 2)
        a.journal.commit()
        await settle()
        assert a.registry.here(record.id) is None
        assert handing.done is None
        looked, gone = Client(), await a.watch(record)
        a.router.deliver(record.id, Look(looked))
        a.router.deliver(record.code, Detach(gone))
        await later(mock_clock, 0.4)
        assert handing.done
        assert 1_000 <= ben.last("ack")["elapsed_ms"] <= 1_050, "the way between the nodes counts"
        assert looked.last("look")["phase"] in ("question", "reveal")
        assert gone.frames == []
        assert ada.kinds.count("ack") == ben.kinds.count("ack") == 1
        assert len([each for each in cluster.store.facts(record.id) if isinstance(each, AnswerAccepted)]) == 2


async def test_a_node_that_comes_to_take_part_meanwhile_is_sent_to_the_next_owner(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a)
        await a.join(record, "Ada")
        await a.do(record, "start")
        a.journal.auto = "off"
        await a.do(record, "lock")
        handing = Handing(a, record, b)
        await settle()
        watching = await c.watch(record)
        assert watching.frames == []
        a.journal.commit()
        await later(mock_clock, 0.1)
        assert handing.done
        relay = c.relay(record)
        assert relay is not None
        assert relay.owner.run == b.run, "not by way of the node that has it no more"
        if watching.errors:
            assert (watching.errors, watching.close_reason) == (["busy"], None)
            watching = await c.watch(record)
        assert watching.kinds[0] == "joined"
        await b.do(record, "pause")
        assert watching.last("state")["phase"] == "paused"
        left = a.relay(record)
        assert left is not None
        assert left.subscribers == 1, "nobody but the one who is connected there"


@pytest.mark.parametrize("way", ["join", "rejoin"])
async def test_a_client_of_another_node_gets_an_answer_during_a_hand_over(
    way: str, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a, player_limit=RELAY_ABOVE + 1)
        await a.join(record, "Ada")
        await c.watch(record)
        a.journal.auto = "off"
        await a.do(record, "lock")
        await a.do(record, "lock", on=False)
        handing = Handing(a, record, b)
        await settle()
        client = Client()
        command: Any = Rejoin(client, "player", 1)
        if way == "join":
            command = Join(client, "Ben", cluster.clock.now_ms())
        await c.sent(record.code, command)
        a.journal.commit()
        await later(mock_clock, 0.1)
        assert handing.done
        await b.do(record, "start")
        if "joined" in client.kinds:
            assert client.kinds[-1] == "question"
        else:
            assert client.errors == ["busy"], "it tries again"
            await c.sent(record.code, command)
            assert client.kinds[-1] == "joined"


async def test_only_one_who_runs_it_can_hand_a_session_on(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        assert not await b.rebalancer.hand_on(record.id, a.member)
        assert (b.rebalancer.moved.failed, owner_of(cluster, record)) == (0, a.run)


# -- when that does not come about -------------------------------------------------------------------


class Broken:
    """What can go wrong in a hand-over from a to b."""

    def __init__(self, cluster: Cluster, a: Node, b: Node, record: SessionRecord) -> None:
        self._cluster = cluster
        self._a = a
        self._b = b
        self._record = record

    def by(self, way: str) -> None:
        getattr(self, way)()

    def fenced(self) -> None:
        """Another has taken the session, when all of it is committed."""
        grant = self._cluster.store.grant

        async def too_late(*args: Any) -> bool:
            self._cluster.store.take_over(self._record.id, self._b.run)
            return await grant(*args)

        self._cluster.store.grant = too_late  # type: ignore[method-assign]  # something in between

    def store_away(self) -> None:
        async def away(*_: object) -> bool:
            await trio.lowlevel.checkpoint()
            raise StorageUnavailable("made unavailable by the test")

        self._cluster.store.grant = away  # type: ignore[method-assign]  # it only fails

    def link_lost(self) -> None:
        async def answer(request: Mapping[str, object]) -> Mapping[str, object]:
            if request["do"] != "ready":
                self._cluster.links.cut(self._a.run, self._b.run)
            return await Node.answer(self._b, request)

        self._b.answer = answer  # type: ignore[method-assign]  # something in between

    def answer_late(self) -> None:
        async def answer(request: Mapping[str, object]) -> Mapping[str, object]:
            if request["do"] != "ready":
                await trio.sleep(PATIENCE_S + 1)
            return await Node.answer(self._b, request)

        self._b.answer = answer  # type: ignore[method-assign]  # slow

    def refused(self) -> None:
        async def answer(_: object) -> Mapping[str, object]:
            await trio.lowlevel.checkpoint()
            return {"adopted": False, "error": "as the test wants it"}

        self._b.answer = answer  # type: ignore[method-assign,assignment]  # it only refuses


@pytest.mark.parametrize("way", ["fenced", "store_away", "link_lost", "answer_late", "refused"])
async def test_a_hand_over_that_fails_loses_nothing_and_clients_come_back(
    way: str, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b", "c") as (cluster, [a, b, c]):
        record = await cluster.session(a, board="live")
        ada, ben = await a.join(record, "Ada"), await a.join(record, "Ben", may_move=True)
        afar = await c.watch(record)
        await a.do(record, "start")
        a.journal.auto = "off"
        await a.answers(record, ada, 1)
        Broken(cluster, a, b, record).by(way)
        handing = Handing(a, record, b)
        await settle()
        asked = Client()
        a.router.deliver(record.id, Host(asked, "h", "pause"))
        a.journal.auto = "now"
        a.journal.commit()
        await later(mock_clock, PATIENCE_S + 2)
        assert handing.done is False
        assert ada.kinds.count("ack") == 1, "what is acknowledged is so"
        assert (ada.close_reason, ben.close_reason) == (CloseReason.RESTARTING, CloseReason.RESTARTING)
        assert asked.frames or asked.close_reason, "nobody waits for ever"
        assert not a.router._held
        assert (a.rebalancer.moved.handed_on, a.rebalancer.moved.failed) == (0, 1)

        vars(cluster.store).pop("grant", None)
        vars(b).pop("answer", None)
        cluster.links.heal(a.run, b.run)
        for node in (a, b):
            await node.rebalancer.take_over()
        await later(mock_clock, 2)
        assert [node.run for node in (a, b) if node.registry.here(record.id)] == [owner_of(cluster, record)]
        back = await c.rejoin(record, "player", 1)
        assert back.last("joined")["state"]["you"]["score"] == 1000
        assert afar.close_reason in (None, CloseReason.RESTARTING, CloseReason.TAKEN_OVER)
        if afar.close_reason is None:
            await c.do(record, "close")
            assert afar.kinds[-1] in ("reveal", "leaderboard")


async def test_a_session_plays_on_while_the_other_node_cannot_be_reached(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await a.join(record, "Ada", may_move=True)
        await a.do(record, "start")
        cluster.links.cut(a.run, b.run)
        drain(cluster, a)
        looked: list[float] = []
        orphans = cluster.store.orphans

        async def counted(live: Collection[str]) -> Sequence[SessionRecord]:
            looked.append(trio.current_time())
            return await orphans(live)

        cluster.store.orphans = counted  # type: ignore[method-assign]  # counts
        await a.nursery.start(a.rebalancer.run)
        await later(mock_clock, 5)
        assert ada.close_reason is None
        await a.answers(record, ada, 1)
        assert ada.kinds[-1] == "ack"
        assert len(looked) < 50, "it is tried again now and then, and not without a pause"
        cluster.links.heal(a.run, b.run)
        await later(mock_clock, 1)
        assert owner_of(cluster, record) == b.run
        assert ada.close_reason is CloseReason.MOVED
        assert a.rebalancer.moved.failed == 0


async def test_one_who_is_fenced_before_all_is_committed_has_nothing_to_hand_on(
    mock_clock: MockClock,
) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await a.join(record, "Ada")
        await a.join(record, "Ben")
        await a.do(record, "start")
        a.journal.auto = "off"
        await a.answers(record, ada, 1)
        handing = Handing(a, record, b)
        await settle()
        late = Client()
        a.router.deliver(record.id, Host(late, "h", "pause"))
        cluster.store.take_over(record.id, b.run)
        a.journal.commit()
        await later(mock_clock, 0.1)
        assert handing.done is False
        assert (ada.got("ack"), ada.close_reason, late.close_reason) == (
            [],
            CloseReason.RESTARTING,
            CloseReason.RESTARTING,
        )
        assert a.rebalancer.moved.failed == 0, "it was another's already"
        again = await a.rejoin(record, "player", 1)
        assert again.last("joined")["state"]["you"]["answered"] is None


async def test_what_is_kept_of_a_stream_always_fits_onto_a_link(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", options=ActorOptions(history_max=16_000)) as (cluster, [a, b]):
        record = await cluster.session(a)
        ada = await a.join(record, "Ada")
        a.journal.auto = "now"
        for number in range(12_000):
            a.here(record).send(Host(Client(), None, "lock", on=number % 2 == 0))
            if number % HOSTS_WAITING_MAX == 0:
                await settle()
        await settle()
        assert ada.offsets[-1] == 12_000
        assert await a.rebalancer.hand_on(record.id, b.member)
        moved = b.here(record)
        assert moved.offset == 12_000
        back = await b.rejoin(record, "player", 1, epoch=moved.live.stream.epoch, offset=11_000)
        assert back.offsets == list(range(11_001, 12_001)), "the newest are kept"


# -- clocks that differ ------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [3_000, -3_000, 5])
async def test_a_hand_over_between_clocks_that_differ_neither_shortens_nor_lengthens_a_question(
    mock_clock: MockClock, ahead_ms: int
) -> None:
    async with cluster_of("a", "b", skew_ms={"b": ahead_ms}) as (cluster, [a, b]):
        record = await cluster.session(a, early_close=False)
        ada = await a.join(record, "Ada")
        await a.do(record, "start")
        mock_clock.jump(10)
        await settle()
        assert await a.rebalancer.hand_on(record.id, b.member)
        session = b.registry.here(record.id)
        assert session is not None
        assert abs(session.session.remaining_ms(b.clock.now_ms()) - 10_000) <= CLOCKS_AGREE_MS
        mock_clock.jump(2)
        await b.answers(record, ada, 1)
        assert abs(ada.last("ack")["elapsed_ms"] - 12_000) <= CLOCKS_AGREE_MS
        moved = [f.by_ms for f in cluster.store.facts(record.id) if isinstance(f, ClockExtended)]
        assert moved == ([ahead_ms] if abs(ahead_ms) > CLOCKS_AGREE_MS else [])
        # And on to a third, whose clock is again another: by the death of this one.
        cluster.skew_ms["c"] = -ahead_ms
        c = await cluster.start("c")
        cluster.store.alive[b.run] = b.clock.now_ms()
        await cluster.kill(b)
        cluster.miss(b.run)
        cluster.store.leases[b.run] = 0
        mock_clock.jump(4)
        await c.registry.activate(await cluster.store.find(record.id))
        taken = c.registry.here(record.id)
        assert taken is not None
        assert abs(taken.session.remaining_ms(c.clock.now_ms()) - 8_000) <= 2 * CLOCKS_AGREE_MS


# -- adopting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "adopt"},
        {"do": "adopt", "session": "nobody's"},
        {"do": "expect", "session": session_id(1)},
        {"do": "expect", "session": "nobody's", "stream": {"epoch": 1, "offset": 0, "entries": []}},
        {"do": "expect", "session": session_id(1), "stream": {"epoch": 1}},
        {"do": "something else"},
        {},
    ],
)
async def test_what_makes_no_sense_is_refused(request_: Mapping[str, object], mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (_, [_, b]):
        assert list(await b.rebalancer.answer(request_)) == ["error"]


async def test_the_first_client_of_the_next_owner_gets_the_continued_stream(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await a.do(record, "start")
        snapshot = await a.registry.give_away(record.id)
        expect = {"do": "expect", "session": record.id, "stream": snapshot.stream.to_dict()}
        assert await b.rebalancer.answer(expect) == {"expected": True}
        assert await cluster.store.grant(record.id, snapshot.epoch, a.run, b.run)
        ada = await b.join(record, "Ada")  # before b was asked to adopt it
        assert (ada.last("joined")["epoch"], ada.last("joined")["offset"]) == (snapshot.stream.epoch, 1)
        assert await b.rebalancer.answer({"do": "adopt", "session": record.id}) == {"adopted": True}


async def test_a_session_that_was_not_granted_is_not_adopted(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        answer = await b.rebalancer.answer({"do": "adopt", "session": record.id})
        assert answer == {"adopted": False}
        assert owner_of(cluster, record) == a.run


async def test_adopted_twice_is_adopted_once(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        snapshot = await a.registry.give_away(record.id)
        assert snapshot is not None
        await cluster.store.grant(record.id, snapshot.epoch, a.run, b.run)
        request = {"do": "adopt", "session": record.id, "stream": snapshot.stream.to_dict()}
        assert await b.rebalancer.answer(request) == {"adopted": True}
        assert await b.rebalancer.answer(request) == {"adopted": True}
        assert b.here(record).epoch == 2


async def test_another_request_is_refused_by_name(mock_clock: MockClock) -> None:
    async with cluster_of("a") as (_, [a]):
        assert await a.rebalancer.answer({"do": "dance"}) == {"error": "cannot 'dance'"}


# -- which, when and how many ------------------------------------------------------------------------


async def misplaced(cluster: Cluster, a: Node, b: Node, count: int) -> list[SessionRecord]:
    return [await cluster.session(a, belongs_to=b) for _ in range(count)]


async def test_only_sessions_that_belong_elsewhere_move(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        mine, theirs = await cluster.session(a), await cluster.session(a, belongs_to=b)
        over = await cluster.session(a, belongs_to=b)
        await a.do(over, "finish")
        await a.nursery.start(a.rebalancer.run)
        await later(mock_clock, SETTLE_S + 1)
        assert a.registry.here(mine.id)
        assert a.registry.here(over.id)
        assert b.registry.here(theirs.id)
        assert a.rebalancer.moved.handed_on == 1


async def test_nothing_moves_until_the_ring_has_settled(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        (record,) = await misplaced(cluster, a, b, 1)
        await a.nursery.start(a.rebalancer.run)
        await later(mock_clock, SETTLE_S - 0.5)
        c = await cluster.start("c", role="api")
        a.rebalancer.wake()
        await later(mock_clock, 0.3)
        assert a.registry.here(record.id)
        d = await cluster.start("d")
        a.rebalancer.wake()
        await later(mock_clock, SETTLE_S - 0.5)
        assert a.registry.here(record.id), "the ring has changed, so it waits anew"
        for node in (c, d):
            await cluster.kill(node)
        cluster.all_see()
        a.rebalancer.wake()
        await later(mock_clock, SETTLE_S + 1)
        assert b.registry.here(record.id)


async def test_so_many_move_at_the_same_time(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        records = await misplaced(cluster, a, b, 12)
        under_way, most = 0, 0

        async def answer(request: Mapping[str, object]) -> Mapping[str, object]:
            nonlocal under_way, most
            if request["do"] == "ready":
                return await Node.answer(b, request)
            under_way += 1
            most = max(most, under_way)
            await trio.sleep(0.5)
            under_way -= 1
            return await Node.answer(b, request)

        b.answer = answer  # type: ignore[method-assign]  # counts
        await a.nursery.start(a.rebalancer.run)
        await later(mock_clock, SETTLE_S + 1.4)
        assert most == AT_ONCE
        drain(cluster, a)
        a.rebalancer.wake()
        await later(mock_clock, 4)
        assert most == AT_ONCE_DRAINING
        assert [b.registry.here(record.id) is not None for record in records] == [True] * 12


async def test_a_drain_does_not_wait_for_the_ring_to_settle(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        await a.nursery.start(a.rebalancer.run)
        await later(mock_clock, 1)
        drain(cluster, a)
        a.rebalancer.wake()
        await later(mock_clock, 0.1)
        assert b.registry.here(record.id)


async def test_nothing_is_handed_on_while_postgres_is_away(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a)
        a.may_hand_over = False
        drain(cluster, a)
        await a.nursery.start(a.rebalancer.run)
        await later(mock_clock, 2)
        assert a.registry.here(record.id)
        a.may_hand_over = True
        await later(mock_clock, 1)
        assert b.registry.here(record.id)


# -- leaving -----------------------------------------------------------------------------------------


class Draining:
    def __init__(self, node: Node) -> None:
        self.over = False
        node.nursery.start_soon(self._run, node)

    async def _run(self, node: Node) -> None:
        await node.rebalancer.drained()
        self.over = True


async def test_a_node_leaves_when_its_sessions_and_their_clients_have_gone(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record, other = await cluster.session(a), await cluster.session(a)
        over = await cluster.session(a)
        await a.do(over, "finish")
        clients = [await a.watch(each, may_move=True) for each in (record, other) for _ in range(100)]
        await a.nursery.start(a.rebalancer.run)
        drain(cluster, a)
        a.rebalancer.wake()
        draining = Draining(a)
        await settle()
        mock_clock.jump(0.1)
        await settle()
        assert not draining.over
        assert 0 < sum(client.close_reason is CloseReason.MOVED for client in clients) < 200
        await later(mock_clock, 1)
        assert draining.over
        assert {client.close_reason for client in clients} == {CloseReason.MOVED}
        assert {client.last("moved")["url"] for client in clients} == {b.member.ws_url}
        assert a.registry.here(over.id), "it is not needed by anybody else"


async def test_a_node_that_leaves_sends_on_the_clients_of_its_relays(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(b, player_limit=RELAY_ABOVE + 1)
        ada, fixed = await a.join(record, "Ada", may_move=True), await a.watch(record)
        drain(cluster, a)
        draining = Draining(a)
        await later(mock_clock, 0.1)
        assert draining.over
        assert (ada.close_reason, ada.last("moved")["url"]) == (CloseReason.MOVED, b.member.ws_url)
        assert fixed.close_reason is None


@pytest.mark.parametrize("others", [[], [{"role": "api"}], [{"draining": True}]])
async def test_the_last_node_does_not_wait(others: list[dict[str, object]], mock_clock: MockClock) -> None:
    async with cluster_of("a") as (cluster, [a]):
        record = await cluster.session(a)
        for number, changes in enumerate(others):
            await cluster.start(f"other-{number}", **changes)  # type: ignore[arg-type]  # fields of a member
        drain(cluster, a)
        await a.rebalancer.drained()
        assert a.registry.here(record.id)


async def test_a_whole_quiz_on_the_move_is_told_as_if_it_had_stayed(mock_clock: MockClock) -> None:
    async def play(moves: bool) -> list[Any]:
        async with cluster_of("a", "b", "c") as (cluster, nodes):
            a, b, c = nodes
            for node in nodes:
                node.journal.auto = "now"
            record = await cluster.session(a)
            ada, host = await c.join(record, "Ada"), await c.rejoin(record, "host")
            at, to = a, b
            for do in ("start", "close", "next", "pause", "resume", "close", "next", "lock", "finish"):
                if moves:
                    assert await at.rebalancer.hand_on(record.id, to.member)
                    at, to = to, at
                await later(mock_clock, 0.4)
                await c.do(record, do)
            await later(mock_clock, 0.5)
            return [told(client) for client in (ada, host)]

    stayed, moved = await play(False), await play(True)
    for one, other in zip(stayed, moved, strict=True):
        assert without_what_is_repeated(other) == without_what_is_repeated(one)


def without_what_is_repeated(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """An owner that has just begun tells the standing once more, the host who is there, and a player the last
    result, which may have been lost on its way."""
    kept = [message for message in messages if message["t"] not in ("leaderboard", "roster")]
    return [
        message for before, message in pairwise([{}, *kept]) if message["t"] != "result" or message != before
    ]
