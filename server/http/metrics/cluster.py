"""What a node of a cluster knows of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from server.http.metrics.row import COUNTER, GAUGE, HISTOGRAM, Row
from server.http.services import Cluster, ClusterTraffic


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """What a node knows of the others, and has to do with them."""

    cluster: Cluster
    traffic: ClusterTraffic


def _nodes(cluster: Cluster) -> Mapping[str, float]:
    states = Counter("draining" if node.member.draining else "up" for node in cluster.nodes())
    return {"up": 0, "draining": 0} | states


def _shards(cluster: Cluster) -> Mapping[str, float]:
    return {node.member.name: node.shards for node in cluster.nodes()}


def _moved(traffic: ClusterTraffic) -> Mapping[str, float]:
    return {
        "taken_over": traffic.taken_over,
        "handed_on": traffic.handed_on,
        "not_handed_on": traffic.not_handed_on,
    }


# fmt: off
CLUSTER: tuple[Row[ClusterSnapshot], ...] = (
    Row(GAUGE, "fanfare_cluster_nodes", "Nodes that this one knows, by state.",
        lambda s: _nodes(s.cluster), ("state",),
        advice="Fewer than you run: a node is gone, or does not reach Redis.", over_nodes="max"),
    Row(GAUGE, "fanfare_cluster_shards", "Shards of each node by this one's ring.",
        lambda s: _shards(s.cluster), ("node",),
        advice="Far from even: see `weight` of the nodes; nodes that differ see different rings.",
        over_nodes="max"),
    Row(GAUGE, "fanfare_cluster_redis_up", "Whether Redis has answered lately.",
        lambda s: s.cluster.redis_up(),
        advice="0: leave the nodes running; nobody takes over until Redis is back.", over_nodes="min"),
    Row(HISTOGRAM, "fanfare_redis_sign_seconds", "Heartbeats to Redis, there and back.",
        lambda s: s.cluster.redis_signs.total.statistics(),
        advice="Slow: a node may lose its lease; see the machine of Redis, and the network."),
    Row(HISTOGRAM, "fanfare_handover_pause_seconds",
        "How long the commands of a session waited that was handed to another node.",
        lambda s: s.traffic.pauses,
        advice="How long players of a moved session wait; slow: see commits and links."),
    Row(HISTOGRAM, "fanfare_link_ping_seconds", "Pings on links to other nodes, there and back.",
        lambda s: s.traffic.pings,
        advice="Slow: the network between nodes, or a busy node; players at other nodes than their "
               "session's wait."),
    Row(HISTOGRAM, "fanfare_bus_seconds", "Announcements over the bus, until the node has heard its own.",
        lambda s: s.traffic.announcements,
        advice="Slow: nodes hear late of moved sessions and edited quizzes; see the machine of Redis."),
    Row(GAUGE, "fanfare_cluster_ring_generation", "The same on nodes that place sessions alike.",
        lambda s: s.cluster.generation(),
        advice="Differs between nodes for long: they do not see the same nodes.", over_nodes="each"),
    Row(COUNTER, "fanfare_cluster_sessions_moved", "Sessions that changed nodes, by how.",
        lambda s: _moved(s.traffic), ("how",),
        advice="`taken_over` rises: a node died; `not_handed_on`: others had no room or were not reached."),
    Row(COUNTER, "fanfare_cluster_clients_sent_on", "Clients told of another node.",
        lambda s: s.traffic.sent_on,
        advice="High all the time: the load balancer does not keep clients where their session is."),
    Row(COUNTER, "fanfare_cluster_commands_forwarded", "Commands passed to another node.",
        lambda s: s.traffic.forwarded,
        advice="The load of links; high is normal behind a load balancer that knows no sessions."),
    Row(GAUGE, "fanfare_relays", "Sessions elsewhere that have clients here.", lambda s: s.traffic.relays,
        advice="Many: clients of most sessions are spread over nodes.", over_nodes="sum"),
    Row(GAUGE, "fanfare_relay_clients", "Those clients.", lambda s: s.traffic.relay_clients,
        advice="Many: the load balancer does not keep clients where their session is.", over_nodes="sum"),
    Row(GAUGE, "fanfare_links", "Links to other nodes.", lambda s: s.traffic.links,
        advice="Less than the other nodes: one is not reached; `/health` names it.", over_nodes="each"),
    Row(GAUGE, "fanfare_link_entries_waiting", "What waits to be sent to them.",
        lambda s: s.traffic.link_waiting,
        advice="Grows: the other node or the network is slow; at the bound clients have to come back.",
        over_nodes="max"),
    Row(COUNTER, "fanfare_links_lost", "Links that were lost.", lambda s: s.traffic.links_lost,
        advice="Rises: a firewall ends idle connections, or a node is overloaded."),
    Row(COUNTER, "fanfare_bus_messages_dropped", "Announcements not made.", lambda s: s.traffic.bus_dropped,
        advice="Rises: Redis is away; other nodes hear of edited quizzes late."),
    Row(GAUGE, "fanfare_cluster_strangers", "Nodes there that are not let in.",
        lambda s: s.traffic.strangers,
        advice="Above 0: a node with another secret, release or schema; the log says which.",
        over_nodes="max"),
    Row(COUNTER, "fanfare_cluster_nodes_refused", "Nodes that were not let in.", lambda s: s.traffic.refused,
        advice="Rises: as for `fanfare_cluster_strangers`."),
)
"""Where the node is one of several."""
# fmt: on
