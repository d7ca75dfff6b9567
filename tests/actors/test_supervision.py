"""Crashes, restarts, quarantine, recovery: what happens to the clients and to the others."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Host, Join, Rejoin, Watch
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from engine.actors.refusals import NodeFull, SessionFinished, SessionUnavailable
from engine.actors.registry import CLAIMS_AT_ONCE, LET_GO_S
from engine.actors.supervisor import RestartPolicy
from engine.domain.session import Phase, Session
from engine.ports import ClaimedSession, SessionNotFound, SessionRecord
from tests.actors.world import GRACE_S, Client, settle, world
from tests.keys import session_id
from tests.settings import at_once

REQUEST: ContextVar[str] = ContextVar("a request")


async def crash(actor: SessionActor) -> None:
    """With a command that no client can send."""
    actor.send(Rejoin(Client(), "player", ["no number"]))  # type: ignore[arg-type]
    await settle()


async def test_a_crash_harms_no_other_and_the_session_comes_back_from_its_facts(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        victim, other = await w.session(early_close=False), await w.session()
        ada, ben = await w.join(victim, "Ada"), await w.join(other, "Ben")
        await w.do(victim, "start")
        w.answer(victim, ada, 1, 0)
        await settle()
        assert ada.got("ack")
        before = victim.session
        await crash(victim)
        await settle()
        assert ada.close_reason is CloseReason.RESTARTING
        assert ben.close_reason is None
        mock_clock.jump(1)
        await settle()
        revived = await w.node.get(victim.code)
        assert revived is not victim
        assert revived.epoch == 2
        assert revived.session.players[1].score == before.players[1].score == 1000
        again = await w.rejoin(revived, 1, epoch=1, offset=1)
        assert again.last("joined")["state"]["you"]["answered"]["choice"] == 0
        w.answer(revived, again, 1, 0, id="same")
        await settle()
        assert again.last("ack")["status"] == "accepted"
        assert w.registry.statistics().crashes == 1


async def test_everyone_who_waited_for_a_crashed_actor_is_told(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        w.journal.auto = "off"
        unconfirmed, behind = Client(), Client()
        w.answer(actor, unconfirmed, 1)
        await settle()
        actor.send(Rejoin(Client(), "player", ["no number"]))  # type: ignore[arg-type]
        actor.send(Join(behind, "Ben", w.clock.now_ms()))
        await settle()
        assert unconfirmed.close_reason is behind.close_reason is CloseReason.RESTARTING
        assert unconfirmed.frames == behind.frames == []


async def test_a_mistake_in_an_ack_is_a_crash_of_its_session_and_not_of_the_journal(
    mock_clock: MockClock,
) -> None:
    class Broken(Client):
        def push(self, frame: Frame) -> None:
            if frame.kind == "ack":
                raise ValueError("a mistake")
            super().push(frame)

    async with world() as w:
        actor, other = await w.session(early_close=False), await w.session(early_close=False)
        await w.join(actor, "Ada")
        ben = await w.join(other, "Ben")
        await w.do(actor, "start")
        await w.do(other, "start")
        w.journal.auto = "off"
        broken = Broken()
        w.answer(actor, broken, 1)
        w.answer(other, ben, 1)
        await settle()
        w.journal.commit()
        assert ben.got("ack")
        await settle()
        assert broken.close_reason is CloseReason.RESTARTING
        assert w.registry.statistics().crashes == 1
        assert ben.close_reason is None


async def test_a_session_that_keeps_failing_is_quarantined(mock_clock: MockClock) -> None:
    async with world(policy=RestartPolicy(crashes_max=3, window_s=60)) as w:
        actor, other = await w.session(), await w.session()
        for _ in range(4):
            mock_clock.jump(2)
            await settle()
            await crash(await w.node.get(actor.session_id))
            await settle()
        with pytest.raises(SessionUnavailable):
            await w.node.get(actor.session_id)
        client = Client()
        w.router.deliver(actor.code, Join(client, "Ada", w.clock.now_ms()))
        await settle()
        assert client.errors == ["session_unavailable"]
        assert await w.node.get(other.code) is other
        assert w.registry.statistics().quarantined == 1


async def test_crashes_far_apart_do_not_add_up(mock_clock: MockClock) -> None:
    async with world(policy=RestartPolicy(crashes_max=2, window_s=60)) as w:
        actor = await w.session()
        for _ in range(6):
            await crash(await w.node.get(actor.session_id))
            mock_clock.jump(61)
            await settle()
        assert (await w.node.get(actor.session_id)).epoch == 7


async def test_a_node_that_died_in_mid_question_gives_the_time_back(mock_clock: MockClock) -> None:
    async with world() as w:
        async with trio.open_nursery() as first_life:
            w.start("node", first_life)
            actor, ada, _ = await w.started("Ada", "Ben", early_close=False)
            mock_clock.jump(5)
            w.answer(actor, ada, 1)
            await settle()
            w.store.alive["node"] = w.clock.now_ms()
            first_life.cancel_scope.cancel()
        mock_clock.jump(600)
        node = w.start("node")
        assert await node.upkeep.recover() == 1
        revived = await node.get(actor.code)
        await settle()
        assert revived.session.phase is Phase.QUESTION
        assert revived.session.remaining_ms(w.clock.now_ms()) == 15_000
        ben = await w.rejoin(revived, 2)
        assert ben.last("joined")["state"]["question"]["remaining_ms"] == 15_000
        w.answer(revived, ben, 2)
        await settle()
        assert ben.last("ack")["elapsed_ms"] == 5_000
        facts = w.store.facts(actor.session_id)
        stored = await w.catalog.get(actor.record.quiz_id)
        assert Session.recover(stored.quiz, at_once(early_close=False), actor.record.created_at, facts) == (
            revived.session
        )


async def test_a_start_brings_sessions_back_a_few_at_a_time(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as w:
        for _ in range(100):
            await w.session()
        claim, claiming, calls = w.store.claim, [0], [0]
        most = 0

        async def counted(*args: Any) -> ClaimedSession:
            nonlocal most
            calls[0] += 1
            claiming[0] += 1
            most = max(most, claiming[0])
            try:
                await trio.sleep(1)
                return await claim(*args)
            finally:
                claiming[0] -= 1

        async def look(key: str) -> SessionRecord:
            raise AssertionError(key)

        monkeypatch.setattr(w.store, "claim", counted)
        monkeypatch.setattr(w.store, "find", look)
        mock_clock.autojump_threshold = 0
        node = w.another("next")
        assert await node.upkeep.recover() == 100
        assert most == CLAIMS_AT_ONCE
        assert calls[0] == 100
        assert node.registry.statistics().active == 100


@pytest.mark.parametrize("gone", [None, lambda run: True])
async def test_a_session_that_rests_is_nobody_s_and_comes_back_when_somebody_does(
    gone: Callable[[str], bool] | None, mock_clock: MockClock
) -> None:
    async with world(ActorOptions(idle_s=1), gone=gone) as w:
        resting = (await w.session()).record
        mock_clock.jump(2)
        await settle()
        assert (await w.store.find(resting.id)).owner is None
        playing = await w.session()
        await w.join(playing, "Ada")
        node = w.start("next")
        assert await node.upkeep.recover() == 1
        assert node.registry.here(playing.code)
        assert not node.registry.holds(resting.code)
        client = Client()
        node.router.deliver(resting.code, Watch(client))
        await settle()
        assert client.last("joined")["epoch"] == 2


async def test_a_session_that_was_idle_under_an_earlier_release_comes_back_once(
    mock_clock: MockClock,
) -> None:
    async with world(ActorOptions(idle_s=1)) as w:
        record = (await w.session()).record
        mock_clock.jump(2)
        await settle()
        w.store.take_over(record.id, "an earlier release, which gave nothing up")
        for found in (1, 0):
            node = w.another("next")
            assert await node.upkeep.recover() == found
            mock_clock.jump(2)
            await settle()
            assert not node.registry.holds(record.id)


async def test_a_session_that_cannot_be_given_up_just_now_stays_this_node_s(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(ActorOptions(idle_s=1)) as w:
        record = (await w.session()).record

        async def unsettled(session_id: str) -> None:
            await trio.sleep_forever()

        with monkeypatch.context() as patched:
            patched.setattr(w.journal, "settled", unsettled)
            mock_clock.jump(2)
            await settle()
            assert w.registry.holds(record.id), "it waits"
            mock_clock.jump(LET_GO_S)
            await settle()
        assert not w.registry.holds(record.id)
        found = await w.store.find(record.id)
        assert found.owner is not None
        assert await w.node.get(record.code)


async def test_a_player_cut_off_before_the_end_gets_finished_from_the_next_node(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        async with trio.open_nursery() as first_life:
            w.start("node", first_life)
            actor, ada = await w.started("Ada", early_close=False)
            w.answer(actor, ada, 1)
            await w.do(actor, "finish")
            w.store.alive["node"] = w.clock.now_ms()
            first_life.cancel_scope.cancel()
        mock_clock.jump(60)
        node = w.start("node")
        assert await node.upkeep.recover() == 0
        revived = await node.get(actor.session_id)
        again = await w.rejoin(revived, 1)
        assert again.last("joined")["state"]["podium"][0]["name"] == "Ada"
        w.answer(revived, again, 1)
        await settle()
        assert again.last("ack") == ada.last("ack")
        mock_clock.jump(31)
        await settle()
        assert node.registry.statistics().active == 0


async def test_an_ended_session_that_cannot_be_brought_back_is_read_from_the_store(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        await w.do(actor, "finish")
        del w.store._rows[actor.session_id].facts[1]
        node = w.another("node")
        assert await node.upkeep.recover() == 0
        with pytest.raises(SessionFinished):
            await node.get(actor.session_id)
        assert node.registry.statistics().quarantined == 0
        with pytest.raises(SessionUnavailable):
            await node.registry.revive(await w.store.find(actor.session_id))


@pytest.mark.parametrize("runs", [True, False])
async def test_a_code_that_is_in_use_again_leads_to_who_uses_it(runs: bool, mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.do(actor, "finish")
        record = replace(actor.record, id=session_id(99), created_at=w.clock.now_ms())
        await w.store.create(record)
        if runs:
            await w.store.claim(record.id, "another")
        w.start("node")
        assert await w.node.upkeep.recover() == runs
        assert (await w.node.get(record.code)).session_id == record.id
        assert (await w.node.get(actor.session_id)).session.phase is Phase.FINISHED


async def test_recovery_waits_for_storage(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await crash(actor)
        w.store.available = False
        client = Client()
        w.router.deliver(actor.code, Rejoin(client, "host"))
        for _ in range(20):
            mock_clock.jump(5)
            await settle()
        assert client.frames == []
        w.store.available = True
        mock_clock.jump(10)
        await settle()
        assert client.last("joined")["epoch"] == 2


async def test_unknown_and_finished_sessions(mock_clock: MockClock) -> None:
    async with world() as w:
        client = Client()
        w.router.deliver("000000", Join(client, "Ada", w.clock.now_ms()))
        await settle()
        assert client.errors == ["session_not_found"]
        with pytest.raises(SessionNotFound):
            await w.node.get("000000")
        actor = await w.session()
        await w.do(actor, "finish")
        mock_clock.jump(60)
        await settle()
        with pytest.raises(SessionFinished):
            await w.node.get(actor.code)


async def test_many_who_ask_for_a_sleeping_session_wake_it_once(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=1)) as w:
        actor = await w.session()
        mock_clock.jump(2)
        await settle()
        clients = [Client() for _ in range(50)]
        for n, client in enumerate(clients):
            w.router.deliver(actor.code, Join(client, f"P{n}", w.clock.now_ms()))
        await settle()
        assert {client.last("joined")["epoch"] for client in clients} == {2}
        assert len({client.last("joined")["player"] for client in clients}) == 50


async def test_storage_away_answers_busy(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=1)) as w:
        actor = await w.session()
        mock_clock.jump(2)
        await settle()
        w.store.available = False
        client = Client()
        w.router.deliver(actor.code, Join(client, "Ada", w.clock.now_ms()))
        await settle()
        assert client.errors == ["busy"]


async def test_the_sweep_ends_what_everybody_forgot(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=1, max_age_s=3600)) as w:
        actor = await w.session()
        w.nursery.start_soon(w.node.upkeep.sweep)
        await settle()
        mock_clock.jump(2)
        await settle()
        assert list(w.registry.active()) == []
        for _ in range(7):
            mock_clock.jump(600)
            await settle()
        assert type(w.store.facts(actor.session_id)[-1]).__name__ == "Finished"


async def test_a_full_node_takes_no_more_sessions(mock_clock: MockClock) -> None:
    async with world() as w:
        w.registry._sessions_max = 1
        actor = await w.session()
        with pytest.raises(NodeFull):
            await w.session()
        assert await w.node.get(actor.code) is actor


async def test_close_tells_everyone(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        w.registry.close(CloseReason.SHUTDOWN)
        assert ada.close_reason is CloseReason.SHUTDOWN


async def test_the_end_may_come_while_time_passes_before_a_host_command(mock_clock: MockClock) -> None:
    class Closer(Client):
        def push(self, frame: Frame) -> None:
            super().push(frame)
            if frame.kind == "reveal":
                w.registry.close(CloseReason.SHUTDOWN)

    async with world() as w:
        actor = await w.session()
        closer, host = Closer(), Client()
        actor.send(Join(closer, "Ada", w.clock.now_ms()))
        await w.do(actor, "start")
        mock_clock.jump(20 + GRACE_S)
        actor.send(Host(host, "h", "next"))
        await settle()
        assert closer.close_reason is host.close_reason is CloseReason.SHUTDOWN
        assert w.registry.statistics().crashes == 0


async def test_an_actor_has_nothing_of_the_request_that_opens_its_session(mock_clock: MockClock) -> None:
    class Watched(Client):
        def push(self, frame: Frame) -> None:
            super().push(frame)
            seen.append(REQUEST.get("nothing"))

    seen: list[str] = []
    async with world() as w:
        REQUEST.set("opens the session")
        actor = await w.session()
        w.seat(actor, Watched())
        await settle()
        assert seen == ["nothing"]
