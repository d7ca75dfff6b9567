"""How a node is, by its components: at /health, in the metrics, in the log."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.clock import SessionClock
from engine.latency import Signs
from server.runtime.health import COMPONENTS_MAX, ERROR_CHARS_MAX, SETTLE_S, LinkHealth, ends_of, shown
from server.runtime.loop_watch import BUSY_OVER_BEATS
from tests.actors.world import settle
from tests.http.edge import AUTHOR_KEY, OUTSIDE, START_MS, Edge, Reply, edge
from tests.http.test_cluster_api import FakeCluster, member
from tests.http.test_operations_api import SPOOLING, samples


def named(reply: Reply) -> dict[str, dict[str, Any]]:
    return {each["name"] + (each["node"] or ""): each for each in reply.json["components"]}


async def health(e: Edge, **more: Any) -> dict[str, dict[str, Any]]:
    return named(await e.get("/health", **more))


def watched_for(e: Edge, beats: int, **more: Any) -> None:
    """The loop has been watched for so long."""
    statistics = replace(e.services.loop_watch.statistics(), beats_total=beats, **more)
    e.but(loop_watch=SimpleNamespace(statistics=lambda: statistics))


async def test_all_is_well(autojump_clock: MockClock) -> None:
    async with edge() as e:
        watched_for(e, BUSY_OVER_BEATS)
        e.journal.spooling = replace(SPOOLING, active=False, facts=0, bytes=0)
        e.journal.database_signs = Signs()
        for duration_s in (0.001, 0.002, 0.003):
            e.journal.database_signs.answered(trio.current_time() - duration_s, trio.current_time())
        reply = await e.get("/health", peer=OUTSIDE)
        assert (reply.status, reply.json["state"]) == (200, "ok")
        found = named(reply)
        assert list(found) == ["postgresql", "spool", "clock", "loop"]
        assert {each["state"] for each in found.values()} == {"ok"}
        assert found["postgresql"]["latency"] == {"p50_ms": 2.0, "p99_ms": 3.0}
        assert found["postgresql"]["since"] == "2023-11-14T22:13:20.000Z"
        await trio.sleep(61)
        assert (await health(e))["postgresql"]["latency"] is None


async def test_a_component_that_fails_keeps_its_moment_and_its_last_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.runtime.health")
    async with edge() as e, trio.open_nursery() as nursery:
        nursery.start_soon(e.app.health.run)
        await settle()
        await trio.sleep(10.5)
        e.journal.database_signs = Signs()
        e.journal.database_signs.failed(
            trio.current_time(), "OSError: postgresql://quiz:hunter2@db:5432/quiz\nis away"
        )
        e.journal.problem = "the database cannot be reached"
        await trio.sleep(5)
        reply = await e.get("/health", peer=OUTSIDE)
        assert (reply.status, reply.json["state"]) == (503, "down")
        found = named(reply)["postgresql"]
        assert (found["state"], found["problem"]) == ("down", "the database cannot be reached")
        assert found["since"] == "2023-11-14T22:13:31.000Z"
        assert found["last_error"] == {"at": "2023-11-14T22:13:30.500Z", "text": None}
        texts = (await health(e, token=AUTHOR_KEY))["postgresql"]["last_error"]["text"]
        assert texts == "OSError: postgresql://db:5432/quiz is away"
        e.journal.problem = None
        await trio.sleep(5)
        found = (await health(e))["postgresql"]
        assert (found["state"], found["last_error"]["at"]) == ("ok", "2023-11-14T22:13:30.500Z")
        nursery.cancel_scope.cancel()
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["postgresql is down (the database cannot be reached)", "postgresql is ok"]


async def test_what_needs_time_to_be_known_is_unknown_at_first_and_that_is_no_news(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.runtime.health")
    async with edge() as e:
        e.journal.spooling = replace(SPOOLING, active=False, certain=False)
        watched_for(e, BUSY_OVER_BEATS - 1, busy_ratio=1.0)
        found = await health(e)
        assert (found["loop"]["state"], found["spool"]["state"]) == ("unknown", "unknown")
        e.journal.spooling = replace(SPOOLING, active=False)
        watched_for(e, BUSY_OVER_BEATS, busy_ratio=0.0)
        found = await health(e)
        assert (found["loop"]["state"], found["spool"]["state"]) == ("ok", "ok")
        assert caplog.records == []
        # Later the same is trouble, and so it is at once where PostgreSQL is away.
        watched_for(e, BUSY_OVER_BEATS, busy_ratio=1.0)
        await trio.sleep(SETTLE_S)
        e.journal.spooling = replace(SPOOLING, active=False, certain=False)
        found = await health(e)
        assert (found["loop"]["state"], found["spool"]["state"]) == ("degraded", "degraded")
        assert len(caplog.records) == 2
    async with edge() as e:
        e.journal.problem, e.journal.spooling = "away", replace(SPOOLING, active=False, certain=False)
        assert (await health(e))["spool"]["state"] == "down"


async def test_a_spool_that_stands_in_is_degraded_and_one_that_cannot_is_down() -> None:
    async with edge() as e:
        e.journal.problem, e.journal.acknowledging, e.journal.spooling = "away", True, SPOOLING
        found = await health(e)
        assert [found[name]["state"] for name in ("postgresql", "spool")] == ["degraded", "degraded"]
        for trouble in (
            replace(SPOOLING, failing=True),
            replace(SPOOLING, certain=False),
            replace(SPOOLING, bytes=e.config.spool_bytes_max),
        ):
            e.journal.spooling = trouble
            assert (await health(e))["spool"]["state"] == "down"
        # While PostgreSQL answers and nothing is in the spool, nobody notices.
        e.journal.problem = None
        e.journal.spooling = replace(SPOOLING, active=False, failing=True)
        assert (await health(e))["spool"]["state"] == "degraded"


async def test_each_link_is_a_component_and_the_metric_has_the_worst() -> None:
    cluster = FakeCluster(member("node-1"), member("node-2"), member("node-3"))
    async with edge() as e:
        e.but(cluster=cluster)
        watched_for(e, BUSY_OVER_BEATS)
        cluster.links = lambda: [  # type: ignore[method-assign]  # as they are just now
            LinkHealth("node-2", "ok", Signs()),
            LinkHealth("node-3", "degraded", Signs()),
        ]
        cluster.up = False
        found = await health(e)
        assert (found["linksnode-2"]["state"], found["linksnode-3"]["state"]) == ("ok", "degraded")
        assert found["linksnode-3"]["problem"] == "no link to node-3"
        assert found["redis"]["state"] == "unknown", "the node has just started"
        cluster.redis_signs = Signs()
        cluster.redis_signs.failed(trio.current_time(), "refused")
        assert (await health(e))["redis"]["state"] == "degraded"
        seen = await samples(e)
        assert {name: value for name, value in seen.items() if "component" in name} == {
            "fanfare_component_state[postgresql]": 0,
            "fanfare_component_state[redis]": 1,
            "fanfare_component_state[links]": 1,
            "fanfare_component_state[clock]": 0,
            "fanfare_component_state[loop]": 0,
        }


async def test_what_is_kept_of_nodes_that_come_and_go_is_bounded(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(member("node-1"))
    async with edge() as e:
        e.but(cluster=cluster)
        for number in range(COMPONENTS_MAX + 10):
            cluster.links = lambda n=number: [LinkHealth(f"n{n}", "ok", Signs())]  # type: ignore[misc]
            e.app.health.read()
        assert len(e.app.health._states) == COMPONENTS_MAX
        assert len(e.app.health._errors) <= COMPONENTS_MAX
        assert (await health(e))["postgresql"]["since"] == "2023-11-14T22:13:20.000Z"


async def test_a_wall_clock_that_is_off() -> None:
    offset_ms = 0
    async with edge(clock=SessionClock(lambda: START_MS + offset_ms)) as e:
        assert (await health(e))["clock"]["state"] == "ok"
        offset_ms = 60_000
        assert (await health(e))["clock"]["state"] == "degraded"


async def test_the_certificate_tells_its_days(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    ends = ends_of(chain)
    assert ends is not None
    for days, state, status in ((20, "ok", 200), (5, "degraded", 200), (-1, "down", 503)):
        now_ms = ends - days * 86_400_000
        async with edge(clock=SessionClock(now_ms), tls_cert=chain, tls_key=key) as e:
            reply = await e.get("/health")
            found = named(reply)["certificate"]
            assert (reply.status, found["state"]) == (status, state)
            assert found["days_left"] == pytest.approx(days, abs=0.1)
            assert (await samples(e))["fanfare_certificate_ends_timestamp_seconds"] == ends / 1000
    (tmp_path / "empty.pem").write_text("")
    assert ends_of(tmp_path / "empty.pem") is None
    assert ends_of(tmp_path / "nowhere.pem") is None


def test_errors_are_shown_without_secrets() -> None:
    assert shown("redis://:hunter2@cache:6379 timed out") == "redis://cache:6379 timed out"
    assert shown("dsn: user=quiz password=hunter2 host=db") == "dsn: user=quiz password=... host=db"
    assert len(shown("x" * 1_000)) == ERROR_CHARS_MAX
    assert shown("two\nlines") == "two lines"
