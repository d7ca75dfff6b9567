"""What a benchmark reports.

Everything is measured in rounds, and in each round what is compared runs right after what it is compared
with. A figure is the median over the rounds, and its ratio the median of the ratios within the rounds: what
the rest of the machine does meanwhile falls on both.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import nan
from pathlib import Path
from statistics import median

import psutil


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ratio` is to what `to` names."""

    what: str
    at: str
    value: float
    unit: str
    ratio: float | None = None
    to: str = ""


def measure(name: str) -> list[Figure]:
    """Run one benchmark of this package."""
    figures: list[Figure] = import_module(f"bench.{name}").run()
    return figures


class Costs:
    """What was measured by name and size, one value a round."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, int], list[float]] = {}

    def add(self, what: str, size: int, value: float) -> None:
        self._rounds.setdefault((what, size), []).append(value)

    @contextmanager
    def cpu_us(self, what: str, size: int, calls: int = 1) -> Iterator[None]:
        """Processor time of this process in the block, in microseconds a call."""
        started = time.process_time()
        yield
        self.add(what, size, (time.process_time() - started) * 1e6 / calls)

    def median(self, what: str, size: int) -> float:
        return median(self._rounds[what, size])

    def rounds(self, what: str, size: int) -> list[float]:
        return self._rounds[what, size]

    def ratio(self, what: str, size: int, to: str, to_size: int) -> float:
        """The median of the rounds. A round that was too short for the clock is left out; not a number if
        each of them was."""
        mine, theirs = self._rounds[what, size], self._rounds[to, to_size]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True) if b]
        return median(ratios) if ratios else nan


def percentile(values: Sequence[float], part: float) -> float:
    """`part` from 0 to 1."""
    return sorted(values)[int(part * (len(values) - 1))]


def process_cpu_s(pid: int) -> float:
    """Processor time that another process has used, all its threads together."""
    if sys.platform == "linux":
        # The kernel's own clock of the process (CPUCLOCK_SCHED), in nanoseconds; /proc counts in 10 ms.
        return time.clock_gettime((~pid << 3) | 2)
    user_s, system_s = psutil.Process(pid).cpu_times()[:2]
    return float(user_s + system_s)


def machine() -> str:
    """The facts that absolute figures depend on."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({_processor()}) · {platform.python_implementation()} "
        f"{platform.python_version()} · {platform.system()} {platform.release()} · load average {load}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
