"""What happened when: the reports of all generators, second by second."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.runs.histogram import Histogram

LATENCIES = ("join", "ack", "board", "late")
DURATIONS = (*LATENCIES, "beside", "tick")
"""What is counted as a histogram. `beside` is the ack of players whom a fault does not concern; the tick is
announced, not waited for."""

COUNTED = (
    "answers_sent",
    "acks",
    "frames",
    "joined",
    "gone",
    "never_in",
    "reconnects",
    "moved",
    "handed",
    "connections",
    "stalls",
)
PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)


@dataclass(slots=True)
class Second:
    """One second of the run. Counts are those of this second; `open` is how many players are in."""

    counts: Counter[str] = field(default_factory=Counter)
    durations: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in DURATIONS})
    open: int = 0
    late_s: float = 0.0
    """How late the latest timer of a generator was."""
    usage: dict[str, float] = field(default_factory=dict)
    """Whatever was sampled beside, by name."""


@dataclass(frozen=True, slots=True)
class WaveState:
    """How the players of one generator stand. `came` counts those who have joined, or left without."""

    came: int = 0
    gone: int = 0
    over: bool = False


def state(pulse: Mapping[str, Any] | None) -> WaveState:
    """By the latest word of a generator."""
    if pulse is None:
        return WaveState()
    return WaveState(pulse["joined"] + pulse["never_in"], pulse["gone"], pulse["over"])


class Timeline:
    """Takes the pulses of the generators.

    Args:
        zero_s: the beginning, on the machine's monotonic clock.
    """

    def __init__(self, zero_s: float) -> None:
        self.zero_s = zero_s
        self.seconds: dict[int, Second] = {}
        self.totals: Counter[str] = Counter()
        self.durations = {name: Histogram() for name in DURATIONS}
        self._latest: dict[int, Mapping[str, Any]] = {}

    def take(self, generator: int, pulse: Mapping[str, Any]) -> None:
        second = self.at(pulse["at"])
        before = self._latest.get(generator, {})
        for name in COUNTED:
            more = pulse[name] - before.get(name, 0)
            second.counts[name] += more
            self.totals[name] += more
        for name in DURATIONS:
            heard = Histogram.from_dict(pulse[name])
            second.durations[name].merge(heard)
            self.durations[name].merge(heard)
        self._latest[generator] = pulse
        second.open = self.open
        second.late_s = max(second.late_s, pulse["late_s"])

    def state_of(self, generator: int) -> WaveState:
        return state(self._latest.get(generator))

    def at(self, moment_s: float) -> Second:
        return self.seconds.setdefault(max(int(moment_s - self.zero_s), 0), Second())

    def between(self, from_s: float, to_s: float) -> list[Second]:
        """The seconds that lie wholly within, in order."""
        within = range(math.ceil(from_s), math.floor(to_s))
        return [self.seconds[number] for number in within if number in self.seconds]

    @property
    def open(self) -> int:
        """Players who are in, by the latest word of each generator."""
        return sum(pulse["open"] for pulse in self._latest.values())

    @property
    def all_over(self) -> bool:
        return bool(self._latest) and all(pulse["over"] for pulse in self._latest.values())

    def tally(self, name: str) -> dict[str, int]:
        """`ends` or `refused` of all generators, the most frequent first."""
        return dict(
            sum((Counter(pulse[name]) for pulse in self._latest.values()), Counter[str]()).most_common()
        )

    @property
    def latest(self) -> Second | None:
        """The last second that is over."""
        if len(self.seconds) < 2:
            return None
        return self.seconds[sorted(self.seconds)[-2]]

    @property
    def usage(self) -> Mapping[str, float]:
        """What was sampled last."""
        sampled = [number for number, second in self.seconds.items() if second.usage]
        return self.seconds[max(sampled)].usage if sampled else {}

    def series(self) -> list[dict[str, Any]]:
        """One row a second, for the report."""
        return [
            {
                "s": number,
                "open": second.open,
                **{name: second.counts[name] for name in COUNTED},
                **{
                    f"{name}_ms": second.durations[name].percentiles_ms((50, 99, 100))
                    for name in DURATIONS
                    if second.durations[name].count
                },
                "generator_late_ms": round(second.late_s * 1000, 1),
                **{name: round(value, 3) for name, value in sorted(second.usage.items())},
            }
            for number, second in sorted(self.seconds.items())
        ]
