"""How long a node waits for company before it reads from its clients, and before it commits.

How to think about it: an answer that travels alone wakes the reactor, its actor, the writer, PostgreSQL and
the writer again. A hundred answers that travel together wake each of them once. So on a node that is in use,
two looks at the sockets are at least `wait_s` apart, and so are the starts of two commits: what arrives
between them shares the way. Network cards do the same with their interrupts, and call it moderation.

    wait_s, ms
     10 |                                      ________
        |                                  ___/
      6 |        _________________________/
        |       /
      0 |______/
        +-----+----+----------------------+-------+---- busy share of the loop, smoothed
          0.04  0.10                     0.50    0.80

- It is the distance between two looks, and no delay of each: the first frame after a quiet moment waits for
  nobody. So does all that comes when a look or a commit took longer than the distance.
- On a quiet node the distance is 0. It rises early, because a few hundred lone answers a second are what
  costs most for each, and it stays at 6 ms over most of the range: half of that is what a frame waits on
  average, and with a commit of 1 to 2 ms half of all acknowledgements leave within 5 ms.
- A node that gets no processor because other processes have it must not wait as well: each step of each
  answer is late already, and company gathers by itself. The time that the thread of the loop spent in the
  run queue of the kernel tells: from `STARVED_FROM` on the distance shrinks, and at `STARVED_TO` it is 0.
- It is calm: the busy share falls when the distance rises, so the two meet at one point. The share is
  smoothed, and at each reading the distance rises by half of what is missing, so they meet without a swing.
  It falls at once: to wait for too little company costs some processor time, and for too much an answer.
"""

from __future__ import annotations

from typing import Final

WAIT_MAX_MS: Final = 10
"""No distance is longer, so what lies in the kernel is read at most so much later than without pacing."""

CURVE: Final = ((0.04, 0.0), (0.10, 6.0), (0.50, 6.0), (0.80, float(WAIT_MAX_MS)))
"""Busy shares, and the milliseconds of the distance there; between two of them it follows a straight line."""

SMOOTHED_S = 0.35
"""A reading of a quarter of a second counts for five sevenths: after three quarters of a second at rest, the
distance is 0 again."""

STARVED_FROM, STARVED_TO = 0.25, 0.5
"""Shares of time in which the loop could have run and another process had the processor."""

RISE_S = 0.5
"""A reading of a quarter of a second brings the distance half the way up."""


class Pacing:
    """The distance in force; one object for all reads and commits of a node.

    `wait_s`: the least time from one look at the sockets to the next, and from the start of one commit to the
    start of the next, in seconds.

    `held_ms`: how long the frames that are being read just now may have lain in the kernel because of it. The
    reactor says so before it reads, and answers are dated as if they had been read that much earlier.
    """

    __slots__ = ("_before_s", "_busy", "_ended", "held_ms", "wait_s")

    def __init__(self) -> None:
        self.wait_s = 0.0
        self.held_ms = 0
        self._busy = 0.0
        self._before_s = 0.0
        self._ended = False

    def follow(self, busy: float, over_s: float, starved: float = 0.0) -> None:
        """Take a reading: the shares of the last `over_s` seconds in which the loop had something to do, and
        in which it waited for a processor."""
        self._busy += (busy - self._busy) * min(1.0, over_s / SMOOTHED_S)
        self._before_s = self.wait_s
        if self._ended:
            self.wait_s = 0.0
            return
        room = min(max((STARVED_TO - starved) / (STARVED_TO - STARVED_FROM), 0.0), 1.0)
        goal_s = room * _curve(self._busy) / 1000
        missing_s = max(0.0, goal_s - self.wait_s)
        self.wait_s = goal_s - missing_s * max(0.0, 1 - over_s / RISE_S)

    def end(self) -> None:
        """The node stops: nothing waits for company any more."""
        self._ended = True
        self.wait_s = 0.0

    @property
    def read_within_ms(self) -> int:
        """How long a frame may lie in the kernel before the reactor looks, as far as that is the pacing's
        doing; also when the distance has just become shorter."""
        return WAIT_MAX_MS if self.wait_s or self._before_s else 0


def _curve(busy: float) -> float:
    (before, low), *points = CURVE
    if busy <= before:
        return low
    for share, high in points:
        if busy <= share:
            return low + (high - low) * (busy - before) / (share - before)
        before, low = share, high
    return low
