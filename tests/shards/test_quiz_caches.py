"""What the caches of quizzes spare the database over a day, counted."""

from __future__ import annotations

from random import Random

from engine.aio import call, open_asyncio
from engine.ports import StoredQuiz
from engine.shards.redis import open_redis
from engine.storage.catalog import CachedCatalog
from tests.fakes import MemoryCatalog
from tests.storage.making import quiz_of

STEP_S = 300
STEPS = 24 * 3600 // STEP_S
SESSIONS_PER_STEP = 30
QUIZZES = 10
EDITS = 20


class Database(MemoryCatalog):
    """Counts what it is asked for."""

    reads = 0

    async def get(self, quiz_id: str, version: int | None = None) -> StoredQuiz:
        self.reads += 1
        return await super().get(quiz_id, version)


async def test_over_a_day_of_play_the_database_is_read_for_a_tenth_of_the_look_ups_at_most(
    redis_url: str, cluster: str
) -> None:
    """Two nodes open a session every ten seconds; for each, its quiz is looked up by its id, and then by the
    version. Authors edit quizzes, and all nodes hear of it."""
    rng = Random(1)
    now_s = 0.0
    database = Database()
    async with open_asyncio(), open_redis(redis_url, cluster, ttl_s=3.0) as redis:
        shared = [redis.quiz_cache(database) for _ in range(2)]
        nodes = [CachedCatalog(each, current_time=lambda: now_s) for each in shared]
        quizzes = [await nodes[0].add(quiz_of(f"Quiz {n}")) for n in range(QUIZZES)]
        edits = sorted(rng.sample(range(STEPS * SESSIONS_PER_STEP), EDITS))
        looked_up = 0
        for step in range(STEPS):
            now_s = step * STEP_S
            # Which version is the newest is kept in Redis for a minute.
            await call(redis.client.delete, *(f"{cluster}:owned-quiz:1:{each.id}:newest" for each in quizzes))
            for n in range(SESSIONS_PER_STEP):
                if edits and edits[0] == step * SESSIONS_PER_STEP + n:
                    edits.pop(0)
                    at = rng.randrange(QUIZZES)
                    quizzes[at] = await nodes[0].add(quiz_of(f"Edit {len(edits)}"), quizzes[at].id)
                    for node in nodes:
                        node.invalidate(quizzes[at].id)
                node = rng.choice(nodes)
                newest = quizzes[int(rng.betavariate(1, 4) * QUIZZES)]
                assert await node.get(newest.id) == newest
                assert await node.get(newest.id, newest.version) == newest
                looked_up += 2
    hits, misses = sum(each.counts.hits for each in nodes), sum(each.counts.misses for each in nodes)
    assert (hits + misses, database.reads) == (looked_up, sum(each.counts.misses for each in shared))
    assert sum(each.counts.hits for each in shared) == misses - database.reads > 0
    assert database.reads <= looked_up / 10
    assert sum(each.counts.invalidations for each in shared) == QUIZZES + EDITS
