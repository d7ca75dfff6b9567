"""Sessions change nodes: single scenes in the world of the simulation, where nothing goes wrong by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import pytest
import trio

from engine.actors.commands import Answer, Join, Rejoin, Watch
from engine.actors.registry import GIVE_AWAY_S
from engine.domain.quiz import Quiz
from engine.domain.session import Settings
from engine.ports import SessionRecord
from tests.actors.world import Client
from tests.settings import at_once
from tests.shards.simulation import schedule
from tests.shards.simulation.world import CONFIG, LEASE_S, Node, World, logged, until

QUIZ = Quiz.parse(
    {
        "title": "Moved",
        "questions": [
            {"type": "single", "text": f"{n}?", "choices": ["a", "b"], "correct": "b", "time_limit_s": 20}
            for n in (1, 2, 3)
        ],
    }
)
SHARED = at_once(pace="auto", lobby_ms=1000, reveal_ms=1000, player_limit=CONFIG.relay_above + 1)


def scene(act: Callable[[World], Awaitable[None]], *names: str) -> None:
    async def main(draw: Random) -> None:
        async with trio.open_nursery() as nursery:
            world = log.world = World(nursery, draw)
            with trio.fail_after(300):
                await world.open(names)
                await act(world)
                world.close()
        assert not world.violations

    with logged() as log:
        schedule.run(main, 1)


async def made(node: Node, settings: Settings = SHARED) -> SessionRecord:
    """A session that runs on the node it belongs to, and stays there."""
    names = {each.name for each in node.world.up()}
    await until(lambda: all(set(each.clustering.members.ring.nodes) == names for each in node.world.up()))
    quiz = await node.world.postgres.sessions.catalog.add(QUIZ)
    record = await node.create(quiz.id, settings)
    watch(node, record)
    await until(lambda: owner_of(node.world, record) is not None)
    return record


def owner_of(world: World, record: SessionRecord) -> Node | None:
    return next((node for node in world.up() if node.registry.here(record.id)), None)


def watch(node: Node, record: SessionRecord) -> Client:
    client = Client()
    node.router.deliver(record.id, Rejoin(client, "host"))
    return client


def other(world: World, node: Node | None) -> Node:
    return next(each for each in world.up() if each is not node)


def test_a_node_outlives_a_store_that_is_away_while_it_looks_around() -> None:
    async def act(world: World) -> None:
        world.postgres.unreachable.update(world.nodes)
        await trio.sleep(12)
        assert len(world.up()) == 2

    scene(act, "a", "b")


def test_a_drain_waits_for_the_store_at_rest() -> None:
    """One that does not would never let the virtual clock go on."""

    async def act(world: World) -> None:
        record = await made(world.nodes["a"])
        owner = owner_of(world, record)
        assert owner is not None
        world.postgres.unreachable.add(owner.name)
        await trio.sleep(2)
        owner.end()
        await trio.sleep(GIVE_AWAY_S - 0.5)  # after that it would be taken back, and play for a while
        world.postgres.unreachable.clear()
        await owner.ended.wait()
        assert owner.drained

    scene(act, "a", "b")


def test_a_node_that_does_not_answer_is_given_no_session() -> None:
    async def act(world: World) -> None:
        record = await made(world.nodes["a"])
        owner = owner_of(world, record)
        assert owner is not None
        watching = watch(owner, record)
        world.network.cut(owner.run, other(world, owner).run)
        owner.drain()
        await trio.sleep(3)
        assert watching.close_reason is None
        assert world.postgres.sessions.epoch(record.id) == 1
        world.network.heal(owner.run, other(world, owner).run)
        await until(lambda: owner_of(world, record) is other(world, owner))

    scene(act, "a", "b")


def test_nobody_is_let_in_between_a_lost_link_and_what_was_missed() -> None:
    async def act(world: World) -> None:
        record = await made(world.nodes["a"])
        owner = owner_of(world, record)
        assert owner is not None
        third = other(world, owner)
        clients = [Client()]
        third.router.deliver(record.id, Watch(clients[0]))
        await until(lambda: clients[0].got("joined"))
        world.network.cut(owner.run, third.run)
        actor = owner.registry.here(record.id)
        assert actor is not None
        await until(lambda: actor.session.number)
        world.network.heal(owner.run, third.run)
        for _ in range(100):
            clients.append(Client())
            third.router.deliver(record.id, Watch(clients[-1]))
            await trio.sleep(0.03)
        for client in clients:
            began = next((message["offset"] for message in client.got("joined")), 0)
            assert client.offsets == list(range(began + 1, began + 1 + len(client.offsets)))

    scene(act, "a", "b")


def test_a_client_of_a_third_node_during_a_hand_over_is_seated_or_told_to_come_again() -> None:
    async def act(world: World) -> None:
        record = await made(world.nodes["a"])
        owner = owner_of(world, record)
        assert owner is not None
        third = other(world, owner)
        await until(lambda: owner.registry.here(record.id).session.number)
        owner.drain()
        await until(lambda: owner.router._held, 0.001)
        clients = []
        for _ in range(20):
            clients.append(Client())
            third.router.deliver(record.id, Watch(clients[-1]))
            await trio.sleep(0.005)
        await until(lambda: all(c.got("reveal") or c.close_reason or c.errors == ["busy"] for c in clients))

    scene(act, "a", "b", "c")


def test_a_session_that_comes_and_goes_leaves_one_relay_and_not_two() -> None:
    """Of two, the owner would tell only the one that took part last."""

    async def act(world: World) -> None:
        record = await made(world.nodes["a"])
        owner = owner_of(world, record)
        assert owner is not None
        third = other(world, owner)
        third.router.deliver(record.id, Watch(Client()))
        await until(lambda: list(third.router.relays()))
        # It is taken from a node that stands still, and given back as soon as that goes on.
        owner.stop(5)
        await until(lambda: third.registry.here(record.id))
        third.drain()
        await until(lambda: world.postgres.sessions.epoch(record.id) == 3)
        await trio.sleep(0.5)
        watching = Client()
        third.router.deliver(record.id, Watch(watching))
        await until(lambda: watching.got("joined"))
        await until(lambda: watching.got("reveal") or watching.close_reason)

    scene(act, "a", "b")


@pytest.mark.parametrize("limit", [CONFIG.relay_above, CONFIG.relay_above + 1])
def test_an_owner_that_wakes_after_its_lease_says_nothing_of_what_may_be_anothers(limit: int) -> None:
    async def act(world: World) -> None:
        record = await made(world.nodes["a"], replace(SHARED, player_limit=limit))
        owner = owner_of(world, record)
        assert owner is not None
        session = owner.registry.here(record.id)
        assert session is not None
        player, answered = Client(), Client()
        session.send(Join(player, "Ada", owner.clock.now_ms()))
        await until(lambda: session.session.question_open)
        await trio.sleep(19)
        told = player.kinds
        owner.stop(4 * LEASE_S)
        await trio.sleep(owner.stands_still_s)
        session.send(Answer(answered, 1, "a", 1, 0, owner.clock.now_ms()))
        await until(lambda: player.close_reason is not None)
        assert player.kinds == told
        assert answered.frames == []
        taken = other(world, owner).registry.here(record.id)
        assert taken is not None
        assert taken.session.question_open, "and there the outage is given back"

    scene(act, "a", "b")


def test_an_owner_that_stood_still_for_less_than_its_lease_goes_on_and_gives_the_time_back() -> None:
    async def act(world: World) -> None:
        record = await made(world.nodes["a"])
        owner = owner_of(world, record)
        assert owner is not None
        session = owner.registry.here(record.id)
        assert session is not None
        await until(lambda: session.session.question_open)
        await trio.sleep(19.5)
        owner.stop(1.0)
        await trio.sleep(1.4)
        assert owner.registry.here(record.id) is session
        assert session.session.question_open
        await trio.sleep(0.3)
        assert not session.session.question_open

    scene(act, "a", "b")
