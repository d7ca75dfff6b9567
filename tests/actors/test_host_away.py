"""A session that goes on by itself while its host is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Detach, Join, Left, Rejoin
from engine.actors.options import ActorOptions
from engine.domain.session import Phase
from tests.actors.world import Client, World, node, settle, world

AWAY: Mapping[str, Any] = {"pace": "host", "host_away_s": 30, "reveal_ms": 5_000}


async def pass_s(clock: MockClock, seconds: float, step_s: float = 0.5) -> None:
    """What is due meanwhile happens when it is due."""
    for _ in range(round(seconds / step_s)):
        clock.jump(step_s)
        await settle()


async def revealed(w: World, **settings: Any) -> tuple[SessionActor, Client]:
    """The first question is closed, and the host is there."""
    actor = await w.session(**(dict(AWAY) | settings))
    await w.join(actor, "Ada")
    host = await w.host(actor)
    await w.do(actor, "start")
    await w.do(actor, "close")
    return actor, host


async def leave(actor: SessionActor, client: Client) -> None:
    actor.send(Detach(client))
    await settle()


def stands(actor: SessionActor) -> tuple[Phase, int]:
    return actor.session.phase, actor.session.number


async def test_the_next_question_opens_once_the_host_was_away_for_so_long(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await pass_s(mock_clock, 100)
        assert stands(actor) == (Phase.REVEAL, 1), "the host is there, and takes its time"
        await leave(actor, host)
        await pass_s(mock_clock, 29.5)
        assert stands(actor) == (Phase.REVEAL, 1)
        await pass_s(mock_clock, 1)
        assert stands(actor) == (Phase.QUESTION, 2)


async def test_it_goes_on_to_the_end_and_shows_each_question_long_enough(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await leave(actor, host)
        await pass_s(mock_clock, 30)
        assert stands(actor) == (Phase.QUESTION, 2)
        await pass_s(mock_clock, 20.5)
        assert stands(actor) == (Phase.REVEAL, 2)
        await pass_s(mock_clock, 4)
        assert stands(actor) == (Phase.REVEAL, 2)
        await pass_s(mock_clock, 0.5 + 20 + 5)
        assert stands(actor) == (Phase.FINISHED, 3)
        kinds = [type(fact).__name__ for fact in w.store.facts(actor.session_id)]
        assert kinds[-5:] == [
            "QuestionOpened",
            "QuestionClosed",
            "QuestionOpened",
            "QuestionClosed",
            "Finished",
        ]


async def test_a_host_who_comes_back_leads_again(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await leave(actor, host)
        await pass_s(mock_clock, 35)
        assert stands(actor) == (Phase.QUESTION, 2)
        back = await w.host(actor)
        await pass_s(mock_clock, 100)
        assert stands(actor) == (Phase.REVEAL, 2)
        await leave(actor, back)
        await pass_s(mock_clock, 29)
        assert stands(actor) == (Phase.REVEAL, 2)
        await pass_s(mock_clock, 1)
        assert stands(actor) == (Phase.QUESTION, 3)


async def test_a_host_that_leads_by_requests_alone_is_present(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await leave(actor, host)
        await pass_s(mock_clock, 25)
        await w.do(actor, "lock", on=True)
        await pass_s(mock_clock, 25)
        assert stands(actor) == (Phase.REVEAL, 1)
        await pass_s(mock_clock, 5)
        assert stands(actor) == (Phase.QUESTION, 2)


@pytest.mark.parametrize("settings", [{"host_away_s": None}, {"reveal_ms": 100}])
async def test_without_the_setting_and_in_the_lobby_it_waits(
    settings: dict[str, Any], mock_clock: MockClock
) -> None:
    async with world() as w:
        if "host_away_s" in settings:
            actor, host = await revealed(w, **settings)
            await leave(actor, host)
        else:
            actor = await w.session(**(dict(AWAY) | settings))
            await w.join(actor, "Ada")
        before = stands(actor)
        await pass_s(mock_clock, 200)
        assert stands(actor) == before


async def test_while_paused_it_waits(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await w.do(actor, "pause")
        await leave(actor, host)
        await pass_s(mock_clock, 100)
        assert stands(actor) == (Phase.PAUSED, 1)


async def test_a_host_at_another_node_is_there_until_it_leaves(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await node(actor)
        actor.send(Rejoin(Client(), "host", relay="other"))
        await settle()
        assert host.close_reason is CloseReason.REPLACED
        await pass_s(mock_clock, 60)
        assert stands(actor) == (Phase.REVEAL, 1)
        actor.send(Left(Client(), "other", "host"))
        await pass_s(mock_clock, 29)
        assert stands(actor) == (Phase.REVEAL, 1)
        await pass_s(mock_clock, 2)
        assert stands(actor) == (Phase.QUESTION, 2)


async def test_after_a_crash_the_absence_counts_anew(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await leave(actor, host)
        await pass_s(mock_clock, 20)
        w.registry.close(CloseReason.SHUTDOWN)
        await settle()
        revived = await w.another().get(actor.session_id)
        await w.rejoin(revived, 1)
        await pass_s(mock_clock, 29)
        assert stands(revived) == (Phase.REVEAL, 1)
        await pass_s(mock_clock, 1)
        assert stands(revived) == (Phase.QUESTION, 2)


@pytest.mark.parametrize("there", [True, False])
async def test_after_a_move_it_counts_anew_unless_the_host_came_along(
    there: bool, mock_clock: MockClock
) -> None:
    async with world() as w:
        actor, host = await revealed(w)
        await leave(actor, host)
        await pass_s(mock_clock, 20)
        w.nursery.start_soon(w.registry.give_away, actor.session_id)
        await settle()
        assert actor.snapshot is not None
        assert await w.store.grant(actor.session_id, actor.epoch, "node", "next")
        following = w.another("next").registry
        following.expect(actor.session_id, actor.snapshot.stream)
        moved = await following.activate(actor.record)
        seats: list[int | str] = [1, "host"] if there else [1]
        await node(moved, "node", epoch=moved.live.stream.epoch, offset=moved.offset, seats=seats)
        await pass_s(mock_clock, 29)
        assert stands(moved) == (Phase.REVEAL, 1)
        await pass_s(mock_clock, 2)
        assert stands(moved) == ((Phase.REVEAL, 1) if there else (Phase.QUESTION, 2))


async def test_an_actor_does_not_go_to_rest_before(mock_clock: MockClock) -> None:
    """Who plays by requests alone is no subscriber, and sees the next question nevertheless."""
    async with world(ActorOptions(idle_s=10)) as w:
        actor = await w.session(**AWAY)
        actor.send(Join(Client(), "Ada", w.clock.now_ms(), attach=False))
        await settle()
        await w.do(actor, "start")
        await w.do(actor, "close")
        await pass_s(mock_clock, 30)
        assert w.registry.here(actor.session_id) is actor
        assert stands(actor) == (Phase.QUESTION, 2)
