"""Appends to a spool as fast as it can, and prints the number of each record that was appended, until killed.

Argument: the directory.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine.storage.spool.segments import Spool

spool = Spool(Path(sys.argv[1]), segment_bytes=20_000)
number = 0
while True:
    number += 1
    spool.append(b"%d " % number * (number % 700), 1, number)
    print(number, flush=True)
