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


class LiveSession(Body):
    """A session in the memory of the node that answers."""

    session_id: str
    players: Count
    subscribers: Annotated[int, Meta(ge=0, description="Clients that listen: players, host, screens.")]
    backlog: Annotated[int, Meta(ge=0, description="Commands that wait in its mailbox.")]
    saved: Annotated[
        bool,
        Meta(description="Whether every fact is in PostgreSQL, or in the node's spool, and acknowledged."),
    ]


Since = Annotated[
    int | None, Meta(description="Milliseconds from the receipt; null if it did not come so far.")
]


class SlowAnswer(Body):
    """An answer that took over 250 ms, was refused as `busy`, or failed, and its timeline."""

    at: Annotated[int, Meta(ge=0, description="Its receipt, in milliseconds since the epoch.")]
    session_id: str
    player: int
    question: int
    outcome: str
    taken_ms: Since
    decided_ms: Since
    queued_ms: Since
    commit_started_ms: Since
    commit_ended_ms: Since
    acked_ms: Since
    spooled: Annotated[bool, Meta(description="Whether the ack came from the spool.")]
    trace_id: str | None


class LiveView(Body):
    """What happens just now."""

    at: Annotated[int, Meta(ge=0, description="Milliseconds since the epoch, by the node that answers.")]
    reasons: Annotated[list[str], Meta(description="Why the node that answers cannot take work.")]
    degraded: Annotated[list[str], Meta(description="What does not work although it can.")]
    acks: Annotated[int, Meta(ge=0, description="Answers acknowledged since the node that answers began.")]
    refused: Annotated[dict[str, int], Meta(description="Requests refused since then, by code.")]
    cluster: Cluster
    sessions: Annotated[list[LiveSession], Meta(description="Those with the most players, at most 20.")]
    slowest: Annotated[list[SlowAnswer], Meta(description="Of the last hour, at most 20.")]
    failed: Annotated[list[SlowAnswer], Meta(description="Refused as `busy` or failed; the last 20.")]
