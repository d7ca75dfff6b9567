"""What a session tells a player where choices are shuffled."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from engine.domain.shuffling import seed_of
from tests.actors.world import QUIZ, settle, world


async def test_a_player_is_told_the_seed_and_messages_keep_the_order_of_the_quiz() -> None:
    async with world() as w:
        actor = await w.session(shuffle_choices=True)
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        host, watcher = await w.host(actor), await w.watch(actor)
        seeds = [client.last("joined")["shuffle"] for client in (ada, ben)]
        assert seeds == [seed_of(actor.session_id, player) for player in (1, 2)]
        assert all("shuffle" not in client.last("joined") for client in (host, watcher))
        await w.do(actor, "start")
        questions = [client.last("question") for client in (ada, ben, watcher)]
        assert questions[0] is questions[1] is questions[2]  # one frame for all
        assert questions[0]["choices"] == list(QUIZ.questions[0].choices)  # type: ignore[attr-defined]
        again = await w.rejoin(actor, 1)
        assert again.last("joined")["shuffle"] == seeds[0]
        w.answer(actor, again, 1, 0)
        await settle()
        await w.do(actor, "close")
        assert again.last("result")["correct"]
        assert again.last("reveal") is ben.last("reveal") is watcher.last("reveal")


async def test_a_player_has_the_same_seed_after_a_restart(mock_clock: MockClock) -> None:
    async with world() as w:
        async with trio.open_nursery() as first_life:
            w.start("node", first_life)
            actor = await w.session(shuffle_choices=True)
            ada = await w.join(actor, "Ada")
            first_life.cancel_scope.cancel()
        w.start("node")
        assert await w.node.upkeep.recover() == 1
        again = await w.rejoin(await w.node.get(actor.session_id), 1)
        assert again.last("joined")["shuffle"] == ada.last("joined")["shuffle"]


async def test_no_seed_is_told_where_nothing_is_shuffled() -> None:
    async with world() as w:
        ada = await w.join(await w.session(), "Ada")
        assert "shuffle" not in ada.last("joined")
