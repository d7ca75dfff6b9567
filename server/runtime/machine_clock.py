"""A clock that a stopped process does not stop."""

from __future__ import annotations

import sys
import time


def machine_s() -> float:
    """Seconds that also pass while this process is stopped and, on Linux, while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
