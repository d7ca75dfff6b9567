"""Sessions change nodes: taken over from a node that is gone, handed on when the ring has them elsewhere.

A node looks for such sessions whenever the members change, and every few seconds anyway. So an announcement
that is lost only delays a move.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import orjson
import trio

from engine.actors import messages, relay_messages
from engine.actors.clock import Clock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Left, SubscribeNode
from engine.actors.delivery.frame import Message
from engine.actors.delivery.stream import StreamState
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.handoff import HandoffSnapshot
from engine.actors.refusals import NodeFull, SessionFinished, SessionUnavailable
from engine.actors.registry import Registry
from engine.boundary import Boundary, Mistake
from engine.domain.session import Phase
from engine.latency import Latency
from engine.ports import (
    Journal,
    OwnedElsewhere,
    SessionNotFound,
    SessionRecord,
    SessionStore,
    StorageUnavailable,
    Unreadable,
)
from engine.shards.membership import MembershipView
from engine.shards.ports import LinkLost, Links, Member
from engine.shards.relay import Relay
from engine.shards.router import Attaching, Router
from engine.shards.session_location import RemoteLocation

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""The pause between two looks for sessions to take over."""

LOOK_AGAIN_S = 0.25
"""The same while there are sessions of a node whose lease has not ended yet."""

SETTLE_S = 5.0
"""How long the ring must stay unchanged before sessions are moved to follow it."""

AT_ONCE = 2
"""The most sessions that are handed on at the same time to follow the ring."""

AT_ONCE_DRAINING = 8
"""The same for a node that drains."""

TAKEN_AT_ONCE = 16
"""The most sessions that are taken over at the same time."""

PATIENCE_S = 10.0
"""How long one step of a hand-over may take. If it takes longer, committed facts stay committed, and clients
come back by themselves."""

NO_ANSWER_S = 1.0
"""The pause after a hand-over that failed, before the next try."""

PLAYS_SHARE = 3
"""That pause lasts at least this many times as long as the try took, so that a session whose facts cannot be
committed is playable most of the time."""

CLIENTS_PER_S = 500
"""How many clients of one session are sent on to its new node per second."""

SPREAD_MAX_S = 5.0
"""The most seconds over which the clients of one session are sent on."""

STREAM_BYTES_MAX = 512 << 10
"""The most bytes of broadcasts that are handed over with a session, so that they fit into one entry of a
link. Older ones are left out: a client that missed so many gets the whole state."""


@dataclass(slots=True)
class Moved:
    """Counts of a node since the start: sessions handed on to other nodes, and hand-overs that failed; and
    how long the commands of sessions that were handed on waited."""

    handed_on: int = 0
    failed: int = 0
    pauses: Latency = field(default_factory=Latency)


class Rebalancer:
    """Moves sessions to the nodes that the ring has for them.

    `run` must be running. Call `wake` when the members have changed.

    Args:
        me: this run of this node.
        may_hand_over: whether facts are committed to the store directly just now. While they go by way of the
            spool, no session is handed on.
        boundary: of the node.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        router: Router,
        store: SessionStore,
        journal: Journal,
        members: MembershipView,
        links: Links,
        me: str,
        clock: Clock,
        may_hand_over: Callable[[], bool] = lambda: True,
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._clock = clock
        self._registry = registry
        self._router = router
        self._store = store
        self._journal = journal
        self._members = members
        self._links = links
        self._me = me
        self._may_hand_over = may_hand_over
        self._changed = trio.Event()
        self._to_look = False
        self._ring_since_s = 0.0
        self._generation: int | None = None
        self._leaving: set[str] = set()
        self.moved = Moved()

    def wake(self) -> None:
        """The members have changed: look for sessions to move at once."""
        self._to_look = True
        self._changed.set()

    # -- the task --------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            look_at = trio.current_time()
            while True:
                self._changed = trio.Event()
                if self._to_look or trio.current_time() >= look_at:
                    self._to_look = False
                    look_at = trio.current_time() + await self._look()
                again_s = LOOK_AGAIN_S
                with self._boundary.within("handing sessions on"):
                    again_s = LOOK_AGAIN_S if self._hand_some_on(nursery) else math.inf
                with trio.move_on_at(min(look_at, trio.current_time() + again_s)):
                    await self._changed.wait()

    async def _look(self) -> float:
        """Take over sessions. Returns after how many seconds to look again."""
        with self._boundary.within("looking for sessions without an owner"):
            try:
                return LOOK_AGAIN_S if await self.take_over() else LOOK_EVERY_S
            except StorageUnavailable:
                return LOOK_EVERY_S / 5
        return LOOK_EVERY_S

    # -- taking over -----------------------------------------------------------------------------

    async def take_over(self) -> bool:
        """Activate the sessions that belong here and that no node runs. True if some of them cannot be taken
        over yet. Raises StorageUnavailable.
        """
        # Both looks come before the nursery, because an error inside of a nursery is raised as a group.
        orphans = await self._store.orphans(list(self._members.live))
        mine = await self._store.owned_by(self._me)
        waiting = False
        async with trio.open_nursery() as nursery:
            limit = trio.CapacityLimiter(TAKEN_AT_ONCE)
            for record in orphans:
                owner = record.owner
                wanted = self._router.locator.wanted_at(record.id)
                if owner is None or wanted is None or wanted.run != self._me:
                    continue
                if self._members.may_run(owner):
                    waiting = True
                else:
                    nursery.start_soon(self._take, record, limit)
            for session_id in mine:
                if not self._registry.holds(session_id) and session_id not in self._leaving:
                    nursery.start_soon(self._wake_own, session_id, limit)
        return waiting

    async def _take(self, record: SessionRecord, limit: trio.CapacityLimiter) -> None:
        async with limit:
            with self._boundary.within("taking a session over", record.id):
                await self._activate(record)

    async def _wake_own(self, session_id: str, limit: trio.CapacityLimiter) -> None:
        """Activate a session that was handed to this node and never activated here."""
        async with limit:
            with self._boundary.within("waking a session of this node", session_id):
                try:
                    record = await self._store.find(session_id)
                except (SessionNotFound, StorageUnavailable, Unreadable):
                    return
                if record.owner is not None and record.owner.run == self._me and record.finished_at is None:
                    await self._activate(record)

    async def _activate(self, record: SessionRecord) -> bool:
        try:
            await self._router.activate(record)
        except (OwnedElsewhere, SessionNotFound, SessionFinished, SessionUnavailable, Unreadable) as error:
            log.info("session %s is not taken: %r", record.id, error)
            return False
        except (NodeFull, StorageUnavailable, Mistake) as error:
            log.warning("session %s could not be taken just now: %r", record.id, error)
            return False
        return True

    # -- handing on ------------------------------------------------------------------------------

    def _hand_some_on(self, nursery: trio.Nursery) -> bool:
        """Start to move sessions that the ring wants elsewhere. True if there are more."""
        now = trio.current_time()
        ring = self._members.ring
        if ring.generation != self._generation:
            self._generation, self._ring_since_s = ring.generation, now
        myself = self._members.live.get(self._me)
        draining = myself is not None and myself.draining
        if not draining and now - self._ring_since_s < SETTLE_S:
            return True
        if not self._may_hand_over():
            return draining
        at_once = AT_ONCE_DRAINING if draining else AT_ONCE
        misplaced = False
        for actor in self._registry.active():
            member = self._router.locator.wanted_elsewhere(actor.session_id)
            over = actor.session.phase is Phase.FINISHED
            if member is None or over or actor.session_id in self._leaving:
                continue
            misplaced = True
            if len(self._leaving) >= at_once:
                break
            self._leaving.add(actor.session_id)
            nursery.start_soon(self._hand_on_and_forget, actor.session_id, member)
        return misplaced

    async def _hand_on_and_forget(self, session_id: str, to: Member) -> None:
        try:
            began = trio.current_time()
            came_about = False
            with self._boundary.within("handing a session on", session_id):
                came_about = await self.hand_on(session_id, to)
            if not came_about:
                await trio.sleep(max(NO_ANSWER_S, PLAYS_SHARE * (trio.current_time() - began)))
                self._to_look = True  # it may be this node's still, and in nobody's memory
        finally:
            self._leaving.discard(session_id)
            self._changed.set()

    async def hand_on(self, session_id: str, to: Member) -> bool:
        """Move a session to another node, in any phase. Returns whether the session was moved. If the other
        node cannot be reached, the session plays on here. If the move fails later, its clients are told to
        come back, and find the session wherever it is."""
        # Dials the link, if there is none yet, before the session stops.
        reached = self._registry.here(session_id) is not None and await self._reaches(to)
        actor = self._registry.here(session_id)
        if actor is None or not reached:
            return False
        record = actor.record
        location = RemoteLocation(record, to)
        self._router.hold(location)
        held_s = trio.current_time()
        relay: Relay | None = None
        snapshot: HandoffSnapshot | None = None
        try:
            snapshot = await self._registry.give_away(session_id)
            if snapshot is not None and await self._granted(snapshot, to):
                relay = self._router.relay_after(location, snapshot)
        finally:
            kept = self._router.release(record)
            late = [*(snapshot.commands if snapshot else ()), *kept]
            if relay is None:
                self._give_up(snapshot)
            for command in late:
                with self._boundary.within("passing a command on", session_id):
                    self._pass_on(command, session_id, to if relay is not None else None)
        if relay is None or snapshot is None:
            self.moved.failed += snapshot is not None or self._registry.here(session_id) is actor
            return False
        self.moved.handed_on += 1
        self.moved.pauses.add(trio.current_time() - held_s)
        for other in snapshot.relays:
            self._send_on(other, to)
        self._router.announce(record, to.run)
        if not relay.shared:
            await _send_clients_on(relay)
        return True

    def _pass_on(self, command: Command, session_id: str, to: Member | None) -> None:
        """Deliver a command that arrived during a move to that node; None if the move failed."""
        if isinstance(command, SubscribeNode):
            self._send_on(command.reply, to)
        elif isinstance(command, Attaching) and command.relay is not None:
            # The other node seats the client itself, and would get its frames by way of this node.
            command.reply.push(messages.busy())
        elif isinstance(command, Left) and to is not None:
            # The node tells the next owner its seats itself, and this would arrive too late.
            command.reply.push(messages.busy())
        else:
            self._router.deliver(session_id, command)

    async def drained(self) -> None:
        """Wait until no session and no client needs this node any more. The node must be announced as
        draining. If no other node takes sessions, return at once."""
        while self._leaving or any(
            actor.session.phase is not Phase.FINISHED for actor in self._registry.active()
        ):
            others = (member for run, member in self._members.live.items() if run != self._me)
            if not any(member.takes_sessions for member in others):
                return
            await trio.sleep(LOOK_AGAIN_S)
        async with trio.open_nursery() as nursery:
            for relay in self._router.relays():
                nursery.start_soon(self._send_away, relay)

    async def _send_away(self, relay: Relay) -> None:
        with self._boundary.within("sending clients on", relay.session_id):
            await _send_clients_on(relay)

    async def _granted(self, snapshot: HandoffSnapshot, to: Member) -> bool:
        """Make the other node the owner of the session, and have it activate the session."""
        record = snapshot.record
        try:
            with trio.fail_after(PATIENCE_S):
                # The stream goes first: once the session is granted, any command activates it there.
                stream = _newest(snapshot.stream).to_dict()
                now = self._clock.now_ms()
                await self._links.ask(
                    to, {"do": "expect", "session": record.id, "stream": stream, "now": now}
                )
                await self._journal.settled(record.id)
                if not await self._store.grant(record.id, snapshot.epoch, self._me, to.run):
                    return False
                answer = await self._links.ask(to, {"do": "adopt", "session": record.id})
        except (LinkLost, StorageUnavailable, trio.TooSlowError) as error:
            log.warning("session %s could not be handed to %s: %r", record.id, to.name, error)
            return False
        return answer.get("adopted") is True

    async def _reaches(self, to: Member) -> bool:
        try:
            with trio.fail_after(PATIENCE_S):
                await self._links.ask(to, {"do": "ready"})
        except (LinkLost, trio.TooSlowError) as error:
            log.warning("node %s cannot be reached, and gets no session now: %r", to.name, error)
            return False
        return True

    def _send_on(self, relay: Subscriber, to: Member | None) -> None:
        """Tell the relay of another node where the session is; None to make it look again."""
        if to is None:
            relay.close(CloseReason.RESTARTING)
        else:
            relay.push(relay_messages.moved_on(to.to_dict()))

    def _give_up(self, snapshot: HandoffSnapshot | None) -> None:
        if snapshot is None:
            return
        for subscriber in [*(who for who, _ in snapshot.seated), *snapshot.relays]:
            subscriber.close(CloseReason.RESTARTING)

    # -- requests of other nodes -------------------------------------------------------------------------

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """The answer to `Links.ask`: `ready` for a session, `expect` a session that is about to be granted to
        this node, `adopt` it."""
        if request.get("do") == "ready":
            return {"ready": True}
        session_id = str(request.get("session"))
        try:
            if request.get("do") == "expect":
                stream = StreamState.parse(request.get("stream"))
                ahead_ms = _ahead_ms(self._clock.now_ms(), request.get("now"))
                self._registry.expect(session_id, replace(stream, ahead_ms=ahead_ms))
                return {"expected": True}
            if request.get("do") == "adopt":
                record = await self._store.find(session_id)
                self._router.locator.forget(record.id)
                return {"adopted": await self._activate(record)}
        except (ValueError, SessionNotFound, StorageUnavailable, Unreadable) as error:
            return {"error": repr(error)}
        return {"error": f"cannot {request.get('do')!r}"}


async def _send_clients_on(relay: Relay) -> None:
    await relay.move_all(relay.owner.ws_url, min(relay.subscribers / CLIENTS_PER_S, SPREAD_MAX_S))


def _newest(stream: StreamState) -> StreamState:
    """The stream with as many of its last broadcasts as fit into `STREAM_BYTES_MAX`."""
    kept: deque[tuple[int, Message, Message | None]] = deque()
    size = 0
    for entry in reversed(stream.entries):
        size += len(orjson.dumps(entry))
        if size > STREAM_BYTES_MAX:
            break
        kept.appendleft(entry)
    return replace(stream, entries=kept)


def _ahead_ms(now: int, said: object) -> int:
    """How far the clock of this node is ahead of `said`, the time of another node just now. Raises
    ValueError."""
    if said is None:
        return 0  # an older release does not send it
    if type(said) is not int:
        raise ValueError(f"not a time: {said!r}")
    return now - said
