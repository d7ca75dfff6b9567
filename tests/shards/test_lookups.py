"""Thousands who ask for one session at once: one look in the store, and one outcome for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import copy

import pytest
import trio
from trio.testing import MockClock

from engine.actors.commands import Watch
from engine.actors.options import ActorOptions
from engine.actors.refusals import NodeFull, SessionFinished
from engine.boundary import Mistake
from engine.domain.settings import Settings
from engine.ports import OwnedElsewhere, SessionNotFound, SessionRecord, StorageUnavailable
from engine.shards.session_locator import FAILED_S
from tests.actors.world import QUIZ, Client, RunningNode, World, settle, world
from tests.counting import Steps
from tests.keys import NOT_QUITE

N = 1_000


class Looks:
    """Counts the looks into a store. With an `error` all of them fail with that."""

    def __init__(self, w: World, error: Callable[[], Exception] | None = None) -> None:
        self._find = w.store.find
        self._error = error
        self.total = 0
        w.store.find = self.find  # type: ignore[method-assign]

    async def find(self, key: str) -> SessionRecord:
        self.total += 1
        if self._error is not None:
            await trio.lowlevel.checkpoint()
            raise self._error()
        return await self._find(key)


@pytest.mark.parametrize(
    "error",
    [
        SessionNotFound("123456"),
        StorageUnavailable("away"),
        NodeFull(),
        Mistake("x"),
        OwnedElsewhere("a", "b"),
    ],
)
def test_a_refusal_that_is_remembered_is_a_copy(error: Exception) -> None:
    again = copy(error)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


async def asked(node: RunningNode, key: str) -> Counter[type[Exception]]:
    """What `get` raises for all who ask at once. Each of them is woken a few times at most."""
    raised: Counter[type[Exception]] = Counter()

    async def ask() -> None:
        try:
            await node.router.get(key)
        except Exception as error:  # noqa: BLE001 - that is what is counted
            raised[type(error)] += 1

    steps = Steps()
    async with trio.open_nursery() as nursery:
        for _ in range(N):
            nursery.start_soon(ask)
    steps.stop()
    assert len(steps.names) < 5 * N
    return raised


failures = pytest.mark.parametrize(
    ("error", "code", "raised"),
    [
        (None, "session_not_found", SessionNotFound),
        (lambda: StorageUnavailable("away"), "busy", StorageUnavailable),
        (lambda: ValueError("a mistake of ours"), "busy", Mistake),
    ],
)


@failures
async def test_all_who_send_to_a_session_that_is_not_to_be_had_are_told_from_one_look(
    error: Callable[[], Exception] | None, code: str, raised: type[Exception], mock_clock: MockClock
) -> None:
    async with world() as w:
        looks = Looks(w, error)
        clients = [Client() for _ in range(N)]
        steps = Steps()
        for client in clients:
            w.router.deliver("999999", Watch(client))
        await settle()
        steps.stop()
        assert looks.total == 1
        assert len(steps.names) < N / 2, "one task tells them, and gives way now and then"
        assert all(client.errors == [code] for client in clients)
        assert w.router.waiting == 0


@failures
async def test_all_who_ask_for_a_session_that_is_not_to_be_had_are_told_from_one_look(
    error: Callable[[], Exception] | None, code: str, raised: type[Exception], mock_clock: MockClock
) -> None:
    async with world() as w:
        looks = Looks(w, error)
        assert await asked(w.node, "999999") == {raised: N}
        assert looks.total == 1
        mock_clock.jump(FAILED_S)
        assert await asked(w.node, "999999") == {raised: N}
        assert looks.total == 2, "whoever comes later looks anew"


async def test_a_session_that_is_over_is_found_to_be_by_one_look(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=1.0)) as w:
        actor = await w.session()
        await w.do(actor, "finish")
        mock_clock.jump(60)
        await settle()
        assert w.registry.here(actor.session_id) is None
        looks = Looks(w)
        assert await asked(w.node, actor.code) == {SessionFinished: N}
        assert looks.total == 1


async def test_a_node_without_room_says_so_after_one_look(mock_clock: MockClock) -> None:
    async with world() as w:
        there = await w.session()
        async with trio.open_nursery() as nursery:
            full = w.another("another", nursery)
            full.registry._sessions_max = 0
            looks = Looks(w)
            assert await asked(full, there.code) == {NodeFull: N}
            assert looks.total == 1


async def test_all_who_come_back_to_a_session_at_once_are_seated_by_one_look(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=1.0)) as w:
        record = (await w.session()).record
        mock_clock.jump(60)
        await settle()
        assert w.registry.here(record.id) is None
        looks = Looks(w)
        clients = [Client() for _ in range(N)]
        for client in clients:
            w.router.deliver(record.code, Watch(client))
        await settle()
        assert looks.total == 1
        assert all(client.kinds[0] == "joined" for client in clients)


async def test_a_look_does_not_depend_on_the_patience_of_who_asked_first(mock_clock: MockClock) -> None:
    async with world() as w:
        record = await w.router._factory.store((await w.catalog.add(QUIZ)).id, Settings())
        looks = Looks(w)

        async def impatient() -> None:
            with trio.move_on_after(0):
                await w.router.get(record.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            for _ in range(10):
                nursery.start_soon(w.router.get, record.code)
        assert looks.total == 1


async def test_what_is_no_key_of_a_session_is_not_looked_for(mock_clock: MockClock) -> None:
    async with world() as w:
        looks = Looks(w)
        for key in NOT_QUITE:
            client = Client()
            w.router.deliver(key, Watch(client))
            assert client.errors == ["session_not_found"], "at once"
            with pytest.raises(SessionNotFound):
                await w.router.get(key)
        assert looks.total == 0
