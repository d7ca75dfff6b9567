"""A question is held open for those who are here, and closes early once they all have answered."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.commands import Detach, Erase, Join, Left
from engine.actors.presence import COMING_BACK_MS, GONE_MS
from engine.domain.session import Phase
from tests.actors.test_relaying import joined_at
from tests.actors.world import Client, World, node, settle, world


async def question_to_two(w: World) -> tuple[SessionActor, Client, Client]:
    """A session with a question open to Ada and Ben, who are connected."""
    actor = await w.session()
    ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
    await w.do(actor, "start")
    return actor, ada, ben


async def by_requests(w: World, actor: SessionActor, name: str) -> Client:
    """A new player who holds no connection."""
    client = Client()
    actor.send(Join(client, name, w.clock.now_ms(), attach=False))
    await settle()
    return client


async def leave(actor: SessionActor, client: Client) -> None:
    actor.send(Detach(client))
    await settle()


async def passes(mock_clock: MockClock, ms: int) -> None:
    mock_clock.jump(ms / 1000)
    await settle()


async def test_a_lost_connection_does_not_hold_a_question_open_for_long(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await question_to_two(w)
        await leave(actor, ben)
        w.answer(actor, ada, 1)
        await settle()
        assert actor.session.phase is Phase.QUESTION, "Ben may be back"
        await passes(mock_clock, GONE_MS - 1)
        assert actor.session.phase is Phase.QUESTION
        await passes(mock_clock, 1)
        assert actor.session.phase is Phase.REVEAL
        await w.do(actor, "next")
        w.answer(actor, ada, 1, question=2)
        await settle()
        assert actor.session.phase is Phase.REVEAL
        back = await w.rejoin(actor, 2)
        await w.do(actor, "next")
        w.answer(actor, ada, 1, question=3)
        await settle()
        assert actor.session.phase is Phase.QUESTION, "Ben is back, and is waited for"
        w.answer(actor, back, 2, question=3)
        await settle()
        assert actor.session.phase is Phase.REVEAL


async def test_a_question_waits_for_a_player_that_reconnects_in_time(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await question_to_two(w)
        w.answer(actor, ada, 1)
        await leave(actor, ben)
        await passes(mock_clock, GONE_MS - 1)
        await w.rejoin(actor, 2)
        await passes(mock_clock, 2 * GONE_MS)
        assert actor.session.phase is Phase.QUESTION


async def test_the_answer_of_who_has_gone_counts_and_closes_nothing_alone(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await question_to_two(w)
        w.answer(actor, ben, 2)
        await leave(actor, ben)
        await passes(mock_clock, 2 * GONE_MS)
        assert actor.session.phase is Phase.QUESTION
        w.answer(actor, ada, 1)
        await settle()
        assert actor.session.phase is Phase.REVEAL
        assert actor.session.answered == 2


async def test_nobody_left_closes_nothing(mock_clock: MockClock) -> None:
    """A school that has lost its network comes back to the question."""
    async with world() as w:
        actor = await w.session()
        for name in ("Ada", "Ben"):
            await leave(actor, await w.join(actor, name))
        await w.do(actor, "start")
        await passes(mock_clock, 2 * GONE_MS)
        assert actor.session.phase is Phase.QUESTION


async def test_a_question_waits_for_a_player_by_requests_as_long_as_answers_come(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        web, idle = [await by_requests(w, actor, name) for name in ("Web", "Idle")]
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        w.answer(actor, web, 2)
        await passes(mock_clock, 2 * GONE_MS)
        assert actor.session.phase is Phase.QUESTION, "who has just joined is waited for"
        await w.do(actor, "close")
        await w.do(actor, "next")
        w.answer(actor, ada, 1, question=2)
        await settle()
        assert actor.session.phase is Phase.QUESTION, "the second one has answered the last question"
        w.answer(actor, web, 2, question=2)
        await settle()
        assert actor.session.phase is Phase.REVEAL, "the third one has not"
        await w.do(actor, "next")
        w.answer(actor, idle, 3, question=3)
        w.answer(actor, ada, 1, question=3)
        await settle()
        assert actor.session.phase is Phase.QUESTION
        w.answer(actor, web, 2, question=3)
        await settle()
        assert actor.session.phase is Phase.REVEAL
        assert actor.session.answered == 3


async def test_players_at_other_nodes_are_here_as_well(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        await node(actor)
        await joined_at(w, actor, "Ben")
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        await passes(mock_clock, 2 * GONE_MS)
        assert actor.session.phase is Phase.QUESTION
        actor.send(Left(Client(), "other", 2))
        await settle()
        await passes(mock_clock, GONE_MS)
        assert actor.session.phase is Phase.REVEAL


@pytest.mark.parametrize(("away_ms", "waits_ms"), [(0, COMING_BACK_MS), (4_000, COMING_BACK_MS + 4_000)])
async def test_a_session_that_has_come_to_a_node_waits_for_everybody_at_first(
    mock_clock: MockClock, away_ms: int, waits_ms: int
) -> None:
    async with world() as w:
        actor, ada, _ = await question_to_two(w)
        w.answer(actor, ada, 1)
        await settle()
        await passes(mock_clock, away_ms)
        again = await w.another("other").get(actor.session_id)
        await w.rejoin(again, 1)
        await passes(mock_clock, waits_ms - 1)
        assert again.session.phase is Phase.QUESTION
        await passes(mock_clock, 1)
        assert again.session.phase is Phase.REVEAL


async def test_nobody_waits_for_who_was_erased(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        await w.join(actor, "Ben")
        await by_requests(w, actor, "Cem")
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        for player in (2, 3):
            assert actor.session.phase is Phase.QUESTION
            actor.send(Erase(Client(), player))
            await settle()
        assert actor.session.phase is Phase.REVEAL, "at once, as when the host removes them"
        assert "reveal" in ada.kinds
        await w.do(actor, "next")
        w.answer(actor, ada, 1, question=2)
        await settle()
        assert actor.session.phase is Phase.REVEAL
