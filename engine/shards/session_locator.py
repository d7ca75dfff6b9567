"""On which node a session runs, or should run.

How to think about this: the ring says where a session should be, its row in the store says where it is. A
session without an owner belongs to the node of its shard; so does a session whose owner is gone, as soon as
that is certain. The result of a look into the store is remembered, and so, for a moment, is a failure: when a
node has died, thousands of clients ask for its sessions, again and again. They all share one look.
"""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from dataclasses import dataclass

import orjson
import trio

from engine.actors.clock import Clock
from engine.actors.refusals import REFUSALS, NodeFull, SessionFinished
from engine.boundary import Boundary
from engine.ports import SessionRecord, SessionStore
from engine.shards.lookups import Lookups
from engine.shards.membership import MembershipView
from engine.shards.ports import Member
from engine.shards.session_location import RemoteLocation

REMEMBERED_S = 600.0
"""How long the location of a session is remembered. The node there notices when it is out of date."""

REMEMBERED_MAX = 100_000
"""The most locations that are remembered, two keys for each session."""

FAILED_S = 0.5
"""How long the failure of a look is reused. A look costs more than anything else that clients ask for."""

FAILED_MAX = 10_000
"""The most failures that are remembered."""

ENDED_LATELY_MS = 60_000
"""How long a session stays with its owner after its end, for players that come back."""


class NoOwnerYet(NodeFull):
    """No node is known to run the session, and it is not certain yet that its last owner is gone."""


@dataclass(slots=True)
class _Remembered:
    location: RemoteLocation
    until: float


class SessionLocator:
    """Finds the node of a session.

    Args:
        nursery: runs the looks into the store.
        me: this run of this node.
        boundary: of the node.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        store: SessionStore,
        members: MembershipView,
        clock: Clock,
        me: str,
        boundary: Boundary,
    ) -> None:
        self._store = store
        self._members = members
        self._clock = clock
        self._me = me
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._lookups = Lookups(nursery, self._look_up, REFUSALS, boundary)
        self._failed: dict[str, tuple[Exception, float]] = {}
        self._awaited: dict[str, trio.Event] = {}
        """Sessions without an owner that clients wait for, by id or code. Set when there may be an owner."""

    # -- looking -----------------------------------------------------------------------------------

    async def locate(self, key: str) -> SessionRecord | RemoteLocation:
        """The record of a session that belongs on this node; or its location on another. Raises the
        refusals."""
        if (location := self.remembered(key)) is not None:
            return location
        if (error := self.failed(key)) is not None:
            raise copy(error)
        return await self._lookups.find(key)

    async def _look_up(self, key: str) -> SessionRecord | RemoteLocation:
        try:
            record = await self._store.find(key)
            member = self._member_for(record)
        except SessionFinished:
            raise  # not remembered: it may be deleted in the next moment
        except REFUSALS as error:
            self._remember_failure(key, error)
            raise
        if member is None:
            return record
        location = RemoteLocation(record, member)
        self.remember(location)
        return location

    def _member_for(self, record: SessionRecord) -> Member | None:
        """The node that runs the session, or should run it; None for this node. Raises SessionFinished,
        NoOwnerYet."""
        running = self.running(record)
        if running is not None or (record.owner is not None and record.owner.run == self._me):
            return running
        member = self.wanted_at(record.id)
        if member is None:
            raise NoOwnerYet
        return self._other(member)

    def running(self, record: SessionRecord) -> Member | None:
        """The other node that runs the session; None for this node, and when certainly no node runs it.
        Raises SessionFinished, NoOwnerYet."""
        owner = record.owner
        if owner is None or owner.run == self._me:
            if record.finished_at is not None:
                raise SessionFinished(record)
            return None
        running = self._members.live.get(owner.run)
        uncertain = running is None and self._members.may_run(owner)
        if uncertain and owner.holds and owner.address is not None:
            # Redis does not list the owner, but its lease in PostgreSQL holds: no other node may run it.
            running = _parsed(owner.address)
        if record.finished_at is not None:
            lately = self._clock.now_ms() - record.finished_at < ENDED_LATELY_MS
            if running is None or not lately:
                raise SessionFinished(record)
        elif running is None and uncertain:
            raise NoOwnerYet
        return running

    def wanted_at(self, session_id: str) -> Member | None:
        """The node of the session according to the ring, perhaps this one; None in a ring without nodes."""
        name = self._members.ring.owner_of(session_id)
        return None if name is None else self._members.member_named(name)

    def wanted_elsewhere(self, session_id: str) -> Member | None:
        """As `wanted_at`; None for this node too."""
        return self._other(self.wanted_at(session_id))

    def _other(self, member: Member | None) -> Member | None:
        """None for this node."""
        return None if member is None or member.run == self._me else member

    # -- what is remembered --------------------------------------------------------------------------

    def remembered(self, key: str) -> RemoteLocation | None:
        """The other node that was last known to run the session, if it is alive."""
        remembered = self._remembered.get(key)
        if remembered is None:
            return None
        location = remembered.location
        if remembered.until < trio.current_time() or location.member.run not in self._members.live:
            del self._remembered[key]
            return None
        return location

    def failed(self, key: str) -> Exception | None:
        """Why the session was not found a moment ago."""
        error, until = self._failed.get(key, (None, 0.0))
        return error if trio.current_time() < until else None

    def _remember_failure(self, key: str, error: Exception) -> None:
        """A copy of it: with the traceback the request itself would stay, some 14 KB of memory."""
        now = trio.current_time()
        self._failed.pop(key, None)
        while self._failed and next(iter(self._failed.values()))[1] <= now:
            del self._failed[next(iter(self._failed))]
        if len(self._failed) >= FAILED_MAX:
            self._failed.clear()
        self._failed[key] = copy(error), now + FAILED_S

    def remember(self, location: RemoteLocation) -> None:
        """Remember the location of a session."""
        remembered = _Remembered(location, trio.current_time() + REMEMBERED_S)
        for key in (location.record.id, location.record.code):
            self._remembered[key] = remembered
            self._remembered.move_to_end(key)
        self.runs(location.record)
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)

    def forget(self, key: str) -> None:
        """Forget the location of this session, so that the next command looks it up again."""
        remembered = self._remembered.pop(key, None)
        if remembered is not None:
            self._remembered.pop(remembered.location.record.id, None)
            self._remembered.pop(remembered.location.record.code, None)

    # -- waiting for an owner ------------------------------------------------------------------------

    async def changed(self, key: str, wait_s: float) -> None:
        """Wait until a session without an owner may have one, at most `wait_s`."""
        awaited = self._awaited[key] = trio.Event()
        try:
            with trio.move_on_after(wait_s):
                await awaited.wait()
        finally:
            if self._awaited.get(key) is awaited:
                del self._awaited[key]

    def runs(self, record: SessionRecord) -> None:
        """Note that a node runs this session now."""
        for key in (record.id, record.code):
            self._failed.pop(key, None)
            if (awaited := self._awaited.get(key)) is not None:
                awaited.set()

    def members_changed(self) -> None:
        """Forget failures, because the members have changed."""
        self._failed.clear()
        for awaited in self._awaited.values():
            awaited.set()


def _parsed(address: str) -> Member | None:
    try:
        return Member.parse(orjson.loads(address))
    except ValueError:
        return None
