"""What a node knows of the others: who is alive, and who is certainly not. Pure; moments are seconds of one
clock, given as arguments.

How to think about this: the list that comes back from a heartbeat tells for certain who is there. Who is
missing from it is dead only if Redis can be believed about the dead, and it can when it has had them in view
for long enough. A Redis that was away, or that has started empty, knows of nobody until everybody had one TTL
to come back; until then nobody is declared dead, and all who were members stay so.
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
    """What a heartbeat or an announcement changed. False when that is nothing."""

    joined: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()
    changed: tuple[Member, ...] = ()
    """As they are now."""

    def __bool__(self) -> bool:
        return bool(self.joined or self.left or self.changed)


PAGES_MAX = 256


class MembershipView(Protocol):
    """The nodes of the cluster as this node knows them now: a `Membership` with the time, or
    `engine.shards.lone_node.LoneMembership`."""

    @property
    def live(self) -> Mapping[str, Member]:
        """By run, this node included."""

    @property
    def ring(self) -> Ring: ...

    def member_named(self, name: str) -> Member | None: ...

    def may_run(self, owner: Owner) -> bool:
        """Whether a run that is not known to live may run its sessions still: its lease holds, or it is not
        certain that its heartbeat has ended."""


class Membership:
    """The members as of the last heartbeat that Redis answered.

    Args:
        ttl_s: how long a heartbeat is good for.
        differs: what keeps a member from working together with this node, if anything does. It is listed, and
            so never gone, and yet nothing is sent to it.
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
        """Who is there, by run. Stays as it is while Redis is away."""
        return MappingProxyType(self._live)

    @property
    def pages(self) -> Collection[str]:
        """Where members have, or had, their web pages: a page outlives its node, and goes on with the others.
        The latest `PAGES_MAX` of them."""
        return self._pages.keys()

    @property
    def strangers(self) -> Mapping[str, Member]:
        """By run, who shows signs of life and does not belong here, as of the last heartbeat."""
        return MappingProxyType(self._strangers)

    @property
    def listed(self) -> frozenset[str]:
        """The runs that have shown signs of life of late, strangers included, as of the last heartbeat."""
        return self._listed

    @property
    def loads(self) -> Mapping[str, Load]:
        """By run, as the members last told them."""
        return MappingProxyType(self._loads)

    @property
    def weights(self) -> Mapping[str, int]:
        """By name, of the members that take sessions: what the ring is to be made of."""
        return self._weights

    @property
    def ring(self) -> Ring:
        """The ring that was placed last."""
        return self._ring

    def member_named(self, name: str) -> Member | None:
        """Its latest run."""
        runs = [member for member in self._live.values() if member.name == name]
        return max(runs, key=_by_age, default=None)

    def placed(self, ring: Ring) -> None:
        """The ring of `weights` was computed. One of other nodes, because these have changed meanwhile, is
        passed over."""
        if ring.nodes == self._weights:
            self._ring = ring

    def heard(self, now_s: float, asked_s: float, beat: Beat) -> Changes:
        """Redis answered at `now_s` to what it was asked at `asked_s`."""
        if beat.store_run != self._store_run or now_s - self._asked_s > self._ttl_s:
            self._store_run = beat.store_run
            self._since_s = now_s
        self._asked_s = asked_s
        self._reached = True
        self._listed = beat.strange.union(member.run for member, _ in beat.members)
        self._left &= self._listed

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
        """This run has announced its end. An answer that is under way and still names it does not bring it
        back."""
        self._left.add(run)
        return self._become({other: member for other, member in self._live.items() if other != run})

    def gone(self, run: str, now_s: float) -> bool:
        """Whether it is certain that this run's heartbeat has ended, by its TTL or because it was taken back.

        Needs a Redis that answered the last heartbeat, within the last TTL, that did not list the run, and
        that is the same and has answered without a break longer than the TTL for one TTL before it was asked.
        Whoever was confirmed by an earlier Redis, or before the break, has lost that confirmation since.
        """
        return (
            self._reached
            and run not in self._listed
            and now_s - self._asked_s <= self._ttl_s
            and self._asked_s - self._since_s >= self._ttl_s
        )

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
