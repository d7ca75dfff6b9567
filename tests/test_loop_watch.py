"""What is measured of the event loop, with machine's clocks that the tests turn."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from server.runtime.loop_watch import BEAT_S, BUSY_OVER_BEATS, MINUTE_S, NO_HOLD, Beat, LoopWatch, Recent


class Machine:
    """Time passes where a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.cpu_s = 7.0
        self.queued_s = 3.0

    def work(self, wall_s: float, cpu_s: float | None = None) -> None:
        self.now_s += wall_s
        self.cpu_s += wall_s if cpu_s is None else cpu_s

    def watch(self, on_beat: Callable[[Beat], None] = lambda beat: None) -> LoopWatch:
        clocks = {"now_s": lambda: self.now_s, "cpu_s": lambda: self.cpu_s}
        return LoopWatch(on_beat, queued_s=lambda: self.queued_s, **clocks)


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def hog(machine: Machine, *steps_s: float, cpu_s: float | None = None) -> None:
    for step_s in steps_s:
        await trio.lowlevel.checkpoint()
        machine.work(step_s, cpu_s)
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def watched(machine: Machine) -> AsyncIterator[LoopWatch]:
    watch = machine.watch()
    with watch.installed():
        await trio.lowlevel.checkpoint()
        yield watch


async def test_the_longest_step_has_its_time_and_its_task(machine: Machine) -> None:
    async with watched(machine) as watch:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hog, machine, 0.002, 0.0049, name="one that behaves")
            nursery.start_soon(hog, machine, 0.003, 0.043, 0.006, name="a hog")
        hold = watch.statistics().hold
        assert (round(hold.cpu_s, 6), hold.task) == (0.043, "a hog")
        assert round(hold.wall_s, 6) == round(watch.statistics().hold_s, 6) == 0.043
        assert watch.statistics().holds_total == 2


async def test_what_the_machine_took_away_is_not_in_the_processor_time(machine: Machine) -> None:
    async with watched(machine) as watch:
        await hog(machine, 0.006)
        await hog(machine, 0.02, cpu_s=0.004)
        statistics = watch.statistics()
        assert round(statistics.hold_s, 6) == 0.02
        assert round(statistics.hold.cpu_s, 6) == 0.006
        assert statistics.holds_total == 1


async def test_short_steps_before_a_hold_are_not_in_its_processor_time(machine: Machine) -> None:
    async with watched(machine) as watch:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(hog, machine, 0.0009)
            nursery.start_soon(hog, machine, 0.003, name="a hog")
        assert round(watch.statistics().hold.cpu_s, 6) == 0.003


async def test_what_is_too_short_to_matter_is_not_noted(machine: Machine) -> None:
    async with watched(machine) as watch:
        await hog(machine, *[0.0005] * 50)
        assert watch.statistics().hold == NO_HOLD


async def test_a_hold_is_forgotten_after_a_minute_and_kept_since_the_start(machine: Machine) -> None:
    async with watched(machine) as watch:
        await hog(machine, 0.03)
        machine.now_s += MINUTE_S + 1
        assert watch.statistics().hold == NO_HOLD
        assert round(watch.statistics().hold_ever.wall_s, 6) == 0.03


async def test_what_the_start_took_is_kept_since_the_start_alone(autojump_clock: MockClock) -> None:
    machine = Machine()
    async with watched(machine) as watch, trio.open_nursery() as nursery:
        await hog(machine, 0.3)
        nursery.start_soon(watch.run)
        await trio.sleep(BEAT_S * (BUSY_OVER_BEATS - 1) + 0.01)
        assert round(watch.statistics().hold.cpu_s, 6) == 0.3
        await trio.sleep(BEAT_S)
        assert watch.statistics().hold == NO_HOLD
        assert round(watch.statistics().hold_ever.cpu_s, 6) == 0.3
        nursery.cancel_scope.cancel()


async def test_many_short_steps_make_a_long_gap_between_looks_at_the_sockets(machine: Machine) -> None:
    async with watched(machine) as watch:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hog, machine, 0.002)
        statistics = watch.statistics()
        assert round(statistics.hold_s, 6) == 0.002
        assert round(statistics.gap_s, 6) == 0.02


async def test_a_loop_that_waits_is_idle_and_one_that_only_looks_is_not(
    machine: Machine, autojump_clock: MockClock
) -> None:
    beats: list[tuple[float, ...]] = []
    watch = machine.watch(lambda beat: beats.append(tuple(round(each, 6) for each in beat)))

    def beat(looks: int, wait_s: float) -> None:
        """As trio calls it, with a wait and several looks."""
        for timeout, passes_s in [*[(0.0, 0.01)] * looks, (1.0, wait_s)]:
            watch.before_io_wait(timeout)
            machine.now_s += passes_s
            watch.after_io_wait(timeout)
        machine.queued_s += looks * 0.005

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(0.1)
        for looks, wait_s in ((0, 0.25), (10, 0.1), (25, 0.0)):
            beat(looks, wait_s)
            await trio.sleep(0.25)
        nursery.cancel_scope.cancel()
    assert beats == [(0.0, 0.25, 0.0), (0.5, 0.2, 0.25), (1.0, 0.25, 0.5)]
    statistics = watch.statistics()
    assert round(statistics.busy_ratio, 6) == round(1 - 0.35 / 0.7, 6)
    assert round(statistics.busy_total_s, 6) == 0.35


async def test_turns_of_the_loop_are_counted(machine: Machine) -> None:
    async with watched(machine) as watch:
        before = watch.statistics().turns_total
        for _ in range(7):
            await trio.lowlevel.checkpoint()
        assert watch.statistics().turns_total == before + 7


async def test_the_lag_of_the_loop_is_measured(autojump_clock: MockClock) -> None:
    readings = itertools.chain([0.0], [0.0, 0.25, 1.0, 2.25, 3.0, 3.5], itertools.repeat(9.0))
    watch = LoopWatch(now_s=lambda: next(readings))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(0.6)
        assert (watch.statistics().lag_s, watch.statistics().beats_total) == (1.0, 2)
        nursery.cancel_scope.cancel()


async def test_the_worst_lag_is_that_of_the_last_minute(machine: Machine, autojump_clock: MockClock) -> None:
    watch = machine.watch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        for late_s in (0.1, 0.7, 0.0):
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            machine.now_s += 0.25 + late_s
            await trio.sleep(0.25)
        assert round(watch.statistics().lag_max_s, 6) == 0.7
        machine.now_s += MINUTE_S + 1
        assert watch.statistics().lag_max_s == 0
        nursery.cancel_scope.cancel()


async def test_nothing_is_watched_after_the_block(machine: Machine) -> None:
    async with watched(machine) as watch:
        await hog(machine, 0.002)
    await hog(machine, 0.5)
    assert round(watch.statistics().hold.wall_s, 6) == 0.002


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1)), max_size=50))
def test_the_greatest_is_that_of_the_last_minute(
    moves: list[tuple[float, float]],
) -> None:
    recent = Recent(0.0)
    noted: list[tuple[float, float]] = []
    now_s = 0.0
    for passes_s, value in moves:
        now_s += passes_s
        recent.note(now_s, value)
        noted.append((now_s, value))
        expected = max((value for at, value in noted if at >= now_s - MINUTE_S), default=0.0)
        assert recent.most(now_s) == expected
