"""`pysignalr`, a client of other people for Python: it speaks WebSockets alone, follows a redirect without
negotiating again, and opens a connection that has broken again, but not one that the node has closed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.aio import open_asyncio
from engine.storage import embedded
from engine.storage.postgres import Database
from tests.deploy.haproxy import haproxy_program
from tests.e2e.node import PATIENCE_S as NODE_PATIENCE_S
from tests.e2e.node import Node, running_node
from tests.e2e.test_cluster import running_cluster
from tests.signalr.clients import PATIENCE_S
from tests.signalr.quizzes import STORED, stored
from tests.signalr.test_cluster import led
from tests.web.leading import opened


@pytest.mark.parametrize("protocol", ["json", "messagepack"])
async def test_a_whole_quiz(node: Node, protocol: str) -> None:
    # JSON by the address of the API, which sends the clients on.
    url = f"{node.url}/hub" if protocol == "json" else f"http://127.0.0.1:{node.ports[1]}/hub"
    async with opened(node.url, "single", "single", author_key=node.author_key) as session:
        words = (url, session.code, session.token, protocol)
        with trio.fail_after(PATIENCE_S):
            played = await trio.run_process(
                [sys.executable, "-m", "tests.signalr.quiz", *words],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert played.returncode == 0, played.stdout.decode()


# Coming back

GIVEN_UP = r"ServerError: [a-z_]+: |ClientConnectorError: |ServerDisconnectedError|ConnectionError: 50\d"
"""Why the library gives up a connection: the node has closed it, or is not there to negotiate with."""


class Player:
    """`tests/signalr/player.py`, and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""
        self.ended: list[str] = []
        """Why the library gave up a connection."""
        self.acks: dict[int, int] = {}
        """How long each acknowledged answer took, by question."""
        self.number = 0

    async def until(self, kind: str, **where: object) -> dict[str, Any]:
        assert self._process.stdout is not None
        with trio.fail_after(2 * NODE_PATIENCE_S):
            while True:
                while b"\n" in self._rest:
                    line, self._rest = self._rest.split(b"\n", 1)
                    message: dict[str, Any] = json.loads(line)
                    self._note(message)
                    if message["t"] == kind and all(message[name] == value for name, value in where.items()):
                        return message
                data = await self._process.stdout.receive_some()
                assert data, "the player is gone"
                self._rest += data

    def _note(self, message: dict[str, Any]) -> None:
        if message["t"] == "ended":
            self.ended.append(message["error"])
        elif message["t"] == "ack":
            assert message["status"] == "accepted"
            self.acks[message["question"]] = message["elapsed_ms"]
        elif message["t"] == "joined":
            self.number = message["player"]


@asynccontextmanager
async def player(url: str, code: str, name: str, protocol: str) -> AsyncIterator[Player]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.signalr.player", url, code, name, protocol], stdout=subprocess.PIPE
    )
    try:
        made = Player(process)
        await made.until("joined")
        yield made
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize("how", ["is killed", "ends"])
async def test_it_comes_back_after_its_node(
    how: str,
) -> None:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        async with (
            running_node(Path(path) / "data") as (node, _),
            opened(node.url, "single", "single", author_key=node.author_key, early_close=False) as session,
            player(f"http://127.0.0.1:{node.ports[1]}/hub", session.code, "Ada", "json") as ada,
        ):
            await session.lead("start")
            await ada.until("ack", question=1)
            if how == "is killed":
                await node.kill()
            else:
                assert await node.stop() == 0
            await node.start()
            again = await ada.until("joined")
            assert (again["player"], again["state"]["number"]) == (1, 1)
            if how == "ends":
                assert ada.ended[0].startswith("ServerError: shutdown: ")
            assert all(re.match(GIVEN_UP, each) for each in ada.ended)
            await session.lead("close")
            await session.lead("next")
            await ada.until("ack", question=2)
            async with player(f"http://127.0.0.1:{node.ports[1]}/hub", session.code, "Ben", "json") as late:
                await late.until("ack", question=2)  # no event tells of the question that is open already
            await session.lead("close")
            await session.lead("finish")
            await ada.until("finished")
            rows = await node.query(STORED, session.session_id)
            took_ms = {(question, 1): took_ms for question, took_ms in ada.acks.items()}
            assert stored(rows) == {**took_ms, (2, 2): late.acks[2]}


async def test_in_a_cluster_it_plays_at_the_other_node_and_goes_there_when_its_own_is_killed() -> None:
    haproxy_program()
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        async with (
            running_cluster(Path(path) / "data", "--nodes", "2", "--proxy") as cluster,
            led(cluster) as (session, owner, other),
            player(f"{cluster.proxy_url}/n/{owner}/hub", session.code, "Ada", "json") as ada,
            player(f"{cluster.proxy_url}/n/{other}/hub", session.code, "Ben", "messagepack") as ben,
        ):
            await session.lead("start")
            for each in (ada, ben):
                await each.until("ack", question=1)
            cluster.node(owner).kill()
            assert (await ada.until("joined"))["player"] == ada.number
            await session.lead("close")
            await session.lead("next")
            for each in (ada, ben):
                await each.until("ack", question=2)
            await session.lead("close")
            await session.lead("finish")
            for each in (ada, ben):
                await each.until("finished")
                assert all(re.match(GIVEN_UP, end) for end in each.ended)
            async with open_asyncio(), Database.open(embedded.dsn(cluster.data_dir)) as database:
                rows = await database.fetch(STORED, session.session_id)
            assert stored(rows) == {
                (question, each.number): took_ms
                for each in (ada, ben)
                for question, took_ms in each.acks.items()
            }
