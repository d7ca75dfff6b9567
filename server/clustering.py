"""A node among others: what it is to them, and they to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import orjson

from engine.actors.commands import Command
from engine.shards.membership import Changes, Membership
from engine.shards.moving import Moving
from engine.shards.ports import Links, Load, Member
from engine.shards.presence import Presence
from engine.shards.ring import Ring
from engine.shards.router import Router
from server.http.services import NodeState

log = logging.getLogger(__name__)

MARGIN_SHARE = 0.2
"""Of the time for which a sign of life is good: so much earlier whoever gave it stops to rely on it, and whoever
looks for it looks again. It covers how differently clocks run, and how long an acknowledgement takes to leave."""


class Neighbours:
    """Port `Neighbourhood` of the router: the members, as far as this node knows them now."""

    def __init__(self, membership: Membership, clock_s: Callable[[], float], margin_s: float) -> None:
        self._membership = membership
        self._clock_s = clock_s
        self._margin_s = margin_s

    @property
    def live(self) -> Mapping[str, Member]:
        return self._membership.live

    @property
    def ring(self) -> Ring:
        return self._membership.ring

    def member_named(self, name: str) -> Member | None:
        return self._membership.member_named(name)

    def gone(self, run: str) -> bool:
        # The look that says so must be younger than the time after which one who has come back is believed.
        return self._membership.gone(run, self._clock_s() + self._margin_s)


class ClusterNode:
    """Ports `Cluster` of the API and `LinkService` of the links: this node, for those who ask it."""

    def __init__(
        self,
        *,
        membership: Membership,
        presence: Presence,
        router: Router,
        moving: Moving,
        links: Links,
    ) -> None:
        self._membership = membership
        self._presence = presence
        self._router = router
        self._moving = moving
        self._links = links

    @property
    def member(self) -> Member:
        return self._presence.member

    def address(self) -> str:
        """What Postgres knows of this run, for when Redis does not."""
        return orjson.dumps(self.member.to_dict()).decode()

    # -- LinkService -----------------------------------------------------------------------------

    def deliver(self, session_id: str, command: Command) -> None:
        self._router.deliver_from_link(session_id, command)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        if request.get("do") == "drain":
            self.leave()
            return {"draining": True}
        return await self._moving.answer(request)

    # -- Cluster ---------------------------------------------------------------------------------

    def nodes(self) -> Sequence[NodeState]:
        membership = self._membership
        return [
            NodeState(
                member, membership.loads.get(run, Load()), len(membership.ring.shards_of(member.name))
            )
            for run, member in membership.live.items()
        ]

    def redis_up(self) -> bool:
        return self._membership.reached

    def generation(self) -> int:
        return self._membership.ring.generation

    async def drain(self, name: str) -> bool:
        member = self._membership.member_named(name)
        if member is None:
            return False
        if member.run == self.member.run:
            self.leave()
            return True
        return (await self._links.ask(member, {"do": "drain"})).get("draining") is True

    # -- leaving ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take no new sessions, and give those that are here to the others."""
        if not self.member.draining:
            log.warning("this node is draining: its sessions go to the others")
            self._presence.announce(replace(self.member, draining=True))
            self._moving.wake()

    async def left(self) -> None:
        """Leave, and wait until nobody needs this node any more."""
        self.leave()
        await self._moving.drained()

    def heard(self, changes: Changes) -> None:
        """Of the members."""
        for member in changes.joined:
            log.info("node %s has joined (run %s)", member.name, member.run)
        for member in changes.left:
            log.warning("node %s has left (run %s)", member.name, member.run)
        self._moving.wake()
