"""A node looks after the sessions of the cluster, whatever else is away."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from engine.domain.session import Phase
from engine.ports import StorageUnavailable
from engine.shards.rebalancer import LOOK_EVERY_S, Rebalancer
from engine.shards.ring import Ring
from tests.fakes import MemoryCatalog, MemorySessionStore
from tests.shards.making import member_of


def a_moving(**parts: Any) -> Rebalancer:
    """Of a node that is alone so far, with nothing but what the test gives it."""
    around = SimpleNamespace(live={}, ring=Ring.of({}))
    nothing = dict.fromkeys(("registry", "router", "store", "journal", "links", "clock"))
    return Rebalancer(**cast(Any, {**nothing, "members": around, "me": "me", **parts}))


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
    moving = a_moving(store=store, registry=SimpleNamespace(active=list))
    with pytest.raises(StorageUnavailable):
        await moving.take_over()
    await nursery.start(moving.run)
    await trio.sleep(LOOK_EVERY_S)
    assert len(asked) > 3


async def test_a_drain_waits_for_nothing_when_all_nodes_leave(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    other = member_of("other")
    around = SimpleNamespace(live={"me": member_of("me"), "other": other}, ring=Ring.of({}))
    playing = SimpleNamespace(session=SimpleNamespace(phase=Phase.QUESTION))
    moving = a_moving(registry=SimpleNamespace(active=lambda: [playing]), members=around)
    drained = trio.Event()

    async def drain() -> None:
        await moving.drained()
        drained.set()

    nursery.start_soon(drain)
    await trio.sleep(5.0)
    assert not drained.is_set()
    around.live["other"] = replace(other, draining=True)
    with trio.fail_after(1.0):
        await drained.wait()
