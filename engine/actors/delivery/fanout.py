"""One frame to many subscribers, in slices, so that no session holds the loop for long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

import trio

from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber

SLICE_S = 0.001
"""How long a slice may hold the loop. Another task waits for two of them at worst, because the loop takes its
tasks in any order; with a collection of garbage in between that has to stay below the promised 5 ms."""

CHUNK = 16
"""Pushes between two looks at the clock: 0.2 ms, most of it the kernel's."""


class Slicer:
    """Gives way to other tasks once the current slice has lasted long enough.

    It reads the machine's clock, never the session's: what it bounds is real time on the processor.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def breathe(self) -> None:
        """A checkpoint if the slice is over, else nothing at all."""
        if time.perf_counter() >= self._until:
            await trio.lowlevel.checkpoint()
            self._until = time.perf_counter() + SLICE_S


async def fan_out(subscribers: Sequence[Subscriber], frame: Frame, slicer: Slicer) -> None:
    """Push a frame to every subscriber. They must not change meanwhile; one that ended ignores the push."""
    for start in range(0, len(subscribers), CHUNK):
        for subscriber in subscribers[start : start + CHUNK]:
            subscriber.push(frame)
        await slicer.breathe()


async def fan_out_each(pairs: Iterable[tuple[Subscriber, Frame] | None], slicer: Slicer) -> None:
    """Push to every subscriber a frame of its own, made as it is reached. None stands for somebody who is not
    here: to find that out takes time too."""
    remaining = iter(pairs)
    while chunk := list(islice(remaining, CHUNK)):
        for pair in chunk:
            if pair is not None:
                subscriber, frame = pair
                subscriber.push(frame)
        await slicer.breathe()
