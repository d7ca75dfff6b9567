"""One run under a seed: whatever has a choice draws it from there, so a run that failed happens again.

This is the only place that reaches into trio's privates. Trio takes the tasks that are ready in an order of its
own choosing, on purpose, and has two switches for those who need that order again: one makes it depend on
nothing but its random instance, the other is that instance. Hypothesis turns the same two.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

from engine.actors import fanout
from engine.shards.ring import Ring

T = TypeVar("T")

_rings: dict[tuple[tuple[str, int], ...], Ring] = {}


def run(main: Callable[[random.Random], Awaitable[T]], seed: int) -> T:
    """Run to the end in virtual time. `main` gets the source of all randomness that is not trio's.

    Three things that depend on the machine are not as in a node: what would run in a thread runs in the loop,
    after a moment; tasks that work in slices give way after each, or never, and not after a millisecond; and
    a ring that was computed before is not computed again.
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
        mock.patch.object(trio.to_thread, "run_sync", in_the_loop),
    ):
        return trio.run(main, draw, clock=MockClock(autojump_threshold=0))


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
