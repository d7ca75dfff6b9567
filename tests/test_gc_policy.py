"""When garbage is collected, and that all of it is at some time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from server.runtime import gc_policy as module
from server.runtime.gc_policy import THRESHOLDS, YOUNG_MAX, Collector


class Link:
    """Refers to itself, or to nothing."""

    def __init__(self) -> None:
        self.to: Link | None = None


def circle() -> Link:
    link = Link()
    link.to = link
    return link


def make_young(count: int) -> list[Link]:
    """So many objects that live, as many as it takes for collections of all kinds but full ones."""
    return [Link() for _ in range(count)]


ENOUGH = 4 * THRESHOLDS[0] * (THRESHOLDS[1] + 1) * (THRESHOLDS[2] + 1)


@contextmanager
def installed(
    busy: Callable[[], float] = lambda: 0.0, question_open: Callable[[], bool] = lambda: False
) -> Iterator[Collector]:
    collector = Collector(busy, question_open)
    with collector.installed():
        yield collector


async def test_the_rules_of_before_come_back() -> None:
    before = gc.get_threshold(), list(gc.callbacks)
    with installed():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 1000
    assert (gc.get_threshold(), gc.callbacks) == before
    assert gc.get_freeze_count() == 0


async def test_what_lives_long_is_put_out_of_sight() -> None:
    with installed() as collector:
        links = make_young(ENOUGH)
        statistics = collector.statistics()
        assert statistics.freezes_total > 0
        assert all(statistics.collections_total[kind] for kind in ("youngest", "young", "oldest young"))
        assert statistics.collections_total["full"] == 0
        assert statistics.pause_s > 0
        assert len(gc.get_objects()) < YOUNG_MAX + ENOUGH / 2 < len(links)


async def test_however_much_there_is_already_the_young_are_frozen_in_time() -> None:
    much = make_young(20 * ENOUGH)
    with installed() as collector:
        for _ in range(2):
            before = collector.statistics().freezes_total
            links = make_young(ENOUGH)
            assert collector.statistics().freezes_total > before
            collector.collect_fully()
        assert links
        assert much


async def test_circles_of_the_young_go_without_a_full_collection() -> None:
    with installed():
        gone = weakref.ref(circle())
        links = make_young(ENOUGH)
        assert gone() is None
        assert links


async def test_what_is_frozen_still_ends_by_reference_counting() -> None:
    with installed():
        link = Link()
        links = make_young(ENOUGH)
        gone = weakref.ref(link)
        del link
        assert gone() is None
        assert links


async def test_what_became_a_circle_after_it_was_frozen_goes_at_the_next_full_collection() -> None:
    with installed() as collector:
        old = [Link() for _ in range(10)]
        links = make_young(ENOUGH)
        assert collector.statistics().freezes_total > 0
        gone = [weakref.ref(link) for link in old]
        for link in old:
            link.to = link
        del old, link
        links += make_young(ENOUGH)
        assert all(each() is not None for each in gone)
        collector.collect_fully()
        assert all(each() is None for each in gone)
        assert collector.statistics().collections_total["full"] == 1
        assert collector.statistics().full_pause_s > 0
        assert len(gc.get_objects()) < YOUNG_MAX, "all that lives is out of sight again"


async def test_a_collection_in_another_thread_is_let_be() -> None:
    with installed() as collector:
        before = collector.statistics().collections_total
        await trio.to_thread.run_sync(gc.collect)
        assert collector.statistics().collections_total["oldest young"] == before["oldest young"]


class Moments:
    """What a node does, as a test says; and when full collections came of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy = 0.0
        self.question_open = False
        self.came_at: list[float] = []
        self.collector = Collector(lambda: self.busy, lambda: self.question_open)
        self._collect = self.collector.collect_fully
        monkeypatch.setattr(self.collector, "collect_fully", self._note)

    def _note(self) -> None:
        self.came_at.append(trio.current_time())
        self._collect()

    async def over(self, seconds: float) -> list[float]:
        """What came within so many seconds, counted from their beginning."""
        self.came_at.clear()
        began_at = trio.current_time()
        with self.collector.installed(), trio.move_on_after(seconds):
            await self.collector.run()
        return [round(at - began_at) for at in self.came_at]


@pytest.fixture
async def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    return Moments(monkeypatch)


async def test_a_quiet_node_is_looked_through_every_few_minutes(
    moments: Moments, autojump_clock: MockClock
) -> None:
    assert await moments.over(1000) == [360, 720]


async def test_an_open_question_puts_it_off_for_half_an_hour(
    moments: Moments, autojump_clock: MockClock
) -> None:
    moments.question_open = True
    assert await moments.over(3000) == [1800]


async def test_a_busy_loop_puts_it_off_until_the_moment_is_quiet_enough(
    moments: Moments, autojump_clock: MockClock
) -> None:
    moments.busy = 0.7
    assert await moments.over(3000) == [2520]


async def test_it_is_not_put_off_for_more_than_an_hour(moments: Moments, autojump_clock: MockClock) -> None:
    moments.busy, moments.question_open = 1.0, True
    assert await moments.over(7300) == [3600, 7200]


async def test_much_that_was_frozen_makes_it_due_earlier_but_not_at_once(
    moments: Moments, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(module, "FULL_WITHIN_FREEZES", 1)
    moments.busy = 1.0
    with moments.collector.installed():
        links = make_young(ENOUGH)
    assert await moments.over(3000) == [60]
    assert links
