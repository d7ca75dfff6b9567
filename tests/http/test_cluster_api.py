"""What the API tells of the cluster, and how it sends a node away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import trio

from engine.latency import Signs
from engine.shards.ports import BusUnavailable, LinkLost, Load, Member
from server.http.services import ClusterTraffic, NodeState
from server.runtime.health import LinkHealth
from tests.http.edge import OUTSIDE, START_MS, edge
from tests.http.test_operations_api import samples
from tests.shards.making import member_of


def member(name: str, **more: object) -> Member:
    return member_of(name, **{"version": "1.2.3", "started_at": START_MS, **more})


class FakeCluster:
    """Port `Cluster` without nodes behind it."""

    def __init__(self, *members: Member) -> None:
        self.members = list(members)
        self.drained: list[str] = []
        self.up = True
        self.fails: Exception | None = None
        self.forgets = False
        self.leaving = False
        self.live: Callable[[], Mapping[str, object]] = dict
        self.others: dict[str, Mapping[str, object]] = {}
        """What other nodes say of themselves; those that are not there do not answer."""

    async def ask_live(self, name: str) -> Mapping[str, object]:
        if name not in self.others:
            await trio.sleep(15)
            raise LinkLost
        return self.others[name]

    def nodes(self) -> Sequence[NodeState]:
        load = Load(sessions=3, players=40, connections=41, queued=2, lag_ms=5.0, busy=0.25)
        return [NodeState(each, load, 2048 if each.takes_sessions else 0) for each in self.members]

    def redis_up(self) -> bool:
        return self.up

    redis_signs = Signs()

    def links(self) -> Sequence[LinkHealth]:
        return [LinkHealth(each.name, "ok", Signs()) for each in self.members[1:]]

    def generation(self) -> int:
        return 7

    def draining(self) -> bool:
        return self.leaving

    def traffic(self) -> ClusterTraffic:
        return ClusterTraffic(*range(1, 14))

    async def drain(self, name: str) -> bool:
        if self.fails is not None:
            raise self.fails
        self.drained.append(name)
        return not self.forgets


async def test_every_node_is_shown_by_name() -> None:
    async with edge(cluster="quiz") as e:
        e.but(cluster=FakeCluster(member("node-2", draining=True), member("node-1")))
        shown = (await e.get("/api/cluster")).json
        assert (shown["cluster"], shown["redis_up"], shown["generation"]) == ("quiz", True, 7)
        assert [(node["name"], node["state"], node["shards"]) for node in shown["nodes"]] == [
            ("node-1", "up", 2048),
            ("node-2", "draining", 0),
        ]
        first = shown["nodes"][0]
        assert (first["sessions"], first["players"], first["connections"]) == (3, 40, 41)
        assert (first["queued"], first["lag_ms"], first["busy"]) == (2, 5.0, 0.25)
        assert (first["role"], first["started_at"], first["version"]) == ("both", START_MS, "1.2.3")
        assert "link_url" not in first


async def test_a_node_alone_shows_itself_and_what_it_has_to_do() -> None:
    async with edge(node="solo") as e:
        await (await e.session()).join("Ada")
        e.tally.connections = 7
        for _ in range(3):
            e.journal.latency.add(99.0)
        shown = (await e.get("/api/cluster")).json
        assert shown["redis_up"] is None
        assert [(node["name"], node["state"], node["shards"]) for node in shown["nodes"]] == [
            ("solo", "up", 4096)
        ]
        node = shown["nodes"][0]
        assert (node["sessions"], node["players"], node["connections"]) == (1, 1, 7)
        # The last bound that is a number: what took longer has none.
        assert node["lag_ms"] == 10_000


async def test_a_node_is_told_to_leave() -> None:
    async with edge() as e:
        cluster = FakeCluster(member("node-1"), member("node-2"))
        e.but(cluster=cluster)
        reply = await e.post("/api/cluster/nodes/node-2/drain")
        assert (reply.status, reply.json) == (202, {"name": "node-2", "state": "draining"})
        assert cluster.drained == ["node-2"]


async def test_an_unknown_node_cannot_be_drained() -> None:
    async with edge() as e:
        cluster = FakeCluster(member("node-1"), member("node-2"))
        e.but(cluster=cluster)
        reply = await e.post("/api/cluster/nodes/node-3/drain")
        assert (reply.status, reply.error, cluster.drained) == (404, "node_not_found", [])
        cluster.forgets = True
        reply = await e.post("/api/cluster/nodes/node-2/drain")
        assert (reply.status, reply.error) == (404, "node_not_found")


@pytest.mark.parametrize("others", [[], [member("node-2", role="api")], [member("node-2", draining=True)]])
async def test_the_last_node_that_takes_sessions_stays(others: list[Member]) -> None:
    async with edge() as e:
        cluster = FakeCluster(member("node-1"), *others)
        e.but(cluster=cluster)
        reply = await e.post("/api/cluster/nodes/node-1/drain")
        assert (reply.status, reply.error, cluster.drained) == (409, "last_node", [])


async def test_a_node_without_sessions_may_always_leave() -> None:
    async with edge() as e:
        e.but(cluster=FakeCluster(member("node-1"), member("web", role="api")))
        assert (await e.post("/api/cluster/nodes/web/drain")).status == 202


async def test_a_node_alone_has_nobody_to_leave_to() -> None:
    async with edge(node="solo") as e:
        reply = await e.post("/api/cluster/nodes/solo/drain")
        assert (reply.status, reply.error) == (409, "last_node")


@pytest.mark.parametrize("failure", [LinkLost(), BusUnavailable()])
async def test_a_drain_that_does_not_reach_its_node_is_answered_busy(failure: Exception) -> None:
    async with edge() as e:
        cluster = FakeCluster(member("node-1"), member("node-2"))
        cluster.fails = failure
        e.but(cluster=cluster)
        reply = await e.post("/api/cluster/nodes/node-2/drain")
        assert (reply.status, reply.error) == (503, "busy")


async def test_it_is_for_authors_alone() -> None:
    async with edge(author_key="the-author-key") as e:
        cluster = FakeCluster(member("node-1"), member("node-2"))
        e.but(cluster=cluster)
        for method, path in (("GET", "/api/cluster"), ("POST", "/api/cluster/nodes/node-2/drain")):
            assert (await e.call(method, path)).error == "token_missing"
            assert (await e.call(method, path, token="wrong-key")).error == "token_invalid"
        assert cluster.drained == []
        assert (await e.get("/api/cluster", token="the-author-key", peer=OUTSIDE)).status == 200


async def test_unknown_parameters_are_refused_by_name() -> None:
    async with edge() as e:
        reply = await e.get("/api/cluster?verbose=1")
        assert (reply.status, reply.error) == (400, "unknown_field")


async def test_metrics_tell_of_the_cluster() -> None:
    async with edge() as e:
        assert not [name for name in await samples(e) if name.startswith("fanfare_cluster")]
        cluster = FakeCluster(member("node-1"), member("node-2", draining=True))
        cluster.up = False
        e.but(cluster=cluster)
        seen = await samples(e)
        assert {name: value for name, value in seen.items() if name.startswith("fanfare_cluster")} == {
            "fanfare_cluster_nodes[draining]": 1,
            "fanfare_cluster_nodes[up]": 1,
            "fanfare_cluster_shards[node-1]": 2048,
            "fanfare_cluster_shards[node-2]": 0,
            "fanfare_cluster_redis_up": 0,
            "fanfare_cluster_ring_generation": 7,
            "fanfare_cluster_sessions_moved_total[taken_over]": 1,
            "fanfare_cluster_sessions_moved_total[handed_on]": 2,
            "fanfare_cluster_sessions_moved_total[not_handed_on]": 3,
            "fanfare_cluster_clients_sent_on_total": 4,
            "fanfare_cluster_commands_forwarded_total": 5,
            "fanfare_cluster_strangers": 12,
            "fanfare_cluster_nodes_refused_total": 13,
        }


async def test_a_node_that_drains_is_not_ready() -> None:
    async with edge() as e:
        cluster = FakeCluster(member("node-1"), member("node-2"))
        e.but(cluster=cluster)
        assert (await e.get("/readyz")).status == 200
        cluster.leaving = True
        reply = await e.get("/readyz")
        assert (reply.status, reply.json["ready"]) == (503, False)
        assert reply.json["reasons"] == ["the node is draining: its sessions go to the others"]
