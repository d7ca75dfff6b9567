"""Play many seeds, on all cores, and stop at the first that fails.

python -m tests.shards.simulation --seeds 5000 [--first N]     many
python -m tests.shards.simulation --seed N                     one, with its trace
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.shards.simulation.play import Outcome, play

REPORT_EVERY_S = 10.0


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.shards.simulation")
    arguments.add_argument("--seeds", type=int, default=5000, help="how many")
    arguments.add_argument("--first", type=int, default=0, help="the first of them")
    arguments.add_argument("--seed", type=int, help="play this one alone and show what happened")
    given = arguments.parse_args()
    if given.seed is not None:
        outcome = play(given.seed)
        print(outcome)
        return 1 if outcome.violations else 0
    began = time.monotonic()
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for failed in _played(pool, range(given.first, given.first + given.seeds)):
            print(failed)
            print(f"Replay it with: python -m tests.shards.simulation --seed {failed.seed}")
            return 1
    print(f"{given.seeds} seeds played in {time.monotonic() - began:.0f} s; all that must hold has held.")
    return 0


def _played(pool: multiprocessing.pool.Pool, seeds: range) -> Iterator[Outcome]:
    """Those that fail."""
    told = time.monotonic()
    for count, outcome in enumerate(pool.imap(play, seeds, chunksize=4), start=1):
        if outcome.violations:
            yield outcome
        if time.monotonic() - told > REPORT_EVERY_S:
            told = time.monotonic()
            print(f"{count} of {len(seeds)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
