"""What happens just now, as `GET /api/ops`, its event stream and the nodes among themselves tell it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from server.wire.api.operations import Cluster, Count, State

Moment = Annotated[int, Meta(ge=0, description="Milliseconds since the epoch, by the clock of the node.")]

Kind = Literal[
    "started",
    "draining",
    "node_joined",
    "node_left",
    "taken_over",
    "handed_on",
    "not_handed_on",
    "crashed",
    "quarantined",
    "component",
]


class Part(Struct, frozen=True):
    """Base of what nodes tell each other too: a node of a newer release may say more."""


class LiveSession(Part, frozen=True):
    """A session in the memory of a node."""

    session_id: str
    code: str
    phase: str
    players: Count
    connected: Annotated[int, Meta(ge=0, description="Players with a connection, at any node.")]
    subscribers: Annotated[int, Meta(ge=0, description="Clients that listen: players, host, screens.")]
    backlog: Annotated[int, Meta(ge=0, description="Commands that wait in its mailbox.")]
    saved: Annotated[
        bool,
        Meta(description="Whether every fact is in PostgreSQL, or in the node's spool, and acknowledged."),
    ]


Since = Annotated[
    int | None, Meta(description="Milliseconds from the receipt; null if it did not come so far.")
]


class SlowAnswer(Part, frozen=True):
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


Took = Annotated[
    float | None,
    Meta(description="Milliseconds from receipt to ack; null if nothing was acknowledged."),
]


class LiveSample(Part, frozen=True):
    """What a node had to do in the few seconds before `at`."""

    at: Moment
    answers_per_s: Annotated[float, Meta(ge=0, description="Answers acknowledged.")]
    refused_per_s: Annotated[float, Meta(ge=0, description="Requests refused, by any code.")]
    p50_ms: Took
    p99_ms: Took
    busy: Annotated[float, Meta(ge=0, description="The share of the time with something to do.")]
    sessions: Count
    players: Count
    connections: Count
    queued: Annotated[int, Meta(ge=0, description="Facts that wait for PostgreSQL.")]


class LiveEvent(Part, frozen=True):
    """Something that happened on a node."""

    at: Moment
    kind: Kind
    count: Annotated[int, Meta(ge=1, description="How many sessions, crashes and so on.")] = 1
    about: Annotated[str, Meta(description="The node or the component; empty for sessions.")] = ""
    state: Annotated[State | None, Meta(description="Of a component, from then on.")] = None


class LiveComponent(Part, frozen=True):
    """A dependency of a node."""

    name: str
    state: State
    since: Moment
    detail: Annotated[str, Meta(description="What it means, in a sentence; empty while all is well.")] = ""


class LiveNode(Part, frozen=True):
    """What one node says of itself."""

    name: str
    at: Moment
    version: str
    reasons: Annotated[list[str], Meta(description="Why it cannot take work, if it does not drain.")]
    degraded: Annotated[list[str], Meta(description="What does not work although it can.")]
    components: list[LiveComponent]
    acks: Annotated[int, Meta(ge=0, description="Answers acknowledged since it began.")]
    refused: Annotated[dict[str, int], Meta(description="Requests refused since then, by code.")]
    sessions: Annotated[list[LiveSession], Meta(description="Those with the most players, at most 20.")]
    slowest: Annotated[list[SlowAnswer], Meta(description="Of the last hour, at most 20.")]
    failed: Annotated[list[SlowAnswer], Meta(description="Refused as `busy` or failed; the last 20.")]
    samples: Annotated[
        list[LiveSample], Meta(description="Of the last 15 minutes, the oldest first; on a stream new ones.")
    ]
    events: Annotated[list[LiveEvent], Meta(description="The last 100; on a stream new ones.")]


class LiveView(Part, frozen=True):
    """What happens just now."""

    at: Moment
    node: Annotated[str, Meta(description="The node that answers.")]
    cluster: Annotated[Cluster, Meta(description="The nodes by their heartbeats.")]
    nodes: Annotated[list[LiveNode], Meta(description="What each says of itself, by name.")]
    silent: Annotated[list[str], Meta(description="Nodes that did not answer within a second, by name.")]
