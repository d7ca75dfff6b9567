"""Ids of sessions: UUIDs of version 7, whose order is the order of their creation.

The tables of facts are partitioned by ranges of these ids, so an id says by itself where all that happened in
its session lies. Ids of version 4, which earlier releases gave out, are scattered over the whole space.
"""

from __future__ import annotations

import os
from typing import Final
from uuid import UUID

TIME_MAX_MS: Final = 0x0400_0000_0000
"""In 2109. Ids from here on are all of version 4: for a long time no clock reads this late."""


def new_id(now_ms: int) -> str:
    """A fresh id of a session that is created now: the time, and 74 random bits."""
    value = now_ms << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def first_id(at_ms: int) -> UUID:
    """Less than every id that is given out from this moment on, and not less than any before."""
    return UUID(int=at_ms << 80)


def made_at(bound: UUID) -> int:
    """The moment of an id of version 7, or of a `first_id`."""
    return bound.int >> 80
