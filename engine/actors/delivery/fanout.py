"""One frame to many subscribers, in slices, so that no session holds the loop for long.

How to think about it: a fan-out is an iterator, and each of its steps pushes to a few subscribers. So a
fan-out in progress is a piece of work with a position. Whoever drives it takes as many steps as fit into a
slice and then does something else: a session takes answers (`FanoutQueue`), a relay lets others have their
turn (`in_slices`). An iterator is made with the audience as it is at that moment: a subscriber that comes
later is not part of the fan-out, and one that has gone, or has taken another seat, gets no more of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import trio

from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Paced, Subscriber, push_all
from engine.latency import Latency

SLICE_S = 0.001
"""How long a slice may hold the loop. Another task waits for two of them at worst, because the loop takes its
tasks in any order; with a collection of garbage in between that has to stay below the promised 5 ms."""

CHUNK = 16
"""Pushes between two looks at the clock: 0.2 ms, most of it the kernel's."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A fan-out waits for a subscriber to have room again, but not beyond a moment on trio's clock."""

    subscriber: Paced
    until: float

    @property
    def is_over(self) -> bool:
        return self.subscriber.has_room or trio.current_time() >= self.until

    async def over_or(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Until there is room, or `wait` returns."""
        async with trio.open_nursery() as nursery:

            async def until_room() -> None:
                await self.subscriber.wait_for_room()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_room)
            await wait()
            nursery.cancel_scope.cancel()


Steps = Iterator[Stall | None]
"""A fan-out: each step pushes to a few subscribers, or says what the next step has to wait for."""


class Slicer:
    """Gives way to other tasks once the current slice has lasted long enough.

    It reads the machine's clock, never the session's: what it bounds is real time on the processor.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def breathe(self) -> bool:
        """A checkpoint if the slice is over, else nothing at all. Returns whether it was."""
        if time.perf_counter() < self._until:
            return False
        await trio.lowlevel.checkpoint()
        self._until = time.perf_counter() + SLICE_S
        return True


def fan_out(seats: Mapping[Subscriber, object], here: Mapping[Subscriber, object], frame: Frame) -> Steps:
    """Push a frame to every subscriber of `seats`, which must not change meanwhile, as long as the subscriber
    has that same seat `here`."""
    remaining = iter(seats.items())
    while chunk := list(islice(remaining, CHUNK)):
        for subscriber, seat in chunk:
            if here.get(subscriber) is seat:
                subscriber.push(frame)
        yield None


def fan_out_each(pairs: Iterable[tuple[Subscriber, Frame] | None]) -> Steps:
    """Push to every subscriber a frame of its own, made as the subscriber is reached. None stands for a
    subscriber that is not here: to find that out takes time too."""
    remaining = iter(pairs)
    while chunk := list(islice(remaining, CHUNK)):
        for pair in chunk:
            if pair is not None:
                subscriber, frame = pair
                subscriber.push(frame)
        yield None


def fan_out_groups(pairs: Iterable[tuple[Subscriber, Sequence[Frame]] | None]) -> Steps:
    """As `fan_out_each`, with several frames for each subscriber, pushed at one time."""
    remaining = iter(pairs)
    while chunk := list(islice(remaining, CHUNK)):
        for pair in chunk:
            if pair is not None:
                push_all(*pair)
        yield None


async def in_slices(steps: Steps) -> None:
    """Take all steps, with a checkpoint after each slice."""
    slicer = Slicer()
    for stall in steps:
        if stall is None:
            await slicer.breathe()
        else:
            with trio.move_on_at(stall.until):
                await stall.subscriber.wait_for_room()


@dataclass(slots=True)
class _Fanout:
    steps: Steps
    done: Callable[[int], None] | None
    queued_s: float
    held_s: float = 0.0


class FanoutQueue:
    """The fan-outs of one session that are not finished. Each has gone to all before the next one begins.

    Args:
        latency: counts the time that each takes, from when it is queued.
    """

    __slots__ = ("_latency", "_queue", "stall")

    def __init__(self, latency: Latency) -> None:
        self._latency = latency
        self._queue: deque[_Fanout] = deque()
        self.stall: Stall | None = None
        """What the next step has to wait for."""

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(self, steps: Steps, done: Callable[[int], None] | None = None) -> None:
        """Queue a fan-out. Args: done: called when the fan-out is finished, with the time in ms for which it
        has held the loop, all slices together."""
        self._queue.append(_Fanout(steps, done, trio.current_time()))

    def advance(self) -> None:
        """Do one slice."""
        if self.stall is not None and not self.stall.is_over:
            return
        self.stall = None
        until = time.perf_counter() + SLICE_S
        while self._queue and self._advance(first := self._queue[0], until):
            if self._queue:  # not if a push has ended the session
                self._queue.popleft()
                self._latency.add(trio.current_time() - first.queued_s)
            if first.done is not None:
                first.done(round(1000 * first.held_s))

    def _advance(self, fanout: _Fanout, until: float) -> bool:
        """Whether the fan-out is finished."""
        began = trio.current_time()
        for stall in fanout.steps:
            if stall is not None or time.perf_counter() >= until:
                self.stall = stall
                fanout.held_s += trio.current_time() - began
                return False
        fanout.held_s += trio.current_time() - began
        return True

    def clear(self) -> None:
        """Push nothing more."""
        self._queue.clear()
        self.stall = None
