"""Counts what a loop does: such counts are the same on every machine."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
import trio


class Steps(trio.abc.Instrument):
    """The steps of all tasks until `stop`: `names` has the name of the task of each, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        trio.lowlevel.add_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name)

    @property
    def functions(self) -> list[str]:
        """The names without the modules and classes of the tasks' functions."""
        return [name.rpartition(".")[2] for name in self.names]

    def stop(self) -> None:
        with suppress(KeyError):
            trio.lowlevel.remove_instrument(self)


def counted_timers(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """When each timer is to fire that is set in the loop from now on."""
    timers: list[object] = []
    call_at = loop.call_at

    def counted(when: float, *args: object, **more: object) -> object:
        timers.append(when)
        return call_at(when, *args, **more)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(loop, "call_at", counted)
    return timers
