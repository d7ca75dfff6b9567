"""A node in a cluster: its services for the other nodes, and theirs for it."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import orjson
import trio

from engine.actors.clock import SessionClock
from engine.actors.commands import Command
from engine.actors.registry import Registry
from engine.boundary import Boundary
from engine.latency import Signs
from engine.lease import ClusterLease
from engine.ports import Journal, Owner, SessionStore
from engine.shards.fingerprint import difference
from engine.shards.heartbeat import Heartbeat
from engine.shards.link.hops import Hop, followed
from engine.shards.link.listener import LinkListener
from engine.shards.link.pool import LinkPool
from engine.shards.membership import Changes, Membership
from engine.shards.ports import BusMessage, BusUnavailable, LinkLost, Load, Member
from engine.shards.rebalancer import Rebalancer
from engine.shards.redis import RedisBus, RedisServices
from engine.shards.ring import Ring
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory
from server.admission import NameTaken, NotLetIn, Unlike
from server.config.config import Config
from server.http.services import ClusterTraffic, NodeState
from server.runtime.health import LinkHealth
from server.wire.api.operations import State

log = logging.getLogger(__name__)

MARGIN_SHARE = 0.2
"""The share of a lease by which its owner stops to rely on it earlier, and by which other nodes look again
later. It covers clocks that run at different speeds, and the time that an acknowledgement takes to leave."""

DOUBT_LOOKS = 6
"""In the time of a lease, whether this node may still believe that its sessions are its own. If none of so
many in a row says so, others have had the time to take them. Looks are counted, and not seconds: a node that
was stopped for a while first gets to ask."""

SILENCE_MAX_S = 15.0

HOLD_LEASES = 3
"""For so long clients stay connected to a node that has lost the owner of their session. The next one has it
after a lease and a little more."""

KNOCKS = 12
KNOCKS_PER_LEASE = 4
"""So a node that is not let in waits for three leases. By then a dead node has no heartbeat any more."""

GUARDED_LOOKS = 12
"""So often a node looks, once Redis answers, whether it has to yield to another that was there before."""

REFUSED = "refused"
"""The kind of message on the bus by which a node says that it was not let in."""


class CurrentMembership:
    """Port `MembershipView` of the router: the members, as far as this node knows them now."""

    def __init__(self, membership: Membership, clock_s: Callable[[], float], margin_s: float) -> None:
        self._membership = membership
        self._clock_s = clock_s
        self._margin_s = margin_s

    @property
    def live(self) -> Mapping[str, Member]:
        return self._membership.live

    @property
    def ring(self) -> Ring:
        return self._membership.ring

    def member_named(self, name: str) -> Member | None:
        return self._membership.member_named(name)

    def may_run(self, owner: Owner) -> bool:
        return owner.holds or not self.gone(owner.run)

    def overdue(self, run: str) -> bool:
        return self._membership.overdue(run)

    def gone(self, run: str) -> bool:
        """Whether it is certain that this run's heartbeat has ended."""
        # The look that says so must be younger than the time after which one who has come back is believed.
        return self._membership.gone(run, self._clock_s() + self._margin_s)


async def let_go_in_doubt(
    holds: Callable[[], bool], lease_s: float, let_go: Callable[[], None], boundary: Boundary
) -> None:
    """Forever: have everything let go that others may run by now. Those who are connected here hear nothing
    but `busy` from this node; where else their sessions run, they are welcome."""
    doubts = 0
    while True:
        await trio.sleep(lease_s / DOUBT_LOOKS)
        doubts = 0 if holds() else doubts + 1
        if doubts == DOUBT_LOOKS:
            with boundary.within("letting everything go"):
                let_go()


LINK_STATES: Mapping[str, State] = {"idle": "ok", "open": "ok", "dialling": "unknown", "failed": "degraded"}
"""A link that nothing has needed yet is as it should be."""


class ClusterNode:
    """Ports `Cluster` of the API and `LinkService` of the links."""

    def __init__(
        self,
        *,
        membership: Membership,
        heartbeat: Heartbeat,
        router: Router,
        rebalancer: Rebalancer,
        links: LinkPool,
        bus: RedisBus,
    ) -> None:
        self.refused = 0
        """Nodes that were not let in, as far as this one has heard."""
        self.live: Callable[[], Mapping[str, object]] = dict
        """As `Cluster`; nothing, until the API is there."""
        self._bus = bus
        self._membership = membership
        self._heartbeat = heartbeat
        self._router = router
        self._rebalancer = rebalancer
        self._links = links

    @property
    def member(self) -> Member:
        return self._heartbeat.member

    # -- LinkService -----------------------------------------------------------------------------

    def deliver(self, session_id: str, command: Command) -> None:
        self._router.deliver_from_link(session_id, command)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        if request.get("do") == "drain":
            self.leave()
            return {"draining": True}
        if request.get("do") == "live":
            return self.live()
        return await self._rebalancer.answer(request)

    # -- Cluster ---------------------------------------------------------------------------------

    def nodes(self) -> Sequence[NodeState]:
        membership = self._membership
        return [
            NodeState(member, membership.loads.get(run, Load()), len(membership.ring.shards_of(member.name)))
            for run, member in membership.live.items()
        ]

    def draining(self) -> bool:
        return self.member.draining

    def redis_up(self) -> bool:
        return self._membership.reached

    @property
    def redis_signs(self) -> Signs:
        return self._heartbeat.signs

    def links(self) -> Sequence[LinkHealth]:
        found = []
        for run, member in self._membership.live.items():
            if run != self.member.run:
                condition = self._links.condition(run)
                found.append(LinkHealth(member.name, LINK_STATES[condition.state], condition.signs))
        return sorted(found, key=lambda link: link.node)

    def generation(self) -> int:
        return self._membership.ring.generation

    def traffic(self) -> ClusterTraffic:
        moved, routed = self._rebalancer.moved, self._router.routed
        relays = list(self._router.relays())
        links = self._links.statistics()
        return ClusterTraffic(
            taken_over=routed.taken_over,
            handed_on=moved.handed_on,
            not_handed_on=moved.failed,
            sent_on=routed.moved,
            forwarded=routed.forwarded,
            relays=len(relays),
            relay_clients=sum(relay.subscribers for relay in relays),
            links=links.open,
            link_waiting=links.waiting,
            links_lost=links.lost_total,
            bus_dropped=self._bus.statistics().dropped,
            strangers=len(self._membership.strangers),
            refused=self.refused,
            pauses=moved.pauses.statistics(),
            pings=links.pings,
            announcements=self._bus.delay.latency.statistics(),
        )

    async def drain(self, name: str) -> bool:
        member = self._membership.member_named(name)
        if member is None:
            return False
        if member.run == self.member.run:
            self.leave()
            return True
        return (await self._links.ask(member, {"do": "drain"})).get("draining") is True

    async def ask_live(self, name: str) -> Mapping[str, object]:
        """Cluster."""
        member = self._membership.member_named(name)
        if member is None:
            raise LinkLost(f"{name} shows no sign of life")
        return await self._links.ask(member, {"do": "live"})

    # -- leaving ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take no new sessions, and give those that are here to the others."""
        if not self.member.draining:
            log.warning("this node is draining: its sessions go to the others")
            self._heartbeat.announce(replace(self.member, draining=True))
            self._rebalancer.wake()

    async def left(self) -> None:
        """Leave, and wait until no session and no client needs this node any more."""
        self.leave()
        await self._rebalancer.drained()

    def heard(self, changes: Changes) -> None:
        """Of the members."""
        for member in changes.joined:
            log.info("node %s has joined (run %s)", member.name, member.run)
        for member in changes.left:
            log.warning("node %s has left (run %s)", member.name, member.run)
        self._router.locator.members_changed()
        self._rebalancer.wake()


class Clustering:
    """All that a node has because it is one of many. Each part is run by the composition root, in the order
    in which it needs the others.

    Args:
        member: this node as it announces itself first.
        link_socket: bound.
        clock_s: seconds of a clock that runs on while the process is stopped.
        boundary: of the node.
    """

    def __init__(
        self,
        config: Config,
        member: Member,
        redis: RedisServices,
        link_socket: socket.socket,
        clock: SessionClock,
        clock_s: Callable[[], float],
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        margin_s = config.lease_s * MARGIN_SHARE
        secret = (config.secret or "").encode()
        self.redis = redis
        self.lease = ClusterLease(ttl_s=config.lease_s, margin_s=margin_s)
        self._config = config
        self._member = member
        self._clock = clock
        self._clock_s = clock_s
        self._membership = Membership(config.lease_s, lambda other: difference(member.marks, other.marks))
        self.members = CurrentMembership(self._membership, clock_s, margin_s)
        self.links = LinkPool(
            member.run,
            secret,
            silence_s=_silence_s(config),
            gone=self.members.gone,
            boundary=self._boundary,
        )
        self._link_socket = link_socket
        self._secret = secret
        self.router: Router
        self.tell_hop: Callable[[Hop], None] | None = None
        """As of `followed`; set before `route`."""
        self.node: ClusterNode
        self._rebalancer: Rebalancer
        self._heartbeat: Heartbeat

    def pages(self) -> Iterable[str]:
        """Where the nodes have their web pages, or had them: a page outlives its node."""
        return self._membership.pages

    def in_doubt(self) -> bool:
        """Whether others may have taken sessions of this node by now."""
        return not self.lease.certain(self._clock_s())

    def address(self) -> str:
        """What Postgres knows of this run, for when Redis does not."""
        return orjson.dumps(self._member.to_dict()).decode()

    async def route(
        self,
        registry: Registry,
        store: SessionStore,
        factory: SessionFactory,
        journal: Journal,
        may_hand_over: Callable[[], bool],
        *,
        task_status: trio.TaskStatus[Router],
    ) -> None:
        """Find sessions in the whole cluster, and keep those of this node where they should be."""
        async with trio.open_nursery() as nursery:
            self.router = Router(
                nursery,
                registry=registry,
                store=store,
                factory=factory,
                members=self.members,
                links=followed(self.links, self._clock, self.tell_hop),
                clock=self._clock,
                bus=self.redis.bus,
                me=self._member.run,
                relay_above=self._config.relay_above,
                hold_s=HOLD_LEASES * self._config.lease_s,
                boundary=self._boundary,
            )
            self._rebalancer = Rebalancer(
                registry=registry,
                router=self.router,
                store=store,
                journal=journal,
                members=self.members,
                links=self.links,
                me=self._member.run,
                clock=self._clock,
                may_hand_over=may_hand_over,
                boundary=self._boundary,
            )
            self.redis.bus.listen(self.router.hear)
            self.redis.bus.listen(self._hear)
            self._heartbeat = Heartbeat(
                self._membership,
                self.redis.heartbeats,
                self.redis.bus,
                self._member,
                ttl_s=self._config.lease_s,
                load=lambda: self._load(),
                on_changes=lambda changes: self.node.heard(changes),
                on_confirmed=lambda asked_s: self.lease.heartbeat_confirmed(asked_s, self._clock_s()),
                current_time=self._clock_s,
                boundary=self._boundary,
            )
            self.node = ClusterNode(
                membership=self._membership,
                heartbeat=self._heartbeat,
                router=self.router,
                rebalancer=self._rebalancer,
                links=self.links,
                bus=self.redis.bus,
            )
            await nursery.start(self._rebalancer.run)
            nursery.start_soon(
                let_go_in_doubt,
                lambda: self.lease.holds(self._clock_s()),
                self._config.lease_s,
                lambda: _let_go(registry),
                self._boundary,
            )
            task_status.started(self.router)
            await trio.sleep_forever()

    async def serve_links(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Let other nodes reach the sessions here."""
        server = LinkListener(
            self._member.run,
            self._secret,
            self.node,
            silence_s=_silence_s(self._config),
            gone=self.members.gone,
            boundary=self._boundary,
        )
        await server.serve([self._link_socket], task_status=task_status)

    async def appear(self, load: Callable[[], Load], *, task_status: trio.TaskStatus[None]) -> None:
        """Show signs of life to the others, from now until the end."""
        self._load = load
        await self._heartbeat.run(task_status=task_status)

    async def knock(self) -> None:
        """Before this node shows itself: wait while an earlier run of it, or of a cluster that was set up
        otherwise, may still be taken for alive. Raises NotLetIn if another node keeps this one out; the
        others hear of it. While Redis is away nothing is known; see `guard`."""
        refusal: NotLetIn | None = None
        for _ in range(KNOCKS):
            try:
                beat = await self.redis.heartbeats.look()
            except BusUnavailable as error:
                log.warning("whether this node may join is not known yet: %s", error)
                return
            refusals = (self._against(member) for member, _ in beat.members)
            refusal = next(filter(None, refusals), None)
            if refusal is None:
                return
            await trio.sleep(self._config.lease_s / KNOCKS_PER_LEASE)
        assert refusal is not None
        self._complain(refusal)
        raise refusal

    async def guard(self) -> None:
        """Forever. Raises NotLetIn when a node that was there before keeps this one out after all: two that
        start at the same time, or while Redis is away, do not see each other in `knock`. A node that has been
        there for a while stays, and says who is not let in."""
        named: set[str] = set()
        seen: Counter[str] = Counter()
        looks = 0
        while True:
            await trio.sleep(self._config.lease_s / KNOCKS_PER_LEASE)
            strangers = self._membership.strangers
            for run in strangers.keys() - named:
                refusal = self._against(strangers[run])
                log.error("node %s (run %s) is not let in: %s", strangers[run].name, run, refusal)
            named = set(strangers)
            if looks < GUARDED_LOOKS and self._membership.reached:
                looks += 1
                refusals = self._elders()
                seen = Counter({run: seen[run] + 1 for run in refusals})
                for run, refusal in refusals.items():
                    if seen[run] > KNOCKS_PER_LEASE + 1:  # it lives: a heartbeat alone would be gone by now
                        self._complain(refusal)
                        raise refusal

    def _elders(self) -> Mapping[str, NotLetIn]:
        """The earlier members, by run, that this node cannot work together with."""
        membership, own = self._membership, self._member
        there = {**membership.live, **membership.strangers}
        older = {
            run: self._against(member)
            for run, member in there.items()
            if run in membership.listed and (member.started_at, run) < (own.started_at, own.run)
        }
        return {run: refusal for run, refusal in older.items() if refusal is not None}

    def _complain(self, refusal: NotLetIn) -> None:
        self.redis.bus.publish(
            {"kind": REFUSED, "name": self._member.name, "run": self._member.run, "why": refusal.why}
        )

    def _hear(self, message: BusMessage) -> None:
        if message.get("kind") == REFUSED and message.get("run") != self._member.run:
            self.node.refused += 1
            log.warning("node %s was not let in: %s", message.get("name"), message.get("why"))

    def _against(self, other: Member) -> NotLetIn | None:
        """Why this node and that one cannot be in one cluster."""
        if other.run == self._member.run:
            return None
        what = difference(self._member.marks, other.marks)
        if what is not None:
            return Unlike(what, self._config.cluster, other.name)
        return NameTaken(other.name) if other.name == self._member.name else None

    async def leave(self) -> None:
        """Give the sessions here to the others, as far as `drain_s` reaches."""
        with trio.move_on_after(self._config.drain_s, shield=True) as patience:
            await self.node.left()
        if patience.cancelled_caught:
            log.warning("not all sessions could be moved within %g s", self._config.drain_s)
        self.lease.heartbeat_ends()


def _silence_s(config: Config) -> float:
    """How long a link stays without a sign of life: no longer than a lease, so that a node whose sessions are
    taken over has no links any more."""
    return min(config.lease_s, SILENCE_MAX_S)


def _let_go(registry: Registry) -> None:
    owned = list(registry.owned())
    if owned:
        log.error(
            "neither PostgreSQL nor Redis has heard of this node for too long: %d sessions, which others may "
            "run by now, are let go",
            len(owned),
        )
    for each in owned:
        each.fenced()
