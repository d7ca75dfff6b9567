"""A whole cluster on this machine, from its one command to its end, however that comes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from loadtest.client.api import Api
from tests.deploy.haproxy import haproxy_program
from tests.e2e.node import FANFARE, PATIENCE_S, clean_environment, fanfare, with_postgres

START_WITHIN_S = 3 * PATIENCE_S


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not below pytest's own directory: that one is closed to the user that runs the database."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        yield Path(path) / "data"


@dataclass
class Cluster:
    """`fanfare cluster` while it runs, and all that it has said."""

    process: trio.Process
    data_dir: Path
    said: str = ""

    async def hear_until(self, words: str) -> None:
        assert self.process.stdout is not None
        with trio.fail_after(START_WITHIN_S):
            while words not in self.said:
                data = await self.process.stdout.receive_some()
                assert data, f"the cluster has ended:\n{self.said}"
                self.said += data.decode()

    @property
    def urls(self) -> list[str]:
        """Of the nodes' HTTP APIs."""
        return re.findall(r"^  node-\d+ +(http://\S+)", self.said, re.MULTILINE)

    @property
    def proxy_url(self) -> str:
        return re.findall(r"^  HAProxy +(http://\S+)", self.said, re.MULTILINE)[0]

    @property
    def author_key(self) -> str:
        return re.findall(r"FANFARE_AUTHOR_KEY=(\S+)", self.said)[0]

    @property
    def processes(self) -> list[psutil.Process]:
        """All that have to do with this directory, whoever their parent is, and what we have started."""
        found = {psutil.Process(self.process.pid)} if self.process.returncode is None else set()
        for each in psutil.process_iter():
            with suppress(psutil.Error):
                if str(self.data_dir) in " ".join([each.cwd(), *each.cmdline()]):
                    found.add(each)
        return list(found)

    def node(self, name: str) -> psutil.Process:
        (found,) = [
            each
            for each in self.processes
            if each.cwd() == str(self.data_dir / name) and "serve" in each.cmdline()
        ]
        return found


@asynccontextmanager
async def running_cluster(data_dir: Path, *options: str) -> AsyncIterator[Cluster]:
    """Up, with its addresses told. Nothing of it is left afterwards, however the test ends."""
    process = await trio.lowlevel.open_process(
        [*FANFARE, "cluster", "--base-port", "0", "--data-dir", str(with_postgres(data_dir)), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment(),
    )
    cluster = Cluster(process, data_dir)
    try:
        await cluster.hear_until("cluster drain")
        yield cluster
    finally:
        for each in cluster.processes:
            with suppress(psutil.Error):
                each.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def all_ended(processes: Sequence[psutil.Process]) -> bool:
    """Whether they do within what patience there is."""
    _, alive = await trio.to_thread.run_sync(lambda: psutil.wait_procs(processes, timeout=PATIENCE_S))
    return not alive


def kinds(processes: Sequence[psutil.Process]) -> set[str]:
    return {
        kind
        for each in processes
        for kind in ("postgres", "redis", "haproxy", "cluster", "supervisor", "serve")
        if kind in each.name() or kind in " ".join(each.cmdline())
    }


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_in_good_order_and_leaves_nothing(data_dir: Path, sign: signal.Signals) -> None:
    async with running_cluster(data_dir, "--nodes", "2") as cluster:
        processes = cluster.processes
        assert kinds(processes) >= {"postgres", "redis", "cluster", "supervisor", "serve"}
        cluster.process.send_signal(sign)
        with trio.fail_after(PATIENCE_S):
            assert await cluster.process.wait() == 0
        assert await all_ended(processes)
        assert cluster.processes == []


async def test_nothing_outlives_it_when_it_is_killed(data_dir: Path) -> None:
    haproxy_program()
    async with running_cluster(data_dir, "--nodes", "2", "--proxy") as cluster:
        processes = cluster.processes
        assert kinds(processes) >= {"postgres", "redis", "haproxy", "cluster", "supervisor", "serve"}
        cluster.process.kill()
        assert await all_ended(processes)
        assert cluster.processes == []


async def test_it_says_when_a_node_ends_and_ends_with_the_last(data_dir: Path) -> None:
    async with running_cluster(data_dir, "--nodes", "2") as cluster:
        processes = cluster.processes
        cluster.node("node-2").kill()
        await cluster.hear_until("node-2 has ended by itself")
        async with Api(cluster.urls[0], author_key=cluster.author_key) as api:
            await api.alive()
        cluster.node("node-1").kill()
        await cluster.hear_until("No node is left.")
        with trio.fail_after(PATIENCE_S):
            assert await cluster.process.wait() == 1
        assert await all_ended(processes)


@pytest.mark.parametrize("wrong", ["secret", "name"])
async def test_a_node_that_does_not_belong_stops_and_the_others_say_so(data_dir: Path, wrong: str) -> None:
    async with running_cluster(data_dir, "--nodes", "2") as cluster:
        own = cluster.node("node-1").environ()
        settings = {name: value for name, value in own.items() if name.startswith("FANFARE_")}
        settings |= {"FANFARE_DATA_DIR": str(data_dir / "stranger"), "FANFARE_LEASE_S": "1"}
        settings |= dict.fromkeys(("FANFARE_HTTP_PORT", "FANFARE_REALTIME_PORT", "FANFARE_LINK_PORT"), "0")
        if wrong == "secret":
            settings |= {"FANFARE_NODE": "stranger", "FANFARE_SECRET": "somebody-elses-secret"}
        with trio.fail_after(START_WITHIN_S):
            stranger = await trio.run_process(
                [*FANFARE, "serve"],
                env=clean_environment() | settings,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        said = (stranger.stdout + stranger.stderr).decode()
        assert stranger.returncode not in (0, None)
        why = {
            "secret": "the secret of this node is not that of node",
            "name": "a node named node-1 already",
        }
        assert why[wrong] in said
        assert "Traceback" not in said
        await cluster.hear_until("was not let in")
        async with Api(cluster.urls[0], author_key=cluster.author_key) as api:
            assert [node["name"] for node in (await api.cluster())["nodes"]] == ["node-1", "node-2"]


async def test_behind_the_proxy_each_node_has_its_address(data_dir: Path) -> None:
    haproxy_program()
    async with running_cluster(data_dir, "--nodes", "2", "--proxy") as cluster:
        for name, url in zip(("node-1", "node-2"), cluster.urls, strict=True):
            async with Api(f"{cluster.proxy_url}/n/{name}", author_key=cluster.author_key) as api:
                by_proxy = {node["name"]: node for node in (await api.cluster())["nodes"]}
            async with Api(url, author_key=cluster.author_key) as api:
                directly = {node["name"]: node for node in (await api.cluster())["nodes"]}
            assert by_proxy[name]["started_at"] == directly[name]["started_at"]


async def status(url: str, data_dir: Path) -> dict[str, Any]:
    code, said = await fanfare("cluster", "status", "--json", "--url", url, data_dir=data_dir)
    assert code == 0, said
    return dict(json.loads(said))


async def test_every_node_knows_all_of_them(data_dir: Path) -> None:
    async with running_cluster(data_dir, "--nodes", "2") as cluster:
        for url in cluster.urls:
            found = await status(url, data_dir)
            assert found["redis_up"] is True
            assert [(node["name"], node["state"]) for node in found["nodes"]] == [
                ("node-1", "up"),
                ("node-2", "up"),
            ]
            assert sum(node["shards"] for node in found["nodes"]) == 4096


async def test_a_drained_node_hands_its_sessions_on(data_dir: Path) -> None:
    async with running_cluster(data_dir, "--nodes", "2") as cluster:
        async with Api(cluster.urls[0], author_key=cluster.author_key) as api:
            codes = [(await api.create_session("quick-tour", {}))["code"] for _ in range(8)]
            order = ("cluster", "drain", "node-2", "--wait", "--url", cluster.urls[0])
            drained = await fanfare(*order, data_dir=data_dir)
            assert drained == (0, "node-2 has no sessions any more.\n")
            for code in codes:
                assert (await api.session(code))["state"]["phase"] == "lobby"
        found = {node["name"]: node for node in (await status(cluster.urls[0], data_dir))["nodes"]}
        assert (found["node-2"]["state"], found["node-2"]["shards"]) == ("draining", 0)
