"""Leaderboards in Redis are those of PostgreSQL, or they say nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.aio import call
from engine.scores import EPOCH, Board, Change, Entry
from engine.shards import board_sets as board_sets_module
from engine.shards.board_sets import RedisBoardSets
from engine.shards.embedded_redis import EmbeddedRedis
from engine.shards.redis import RedisServices, open_redis
from engine.storage import scoring as scoring_module
from engine.storage.leaderboards import Leaderboards
from engine.storage.postgres import Database
from engine.storage.scoring import Scoring
from engine.storage.user_scores import forget_user
from server.scores import Scores
from tests.storage.scored import ZONE, Line, boards_of, independent, played

NOW = datetime.now(UTC).replace(microsecond=123_000)
ALL = Board("best", "", "all", EPOCH)

entries = st.builds(
    Entry,
    user_id=st.text(
        st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=8
    ),
    score=st.sampled_from((0, 1, 500, 2**53 - 1, 2**53)) | st.integers(0, 2**53),
    elapsed_ms=st.sampled_from((0, 1, 255, 256, 2**48 - 1)) | st.integers(0, 2**48 - 1),
    reached_at=st.sampled_from((0, 255, 256, 2**47)) | st.integers(0, 2**48 - 1),
)


@given(st.lists(entries, max_size=20))
def test_doubles_and_bytes_have_the_order_of_entries(found: list[Entry]) -> None:
    by_redis = sorted(found, key=lambda each: (float(-each.score), each.member))
    by_sql = sorted(
        found, key=lambda each: (-each.score, each.elapsed_ms, each.reached_at, each.user_id.encode())
    )
    assert by_redis == by_sql
    assert [Entry.of_member(each.member, float(-each.score)) for each in found] == found


class Sets:
    """A database, a Redis of its own, and what keeps them together."""

    def __init__(self, database: Database, redis: RedisServices, server: EmbeddedRedis) -> None:
        self.database = database
        self.boards = Leaderboards(database)
        self.sets = RedisBoardSets(redis)
        self.scoring = Scoring(database, rule="best", zone=ZONE, sets=self.sets)
        self.redis = redis
        self.server = server

    async def shown(self, board: Board) -> list[Line] | None:
        """As Redis has it. A set that says nothing is filled."""
        number = await self.boards.number(board)
        if number is None:
            return []
        page = await self.sets.page(number, 0, 1000)
        if page is None:
            await self.scoring.fill(number)
            page = await self.sets.page(number, 0, 1000)
        if page is None:
            return None
        assert page.total == len(page.entries)
        lines: list[Line] = []
        for rank, entry in page.ranked():
            assert rank is not None
            lines.append((rank, entry.user_id, entry.score, entry.elapsed_ms, entry.reached_at))
        return lines

    async def check(self) -> None:
        """Every leaderboard is that of the facts, and so are the lines around each user."""
        for board in boards_of("best", [NOW.date()], ["capitals", "rivers"]):
            found = await self.shown(board)
            assert found == await independent(self.database, board)
            number = await self.boards.number(board)
            for at, line in enumerate(found):
                assert number is not None
                entry = await self.boards.entry(number, line[1])
                assert entry is not None
                near = await self.sets.around(number, entry, 2)
                assert near is not None
                assert near == await self.boards.around(number, line[1], 2)
                assert [each.user_id for each in near.entries] == [
                    each[1] for each in found[max(at - 2, 0) : at + 3]
                ]

    async def follow(self, rng: Random) -> None:
        """A play, after which the sets show what the tables have."""
        await self.play(rng)
        await self.scoring.settle()
        await self.check()

    async def look(self) -> None:
        """Often enough to see that sets are not true, to begin anew and to fill them."""
        for _ in range(3):
            await self.scoring.look()
        await self.check()

    async def play(self, rng: Random) -> None:
        plays: dict[str | None, list[tuple[int, int]]] = {
            user: [(rng.choice((0, 500, 1000)), rng.choice((100, 200)))]
            for user in rng.sample(["ann", "bob", "zoë", "\U0001f600", "eve"], 3)
        }
        moment = NOW - timedelta(minutes=rng.randrange(3))
        await played(self.database, plays, moment, rng.choice(("capitals", "rivers")))


@pytest.fixture
def server(short_tmp_path: Path, cluster: str) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(short_tmp_path / cluster)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def sets(
    database: Database, server: EmbeddedRedis, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sets]:
    monkeypatch.setattr(board_sets_module, "_RESPITE_S", 0.0)
    monkeypatch.setattr(scoring_module, "ENTRIES_PER_STEP", 2)
    async with open_redis(server.url, cluster, ttl_s=3.0) as redis:
        yield Sets(database, redis, server)


async def test_sorted_sets_follow_every_change(sets: Sets) -> None:
    rng = Random(1)
    await sets.follow(rng)
    filled = sets.scoring.statistics().sets_filled_total
    for _ in range(5):
        await sets.play(rng)
        await sets.scoring.settle()
    await sets.check()
    await forget_user(sets.database, "ann")
    await sets.database.execute("UPDATE players SET user_id = NULL WHERE user_id = 'ann'")
    await sets.scoring.settle()
    await sets.check()
    assert (
        sets.scoring.statistics().sets_filled_total - filled == 3
    )  # those of a quiz that was not played before
    keys = await call(sets.redis.client.keys, "*")
    assert all([b"ann" not in (await call(sets.redis.client.dump, key) or b"") for key in keys])


async def test_a_flushed_redis_is_filled_again(sets: Sets) -> None:
    rng = Random(2)
    await sets.follow(rng)
    given_up = sets.scoring.statistics().sets_given_up_total
    await call(sets.redis.client.flushall)
    number = await sets.boards.number(ALL)
    assert number is not None
    assert await sets.sets.page(number, 0, 10) is None
    await sets.look()
    # In the midst of the changes, and of filling.
    for _ in range(3):
        await sets.play(rng)
        await call(sets.redis.client.flushall)
        await sets.scoring.settle()
        await sets.check()
    assert sets.scoring.statistics().sets_given_up_total == given_up + 4


async def test_a_change_that_redis_has_missed_costs_the_sets_and_not_their_truth(sets: Sets) -> None:
    rng = Random(3)
    await sets.follow(rng)
    assert sets.server.pid is not None
    os.kill(sets.server.pid, signal.SIGSTOP)
    try:
        await sets.play(rng)
        await sets.scoring.settle()  # PostgreSQL is not held up
    finally:
        os.kill(sets.server.pid, signal.SIGCONT)
    await sets.look()


async def test_a_change_that_redis_has_and_postgresql_has_not_is_no_truth(sets: Sets) -> None:
    rng = Random(4)
    await sets.follow(rng)
    number = await sets.boards.number(ALL)
    [row] = await sets.database.fetch("SELECT revision FROM leaderboard_progress")
    ghost = Change(number or 0, None, Entry("ghost", 9999, 1, 1))
    assert await call(sets.sets.apply, row["revision"] + 1, [ghost])
    assert "ghost" in [line[1] for line in await sets.shown(ALL) or []]
    await sets.look()
    await sets.follow(rng)


async def test_a_filling_that_was_cut_off_is_done_again_and_misses_nothing(sets: Sets) -> None:
    rng = Random(5)
    for _ in range(3):
        await sets.play(rng)
    await sets.scoring.settle()
    number = await sets.boards.number(ALL)
    assert number is not None
    assert await sets.sets.begin_filling(number)
    await sets.scoring._fill_on(sets.sets, number, "")  # and then its node was gone
    assert not await sets.scoring.fill(number)
    assert await sets.sets.page(number, 0, 10) is None
    await sets.play(rng)
    await sets.scoring.settle()
    keys = await call(sets.redis.client.keys, "*filling*")
    await call(sets.redis.client.delete, *keys)
    await sets.check()


async def test_what_was_given_up_is_freed(sets: Sets) -> None:
    rng = Random(6)
    await sets.follow(rng)
    before = set(await call(sets.redis.client.keys, "*:boards:1:*"))
    await call(sets.redis.client.hset, f"{sets.redis.cluster}:boards:1", "revision", 77)
    await sets.look()
    after = set(await call(sets.redis.client.keys, "*:boards:1:*"))
    assert len(before) == len(after)
    assert not before & after
    for key in after:
        assert await call(sets.redis.client.pttl, key) > 0


async def test_a_dead_redis_is_said_to_be(sets: Sets, cluster: str) -> None:
    await played(sets.database, {"ann": [(1, 1)]}, NOW)
    sets.server.stop()
    await sets.scoring.settle()
    assert [tuple(row) for row in await sets.database.fetch("SELECT user_id FROM user_scores")] == [("ann",)]
    number = await sets.boards.number(ALL)
    with pytest.raises(board_sets_module.SetsUnavailable):
        await sets.sets.page(number or 0, 0, 10)


async def test_a_node_answers_from_redis_and_without_it_from_postgresql(sets: Sets) -> None:
    rng = Random(7)
    for _ in range(3):
        await sets.play(rng)
    scores = Scores(sets.database, rule="best", zone=ZONE, sets=sets.sets)
    await scores.look()
    board = scores.board("", "all", NOW.date())
    async with trio.open_nursery() as nursery:
        await nursery.start(scores.run)
        expected = await scores.page(board, 0, 10)
        while not scores.statistics().scoring.sets_filled_total:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await scores.page(board, 0, 10) == expected
        around = await scores.around(board, "ann")
        assert (scores.statistics().from_postgres_total, scores.statistics().from_redis_total) == (1, 2)
        sets.server.stop()
        assert await scores.page(board, 0, 10) == expected
        assert (await scores.around(board, "ann")).lines == around.lines
        assert (scores.statistics().from_postgres_total, scores.statistics().from_redis_total) == (3, 2)
        nursery.cancel_scope.cancel()
