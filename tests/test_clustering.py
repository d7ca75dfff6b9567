"""What a node is among others: whom it takes for gone, what it is called, and how it leaves."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import trio
from trio.testing import MockClock

from engine.actors.clock import SessionClock
from engine.shards.membership import Membership
from engine.shards.ports import Beat, Load, Member
from server.clustering import MARGIN_SHARE, NAMESAKE_LOOKS, Clustering, ClusterNode, NameTaken, Neighbours
from server.config import Config
from tests.shards.making import member_of

TTL_S = 3.0
MARGIN_S = TTL_S * MARGIN_SHARE


def beat(*members: Member) -> Beat:
    return Beat([(member, Load()) for member in members], "redis 1")


# -- who is gone -------------------------------------------------------------------------------------


def seen(*at_s: float) -> Membership:
    """Without b, at these moments; Redis has been there all the while."""
    known = Membership(TTL_S)
    known.heard(0.0, 0.0, beat(member_of("a"), member_of("b")))
    for moment_s in at_s:
        known.heard(moment_s, moment_s, beat(member_of("a")))
    return known


def gone(known: Membership, now_s: float) -> bool:
    return Neighbours(known, lambda: now_s, MARGIN_S).gone("b/1")


def test_a_look_that_is_young_enough_says_who_is_gone() -> None:
    known = seen(1.0, 2.0, 3.0, 4.0)
    assert gone(known, 4.0)
    assert gone(known, 4.0 + TTL_S - MARGIN_S - 0.01)


def test_an_older_look_says_nothing_though_the_membership_would_believe_it() -> None:
    known = seen(1.0, 2.0, 3.0, 4.0)
    late_s = 4.0 + TTL_S - MARGIN_S + 0.01
    assert known.gone("b/1", late_s)
    assert not gone(known, late_s), "whoever has come back since relies on its heartbeat by then"


def test_nobody_is_gone_before_redis_was_there_for_long_enough() -> None:
    assert not gone(seen(1.0, 2.0), 2.0)


def test_who_is_there_is_not_gone() -> None:
    known = seen(1.0, 2.0, 3.0, 4.0)
    known.heard(5.0, 5.0, beat(member_of("a"), member_of("b")))
    assert not gone(known, 5.0)


def test_while_redis_is_away_nobody_is_gone() -> None:
    known = seen(1.0, 2.0, 3.0, 4.0)
    known.failed()
    assert not gone(known, 4.1)


# -- its name ----------------------------------------------------------------------------------------


def clustering(member: Member | None = None, **config: Any) -> Clustering:
    """Of node a, with nothing behind it."""
    settings = Config(
        node="a",
        redis_url="unix:///nowhere",
        secret="s" * 16,
        database_url="postgresql://x@/x?host=/nowhere",
        lease_s=TTL_S,
        **config,
    )
    parts = cast(Any, None)
    return Clustering(settings, member or member_of("a", 2), parts, parts, SessionClock(0), trio.current_time)


async def test_a_name_that_another_node_has_is_refused(autojump_clock: MockClock) -> None:
    node = clustering()
    node._membership.heard(0.0, 0.0, beat(member_of("a", 1), member_of("a", 2), member_of("b")))
    with pytest.raises(NameTaken, match="a node named a already"):
        await node.refuse_namesake()
    assert trio.current_time() == pytest.approx(NAMESAKE_LOOKS * TTL_S / 4), "three leases"


async def test_an_earlier_run_of_this_node_is_waited_for(autojump_clock: MockClock) -> None:
    node = clustering()
    node._membership.heard(0.0, 0.0, beat(member_of("a", 1), member_of("a", 2)))

    async def expire() -> None:
        await trio.sleep(TTL_S)
        node._membership.left("a/1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire)
        await node.refuse_namesake()
    assert TTL_S <= trio.current_time() <= 2 * TTL_S


async def test_nobody_waits_for_nodes_of_other_names(mock_clock: MockClock) -> None:
    node = clustering()
    node._membership.heard(0.0, 0.0, beat(member_of("a", 2), member_of("b")))
    await node.refuse_namesake()


async def test_what_the_store_knows_of_a_run_can_be_read_by_the_others(mock_clock: MockClock) -> None:
    node = clustering(member_of("a", 2, weight=3))
    assert Member.parse(orjson.loads(node.address())) == member_of("a", 2, weight=3)


# -- leaving -----------------------------------------------------------------------------------------


class Leaving:
    """A node whose sessions take so long to go."""

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s

    async def left(self) -> None:
        await trio.sleep(self._takes_s)


@pytest.mark.parametrize(("takes_s", "waited_s", "warned"), [(2.0, 2.0, False), (60.0, 8.0, True)])
async def test_who_leaves_waits_for_its_sessions_but_not_for_ever(
    takes_s: float,
    waited_s: float,
    warned: bool,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = clustering(drain_s=8.0)
    node.node = cast(Any, Leaving(takes_s))
    for moment_s in (0.0, 1.0, 2.0, 3.0, 4.0):
        node.tenure.heartbeat_confirmed(moment_s, moment_s)
    assert node.tenure.holds(4.0)
    with caplog.at_level(logging.WARNING), trio.CancelScope() as scope:
        scope.cancel()  # as when the process was told to end
        await node.leave()
    assert trio.current_time() == pytest.approx(waited_s)
    assert bool(caplog.records) == warned
    assert not node.tenure.holds(4.0), "it relies on its heartbeat no more, which is taken back next"


async def test_a_node_that_is_told_to_leave_announces_it_once() -> None:
    woken: list[str] = []
    presence = SimpleNamespace(member=member_of("a"))
    presence.announce = lambda member: setattr(presence, "member", member)
    node = ClusterNode(
        membership=Membership(TTL_S),
        presence=cast(Any, presence),
        router=cast(Any, None),
        moving=cast(Any, SimpleNamespace(wake=lambda: woken.append("moving"))),
        links=cast(Any, None),
        bus=cast(Any, None),
    )
    assert not node.draining()
    assert await node.answer({"do": "drain"}) == {"draining": True}
    assert (node.draining(), woken) == (True, ["moving"])
    node.leave()
    assert woken == ["moving"], "said twice it is the same"
