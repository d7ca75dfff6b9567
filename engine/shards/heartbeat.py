"""The presence of a node in the cluster: it sends heartbeats, and follows those of the other nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from engine.boundary import Boundary
from engine.latency import Signs
from engine.shards.membership import Changes, Membership
from engine.shards.ports import Bus, BusMessage, BusUnavailable, Heartbeats, Load, Member
from engine.shards.ring import Ring

_log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.1
"""The least pause between two heartbeats, however many announcements arrive."""

_WITHDRAWAL_S = 1.0
"""How long a node that ends tries to withdraw its heartbeat."""


class Heartbeat:
    """Sends a heartbeat every third of the TTL, or at once when this node or another one has announced
    something, and keeps `state` up to date.

    Announcements on the bus are {"kind": "member", "what": "joined" | "changed" | "left", "name", "run"}.
    They make other nodes look sooner; the next heartbeat makes up for a lost one.

    Args:
        state: written by this task alone. Its ring is set before `on_changes` is called.
        member: this node.
        load: called at every heartbeat.
        on_changes: called with the changes, this node included. Must return at once and must not raise.
        on_confirmed: called with the moment (`current_time`) at which a confirmed heartbeat was sent. It is
            good for one TTL from that moment.
        current_time: seconds of a clock that runs on while the process is stopped.
        boundary: of the node.
    """

    def __init__(
        self,
        state: Membership,
        heartbeats: Heartbeats,
        bus: Bus,
        member: Member,
        *,
        ttl_s: float,
        load: Callable[[], Load],
        on_changes: Callable[[Changes], None],
        on_confirmed: Callable[[float], None],
        current_time: Callable[[], float] = trio.current_time,
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._state = state
        self._heartbeats = heartbeats
        self._bus = bus
        self._member = member
        self._announced: Member | None = None
        self._interval_s = ttl_s / 3
        self._load = load
        self._on_changes = on_changes
        self._on_confirmed = on_confirmed
        self._current_time = current_time
        self._answered: bool | None = None
        self.signs = Signs()
        self._left: list[str] = []
        self._hurry = trio.Event()

    @property
    def member(self) -> Member:
        """This node, as it announces itself."""
        return self._member

    def announce(self, member: Member) -> None:
        """Announce new values of this node: the same run, draining for instance."""
        self._member = member
        self._hurry.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Started after the first heartbeat, whether Redis answered it or not. While
        Redis is away, heartbeats are tried again. When cancelled it withdraws the heartbeat, within a second;
        the bus must run until then."""
        self._bus.listen(self._hear)
        try:
            next_s = await self._beat()
            task_status.started()
            while True:
                await trio.sleep(_PAUSE_MIN_S)
                with trio.move_on_at(next_s):
                    await self._hurry.wait()
                next_s = await self._beat()
        finally:
            with trio.move_on_after(_WITHDRAWAL_S, shield=True):
                await self._withdraw()

    async def _beat(self) -> float:
        """As `_show`. A heartbeat that raised counts as not answered, and the next is due soon."""
        with self._boundary.within("showing a sign of life"):
            return await self._show()
        self._state.failed()
        return trio.current_time() + self._interval_s / 4

    async def _show(self) -> float:
        """Send a heartbeat. Returns when the next is due, counted from the start of this one, as its
        TTL is."""
        next_s = trio.current_time() + self._interval_s
        self._hurry = trio.Event()
        while self._left:
            await self._follow(self._state.left(self._left.pop(0)))
        member, asked_s, began_s = self._member, self._current_time(), trio.current_time()
        try:
            with trio.fail_after(self._interval_s):
                beat = await self._heartbeats.beat(member, self._load())
        except (BusUnavailable, trio.TooSlowError) as error:
            self._state.failed()
            why = str(error) or "too slow"
            self.signs.failed(trio.current_time(), why)
            if self._answered is not False:
                _log.warning("the heartbeat was not answered: %s", why)
            self._answered = False
            return trio.current_time() + self._interval_s / 4
        self.signs.answered(began_s, trio.current_time())
        if not self._answered:
            _log.info("heartbeats are answered")
        self._answered = True
        if any(each.run == member.run for each, _ in beat.members):
            self._on_confirmed(asked_s)
        await self._follow(self._state.heard(self._current_time(), asked_s, beat))
        if member != self._announced:
            self._publish("joined" if self._announced is None else "changed")
            self._announced = member
        return next_s

    async def _follow(self, changes: Changes) -> None:
        while self._state.ring.nodes != self._state.weights:
            for ring in Ring.steps(self._state.weights):
                if ring is not None:
                    self._state.placed(ring)
                await trio.lowlevel.checkpoint()
        if changes:
            self._on_changes(changes)

    async def _withdraw(self) -> None:
        try:
            await self._heartbeats.withdraw(self._member)
        except BusUnavailable as error:
            _log.warning("the heartbeat cannot be taken back and will expire: %s", error)
        self._publish("left")

    def _publish(self, what: str) -> None:
        self._bus.publish(
            {"kind": "member", "what": what, "name": self._member.name, "run": self._member.run}
        )

    def _hear(self, message: BusMessage) -> None:
        run = message.get("run")
        if message.get("kind") != "member" or not isinstance(run, str) or run == self._member.run:
            return
        if message.get("what") == "left":
            self._left.append(run)
        self._hurry.set()
