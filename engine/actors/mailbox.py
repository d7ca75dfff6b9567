"""The bounded input queue of an actor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A bounded queue: many tasks put items without waiting, one task takes them.

    A full mailbox refuses an item; the caller decides what that means (`busy`).
    """

    __slots__ = ("_items", "_wakeup", "_woken", "arrived", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.arrived = 0
        """How many items were ever queued: the number of the newest."""
        self._items: deque[T] = deque()
        self._wakeup: trio.Event | None = None
        self._woken = False

    def __len__(self) -> int:
        return len(self._items)

    def put_nowait(self, item: T) -> bool:
        """Queue an item. False when the mailbox is full; then nothing is queued."""
        if len(self._items) >= self.capacity:
            return False
        self.put_over(item)
        return True

    def put_over(self, item: T) -> None:
        """Queue an item even when full: for the few commands that free something."""
        self._items.append(item)
        self.arrived += 1
        self.wake()

    def put_back(self, items: Sequence[T]) -> None:
        """Queue items that were taken out, in their order and before all others, even when the mailbox is
        full."""
        self._items.extendleft(reversed(items))

    @property
    def taken(self) -> int:
        """How many items were ever taken out: the number of the last of them."""
        return self.arrived - len(self._items)

    def newest(self, after: int) -> Iterator[tuple[int, T]]:
        """The number of each item above `after`, and the item, newest first."""
        count = self.arrived - max(after, self.taken)
        return zip(
            range(self.arrived, self.arrived - count, -1), islice(reversed(self._items), count), strict=True
        )

    @property
    def is_due(self) -> bool:
        """Whether `wait` returns, or would return, without anything more."""
        return self._woken or bool(self._items)

    def wake(self) -> None:
        """Make `wait` return without an item."""
        self._woken = True
        if self._wakeup is not None:
            self._wakeup.set()

    async def wait(self, *, for_items: bool = True) -> None:
        """Wait until there are items, if `for_items`, or until a wake since the last return. Always a
        checkpoint."""
        if self._woken or (for_items and self._items):
            await trio.lowlevel.checkpoint()
        else:
            self._wakeup = trio.Event()
            try:
                await self._wakeup.wait()
            finally:
                self._wakeup = None
        self._woken = False

    def peek(self) -> T | None:
        """The oldest item, which stays in the mailbox; None when there is none."""
        return self._items[0] if self._items else None

    def pop(self) -> T:
        """Take the oldest item. Raises IndexError when there is none."""
        return self._items.popleft()
