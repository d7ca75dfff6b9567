"""When a client comes back after its connection ended, and after how long: docs/protocol.md as a table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

RESUME_JITTER_S = 0.25
LATER_LEAST_S = 0.5
LATER_MOST_S = 3.0
LATER_CAP_S = 30.0
QUIET_S = 10.0
"""After so long without a word the server is asked for one."""
ALIVE_WITHIN_S = 5.0
SAME_PAUSES = 2
"""Failures in a row after which the pause is still the same: a node that has died is replaced within that."""

T = TypeVar("T")


class Policy(Enum):
    """What a client does after an end."""

    NO = "no"
    RESUME = "resume"
    LATER = "later"
    MOVE = "move"


BY_CODE = {
    1002: Policy.NO,
    1003: Policy.NO,
    1007: Policy.NO,
    1009: Policy.NO,
    1011: Policy.LATER,
    4000: Policy.NO,
    4001: Policy.NO,
    4002: Policy.NO,
    4003: Policy.NO,
    4004: Policy.LATER,
    4005: Policy.LATER,
    4006: Policy.RESUME,
    4007: Policy.RESUME,
    4008: Policy.LATER,
    4009: Policy.MOVE,
    4010: Policy.LATER,
    4011: Policy.LATER,
    4012: Policy.NO,
    4013: Policy.RESUME,
}
"""As docs/protocol.md has it."""

NOT_YET = frozenset({"busy", "rate_limited", "too_many_attempts", "identity_unavailable"})
"""Errors that say: not now. Every other error in answer to a `join` is final."""


def after_close(code: int | None) -> Policy:
    """By close code; None, and every code that the protocol does not name, is a connection that broke."""
    return Policy.LATER if code is None else BY_CODE.get(code, Policy.LATER)


def after_error(code: str) -> Policy:
    """By the code of an `error` in answer to a `join`."""
    return Policy.LATER if code in NOT_YET else Policy.NO


def elsewhere(known: Sequence[T], place: int, lost: T) -> int:
    """Where to go after a connection that was lost: the place of one of the addresses known.

    They are taken in turn, from the one after `place`. The one that was lost is passed over, unless there is
    no other.
    """
    place = (place + 1) % len(known)
    return (place + 1) % len(known) if known[place] == lost else place


def delay_s(policy: Policy, failures: int, rng: random.Random) -> float:
    """Seconds to wait. `failures` counts the attempts in a row that have failed since the end.

    For MOVE the server names the time; who has not heard it waits as for LATER.
    """
    if policy is Policy.RESUME and not failures:
        return rng.uniform(0.0, RESUME_JITTER_S)
    doublings = min(max(failures - SAME_PAUSES, 0), 16)
    doubled = rng.uniform(LATER_LEAST_S, LATER_MOST_S) * 2.0**doublings
    return min(doubled, LATER_CAP_S)
