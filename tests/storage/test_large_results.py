"""A session of a hundred thousand players that is over: what is fetched of it for whom, counted in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from engine.aio import rest
from engine.ports import RESULTS_PER_SLICE, PlayerResult
from engine.storage import results
from engine.storage.postgres import Database, Row
from tests.storage.world import world_in

PLAYERS = 100_000


async def test_of_a_hundred_thousand_players_no_more_is_fetched_than_is_shown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await world_in(database)
    record, _ = await world.session()
    await database.execute(_PLAYERS, record.id, PLAYERS)
    await database.execute(_ANSWERS, record.id, PLAYERS)
    rows = 0

    async def counted(self: Database, sql: str, *args: object) -> Sequence[Row]:
        nonlocal rows
        found = await fetch(self, sql, *args)
        rows += len(found)
        return found

    fetch: Any = Database.fetch
    monkeypatch.setattr(Database, "fetch", counted)
    store = world.store

    first, total = await store.first_results(record.id, 10)
    assert ([each.player for each in first], total, rows) == (list(range(1, 11)), PLAYERS, 10)
    rows = 0
    page, total = await store.results_by_player(record.id, 50_000, 101)
    assert (page[0].player, page[-1].rank, total, rows) == (50_001, 50_101, PLAYERS, 101)
    rows = 0
    assert [each.player for each in await store.results_around(record.id, 70_000, 2)] == [
        69_998,
        69_999,
        70_000,
        70_001,
        70_002,
    ]
    assert rows == 5

    # All of them come in slices, and others have their turns in between.
    turns = Turns()
    slices: list[tuple[int, int]] = []

    def take(results: Sequence[PlayerResult]) -> None:
        slices.append((turns.count, len(results)))

    rests: list[float] = []

    async def resting(seconds: float) -> None:
        rests.append(seconds)
        await rest(seconds)

    monkeypatch.setattr(results, "rest", resting)
    rows = 0
    trio.lowlevel.add_instrument(turns)
    await store.results(record.id, take)
    assert [count for _, count in slices] == [RESULTS_PER_SLICE] * (PLAYERS // RESULTS_PER_SLICE)
    assert len({turn for turn, _ in slices}) == len(slices)
    assert rows == 0
    assert len(rests) == len(slices)
    assert all(rests)

    # Two who read at the same time do not keep the loop between them.
    slices.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(store.results, record.id, take)
    trio.lowlevel.remove_instrument(turns)
    assert max(Counter(turn for turn, _ in slices).values()) <= 2


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop. In each of them every task that can run has a step."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


_PLAYERS = """
INSERT INTO players (session_id, player, name, joined_at, seq)
SELECT $1, n, 'player ' || n, now(), n FROM generate_series(1, $2::integer) n
"""

_ANSWERS = """
INSERT INTO answers (session_id, question, player, seq, choice, elapsed_ms, correct, points, at)
SELECT $1, 1, n, $2::integer + n, '0', n, true, 200000 - n, now() FROM generate_series(1, $2::integer) n
"""
