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


ComponentName = Literal["postgresql", "spool", "redis", "links", "clock", "certificate", "loop"]

State = Literal["ok", "degraded", "down", "unknown"]

Rfc3339 = Annotated[str, Meta(description="A moment in UTC, as RFC 3339 writes it.")]


class LastError(Body):
    """The last error of a component."""

    at: Rfc3339
    text: Annotated[str | None, Meta(description="For admins; null for everybody else.")]


class LastMinute(Body):
    """How long a component took to answer in the last minute, in milliseconds."""

    p50_ms: Annotated[float, Meta(ge=0)]
    p99_ms: Annotated[float, Meta(ge=0)]


class ComponentHealth(Body):
    """How one component of a node is."""

    name: ComponentName
    node: Annotated[str | None, Meta(description="Of a link: the node at its other end.")]
    state: State
    since: Rfc3339
    means: Annotated[str, Meta(description="For players, in a sentence.")]
    problem: Annotated[str, Meta(description="What is wrong, in a sentence; empty while nothing is.")]
    last_error: LastError | None
    latency: Annotated[LastMinute | None, Meta(description="Null where there is none.")]
    days_left: Annotated[float | None, Meta(description="Of the certificate.")]


class HealthReport(Body):
    """How a node is, by its components."""

    state: Annotated[State, Meta(description="The worst of its components.")]
    at: Rfc3339
    version: str
    components: list[ComponentHealth]


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
