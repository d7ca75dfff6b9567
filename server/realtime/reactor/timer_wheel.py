"""A timing wheel for very many items with one timer each: setting, moving and dropping take constant time."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

NEVER = -1


class Timed(Protocol):
    tick: int
    """For the wheel alone: where the item is; NEVER when it is not in the wheel."""


T = TypeVar("T", bound=Timed)


class Wheel(Generic[T]):
    """Items by the tick in which they are due. Late by up to one tick, never early.

    Args:
        tick_s: the length of a tick. Only as many heap operations as there are ticks with something in them.
    """

    __slots__ = ("_next", "_reached", "_slots", "_tick_s")

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._slots: dict[int, set[T]] = {}
        self._next: list[int] = []
        """The keys of `_slots` as a heap."""
        self._reached = NEVER

    def set(self, item: T, at: float) -> None:
        """Set the timer of an item, instead of any earlier one. A time in the past fires in the next tick."""
        tick = max(math.ceil(at / self._tick_s), self._reached + 1)
        if tick == item.tick:
            return
        self.drop(item)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
            heappush(self._next, tick)
        slot.add(item)
        item.tick = tick

    def drop(self, item: T) -> None:
        """Drop the timer of an item, if it has one."""
        if item.tick != NEVER:
            self._slots[item.tick].discard(item)
            item.tick = NEVER

    @property
    def next_at(self) -> float:
        """When to look again; infinity when there is nothing to wait for."""
        while self._next and not self._slots[self._next[0]]:
            del self._slots[heappop(self._next)]
        return self._next[0] * self._tick_s if self._next else math.inf

    def pop_due(self, now: float) -> T | None:
        """Take an item that is due, or None."""
        if self.next_at > now:
            return None
        self._reached = self._next[0]
        item = self._slots[self._reached].pop()
        item.tick = NEVER
        return item
