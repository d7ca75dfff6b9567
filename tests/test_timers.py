"""What is done later."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from engine.boundary import Boundary
from server.runtime.timers import Timers


async def test_each_call_comes_when_it_is_due_and_a_mistake_in_one_costs_no_other(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Timers(Boundary())
    came: list[tuple[str, float]] = []

    def note(what: str) -> None:
        came.append((what, trio.current_time()))
        if what == "b":
            raise ValueError(what)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.run)
        waiting.call_later(3, lambda: note("c"))
        await trio.sleep(0.5)
        waiting.call_later(0.5, lambda: note("a"))
        waiting.call_later(1.5, lambda: note("b"))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [(what, at - began) for what, at in came] == [("a", 1), ("b", 2), ("c", 3)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_bounded_number_may_wait() -> None:
    async def main() -> None:
        waiting = Timers(Boundary(), waiting_max=3)
        assert [waiting.call_later(1, lambda: None) for _ in range(5)] == [True, True, True, False, False]
        assert len(waiting) == 3

    trio.run(main)
