"""The ports of the shards in memory: one Redis for all nodes of a process, and ways to break it.

They pass the same contract tests as the real one (tests/shards/test_contract.py). All time is trio's, which
may be virtual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf

import orjson
import trio

from engine.shards.ports import BUS_BYTES_MAX, Beat, BusMessage, BusUnavailable, Load, Member


@dataclass(frozen=True, eq=False)
class _Listener:
    node: str
    hear: Callable[[BusMessage], None]


class MemoryRedis:
    """What all nodes share. `heartbeats(node)` and `bus(node)` make a node's ends of it; `run` delivers what
    is published.

    - `away = True`: nobody reaches it, and heartbeats expire all the same.
    - `cut_off`: nodes that do not reach it. What was published meanwhile, or would arrive then, is lost.
    - `restart()`: it starts anew and knows nothing.
    - `lag_s`: asked by node for every heartbeat, how long that is under way, there and back each.
    - `fates`: asked with the sender, the receiver and the message, for each that is to hear it: the delays
      after which it does, in seconds. None drops it, several repeat it, different ones change the order.
    """

    def __init__(self, *, ttl_s: float = 3.0) -> None:
        self.ttl_s = ttl_s
        self.away = False
        self.cut_off: set[str] = set()
        self.lag_s: Callable[[str], float] = lambda node: 0.0
        self.fates: Callable[[str, str, BusMessage], Sequence[float]] = lambda sender, receiver, message: (
            0.0,
        )
        self._starts = count(1)
        self._store_run = f"redis {next(self._starts)}"
        self._signs: dict[str, tuple[Member, Load, float]] = {}
        self._listeners: list[_Listener] = []
        self._deliveries: list[tuple[float, int, _Listener, bytes]] = []
        self._numbers = count()
        self._published = trio.Event()

    def heartbeats(self, node: str) -> MemoryHeartbeats:
        return MemoryHeartbeats(self, node)

    def bus(self, node: str) -> MemoryBus:
        return MemoryBus(self, node)

    def restart(self) -> None:
        self._store_run = f"redis {next(self._starts)}"
        self._signs.clear()

    def expire(self, run: str) -> None:
        """As if the TTL of its heartbeat were over."""
        self._signs.pop(run, None)

    def forget(self, node: str) -> None:
        """The process of this node has ended: it hears nothing more."""
        self._listeners = [listener for listener in self._listeners if listener.node != node]

    def reached_by(self, node: str) -> bool:
        return not self.away and node not in self.cut_off

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            self._published = trio.Event()
            while self._deliveries and self._deliveries[0][0] <= trio.current_time():
                _, _, listener, data = heappop(self._deliveries)
                if listener in self._listeners and self.reached_by(listener.node):
                    listener.hear(orjson.loads(data))
            with trio.move_on_at(self._deliveries[0][0] if self._deliveries else inf):
                await self._published.wait()

    # What the nodes' ends do.

    async def travel(self, node: str) -> None:
        """One way between a node and Redis."""
        await trio.sleep(self.lag_s(node))
        if not self.reached_by(node):
            raise BusUnavailable("made unavailable by the test")

    def sign(self, member: Member, load: Load) -> Beat:
        self._signs[member.run] = (member, load, trio.current_time() + self.ttl_s)
        return self.look()

    def look(self) -> Beat:
        now_s = trio.current_time()
        self._signs = {run: sign for run, sign in self._signs.items() if sign[2] > now_s}
        left_s = {run: until_s - now_s for run, (_, _, until_s) in self._signs.items()}
        return Beat([(each, told) for each, told, _ in self._signs.values()], self._store_run, left_s=left_s)

    def publish(self, sender: str, message: BusMessage, data: bytes) -> None:
        for listener in self._listeners if self.reached_by(sender) else ():
            for delay_s in self.fates(sender, listener.node, message):
                due_s = trio.current_time() + delay_s
                heappush(self._deliveries, (due_s, next(self._numbers), listener, data))
        self._published.set()

    def listen(self, node: str, hear: Callable[[BusMessage], None]) -> None:
        self._listeners.append(_Listener(node, hear))


class MemoryHeartbeats:
    """Port `Heartbeats`."""

    def __init__(self, redis: MemoryRedis, node: str) -> None:
        self._redis = redis
        self._node = node

    async def beat(self, member: Member, load: Load) -> Beat:
        await self._redis.travel(self._node)
        beat = self._redis.sign(member, load)
        await self._redis.travel(self._node)
        return beat

    async def look(self) -> Beat:
        await self._redis.travel(self._node)
        beat = self._redis.look()
        await self._redis.travel(self._node)
        return beat

    async def withdraw(self, member: Member) -> None:
        await self._redis.travel(self._node)
        self._redis.expire(member.run)
        await self._redis.travel(self._node)


class MemoryBus:
    """Port `Bus`."""

    def __init__(self, redis: MemoryRedis, node: str) -> None:
        self._redis = redis
        self._node = node

    def publish(self, message: BusMessage) -> None:
        data = orjson.dumps(message)
        if len(data) > BUS_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes are too many for the bus")
        self._redis.publish(self._node, message, data)

    def listen(self, hear: Callable[[BusMessage], None]) -> None:
        self._redis.listen(self._node, hear)
