"""Tasks of a node that look at something again and again, all in the same moments.

How to think about it: to wake an idle process costs more than what such a task does then. So tasks do not
sleep for an interval, each beginning when it happened to start, but until the next beat: a moment of trio's
clock that is a whole number of intervals. Intervals that are multiples of each other share their beats, and a
node at rest wakes as often as its shortest interval says, however many tasks it has.
"""

from __future__ import annotations

import math

import trio


def next_beat(interval_s: float) -> float:
    """The moment of the next beat, on trio's clock."""
    return (math.floor(trio.current_time() / interval_s) + 1) * interval_s


async def sleep_to_beat(interval_s: float) -> None:
    """Sleep until the next beat: for the interval at most, and for a moment at least."""
    await trio.sleep_until(next_beat(interval_s))
