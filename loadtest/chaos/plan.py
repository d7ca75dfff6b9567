"""Which faults, in which order, and when: a pure function of the seed.

The moments are relative to each other: a fault begins so many seconds after the one before it was over, that
is undone and answers were acknowledged again. How long that takes is up to the machine, and not in the plan.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

PAUSE_LEAST_S = 0.5
LONG_SHARE = 0.1
LONG_FACTOR = 3.0
"""One fault in ten lasts three times as long as faults of its kind otherwise do."""


class Kind(Enum):
    """What is done to whom. The value is its name on the command line."""

    NODE_KILL = "node-kill"
    NODE_TERM = "node-term"
    NODE_PAUSE = "node-pause"
    POSTGRES_KILL = "postgres-kill"
    BACKEND_KILL = "backend-kill"
    POSTGRES_PAUSE = "postgres-pause"
    BOTH_KILL = "both-kill"
    TABLE_LOCK = "table-lock"
    LINK_SLOW = "link-slow"
    LINK_CUT = "link-cut"
    LINK_HOLD = "link-hold"
    LINK_ONE_WAY = "link-one-way"
    CLIENTS_CUT = "clients-cut"
    DISK_FULL = "disk-full"
    NODE_SLEEP = "node-sleep"
    CLOCK_STEP = "clock-step"
    CLOCK_WRONG = "clock-wrong"
    POSTGRES_LOSES = "postgres-loses"
    NODE_GONE = "node-gone"
    NODE_FREEZE = "node-freeze"
    NODE_DRAIN = "node-drain"
    ROLL = "rolling-restart"
    REDIS_KILL = "redis-kill"
    REDIS_PAUSE = "redis-pause"
    REDIS_FLUSH = "redis-flush"
    CUT_REDIS = "cut-redis"
    CUT_POSTGRES = "cut-postgres"
    CUT_BOTH = "cut-both"
    CUT_OTHERS = "cut-others"
    NODE_HANG = "node-hang"
    CUT_ALL = "cut-all"
    WRONG_SECRET = "wrong-secret"
    NODE_TWIN = "node-twin"


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of a kind beforehand.

    Args:
        meaning: for people.
        lasts_s: the least and the most seconds from the fault to its clean-up.
        costs_s: about how long it takes after the clean-up until answers are acknowledged again.
    """

    meaning: str
    lasts_s: tuple[float, float]
    costs_s: float


TRAITS: Mapping[Kind, Traits] = {
    Kind.NODE_KILL: Traits("the node is killed and started again", (0.0, 0.5), 4.0),
    Kind.NODE_TERM: Traits("the node is ended in good order and started again", (0.0, 0.5), 4.0),
    Kind.NODE_PAUSE: Traits("the node stands still", (0.5, 3.0), 0.2),
    Kind.POSTGRES_KILL: Traits("PostgreSQL is killed and started again", (0.2, 2.0), 2.0),
    Kind.BACKEND_KILL: Traits("one process of PostgreSQL is killed; it restarts by itself", (0.3, 0.3), 1.0),
    Kind.POSTGRES_PAUSE: Traits("PostgreSQL stands still", (0.5, 3.0), 0.2),
    Kind.BOTH_KILL: Traits("node and PostgreSQL are killed, one after the other", (0.2, 1.5), 5.0),
    Kind.TABLE_LOCK: Traits("somebody locks the table of answers", (0.5, 3.0), 0.2),
    Kind.LINK_SLOW: Traits("everything between node and PostgreSQL comes late", (1.0, 3.0), 0.2),
    Kind.LINK_CUT: Traits("node and PostgreSQL cannot connect", (0.2, 2.0), 1.0),
    Kind.LINK_HOLD: Traits("nothing passes between node and PostgreSQL, and then it is cut", (0.5, 3.0), 0.5),
    Kind.LINK_ONE_WAY: Traits("PostgreSQL hears the node, but not the other way round", (0.5, 2.0), 0.5),
    Kind.CLIENTS_CUT: Traits("all players lose their connections", (0.3, 0.3), 1.0),
    Kind.DISK_FULL: Traits("the node's disk is full while PostgreSQL is away", (0.5, 2.0), 1.0),
    Kind.NODE_SLEEP: Traits("the node stands still for long, as a machine does that sleeps", (4.0, 8.0), 0.5),
    Kind.CLOCK_STEP: Traits("the clock of the node's machine is set wrong, and right again", (1.5, 3.0), 0.2),
    Kind.CLOCK_WRONG: Traits("the node is killed, and comes back with a wrong clock", (1.5, 3.0), 4.0),
    Kind.POSTGRES_LOSES: Traits("PostgreSQL comes back without its last commits", (0.2, 1.5), 3.0),
    Kind.NODE_GONE: Traits("a node is killed, and its sessions are taken", (4.0, 8.0), 6.0),
    Kind.NODE_FREEZE: Traits("a node stands still for longer than its lease", (4.0, 7.0), 2.0),
    Kind.NODE_DRAIN: Traits("a node gives its sessions away, and is started anew", (0.0, 1.0), 8.0),
    Kind.ROLL: Traits("all nodes are started anew, one after the other", (0.0, 1.0), 15.0),
    Kind.REDIS_KILL: Traits("Redis is killed and started again, empty", (0.2, 5.0), 3.0),
    Kind.REDIS_PAUSE: Traits("Redis stands still", (0.5, 6.0), 2.0),
    Kind.REDIS_FLUSH: Traits("all that is in Redis is deleted", (0.2, 1.0), 0.5),
    Kind.CUT_REDIS: Traits("a node cannot reach Redis", (2.0, 8.0), 2.0),
    Kind.CUT_POSTGRES: Traits("a node cannot reach PostgreSQL", (2.0, 8.0), 2.0),
    Kind.CUT_BOTH: Traits("a node can reach neither Redis nor PostgreSQL", (2.0, 8.0), 4.0),
    Kind.CUT_OTHERS: Traits("a node and the others cannot reach each other", (2.0, 8.0), 1.0),
    Kind.NODE_HANG: Traits("a node hangs until all is taken from it, and wakes", (9.0, 14.0), 2.0),
    Kind.CUT_ALL: Traits("nothing passes between a node and all that it needs", (4.0, 9.0), 4.0),
    Kind.WRONG_SECRET: Traits("a node with another secret is to be turned away", (0.0, 0.5), 4.0),
    Kind.NODE_TWIN: Traits("a second node of one name is to be turned away", (0.0, 0.5), 4.0),
}

EVERY_KIND = tuple(Kind)[: list(Kind).index(Kind.NODE_GONE)]
"""Of one node."""

CLUSTER_KINDS = tuple(Kind)
"""Of several nodes: each concerns one of them, all, or what they share."""

CLOCK_KINDS = frozenset({Kind.CLOCK_STEP, Kind.CLOCK_WRONG})
"""For these the nodes need a clock that can be set."""

CLOCK_OFF_S = (1.0, 90.0)
"""How wrong a clock is, at least and at most, in either direction."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    Args:
        number: its position, from 1.
        after_s: since the fault before it was over; for the first one, since answers are acknowledged.
        lasts_s: from the fault to its clean-up.
        share: from 0 to 1; which process, how late, in which order: by the kind.
        node: the place of the node that it is done to, or begins with.
    """

    number: int
    kind: Kind
    after_s: float
    lasts_s: float
    share: float
    node: int = 0

    @property
    def refused(self) -> bool:
        """Whether what is cut off is told so, and not left waiting."""
        return self.share < 0.5

    @property
    def clock_ahead_s(self) -> float:
        """How far a clock that is set wrong is ahead; below 0: behind."""
        least_s, most_s = CLOCK_OFF_S
        off_s = least_s + (most_s - least_s) * (self.share * 2 % 1.0)
        return round(off_s if self.share < 0.5 else -off_s, 1)

    def __str__(self) -> str:
        meaning = TRAITS[self.kind].meaning
        return (
            f"{self.number:4}  after {self.after_s:6.2f} s  {self.kind.value:15}  for {self.lasts_s:5.2f} s  "
            f"share {self.share:.3f}  node {self.node + 1}  {meaning}"
        )


def make_plan(
    seed: int, faults: int, minutes: float, kinds: Sequence[Kind] = EVERY_KIND, nodes: int = 1
) -> tuple[Fault, ...]:
    """As many faults as asked for, spread over about so many minutes.

    Every kind comes once before any comes again. Raises ValueError when there is no kind to choose from.
    """
    if not kinds:
        raise ValueError("a plan needs at least one kind of fault")
    rng = random.Random(f"faults/{seed}")
    places = random.Random(f"nodes/{seed}")  # of its own: the plan for one node does not depend on it
    chosen: list[Kind] = []
    while len(chosen) < faults:
        deck = list(kinds)
        rng.shuffle(deck)
        chosen += deck
    pause_s = _mean_pause_s(kinds, faults, minutes)
    return tuple(
        _fault(number, kind, pause_s, rng, places.randrange(nodes))
        for number, kind in enumerate(chosen[:faults], 1)
    )


def _mean_pause_s(kinds: Sequence[Kind], faults: int, minutes: float) -> float:
    """What is left of the minutes between the faults, once they last as long as they do."""
    taken_s = 0.0
    for kind in kinds:
        least, most = TRAITS[kind].lasts_s
        mean_s = (least + most) / 2 * (1 + LONG_SHARE * (LONG_FACTOR - 1))
        taken_s += (mean_s + TRAITS[kind].costs_s) / len(kinds)
    return max(minutes * 60 / max(faults, 1) - taken_s, PAUSE_LEAST_S)


def _fault(number: int, kind: Kind, pause_s: float, rng: random.Random, node: int) -> Fault:
    """Draws the same number of times whatever the kind."""
    least, most = TRAITS[kind].lasts_s
    after_s = pause_s * rng.uniform(0.4, 1.6)
    lasts_s = rng.uniform(least, most) * (LONG_FACTOR if rng.random() < LONG_SHARE else 1.0)
    return Fault(number, kind, round(after_s, 3), round(lasts_s, 3), round(rng.random(), 3), node)
