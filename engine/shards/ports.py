"""The ports of the shards, and what each of them guarantees.

Every implementation of a port passes the same contract test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal, Protocol

from msgspec import Meta, ValidationError, convert

from engine.actors.commands import Command
from engine.actors.delivery.subscriber import Subscriber

Role = Literal["api", "realtime", "both"]

BUS_VERSION = 1
"""The version of messages on the bus and of heartbeats. Nodes ignore those of an unknown version."""

BUS_BYTES_MAX = 8192
"""A larger message is neither sent nor read."""

WEIGHT_MAX = 8
"""The greatest weight of a node."""


class BusUnavailable(Exception):
    """Redis cannot be reached just now, or its answer is not understood."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a node, as it announces itself.

    Args:
        name: of the node, unique in the cluster; decides its place in the ring. A node that starts again
        keeps
            it.
        run: the id of this run, as in the row of a session that it owns. Never used twice.
        http_url, ws_url, play_url: its addresses for clients.
        link_url: its address for the other nodes.
        draining: the node is leaving: its sessions move away, and it gets no new ones.
        started_at: milliseconds since the epoch.
        marks: of the values that must be the same on all nodes (`engine.shards.fingerprint`).
    """

    name: str
    run: str
    role: Role
    weight: Annotated[int, Meta(ge=1, le=WEIGHT_MAX)]
    http_url: str
    ws_url: str
    play_url: str
    link_url: str
    version: str
    started_at: int
    draining: bool = False
    marks: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def takes_sessions(self) -> bool:
        return self.role != "api" and not self.draining

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, data: object) -> Member:
        """Raises ValueError if the data is not a member. Unknown fields are ignored."""
        try:
            return convert(data, cls)
        except ValidationError as error:
            raise ValueError(f"this is not a member: {error!s:.200}") from None


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a node, for display. `busy` is the share of the time in which its loop had something to do;
    `queued` counts facts that wait for PostgreSQL; `lag_ms` is the 99th percentile of the time from a fact to
    its commit."""

    sessions: int = 0
    players: int = 0
    connections: int = 0
    queued: int = 0
    lag_ms: float = 0.0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat: all members whose heartbeat is younger than its TTL, this node included, and
    the run of the Redis that answered. `store_run` changes when Redis restarts and may have forgotten
    members. `strange` are runs whose heartbeat is there but not understood: of a newer release, perhaps.
    `left_s` has by run for how many seconds its heartbeat is good still."""

    members: Sequence[tuple[Member, Load]]
    store_run: str
    strange: frozenset[str] = frozenset()
    left_s: Mapping[str, float] = field(default_factory=dict)


class Heartbeats(Protocol):
    """Heartbeats with a time to live."""

    async def beat(self, member: Member, load: Load) -> Beat:
        """Store a heartbeat, and return those of all nodes. Raises BusUnavailable."""

    async def look(self) -> Beat:
        """Return the heartbeats of all nodes, without storing one. Raises BusUnavailable."""

    async def withdraw(self, member: Member) -> None:
        """Remove the heartbeat: this run is over. Raises BusUnavailable."""


BusMessage = Mapping[str, object]
"""A JSON object. `kind` is the type of the message. If it follows from a sampled request, `traceparent` has
the trace of that."""


class Bus(Protocol):
    """Announcements to all nodes, delivered at most once. Every loss is repaired by something else: the next
    heartbeat, the next look into PostgreSQL, a time to live."""

    def publish(self, message: BusMessage) -> None:
        """Send a message to all nodes. Never blocks. The message is dropped while the bus is away, or when
        too many wait. Raises ValueError for a message that is too large."""

    def listen(self, hear: Callable[[BusMessage], None]) -> None:
        """Call `hear` with every message from now on, those of this node included. `hear` must return at once
        and must not raise."""


class LinkLost(Exception):
    """The link to a node is gone, or could not be made."""


class Links(Protocol):
    """Direct connections to other nodes: commands go there, and the frames of their sessions come back.

    A link is the first and only hop: a node that receives a command over a link runs the session, or refuses.
    """

    def send(self, member: Member, session_id: str, command: Command) -> None:
        """Hand a command to the session on that node. Never blocks. Its `reply` receives what a subscriber
        there would receive: one frame, or for `commands.SubscribeNode` all frames in order; or a close.

        When the link is lost, has no room for the command, or brings no reply for half a minute, `reply` is
        closed with `CloseReason.RESTARTING`: the command may have been handled, and sending it again is safe.
        The reply of a SubscribeNode is closed with `CloseReason.SLOW_CONSUMER` if this node did not keep up
        with its frames, and the reply of a command that cannot be encoded with `CloseReason.FAILED`.

        A Detach is the same as `drop` of its reply."""

    def drop(self, reply: Subscriber) -> None:
        """Forget a reply: it is not called any more. An unknown reply is no error."""

    async def ask(self, member: Member, request: Mapping[str, object]) -> Mapping[str, object]:
        """Send a request of this node, not of a client, to another node: JSON there and JSON back. Raises
        LinkLost, also when there is no answer within 15 s; whether the request was handled is then unknown.
        Raises ValueError for a request that JSON cannot hold, or that is too large."""


class LinkService(Protocol):
    """Handles the commands and requests of other nodes. Called by the task of the link."""

    def deliver(self, session_id: str, command: Command) -> None:
        """As `Router.deliver`, but a command for a session that does not run here is refused, not
        passed on."""

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """The answer to `Links.ask`."""
