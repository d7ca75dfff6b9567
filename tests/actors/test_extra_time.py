"""Players with extra time: a question is held for them, and for others it is over when its time is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.commands import Answer, Detach, Identity, Join, ListPlayers
from engine.actors.presence import GONE_MS
from engine.domain.audit import Evidence, audit
from engine.domain.facts import AnswerAccepted, ExtraTimeGiven, QuestionClosed
from engine.domain.session import Phase, Session
from tests.actors.test_relaying import joined_at
from tests.actors.world import GRACE_S, QUIZ, Client, World, node, settle, world

LIMIT_S = 20


async def question_to_two(
    w: World, percent: int = 200, **settings: Any
) -> tuple[SessionActor, Client, Client]:
    """A session with a question open to Ada, who has extra time, and to Ben."""
    actor = await w.session(**settings)
    ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
    assert not (await w.do(actor, "extra_time", player=1, percent=percent)).errors
    await w.do(actor, "start")
    return actor, ada, ben


async def passes(mock_clock: MockClock, seconds: float) -> None:
    mock_clock.jump(seconds)
    await settle()


async def test_a_question_is_held_until_all_with_extra_time_have_answered(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await question_to_two(w)
        await passes(mock_clock, LIMIT_S + 1)
        w.answer(actor, ben, 2)
        await settle()
        assert ben.errors == ["late"]
        assert actor.session.phase is Phase.QUESTION
        w.answer(actor, ada, 1)
        await settle()
        assert ada.last("ack")["elapsed_ms"] == 10_500
        await passes(mock_clock, GRACE_S)
        assert actor.session.phase is Phase.REVEAL
        [answer] = [each for each in w.store.facts(actor.session_id) if isinstance(each, AnswerAccepted)]
        assert answer.points == QUIZ.scoring.points(1_000, 20_000, 10_500, True, 1)


@pytest.mark.parametrize(("percent", "most", "factor"), [(150, 4, 1.5), (0, 4, 4), (400, 2, 2), (0, 3, 3)])
async def test_a_question_is_held_for_the_extra_time_and_no_longer(
    percent: int, most: int, factor: float, mock_clock: MockClock
) -> None:
    async with world() as w:
        actor, ada, _ = await question_to_two(w, percent, extra_time_max=most)
        assert ada.last("extra_time") == {"t": "extra_time", "factor": factor}
        await passes(mock_clock, LIMIT_S * factor + GRACE_S - 0.001)
        assert actor.session.phase is Phase.QUESTION
        await passes(mock_clock, 0.001)
        assert actor.session.phase is Phase.REVEAL


async def test_all_have_answered_when_those_with_extra_time_have(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await question_to_two(w)
        w.answer(actor, ben, 2)
        await settle()
        assert actor.session.phase is Phase.QUESTION
        w.answer(actor, ada, 1)
        await settle()
        assert actor.session.phase is Phase.REVEAL


@pytest.mark.parametrize("early_close", [True, False])
async def test_a_question_is_not_held_for_a_player_who_is_gone(
    early_close: bool, mock_clock: MockClock
) -> None:
    async with world() as w:
        actor, ada, _ = await question_to_two(w, early_close=early_close)
        await passes(mock_clock, LIMIT_S + 1)
        actor.send(Detach(ada))
        await settle()
        await passes(mock_clock, (GONE_MS - 1) / 1000)
        assert actor.session.phase is Phase.QUESTION
        await passes(mock_clock, 0.001)
        await passes(mock_clock, GRACE_S)
        assert actor.session.phase is Phase.REVEAL
        [closed] = [each for each in w.store.facts(actor.session_id) if isinstance(each, QuestionClosed)]
        assert closed.at == w.clock.now_ms() - round(1000 * GRACE_S)
        await w.do(actor, "next")
        await passes(mock_clock, LIMIT_S + GRACE_S)
        assert actor.session.phase is Phase.REVEAL, "who is away is not waited for"


async def test_a_kicked_player_holds_nothing_open(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _, ben = await question_to_two(w)
        await passes(mock_clock, LIMIT_S + 1)
        await w.do(actor, "kick", player=1)
        await passes(mock_clock, GRACE_S)
        assert actor.session.phase is Phase.REVEAL
        assert ben.last("reveal")["number"] == 1


async def test_extra_time_is_told_to_the_player_and_to_the_host_alone(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        watcher = await w.watch(actor)
        await w.do(actor, "extra_time", player=1, percent=150)
        await passes(mock_clock, 1)
        lines = [line for frame in host.got("roster") for line in frame["joined"]]
        assert {"id": 1, "name": "Ada", "extra_time": 1.5} in lines
        again = await w.rejoin(actor, 1)
        assert again.last("joined")["extra_time"] == 1.5
        listing = Client()
        actor.send(ListPlayers(listing, 0, 10))
        await settle()
        told = [line.get("extra_time") for line in listing.last("players")["players"]]
        assert told == [1.5, None]
        await w.do(actor, "start")
        w.answer(actor, again, 1)
        await passes(mock_clock, LIMIT_S + GRACE_S)
        for other in (ben, watcher):
            assert not any("extra_time" in str(frame.message) for frame in other.frames)
        assert len(ada.got("extra_time")) == 1


async def test_the_question_that_is_held_tells_for_how_long_it_is_over(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _, _ = await question_to_two(w)
        await passes(mock_clock, LIMIT_S + 3)
        question = (await w.rejoin(actor, 1)).last("joined")["state"]["question"]
        assert (question["remaining_ms"], question["over_ms"]) == (0, 3_000)
        await w.do(actor, "pause")
        await passes(mock_clock, 100)
        await w.do(actor, "resume")
        state = (await w.rejoin(actor, 2)).last("joined")["state"]
        assert state["question"]["over_ms"] == 3_000
        assert state["phase"] == "question"
        await w.do(actor, "close")
        assert "over_ms" not in (await w.rejoin(actor, 2)).last("joined")["state"]["question"]


async def test_a_player_at_another_node_is_told_and_waited_for(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        await joined_at(w, actor, "Ada")
        await w.join(actor, "Ben")
        await w.do(actor, "extra_time", player=1, percent=200)
        assert relay.last("for_player")["frame"] == {"t": "extra_time", "factor": 2.0}
        assert relay.last("for_player")["player"] == 1
        await w.do(actor, "start")
        await passes(mock_clock, LIMIT_S + 5)
        ack = Client()
        actor.send(Answer(ack, 1, "a", 1, 0, w.clock.now_ms()))
        await settle()
        assert ack.last("ack")["status"] == "accepted"
        await passes(mock_clock, GRACE_S)
        assert actor.session.phase is Phase.REVEAL


async def test_the_audit_and_recovery_know_extra_time(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await question_to_two(w)
        await passes(mock_clock, LIMIT_S * 1.5)
        w.answer(actor, ada, 1)
        await passes(mock_clock, GRACE_S)
        facts = w.store.facts(actor.session_id)
        record = actor.record
        again = Session.recover(QUIZ, record.settings, record.created_at, facts)
        assert again == actor.session
        evidence = Evidence(QUIZ, record.created_at, None, facts, (), {}, ())
        assert [each.kind for each in audit(evidence)] == ["standing", "standing"]  # there are no results yet
        without = [each for each in facts if not isinstance(each, ExtraTimeGiven)]
        found = audit(replace(evidence, facts=without))
        assert [each.kind for each in found] == ["seq", "late", "standing", "standing"]


async def test_what_is_no_player_gets_no_extra_time() -> None:
    async with world() as w:
        actor = await w.session()
        assert (await w.do(actor, "extra_time", player=7, percent=200)).errors == ["player_not_found"]
        await w.do(actor, "finish")
        assert (await w.do(actor, "extra_time", player=1, percent=200)).errors == ["session_finished"]


async def test_a_user_comes_with_the_extra_time_that_the_app_has_signed() -> None:
    async with world() as w:
        actor = await w.session()

        async def comes(extra_time: Any) -> Client:
            client = Client()
            identity = Identity("u-1", "Ada", extra_time=extra_time)
            actor.send(Join(client, None, w.clock.now_ms(), identity=identity))
            await settle()
            return client

        assert (await comes(1.5)).last("joined")["extra_time"] == 1.5
        assert (await comes(2)).last("joined")["extra_time"] == 2
        assert (await comes(None)).last("joined")["extra_time"] == 2
        given = [each.percent for each in w.store.facts(actor.session_id) if isinstance(each, ExtraTimeGiven)]
        assert given == [150, 200]
