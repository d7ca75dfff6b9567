"""A task that runs as long as a block does, and comes and goes in an order of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio


@asynccontextmanager
async def background_task(
    task: Callable[..., Awaitable[object]], *, end: Callable[[], object] | None = None
) -> AsyncIterator[Any]:
    """Run a task in the background of the block, from its start until the block has ended.

    A cancellation from outside reaches the block alone; the task goes on until the block is left, and is then
    ended: by `end` if it is given, else by cancelling it. If the task fails, the block is cancelled.
    Gives what the task was started with.
    """
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[Any]) -> None:
        with scope:
            await task(task_status=task_status)

    async with trio.open_nursery() as nursery:
        started = await nursery.start(run)
        # Not before: a task that is cancelled while it starts has no block to go on for.
        scope.shield = True
        try:
            yield started
        finally:
            (end or scope.cancel)()
