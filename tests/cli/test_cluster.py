"""`fanfare cluster`: what it plans, what it asks and prints, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from server.cli.cluster.plan import Place, environment, plan_for
from server.cli.cluster.processes import ClusterNode
from server.config.config import Config
from tests.cli.conftest import Fanfare
from tests.cli.fake_server import FakeServer

PATIENCE_S = 60.0


def node(name: str, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "name": name,
        "role": "both",
        "state": "up",
        "weight": 1,
        "shards": 2048,
        "sessions": 1234,
        "players": 56_789,
        "connections": 60_000,
        "queued": 3,
        "lag_ms": 12.4,
        "busy": 0.42,
        "version": "0.1.0",
        "started_at": 1_700_000_000_000,
        "ws_url": f"ws://{name}/ws",
    }
    return known | more


def cluster_of(*nodes: dict[str, Any], redis_up: bool | None = True) -> dict[str, Any]:
    return {"cluster": "quiz", "redis_up": redis_up, "generation": 7, "nodes": list(nodes)}


# -- status ------------------------------------------------------------------------------------------


def test_status_shows_every_node(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /api/cluster", cluster_of(node("node-1"), node("bad\x1b[31m", state="draining")))
    result = fanfare("cluster", "status", "--url", server.url)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()[1:3]
    for shown in ("node-1", "both", "up", "2,048", "1,234", "56,789", "60,000", "12 ms", "42%", "0.1.0"):
        assert f" {shown} " in first
    assert " draining " in second
    assert "\x1b" not in result.stdout
    assert "Redis is up" in result.stdout


@pytest.mark.parametrize(("redis_up", "said"), [(False, "Redis is away"), (None, "This node is alone")])
def test_status_tells_what_becomes_of_redis(
    fanfare: Fanfare, server: FakeServer, redis_up: bool | None, said: str
) -> None:
    server.says("GET /api/cluster", cluster_of(node("node-1"), redis_up=redis_up))
    assert said in fanfare("cluster", "status", "--url", server.url).stdout


def test_status_as_json_is_what_the_server_says(fanfare: Fanfare, server: FakeServer) -> None:
    server.says("GET /api/cluster", cluster_of(node("node-1")))
    result = fanfare(
        "cluster", "status", "--json", "--url", server.url, env={"FANFARE_AUTHOR_KEY": "the-key"}
    )
    assert json.loads(result.stdout) == cluster_of(node("node-1"))
    assert server.heard == [("GET", "/api/cluster", "the-key", None)]


def test_a_request_without_the_author_key_is_told_about_it(fanfare: Fanfare, server: FakeServer) -> None:
    server.refuses("GET /api/cluster", 401, "token_missing", "This needs Authorization.")
    assert "FANFARE_AUTHOR_KEY" in fanfare("cluster", "status", "--url", server.url).stderr


# -- drain -------------------------------------------------------------------------------------------

DRAIN = "POST /api/cluster/nodes/node-2/drain"
DRAINING = {"name": "node-2", "state": "draining"}


def test_drain_tells_the_node_and_what_to_look_at(fanfare: Fanfare, server: FakeServer) -> None:
    server.says(DRAIN, DRAINING, 202)
    result = fanfare("cluster", "drain", "node-2", "--url", server.url, env={"FANFARE_AUTHOR_KEY": "the-key"})
    assert result.exit_code == 0
    assert "cluster status" in result.stdout
    assert server.heard == [("POST", "/api/cluster/nodes/node-2/drain", "the-key", None)]


@pytest.mark.parametrize("left", [[], [node("node-2", sessions=0, state="draining")]])
def test_drain_waits_until_the_node_has_no_sessions_or_is_gone(
    fanfare: Fanfare, server: FakeServer, monkeypatch: pytest.MonkeyPatch, left: list[dict[str, Any]]
) -> None:
    async def a_moment_later(_: float) -> None:
        server.says("GET /api/cluster", cluster_of(node("node-1"), *left))

    server.says(DRAIN, DRAINING, 202)
    server.says("GET /api/cluster", cluster_of(node("node-1"), node("node-2", state="draining")))
    monkeypatch.setattr("trio.sleep", a_moment_later)
    result = fanfare("cluster", "drain", "node-2", "--wait", "--url", server.url)
    assert (result.exit_code, result.stdout) == (0, "node-2 has no sessions any more.\n")
    assert [path for method, path, *_ in server.heard if method == "GET"] == ["/api/cluster"] * 2


def test_a_node_that_nobody_knows_is_told_in_one_line(fanfare: Fanfare, server: FakeServer) -> None:
    server.refuses(DRAIN, 404, "node_not_found", "No node of this cluster has this name.")
    result = fanfare("cluster", "drain", "node-2", "--url", server.url)
    assert result.exit_code == 1
    assert result.stderr == "Error: No node of this cluster has this name (node_not_found).\n"


# -- haproxy -----------------------------------------------------------------------------------------


def test_a_configuration_for_haproxy_says_how_it_was_made(fanfare: Fanfare) -> None:
    words = ["--realtime", "rt-1=rt-1:5001:5002", "--api", "web=web:5001", "--clients", "5000"]
    result = fanfare("cluster", "haproxy", *words)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "# Made by: fanfare cluster haproxy"
    made_by = " ".join(line.lstrip("# ") for line in lines[: lines.index("")]).split()
    assert made_by == ["Made", "by:", "fanfare", "cluster", "haproxy", *words]
    assert "    server rt-1 rt-1:5001 check weight 0" in lines


def test_what_is_no_node_is_a_usage_error(fanfare: Fanfare) -> None:
    result = fanfare("cluster", "haproxy", "node-1=10.0.0.7:5001")
    assert result.exit_code == 2
    assert "NAME=HOST:HTTP_PORT:REALTIME_PORT" in result.stderr


# -- the plan ----------------------------------------------------------------------------------------


def test_ports_are_ten_apart() -> None:
    plan = plan_for(3, 5000, Config(), "a-key", proxy=False)
    assert plan.places == [
        Place("node-1", 5001, 5002, 5003),
        Place("node-2", 5011, 5012, 5013),
        Place("node-3", 5021, 5022, 5023),
    ]
    assert plan.proxy_port is None


def test_free_ports_are_all_different() -> None:
    plan = plan_for(3, 0, Config(), "a-key", proxy=True)
    ports = [port for each in plan.places for port in (each.http_port, each.realtime_port, each.link_port)]
    assert len({*ports, plan.proxy_port}) == 10


def test_a_port_that_does_not_exist_is_a_usage_error(fanfare: Fanfare) -> None:
    assert fanfare("cluster", "--nodes", "5", "--base-port", "65500").exit_code == 2


SHARED = {"database_url": "postgresql://x@/x?host=/x", "redis_url": "unix:///x", "secret": "s" * 16}


def told(environ: dict[str, str], *, proxy: bool = False, base_port: int = 5000) -> Config:
    """What the second node makes of what it is told."""
    given = Config.load(None, environ, {})
    plan = plan_for(2, base_port, given, given.author_key or "a-key-that-was-made", proxy=proxy)
    return Config.load(None, environment(environ, plan, plan.places[1], Path("/c"), SHARED), {})


def test_a_node_is_told_what_is_its_own_and_what_all_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = told({"PATH": "/bin"})
    assert (config.node, config.data_dir) == ("node-2", Path("/c/node-2"))
    assert (config.http_port, config.realtime_port, config.link_port) == (5011, 5012, 5013)
    assert {key: getattr(config, key) for key in SHARED} == SHARED
    assert (config.public_url, config.proxy_hops) == (None, 0)
    assert config.author_key == "a-key-that-was-made"


def test_settings_of_the_person_hold_unless_they_must_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = told(
        {
            "FANFARE_TICK_MS": "500",
            "FANFARE_NODE": "mine",
            "FANFARE_LINK_URL": "ws://elsewhere:1",
            "FANFARE_DATABASE_URL": "postgresql://elsewhere/x",
            "FANFARE_AUTHOR_KEY": "the-author-key",
        },
        proxy=True,
    )
    assert (config.tick_ms, config.node, config.link_url) == (500, "node-2", None)
    assert config.database_url == SHARED["database_url"]
    assert config.author_key == "the-author-key"


def test_behind_the_proxy_each_node_has_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = told({}, proxy=True)
    assert config.public_url == "http://127.0.0.1:5000/n/{node}"
    assert config.public_ws_url == "ws://127.0.0.1:5000/n/{node}/ws"
    assert config.proxy_hops == 1


# -- nothing outlives it -----------------------------------------------------------------------------


def started_keeper(stdin: int, notes: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.keep_until_eof", str(notes), *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_what_is_kept_ends_when_the_last_that_holds_it_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    read_end, held = os.pipe()
    with started_keeper(read_end, notes) as kept:
        os.close(read_end)
        holders = [
            subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])
            for _ in range(2)
        ]
        os.close(held)
        assert kept.stdout is not None
        assert json.loads(kept.stdout.readline()) == {
            "postgres": "address of postgres",
            "redis": "address of redis",
        }
        for holder in holders:
            assert kept.poll() is None
            assert notes.read_text().splitlines() == ["start postgres", "start redis"]
            holder.kill()
            holder.communicate()
        assert kept.wait(PATIENCE_S) == 0
    assert notes.read_text().splitlines()[2:] == ["stop redis", "stop postgres"]


def test_what_has_started_is_stopped_when_the_rest_does_not_start(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with started_keeper(subprocess.DEVNULL, notes, "broken") as kept:
        out, err = kept.communicate(timeout=PATIENCE_S)
    assert (kept.returncode, out) == (1, b"")
    assert b"no room" in err
    assert notes.read_text().splitlines() == ["start postgres", "stop postgres"]


async def test_a_node_that_does_not_start_says_why(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FANFARE_")}
    bad = ClusterNode("node-7", tmp_path, environ | {"FANFARE_TICK_MS": "0"}, held=2)
    with trio.fail_after(PATIENCE_S), pytest.raises(ExceptionGroup) as raised:
        await bad.run()
    said = str(raised.value.exceptions[0])
    assert "node-7 has ended." in said
    assert "FANFARE_TICK_MS" in said


def test_without_haproxy_the_proxy_is_refused(
    fanfare: Fanfare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    result = fanfare("cluster", "--proxy", "--base-port", "0", "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 1
    assert "apt-get install haproxy" in result.stderr
