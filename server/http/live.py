"""What happens just now, on this node and on those beside it: one reply, and a stream of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import trio
from msgspec import Struct, ValidationError, convert, json, to_builtins
from msgspec.structs import replace
from quart import request

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason, Reconnect
from engine.actors.registry import RegistryStatistics
from engine.actors.slow_answers import SlowAnswer
from engine.shards.ports import LinkLost, Load
from server.http.authorization import Access
from server.http.cluster import ClusterView, loaded
from server.http.events import OpenStreams, stream_answer
from server.http.operations import DRAINING, readiness
from server.http.requests import read_query
from server.http.responses import Answer, body_answer, json_answer, when_over
from server.http.services import Services
from server.runtime.health import Found, Health
from server.runtime.history import COUNTED, SAMPLE_S, History, Reading
from server.wire.api import live as types
from server.wire.api.queries import NoQuery
from server.wire.errors import too_many_streams
from server.wire.sse import EVENT_STREAM, last_words, retry

LISTED_MAX = 20
"""The most sessions, and the most answers of a kind, of a node."""

ASK_S = 1.0
"""How long the other nodes are waited for. A node that needs longer is shown as silent."""

FRESH_S = 1.0
"""What the other nodes have said is good for so long, however many ask."""

STREAMS_MAX = 20
"""The most streams of the live view on one node."""

STREAM_S = 3_600.0
"""How long a stream lasts: whoever comes back for the next shows anew that they are an admin."""


class LiveFeed:
    """Reads this node every few seconds, tells hosts how their sessions are, and while somebody watches asks
    the other nodes how they are.

    `run` must be running: without it there is no history, and streams tell nothing after their beginning.
    """

    def __init__(self, services: Services, cluster: ClusterView, health: Health) -> None:
        self._services = services
        self._health = health
        self._cluster = cluster
        self._history = History()
        self._largest: list[SessionActor] = []
        """The sessions with the most players at the last look."""
        self._load: Load | None = None
        """At the last look."""
        self._others: dict[str, types.LiveNode] = {}
        """What the other nodes said last, by their name; those that did not answer are not there."""
        self._asked_at = -FRESH_S
        self._asking = trio.Lock()
        self.streams: set[LiveStream] = set()
        """Those that are open."""

    async def run(self) -> None:
        """Run until cancelled."""
        due = trio.current_time()
        while True:
            await self.read()
            await self._tell_hosts()
            if self.streams:
                await self.ask()
            for stream in self.streams:
                stream.wake()
            due = max(due + SAMPLE_S, trio.current_time())
            await trio.sleep_until(due)

    async def _tell_hosts(self) -> None:
        """How their sessions are."""
        p99_ms, spooling = self._history.p99_ms(), self._services.journal.statistics().spooling
        await self._services.registry.tell_hosts(
            None if p99_ms is None else round(p99_ms), spools=spooling is not None and spooling.active
        )

    async def look(self) -> tuple[RegistryStatistics, Load]:
        """Look at all sessions here. Yields to other tasks in between: there may be thousands."""
        services = self._services
        counts, self._largest = await services.registry.survey(LISTED_MAX)
        self._load = load = loaded(services, counts, services.journal.statistics())
        return counts, load

    async def read(self) -> None:
        """Take a reading of this node. Yields as `look`."""
        services = self._services
        counts, load = await self.look()
        cluster = services.cluster
        moved = None if cluster is None else cluster.traffic()
        counted = (moved.taken_over, moved.handed_on, moved.not_handed_on) if moved else (0, 0, 0)
        self._history.take(
            Reading(
                at=services.clock.now_ms(),
                latency=counts.ack_latency,
                sessions=load.sessions,
                players=load.players,
                connections=load.connections,
                queued=load.queued,
                busy=load.busy,
                acks=counts.acks,
                refused=sum(counts.refused.values()),
                counted=dict(zip(COUNTED, (*counted, counts.crashes), strict=True)),
                quarantined=counts.quarantined,
                draining=cluster is not None and cluster.draining(),
                members=frozenset(member.name for member in services.members()) - {self._cluster.own_name()},
                states=self._health.states(),
            )
        )

    # -- this node -------------------------------------------------------------------------------

    def own(self) -> types.LiveNode:
        """What this node says of itself; of its sessions by the last look. Waits for nothing."""
        services = self._services
        reasons, degraded = readiness(services)
        counters, slow_answers = services.registry.counters, services.registry.slow_answers
        here = services.registry.here
        actors = [actor for actor in self._largest if here(actor.session_id) is actor]
        return types.LiveNode(
            name=self._cluster.own_name(),
            at=services.clock.now_ms(),
            version=services.version,
            reasons=[reason for reason in reasons if reason != DRAINING],
            degraded=degraded,
            components=[
                types.LiveComponent(name, each.found.state, each.since, _detail(each.found))
                for name, each in self._health.by_name().items()
            ],
            acks=counters.acks,
            refused=dict(counters.refused),
            sessions=[_live(actor) for actor in actors],
            slowest=[_slow(answer) for answer in slow_answers.slowest()[:LISTED_MAX]],
            failed=[_slow(answer) for answer in slow_answers.failed()[:LISTED_MAX]],
            samples=self._history.samples(),
            events=self._history.events(),
        )

    def told(self) -> Mapping[str, object]:
        """The same for another node."""
        said = to_builtins(self.own())
        assert isinstance(said, dict)
        return said

    # -- the others ------------------------------------------------------------------------------

    async def ask(self) -> None:
        """Have every other node say how it is, all at the same time, within `ASK_S`."""
        cluster = self._services.cluster
        if cluster is None:
            return
        async with self._asking:
            if trio.current_time() - self._asked_at < FRESH_S:
                return
            others: dict[str, types.LiveNode] = {}
            with trio.move_on_after(ASK_S):
                async with trio.open_nursery() as nursery:
                    for member in self._services.members():
                        if member.name != self._cluster.own_name():
                            nursery.start_soon(self._ask, member.name, others)
            self._others = others
            self._asked_at = trio.current_time()

    async def _ask(self, name: str, others: dict[str, types.LiveNode]) -> None:
        cluster = self._services.cluster
        assert cluster is not None
        # A node that is away, or of a release that does not tell, is shown as silent.
        with (
            self._services.boundary.within("asking a node how it is"),
            suppress(LinkLost, ValidationError),
        ):
            others[name] = convert(await cluster.ask_live(name), types.LiveNode)

    # -- all -------------------------------------------------------------------------------------

    def view(self) -> types.LiveView:
        """This node as it is, and what the others said last. Waits for nothing."""
        own, cluster = self.own(), self._cluster.shown(self._load)
        there = {node.name for node in cluster.nodes} - {own.name}
        others = [node for name, node in self._others.items() if name in there]
        return types.LiveView(
            at=own.at,
            node=own.name,
            cluster=cluster,
            nodes=sorted([own, *others], key=lambda node: node.name),
            silent=sorted(there - {node.name for node in others}),
        )


class LiveStream:
    """One open stream. Nothing waits in it: a client that is slow gets the newest view next, with the samples
    and events that it has not had."""

    def __init__(self, feed: LiveFeed, streams: OpenStreams) -> None:
        self._feed = feed
        self._streams = streams
        self._ends_at = trio.current_time() + STREAM_S
        self._close_reason: CloseReason | None = None
        self._over = False
        self._wakeup = trio.Event()
        self._wakeup.set()
        self._told: dict[str, tuple[int, int]] | None = None
        """Of each node, the moments of the newest sample and the newest event that were sent; None before the
        stream has begun."""

    def wake(self) -> None:
        """There is a new view."""
        self._wakeup.set()

    def close(self, close_reason: CloseReason) -> None:
        """End the stream, with these last words."""
        self._close_reason = close_reason
        self._wakeup.set()

    async def next_chunk(self) -> bytes | None:
        """The next view as an event; None at the end. Always a checkpoint, as in `EventStream`."""
        if self._told is None:
            self._told = {}
            await self._feed.look()
            await self._feed.ask()
            await trio.lowlevel.checkpoint()
            return retry(Reconnect.LATER)
        await self._wakeup.wait()
        await self._streams.throttle.go_through()
        if trio.current_time() >= self._ends_at:
            self._close_reason = CloseReason.RESTARTING
        if self._over:
            return None
        if self._close_reason is not None:
            self._over = True
            return last_words(self._close_reason)
        self._wakeup = trio.Event()
        return event_of(self._new(self._told))

    def _new(self, told: dict[str, tuple[int, int]]) -> types.LiveView:
        """The view without the samples and events that were `told`."""
        view, nodes = self._feed.view(), []
        for node in view.nodes:
            sample, event = told.get(node.name, (-1, -1))
            if node.samples and node.samples[-1].at < sample:
                sample = event = -1  # another run of the node, with another clock
            samples = [each for each in node.samples if each.at > sample]
            events = [each for each in node.events if each.at > event]
            told[node.name] = (
                samples[-1].at if samples else sample,
                events[-1].at if events else event,
            )
            nodes.append(replace(node, samples=samples, events=events))
        return replace(view, nodes=nodes)


def event_of(view: Struct) -> bytes:
    """The view as a Server-Sent Event of the type `live`."""
    return b'event: live\ndata: {"t":"live",' + json.encode(view)[1:] + b"\n\n"


class Live:
    """The routes of the live view, for admins."""

    def __init__(self, access: Access, feed: LiveFeed, streams: OpenStreams) -> None:
        self._access = access
        self._feed = feed
        self._streams = streams

    async def show(self) -> Answer:
        """All of it, once. Waits for the other nodes, for a second at most."""
        self._access.require_author().require_admin()
        read_query(NoQuery)
        await self._feed.look()
        await self._feed.ask()
        return json_answer(self._feed.view())

    async def follow(self) -> Answer:
        """A stream: all of it at first, then every few seconds what is new."""
        self._access.require_author().require_admin()
        read_query(NoQuery)
        if request.method == "HEAD":
            return body_answer(b"", EVENT_STREAM)
        if len(self._feed.streams) >= STREAMS_MAX:
            raise too_many_streams()
        self._streams.take_place(self._access.address())
        stream = LiveStream(self._feed, self._streams)
        for streams in (self._feed.streams, self._streams):
            streams.add(stream)
            when_over(partial(streams.discard, stream))
        return stream_answer(stream)


def _detail(found: Found) -> str:
    """What is wrong, and what that means for players."""
    if found.state == "ok":
        return ""
    return f"{found.problem}: {found.means}" if found.problem else found.means


def _live(actor: SessionActor) -> types.LiveSession:
    return types.LiveSession(
        session_id=actor.session_id,
        code=actor.record.code,
        phase=actor.session.phase,
        players=actor.session.active,
        connected=actor.live.audience.connected_players,
        subscribers=actor.subscribers,
        backlog=actor.backlog,
        saved=actor.live.confirmations.all_committed,
    )


def _slow(answer: SlowAnswer) -> types.SlowAnswer:
    return types.SlowAnswer(**{name: getattr(answer, name) for name in types.SlowAnswer.__struct_fields__})
