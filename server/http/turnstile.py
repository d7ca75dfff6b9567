"""A few at a time, so that many together do not hold the loop."""

from __future__ import annotations

import trio

AT_A_TIME = 8
"""At 0.2 ms for an event and about 0.5 ms for a request, this is what a look at the network may wait for."""


class Turnstile:
    """Lets a few tasks go on in each turn of the loop, the others after them, in the order they came.

    Trio runs all that can run before it looks at the network again. One broadcast wakes every event stream of
    a session, and hypercorn needs 0.2 ms of the processor for each: without this, a thousand of them hold the
    loop for as long as they take together.
    """

    def __init__(self, width: int = AT_A_TIME) -> None:
        self._width = trio.Semaphore(width)

    async def go_through(self) -> None:
        async with self._width:
            await trio.lowlevel.checkpoint()
