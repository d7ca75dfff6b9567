"""What a session leaves behind."""

from __future__ import annotations

import gc
from collections import Counter

import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.delivery.audience import Audience
from engine.actors.live_session import FINISHED_LINGER_S
from engine.actors.mailbox import Mailbox
from engine.domain.leaderboard import Leaderboard
from engine.domain.players import Player
from engine.domain.session import Session
from tests.actors.world import World, settle, world

KINDS = (SessionActor, Session, Player, Leaderboard, Audience, Mailbox)


async def play_through(w: World) -> None:
    actor = await w.session(early_close=False)
    host, screen = await w.host(actor), await w.watch(actor)
    players = [await w.join(actor, f"P{n}") for n in range(1, 6)]
    await w.join(actor, "P1")
    await w.do(actor, "start")
    for number, player in enumerate(players, 1):
        w.answer(actor, player, number, choice=number)
        w.answer(actor, player, number, question=3)
    await w.do(actor, "kick", player=2)
    await w.rejoin(actor, 3)
    await w.do(actor, "pause")
    await w.do(actor, "resume")
    await trio.sleep(30)
    await w.do(actor, "finish")
    assert host.kinds[-1] == screen.kinds[-1] == "finished"


async def test_a_session_that_is_over_leaves_nothing_to_the_garbage_collector(
    autojump_clock: MockClock,
) -> None:
    async with world() as w:
        gc.collect()
        gc.disable()
        try:
            await play_through(w)
            assert alive()["Player"] == 5
            await trio.sleep(FINISHED_LINGER_S + 1)
            await settle()
            assert not alive()
        finally:
            gc.enable()


def alive() -> Counter[str]:
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))
