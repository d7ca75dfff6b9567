"""One frame to many subscribers, in slices, so that no session holds the loop for long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

import trio

from engine.actors.frame import Frame
from engine.actors.subscriber import Subscriber

SLICE_S = 0.002
"""How long a slice may hold the loop. The promise is 5 ms; a slice looks at the clock every 64 pushes."""

CHUNK = 64


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


async def fan_out_each(pairs: Iterable[tuple[Subscriber, Frame]], slicer: Slicer) -> None:
    """Push to every subscriber a frame of its own, made as it is reached."""
    remaining = iter(pairs)
    while chunk := list(islice(remaining, 16)):
        for subscriber, frame in chunk:
            subscriber.push(frame)
        await slicer.breathe()
