"""What a leaderboard over sessions costs in Redis: its memory, a change of a user, a page, the own lines.

One Redis, which nobody else uses, holds one set of as many members as the service has users. Times are those
of a whole question, from the node and back; beside them stands what Redis itself spends on it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import trio
from redis.asyncio import Redis

from bench.figures import Figure
from engine.aio import call, open_asyncio
from engine.scores import Change, Entry
from engine.shards.board_sets import RedisBoardSets
from engine.shards.embedded_redis import EmbeddedRedis
from engine.shards.redis import RedisServices, open_redis

MEMBERS = 15_000_000
CALLS = 5_000
FILLED_AT_ONCE = 2_000
POURED_AT_ONCE = 10_000
BOARD = 1
AT_MS = 1_790_000_000_000
SCORE_MAX = 2_000_000


def entry(number: int, version: int = 0) -> Entry:
    """What a user has, or has after a change, computed so that none has to be kept. At first users are in
    their order, ten on a score: sets are made fastest in it. A change takes a user anywhere."""
    if version == 0:
        return Entry(f"user-{number:08}", SCORE_MAX - number // 10, number % 10 * 1_000, AT_MS + number)
    mixed = number * 48_271 % 2_147_483_647
    return Entry(
        f"user-{number:08}", mixed % SCORE_MAX, mixed // 7 % 10_000_000, AT_MS + mixed % 1_000_000_000
    )


_POUR = f"""
for number = ARGV[1], ARGV[2] - 1 do
    local order = struct.pack('>I6I6', number % 10 * 1000, {AT_MS} + number)
    local member = order .. string.format('user-%08d', number)
    redis.call('ZADD', KEYS[1], math.floor(number / 10) - {SCORE_MAX}, member)
end
return 1
"""
"""Makes the same entries inside of Redis, which is what takes least time."""


async def fill(url: str, redis: RedisServices, sets: RedisBoardSets, members: int) -> float:
    """Returns how many µs each of the first members took, which are filled as a node does."""
    await call(sets.settle, 0)
    first = [entry(number) for number in range(min(members, FILLED_AT_ONCE))]
    began_s = time.perf_counter()
    assert await call(lambda: sets.fill(BOARD, 0, first, done=False))
    took_us = 1e6 * (time.perf_counter() - began_s) / len(first)
    [key] = await call(redis.client.keys, f"*:boards:*:*:{BOARD}")
    patient = Redis.from_url(url, socket_timeout=60.0)
    pour = patient.register_script(_POUR)
    for number in range(len(first), members, POURED_AT_ONCE):
        await call(pour, [key], [number, min(number + POURED_AT_ONCE, members)])
    await call(patient.aclose)
    assert await call(lambda: sets.fill(BOARD, 0, (), done=True))
    assert await call(redis.client.zcard, key) == members + 1
    return took_us


async def memory(redis: RedisServices) -> int:
    found = await call(redis.client.info, "memory")
    return int(found["used_memory"])


async def cpu_us(redis: RedisServices) -> float:
    found = await call(redis.client.info, "cpu")
    return 1e6 * (found["used_cpu_sys"] + found["used_cpu_user"])


async def measured(
    redis: RedisServices, what: str, at: str, calls: int, ask: Callable[[int], Awaitable[object]]
) -> list[Figure]:
    times_us = []
    before_us = await cpu_us(redis)
    for n in range(calls):
        began = time.perf_counter()
        assert await ask(n)
        times_us.append(1e6 * (time.perf_counter() - began))
    spent_us = await cpu_us(redis) - before_us
    cuts = statistics.quantiles(times_us, n=100)
    return [
        Figure(f"{what}, p50", at, cuts[49], "µs"),
        Figure(f"{what}, p99", at, cuts[98], "µs"),
        Figure(f"{what}, Redis", at, spent_us / calls, "µs CPU"),
    ]


async def measure(directory: Path, members: int, calls: int) -> list[Figure]:
    server = EmbeddedRedis(directory)
    url = await trio.to_thread.run_sync(server.start)
    try:
        async with open_asyncio(), open_redis(url, "bench", ttl_s=3.0) as redis:
            sets = RedisBoardSets(redis)
            at = f"{members:,} members"
            empty = await memory(redis)
            filled_us = await fill(url, redis, sets, members)
            used = await memory(redis) - empty
            figures = [
                Figure("memory", at, used / 2**20, "MiB"),
                Figure("memory of a member", at, used / members, "bytes"),
                Figure("filling, a member", at, filled_us, "µs"),
            ]
            rng = Random(1)
            users = rng.sample(range(members), calls)

            async def update(n: int) -> bool:
                change = Change(BOARD, entry(users[n]), entry(users[n], 1))
                return await call(sets.apply, n + 1, [change])

            figures += await measured(redis, "update", at, calls, update)
            figures += await measured(
                redis, "around", at, calls, lambda n: sets.around(BOARD, entry(users[n], 1), 2)
            )
            figures += await measured(
                redis, "page of 100", at, calls, lambda n: sets.page(BOARD, n % 9_900, 100)
            )
            return figures
    finally:
        await trio.to_thread.run_sync(server.stop)


def run(members: int = MEMBERS, calls: int = CALLS) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as directory:
        return trio.run(measure, Path(directory), members, calls)
