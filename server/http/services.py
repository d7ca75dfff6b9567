"""What the API needs from the rest of the node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.actors.clock import SessionClock
from engine.actors.commands import Command
from engine.actors.registry import Registry
from engine.boundary import Boundary
from engine.domain.settings import Settings
from engine.latency import NO_LATENCY, Latency, LatencyStatistics, Signs
from engine.ports import CacheCounts, QuizCatalog, SessionRecord, SessionStore
from engine.shards.ports import Load, Member
from engine.storage.journal.writer import WriteBehindStatistics
from server.config.config import Config
from server.realtime.transport import TransportStatistics
from server.runtime.capacity import CapacityWatch
from server.runtime.gc_policy import Collector
from server.runtime.health import LinkHealth
from server.runtime.loop_watch import LoopWatch
from server.runtime.tracing import Tracing
from server.scores import Scores
from server.security.identity import Identities
from server.security.limits import Attempts
from server.security.sign_in import SignIn
from server.security.tokens import Tokens


class JournalState(Protocol):
    @property
    def database_signs(self) -> Signs: ...
    def acknowledges_without_postgres(self) -> bool: ...
    def database_problem(self) -> str | None: ...
    def why_full(self) -> str | None: ...
    def statistics(self) -> WriteBehindStatistics: ...


class LiveSession(Protocol):
    """A session that runs, here or on another node."""

    @property
    def record(self) -> SessionRecord: ...
    @property
    def session_id(self) -> str: ...
    @property
    def code(self) -> str: ...

    def send(self, command: Command) -> None:
        """Hand over a command. Never blocks; the answer goes to its `reply`."""


class Directory(Protocol):
    """All sessions, on whichever node they are: `engine.shards.router.Router`."""

    @property
    def waiting(self) -> int:
        """Commands whose session is looked up or activated."""

    async def get(self, key: str) -> LiveSession:
        """Raises SessionNotFound, SessionFinished, SessionUnavailable, NodeFull, StorageUnavailable,
        OwnedElsewhere."""

    def deliver(self, key: str, command: Command) -> None:
        """Hand a command to the session with this id or code, wherever it is. Never blocks; the answer goes
        to its `reply`."""

    async def create(
        self, quiz_id: str, settings: Settings, version: int | None = None, owner_id: str | None = None
    ) -> SessionRecord:
        """Raises QuizNotFound, NodeFull, StorageUnavailable."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it has announced itself last, and how many shards the ring gives it."""

    member: Member
    load: Load
    shards: int


@dataclass(frozen=True, slots=True)
class ClusterTraffic:
    """A snapshot of what this node has to do with the others; counts since the start, unless said otherwise.

    Attributes:
        taken_over, handed_on, not_handed_on: sessions from nodes that were gone; to others; and tries of that
            which did not come about.
        sent_on: clients told of another node. forwarded: commands passed to another node.
        relays, relay_clients: now. links: to other nodes, now. link_waiting: entries, now.
        links_lost: links. bus_dropped: announcements not made.
        strangers: nodes that show signs of life and are not let in, now. refused: nodes that have ended
            because they were not.
        pauses: how long the commands of a session that was handed on waited. pings: of links, there and back.
        announcements: over the bus, until this node has heard its own.
    """

    taken_over: int
    handed_on: int
    not_handed_on: int
    sent_on: int
    forwarded: int
    relays: int
    relay_clients: int
    links: int
    link_waiting: int
    links_lost: int
    bus_dropped: int
    strangers: int
    refused: int
    pauses: LatencyStatistics = NO_LATENCY
    pings: LatencyStatistics = NO_LATENCY
    announcements: LatencyStatistics = NO_LATENCY


class Cluster(Protocol):
    """The nodes as this one knows them. Only `drain` and `ask_live` ask anybody."""

    def nodes(self) -> Sequence[NodeState]:
        """All that give signs of life, this one included."""

    def draining(self) -> bool:
        """Whether this node is leaving."""

    def redis_up(self) -> bool:
        """Whether Redis has answered lately."""

    @property
    def redis_signs(self) -> Signs:
        """What the heartbeats have shown of Redis."""

    def links(self) -> Sequence[LinkHealth]:
        """The link to each other node, by its name."""

    def generation(self) -> int:
        """The generation of the ring. It follows from the members: nodes that know the same members have the
        same number."""

    def traffic(self) -> ClusterTraffic: ...

    async def drain(self, name: str) -> bool:
        """Have this node move its sessions to the others and take no new ones; False when there is none of
        this name. Returns when the node knows of it, which is long before it is done. Repeated, it changes
        nothing. Raises LinkLost or BusUnavailable when the node cannot be told."""

    async def ask_live(self, name: str) -> Mapping[str, object]:
        """What the node of this name says of itself (`server.wire.api.live.LiveNode`). Raises LinkLost when
        it does not answer."""

    live: Callable[[], Mapping[str, object]]
    """What this node says of itself, when another asks."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the API uses and does not own.

    Args:
        author_key: what authors show.
        identities: reads the identity tokens of users.
        directory: where sessions are found; `registry` has those of this node.
        attempts: what the realtime listener counts on too.
        ws_url: where clients of this node open their WebSocket, as bound or as configured.
        play_url: base of the addresses where answers and event streams cost least, as bound or as configured.
        transports: a snapshot of each realtime transport.
        version: of the program.
        quiz_caches: by where they are: in `memory`, and in `redis` for a node of a cluster.
        scores: of users, over sessions.
        boundary: where mistakes outside of the actors stop, and are counted.
        capacity: what is left of disk and partitions; None where nobody looks.
        cluster: None for a node alone.
        sign_in: None where authors show the author key alone.
        tracing: None where no collector is named.
        resumes: how long clients waited that came back by WebSocket.
    """

    config: Config
    clock: SessionClock
    registry: Registry
    directory: Directory
    store: SessionStore
    catalog: QuizCatalog
    journal: JournalState
    tokens: Tokens
    author_key: str
    identities: Identities
    attempts: Attempts
    loop_watch: LoopWatch
    collector: Collector
    ws_url: str
    play_url: str
    transports: Callable[[], Iterable[TransportStatistics]]
    version: str
    scores: Scores
    quiz_caches: Mapping[str, CacheCounts] = field(default_factory=dict)
    boundary: Boundary = field(default_factory=Boundary)
    capacity: CapacityWatch | None = None
    cluster: Cluster | None = None
    sign_in: SignIn | None = None
    tracing: Tracing | None = None
    resumes: Latency = field(default_factory=Latency)

    def members(self) -> Iterable[Member]:
        """The nodes of the cluster that give signs of life, this one included; none for a node alone."""
        return () if self.cluster is None else (state.member for state in self.cluster.nodes())
