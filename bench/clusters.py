"""Clusters to measure: real nodes, with a PostgreSQL and a Redis of their own, each a process."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import trio

from bench.figures import process_cpu_s
from bench.memory_node import Address
from loadtest.client.api import Api
from server.cli.load.nodes import Nodes, spawned
from tests.settings import AT_ONCE

LOOK_EVERY_S = 0.1
KNOWN_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class BenchNode:
    """A node. `port` is its realtime port."""

    name: str
    pid: int
    api: Api
    ws_url: str

    @property
    def port(self) -> int:
        return _port(self.ws_url)

    @property
    def http_port(self) -> int:
        return _port(self.api.url)

    def cpu_s(self) -> float:
        return process_cpu_s(self.pid)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that know each other."""

    nodes: list[BenchNode]
    spawned: Nodes

    def cpu_s(self) -> float:
        return sum(node.cpu_s() for node in self.nodes)

    def database_cpu_s(self) -> float:
        server = psutil.Process(self.spawned.database_pid)
        return _cpu_s([server, *server.children()])

    def redis_cpu_s(self) -> float:
        assert self.spawned.redis_pid is not None
        return process_cpu_s(self.spawned.redis_pid)

    def at(self, ws_url: str) -> BenchNode:
        """The one whose WebSocket is there."""
        return next(node for node in self.nodes if node.ws_url == ws_url)

    async def open_session(self, quiz: Mapping[str, object]) -> tuple[Address, BenchNode]:
        """And the node that runs it, which is another one each time, in turns."""
        api = self.nodes[0].api
        await api.add_quiz(quiz, "bench")
        made = await api.create_session("bench", {**AT_ONCE, "early_close": False})
        owner = self.at(made["ws_url"])
        return Address(owner.port, made["code"], made["host_token"]), owner


@asynccontextmanager
async def cluster(count: int, *options: str) -> AsyncIterator[Cluster]:
    """Nodes that have been started with these options. Nothing is left of them afterwards."""
    async with AsyncExitStack() as stack:
        place = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="fanfare-", ignore_cleanup_errors=True)
        )
        started = await stack.enter_async_context(spawned(count, Path(place), options, cluster=True))
        nodes = []
        for node, process in zip(started.nodes, started.processes, strict=True):
            api = await stack.enter_async_context(Api(process.url, author_key=process.author_key))
            ws_url = str((await api.alive())["ws_url"])
            nodes.append(BenchNode(node.name, process.pid, api, ws_url))
        with trio.fail_after(KNOWN_WITHIN_S):
            for bench_node in nodes:
                while len((await bench_node.api.cluster())["nodes"]) < count:  # noqa: ASYNC110 - in another process
                    await trio.sleep(LOOK_EVERY_S)
        yield Cluster(nodes, started)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, url
    return port


def _cpu_s(processes: Iterable[psutil.Process]) -> float:
    return sum(process_cpu_s(each.pid) for each in processes)
