"""A lone node as a cluster of one: it is the only member, and has no bus and no links.

It needs no heartbeats and no leases. All sessions that an earlier run, or another release, has left in the
store are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import trio

from engine.actors.clock import Clock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.registry import Registry
from engine.boundary import Boundary
from engine.domain.settings import PLAYER_LIMIT_MAX
from engine.ports import Owner, QuizCatalog, SessionStore
from engine.shards.ports import BusMessage, LinkLost, Member
from engine.shards.ring import SHARDS, Ring
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory


class LoneMembership:
    """Port `MembershipView`: one member, which has every shard. Certainly no other run has a session.

    Args:
        run: of this node.
    """

    def __init__(self, run: str) -> None:
        self._member = Member(
            name=run,
            run=run,
            role="both",
            weight=1,
            http_url="",
            ws_url="",
            play_url="",
            link_url="",
            version="",
            started_at=0,
        )
        self.live: Mapping[str, Member] = MappingProxyType({run: self._member})
        self.ring = Ring({run: 1}, [run] * SHARDS)

    def member_named(self, name: str) -> Member | None:
        return self._member if name == self._member.name else None

    def may_run(self, owner: Owner) -> bool:  # noqa: ARG002 - no other owner counts
        return False

    def overdue(self, run: str) -> bool:  # noqa: ARG002 - there is no other run
        return False


class NoLinks:
    """Port `Links` without another node: every command is refused."""

    def send(self, member: Member, session_id: str, command: Command) -> None:  # noqa: ARG002 - as the port
        command.reply.close(CloseReason.RESTARTING)

    def drop(self, reply: Subscriber) -> None:
        pass

    async def ask(self, member: Member, request: Mapping[str, object]) -> Mapping[str, object]:
        raise LinkLost(f"node {member.name} cannot be asked for {request.get('do')!r}: this node is alone")


class NoBus:
    """Port `Bus` without another node: messages are dropped."""

    def publish(self, message: BusMessage) -> None:
        pass

    def listen(self, hear: Callable[[BusMessage], None]) -> None:
        pass


def lone_router(
    nursery: trio.Nursery,
    *,
    registry: Registry,
    store: SessionStore,
    catalog: QuizCatalog,
    clock: Clock,
    me: str,
    new_id: Callable[[], str],
    new_code: Callable[[], str],
    boundary: Boundary | None = None,
) -> Router:
    """The router of a lone node. Args: as of `Router` and `SessionFactory`."""
    members = LoneMembership(me)
    return Router(
        nursery,
        registry=registry,
        store=store,
        factory=SessionFactory(catalog, store, members, clock, new_id, new_code),
        members=members,
        links=NoLinks(),
        clock=clock,
        bus=NoBus(),
        me=me,
        relay_above=PLAYER_LIMIT_MAX,
        boundary=boundary,
    )
