"""What the shards need from the outside world, and what each of them guarantees.

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
"""Of messages on the bus and of heartbeats. Nodes pass over those of a version they do not know."""

BUS_BYTES_MAX = 8192
"""A larger message is not sent, and not read."""


WEIGHT_MAX = 8


class BusUnavailable(Exception):
    """Redis cannot be reached just now, or does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a node, as it announces itself.

    Args:
        name: of the node, unique in the cluster; its place in the ring. A node that starts again keeps it.
        run: of this one run, as in the row of a session that it owns. Never used twice.
        http_url, ws_url, play_url: its addresses for clients.
        link_url: its address for the other nodes.
        draining: it is leaving: its sessions move away, and it gets no new ones.
        started_at: milliseconds since the epoch.
        marks: of what must be the same on all nodes (`engine.shards.fingerprint`).
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
    """What a node has to do, for those who look at the cluster. `busy` is the share of the time in which its
    loop had something to do; `queued` counts facts that wait for Postgres; `lag_ms` is the 99th percentile of
    the time from a fact to its commit."""

    sessions: int = 0
    players: int = 0
    connections: int = 0
    queued: int = 0
    lag_ms: float = 0.0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Beat:
    """What came back from a heartbeat: everybody whose heartbeat is younger than its TTL, oneself included,
    and which Redis has said so. `store_run` changes when that starts anew and may have forgotten somebody.
    `strange` are runs whose heartbeat is there as well but not understood: of a newer release, perhaps."""

    members: Sequence[tuple[Member, Load]]
    store_run: str
    strange: frozenset[str] = frozenset()


class Heartbeats(Protocol):
    """Signs of life with a time to live."""

    async def beat(self, member: Member, load: Load) -> Beat:
        """Show a sign of life, and see who else has. Raises BusUnavailable."""

    async def look(self) -> Beat:
        """See who has shown a sign of life, without showing one. Raises BusUnavailable."""

    async def withdraw(self, member: Member) -> None:
        """Take the sign of life back: this run is over. Raises BusUnavailable."""


BusMessage = Mapping[str, object]
"""`kind` tells what it is about. JSON."""


class Bus(Protocol):
    """Announcements to all nodes, at most once each. Nothing goes on it whose loss is not repaired by
    something else: the next heartbeat, the next look into Postgres, a time to live."""

    def publish(self, message: BusMessage) -> None:
        """Never blocks. Dropped while the bus is away, or when too many wait. Raises ValueError for one that
        is too large."""

    def listen(self, hear: Callable[[BusMessage], None]) -> None:
        """Have `hear` called with every message from now on, one's own included. It must return at once and
        must not raise."""


class LinkLost(Exception):
    """The link to a node is gone, or could not be made."""


class Links(Protocol):
    """Direct connections to other nodes: a command goes there, and what its session says comes back.

    The first and only hop: a node that gets a command this way runs the session, or refuses.
    """

    def send(self, member: Member, session_id: str, command: Command) -> None:
        """Hand a command to the session on that node. Never blocks. Its `reply` hears what a subscriber there
        would: one frame, or for `commands.SubscribeNode` all of them in their order; or an end.

        When the link is lost, has no room for the command, or brings nothing back for half a minute, `reply`
        is closed with `CloseReason.RESTARTING`: what was asked for may have happened, and asking again is
        safe. A SubscribeNode whose node did not take its frames is closed with `CloseReason.SLOW_CONSUMER`,
        and a reply to what cannot be said on a link at all with `CloseReason.FAILED`.

        A Detach is the same as `drop` of its reply."""

    def drop(self, reply: Subscriber) -> None:
        """Forget a reply: it hears nothing more. Unknown ones are no error."""

    async def ask(self, member: Member, request: Mapping[str, object]) -> Mapping[str, object]:
        """Something from node to node that is not about a command of a client: JSON there and JSON back.
        Raises LinkLost, also when there is no answer within 15 s; whether it was done is not known then.
        Raises ValueError for a request that JSON cannot hold, or that is too large."""


class LinkService(Protocol):
    """What a node does for the others, behind its end of a link. Called by the link's task."""

    def deliver(self, session_id: str, command: Command) -> None:
        """As `Router.deliver`, but never passed on: what does not run here is refused."""

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """To `Links.ask`."""
