"""A few at a time, so that many together do not hold the loop."""

from __future__ import annotations

from weakref import WeakValueDictionary

import trio

from server.security.limits import network_of

AT_A_TIME = 8
"""At 0.2 ms for an event and about 0.5 ms for a request, this is what a look at the network may wait for."""


AT_A_TIME_EACH = 2
"""Requests of one address among them."""


class Throttle:
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


class FairThrottle:
    """A throttle with a queue for each address: however many requests one of them sends,
    the others wait for the few at its front, and not for all."""

    def __init__(self, width: int = AT_A_TIME, width_each: int = AT_A_TIME_EACH) -> None:
        self._all = Throttle(width)
        self._width_each = width_each
        self._queues: WeakValueDictionary[str, trio.Semaphore] = WeakValueDictionary()
        """Of those who are in them, who keep them."""

    def __len__(self) -> int:
        """Addresses in a queue."""
        return len(self._queues)

    async def go_through(self, address: str) -> None:
        network = network_of(address)
        queue = self._queues.get(network)
        if queue is None:
            queue = self._queues[network] = trio.Semaphore(self._width_each)
        async with queue:
            await self._all.go_through()
