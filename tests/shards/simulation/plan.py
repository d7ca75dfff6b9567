"""What goes wrong in a run, and when: drawn from the seed, before anything begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import trio

from tests.shards.simulation.clients import Client
from tests.shards.simulation.world import World, until

FAULTS_FROM_S = 1.0
FAULTS_UNTIL_S = 11.0
FAULTS_MAX = 6


@dataclass(frozen=True)
class Fault:
    """`lasts_s` from `at_s` on. `nodes` are whom it befalls; the first or both."""

    at_s: float
    kind: str
    nodes: tuple[str, str]
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s: {self.kind} {' '.join(self.nodes)} for {self.lasts_s:.2f} s"


def plan(draw: Random, names: Sequence[str]) -> list[Fault]:
    faults = []
    for _ in range(draw.randint(0, FAULTS_MAX)):
        one, other = draw.sample(names, 2)
        at_s = draw.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S)
        lasts_s = draw.choice([draw.uniform(0.05, 1.0), draw.uniform(0.5, 7.0)])
        faults.append(Fault(at_s, draw.choice(sorted(KINDS)), (one, other), lasts_s))
    return sorted(faults, key=lambda fault: fault.at_s)


class Faults:
    """Lets a plan come true, and puts everything right in the end."""

    def __init__(self, world: World, clients: Sequence[Client]) -> None:
        self._world = world
        self._clients = clients

    def begin(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._world.at(fault.at_s, self._strike, fault)

    def _strike(self, fault: Fault) -> None:
        self._world.trace(f"FAULT {fault}")
        KINDS[fault.kind](self, fault)

    # -- nodes -----------------------------------------------------------------------------------

    def _crash(self, fault: Fault) -> None:
        node = self._world.nodes[fault.nodes[0]]
        if not node.dead:
            node.crash()
        self._world.after(fault.lasts_s, self._world.start_again, fault.nodes[0])

    def _power(self, fault: Fault) -> None:
        """A crash of which nobody hears."""
        node = self._world.nodes[fault.nodes[0]]
        if not node.dead:
            node.crash(silently=True)
        self._world.after(fault.lasts_s, self._world.start_again, fault.nodes[0])

    def _restart(self, fault: Fault) -> None:
        """In good order."""
        name = fault.nodes[0]
        node = self._world.nodes[name]
        node.end()

        async def again() -> None:
            await node.ended.wait()
            await trio.sleep(fault.lasts_s)
            self._world.start_again(name)

        self._world.nursery.start_soon(again)

    def _rolling(self, fault: Fault) -> None:
        """All nodes, one after another, each when the one before it is back."""
        names = sorted(self._world.nodes)

        async def roll() -> None:
            for name in names:
                node = self._world.nodes[name]
                node.end()
                await node.ended.wait()
                self._world.start_again(name)
                with trio.move_on_after(3.0):
                    await until(lambda name=name: self._world.nodes[name].open)

        self._world.nursery.start_soon(roll)

    def _drain(self, fault: Fault) -> None:
        node = self._world.nodes[fault.nodes[0]]
        if node.open and sum(not each.draining for each in self._world.up()) > 1:
            node.drain()

    def _stop(self, fault: Fault) -> None:
        self._world.nodes[fault.nodes[0]].stop(fault.lasts_s)

    # -- between them ----------------------------------------------------------------------------

    def _cut_store(self, fault: Fault) -> None:
        unreachable = self._world.postgres.unreachable
        unreachable.add(fault.nodes[0])
        self._world.after(fault.lasts_s, unreachable.discard, fault.nodes[0])

    def _store_away(self, fault: Fault) -> None:
        unreachable = self._world.postgres.unreachable
        unreachable.update(self._world.nodes)
        self._world.after(fault.lasts_s, unreachable.clear)

    def _store_slow(self, fault: Fault) -> None:
        def set_to(slow_s: float) -> None:
            self._world.postgres.slow_s = slow_s

        set_to(1.2)
        self._world.after(fault.lasts_s, set_to, 0.0)

    def _cut_redis(self, fault: Fault) -> None:
        cut_off = self._world.redis.cut_off
        run = self._world.nodes[fault.nodes[0]].run
        cut_off.add(run)

        def heal() -> None:
            if (node := self._world.run_named(run)) is not None and not node.dead:
                cut_off.discard(run)

        self._world.after(fault.lasts_s, heal)

    def _redis_away(self, fault: Fault) -> None:
        def set_to(away: bool) -> None:
            self._world.redis.away = away

        set_to(True)
        self._world.after(fault.lasts_s, set_to, False)

    def _redis_restart(self, fault: Fault) -> None:
        self._world.redis.restart()

    def _cut_link(self, fault: Fault) -> None:
        one, other = (self._world.nodes[name].run for name in fault.nodes)
        self._world.network.cut(one, other)
        self._world.after(fault.lasts_s, self._world.network.heal, one, other)

    def _slow_link(self, fault: Fault) -> None:
        slow = self._world.slow_links
        slow[frozenset(fault.nodes)] = 1.5
        self._world.after(fault.lasts_s, slow.pop, frozenset(fault.nodes), None)

    def _isolate(self, fault: Fault) -> None:
        """From everything but its clients."""
        self._cut_store(fault)
        self._cut_redis(fault)
        for other in self._world.nodes:
            if other != fault.nodes[0]:
                self._cut_link(Fault(fault.at_s, "", (fault.nodes[0], other), fault.lasts_s))

    def _lose_bus(self, fault: Fault) -> None:
        def set_to(share: float) -> None:
            self._world.bus_loss = share

        set_to(0.5)
        self._world.after(fault.lasts_s, set_to, 0.0)

    def _drop_clients(self, fault: Fault) -> None:
        for client in self._clients:
            if client.draw.random() < 0.5:
                client.drop()

    # -- in the end ------------------------------------------------------------------------------

    def heal(self) -> None:
        """Nothing is wrong any more; nodes that are down start."""
        world = self._world
        world.trace("HEALED")
        world.healed_at = trio.current_time()
        world.postgres.unreachable.clear()
        world.postgres.slow_s = world.bus_loss = 0.0
        world.redis.away = False
        world.redis.cut_off -= {node.run for node in world.nodes.values() if not node.dead}
        world.slow_links.clear()
        runs = [node.run for node in world.nodes.values()]
        for one in runs:
            for other in runs:
                if one < other:
                    world.network.heal(one, other)
        for name in sorted(world.nodes):
            self._world.start_again(name)


KINDS: Mapping[str, Callable[[Faults, Fault], None]] = {
    "crash": Faults._crash,
    "power": Faults._power,
    "restart": Faults._restart,
    "rolling restart": Faults._rolling,
    "drain": Faults._drain,
    "stop": Faults._stop,
    "cut from store": Faults._cut_store,
    "store away": Faults._store_away,
    "store slow": Faults._store_slow,
    "cut from redis": Faults._cut_redis,
    "redis away": Faults._redis_away,
    "redis restart": Faults._redis_restart,
    "cut link": Faults._cut_link,
    "slow link": Faults._slow_link,
    "isolate": Faults._isolate,
    "lose bus": Faults._lose_bus,
    "drop clients": Faults._drop_clients,
}
