"""A node at rest wakes as rarely as its shortest beat, however many tasks have one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.clock import BEAT_S as CLOCK_BEAT_S
from engine.actors.upkeep import Upkeep
from engine.beats import next_beat, sleep_to_beat
from engine.lease import LoneLease
from engine.storage.heartbeat import Alone
from server.config.config import Config
from server.realtime.conversation import ConversationDeps
from server.realtime.reactor.transport import ReactorTransport
from server.runtime.gc_policy import Collector
from server.runtime.loop_watch import BEAT_S, LoopWatch
from server.security.limits import Attempts
from server.security.tokens import Tokens
from tests.actors.world import World, world

REST_S = 60.0
BEATS = round(REST_S / BEAT_S)


@asynccontextmanager
async def node(w: World) -> AsyncIterator[LoopWatch]:
    """All tasks of a lone node that look again and again, but for what they ask the database."""
    tokens = Tokens(b"a secret for these tests", 3_600, w.clock)
    deps = ConversationDeps(w.router, tokens, w.clock, Attempts(1_000), 100, 100)
    watch = LoopWatch()
    collector = Collector(watch.busy, lambda: False)
    upkeep = Upkeep(w.registry, w.store, w.clock, max_age_s=86_400)
    with socket.create_server(("127.0.0.1", 0)) as bound, watch.installed():
        async with trio.open_nursery() as nursery:
            await nursery.start(ReactorTransport(deps, Config()).serve, [bound])
            for task in (watch.run, collector.run, upkeep.keep_time, upkeep.sweep):
                nursery.start_soon(task)
            nursery.start_soon(Alone(LoneLease()).watch, trio.current_time)
            yield watch
            nursery.cancel_scope.cancel()


async def moments_at_work() -> int:
    """In a minute."""
    await sleep_to_beat(1.0)
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(REST_S)
    trio.lowlevel.remove_instrument(steps)
    return len(steps.moments)


class Steps(trio.abc.Instrument):
    """The moments at which any task had something to do."""

    def __init__(self) -> None:
        self.moments: set[float] = set()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name != "<autojump>":
            self.moments.add(trio.current_time())


async def lobby(w: World, players: int) -> SessionActor:
    actor = await w.session()
    for number in range(players):
        await w.join(actor, f"P{number}")
    await trio.sleep(10)
    return actor


def test_the_beats_of_the_loop_and_of_the_clock_are_the_same() -> None:
    assert BEAT_S == CLOCK_BEAT_S


@pytest.mark.parametrize("players", [0, 100])
async def test_a_node_at_rest_wakes_once_a_beat(autojump_clock: MockClock, players: int) -> None:
    async with world() as w, node(w):
        if players:
            await lobby(w, players)
        assert await moments_at_work() <= BEATS + 2


async def test_tasks_with_intervals_that_are_multiples_share_their_beats(autojump_clock: MockClock) -> None:
    woken: set[float] = set()

    async def look(began_s: float, interval_s: float) -> None:
        await trio.sleep(began_s)
        while True:
            await sleep_to_beat(interval_s)
            woken.add(trio.current_time())

    with trio.move_on_after(10.1):
        async with trio.open_nursery() as nursery:
            for began_s, interval_s in ((0.01, 0.25), (0.13, 0.5), (0.77, 1.0), (0.2, 0.25)):
                nursery.start_soon(look, began_s, interval_s)
    assert len(woken) == 40


async def test_a_beat_is_an_interval_away_at_most(autojump_clock: MockClock) -> None:
    for slept_s in (0.0, 0.1, 0.0499, 0.0001, 0.31):
        await trio.sleep(slept_s)
        for interval_s in (0.05, 0.25, 1.0):
            assert 0 < next_beat(interval_s) - trio.current_time() <= interval_s + 1e-9
