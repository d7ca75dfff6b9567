"""Sessions change nodes: taken over from a node that is gone, handed on when the ring wants them elsewhere.

A node looks around whenever the members change, and every few seconds anyway: so whatever announcement was
lost, what it was about is done a little later.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
LOOK_AGAIN_S = 0.25
"""While there are sessions of a node whose lease is not over yet."""

SETTLE_S = 5.0
"""How long the ring must have stayed as it is before sessions are moved only to please it."""

AT_ONCE = 2
"""Sessions that are handed on at the same time to please the ring."""

AT_ONCE_DRAINING = 8
TAKEN_AT_ONCE = 16
PATIENCE_S = 10.0
"""For one step of a hand-over: what is committed meanwhile stays so, and clients come back by themselves."""

NO_ANSWER_S = 1.0
"""Before another try to hand on a session after one that did not come about."""

PLAYS_SHARE = 3
"""And for so many times as long as that try took: a session that cannot be committed plays most of it."""

CLIENTS_PER_S = 500
"""Of one session, sent on to its new node."""

SPREAD_MAX_S = 5.0

STREAM_BYTES_MAX = 512 << 10
"""Of the broadcasts that go along with a session, so that they fit into one entry of a link. Older ones stay
behind: who has missed so many gets the whole picture."""


@dataclass(slots=True)
class Moved:
    """What a node has done since the start: sessions taken over from others that were gone, handed on to
    others, and hand-overs that did not come about."""

    taken_over: int = 0
    handed_on: int = 0
    failed: int = 0


class Rebalancer:
    """Keeps the sessions where they should be.

    `run` must be running. `wake` is to be called when the members have changed.

    Args:
        me: this run of this node.
        may_hand_over: whether everything committed goes straight to the store just now. Nothing is handed on
            while it does not.
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
        """The members have changed: look around at once."""
        self._to_look = True
        self._changed.set()

    # -- the task --------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forever."""
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
        """Take over what there is. Returns after how many seconds to look again."""
        with self._boundary.within("looking for sessions without an owner"):
            try:
                return LOOK_AGAIN_S if await self.take_over() else LOOK_EVERY_S
            except StorageUnavailable:
                return LOOK_EVERY_S / 5
        return LOOK_EVERY_S

    # -- taking over -----------------------------------------------------------------------------

    async def take_over(self) -> bool:
        """Bring to life what belongs here and has nobody who runs it. True if some of it is not to be had
        yet. Raises StorageUnavailable.
        """
        # Both looks come before the nursery: what fails inside of one comes out as a group.
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
                if await self._activate(record):
                    self.moved.taken_over += 1

    async def _wake_own(self, session_id: str, limit: trio.CapacityLimiter) -> None:
        """A session that was handed to this node, which never came to run it."""
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
        """Move a session to another node, in the middle of whatever it does. Whether that came about; if not,
        it plays on here as long as the other node cannot be reached, and else its clients are told to come
        back, and find it wherever it is."""
        # A link that has yet to be dialled is, before the session stops for it.
        reached = self._registry.here(session_id) is not None and await self._reaches(to)
        actor = self._registry.here(session_id)
        if actor is None or not reached:
            return False
        record = actor.record
        location = RemoteLocation(record, to)
        self._router.hold(location)
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
        for other in snapshot.relays:
            self._send_on(other, to)
        self._router.announce(record, to.run)
        if not relay.shared:
            await _send_clients_on(relay)
        return True

    def _pass_on(self, command: Command, session_id: str, to: Member | None) -> None:
        """What came for a session while it moved to that node, or nowhere."""
        if isinstance(command, SubscribeNode):
            self._send_on(command.reply, to)
        elif isinstance(command, Attaching) and command.relay is not None:
            # Another node would seat the client, and hear what it is told by way of this one.
            command.reply.push(messages.busy())
        elif isinstance(command, Left) and to is not None:
            # The next owner hears from that node itself who sits there, and this would come too late.
            command.reply.push(messages.busy())
        else:
            self._router.deliver(session_id, command)

    async def drained(self) -> None:
        """Wait until nothing here needs this node any more. It must be known as draining. Without another
        node that takes sessions, from the start or because they leave as well, there is nothing to wait
        for."""
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
        """Have the other node own the session and run it."""
        record = snapshot.record
        try:
            with trio.fail_after(PATIENCE_S):
                # First the stream: once the session is granted, anybody who comes there brings it to life.
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
        """Tell the relay of another node where the session is; without that, to ask again."""
        if to is None:
            relay.close(CloseReason.RESTARTING)
        else:
            relay.push(relay_messages.moved_on(to.to_dict()))

    def _give_up(self, snapshot: HandoffSnapshot | None) -> None:
        if snapshot is None:
            return
        for subscriber in [*(who for who, _ in snapshot.seated), *snapshot.relays]:
            subscriber.close(CloseReason.RESTARTING)

    # -- asked by others -------------------------------------------------------------------------

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """To `Links.ask`: `ready` for a session, `expect` one that is about to be granted to this node, and
        `adopt` it."""
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
    """The stream with as many of its last broadcasts as may travel."""
    kept: deque[tuple[int, Message, Message | None]] = deque()
    size = 0
    for entry in reversed(stream.entries):
        size += len(orjson.dumps(entry))
        if size > STREAM_BYTES_MAX:
            break
        kept.appendleft(entry)
    return replace(stream, entries=kept)


def _ahead_ms(now: int, said: object) -> int:
    """How far this node's clock is ahead of one that has just said what time it is. Raises ValueError."""
    if said is None:
        return 0  # an older release does not say
    if type(said) is not int:
        raise ValueError(f"not a time: {said!r}")
    return now - said
