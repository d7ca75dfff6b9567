"""How long the kernel has let this thread wait for a processor."""

from __future__ import annotations

from pathlib import Path

SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Nanoseconds on a processor, nanoseconds in the run queue, and turns (Linux, Documentation/scheduler/
sched-stats)."""


def run_queue_s() -> float:
    """Seconds in which the calling thread could have run and did not, since it began. 0 on a system that does
    not tell."""
    try:
        return int(SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
