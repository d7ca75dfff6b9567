"""What a node knows of the others: which nodes are alive, and which are certainly gone. Pure; moments are
seconds of one clock, given as arguments.

How to think about this: the list that comes back from a heartbeat proves which nodes are there. A node that
is missing from it is gone only if Redis would have known it, and that takes time. A Redis that was away, or
that has started empty, knows no node until every node had one TTL to come back; until then no node is
declared dead, and all members stay members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from engine.ports import Owner
from engine.shards.ports import Beat, Load, Member
from engine.shards.ring import Ring


@dataclass(frozen=True, slots=True)
class Changes:
    """What a heartbeat or an announcement changed. False when nothing changed."""

    joined: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()
    changed: tuple[Member, ...] = ()
    """Members with their new values."""

    def __bool__(self) -> bool:
        return bool(self.joined or self.left or self.changed)


PAGES_MAX = 256
"""The most addresses of web pages that are remembered."""


class MembershipView(Protocol):
    """The nodes of the cluster as this node knows them now: a `Membership` with the time, or
    `engine.shards.lone_node.LoneMembership`."""

    @property
    def live(self) -> Mapping[str, Member]:
        """The members by run, this node included."""

    @property
    def ring(self) -> Ring: ...

    def member_named(self, name: str) -> Member | None: ...

    def may_run(self, owner: Owner) -> bool:
        """Whether a run that is not a member may still run its sessions: its lease holds, or it is not
        certain that its heartbeat has ended."""

    def overdue(self, run: str) -> bool:
        """Whether the heartbeat of a run is late: it may hang, and clients had better not be sent there."""


class Membership:
    """The members as of the last heartbeat that Redis answered.

    Args:
        ttl_s: how long a heartbeat is good for.
        differs: why a member cannot work together with this node, or None. Such a member is listed, and so
            never gone, but nothing is sent to it.
    """

    def __init__(self, ttl_s: float, differs: Callable[[Member], str | None] = lambda _: None) -> None:
        self._ttl_s = ttl_s
        self._differs = differs
        self._strangers: dict[str, Member] = {}
        self._live: dict[str, Member] = {}
        self._pages: dict[str, None] = {}
        self._loads: dict[str, Load] = {}
        self._listed: frozenset[str] = frozenset()
        self._left: set[str] = set()
        self._overdue: frozenset[str] = frozenset()
        self._store_run: str | None = None
        self._since_s = 0.0
        self._asked_s = 0.0
        self._reached = False
        self._weights: Mapping[str, int] = MappingProxyType({})
        self._ring = Ring.of({})

    @property
    def reached(self) -> bool:
        """Whether Redis answered the last heartbeat."""
        return self._reached

    @property
    def live(self) -> Mapping[str, Member]:
        """The members by run. Unchanged while Redis is away."""
        return MappingProxyType(self._live)

    @property
    def pages(self) -> Collection[str]:
        """The addresses of the web pages of members, former ones included: an open page outlives its node,
        and goes on with the others. The latest `PAGES_MAX` of them."""
        return self._pages.keys()

    @property
    def strangers(self) -> Mapping[str, Member]:
        """The nodes, by run, that show signs of life and cannot work together with this one, as of the last
        heartbeat."""
        return MappingProxyType(self._strangers)

    @property
    def listed(self) -> frozenset[str]:
        """The runs with a heartbeat, strangers included, as of the last heartbeat of this node."""
        return self._listed

    @property
    def loads(self) -> Mapping[str, Load]:
        """The load of each member, by run, as it was last reported."""
        return MappingProxyType(self._loads)

    @property
    def weights(self) -> Mapping[str, int]:
        """The weights, by name, of the members that take sessions: the ring is made of them."""
        return self._weights

    @property
    def ring(self) -> Ring:
        """The ring that was set last."""
        return self._ring

    def member_named(self, name: str) -> Member | None:
        """The latest run of the node with this name."""
        runs = [member for member in self._live.values() if member.name == name]
        return max(runs, key=_by_age, default=None)

    def placed(self, ring: Ring) -> None:
        """Set the ring that was computed from `weights`. A ring of other weights, because these have changed
        meanwhile, is ignored."""
        if ring.nodes == self._weights:
            self._ring = ring

    def heard(self, now_s: float, asked_s: float, beat: Beat) -> Changes:
        """Take the answer of Redis, at `now_s`, to a heartbeat of `asked_s`."""
        if beat.store_run != self._store_run or now_s - self._asked_s > self._ttl_s:
            self._store_run = beat.store_run
            self._since_s = now_s
        self._asked_s = asked_s
        self._reached = True
        self._listed = beat.strange.union(member.run for member, _ in beat.members)
        self._left &= self._listed
        self._overdue = frozenset(run for run, left_s in beat.left_s.items() if left_s < self._ttl_s / 2)

        there = {member.run: member for member, _ in beat.members if member.run not in self._left}
        self._strangers = {run: member for run, member in there.items() if self._differs(member)}
        before = self._live
        live = {run: member for run, member in there.items() if run not in self._strangers}
        loads = {member.run: load for member, load in beat.members}
        for run, member in before.items():
            if run not in live and not self.gone(run, now_s):
                live[run] = member
        self._loads = {run: loads.get(run) or self._loads[run] for run in live}
        return self._become(live)

    def failed(self) -> None:
        """Redis did not answer a heartbeat, or not in time."""
        self._reached = False

    def left(self, run: str) -> Changes:
        """Remove a run that has announced its end. An answer of Redis that is still in transit does not bring
        it back."""
        self._left.add(run)
        return self._become({other: member for other, member in self._live.items() if other != run})

    def gone(self, run: str, now_s: float) -> bool:
        """Whether it is certain that the heartbeat of this run has ended, by its TTL or by withdrawal.

        Redis must have answered the last heartbeat, within the last TTL, without listing the run; and it must
        be the same Redis that, for one TTL before that, has answered without a break longer than the TTL. A
        run that was confirmed by an earlier Redis, or before the break, has lost that confirmation since.
        """
        return (
            self._reached
            and run not in self._listed
            and now_s - self._asked_s <= self._ttl_s
            and self._asked_s - self._since_s >= self._ttl_s
        )

    def overdue(self, run: str) -> bool:
        """Whether the last heartbeat of this run was older than half of its TTL when Redis was asked (the
        time between two is a third), or has expired. False while Redis does not answer."""
        return self._reached and (run in self._overdue or run not in self._listed)

    def _become(self, live: dict[str, Member]) -> Changes:
        before, self._live = self._live, live
        for member in live.values():
            self._pages.pop(member.http_url, None)
            self._pages[member.http_url] = None
        while len(self._pages) > max(PAGES_MAX, len(live)):
            del self._pages[next(iter(self._pages))]
        latest = {member.name: member for member in sorted(live.values(), key=_by_age)}
        self._weights = MappingProxyType(
            {name: latest[name].weight for name in sorted(latest) if latest[name].takes_sessions}
        )
        return Changes(
            joined=tuple(member for run, member in live.items() if run not in before),
            left=tuple(member for run, member in before.items() if run not in live),
            changed=tuple(member for run, member in live.items() if before.get(run, member) != member),
        )


def _by_age(member: Member) -> tuple[int, str]:
    return member.started_at, member.run
