"""Where a command goes: to the actor here, to the node that runs its session, or back to whoever sent it.

The ring says where a session should be, its row in the store says where it is. A session that nobody owns
is brought to life where the ring wants it; one whose owner is gone too, as soon as that is certain; and as
long as it is not, clients hear `busy` and try again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import orjson
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
from engine.actors.lookups import Lookups, Waiting
from engine.actors.registry import (
    NOT_TO_BE_HAD,
    WAITING_MAX,
    NodeFull,
    Registry,
    SessionFinished,
    SessionUnavailable,
    refuse,
)
from engine.boundary import Boundary
from engine.domain.session_keys import is_session_key
from engine.domain.settings import Settings
from engine.ports import OwnedElsewhere, SessionNotFound, SessionRecord, SessionStore, Unreadable
from engine.shards import session_location
from engine.shards.clock_offset import arrived, departing
from engine.shards.ports import Bus, BusMessage, Links, Member
from engine.shards.relay import HOLD_S, Relay
from engine.shards.ring import Ring

KNOWN_FOR_S = 600.0
"""How long it is remembered where a session runs. What is wrong about it is found out there."""

KNOWN_MAX = 100_000

IN_VAIN_S = 0.5
"""How long a look for a session that came to nothing is good for others too. When a node has died, thousands
ask for its sessions, again and again, and each look costs more than all else that they ask for."""

IN_VAIN_MAX = 10_000

LOOK_AGAIN_S = 2.0
"""Between two looks for a session that nobody runs, for those who wait until somebody does. The bus tells of
most before that."""

ENDED_LATELY_MS = 60_000
"""After its end a session stays with its owner for a while, for those who come back."""

ROUTE_TRIES = 3

SOUGHT_AT_ONCE = 16
"""Looks into the store, at one time, for sessions whose owner was lost."""

DEALS_PER_NODE = 10
"""Ids that are tried, times the number of nodes, before one is taken that falls to another."""

Attaching = Join | Rejoin | Watch
"""What makes the sender a subscriber."""

_NOT_THERE = frozenset({"busy", "session_not_found", "session_finished"})

_FINAL = (SessionNotFound, SessionFinished, SessionUnavailable, Unreadable)
"""Reasons not to ask again."""


class Neighbourhood(Protocol):
    """What the router knows of the other nodes. `engine.shards.membership.Membership`, with the time."""

    @property
    def live(self) -> Mapping[str, Member]:
        """By run, oneself included."""

    @property
    def ring(self) -> Ring: ...

    def member_named(self, name: str) -> Member | None: ...

    def gone(self, run: str) -> bool:
        """Whether it is certain that this run shows no life any more."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A session that another node runs, or would."""

    record: SessionRecord
    member: Member


class RemoteSession:
    """A session elsewhere, for whoever asks it something: as an actor, but what is sent goes there."""

    __slots__ = ("_send", "member", "record")

    def __init__(self, found: Elsewhere, send: Callable[[str, Command], None]) -> None:
        self.record = found.record
        self.member = found.member
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
    """Subscriber: the answer to a command that went to another node. If that does not run the session after
    all, it is looked up anew for the next one."""

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


class NotYet(NodeFull):
    """Nobody runs the session just now, and it is not certain yet that its last owner is gone."""


@dataclass(slots=True)
class Routed:
    """What a router has done since the start."""

    moved: int = 0
    forwarded: int = 0


@dataclass(slots=True)
class _Known:
    found: Elsewhere
    until: float


@dataclass(slots=True)
class _Held:
    """A session on its way to another node, and what came for it meanwhile."""

    found: Elsewhere
    commands: list[Command]


class Router:
    """Finds sessions in a cluster. `deliver` and `get` are those of `Registry`, and mean the whole cluster.

    Args:
        nursery: where relays run, and what has to be looked up first.
        me: this run of this node.
        new_id: source of fresh session ids.
        relay_above: player limit of a session above which each node takes its players.
        boundary: of the node.
        hold_s: how long clients of a lost owner are kept, or wait to come in, until another node runs their
            session.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        registry: Registry,
        store: SessionStore,
        neighbours: Neighbourhood,
        links: Links,
        clock: Clock,
        bus: Bus,
        me: str,
        new_id: Callable[[], str],
        relay_above: int,
        boundary: Boundary | None = None,
        hold_s: float = HOLD_S,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._nursery = nursery
        self._registry = registry
        self._store = store
        self._neighbours = neighbours
        self._links = links
        self._clock = clock
        self._bus = bus
        self._me = me
        self._new_id = new_id
        self._relay_above = relay_above
        self._hold_s = hold_s
        self._sought = trio.CapacityLimiter(SOUGHT_AT_ONCE)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lookups = Lookups(nursery, self._look_up, NOT_TO_BE_HAD, self._boundary)
        self._in_vain: dict[str, tuple[Exception, float]] = {}
        self._awaited: dict[str, trio.Event] = {}
        """Sessions that somebody wants and nobody runs, by id or code: set when that may be over."""
        self._held: dict[str, _Held] = {}
        """Sessions that are being handed over, by id and by code."""
        self._relays: dict[str, Relay] = {}
        self._relays_by_code: dict[str, Relay] = {}
        self._dealt: dict[str, int] = {}
        self._dealt_for: int | None = None
        self._waiting = Waiting(nursery, _refuse, NOT_TO_BE_HAD, self._boundary, WAITING_MAX)
        """Commands whose session is looked up or brought to life."""
        self.sent = Sent()
        self.routed = Routed()

    # -- commands --------------------------------------------------------------------------------

    def deliver(self, key: str, command: Command) -> None:
        """Hand a command to the session with this id or code, wherever it is. Never blocks; whatever goes
        wrong is an `error` to `command.reply`. A client that may move is told where to."""
        if self._waiting.holds(self._route, key):
            self._waiting.add(self._route, key, command)
        elif self._deliver_here(key, command):
            return
        elif (relay := self._relay(key)) is not None:
            if isinstance(command, Attaching) and command.may_move and not relay.shared:
                self._move(command, relay.owner)
            else:
                relay.deliver(command)
        elif isinstance(command, Detach):
            return
        elif (known := self._remembered(key)) is not None:
            self._pass_on(known, command)
        elif not is_session_key(key):
            _refuse(SessionNotFound(key), command)
        elif (error := self._looked_in_vain(key)) is not None and not isinstance(error, NotYet):
            _refuse(error, command)
        else:
            self._waiting.add(self._route, key, command)

    def deliver_from_link(self, session_id: str, command: Command) -> None:
        """As `deliver`, for what another node has passed on: it is not passed on again."""
        command = arrived(command, self._clock.now_ms())
        waits = self._waiting.holds(self._route_here, session_id)
        if not waits and self._deliver_here(session_id, command):
            return
        if not is_session_key(session_id):
            _refuse(SessionNotFound(session_id), command)
        elif waits or not isinstance(command, Detach | Left):
            self._waiting.add(self._route_here, session_id, command)
        elif isinstance(command, Left):
            _refuse(None, command)  # who sits where is told anew to whoever runs it next

    def _deliver_here(self, key: str, command: Command) -> bool:
        actor = self._registry.here(key)
        if actor is not None:
            actor.send(command)
            return True
        if (held := self._held.get(key)) is not None:
            if len(held.commands) >= WAITING_MAX:
                _refuse(None, command)
            else:
                held.commands.append(command)
            return True
        return False

    def _relay(self, key: str) -> Relay | None:
        return self._relays.get(key) or self._relays_by_code.get(key)

    async def _route(self, key: str) -> Callable[[Command], None]:
        found = await self._find_in_time(key)

        def send(command: Command) -> None:
            # Since then it may have come here, or be on its way elsewhere.
            if self._deliver_here(key, command):
                return
            if isinstance(found, Elsewhere):
                self._pass_on(found, command)
            else:
                found.send(command)

        return send

    async def _route_here(self, session_id: str) -> Callable[[Command], None]:
        """What nobody runs is run here, whatever the ring says: the node that sent this knows another one,
        and the session will be handed on if that is wrong."""
        self.forget(session_id)
        if self._registry.holds(session_id):
            actor = await self._registry.get(session_id)
        else:
            record = await self._store.find(session_id)
            if self._running(record) is not None:
                raise NotYet
            actor = await self.bring(record)
        return actor.send

    def _pass_on(self, found: Elsewhere, command: Command) -> None:
        record = found.record
        if not isinstance(command, Attaching) or (isinstance(command, Join) and not command.attach):
            self.routed.forwarded += 1
            reply = _Forwarded(command.reply, partial(self.forget, record.id))
            self._links.send(found.member, record.id, departing(command, reply, self._clock.now_ms()))
        elif command.may_move and not self.is_shared(record):
            self._move(command, found.member)
        else:
            self.relay_for(found).deliver(command)

    def _move(self, command: Command, to: Member) -> None:
        self.routed.moved += 1
        command.reply.push(messages.moved(to.ws_url))
        command.reply.close(CloseReason.MOVED)

    def is_shared(self, record: SessionRecord) -> bool:
        """Whether every node takes players of this session."""
        return record.settings.player_limit > self._relay_above

    # -- where sessions are ----------------------------------------------------------------------

    async def get(self, key: str) -> SessionActor | RemoteSession:
        """The session with this id or code. Send to it before the next checkpoint.

        Raises SessionNotFound, SessionFinished, SessionUnavailable, NodeFull, StorageUnavailable,
        OwnedElsewhere.
        """
        actor = self._registry.here(key)
        if actor is not None:
            return actor
        found = await self.find(key)
        return RemoteSession(found, self.deliver) if isinstance(found, Elsewhere) else found

    async def find(self, key: str) -> SessionActor | Elsewhere:
        """The actor of a session, brought to life if it belongs here; or where else it is. Raises as
        `get`."""
        if not is_session_key(key):
            raise SessionNotFound(key)
        tries = 0
        while tries < ROUTE_TRIES:
            if (held := self._held.get(key)) is not None:
                return held.found
            try:
                if self._registry.holds(key):
                    return await self._registry.get(key)
                if (known := self._remembered(key)) is not None:
                    return known
                if (error := self._looked_in_vain(key)) is not None:
                    raise error.with_traceback(None)
                found = await self._lookups.outcome(key)
                if isinstance(found, Elsewhere):
                    return found
                return await self.bring(found)
            except OwnedElsewhere:
                tries += 1
        raise NotYet

    async def _find_in_time(self, key: str) -> SessionActor | Elsewhere:
        """As `find`, but whoever asks for a session whose owner was lost just now waits until another node
        runs it. Turned away, all would come back at random moments, seconds after that. Raises as `get`."""
        try:
            return await self.find(key)
        except NotYet as error:
            refusal = error
        with trio.move_on_after(self._hold_s):
            while True:
                awaited = self._awaited[key] = trio.Event()
                try:
                    with trio.move_on_after(LOOK_AGAIN_S):
                        await awaited.wait()
                    async with self._sought:
                        return await self.find(key)
                except NotYet as error:
                    refusal = error
                finally:
                    self._awaited.pop(key, None)
        raise refusal.with_traceback(None)

    async def _look_up(self, key: str) -> SessionRecord | Elsewhere:
        """The record of a session that belongs here, or where else it is."""
        try:
            record = await self._store.find(key)
            member = self._member_for(record)
        except NOT_TO_BE_HAD as error:
            if len(self._in_vain) >= IN_VAIN_MAX:
                self._in_vain.clear()
            self._in_vain[key] = error, trio.current_time() + IN_VAIN_S
            raise
        if member is None:
            return record
        found = Elsewhere(record, member)
        self.remember(found)
        return found

    def _member_for(self, record: SessionRecord) -> Member | None:
        """Who runs the session, or should; None for oneself. Raises SessionFinished, NotYet."""
        running = self._running(record)
        if running is not None or (record.owner is not None and record.owner.run == self._me):
            return running
        member = self.wanted_at(record)
        if member is None:
            raise NotYet
        return self._other(member)

    def _other(self, member: Member | None) -> Member | None:
        """None for oneself."""
        return None if member is None or member.run == self._me else member

    def _running(self, record: SessionRecord) -> Member | None:
        """Who runs the session; None for oneself, and when it is certain that nobody does. Raises
        SessionFinished, NotYet."""
        owner = record.owner
        if owner is not None and owner.run == self._me:
            if record.finished_at is not None:
                raise SessionFinished(record)
            return None
        running = None if owner is None else self._neighbours.live.get(owner.run)
        if running is None and owner is not None and owner.holds and owner.address is not None:
            # Redis does not show it, Postgres does: it runs, and nobody else may.
            running = _parsed(owner.address)
        if record.finished_at is not None:
            lately = self._clock.now_ms() - record.finished_at < ENDED_LATELY_MS
            if running is None or not lately:
                raise SessionFinished(record)
        elif running is None and owner is not None and (owner.holds or not self._neighbours.gone(owner.run)):
            raise NotYet
        return running

    def _looked_in_vain(self, key: str) -> Exception | None:
        """Why the session was not to be had just now."""
        error, until = self._in_vain.get(key, (None, 0.0))
        return error if trio.current_time() < until else None

    def look_anew(self) -> None:
        """The members have changed: what was not to be had may be now."""
        self._in_vain.clear()
        for awaited in self._awaited.values():
            awaited.set()

    def _come_true(self, record: SessionRecord) -> None:
        """Somebody runs this session."""
        for key in (record.id, record.code):
            self._in_vain.pop(key, None)
            if (awaited := self._awaited.get(key)) is not None:
                awaited.set()

    def _remembered(self, key: str) -> Elsewhere | None:
        known = self._known.get(key)
        if known is None:
            return None
        if known.until < trio.current_time() or known.found.member.run not in self._neighbours.live:
            del self._known[key]
            return None
        return known.found

    def remember(self, found: Elsewhere) -> None:
        """Note where a session is."""
        known = _Known(found, trio.current_time() + KNOWN_FOR_S)
        for key in (found.record.id, found.record.code):
            self._known[key] = known
            self._known.move_to_end(key)
        self._come_true(found.record)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def forget(self, key: str) -> None:
        """Look again where this session is before anything else goes there."""
        known = self._known.pop(key, None)
        if known is not None:
            self._known.pop(known.found.record.id, None)
            self._known.pop(known.found.record.code, None)

    def _deal_id(self, players: int) -> str:
        """An id for a new session of so many players: each node gets its share of those made here."""
        ring = self._neighbours.ring
        if ring.generation != self._dealt_for:
            self._dealt_for, self._dealt = ring.generation, dict.fromkeys(ring.nodes, 0)
        if not self._dealt:
            return self._new_id()
        name = min(self._dealt, key=lambda node: (self._dealt[node] + players) / ring.nodes[node])
        self._dealt[name] += players
        for _ in range(DEALS_PER_NODE * len(self._dealt)):
            dealt = self._new_id()
            if ring.owner_of(dealt) == name:
                break
        return dealt

    def wanted_at(self, record: SessionRecord) -> Member | None:
        """The node on which the ring has the session, perhaps this one; None while it has none."""
        name = self._neighbours.ring.owner_of(record.id)
        return None if name is None else self._neighbours.member_named(name)

    def wanted_elsewhere(self, record: SessionRecord) -> Member | None:
        """As `wanted_at`; None for this node too."""
        return self._other(self.wanted_at(record))

    async def create(self, quiz_id: str, settings: Settings, version: int | None = None) -> SessionRecord:
        """Store a new session. It comes to life where the ring has it: here at once, elsewhere when somebody
        comes.

        Raises QuizNotFound, NodeFull, StorageUnavailable.
        """
        deal = partial(self._deal_id, settings.player_limit)
        record = await self._registry.store_new(quiz_id, settings, version, deal)
        member = self.wanted_elsewhere(record)
        if member is None:
            await self.bring(record)
        else:
            self.remember(Elsewhere(record, member))
        self.tell(record, self._me if member is None else member.run)
        return record

    async def bring(self, record: SessionRecord) -> SessionActor:
        """As `Registry.bring`. A session that was another's until now is known to be here from now on: to the
        nodes that relay it, and to a relay that this one had of it. Raises as `get`."""
        first = not self._registry.holds(record.id)
        actor = await self._registry.bring(record)
        self._come_true(record)
        former = self._relays.get(record.id)
        if former is not None:
            former.end(CloseReason.TAKEN_OVER)
        if first and record.owner is not None and record.owner.run != self._me:
            self.tell(record, self._me, taken_from=record.owner.run)
        return actor

    def tell(self, record: SessionRecord, run: str, *, taken_from: str | None = None) -> None:
        """Let all nodes know where a session is, and whose it is no longer."""
        self._bus.publish(session_location.told(record, run, taken_from))

    def hear(self, message: BusMessage) -> None:
        """From the bus."""
        told = session_location.heard(message)
        if told is None:
            return
        record, run = told
        member = self._neighbours.live.get(run)
        if member is None or run == self._me:
            self.forget(record.id)
            return
        self.remember(Elsewhere(record, member))
        relay = self._relays.get(record.id)
        if relay is not None and relay.owner.run == session_location.taken_from(message):
            relay.follow(member)

    # -- relays and moves ------------------------------------------------------------------------

    def relay_for(self, found: Elsewhere) -> Relay:
        """The stand-in for a session elsewhere, made if need be."""
        relay = self._relays.get(found.record.id)
        return self._relayed(found) if relay is None or relay.over else relay

    def relay_after(self, found: Elsewhere, snapshot: HandoffSnapshot) -> Relay:
        """The stand-in for a session that was here until now, with the clients that are."""
        self.remember(found)
        return self._relayed(found, snapshot)

    def _relayed(self, found: Elsewhere, snapshot: HandoffSnapshot | None = None) -> Relay:
        """Run a relay until it ends, and have commands for its session go to it. There is one at a time: of
        two, the owner would tell only the one that took part last."""
        relay = Relay(
            found.record.id,
            found.record.code,
            found.member,
            node=self._me,
            links=self._links,
            clock=self._clock,
            sent=self.sent,
            seek=self._seek,
            hold_s=self._hold_s,
            shared=self.is_shared(found.record),
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
            # However it ends, a relay has closed its clients by then.
            with self._boundary.within("relaying a session", relay.session_id):
                await relay.run()
        finally:
            self.forget(relay.session_id)
            if self._relays.get(relay.session_id) is relay:
                del self._relays[relay.session_id]
            if self._relays_by_code.get(relay.code) is relay:
                del self._relays_by_code[relay.code]

    async def _seek(self, relay: Relay) -> Member | None:
        """Where a session is whose owner cannot be reached. When it is over, or here, its relay ends."""
        async with self._sought:
            self.forget(relay.session_id)
            try:
                found = await self.find(relay.session_id)
            except _FINAL:
                relay.end(CloseReason.RESTARTING)
                return None
            except NOT_TO_BE_HAD:
                return None
        return found.member if isinstance(found, Elsewhere) else None

    def hold(self, found: Elsewhere) -> None:
        """From now on keep what comes for this session, while it is on its way to that node."""
        self._held[found.record.id] = self._held[found.record.code] = _Held(found, [])

    def release(self, record: SessionRecord) -> list[Command]:
        """What was kept since `hold`."""
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
    """As `refuse`. A node that wants to take part in a session hears of what passes as of a lost link: it
    tries again."""
    if isinstance(command, SubscribeNode) and not isinstance(error, _FINAL):
        command.reply.close(CloseReason.RESTARTING)
    else:
        refuse(error, command)


def _parsed(address: str) -> Member | None:
    try:
        return Member.parse(orjson.loads(address))
    except ValueError:
        return None
