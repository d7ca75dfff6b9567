"""Self-paced sessions change nodes: players keep their question, the time that is left, and their seats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from trio.testing import MockClock

from engine.actors.commands import Identity, Join, ListPlayers, Next
from engine.actors.options import ActorOptions
from engine.domain.facts import AnswerAccepted, PlayerJoined, QuestionShown
from engine.domain.session import Phase, Session
from engine.ports import SessionRecord
from tests.actors.world import START_MS, Client, settle
from tests.shards.nodes import Cluster, Node, cluster_of
from tests.shards.test_rebalancer import Handing, dead
from tests.shards.test_relay import later

DAY_MS = 86_400_000


async def ask(node: Node, record: SessionRecord, player: int) -> Mapping[str, Any]:
    """What the player hears of `next` at this node."""
    client = Client()
    await node.sent(record.id, Next(client, player, "n"))
    return client.frames[-1].message


async def user(node: Node, record: SessionRecord, name: str) -> Client:
    client = Client()
    await node.sent(record.code, Join(client, None, node.clock.now_ms(), identity=Identity(name, name)))
    return client


async def moved(mock_clock: MockClock, node: Node, record: SessionRecord, to: Node) -> None:
    handing = Handing(node, record, to)
    await settle()
    await later(mock_clock, 0.01)
    assert handing.done


def check(cluster: Cluster, record: SessionRecord, session: Session) -> None:
    """Recovery is equal, nothing was shown or answered twice, and each user has one seat."""
    facts = cluster.store.facts(record.id)
    assert Session.recover(session.quiz, session.settings, session.created_at, facts) == session
    shown = [(fact.player, fact.question) for fact in facts if isinstance(fact, QuestionShown)]
    answered = [(fact.player, fact.question) for fact in facts if isinstance(fact, AnswerAccepted)]
    users = [fact.user_id for fact in facts if isinstance(fact, PlayerJoined) and fact.user_id]
    for each in (shown, answered, users):
        assert len(each) == len(set(each))


@pytest.mark.parametrize("ahead_ms", [0, 3_000, -3_000])
async def test_players_in_the_middle_of_a_question_keep_it_with_its_time(
    ahead_ms: int, mock_clock: MockClock
) -> None:
    async with cluster_of("a", "b", skew_ms={"b": ahead_ms}) as (cluster, [a, b]):
        record = await cluster.session(a, pace="self", open_ms=DAY_MS, shuffle_questions=True)
        ada, _ = await a.join(record, "Ada"), await user(a, record, "bob")
        await a.do(record, "extra_time", player=2, percent=200)
        asked = [await ask(a, record, player) for player in (1, 2)]
        mock_clock.jump(5)
        await moved(mock_clock, a, record, b)
        session = b.here(record).session
        for node in (a, b):  # by way of the relay, and at the owner
            again = [await ask(node, record, player) for player in (1, 2)]
            assert [each["text"] for each in again] == [each["text"] for each in asked]
            assert [each["number"] for each in again] == [1, 1]
            assert [each["remaining_ms"] for each in again] == pytest.approx([15_000] * 2, abs=20)
        assert session.extra_time_of(2) == 200
        assert session.deadline == START_MS + DAY_MS

        client = Client()
        await a.answers(record, client, 1)
        assert client.last("ack")["elapsed_ms"] == pytest.approx(5_000, abs=20)
        await a.answers(record, client, 1)
        assert [ack["status"] for ack in client.got("ack")] == ["accepted"] * 2
        mock_clock.jump(20)
        back = await user(b, record, "bob")
        assert back.last("joined")["player"] == 2
        await b.answers(record, back, 2)
        assert back.last("ack")["elapsed_ms"] == pytest.approx(12_500, abs=20), "25 s count half"
        assert ada.close_reason is None
        check(cluster, record, session)


async def test_what_comes_while_the_session_moves_is_done_once(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, pace="self")
        ada, ben = await a.join(record, "Ada"), await a.join(record, "Ben")
        await ask(a, record, 1)
        a.journal.auto = "off"
        await a.answers(record, ada, 1)
        handing = Handing(a, record, b)
        await settle()
        await a.sent(record.id, Next(ada, 1, "meanwhile"))
        await a.sent(record.id, Next(ben, 2, "first"))
        a.journal.commit()
        await settle()
        await later(mock_clock, 0.01)
        assert handing.done
        assert len(ada.got("ack")) == 1
        assert [question["number"] for question in ada.got("question")] == [2]
        assert [question["number"] for question in ben.got("question")] == [1]
        check(cluster, record, b.here(record).session)


async def test_a_session_may_move_there_and_back(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", skew_ms={"b": 2_000}) as (cluster, [a, b]):
        record = await cluster.session(a, pace="self")
        await a.join(record, "Ada")
        await ask(a, record, 1)
        for giver, taker in ((a, b), (b, a), (a, b)):
            mock_clock.jump(3)
            await moved(mock_clock, giver, record, taker)
        assert (await ask(b, record, 1))["remaining_ms"] == pytest.approx(11_000, abs=60)
        check(cluster, record, b.here(record).session)


async def test_the_deadline_is_honoured_at_the_next_owner(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, pace="self", open_ms=60_000)
        ada = await a.join(record, "Ada")
        await a.do(record, "extend", closes_at=START_MS + 90_000)
        await ask(a, record, 1)
        await moved(mock_clock, a, record, b)
        await later(mock_clock, 80)
        assert b.here(record).session.phase is Phase.OPEN
        await later(mock_clock, 11)
        assert ada.last("finished")["you"] == {"rank": 1, "score": 0}
        assert cluster.store.facts(record.id)[-1].at == START_MS + 90_000


async def test_a_session_at_rest_wakes_at_another_node_and_its_clocks_ran_on(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b", options=ActorOptions(idle_s=5)) as (cluster, [a, b]):
        record = await cluster.session(a, pace="self", extra_time_max=2)
        await a.sent(record.code, Join(Client(), "Ada", a.clock.now_ms(), attach=False))
        await a.do(record, "extra_time", player=1, percent=200)
        await ask(a, record, 1)
        await later(mock_clock, 12)
        assert a.registry.here(record.id) is None
        assert (await ask(b, record, 1))["remaining_ms"] == pytest.approx(8_000, abs=20)
        client = Client()
        await later(mock_clock, 12)
        await b.answers(record, client, 1)
        assert client.last("ack")["elapsed_ms"] == pytest.approx(12_000, abs=20)


async def test_after_the_owners_death_the_time_without_an_owner_is_given_back(mock_clock: MockClock) -> None:
    async with cluster_of("a", "b") as (cluster, [a, b]):
        record = await cluster.session(a, pace="self")
        await user(a, record, "bob")
        await ask(a, record, 1)
        mock_clock.jump(5)
        cluster.store.alive[a.run] = a.clock.now_ms()
        await dead(cluster, a)
        mock_clock.jump(30)
        assert (await ask(b, record, 1))["remaining_ms"] == 15_000
        host = Client()
        await b.sent(record.id, ListPlayers(host, 0, 10))
        [line] = host.last("players")["players"]
        assert (line["at"], line["waits"]) == (1, True)
        assert (await user(b, record, "bob")).last("joined")["player"] == 1
        check(cluster, record, b.here(record).session)
