"""The bridge to asyncio: the one place that imports trio_asyncio.

Some clients exist for asyncio alone. They run in an asyncio loop that is itself a part of trio's: in a
thread of their own a busy trio loop starves them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

with warnings.catch_warnings():
    # Python 3.12 and 3.13 warn of a base class of trio_asyncio's that 3.14 has removed. Nothing here uses it.
    warnings.filterwarnings("ignore", "'AbstractChildWatcher' is deprecated", DeprecationWarning)
    import trio_asyncio  # type: ignore[import-untyped]  # ships no types

_log = logging.getLogger(__name__)

T = TypeVar("T")


@asynccontextmanager
async def open_asyncio() -> AsyncIterator[None]:
    """Within the block, `call` works in this task and in every task started from it.

    Open it outside of every nursery whose tasks use `call`: they must end before the loop does.
    """
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_on_trouble)
        yield


def _on_trouble(loop: Any, context: dict[str, Any]) -> None:
    """An error that nobody waits for any more, such as that of a connection whose set-up was given up,
    changes nobody's result. trio_asyncio would end the whole node for it, as it rightly does for others."""
    if str(context.get("message", "")).endswith("exception was never retrieved"):
        _log.warning("%s: %r", context["message"], context.get("exception"))
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
