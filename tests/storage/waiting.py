"""Waiting for what a task of the same loop brings about, without looking at the clock."""

from __future__ import annotations

from collections.abc import Callable

import trio


class _Looking(trio.abc.Instrument):
    def __init__(self, condition: Callable[[], object]) -> None:
        self._condition = condition
        self.holds = trio.Event()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self.holds.is_set() and self._condition():
            self.holds.set()


async def until(condition: Callable[[], object], *, within_s: float = 30.0) -> None:
    """Until the condition holds. It is looked at after every step of any task; it must not raise."""
    if condition():
        return
    looking = _Looking(condition)
    trio.lowlevel.add_instrument(looking)
    try:
        with trio.fail_after(within_s):
            await looking.holds.wait()
    finally:
        trio.lowlevel.remove_instrument(looking)
