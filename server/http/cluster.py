"""The cluster as those who run it see it: which nodes there are, and sending one away."""

from __future__ import annotations

import math
import socket

from engine.actors.registry import RegistryStatistics
from engine.shards.ports import BusUnavailable, LinkLost, Load, Member
from engine.shards.ring import SHARDS
from engine.storage.journal.writer import WriteBehindStatistics
from server.http.authorization import Access
from server.http.requests import read_query
from server.http.responses import Answer, json_answer
from server.http.services import NodeState, Services
from server.wire.api import operations
from server.wire.api.queries import NoQuery
from server.wire.errors import ApiError


class ClusterView:
    def __init__(self, services: Services, access: Access) -> None:
        self._services = services
        self._access = access
        self._started_at = services.clock.now_ms()

    async def show(self) -> Answer:
        """A node alone shows itself: `redis_up` is null then."""
        self._access.require_author()
        read_query(NoQuery)
        return json_answer(self.shown())

    def own_name(self) -> str:
        """Of this node."""
        return self._services.config.node or socket.gethostname()

    def shown(self, own: Load | None = None) -> operations.Cluster:
        """The nodes, by their heartbeats. Waits for nothing. Args: own: the load of a node alone, if it is
        known."""
        cluster = self._services.cluster
        nodes = cluster.nodes() if cluster is not None else [self._alone(own)]
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

    def _alone(self, own: Load | None) -> NodeState:
        services = self._services
        member = Member(
            name=self.own_name(),
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
        return NodeState(member, own or own_load(services), SHARDS)


def own_load(services: Services) -> Load:
    """What this node has to do just now."""
    return loaded(services, services.registry.statistics(), services.journal.statistics())


def loaded(services: Services, registry: RegistryStatistics, journal: WriteBehindStatistics) -> Load:
    """The same, of what was counted already."""
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
