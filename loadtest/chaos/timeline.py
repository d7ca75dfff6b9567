"""Acks over time: when there were any, how long they took, and for how long there were none."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from loadtest.runs.fleet import Pulse
from loadtest.runs.histogram import Histogram
from loadtest.runs.timeline import WaveState, state

PULSE_S = 0.1
"""How often the generators report: moments are known as exactly as this."""

AFTERMATH_S = 1.0
"""What is acknowledged this soon after a fault is over still counts as acknowledged during it."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What all players have counted."""

    joined: int
    acks: int
    sent: int
    reconnects: int
    refused: Mapping[str, int]
    ends: Mapping[str, int]


class AckTimeline:
    """Takes the pulses of all generators. Moments are of the machine's monotonic clock."""

    def __init__(self) -> None:
        self.ack = Histogram()
        """Latency of every ack."""
        self.ack_in_faults = Histogram()
        """Latency of the acks that came during faults."""
        self._fault_until = -1.0
        self._at: list[float] = []
        self._acks: list[int] = []
        self._latest: dict[int, Pulse] = {}
        self._fresh = trio.Event()
        self._fresh_from = 0.0

    def take(self, wave: int, pulse: Pulse) -> None:
        before: Mapping[str, Any] = self._latest.get(wave, {"acks": 0, "at": pulse["at"] - PULSE_S})
        self._latest[wave] = pulse
        heard = Histogram.from_dict(pulse["ack"])
        self.ack.merge(heard)
        if before["at"] < self._fault_until:
            self.ack_in_faults.merge(heard)
        acks = pulse["acks"] - before["acks"]
        if acks:
            # Pulses of several generators come nearly in order.
            self._at.append(max(pulse["at"], self._at[-1] if self._at else 0.0))
            self._acks.append(acks)
            if before["at"] >= self._fresh_from:
                self._fresh.set()

    async def ack_after(self, moment: float) -> float:
        """Wait for an answer that was acknowledged after the moment for sure. Returns when it was."""
        self._fresh, self._fresh_from = trio.Event(), moment
        await self._fresh.wait()
        return self._at[-1]

    def begin_fault(self) -> None:
        self._fault_until = float("inf")

    def end_fault(self, moment: float) -> None:
        self._fault_until = moment + AFTERMATH_S

    def acks_between(self, begin: float, end: float) -> int:
        return sum(self._acks[bisect_left(self._at, begin) : bisect_left(self._at, end)])

    def longest_silence_s(self, begin: float, end: float) -> float:
        """The longest time within these moments in which nobody was told of an ack."""
        heard = [begin, *self._at[bisect_left(self._at, begin) : bisect_left(self._at, end)], end]
        return max((later - earlier for earlier, later in itertools.pairwise(heard)), default=0.0)

    def state_of(self, wave: int) -> WaveState:
        return state(self._latest.get(wave))

    def totals(self) -> Totals:
        latest = self._latest.values()
        return Totals(
            joined=sum(pulse["joined"] for pulse in latest),
            acks=self.acks,
            sent=sum(pulse["answers_sent"] for pulse in latest),
            reconnects=sum(pulse["reconnects"] for pulse in latest),
            refused=_added(pulse["refused"] for pulse in latest),
            ends=_added(pulse["ends"] for pulse in latest),
        )

    @property
    def acks(self) -> int:
        return sum(self._acks)

    @property
    def playing(self) -> int:
        """Players who are in."""
        return sum(pulse["open"] for pulse in self._latest.values())


def _added(counts: Any) -> dict[str, int]:
    return dict(sum((Counter(each) for each in counts), Counter[str]()).most_common())
