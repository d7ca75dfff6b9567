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
        lambda s: _nodes(s.cluster), ("state",)),
    Row(GAUGE, "fanfare_cluster_shards", "Shards of each node by this one's ring.",
        lambda s: _shards(s.cluster), ("node",)),
    Row(GAUGE, "fanfare_cluster_redis_up", "Whether Redis has answered lately.",
        lambda s: s.cluster.redis_up()),
    Row(HISTOGRAM, "fanfare_redis_sign_seconds", "Heartbeats to Redis, there and back.",
        lambda s: s.cluster.redis_signs.total.statistics()),
    Row(HISTOGRAM, "fanfare_handover_pause_seconds",
        "How long the commands of a session waited that was handed to another node.",
        lambda s: s.traffic.pauses),
    Row(HISTOGRAM, "fanfare_link_ping_seconds", "Pings on links to other nodes, there and back.",
        lambda s: s.traffic.pings),
    Row(GAUGE, "fanfare_cluster_ring_generation", "The same on nodes that place sessions alike.",
        lambda s: s.cluster.generation()),
    Row(COUNTER, "fanfare_cluster_sessions_moved", "Sessions that changed nodes, by how.",
        lambda s: _moved(s.traffic), ("how",)),
    Row(COUNTER, "fanfare_cluster_clients_sent_on", "Clients told of another node.",
        lambda s: s.traffic.sent_on),
    Row(COUNTER, "fanfare_cluster_commands_forwarded", "Commands passed to another node.",
        lambda s: s.traffic.forwarded),
    Row(GAUGE, "fanfare_relays", "Sessions elsewhere that have clients here.", lambda s: s.traffic.relays),
    Row(GAUGE, "fanfare_relay_clients", "Those clients.", lambda s: s.traffic.relay_clients),
    Row(GAUGE, "fanfare_links", "Links to other nodes.", lambda s: s.traffic.links),
    Row(GAUGE, "fanfare_link_entries_waiting", "What waits to be sent to them.",
        lambda s: s.traffic.link_waiting),
    Row(COUNTER, "fanfare_links_lost", "Links that were lost.", lambda s: s.traffic.links_lost),
    Row(COUNTER, "fanfare_bus_messages_dropped", "Announcements not made.", lambda s: s.traffic.bus_dropped),
    Row(GAUGE, "fanfare_cluster_strangers", "Nodes there that are not let in.",
        lambda s: s.traffic.strangers),
    Row(COUNTER, "fanfare_cluster_nodes_refused", "Nodes that were not let in.", lambda s: s.traffic.refused),
)
"""Where the node is one of several."""
# fmt: on
