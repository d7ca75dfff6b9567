"""How long a node waits for company before it reads from its clients, and before it commits.

How to think about it: an answer that travels alone wakes the reactor, its actor, the writer, PostgreSQL and
the writer again. A hundred answers that travel together wake each of them once. So on a node that is in use,
two looks at the sockets are at least `wait_s` apart, and so are the starts of two commits: what arrives
between them shares the way. Network cards do the same with their interrupts, and call it moderation.

               change of the distance
      longer |                                     __/
             |                                  __/
          as |             ____________________/
             |          __/
     shorter |       __/
             +------+-------+--------------+--------+-- busy share of the loop, smoothed
                           0.55           0.85      1

- It is the distance between two looks, and no delay of each: the first frame after a quiet moment waits for
  nobody. So does all that comes when a look or a commit took longer than the distance.
- It grows only on a node that has no processor time to spare: before that there is nothing to save, and
  players would feel the wait. It shrinks when a lighter load would do without.
- A node that gets no processor because other processes have it must not wait as well: each step of each
  answer is late already, and company gathers by itself. The time that the thread of the loop spent in the
  run queue of the kernel tells: from `STARVED_FROM` on the distance shrinks, and at `STARVED_TO` it is 0.
- It is calm: the busy share falls when the distance grows, so between the two bounds it stays as it is. The
  first tenths of a millisecond change most for a node, so the distance grows in proportion to itself.
"""

from __future__ import annotations

from typing import Final

from engine.actors.reads import Reads

WAIT_MAX_MS: Final = 10
"""No distance is longer, so what lies in the kernel is read at most so much later than without pacing."""

BUSY_MAX, BUSY_MIN = 0.85, 0.55
"""Busy shares above which the distance grows, and below which it shrinks."""

GROWTH_PER_S, GROWTH_FROM_MS = 24.0, 0.2
"""How fast it grows for each unit above the bound, in proportion to itself and this much more."""

FALL_MS_PER_S = 24.0
"""How fast it shrinks for each unit below the bound: within a second at rest by all of it."""

SMOOTHED_S = 0.35
"""A reading of a quarter of a second counts for five sevenths."""

STARVED_FROM, STARVED_TO = 0.25, 0.5
"""Shares of time in which the loop could have run and another process had the processor."""


class Pacing:
    """The distance in force; one object for all reads and commits of a node.

    `wait_s`: the least time from one look at the sockets to the next, and from the start of one commit to the
    start of the next, in seconds.

    `reads`: what lies unread meanwhile. `stamped`: the kernel's word is taken for when it had what is read.
    """

    __slots__ = ("_busy", "_ended", "_wait_ms", "reads", "wait_s")

    def __init__(self, *, stamped: bool = False) -> None:
        self.wait_s = 0.0
        self.reads = Reads(stamped=stamped)
        self._busy = self._wait_ms = 0.0
        self._ended = False

    def follow(self, busy: float, over_s: float, starved: float = 0.0) -> None:
        """Take a reading: the shares of the last `over_s` seconds in which the loop had something to do, and
        in which it waited for a processor."""
        self._busy += (busy - self._busy) * min(1.0, over_s / SMOOTHED_S)
        if self._ended:
            self.wait_s = 0.0
            return
        if self._busy > BUSY_MAX:
            growth = GROWTH_PER_S * over_s * (self._busy - BUSY_MAX)
            self._wait_ms = min(self._wait_ms + growth * (self._wait_ms + GROWTH_FROM_MS), WAIT_MAX_MS)
        elif self._busy < BUSY_MIN:
            self._wait_ms = max(self._wait_ms - FALL_MS_PER_S * over_s * (BUSY_MIN - self._busy), 0.0)
        room = min(max((STARVED_TO - starved) / (STARVED_TO - STARVED_FROM), 0.0), 1.0)
        self.wait_s = room * self._wait_ms / 1000

    def end(self) -> None:
        """The node stops: nothing waits for company any more."""
        self._ended = True
        self.wait_s = 0.0
