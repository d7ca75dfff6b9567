"""The server's clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

GAP_S = 1.0
"""If no task has run for longer than this, the process or its machine was stopped."""

BEAT_S = 0.25
"""The pause between two beats. A gap may seem longer by that much."""


SLEW_MS = 1
"""How much a beat sets back a clock that is ahead of the wall clock: 4 ms a second."""

AGREE_MS = 10
"""A clock that differs less from the wall clock is left unchanged."""

GAPS_MAX = 100
"""The most gaps that are kept for sessions that have not seen them yet."""


def gap_s(lease_s: float) -> float:
    """How long a node may stand still before it checks whether it still owns its sessions."""
    return min(GAP_S, lease_s / 3)


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the epoch. Never runs backwards within a process."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which the process stood still: its start and its length, in milliseconds."""

    from_ms: int
    by_ms: int


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SessionClock:
    """Wall time, read once and continued by trio's clock.

    So the clock is steady while the wall clock is set, and virtual where trio's clock is virtual. It follows
    the wall clock by `catch_up` alone. Must be made inside `trio.run`.

    If `beat` is called often, the first reading after the process has stood still records a gap, before
    anything else is done.

    Args:
        wall_ms: the wall clock; or its reading at the start, for a clock that does not follow it.
        gap_s: a longer standstill is a gap.
        machine_s: seconds of a clock that runs on while the machine sleeps.
    """

    def __init__(
        self,
        wall_ms: Callable[[], int] | int = wall_clock_ms,
        *,
        gap_s: float = GAP_S,
        machine_s: Callable[[], float] | None = None,
    ) -> None:
        self._wall = wall_ms if callable(wall_ms) else None
        self._wall_ms = wall_ms() if callable(wall_ms) else wall_ms
        self._told_ms = self._wall_ms
        self._started_s = self._read_s()
        self._gap_s = gap_s
        self._machine_s = machine_s or self._read_s
        self._beat: tuple[float, float] | None = None
        """The last beat, by trio's clock and by `machine_s`."""
        self._seen_s = self._started_s
        self.gaps_total = 0
        self.stood_still_ms = 0
        """The length of all gaps."""
        self._gaps: deque[Gap] = deque(maxlen=GAPS_MAX)

    def _read_s(self) -> float:
        return trio.current_time()

    def now_ms(self) -> int:
        now_s = self._read_s()
        if now_s - self._seen_s > self._gap_s and self._beat is not None:
            self._note(self._at(self._seen_s), now_s - self._seen_s)
        self._seen_s = now_s
        # The clock may have been set back by a little: then its reading stays the same for a moment.
        self._told_ms = max(self._told_ms, self._at(now_s))
        return self._told_ms

    def trio_time(self, at_ms: float) -> float:
        """The moment `at_ms` on trio's clock, in seconds, for cancel scopes. A task that wakes then reads at
        least `at_ms` from `now_ms`."""
        return self._started_s + (at_ms - self._wall_ms) / 1000

    def ms_at(self, trio_s: float) -> int:
        """What this clock says at a moment of trio's clock that is not long ago."""
        return self._at(trio_s)

    def beat(self) -> None:
        """Call this much more often than a gap is long."""
        now_ms = self.now_ms()
        now_s, machine_s = self._seen_s, self._machine_s()
        if self._beat is not None:
            slept_s = machine_s - self._beat[1] - (now_s - self._beat[0])
            if slept_s > self._gap_s:
                # Trio's clock stood still while the machine slept, but time has passed.
                self._wall_ms += round(slept_s * 1000)
                self._note(now_ms, slept_s)
        self._beat = now_s, machine_s

    def offset_ms(self) -> int:
        """How far the wall clock is ahead of this clock."""
        return 0 if self._wall is None else self._wall() - self.now_ms()

    @property
    def is_off(self) -> bool:
        """Whether `catch_up` would change anything."""
        return abs(self.offset_ms()) >= AGREE_MS

    def catch_up(self) -> None:
        """Adjust to the wall clock, which was set, or ran on while the machine was frozen: forward at once,
        back by a little at a time. Call this while no session waits for a deadline."""
        offset_ms = self.offset_ms()
        if offset_ms >= AGREE_MS:
            self._wall_ms += offset_ms
        elif offset_ms <= -AGREE_MS:
            self._wall_ms -= SLEW_MS

    def gaps_after(self, total: int) -> Sequence[Gap]:
        """The gaps that were recorded after the first `total` gaps."""
        missed = min(self.gaps_total - total, len(self._gaps))
        return list(self._gaps)[len(self._gaps) - missed :]

    def _at(self, read_s: float) -> int:
        return self._wall_ms + round((read_s - self._started_s) * 1000)

    def _note(self, from_ms: int, by_s: float) -> None:
        gap = Gap(from_ms, round(by_s * 1000))
        self._gaps.append(gap)
        self.gaps_total += 1
        self.stood_still_ms += gap.by_ms


class GapsSeen:
    """The gaps of the clock that one session has handled: each gap is given back to the session once, and an
    answer that was received before a gap is dated as if there had been no gap."""

    __slots__ = ("_clock", "_seen", "given_back")

    def __init__(self, clock: SessionClock) -> None:
        self._clock = clock
        self._seen = clock.gaps_total
        self.given_back: list[Gap] = []
        """Gaps since the open question was opened."""

    @property
    def stood_still(self) -> bool:
        """Whether the process stood still and the session has not handled that yet. Until then the session
        sends nothing and no time passes in it, because another node may have taken it and no player could
        answer."""
        return self._clock.gaps_total != self._seen

    def take(self) -> Sequence[Gap]:
        """The gaps that the session has not handled. They count as handled from now on."""
        gaps = self._clock.gaps_after(self._seen)
        self._seen = self._clock.gaps_total
        self.given_back += gaps
        return gaps

    def dated(self, at: int, held_ms: int) -> tuple[int, int]:
        """When an answer was read on the clock of the question, to which time was given back since then, and
        how long it counts as held in the kernel: not since before the end of a gap."""
        for gap in self.given_back:
            if at <= gap.from_ms:
                at += gap.by_ms
            else:
                held_ms = min(held_ms, max(0, at - gap.from_ms - gap.by_ms))
        return at, held_ms
