"""What a node is among others: whom it takes for gone, what it is called, and how it leaves."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.actors.clock import SessionClock
from engine.shards.fingerprint import Marks, difference, marks_of
from engine.shards.membership import Membership
from engine.shards.ports import Beat, BusMessage, LinkLost, Load, Member
from server.admission import NotLetIn
from server.cluster import KNOCKS, MARGIN_SHARE, Clustering, ClusterNode, CurrentMembership
from server.config.config import Config
from server.security.identities import identity_words
from tests.identities import SETTINGS
from tests.shards.fakes import MemoryRedis
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
    return CurrentMembership(known, lambda: now_s, MARGIN_S).gone("b/1")


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


def test_a_present_member_is_not_gone() -> None:
    known = seen(1.0, 2.0, 3.0, 4.0)
    known.heard(5.0, 5.0, beat(member_of("a"), member_of("b")))
    assert not gone(known, 5.0)


def test_while_redis_is_away_nobody_is_gone() -> None:
    known = seen(1.0, 2.0, 3.0, 4.0)
    known.failed()
    assert not gone(known, 4.1)


# -- who is let in -----------------------------------------------------------------------------------


def clustering(member: Member | None = None, redis: MemoryRedis | None = None, **config: Any) -> Clustering:
    """Of node a, with nothing behind it but a Redis."""
    settings = Config(
        node="a",
        redis_url="unix:///nowhere",
        secret="s" * 16,
        database_url="postgresql://x@/x?host=/nowhere",
        lease_s=TTL_S,
        **config,
    )
    own = member or member_of("a", 2)
    redis = redis or MemoryRedis(ttl_s=TTL_S)
    services = SimpleNamespace(heartbeats=redis.heartbeats(own.run), bus=redis.bus(own.run))
    socket = cast(Any, None)
    return Clustering(settings, own, cast(Any, services), socket, SessionClock(0), trio.current_time)


def marks(secret: str = "s" * 16, author_key: str | None = None, schema: int = 3, oldest: int = 2) -> Any:
    return marks_of(secret.encode(), author_key, schema=(oldest, schema), protocol=(1, 1))


async def show(redis: MemoryRedis, *members: Member) -> None:
    """All beat for ever."""
    while True:
        for member in members:
            await redis.heartbeats(member.run).beat(member, Load())
        await trio.sleep(TTL_S / 3)


async def follow(node: Clustering, redis: MemoryRedis) -> None:
    """As the presence of the node does."""
    heartbeats = redis.heartbeats(node._member.run)
    while True:
        beat = await heartbeats.beat(node._member, Load())
        node._membership.heard(trio.current_time(), trio.current_time(), beat)
        await trio.sleep(TTL_S / 3)


NOT_LET_IN = [
    pytest.param(member_of("a", 1), {}, "a node named a already", id="name"),
    pytest.param(member_of("b", marks=marks("another secret")), {}, "the secret of this node", id="secret"),
    pytest.param(
        member_of("b", marks=marks(author_key="k" * 20)), {"author_key": "l" * 20}, "the author key", id="key"
    ),
    pytest.param(member_of("b", marks=marks(schema=9, oldest=9)), {}, "the database's schema", id="schema"),
]


@pytest.mark.parametrize(("other", "own", "words"), NOT_LET_IN)
async def test_a_stranger_is_refused_before_its_first_heartbeat(
    other: Member, own: Any, words: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    redis = MemoryRedis(ttl_s=TTL_S)
    nursery.start_soon(redis.run)
    heard: list[BusMessage] = []
    redis.bus("b").listen(heard.append)
    nursery.start_soon(show, redis, other)
    await trio.sleep(0.1)
    node = clustering(member_of("a", 2, marks=marks(**own)), redis)
    began = trio.current_time()
    with pytest.raises(NotLetIn, match=words):
        await node.knock()
    assert trio.current_time() - began == pytest.approx(KNOCKS * TTL_S / 4), "three leases"
    assert list(redis._signs) == [other.run], "nobody was ever sent to it"
    await trio.testing.wait_all_tasks_blocked()
    [message] = heard
    assert (message["kind"], message["name"]) == ("refused", "a")


@pytest.mark.parametrize(("other", "own", "words"), NOT_LET_IN)
async def test_a_dead_node_keeps_no_other_out_for_long(
    other: Member, own: Any, words: str, autojump_clock: MockClock
) -> None:
    """Its heartbeat is there for a while: that of an earlier run, or of a cluster that was stopped."""
    redis = MemoryRedis(ttl_s=TTL_S)
    await redis.heartbeats(other.run).beat(other, Load())
    await clustering(member_of("a", 2, marks=marks(**own)), redis).knock()
    assert TTL_S <= trio.current_time() <= TTL_S + TTL_S / 4


@pytest.mark.parametrize(
    "other",
    [
        member_of("b", marks=marks()),
        member_of("b", marks=marks(schema=4, oldest=3)),
        member_of("b", marks=marks(schema=2, oldest=1)),
        member_of("b", marks=marks(author_key="k" * 20)),
        member_of("b"),
    ],
    ids=["same", "newer", "older", "without a key of its own", "a release without marks"],
)
async def test_nobody_waits_for_those_who_fit(other: Member, mock_clock: MockClock) -> None:
    redis = MemoryRedis(ttl_s=TTL_S)
    await redis.heartbeats(other.run).beat(other, Load())
    await clustering(member_of("a", 2, marks=marks()), redis).knock()


@pytest.mark.parametrize("why", ["name", "secret"])
async def test_of_two_that_start_at_once_the_later_yields(
    why: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    redis = MemoryRedis(ttl_s=TTL_S)
    nursery.start_soon(redis.run)
    names = ("a", "a") if why == "name" else ("a", "b")
    said = ("s" * 16, "s" * 16) if why == "name" else ("one", "other")
    nodes = [
        clustering(member_of(names[n], n + 1, started_at=n, marks=marks(said[n])), redis) for n in range(2)
    ]
    for node in nodes:
        await node.knock()
    for node in nodes:
        nursery.start_soon(follow, node, redis)
    first = trio.CancelScope()

    async def guard() -> None:
        with first:
            await nodes[0].guard()
            raise AssertionError

    nursery.start_soon(guard)
    with pytest.raises(NotLetIn):
        await nodes[1].guard()
    assert TTL_S < trio.current_time() < 2 * TTL_S + 0.1
    await trio.sleep(10 * TTL_S)
    first.cancel()
    nursery.cancel_scope.cancel()


async def test_a_node_that_came_while_redis_was_away_yields_when_it_is_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    redis = MemoryRedis(ttl_s=TTL_S)
    nursery.start_soon(redis.run)
    redis.away = True
    node = clustering(member_of("a", 2, started_at=5, marks=marks()), redis)
    await node.knock()
    redis.away = False
    nursery.start_soon(show, redis, member_of("b", marks=marks("another secret")))
    nursery.start_soon(follow, node, redis)
    with pytest.raises(NotLetIn):
        await node.guard()
    nursery.cancel_scope.cancel()


async def test_an_earlier_member_stays_and_logs_the_stranger(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the other's clock says that it was there before."""
    redis = MemoryRedis(ttl_s=TTL_S)
    node = clustering(member_of("a", 2, started_at=5, marks=marks()), redis)
    nursery.start_soon(follow, node, redis)
    nursery.start_soon(node.guard)
    await trio.sleep(5 * TTL_S)
    stranger = member_of("b", marks=marks("another secret"))
    nursery.start_soon(show, redis, stranger)
    await trio.sleep(5 * TTL_S)
    assert list(node._membership.live) == ["a/2"]
    assert node._membership.ring.owner_of("s") is None or "b" not in node._membership.weights
    assert not node._membership.gone("b/1", trio.current_time()), "what it has is not taken either"
    [said] = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "node b (run b/1) is not let in: the secret of this node" in said
    nursery.cancel_scope.cancel()


def test_marks_of_a_secret_tell_nothing_of_it_and_differ_with_it() -> None:
    one, other = marks("s" * 16, "k" * 20), marks("t" * 16, "k" * 20)
    assert "s" * 16 not in repr(one)
    assert "k" * 20 not in repr(one)
    assert one["secret"] != other["secret"]
    assert one["author_key"] != other["author_key"], "nor does the mark of one thing tell that of another"
    assert difference(one, one) is None
    assert difference(one, {**one, "schema": "nonsense"}) is not None


def test_nodes_that_check_identities_in_another_way_do_not_work_together() -> None:
    def marked(**settings: str) -> Marks:
        words = identity_words(Config(**(SETTINGS | settings)))  # type: ignore[arg-type]  # settings, all text
        return marks_of(b"s" * 16, None, identity=words, schema=(1, 1), protocol=(1, 1))

    keys = {"identity_jwks": "https://app.example/keys"}
    assert difference(marked(), marked()) is None
    for other in (
        keys,
        {"identity_audience": "other"},
        {"identity": "required"},
        {"identity_secret": "x" * 32},
    ):
        assert difference(marked(), marked(**other)) == "how identity tokens are checked"
    files = [marked(identity_jwks=path) for path in ("/etc/keys.json", "keys.json")]
    assert difference(*files) is None, "where a file lies is the business of each node"
    assert SETTINGS["identity_secret"] not in repr(marked())
    earlier = marks_of(b"s" * 16, None, schema=(1, 1), protocol=(1, 1))
    assert difference(marked(), earlier) is None, "a release that knows no identities"


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
async def test_a_node_that_leaves_waits_for_its_sessions_but_not_for_ever(
    takes_s: float,
    waited_s: float,
    warned: bool,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = clustering(drain_s=8.0)
    node.node = cast(Any, Leaving(takes_s))
    for moment_s in (0.0, 1.0, 2.0, 3.0, 4.0):
        node.lease.heartbeat_confirmed(moment_s, moment_s)
    assert node.lease.holds(4.0)
    with caplog.at_level(logging.WARNING), trio.CancelScope() as scope:
        scope.cancel()  # as when the process was told to end
        await node.leave()
    assert trio.current_time() == pytest.approx(waited_s)
    assert bool(caplog.records) == warned
    assert not node.lease.holds(4.0), "it relies on its heartbeat no more, which is taken back next"


async def test_a_node_that_is_told_to_leave_announces_it_once() -> None:
    woken: list[str] = []
    presence = SimpleNamespace(member=member_of("a"))
    presence.announce = lambda member: setattr(presence, "member", member)
    node = ClusterNode(
        membership=Membership(TTL_S),
        heartbeat=cast(Any, presence),
        router=cast(Any, None),
        rebalancer=cast(Any, SimpleNamespace(wake=lambda: woken.append("moving"))),
        links=cast(Any, None),
        bus=cast(Any, None),
    )
    assert not node.draining()
    assert await node.answer({"do": "drain"}) == {"draining": True}
    assert (node.draining(), woken) == (True, ["moving"])
    node.leave()
    assert woken == ["moving"], "said twice it is the same"


async def test_a_node_tells_the_others_how_it_is_and_asks_them() -> None:
    asked: list[object] = []

    async def ask(other: Member, request: object) -> dict[str, object]:
        asked.append((other.name, request))
        return {"name": other.name}

    membership = Membership(TTL_S)
    membership.heard(0.0, 0.0, beat(member_of("a"), member_of("b")))
    node = ClusterNode(
        membership=membership,
        heartbeat=cast(Any, None),
        router=cast(Any, None),
        rebalancer=cast(Any, None),
        links=cast(Any, SimpleNamespace(ask=ask)),
        bus=cast(Any, None),
    )
    assert await node.answer({"do": "live"}) == {}, "before there is anything to tell"
    node.live = lambda: {"name": "a"}
    assert await node.answer({"do": "live"}) == {"name": "a"}
    assert await node.ask_live("b") == {"name": "b"}
    assert asked == [("b", {"do": "live"})]
    with pytest.raises(LinkLost):
        await node.ask_live("c")
