"""Where a command goes: to the actor here, to the node that runs its session, or back to the sender.

Every node has a router. A lone node is a cluster of one (`engine.shards.lone_node`): each session is here, or
is activated here. In a larger cluster `engine.shards.session_locator` says where. While the last owner of a
session may not be gone yet, its clients wait, hear `busy`, and try again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from engine.actors import messages
from engine.actors.actor import SessionActor
from engine.actors.clock import Clock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Detach, Join, Left, Rejoin, SubscribeNode, Watch
from engine.actors.delivery.audience import Sent
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.handoff import HandoffSnapshot
from engine.actors.refusals import REFUSALS, SessionFinished, SessionUnavailable, refuse
from engine.actors.registry import Registry
from engine.boundary import Boundary
from engine.domain.session_keys import is_session_key
from engine.domain.settings import Settings
from engine.ports import OwnedElsewhere, SessionNotFound, SessionRecord, SessionStore, Unreadable
from engine.shards.clock_offset import arrived, departing
from engine.shards.lookups import CommandQueues
from engine.shards.membership import MembershipView
from engine.shards.ports import Bus, BusMessage, Links, Member
from engine.shards.relay import HOLD_S, Relay
from engine.shards.session_factory import SessionFactory
from engine.shards.session_location import RemoteLocation, announced, announcement
from engine.shards.session_locator import NoOwnerYet, SessionLocator

WAITING_MAX = 10_000
"""The most commands that wait for their session to be found and activated."""

LOOK_AGAIN_S = 2.0
"""The pause between two looks for an owner that clients wait for. The bus announces most before that."""

ROUTE_TRIES = 3

LOOKS_FOR_OWNERS_MAX = 16
"""The most concurrent looks into the store for sessions whose owner was lost."""

Attaching = Join | Rejoin | Watch
"""These commands make the sender a subscriber."""

_NOT_THERE = frozenset({"busy", "session_not_found", "session_finished"})

_FINAL = (SessionNotFound, SessionFinished, SessionUnavailable, Unreadable)
"""Reasons not to ask again."""


class RemoteSession:
    """A session on another node, with the interface of an actor: commands go to that node."""

    __slots__ = ("_send", "member", "record")

    def __init__(self, location: RemoteLocation, send: Callable[[str, Command], None]) -> None:
        self.record = location.record
        self.member = location.member
        self._send = send

    @property
    def session_id(self) -> str:
        return self.record.id

    @property
    def code(self) -> str:
        return self.record.code

    def send(self, command: Command) -> None:
        """Hand over a command. Never blocks."""
        self._send(self.record.id, command)


class _Forwarded:
    """Subscriber: the reply to a command that went to another node. If that node does not run the session
    after all, the session is looked up again for the next command."""

    __slots__ = ("_forget", "_reply")

    def __init__(self, reply: Subscriber, forget: Callable[[], None]) -> None:
        self._reply = reply
        self._forget = forget

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if frame.kind == "error" and frame.message["code"] in _NOT_THERE:
            self._forget()
        self._reply.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        self._forget()
        self._reply.close(close_reason)


@dataclass(slots=True)
class Routed:
    """Counts of a router since the start: clients moved to another node, commands forwarded, and sessions
    taken over from nodes that were gone."""

    moved: int = 0
    forwarded: int = 0
    taken_over: int = 0


@dataclass(slots=True)
class _Held:
    """A session that is being handed to another node, and the commands that arrived meanwhile."""

    location: RemoteLocation
    commands: list[Command]


class Router:
    """Finds sessions in the cluster, brings them into memory on demand, and hands commands to them.

    Args:
        nursery: runs relays, and looks into the store.
        me: this run of this node.
        factory: stores new sessions.
        relay_above: player limit of a session above which each node takes its players.
        boundary: of the node.
        hold_s: how long clients of a lost owner stay connected, or wait to come in, until another node runs
            their session.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        registry: Registry,
        store: SessionStore,
        factory: SessionFactory,
        members: MembershipView,
        links: Links,
        clock: Clock,
        bus: Bus,
        me: str,
        relay_above: int,
        boundary: Boundary | None = None,
        hold_s: float = HOLD_S,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._nursery = nursery
        self._registry = registry
        self._store = store
        self._factory = factory
        self._members = members
        self._links = links
        self._clock = clock
        self._bus = bus
        self._me = me
        self._relay_above = relay_above
        self._hold_s = hold_s
        self.locator = SessionLocator(
            nursery, store=store, members=members, clock=clock, me=me, boundary=self._boundary
        )
        self._looks_for_owners = trio.CapacityLimiter(LOOKS_FOR_OWNERS_MAX)
        self._held: dict[str, _Held] = {}
        """Sessions that are being handed over, by id and by code."""
        self._relays: dict[str, Relay] = {}
        self._relays_by_code: dict[str, Relay] = {}
        self._queues = CommandQueues(nursery, _refuse, REFUSALS, self._boundary, WAITING_MAX)
        """Commands whose session is looked up or activated."""
        self.sent = Sent()
        self.routed = Routed()

    # -- commands --------------------------------------------------------------------------------

    def deliver(self, key: str, command: Command) -> None:
        """Hand a command to the session with this id or code, wherever it is. Never blocks; every failure is
        an `error` to `command.reply`. A client that may move is told the address of the owner."""
        if self._queues.holds(self._route, key):
            self._queues.add(self._route, key, command)
        elif (actor := self._registry.here(key)) is not None:
            actor.send(command)
        elif not self._deliver_near(key, command):
            self._find_and_deliver(key, command)

    def _deliver_near(self, key: str, command: Command) -> bool:
        """Deliver to a session that is leaving this node, or to a relay. False if there is none."""
        if self._keep(key, command):
            return True
        relay = self._relays.get(key) or self._relays_by_code.get(key)
        if relay is None:
            return False
        if isinstance(command, Attaching) and command.may_move and not self._stays(relay.owner, relay.shared):
            self._move(command, relay.owner)
        else:
            relay.deliver(command)
        return True

    def _find_and_deliver(self, key: str, command: Command) -> None:
        if isinstance(command, Detach):
            return
        if (location := self.locator.remembered(key)) is not None:
            self._pass_on(location, command)
        elif not is_session_key(key):
            _refuse(SessionNotFound(key), command)
        elif (error := self.locator.failed(key)) is not None and not isinstance(error, NoOwnerYet):
            _refuse(error, command)
        else:
            self._queues.add(self._route, key, command)

    def deliver_from_link(self, session_id: str, command: Command) -> None:
        """As `deliver`, for a command from another node, which is not passed on a second time."""
        command = arrived(command, self._clock.now_ms())
        waits = self._queues.holds(self._route_here, session_id)
        if not waits and self._deliver_here(session_id, command):
            return
        if not is_session_key(session_id):
            _refuse(SessionNotFound(session_id), command)
        elif waits or not isinstance(command, Detach | Left):
            self._queues.add(self._route_here, session_id, command)
        elif isinstance(command, Left):
            _refuse(None, command)  # subscriptions at the next owner list the seats

    def _deliver_here(self, key: str, command: Command) -> bool:
        actor = self._registry.here(key)
        if actor is None:
            return self._keep(key, command)
        actor.send(command)
        return True

    def _keep(self, key: str, command: Command) -> bool:
        """Keep a command if its session is being handed to another node. False if it is not."""
        if (held := self._held.get(key)) is None:
            return False
        if len(held.commands) >= WAITING_MAX:
            _refuse(None, command)
        else:
            held.commands.append(command)
        return True

    async def _route(self, key: str) -> Callable[[Command], None]:
        found = await self._find_in_time(key)

        def send(command: Command) -> None:
            # Since the look-up the session may have come here, or left.
            if self._deliver_here(key, command):
                return
            if isinstance(found, RemoteLocation):
                self._pass_on(found, command)
            else:
                found.send(command)

        return send

    async def _route_here(self, session_id: str) -> Callable[[Command], None]:
        """The way to a session on this node. A session without an owner is activated here, whatever the ring
        says: the node that sent the command has another ring, and the session is handed on if that is wrong.
        """
        self.locator.forget(session_id)
        tries = 0
        while True:
            try:
                if self._registry.holds(session_id):
                    actor = await self._registry.get(session_id)
                else:
                    record = await self._store.find(session_id)
                    if self.locator.running(record) is not None:
                        raise NoOwnerYet
                    actor = await self.activate(record)
            except OwnedElsewhere as error:
                tries += 1
                if error.owner is not None or tries == ROUTE_TRIES:
                    raise
            else:
                return actor.send

    def _pass_on(self, location: RemoteLocation, command: Command) -> None:
        record = location.record
        if not isinstance(command, Attaching) or (isinstance(command, Join) and not command.attach):
            self.routed.forwarded += 1
            reply = _Forwarded(command.reply, partial(self.locator.forget, record.id))
            self._links.send(location.member, record.id, departing(command, reply, self._clock.now_ms()))
        elif command.may_move and not self._stays(location.member, self.is_shared(record)):
            self._move(command, location.member)
        else:
            self.relay_for(location).deliver(command)

    def _stays(self, owner: Member, shared: bool) -> bool:
        """Whether clients of a session elsewhere stay at this node: the session is shared, or its owner may
        hang. Sent to an owner that hangs, a client would lose the time that it takes to notice; here it gets
        the next owner."""
        return shared or self._members.overdue(owner.run)

    def _move(self, command: Command, to: Member) -> None:
        self.routed.moved += 1
        command.reply.push(messages.moved(to.ws_url))
        command.reply.close(CloseReason.MOVED)

    def is_shared(self, record: SessionRecord) -> bool:
        """Whether every node takes players of this session."""
        return record.settings.player_limit > self._relay_above

    @property
    def waiting(self) -> int:
        """Commands whose session is looked up or activated."""
        return len(self._queues)

    # -- finding and activating sessions -----------------------------------------------------------

    async def get(self, key: str) -> SessionActor | RemoteSession:
        """The session with this id or code. Send to it before the next checkpoint.

        Raises SessionNotFound, SessionFinished, SessionUnavailable, NodeFull, StorageUnavailable,
        OwnedElsewhere, Unreadable, Mistake.
        """
        actor = self._registry.here(key)
        if actor is not None:
            return actor
        found = await self.find(key)
        return RemoteSession(found, self.deliver) if isinstance(found, RemoteLocation) else found

    async def find(self, key: str) -> SessionActor | RemoteLocation:
        """The actor of a session, activated if it belongs here; or the location on another node. Raises as
        `get`."""
        if not is_session_key(key):
            raise SessionNotFound(key)
        for _ in range(ROUTE_TRIES):
            if (held := self._held.get(key)) is not None:
                return held.location
            with suppress(OwnedElsewhere):  # another node was faster, or it was let go here: look again
                if self._registry.holds(key):
                    return await self._registry.get(key)
                found = await self.locator.locate(key)
                return found if isinstance(found, RemoteLocation) else await self.activate(found)
        raise NoOwnerYet

    async def _find_in_time(self, key: str) -> SessionActor | RemoteLocation:
        """As `find`, but if the owner of the session was lost just now, wait until another node runs it.
        Clients that are refused instead would come back at random moments, seconds after that. Raises as
        `get`."""
        try:
            return await self.find(key)
        except NoOwnerYet as error:
            refusal = error
        with trio.move_on_after(self._hold_s):
            while True:
                await self.locator.changed(key, LOOK_AGAIN_S)
                try:
                    async with self._looks_for_owners:
                        return await self.find(key)
                except NoOwnerYet as error:
                    refusal = error
        raise refusal.with_traceback(None)

    async def create(
        self, quiz_id: str, settings: Settings, version: int | None = None, owner_id: str | None = None
    ) -> SessionRecord:
        """Store a new session of the author `owner_id`. It is activated on the node of its shard: here at
        once, elsewhere with the first command.

        Raises QuizNotFound, NodeFull, StorageUnavailable.
        """
        record = await self._factory.store(quiz_id, settings, version, self._may_take, owner_id)
        member = self.locator.wanted_elsewhere(record.id)
        if member is None:
            with suppress(OwnedElsewhere):  # it is stored, and found wherever it is
                await self.activate(record)
        else:
            self.locator.remember(RemoteLocation(record, member))
        self.announce(record, self._me if member is None else member.run)
        return record

    def _may_take(self, session_id: str) -> bool:
        return not self._registry.full or self.locator.wanted_elsewhere(session_id) is not None

    async def activate(self, record: SessionRecord) -> SessionActor:
        """As `Registry.activate`. If the session had another owner, it is announced to the other nodes: their
        relays follow it, and a relay of it on this node ends. Raises as `get`."""
        first = not self._registry.holds(record.id)
        actor = await self._registry.activate(record)
        self.locator.runs(record)
        if (former := self._relays.get(record.id)) is not None:
            former.end(CloseReason.TAKEN_OVER)
        if first and record.owner is not None and record.owner.run != self._me:
            self.routed.taken_over += 1
            self.announce(record, self._me, taken_from=record.owner.run)
        return actor

    # -- what nodes tell each other ------------------------------------------------------------------

    def announce(self, record: SessionRecord, run: str, *, taken_from: str | None = None) -> None:
        """Announce to all nodes where a session is, and which run it was taken from."""
        self._bus.publish(announcement(record, run, taken_from))

    def hear(self, message: BusMessage) -> None:
        """Take a message of the bus."""
        heard = announced(message)
        if heard is None:
            return
        record = heard.record
        member = self._members.live.get(heard.run)
        if member is None or heard.run == self._me:
            self.locator.forget(record.id)
            return
        self.locator.remember(RemoteLocation(record, member))
        if (relay := self._relays.get(record.id)) is not None and relay.owner.run == heard.taken_from:
            relay.follow(member)

    # -- relays and moves ------------------------------------------------------------------------

    def relay_for(self, location: RemoteLocation) -> Relay:
        """The relay of a session on another node, made if there is none."""
        relay = self._relays.get(location.record.id)
        return self._relayed(location) if relay is None or relay.over else relay

    def relay_after(self, location: RemoteLocation, snapshot: HandoffSnapshot) -> Relay:
        """A relay of a session that was here until now, with its clients, which stay connected."""
        self.locator.remember(location)
        return self._relayed(location, snapshot)

    def _relayed(self, location: RemoteLocation, snapshot: HandoffSnapshot | None = None) -> Relay:
        """Run a relay until it ends, and route commands for its session to it. There is one at a time: of two
        relays, the owner would serve only the later subscription."""
        relay = Relay(
            location.record.id,
            location.record.code,
            location.member,
            node=self._me,
            links=self._links,
            clock=self._clock,
            reads=self._registry.pacing.reads,
            sent=self.sent,
            find_owner=self._find_owner,
            hold_s=self._hold_s,
            shared=self.is_shared(location.record),
            stream=None if snapshot is None else snapshot.stream,
            seated=() if snapshot is None else snapshot.seated,
        )
        if (former := self._relays.get(relay.session_id)) is not None:
            former.end(CloseReason.RESTARTING)
        self._relays[relay.session_id] = self._relays_by_code[relay.code] = relay
        self._nursery.start_soon(self._run_relay, relay)
        return relay

    async def _run_relay(self, relay: Relay) -> None:
        try:
            # A relay that ends has closed its clients, however it ends.
            with self._boundary.within("relaying a session", relay.session_id):
                await relay.run()
        finally:
            self.locator.forget(relay.session_id)
            if self._relays.get(relay.session_id) is relay:
                del self._relays[relay.session_id]
            if self._relays_by_code.get(relay.code) is relay:
                del self._relays_by_code[relay.code]

    async def _find_owner(self, relay: Relay) -> Member | None:
        """The node of a session whose owner cannot be reached. Ends the relay when the session is over, or
        here."""
        async with self._looks_for_owners:
            self.locator.forget(relay.session_id)
            try:
                found = await self.find(relay.session_id)
            except _FINAL:
                relay.end(CloseReason.RESTARTING)
                return None
            except REFUSALS:
                return None
        return found.member if isinstance(found, RemoteLocation) else None

    def hold(self, location: RemoteLocation) -> None:
        """Keep the commands for this session from now on, while it is being handed to that node."""
        self._held[location.record.id] = self._held[location.record.code] = _Held(location, [])

    def release(self, record: SessionRecord) -> list[Command]:
        """The commands that were kept since `hold`."""
        self._held.pop(record.code, None)
        held = self._held.pop(record.id, None)
        return [] if held is None else held.commands

    def relays(self) -> Iterator[Relay]:
        return iter(list(self._relays.values()))

    def close(self, close_reason: CloseReason) -> None:
        """End every relay."""
        for relay in self.relays():
            relay.end(close_reason)


def _refuse(error: Exception | None, command: Command) -> None:
    """As `refuse`. To a node that subscribes, a temporary refusal looks like a lost link, so it tries
    again."""
    if isinstance(command, SubscribeNode) and not isinstance(error, _FINAL):
        command.reply.close(CloseReason.RESTARTING)
    else:
        refuse(error, command)
