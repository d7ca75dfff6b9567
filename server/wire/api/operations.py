"""For those who run a node."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from server.wire.api.common import Body


class Health(Body):
    """The event loop turns."""

    status: Literal["alive"]
    version: str
    ws_url: Annotated[str, Meta(description="Where clients of this node open their WebSocket.")]


class Readiness(Body):
    """Whether the node can take work."""

    ready: bool
    reasons: list[str]
    degraded: Annotated[list[str], Meta(description="What does not work although the node can take work.")]


Count = Annotated[int, Meta(ge=0)]


class Node(Body):
    """One node of the cluster as it has announced itself last."""

    name: str
    role: Literal["api", "realtime", "both"]
    state: Literal["up", "draining"]
    weight: Annotated[int, Meta(ge=1)]
    shards: Annotated[int, Meta(ge=0, description="Of the 4,096, by the ring of the node that answers.")]
    sessions: Count
    players: Count
    connections: Count
    queued: Annotated[int, Meta(ge=0, description="Facts that wait for PostgreSQL.")]
    lag_ms: Annotated[float, Meta(ge=0, description="From a fact to its commit, 99th percentile.")]
    busy: Annotated[
        float, Meta(ge=0, description="The share of the time in which the node has something to do.")
    ]
    version: str
    started_at: Annotated[int, Meta(ge=0, description="Milliseconds since the epoch.")]
    ws_url: str


class Cluster(Body):
    """The nodes of the cluster."""

    cluster: Annotated[str, Meta(description="Its name.")]
    redis_up: Annotated[bool | None, Meta(description="Null for a node alone.")]
    generation: Annotated[int, Meta(description="Of the ring; rises with every change.")]
    nodes: list[Node]


class Draining(Body):
    """The node knows that it is to leave."""

    name: str
    state: Literal["draining"]
