"""Nodes of one cluster in one process, what is between them, and what can happen to them.

A node here is the real one from the write-behind to the router: `Node` puts it together as `server.node`
does, without sockets.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import orjson
import trio

from engine.actors.clock import SessionClock, gap_s
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach, Identity, Rejoin, Watch
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import ConnectionEnded, Waiter
from engine.actors.merging import Merging
from engine.actors.options import ActorOptions
from engine.actors.refusals import NodeFull, SessionFinished, SessionUnavailable
from engine.actors.registry import Registry
from engine.actors.upkeep import Upkeep
from engine.domain.session import Phase, Settings
from engine.ports import OwnedElsewhere, SessionNotFound, SessionRecord, StorageUnavailable
from engine.shards.ports import Load, Member
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory
from engine.storage.heartbeat import Leased
from engine.storage.journal.writer import WriteBehind
from engine.storage.session_ids import new_id
from engine.storage.spool.journal import SpoolJournal
from server.admission import NotLetIn
from server.cluster import Clustering
from server.config.config import Config
from server.realtime.conversation import Conversation, ConversationDeps
from server.runtime.background import background_task
from server.security.limits import Attempts
from server.security.tokens import Grant, TokenError
from tests.fakes import MemoryLinks, MemoryNodeLinks
from tests.shards.fakes import MemoryRedis
from tests.shards.simulation.storage import Disk, Ends, MemorySpool, Postgres

START_MS = 1_700_000_000_000
LEASE_S = 2.0
SKEW_MS = 5_000
"""By how much the clock of a node is off, at most."""

CONFIG = Config(
    redis_url="redis://localhost",
    database_url="postgresql://localhost/simulated",
    secret="of-the-simulated-cluster",
    lease_s=LEASE_S,
    relay_above=20,
    drain_s=5.0,
    spool_after_s=0.5,
)
OPTIONS = ActorOptions(tick_ms=500, idle_s=3.0)
BUSY_CODES = (StorageUnavailable, NodeFull, OwnedElsewhere)


EXTRA_TIMES: Sequence[float | Literal["untimed"] | None] = (None, 1.5, "untimed")
"""Of the users of the app, by their names."""


class Dead(StorageUnavailable, OSError):
    """What is left of a process that has crashed asks for something. Nothing that it does can be seen, but
    its tasks have to come to their end."""


class World:
    """Everything outside the nodes: time, what happens later, the network, Postgres and Redis."""

    def __init__(self, nursery: trio.Nursery, draw: Random) -> None:
        self.draw = draw
        self.nursery = nursery
        self.events: list[tuple[float, str]] = []
        """All that has happened, by virtual seconds."""
        self.violations: list[str] = []
        self.postgres = Postgres(self)
        self.redis = MemoryRedis(ttl_s=LEASE_S)
        self.redis.lag_s = self._lag_s
        self.redis.fates = self._fates
        self.network = MemoryLinks(
            nursery, delay_s=self._link_delay_s, silence_s=LEASE_S, mute=self._mute, gone=self._gone
        )
        self.slow_links: dict[frozenset[str], float] = {}
        self.bus_loss = 0.0
        self.nodes: dict[str, Node] = {}
        """The last run of each."""
        self.disks: dict[str, Disk] = {}
        self.healed_at = inf
        self.closed = False
        self.new_code = partial(_numbered, count(100_001), "{}")
        self._runs = count(1)
        self._due: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._numbers = count()
        self._changed = trio.Event()

    # -- time ------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """By the clock of Postgres."""
        return START_MS + round(trio.current_time() * 1000)

    def at(self, moment_s: float, do: Callable[..., object], *args: object) -> None:
        heappush(self._due, (moment_s, next(self._numbers), do, args))
        if self._due[0][0] == moment_s:
            self._changed.set()

    def after(self, delay_s: float, do: Callable[..., object], *args: object) -> None:
        self.at(trio.current_time() + delay_s, do, *args)

    def later(self, delay_s: float, work: Callable[..., Awaitable[object]], *args: object) -> None:
        """Have something done whose answer nobody waits for."""

        async def do() -> None:
            with suppress(Exception):
                await work(*args)

        self.after(delay_s, self.nursery.start_soon, do)

    async def run(self) -> None:
        """Let things happen when they are due."""
        while True:
            self._changed = trio.Event()
            while self._due and self._due[0][0] <= trio.current_time():
                _, _, do, args = heappop(self._due)
                do(*args)
            with trio.move_on_at(self._due[0][0] if self._due else inf):
                await self._changed.wait()

    # -- what is noted ---------------------------------------------------------------------------

    def trace(self, what: str) -> None:
        self.events.append((trio.current_time(), what))

    def blame(self, what: str) -> None:
        """Note that something is not as it must be."""
        self.trace(f"VIOLATION {what}")
        self.violations.append(what)

    # -- nodes -----------------------------------------------------------------------------------

    async def open(self, names: Sequence[str]) -> None:
        """Let time begin, and start these nodes."""
        self.nursery.start_soon(self.run)
        self.nursery.start_soon(self.redis.run)
        for name in names:
            self.start(name)
        await until(lambda: all(node.open for node in self.nodes.values()))

    def start(self, name: str) -> Node:
        node = Node(self, name, next(self._runs))
        self.nodes[name] = node
        self.trace(f"{node.run} starts")
        self.nursery.start_soon(node.live)
        return node

    def start_again(self, name: str) -> None:
        """Start the node, if it is down."""
        if self.nodes[name].ended.is_set():
            self.start(name)

    def up(self) -> Sequence[Node]:
        """The nodes that clients can come to."""
        return [node for node in self.nodes.values() if node.open]

    def close(self) -> None:
        """End everything at once."""
        self.closed = True
        for node in self.nodes.values():
            node.dead = True
        self.nursery.cancel_scope.cancel()

    def run_named(self, run: str) -> Node | None:
        node = self.nodes.get(run.partition("/")[0])
        return node if node is not None and node.run == run else None

    # -- between nodes ---------------------------------------------------------------------------

    def _lag_s(self, run: str) -> float:
        node = self.run_named(run)
        return self.draw.uniform(0.0005, 0.005) + (node.stands_still_s if node else 0.0)

    def _fates(self, sender: str, receiver: str, message: Mapping[str, object]) -> Sequence[float]:
        draw = self.draw
        if draw.random() < self.bus_loss:
            return ()
        if draw.random() < self.bus_loss:
            return draw.uniform(0.0, 0.5), draw.uniform(0.0, 2.0)
        return (draw.uniform(0.0005, 0.01),)

    def _mute(self, near: str, far: str) -> bool:
        nodes = (self.run_named(near), self.run_named(far))
        return any(node is None or node.dead or node.stands_still_s > 0 for node in nodes)

    def _gone(self, near: str, far: str) -> bool:
        node = self.run_named(near)
        return node is not None and not node.dead and node.clustering.members.gone(far)

    def _link_delay_s(self, near: str, far: str) -> float:
        slow = self.slow_links.get(frozenset((near.partition("/")[0], far.partition("/")[0])), 0.0)
        return self.draw.uniform(0.0005, 0.005) + self.draw.uniform(0.0, slow)


async def until(so: Callable[[], object], every_s: float = 0.05) -> None:
    """Wait until something is so. In virtual time that is cheap, and what is waited for needs no event."""
    while not so():  # noqa: ASYNC110
        await trio.sleep(every_s)


def _numbered(numbers: count[int], form: str) -> str:
    return form.format(next(numbers))


class Process:
    """One run of a node, as what is outside of it sees it.

    One that is stopped does nothing: what it says and hears waits until it goes on, its clocks stand, and the
    timers of its sessions with them. Timers that only wait for something (the patience of a relay, a pause
    before another try) run out meanwhile, as those of a stopped process have when it wakes.
    """

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.run = f"{name}/{number}"
        self.dead = False
        self._stopped_s = self.goes_on_s = -inf

    @property
    def stands_still_s(self) -> float:
        """For how long from now."""
        return max(0.0, self.goes_on_s - trio.current_time())

    def stop(self, for_s: float) -> None:
        now = trio.current_time()
        if self.goes_on_s <= now:
            self._stopped_s = now
        self.goes_on_s = max(self.goes_on_s, now + for_s)

    def clock_s(self) -> float:
        now = trio.current_time()
        return self._stopped_s if now < self.goes_on_s else now

    async def turn(self) -> None:
        """Return when the process runs. Raises Dead when it will not any more."""
        while (left_s := self.stands_still_s) > 0:  # noqa: ASYNC110 - a clock tells when
            await trio.sleep(left_s)
        if self.dead:
            await trio.sleep(0.1)
            raise Dead


class _Clock(SessionClock):
    """Of one process."""

    def __init__(self, process: Process, off_by_ms: int) -> None:
        self._process = process
        super().__init__(process.world.now_ms() + off_by_ms, gap_s=gap_s(LEASE_S))

    def _read_s(self) -> float:
        return self._process.clock_s()

    def trio_time(self, at_ms: float) -> float:
        return max(super().trio_time(at_ms), self._process.goes_on_s)


class WatchedTenure:
    """Port `Lease`, that of a node. Being certain is checked against what the store knows."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def certain(self, now_s: float) -> bool:
        node = self._node
        certain = node.clustering.lease.certain(now_s)
        if certain and node.up_and_running:
            for each in node.registry.owned():
                if not node.world.postgres.sessions.owned_by_run(each.session_id, each.epoch, node.run):
                    node.world.blame(f"{node.run} is certain of {each.session_id}, which was taken")
        return certain


class Tokens:
    """Plain text instead of signatures."""

    def issue(self, session_id: str, role: str, player: int | None, generation: int = 0) -> str:
        return f"{session_id}|{role}|{player or ''}"

    def read(self, token: str) -> Grant:
        session_id, role, player = token.split("|")
        if role not in ("player", "host", "spectator"):
            raise TokenError("token_invalid", "no such role")
        return Grant(session_id, role, int(player) if player else None)  # type: ignore[arg-type]


class Identities:
    """Plain text instead of tokens: the user, who is called like that."""

    def refuse_guest(self) -> None:
        return None

    def read(self, token: str, done: Callable[[Identity], None]) -> None:
        done(Identity(token, token, extra_time=EXTRA_TIMES[sum(token.encode()) % len(EXTRA_TIMES)]))


class Person(Protocol):
    """Who is at the other end of a connection."""

    def hear(self, connection: Connection, message: Mapping[str, Any]) -> None: ...

    def ended(self, connection: Connection, close_reason: CloseReason | None) -> None:
        """None: the connection is lost, and nothing says why."""


class Connection:
    """Between a node and a client: in order, with delays, until one of them is gone. To the node it is what a
    transport has: a Subscriber."""

    def __init__(self, node: Node, person: Person) -> None:
        self.node = node
        self.over = False
        """For the client."""
        self._person = person
        self._world = node.world
        self._there: deque[str | None] = deque()
        self._back: deque[Mapping[str, Any] | CloseReason | None] = deque()
        self._closed = False
        self.hears: Callable[[str], None] = lambda raw: None
        self.gone: Callable[[], None] = lambda: None

    # -- the client's end ------------------------------------------------------------------------

    def say(self, message: Mapping[str, object]) -> None:
        self._travel_there(orjson.dumps(message).decode())

    def drop(self) -> None:
        """The client goes without a word."""
        self.over = True
        self._travel_there(None)

    # -- the node's end --------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        if not self._closed and not self.node.dead:
            self._travel_back(frame.message)

    def close(self, close_reason: CloseReason) -> None:
        if not self._closed and not self.node.dead:
            self._closed = True
            self._travel_back(close_reason)
            self._world.after(0.0, self._let_go)

    def lose(self) -> None:
        """The node has died, and its machine says so."""
        self._travel_back(None)

    # -- in between ------------------------------------------------------------------------------

    def _travel_there(self, what: str | None) -> None:
        self._there.append(what)
        self._world.after(self._world.draw.uniform(0.001, 0.02), self._arrive_there)

    def _arrive_there(self) -> None:
        if self.node.dead:
            return
        if wait_s := self.node.stands_still_s:
            self._world.after(wait_s, self._arrive_there)
            return
        what = self._there.popleft()
        if self._closed:
            return
        if what is None:
            self._closed = True
            self._let_go()
        else:
            self.hears(what)

    def _let_go(self) -> None:
        self.node.connections.pop(self, None)
        if not self.node.dead:
            self.gone()

    def _travel_back(self, what: Mapping[str, Any] | CloseReason | None) -> None:
        self._back.append(what)
        delay_s = self.node.stands_still_s + self._world.draw.uniform(0.001, 0.02)
        self._world.after(delay_s, self._arrive_back)

    def _arrive_back(self) -> None:
        what = self._back.popleft()
        if self.over:
            return
        if isinstance(what, Mapping):
            self._person.hear(self, what)
        else:
            self.over = True
            self._person.ended(self, what)


class Stream:
    """An event stream, as `server.http.events` serves it: a subscriber that cannot be moved and hears only.
    The seat is tied to the request."""

    def __init__(self, node: Node, connection: Connection) -> None:
        self._node = node
        self._connection = connection
        self._session_id: str | None = None
        self._left = False

    async def open(self, key: str, grant: Grant | None, epoch: int | None, offset: int | None) -> None:
        self._connection.gone = self.leave
        try:
            session = await self._node.router.get(key if grant is None else grant.session_id)
        except (SessionNotFound, SessionFinished, SessionUnavailable, *BUSY_CODES) as error:
            self._connection.push(_refusal(error))
            self._connection.close(CloseReason.FAILED)
            return
        self._session_id = session.session_id
        if grant is None:
            session.send(Watch(self, epoch, offset))
        else:
            session.send(Rejoin(self, grant.role, grant.player, None, epoch, offset))

    def leave(self) -> None:
        self._left = True
        if self._session_id is not None:
            self._node.router.deliver(self._session_id, Detach(self))

    def push(self, frame: Frame) -> None:
        if self._left:
            self.leave()
        else:
            self._connection.push(frame)
            if frame.kind == "error":
                self._connection.close(CloseReason.FAILED)

    def close(self, close_reason: CloseReason) -> None:
        self._connection.close(close_reason)


def _refusal(error: Exception) -> Frame:
    code = {
        SessionNotFound: "session_not_found",
        SessionFinished: "session_finished",
        SessionUnavailable: "session_unavailable",
    }.get(type(error), "busy")
    return Frame({"t": "error", "code": code, "message": str(error)})


class Node(Process):
    """A run of a node with all that is in it."""

    def __init__(self, world: World, name: str, number: int) -> None:
        super().__init__(world, name, number)
        self.open = False
        """Clients can come."""
        self.ended = trio.Event()
        self.drained = False
        """It has left in good order, to the end."""
        self.connections: dict[Connection, None] = {}
        self.router: Router
        self.registry: Registry
        self.clustering: Clustering
        self.journal: WriteBehind
        self._requests: trio.Nursery
        self._gate: ConversationDeps
        self._scope = trio.CancelScope()
        self._asked_to_end = trio.Event()
        self._serves_links = False

    @property
    def up_and_running(self) -> bool:
        return self.open and not self.dead and not self.stands_still_s

    # -- from outside ----------------------------------------------------------------------------

    def crash(self, *, silently: bool = False) -> None:
        """It is dead in the middle of whatever it did. `silently`: with its machine, so that no connection to
        it ends."""
        self.world.trace(f"{self.run} crashes{' without a word' if silently else ''}")
        self.dead, self.open = True, False
        self.world.redis.cut_off.add(self.run)
        self.world.redis.forget(self.run)
        if not silently:
            self.world.network.lose(self.run)
            for connection in self.connections:
                connection.lose()
        self.connections.clear()
        self._scope.cancel()
        self.ended.set()

    def end(self) -> None:
        """As SIGTERM does."""
        self.world.trace(f"{self.run} is told to end")
        self._asked_to_end.set()

    def drain(self) -> None:
        self.world.trace(f"{self.run} is told to drain")
        self.clustering.node.leave()

    @property
    def draining(self) -> bool:
        return self.clustering.node.draining()

    # -- its life --------------------------------------------------------------------------------

    async def live(self) -> None:
        with self._scope:
            try:
                async with AsyncExitStack() as stack:
                    await self._assemble(stack)
                    await self._asked_to_end.wait()
            except* NotLetIn:
                self.world.trace(f"{self.run} cannot start: its name is taken")
                self.world.after(1.0, self.world.start_again, self.name)
        if not self.dead:
            self.world.trace(f"{self.run} has ended")
            self.dead, self.open = True, False
            self.world.redis.forget(self.run)
            for connection in list(self.connections):
                connection.lose()
            self.ended.set()

    async def _assemble(self, stack: AsyncExitStack) -> None:
        """As `server.node`, in the same order."""
        world, run = self.world, self.run
        clock = _Clock(self, world.draw.randint(-SKEW_MS, SKEW_MS))
        redis = SimpleNamespace(bus=world.redis.bus(run), heartbeats=world.redis.heartbeats(run))
        clustering = self.clustering = Clustering(
            CONFIG,
            self._member(clock),
            redis,
            None,
            clock,
            self.clock_s,  # type: ignore[arg-type]
        )
        clustering.links = MemoryNodeLinks(world.network, run)  # type: ignore[assignment]
        store: Any = Ends(self, world.postgres)
        spool = SpoolJournal(
            MemorySpool(world.disks.setdefault(self.name, Disk()), self),  # type: ignore[arg-type]
            lease=WatchedTenure(self),
            now_ms=clock.now_ms,
            clock_s=self.clock_s,
        )
        journal = self.journal = WriteBehind(
            store,
            owner=run,
            now_ms=clock.now_ms,
            spool=spool,
            spool_after_s=CONFIG.spool_after_s,
            sign=Leased(clustering.lease, clustering.address),
            clock_s=self.clock_s,
        )
        await stack.enter_async_context(background_task(journal.run))
        await journal.wait_straight()

        catalog = world.postgres.sessions.catalog

        def make(nursery: trio.Nursery) -> Registry:
            return Registry(
                nursery,
                store=store,
                catalog=catalog,
                journal=journal,
                tokens=Tokens(),
                clock=clock,
                owner=run,
                options=OPTIONS,
                gone=clustering.members.gone,
                in_doubt=clustering.in_doubt,
            )

        registry = self.registry = await stack.enter_async_context(
            background_task(partial(_in_a_nursery, make))
        )
        upkeep = Upkeep(registry, store, clock, max_age_s=OPTIONS.max_age_s)
        await stack.enter_async_context(background_task(partial(_in_the_background, upkeep.keep_time)))
        stack.callback(registry.close, CloseReason.SHUTDOWN)
        journal.watch(registry.owned)
        factory = SessionFactory(
            catalog, store, clustering.members, clock, lambda: new_id(clock.now_ms()), world.new_code
        )
        router = self.router = await stack.enter_async_context(
            background_task(
                partial(clustering.route, registry, store, factory, journal, lambda: journal.straight)
            )
        )
        stack.callback(router.close, CloseReason.SHUTDOWN)
        await stack.enter_async_context(background_task(Merging(registry, store, store, run).run))
        self._requests = await stack.enter_async_context(
            background_task(partial(_in_a_nursery, lambda nursery: nursery))
        )
        self._gate = ConversationDeps(
            router,
            Tokens(),
            clock,
            Attempts(10**6),
            1e6,
            10**6,
            identities=Identities(),  # type: ignore[arg-type]  # as much of it as a conversation asks for
        )
        self.clock = clock
        stack.callback(self._close_edge)
        world.network.node(run, self)
        self._serves_links = True
        stack.callback(self._close_links)
        await clustering.knock()
        await stack.enter_async_context(background_task(partial(clustering.appear, Load)))
        self.open = True
        world.trace(f"{run} is ready")
        stack.push_async_callback(self._leave)

    def _member(self, clock: SessionClock) -> Member:
        name = self.name
        return Member(
            name=name,
            run=self.run,
            role="both",
            weight=1,
            http_url=f"http://{name}",
            ws_url=f"ws://{name}",
            play_url=f"http://{name}",
            link_url=f"ws://{name}/link",
            version="1",
            started_at=clock.now_ms(),
        )

    async def _leave(self) -> None:
        if not self.dead:
            await self.clustering.leave()
            self.drained = not self.unfinished()
            self.world.trace(f"{self.run} has left, with {self.unfinished()}")

    def _close_links(self) -> None:
        self._serves_links = False
        self.world.network.lose(self.run)

    def _close_edge(self) -> None:
        self.open = False
        for connection in list(self.connections):
            connection.close(CloseReason.SHUTDOWN)

    def unfinished(self) -> list[str]:
        """Sessions that run here, and are not over."""
        return [
            actor.session_id for actor in self.registry.active() if actor.session.phase is not Phase.FINISHED
        ]

    # -- LinkService: what other nodes ask, as soon as the process runs ------------------------------

    def deliver(self, session_id: str, command: Command) -> None:
        if wait_s := self.stands_still_s:
            self.world.after(wait_s, self.deliver, session_id, command)
        elif self._serves_links and not self.dead:
            self.clustering.node.deliver(session_id, command)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        try:
            await self.turn()
            answer = await self.clustering.node.answer(request)
            await self.turn()
        except Dead:
            await trio.sleep_forever()
        return answer

    # -- the edge --------------------------------------------------------------------------------

    def converse(self, person: Person) -> Connection:
        """A WebSocket."""
        connection = Connection(self, person)
        conversation = Conversation(self._gate, connection, "127.0.0.1")
        connection.hears = conversation.receive
        connection.gone = conversation.disconnected
        self.connections[connection] = None
        return connection

    def stream(
        self, person: Person, key: str, token: str | None, epoch: int | None, offset: int | None
    ) -> Connection:
        """An event stream."""
        connection = Connection(self, person)
        self.connections[connection] = None
        grant = None if token is None else Tokens().read(token)
        self._requests.start_soon(Stream(self, connection).open, key, grant, epoch, offset)
        return connection

    def request(self, person: Person, key: str, make: Callable[[Any, int], Command]) -> Connection:
        """An HTTP request with one answer: a command to the session with this id or code."""
        connection = Connection(self, person)
        self.connections[connection] = None
        self._requests.start_soon(self._respond, connection, key, make)
        return connection

    async def _respond(self, connection: Connection, key: str, make: Callable[[Any, int], Command]) -> None:
        waiter = Waiter()
        try:
            await self.turn()
            now = self.clock.now_ms()
            (await self.router.get(key)).send(make(waiter, now))
            connection.push(await waiter.wait())
        except (SessionNotFound, SessionFinished, SessionUnavailable, *BUSY_CODES) as error:
            connection.push(_refusal(error))
        except ConnectionEnded as error:
            connection.push(_refusal(error))
        connection.close(CloseReason.LEFT)

    async def create(self, quiz_id: str, settings: Settings) -> SessionRecord:
        return await self.router.create(quiz_id, settings)


async def _in_a_nursery(make: Callable[[trio.Nursery], Any], *, task_status: trio.TaskStatus[Any]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(make(nursery))
        await trio.sleep_forever()


async def _in_the_background(
    work: Callable[[], Awaitable[None]], *, task_status: trio.TaskStatus[None]
) -> None:
    task_status.started()
    await work()


class Log(logging.Handler):
    """What the engine logs is a part of the trace of a world; an exception that it logs is not to happen."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.world: World | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.world is None or self.world.closed:
            return
        self.world.trace(f"log: {record.getMessage()}")
        if record.exc_info:
            self.world.blame(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextmanager
def logged() -> Iterator[Log]:
    """Give it the world before that runs."""
    log = Log()
    loggers = [logging.getLogger(name) for name in ("engine", "server")]
    for logger in loggers:
        logger.addHandler(log)
        logger.propagate = False
    try:
        yield log
    finally:
        for logger in loggers:
            logger.removeHandler(log)
            logger.propagate = True
