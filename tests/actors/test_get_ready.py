"""The time between the moment at which a question is shown and the one at which its clock starts."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.domain.facts import AnswerAccepted
from engine.domain.session import Session
from tests.actors.world import GRACE_S, QUIZ, START_MS, Client, World, node, settle, world


def recovered(w: World, actor: object) -> Session:
    record = actor.record  # type: ignore[attr-defined]  # a session's actor
    return Session.recover(QUIZ, record.settings, record.created_at, w.store.facts(record.id))


async def test_reading_costs_nobody_points(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(get_ready_ms=3000)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        await w.do(actor, "start")
        told = ada.last("question")
        assert (told["opens_in_ms"], told["remaining_ms"], told["now"]) == (3000, 20_000, START_MS)
        assert told["choices"] == ["right", "wrong", "other"]
        mock_clock.jump(2.999)
        w.answer(actor, ada, 1)
        await settle()
        assert ada.errors == ["not_open_yet"]
        mock_clock.jump(0.001)
        w.answer(actor, ada, 1)
        mock_clock.jump(2)
        w.answer(actor, ben, 2)
        await settle()
        assert [each.last("ack")["elapsed_ms"] for each in (ada, ben)] == [0, 2000]
        assert [each.last("result")["points"] for each in (ada, ben)] == [1000, 950]
        assert len(ada.got("question")) == 1
        assert actor.session == recovered(w, actor)


async def test_the_time_to_answer_begins_after_the_time_to_get_ready(mock_clock: MockClock) -> None:
    async with world() as w:
        _, ada = await w.started("Ada", get_ready_ms=3000)
        mock_clock.jump(22.999 + GRACE_S)
        await settle()
        assert ada.got("reveal") == []
        mock_clock.jump(0.001)
        await settle()
        assert len(ada.got("reveal")) == 1


async def test_choices_are_withheld_until_they_can_be_chosen(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(get_ready_ms=1000, reading_ms=4000)
        ada, host = await w.join(actor, "Ada"), await w.host(actor)
        relay = await node(actor)
        await w.do(actor, "start")
        assert (ada.last("question")["choices"], ada.last("question")["opens_in_ms"]) == (None, 5000)
        assert host.last("question")["choices"] == ["right", "wrong", "other"], "whoever knows the answer"
        mock_clock.jump(2)
        late = await w.join(actor, "Ben")
        seen = late.last("joined")["state"]["question"]
        assert (seen["choices"], seen["opens_in_ms"], seen["remaining_ms"]) == (None, 3000, 20_000)
        mock_clock.jump(3)
        await settle()
        for each in (ada, late, host):
            again = each.last("question")
            assert (again["number"], again["opens_in_ms"], again["remaining_ms"]) == (1, 0, 20_000)
            assert again["choices"] == ["right", "wrong", "other"]
        cast = relay.got("cast")[-1]["frame"]
        assert (cast["t"], cast["choices"]) == ("question", ["right", "wrong", "other"])
        assert ada.offsets == [1, 2]
        # Whoever was away for both gets them as they are now.
        back = await w.rejoin(actor, 1, epoch=actor.epoch, offset=0)
        assert [each["choices"] for each in back.got("question")] == [["right", "wrong", "other"]] * 2


async def test_a_pause_and_a_late_start_of_the_clock_leave_the_rest_of_it(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", get_ready_ms=3000, reading_ms=1000)
        mock_clock.jump(1)
        await w.do(actor, "pause")
        paused = ada.last("state")
        assert (paused["opens_in_ms"], paused["remaining_ms"]) == (3000, 20_000)
        mock_clock.jump(60)
        w.answer(actor, ada, 1)
        await settle()
        assert ada.errors == ["paused"]
        assert len(ada.got("question")) == 1
        await w.do(actor, "resume")
        assert ada.last("state")["opens_in_ms"] == 3000
        mock_clock.jump(3)
        await settle()
        assert ada.last("question")["choices"] is not None
        w.answer(actor, ada, 1)
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 0
        assert actor.session == recovered(w, actor)


@pytest.mark.parametrize("away_s", [0.5, 10])
async def test_what_was_left_of_it_is_left_after_a_crash(away_s: float, mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada", get_ready_ms=3000)
        mock_clock.jump(1)
        w.store.alive["node"] = w.clock.now_ms()
        mock_clock.jump(away_s)
        w.store.take_over(actor.session_id, "node")
        again = await w.another("other").get(actor.session_id)
        await settle()
        assert again.session.opens_in_ms(w.clock.now_ms()) == 2000
        early = Client()
        w.answer(again, early, 1)
        mock_clock.jump(2)
        w.answer(again, early, 1)
        await settle()
        assert early.errors == ["not_open_yet"]
        assert early.last("ack")["elapsed_ms"] == 0
        [answer] = [fact for fact in w.store.facts(actor.session_id) if isinstance(fact, AnswerAccepted)]
        assert answer.elapsed_ms == 0


async def test_a_host_may_close_or_skip_what_nobody_can_answer_yet(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", get_ready_ms=3000)
        assert (await w.do(actor, "close")).errors == []
        await w.do(actor, "next")
        assert (await w.do(actor, "skip")).errors == []
        assert ada.last("reveal")["skipped"] is True
        assert ada.last("joined")["state"]["question"] is None
