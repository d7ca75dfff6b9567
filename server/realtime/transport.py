"""What every transport of the realtime port offers, and what it counts."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from engine.actors.close_reasons import CloseReason
from server.runtime.request_times import ByRoute, RequestTimes

PARTING_S = 2.0
"""Time for a client to answer a close frame, or to take the last bytes of a refusal, before it is cut off."""

JOIN_REPLY_S = 15.0
"""How long a session may take to answer a join that came in time, counted from the end of
`join_timeout_s`."""

SHUTDOWN_S = 5.0
"""Time for all clients together to be told that the node is going down."""

PEER_CLOSED = "peer_closed"
"""The end of a connection that the client closed with a close frame."""

MALFORMED = "malformed"
"""The end of a connection whose bytes were no WebSocket frames (1002) or no UTF-8 (1007)."""

CONNECTION_LOST = "connection_lost"
"""The end of a connection that broke."""

UNFLUSHED = frozenset({CloseReason.SLOW_CONSUMER, CloseReason.PING_TIMEOUT})
"""Close reasons of clients that do not read: the close frame does not wait for the backlog."""


class TlsUnsupported(Exception):
    """The transport cannot speak TLS in this process."""


@dataclass(frozen=True, slots=True)
class TransportStatistics:
    """A snapshot.

    `connections` are open now, those in the handshake included; `refused_total` counts failed handshakes by
    reason; `closed_total` ended connections by the reason in their close frame, or PEER_CLOSED, MALFORMED or
    CONNECTION_LOST. `event_streams` are among the connections; `hub_polls` are clients of the hub that ask by
    long polling, whichever connections they do it by; `requests_total` are plain HTTP requests, `requests`
    how long they took but for event streams and long polls, and `looks_total` counts how often the kernel was
    asked which sockets are ready: only the reactor has these.
    Messages, frames and bytes are those of the protocol, without pings; the bytes that were sent may include
    the few that frame them, and those of HTTP responses.
    """

    connections: int
    accepted_total: int
    refused_total: Mapping[str, int]
    closed_total: Mapping[str, int]
    messages_in_total: int
    frames_out_total: int
    bytes_out_total: int
    event_streams: int = 0
    hub_polls: int = 0
    requests_total: int = 0
    requests: ByRoute = field(default_factory=dict)
    looks_total: int = 0


class Tally:
    """The running counts behind the statistics."""

    __slots__ = (
        "accepted",
        "bytes_out",
        "closed",
        "connections",
        "event_streams",
        "frames_out",
        "hub_polls",
        "messages_in",
        "refused",
        "requests",
        "times",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.messages_in = 0
        self.frames_out = 0
        self.bytes_out = 0
        self.event_streams = 0
        self.hub_polls = 0
        self.requests = 0
        self.times = RequestTimes()

    def snapshot(self) -> TransportStatistics:
        return TransportStatistics(
            connections=self.connections,
            accepted_total=self.accepted,
            refused_total=dict(self.refused),
            closed_total=dict(self.closed),
            messages_in_total=self.messages_in,
            frames_out_total=self.frames_out,
            bytes_out_total=self.bytes_out,
            event_streams=self.event_streams,
            hub_polls=self.hub_polls,
            requests_total=self.requests,
            requests=self.times.statistics(),
        )


class Transport(Protocol):
    """Carries conversations over WebSocket. Every implementation passes tests/realtime/test_transport.py."""

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        *,
        ssl_context: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on bound sockets until cancelled; started once it listens. When cancelled it accepts no more,
        ends every connection with SHUTDOWN, waits SHUTDOWN_S for them at most, and closes the sockets."""

    def statistics(self) -> TransportStatistics: ...
