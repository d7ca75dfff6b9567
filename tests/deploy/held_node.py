"""`fanfare` with a step that holds the loop while a file `hold` lies beside the data directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from server.cli.main import main
from server.runtime.loop_watch import LoopWatch

EVERY_S = 2.0
HELD_S = 0.2

_watched = LoopWatch.before_task_step
_next_s = 0.0


def _held(self: LoopWatch, task: trio.lowlevel.Task) -> None:
    global _next_s
    _watched(self, task)
    if time.monotonic() >= _next_s:
        _next_s = time.monotonic() + EVERY_S
        if HOLD.exists():
            until_s = time.thread_time() + HELD_S
            while time.thread_time() < until_s:
                pass


if __name__ == "__main__":
    HOLD = Path(sys.argv[sys.argv.index("--data-dir") + 1]).parent / "hold"
    LoopWatch.before_task_step = _held  # type: ignore[method-assign]  # what is to be seen from outside
    main()
