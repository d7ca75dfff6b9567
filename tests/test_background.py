"""What the composition root runs beside a block: a task with an order of its own to come and go in."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from server.runtime.background import background_task


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


async def test_a_task_goes_on_until_its_block_has_ended(clock: MockClock) -> None:
    told: list[str] = []

    async def task(task_status: trio.TaskStatus[str]) -> None:
        task_status.started("started")
        try:
            await trio.sleep_forever()
        finally:
            told.append("the task ends")

    with trio.move_on_after(1):
        async with background_task(task) as value:
            told.append(value)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                told.append("the block ends")
    assert told == ["started", "the block ends", "the task ends"]


async def test_a_start_can_be_cancelled(clock: MockClock) -> None:
    async def task(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(5)
        task_status.started()
        await trio.sleep_forever()

    with trio.move_on_after(1) as patience:
        async with background_task(task):
            pytest.fail("it has not started")
    assert patience.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
