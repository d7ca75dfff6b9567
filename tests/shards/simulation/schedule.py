"""One run under a seed: whatever has a choice draws it from there, so a run that failed happens again.

This is the only place that reaches into trio's privates. Trio takes the tasks that are ready in an order of
its own choosing, on purpose, and has two switches for those who need that order again: one makes it depend
on nothing but its random instance, the other is that instance. Hypothesis turns the same two.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, TypeVar
from unittest import mock

import trio
from trio._core import _run as trio_run

from engine.actors.delivery import fanout
from engine.shards.ring import Ring
from engine.storage import session_ids

T = TypeVar("T")

ASKED_MAX = 1_000_000
"""Looks at the clock while it stands still."""


class _VirtualClock(trio.abc.Clock):
    """Goes on to the next deadline as soon as no task can run. As `MockClock` with an autojump threshold of
    0, for half the price: here no task waits for anything but time and other tasks."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._asked = 0

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        self._asked += 1
        if self._asked > ASKED_MAX:
            raise RuntimeError(f"some task does not wait for anything, at {self._now_s:.4f} s")
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked when there is nothing to run."""
        if self._now_s < deadline < inf:
            self._now_s, self._asked = deadline, 0
        return 0.0


_rings: dict[tuple[tuple[str, int], ...], Ring] = {}


def run(main: Callable[[random.Random], Awaitable[T]], seed: int) -> T:
    """Run to the end in virtual time. `main` gets the source of all randomness that is not trio's.

    What depends on the machine is not as in a node: what would run in a thread runs in the loop, after a
    moment; tasks that work in slices give way after each, or never, and not after a millisecond; ids come
    from the seed; and a ring that was computed before is not computed again.
    """
    draw = random.Random(seed)
    slice_s = draw.choice([0.0, 1e9])

    async def in_the_loop(work: Callable[..., Any], *args: object) -> Any:
        turn = getattr(getattr(work, "__self__", None), "turn", trio.lowlevel.checkpoint)
        await turn()
        return work(*args)

    with (
        _seeded(seed),
        mock.patch.object(fanout, "SLICE_S", slice_s),
        mock.patch.object(Ring, "steps", _ring_steps),
        mock.patch.object(session_ids.os, "urandom", draw.randbytes),
        mock.patch.object(trio.to_thread, "run_sync", in_the_loop),
    ):
        return trio.run(main, draw, clock=_VirtualClock())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = trio_run._r.getstate()
    trio_run._r.seed(seed)
    try:
        with mock.patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
            yield
    finally:
        trio_run._r.setstate(before)


_compute = Ring.steps


def _ring_steps(weights: dict[str, int]) -> Iterator[Ring | None]:
    key = tuple(sorted(weights.items()))
    if key not in _rings:
        *_, ring = _compute(weights)
        assert ring is not None
        _rings[key] = ring
    yield None
    yield _rings[key]
