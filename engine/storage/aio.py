"""The bridge to asyncio: the one place that imports trio_asyncio.

Some clients exist for asyncio alone. They run in an asyncio loop that is itself a part of trio's: in a
thread of their own a busy trio loop starves them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio_asyncio  # type: ignore[import-untyped]  # ships no types

_log = logging.getLogger(__name__)

T = TypeVar("T")


@asynccontextmanager
async def open_asyncio() -> AsyncIterator[None]:
    """Within the block, `call` works in this task and in every task started from it.

    Open it outside of every nursery whose tasks use `call`: they must end before the loop does.
    """
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_handle)
        yield


def _handle(loop: Any, context: dict[str, Any]) -> None:
    """A client that gave up connecting leaves a future behind, and when the connection then breaks nobody is
    there to hear of it. That is no reason to end; anything else that nobody waited for is."""
    error = context.get("exception")
    if isinstance(error, OSError):
        _log.debug("a connection that nobody waited for any more: %s", error)
    else:
        loop.default_exception_handler(context)


async def call(function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run an asyncio-flavoured function to its end.

    Cancellation is passed on to it as asyncio's, and waits for it to unwind: what it holds is given back in
    good order. Code inside must not use trio. Raises RuntimeError outside of `open_asyncio`.
    """
    if trio_asyncio.current_loop.get() is None:
        raise RuntimeError("asyncio functions can be called within `open_asyncio()` only")
    result: T = await trio_asyncio.aio_as_trio(function)(*args)
    return result
