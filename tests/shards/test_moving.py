"""A node looks after the sessions of the cluster, whatever else is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from engine.ports import StorageUnavailable
from engine.shards.moving import LOOK_EVERY_S, Moving
from engine.shards.ring import Ring
from tests.fakes import MemoryCatalog, MemorySessionStore


async def test_a_store_that_is_away_ends_nothing_and_is_asked_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemorySessionStore(MemoryCatalog())
    store.available = False
    asked: list[float] = []
    orphans = store.orphans

    async def note(live: Any) -> Any:
        asked.append(trio.current_time())
        return await orphans(live)

    monkeypatch.setattr(store, "orphans", note)
    moving = Moving(
        registry=cast(Any, SimpleNamespace(active=list)),
        router=cast(Any, None),
        store=store,
        journal=cast(Any, None),
        neighbours=cast(Any, SimpleNamespace(live={}, ring=Ring.of({}))),
        links=cast(Any, None),
        bus=cast(Any, None),
        clock=cast(Any, None),
        me="me",
    )
    with pytest.raises(StorageUnavailable):
        await moving.take_over()
    await nursery.start(moving.run)
    await trio.sleep(LOOK_EVERY_S)
    assert len(asked) > 3
