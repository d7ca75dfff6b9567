"""When a node may trust that its sessions are its own."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.lease import ClusterLease, LoneLease


class Life:
    """A node that beats and looks twice a second, from second 0 on."""

    def __init__(self) -> None:
        self.only = LoneLease(settle_s=2.0, frozen_max_s=2.0)
        self.now_s = 0.0
        self.signs: dict[str, int] = {}
        self.database = True
        self.proofs = True

    def live(self, seconds: float, *others: str) -> None:
        """Others give signs of life meanwhile."""
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            for other in others:
                self.signs[other] = int(self.now_s * 1000)
            self.only.beat(self.now_s)
            if self.database:
                self.only.looked(self.now_s, self.signs)
                if self.proofs and self.only.to_prove(self.now_s):
                    self.only.proved(self.now_s, self.now_s)

    @property
    def certain(self) -> bool:
        return self.only.certain(self.now_s)


def test_it_takes_a_while_of_quiet_to_be_certain() -> None:
    life = Life()
    life.signs = {"gone for long": 17}
    life.live(2)
    assert not life.certain
    life.live(1)
    assert life.certain


def test_quiet_alone_is_not_enough_every_session_must_be_its_own() -> None:
    life = Life()
    life.proofs = False
    life.live(10)
    assert life.only.to_prove(life.now_s)
    assert not life.certain
    life.only.proved(life.now_s, life.now_s)
    assert life.certain


def test_a_proof_from_before_the_last_look_proves_nothing() -> None:
    life = Life()
    life.proofs = False
    life.live(10)
    life.only.proved(life.now_s - 1, life.now_s)
    assert not life.certain


def test_it_stays_certain_while_the_database_is_away() -> None:
    life = Life()
    life.live(5)
    life.database = False
    life.live(3600)
    assert life.certain


def test_another_node_ends_it_at_once_and_for_as_long_as_it_lives() -> None:
    life = Life()
    life.live(5)
    life.live(0.5, "other")
    assert not life.certain
    life.live(60, "other")
    assert not life.certain
    life.live(1.5)
    assert not life.certain
    life.live(0.5)
    assert life.certain


def test_the_database_goes_away_while_another_node_is_there() -> None:
    life = Life()
    life.live(5)
    life.live(1, "other")
    life.database = False
    life.live(60)
    assert not life.certain


def test_a_stopped_node_is_not_certain_even_before_its_next_beat() -> None:
    life = Life()
    life.live(5)
    life.now_s += 2.5
    assert not life.certain
    life.database = False
    life.live(60)
    assert not life.certain
    life.database = True
    life.live(2)
    assert not life.certain
    life.live(1)
    assert life.certain


def test_a_node_stopped_while_another_came_and_went_must_prove_every_session() -> None:
    life = Life()
    life.live(5)
    life.proofs = False
    life.now_s += 600
    life.signs["came and went"] = 99
    life.live(60)
    assert not life.certain
    assert life.only.to_prove(life.now_s)


# A node in a cluster

TTL_S, MARGIN_S = 3.0, 0.6


class Member:
    """The lease of a node that a test tells everything."""

    def __init__(self) -> None:
        self.lease = ClusterLease(ttl_s=TTL_S, margin_s=MARGIN_S)
        self.now_s = 100.0

    def renew(self, since: int = 1) -> None:
        self.lease.lease_renewed(self.now_s, self.now_s, since)

    def beat(self) -> None:
        self.lease.heartbeat_confirmed(self.now_s, self.now_s)

    def prove(self) -> None:
        self.lease.proved(self.now_s, self.now_s)

    def live(self, seconds: float, *, lease: bool = False, heartbeat: bool = False, since: int = 1) -> None:
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            if lease:
                self.renew(since)
            if heartbeat:
                self.beat()
            if self.lease.to_prove(self.now_s):
                self.prove()

    @property
    def certain(self) -> bool:
        return self.lease.certain(self.now_s)


def test_a_lease_is_worth_nothing_before_every_session_was_found_its_own() -> None:
    node = Member()
    assert not node.lease.to_prove(node.now_s)
    node.renew()
    assert node.lease.to_prove(node.now_s)
    assert not node.certain
    node.prove()
    assert node.certain
    assert not node.lease.to_prove(node.now_s)


def test_a_lease_holds_from_when_it_was_asked_for_until_a_margin_before_its_end() -> None:
    node = Member()
    node.lease.lease_renewed(100, 101, 1)
    node.lease.proved(101, 101)
    assert node.lease.certain(102.3)
    assert not node.lease.certain(102.4)


def test_a_heartbeat_alone_keeps_it_for_as_long_as_it_comes() -> None:
    node = Member()
    node.live(5, lease=True, heartbeat=True)
    node.live(600, heartbeat=True)
    assert node.certain
    node.live(2)
    assert node.certain
    node.live(0.5)
    assert not node.certain


def test_a_lease_alone_keeps_it_for_as_long_as_it_is_renewed() -> None:
    node = Member()
    node.live(600, lease=True)
    assert node.certain


def test_after_both_have_lapsed_every_session_must_be_proved_again() -> None:
    node = Member()
    node.live(5, lease=True, heartbeat=True)
    node.now_s += 2.5
    assert not node.certain
    node.renew()
    assert not node.certain
    node.prove()
    assert node.certain


def test_a_proof_from_before_they_came_back_proves_nothing() -> None:
    node = Member()
    node.live(5, lease=True)
    node.now_s += 2.5
    asked_s = node.now_s - 0.1
    node.renew()
    node.lease.proved(asked_s, node.now_s)
    assert not node.certain


def test_a_proof_that_comes_when_both_have_lapsed_again_proves_nothing() -> None:
    node = Member()
    node.renew()
    asked_s = node.now_s
    node.now_s += 2.4
    node.lease.proved(asked_s, node.now_s)
    node.renew()
    assert not node.certain


def test_a_gap_that_only_the_database_noticed_counts() -> None:
    node = Member()
    node.live(5, lease=True, heartbeat=True)
    node.renew(since=2)
    assert not node.certain
    node.prove()
    assert node.certain


def test_a_heartbeat_that_was_gone_does_not_count_as_long_as_somebody_may_have_missed_it() -> None:
    node = Member()
    node.live(5, lease=True, heartbeat=True)
    node.live(5, lease=True)
    node.live(0.5, lease=True, heartbeat=True)
    node.live(2.5, heartbeat=True)
    assert not node.certain
    node.live(0.5, heartbeat=True)
    assert node.certain


def test_what_is_given_back_counts_no_more() -> None:
    node = Member()
    node.live(5, lease=True, heartbeat=True)
    node.lease.lease_ends()
    assert node.certain
    node.lease.heartbeat_ends()
    assert not node.certain


@pytest.mark.parametrize("margin_s", [0, -1, 3, 4])
def test_a_margin_must_lie_within_the_lease(margin_s: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        ClusterLease(ttl_s=TTL_S, margin_s=margin_s)


# The cluster, modelled: a database, a Redis, and runs of nodes whose messages take as long as they take.

RATE = 0.08
"""How much faster or slower than the world a clock may run: what the margin of a fifth allows for twice."""


@dataclass(frozen=True)
class Trouble:
    """Whose messages to and from the database and Redis are slow, to which share, and how often that run is
    stopped."""

    whose: frozenset[int]
    database: float
    redis: float
    stops: float


@dataclass
class Session:
    owner: int = -1
    epoch: int = 0
    locked: bool = False


@dataclass
class Run:
    """A run of a node: a lease, a clock of its own rate, and what it believes to hold."""

    number: int
    rate: float
    lease: ClusterLease = field(default_factory=lambda: ClusterLease(ttl_s=TTL_S, margin_s=MARGIN_S))
    held: int | None = None
    seen: dict[int, float] = field(default_factory=dict)
    """When it last looked and did not find the heartbeat of another, by its own clock."""
    stopped_until: float = 0.0
    proofs: int = 0


class Cluster:
    """Everything happens at a moment of `now`, in the order of a queue. Each of `trouble` lasts for
    `trouble_s`; whose it is not has none meanwhile."""

    def __init__(self, seed: int, trouble: Sequence[Trouble], trouble_s: float = 4.0) -> None:
        self.random = random.Random(seed)
        self.trouble = trouble
        self.trouble_s = trouble_s
        self.now = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()
        drift = partial(self.random.uniform, 1 - RATE, 1 + RATE)
        self.database_rate, self.redis_rate = drift(), drift()
        self.redis_since = -100.0
        self.heartbeats: dict[int, float] = {}
        self.leases: dict[int, tuple[int, float]] = {}
        self.readers = [0, 0, 0]
        self.session = Session()
        self.runs = [Run(number, drift()) for number in range(3)]
        self.takeovers = self.times_certain = self.times_by_heartbeat = 0
        for run in self.runs:
            for routine in (self.renew, self.beat, self.look):
                self.after(self.random.random(), partial(routine, run))

    def after(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay, next(self.numbers), what))

    def until(self, end: float) -> None:
        while self.queue and self.queue[0][0] < end:
            self.now, _, what = heapq.heappop(self.queue)
            what()
            self.check()

    def check(self) -> None:
        for run in self.runs:
            certain = run.lease.certain(self.clock(run))
            if certain and run.held is not None:
                assert (self.session.owner, self.session.epoch) == (run.number, run.held)
                self.times_certain += 1
                # Before its first renewal a run has no lease. Its heartbeat alone may make it certain.
                lease_until = self.leases.get(run.number, (0, -1.0))[1]
                self.times_by_heartbeat += self.database_clock() > lease_until

    def clock(self, run: Run) -> float:
        return 1000 * (run.number + 1) + self.now * run.rate

    def database_clock(self) -> float:
        return self.now * self.database_rate

    def leg(self, run: Run, *, redis: bool) -> float:
        """How long a message is under way just now."""
        trouble = self.trouble[int(self.now / self.trouble_s) % len(self.trouble)]
        slow = False
        if run.number in trouble.whose:
            slow = self.random.random() < (trouble.redis if redis else trouble.database)
            if self.random.random() < trouble.stops:
                run.stopped_until = max(run.stopped_until, self.now + self.random.uniform(0, 8))
        return self.random.uniform(0, 16) if slow else self.random.uniform(0, 0.02)

    def send(
        self, run: Run, redis: bool, there: Callable[[], object], back: Callable[[Any], None],
        again: Callable[[], None],
    ) -> None:  # fmt: skip
        """Have `there` done, as soon as it is possible, and then `back` with its result, once the run runs.
        One that is given up may take effect all the same."""
        answered = False

        def arrive() -> None:
            result = there()
            if result is None:
                self.after(0.01, arrive)
            else:
                self.after(self.leg(run, redis=redis), partial(come_back, result))

        def come_back(result: object) -> None:
            nonlocal answered
            if self.now < run.stopped_until:
                self.after(run.stopped_until - self.now, partial(come_back, result))
            elif not answered:
                answered = True
                back(result)
                again()

        def give_up() -> None:
            nonlocal answered
            if not answered:
                answered = True
                again()

        self.after(self.leg(run, redis=redis), arrive)
        self.after(5.0, give_up)

    # -- what runs do

    def renew(self, run: Run) -> None:
        asked_s = self.clock(run)

        def there() -> tuple[int] | None:
            if self.readers[run.number]:
                return None
            now = self.database_clock()
            since, until = self.leases.get(run.number, (0, -1.0))
            if until <= now:
                since = next(self.numbers)
            self.leases[run.number] = since, now + TTL_S
            return (since,)

        def back(since: tuple[int]) -> None:
            run.lease.lease_renewed(asked_s, self.clock(run), *since)

        def again() -> None:
            if run.lease.to_prove(self.clock(run)):
                self.prove(run)
            else:
                self.after(0.5, partial(self.renew, run))

        self.send(run, False, there, back, again)

    def prove(self, run: Run) -> None:
        asked_s = self.clock(run)
        epoch = run.held

        def there() -> tuple[bool] | None:
            if self.session.locked:
                return None
            return ((self.session.owner, self.session.epoch) == (run.number, epoch),)

        def back(own: tuple[bool]) -> None:
            if not own[0] and run.held == epoch:
                run.held = None
            run.lease.proved(asked_s, self.clock(run))
            run.proofs += 1

        self.send(run, False, there, back, lambda: self.after(0.5, partial(self.renew, run)))

    def beat(self, run: Run) -> None:
        asked_s = self.clock(run)

        def there() -> tuple[()]:
            if self.random.random() < 0.005:
                self.heartbeats.clear()
                self.redis_since = self.now
            self.heartbeats[run.number] = self.now + TTL_S / self.redis_rate
            return ()

        def back(_: tuple[()]) -> None:
            run.lease.heartbeat_confirmed(asked_s, self.clock(run))

        self.send(run, True, there, back, lambda: self.after(0.5, partial(self.beat, run)))

    def look(self, run: Run) -> None:
        """Who is gone, and if that is the owner, take the session."""
        asked_s = self.clock(run)

        def there() -> tuple[list[int]]:
            if self.now - self.redis_since < TTL_S / self.redis_rate:
                return ([],)
            return ([n for n in range(3) if self.heartbeats.get(n, -1.0) <= self.now],)

        def back(missing: tuple[list[int]]) -> None:
            run.seen = dict.fromkeys(missing[0], asked_s)

        def again() -> None:
            owner = self.session.owner
            # The run cannot hold the session before it knows that it does: others may take it again by then.
            if owner != run.number and (owner == -1 or owner in run.seen):
                self.after(self.leg(run, redis=False), partial(self.claim, run))
            self.after(0.5, partial(self.look, run))

        self.send(run, True, there, back, again)

    def claim(self, run: Run) -> None:
        session = self.session
        if session.locked:
            return
        owner = session.owner
        session.locked = True
        if owner >= 0:
            self.readers[owner] += 1
        over = owner < 0 or self.leases.get(owner, (0, -1.0))[1] <= self.database_clock()
        self.after(self.leg(run, redis=False), partial(self.decide, run, owner, over))

    def decide(self, run: Run, owner: int, over: bool) -> None:
        if self.now < run.stopped_until:
            self.after(run.stopped_until - self.now, partial(self.decide, run, owner, over))
            return
        seen_s = run.seen.get(owner, -math.inf)
        gone = owner < 0 or self.clock(run) - seen_s < TTL_S - MARGIN_S
        takes = over and gone and owner != run.number
        self.after(self.leg(run, redis=False), partial(self.commit, run, owner, takes))

    def commit(self, run: Run, owner: int, takes: bool) -> None:
        self.session.locked = False
        if owner >= 0:
            self.readers[owner] -= 1
        if takes:
            self.session.owner = run.number
            self.session.epoch += 1
            run.held = self.session.epoch
            self.takeovers += owner >= 0


shares = st.sampled_from([0.0, 0.1, 0.5, 1.0])
troubles = st.lists(
    st.builds(
        Trouble,
        whose=st.frozensets(st.integers(0, 2)),
        database=shares,
        redis=shares,
        stops=st.sampled_from([0.0, 0.0, 0.02, 0.2]),
    ),
    min_size=1,
    max_size=12,
)


@given(seed=st.integers(0, 2**32), trouble=troubles)
@example(seed=213, trouble=[Trouble(frozenset({0, 1}), database=0.1, redis=0.0, stops=0.0)])
@settings(max_examples=150)
def test_no_node_is_certain_of_a_session_that_another_has_taken(seed: int, trouble: list[Trouble]) -> None:
    Cluster(seed, trouble).until(120.0)


@given(seed=st.integers(0, 2**32), whose=st.integers(0, 2), overlap=st.integers(0, 6))
@settings(max_examples=60)
def test_nor_when_redis_comes_back_when_the_database_has_just_gone(
    seed: int, whose: int, overlap: int
) -> None:
    shares = [(0.0, 1.0)] * 8 + [(1.0, 1.0)] * overlap + [(1.0, 0.0)] * 8 + [(0.0, 0.0)] * 8
    trouble = [Trouble(frozenset({whose}), *each, stops=0) for each in shares]
    Cluster(seed, trouble, trouble_s=0.5).until(200.0)


def test_the_model_is_one_in_which_sessions_are_taken_and_nodes_are_certain() -> None:
    trouble = [
        Trouble(frozenset({n}), database=database, redis=redis, stops=stops)
        for n in range(3)
        for database, redis, stops in ((1, 1, 0.1), (0, 0, 0), (1, 0, 0))
    ]
    clusters = [Cluster(seed, trouble) for seed in range(20)]
    for cluster in clusters:
        cluster.until(120.0)
    assert sum(cluster.takeovers for cluster in clusters) > 50
    assert sum(cluster.times_certain for cluster in clusters) > 50_000
    assert sum(cluster.times_by_heartbeat for cluster in clusters) > 100
    assert sum(run.proofs for cluster in clusters for run in cluster.runs) > 200
