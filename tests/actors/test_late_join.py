"""Players who come after the start: into the question, to watch it, or not at all."""

from __future__ import annotations

from trio.testing import MockClock

from engine.domain.session import Phase
from tests.actors.world import settle, world


async def test_by_default_a_late_player_answers_the_open_question() -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        ben = await w.join(actor, "Ben")
        w.answer(actor, ben, 2)
        await settle()
        assert ben.last("ack")["status"] == "accepted"


async def test_a_late_player_watches_and_is_not_waited_for(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", late_join="next")
        ben = await w.join(actor, "Ben")
        assert ben.last("joined")["state"]["you"]["watches"] == 1
        w.answer(actor, ben, 2)
        await settle()
        assert ben.errors == ["joined_late"]
        w.answer(actor, ada, 1)
        await settle()
        assert actor.session.phase is Phase.REVEAL
        assert ben.last("result")["correct"] is None
        assert "watches" in (await w.rejoin(actor, 2)).last("joined")["state"]["you"]
        await w.do(actor, "next")
        ben = await w.rejoin(actor, 2)
        assert "watches" not in ben.last("joined")["state"]["you"]
        w.answer(actor, ada, 1, question=2)
        await settle()
        assert actor.session.phase is Phase.QUESTION, "Ben is waited for now"
        w.answer(actor, ben, 2, question=2)
        await settle()
        assert actor.session.phase is Phase.REVEAL


async def test_a_player_who_comes_between_questions_watches_none() -> None:
    async with world() as w:
        actor, _ = await w.started("Ada", late_join="next")
        await w.do(actor, "close")
        ben = await w.join(actor, "Ben")
        assert "watches" not in ben.last("joined")["state"]["you"]
        await w.do(actor, "next")
        w.answer(actor, ben, 2, question=2)
        await settle()
        assert ben.last("ack")["status"] == "accepted"


async def test_a_watcher_who_was_removed_and_let_in_again_watches_on() -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", late_join="next")
        await w.join(actor, "Ben")
        await w.do(actor, "kick", player=2)
        await w.do(actor, "readmit", player=2)
        w.answer(actor, ada, 1)
        await settle()
        assert actor.session.phase is Phase.REVEAL


async def test_nobody_joins_a_session_that_has_started() -> None:
    async with world() as w:
        actor, _ = await w.started("Ada", late_join="refused")
        assert (await w.join(actor, "Ben")).errors == ["session_started"]
        await w.do(actor, "close")
        assert (await w.join(actor, "Ben")).errors == ["session_started"]
        assert (await w.rejoin(actor, 1)).last("joined")["player"] == 1
