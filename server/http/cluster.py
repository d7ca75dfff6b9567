"""The cluster as those who run it see it: which nodes there are, and sending one away."""

from __future__ import annotations

import heapq
import math
import socket
from dataclasses import asdict

from engine.actors.actor import SessionActor
from engine.actors.slow_answers import SlowAnswer
from engine.shards.ports import BusUnavailable, LinkLost, Load, Member
from engine.shards.ring import SHARDS
from server.http.authorization import Access
from server.http.operations import readiness
from server.http.requests import read_query
from server.http.responses import Answer, json_answer
from server.http.services import NodeState, Services
from server.wire.api import operations
from server.wire.api.queries import NoQuery
from server.wire.errors import ApiError

LISTED_MAX = 20
"""The most sessions, and the most answers of a kind, in the live view."""


class ClusterView:
    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access
        self._started_at = services.clock.now_ms()

    async def show(self) -> Answer:
        """A node alone shows itself: `redis_up` is null then."""
        self._access.require_author()
        read_query(NoQuery)
        return json_answer(self._cluster())

    async def live(self) -> Answer:
        """The nodes by their heartbeats; sessions and answers of the node that answers. Waits for nothing."""
        self._access.require_author().require_admin()
        read_query(NoQuery)
        services = self._services
        reasons, degraded = readiness(services)
        counts = services.registry.statistics()
        slow_answers = services.registry.slow_answers
        actors = heapq.nlargest(
            LISTED_MAX, services.registry.active(), key=lambda actor: actor.session.active
        )
        return json_answer(
            operations.LiveView(
                at=services.clock.now_ms(),
                reasons=reasons,
                degraded=degraded,
                acks=counts.acks,
                refused=counts.refused,
                cluster=self._cluster(),
                sessions=[_live(actor) for actor in actors],
                slowest=[_slow(answer) for answer in slow_answers.slowest()[:LISTED_MAX]],
                failed=[_slow(answer) for answer in slow_answers.failed()[:LISTED_MAX]],
            )
        )

    def _cluster(self) -> operations.Cluster:
        cluster = self._services.cluster
        nodes = cluster.nodes() if cluster is not None else [self._alone()]
        return operations.Cluster(
            cluster=self._services.config.cluster,
            redis_up=cluster.redis_up() if cluster is not None else None,
            generation=cluster.generation() if cluster is not None else 0,
            nodes=[_shown(node) for node in sorted(nodes, key=lambda node: node.member.name)],
        )

    async def drain(self, name: str) -> Answer:
        """202: the node knows. It is done when the node has no sessions any more."""
        self._access.require_author().require_admin()
        read_query(NoQuery)
        cluster = self._services.cluster
        if cluster is None:
            raise ApiError("last_node", "This node is alone: nobody could take its sessions.")
        members = {node.member.name: node.member for node in cluster.nodes()}
        if name not in members:
            raise _unknown()
        others = (member for member in members.values() if member.name != name)
        if members[name].takes_sessions and not any(member.takes_sessions for member in others):
            raise ApiError("last_node", f"No other node could take the sessions of {name}.")
        try:
            known = await cluster.drain(name)
        except (BusUnavailable, LinkLost) as error:
            raise ApiError("busy", f"{name} cannot be told just now. Try again in a moment.") from error
        if not known:
            raise _unknown()
        return json_answer(operations.Draining(name, "draining"), 202)

    def _alone(self) -> NodeState:
        services = self._services
        member = Member(
            name=services.config.node or socket.gethostname(),
            run="",
            role="both",
            weight=services.config.weight,
            http_url=services.config.public_url or "",
            ws_url=services.ws_url,
            play_url=services.play_url,
            link_url="",
            version=services.version,
            started_at=self._started_at,
        )
        return NodeState(member, own_load(services), SHARDS)


def own_load(services: Services) -> Load:
    """What this node has to do just now."""
    registry = services.registry.statistics()
    journal = services.journal.statistics()
    lag_s = journal.latency.percentile_s(99)
    longest_s = max(filter(math.isfinite, journal.latency.bounds_s))
    return Load(
        sessions=registry.active,
        players=registry.players,
        connections=sum(transport.connections for transport in services.transports()),
        queued=journal.queued,
        lag_ms=1000 * min(lag_s, longest_s),
        busy=services.loop_watch.statistics().busy_ratio,
    )


def _unknown() -> ApiError:
    return ApiError("node_not_found", "No node of this cluster has this name.")


def _shown(node: NodeState) -> operations.Node:
    member, load = node.member, node.load
    return operations.Node(
        name=member.name,
        role=member.role,
        state="draining" if member.draining else "up",
        weight=member.weight,
        shards=node.shards,
        sessions=load.sessions,
        players=load.players,
        connections=load.connections,
        queued=load.queued,
        lag_ms=load.lag_ms,
        busy=load.busy,
        version=member.version,
        started_at=member.started_at,
        ws_url=member.ws_url,
    )


def _live(actor: SessionActor) -> operations.LiveSession:
    return operations.LiveSession(
        session_id=actor.session_id,
        players=actor.session.active,
        subscribers=actor.subscribers,
        backlog=actor.backlog,
        saved=actor.live.confirmations.all_committed,
    )


def _slow(answer: SlowAnswer) -> operations.SlowAnswer:
    return operations.SlowAnswer(**asdict(answer))
