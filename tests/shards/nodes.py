"""Nodes of one cluster in one process, without a network and without Postgres, under trio's mock clock.

What a node knows of the others is set by the test: nobody beats, and nobody is missed. `Rebalancer.run` runs
only where a test starts it.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.actors.actor import SessionActor
from engine.actors.clock import SessionClock
from engine.actors.commands import Answer, Command, Host, Join, Rejoin, Watch
from engine.actors.options import ActorOptions
from engine.actors.registry import Registry
from engine.boundary import Boundary
from engine.domain.quiz import Quiz
from engine.ports import Owner, SessionRecord
from engine.shards.link.hops import Hop, followed
from engine.shards.ports import Member
from engine.shards.rebalancer import Rebalancer
from engine.shards.relay import Relay
from engine.shards.ring import Ring
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory
from tests.actors.world import QUIZ, START_MS, Client, PlainTokens, settle
from tests.fakes import MemoryCatalog, MemoryJournal, MemoryLinks, MemorySessionStore
from tests.keys import session_id
from tests.settings import at_once
from tests.shards.fakes import MemoryRedis
from tests.shards.making import member_of

RELAY_ABOVE = 10_000
FOREVER_MS = 1 << 50


class Known:
    """Port `MembershipView`, as the test wants it."""

    def __init__(self) -> None:
        self.live: dict[str, Member] = {}
        self.ring = Ring.of({})
        self.missed: set[str] = set()
        self.late: set[str] = set()

    def member_named(self, name: str) -> Member | None:
        return next((member for member in self.live.values() if member.name == name), None)

    def may_run(self, owner: Owner) -> bool:
        return owner.holds or not self.gone(owner.run)

    def overdue(self, run: str) -> bool:
        return run in self.late

    def gone(self, run: str) -> bool:
        return run in self.missed

    def see(self, *members: Member) -> None:
        """From now on these are the members."""
        self.live = {member.run: member for member in members}
        self.ring = Ring.of({each.name: each.weight for each in members if each.takes_sessions})


class Node:
    """One run of a node. It serves its links itself."""

    def __init__(self, cluster: Cluster, member: Member, nursery: trio.Nursery) -> None:
        self.clock = SessionClock(cluster.clock.now_ms() + cluster.skew_ms.get(member.name, 0))
        self.member = member
        self.run = member.run
        self.nursery = nursery
        self.known = Known()
        self.journal = MemoryJournal(cluster.store)
        self.may_hand_over = True
        self.boundary = Boundary()
        self.registry = Registry(
            nursery,
            store=cluster.store,
            catalog=cluster.catalog,
            journal=self.journal,
            tokens=PlainTokens(),
            clock=self.clock,
            owner=member.run,
            options=cluster.options,
            gone=self.known.gone,
            boundary=self.boundary,
        )
        self.links = followed(cluster.links.node(member.run, self), self.clock, cluster.tell_hop)
        bus = cluster.redis.bus(member.run)
        self.router = Router(
            nursery,
            registry=self.registry,
            store=cluster.store,
            factory=SessionFactory(
                cluster.catalog, cluster.store, self.known, self.clock, cluster.new_id, cluster.new_code
            ),
            members=self.known,
            links=self.links,
            clock=self.clock,
            bus=bus,
            me=member.run,
            relay_above=RELAY_ABOVE,
            boundary=self.boundary,
        )
        self.rebalancer = Rebalancer(
            registry=self.registry,
            router=self.router,
            store=cluster.store,
            journal=self.journal,
            members=self.known,
            links=self.links,
            me=member.run,
            clock=self.clock,
            may_hand_over=lambda: self.may_hand_over,
            boundary=self.boundary,
        )
        bus.listen(self.router.hear)
        self._cluster = cluster

    # LinkService

    def deliver(self, session_id: str, command: Command) -> None:
        self.router.deliver_from_link(session_id, command)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        return await self.rebalancer.answer(request)

    # What the tests do and look at.

    def here(self, record: SessionRecord) -> SessionActor:
        """The actor that must be here."""
        actor = self.registry.here(record.id)
        assert actor is not None, f"{record.id} does not run on {self.member.name}"
        return actor

    def relay(self, record: SessionRecord) -> Relay | None:
        return next((relay for relay in self.router.relays() if relay.session_id == record.id), None)

    async def sent(self, key: str, command: Command) -> None:
        self.router.deliver(key, command)
        await settle()

    async def join(self, record: SessionRecord, name: str, *, may_move: bool = False) -> Client:
        client = Client()
        await self.sent(record.code, Join(client, name, self.clock.now_ms(), may_move=may_move))
        return client

    async def rejoin(
        self, record: SessionRecord, role: Any, player: int | None = None, **where: Any
    ) -> Client:
        client = Client()
        await self.sent(record.id, Rejoin(client, role, player, **where))
        return client

    async def watch(self, record: SessionRecord, **where: Any) -> Client:
        client = Client()
        await self.sent(record.code, Watch(client, **where))
        return client

    async def do(self, record: SessionRecord, do: str, **more: Any) -> Client:
        client = Client()
        await self.sent(record.id, Host(client, "h", do, **more))
        return client

    async def answers(
        self, record: SessionRecord, client: Client, player: int, choice: object = 0, *, question: int = 1
    ) -> None:
        at = self.clock.now_ms()
        await self.sent(record.id, Answer(client, player, "a", question, choice, at))


class Cluster:
    """`store` has every node's lease; `links` and `redis` are those of all. `tell_hop` is told of what goes
    over links, if anybody wants to know."""

    def __init__(
        self,
        nursery: trio.Nursery,
        options: ActorOptions,
        skew_ms: Mapping[str, int] | None = None,
        tell_hop: Callable[[Hop], None] | None = None,
    ) -> None:
        self.tell_hop = tell_hop
        self._nursery = nursery
        self.options = options
        self.clock = SessionClock(START_MS)
        self.skew_ms = dict(skew_ms or {})
        """By how much the clocks of nodes are ahead."""
        self.catalog = MemoryCatalog()
        self.store = MemorySessionStore(self.catalog)
        self.links = MemoryLinks(nursery)
        self.redis = MemoryRedis()
        self.nodes: list[Node] = []
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        return session_id(next(self._numbers))

    def new_code(self) -> str:
        return f"{next(self._numbers):06}"

    async def start(self, name: str, run: int = 1, **changes: object) -> Node:
        """A node whom all others see at once."""
        member = member_of(name, run, **changes)

        async def live(task_status: trio.TaskStatus[Node]) -> None:
            async with trio.open_nursery() as nursery:
                task_status.started(Node(self, member, nursery))
                await trio.sleep_forever()

        node: Node = await self._nursery.start(live)
        self.nodes.append(node)
        self.store.leases[member.run] = FOREVER_MS
        self.all_see()
        return node

    def all_see(self) -> None:
        """Everybody knows everybody."""
        for node in self.nodes:
            node.known.see(*(other.member for other in self.nodes))

    async def kill(self, node: Node) -> None:
        """The process is gone; nobody has noticed yet, and its lease still holds."""
        self.links.lose(node.run)
        self.redis.forget(node.run)
        self.nodes.remove(node)
        node.nursery.cancel_scope.cancel()
        await settle()

    def miss(self, run: str) -> None:
        """Everybody is certain that this run shows no life any more."""
        self.all_see()
        for node in self.nodes:
            node.known.missed.add(run)

    async def record(self, belongs_to: Node, quiz: Quiz = QUIZ, **settings: Any) -> SessionRecord:
        """A new session that nobody has claimed, with an id that the ring has at this node."""
        stored = await self.catalog.add(quiz)
        session_id = self.new_id()
        while belongs_to.known.ring.owner_of(session_id) != belongs_to.member.name:
            session_id = self.new_id()
        record = SessionRecord(
            session_id, self.new_code(), stored.id, stored.version, at_once(**settings), self.clock.now_ms()
        )
        await self.store.create(record)
        return record

    async def session(
        self, at: Node, quiz: Quiz = QUIZ, *, belongs_to: Node | None = None, **settings: Any
    ) -> SessionRecord:
        """A new session that runs at a node."""
        record = await self.record(belongs_to or at, quiz, **settings)
        await at.registry.activate(record)
        return record


@asynccontextmanager
async def cluster_of(
    *names: str,
    options: ActorOptions | None = None,
    skew_ms: Mapping[str, int] | None = None,
    tell_hop: Callable[[Hop], None] | None = None,
) -> AsyncIterator[tuple[Cluster, list[Node]]]:
    """These nodes, all of which see each other."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, options or ActorOptions(), skew_ms, tell_hop)
        await nursery.start(cluster.redis.run)
        nodes = [await cluster.start(name) for name in names]
        yield cluster, nodes
        nursery.cancel_scope.cancel()
