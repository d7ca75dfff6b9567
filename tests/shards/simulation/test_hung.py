"""However the owner of a session dies, who plays elsewhere plays again within a lease and two seconds."""

from __future__ import annotations

import math
from random import Random

import pytest
import trio

from tests.shards.simulation import schedule
from tests.shards.simulation.clients import LATER_MAX_S, Client
from tests.shards.simulation.play import QUIZ, _Run
from tests.shards.simulation.world import LEASE_S, Node, World, logged, until

SEEDS = 8

AGAIN_S = LEASE_S + 2.0
"""For who is connected to another node."""

DIRECTLY_S = AGAIN_S + LATER_MAX_S
"""For who was connected to the owner itself: it has tried in vain before, and pauses between two tries."""

DEATHS = {
    "killed": lambda node: node.crash(),
    "without power": lambda node: node.crash(silently=True),
    "hung": lambda node: node.stop(60.0),
}


def _plays(client: Client, victim: Node) -> bool:
    connection = client._connection
    owned = any(
        actor.code == client.code
        for node in client.world.up()
        if node is not victim
        for actor in node.registry.active()
    )
    joined = connection is not None and client._joined and connection.node is not victim
    return bool(client.done) or (owned and joined)


def _has_played(client: Client, since_s: float) -> bool:
    """Whether the new owner had the client back, which then lost its connection once more, as clients do
    here; at one's own pace it may also play by requests alone."""
    owner = f"{client.session_id} belongs to "
    signs = tuple(f"{client.name} {sign} " for sign in ("has joined at", "is shown", "has an ack for"))
    events = [(at, what) for at, what in client.world.events if at > since_s]
    taken_s = next((at for at, what in events if what.startswith(owner)), math.inf)
    return any(at > taken_s and what.startswith(signs) for at, what in events)


async def _recover(world: World, draw: Random, how: str) -> list[str]:
    """Who does not play again in time."""
    run = _Run(world, draw)
    await world.open(["node-1", "node-2", "node-3"])
    quiz = await world.postgres.sessions.catalog.add(QUIZ)
    for number in range(3):
        await run._open(quiz.id, shared=number == 0)
    for client in run._clients:
        client.leaves = 0.0  # whoever is away by choice does not count
        world.at(draw.random(), client.come)
    await until(lambda: all(client._joined for client in run._clients))
    await trio.sleep(draw.uniform(0.0, 1.0))
    victim = next(node for node in world.up() if list(node.registry.active()))
    lost = {actor.code for actor in victim.registry.active()}
    world.trace(f"{victim.run} dies: {how}")
    concerned = [client for client in run._clients if client.code in lost and not client.done]
    direct = [each for each in concerned if each._connection and each._connection.node is victim]
    DEATHS[how](victim)
    victim.open = False  # nobody is sent there any more
    began = trio.current_time()
    late = []
    for within_s, clients in (
        (AGAIN_S, [each for each in concerned if each not in direct]),
        (DIRECTLY_S, [each for each in direct if each.kind not in ("stream", "watcher")]),
    ):
        await trio.sleep_until(began + within_s)
        late += [
            f"{each.name} after {within_s} s"
            for each in clients
            if not _plays(each, victim) and not _has_played(each, began)
        ]
    return late


@pytest.mark.parametrize("how", sorted(DEATHS))
def test_who_plays_elsewhere_plays_again_within_a_lease_and_two_seconds(how: str) -> None:
    for seed in range(SEEDS):
        worlds: list[World] = []
        late: list[str] = []

        async def main(draw: Random, worlds: list[World] = worlds, late: list[str] = late) -> None:
            async with trio.open_nursery() as nursery:
                world = World(nursery, draw)
                worlds.append(world)
                log.world = world
                late += await _recover(world, draw, how)
                world.close()

        with logged() as log:
            schedule.run(main, seed)
        trace = "\n".join(f"{at:10.4f}  {what}" for at, what in worlds[0].events)
        assert not late, f"seed {seed}: {late}\n{trace}"
        assert not worlds[0].violations, f"seed {seed}: {worlds[0].violations}\n{trace}"
