"""Microsoft's client in a cluster of two behind HAProxy: at the node that does not have the session, and at
one that goes away."""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.aio import open_asyncio
from engine.storage import embedded
from engine.storage.postgres import Database
from tests.deploy.haproxy import haproxy_program
from tests.e2e.test_cluster import Cluster, all_ended, running_cluster
from tests.signalr.clients import Clients, clients
from tests.signalr.quizzes import STORED, Play, stored
from tests.web.leading import Session, opened

NODES = ("node-1", "node-2")


@asynccontextmanager
async def led(cluster: Cluster) -> AsyncIterator[tuple[Session, str, str]]:
    """A session, the node that has it, and the other."""
    async with opened(
        cluster.proxy_url, "single", "single", "single", author_key=cluster.author_key, early_close=False
    ) as session:
        found = re.search("/n/([^/]+)/", (await session.api.session(session.code))["ws_url"])
        assert found is not None
        yield session, found[1], NODES[NODES[0] == found[1]]


async def test_a_cluster_and_the_end_of_one_node() -> None:
    haproxy_program()
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        async with (
            running_cluster(Path(path) / "data", "--nodes", "2", "--proxy") as cluster,
            clients() as running,
        ):
            await clients_at_the_other_node(cluster, running)
            await a_node_goes_away_in_mid_question(cluster, running)


async def clients_at_the_other_node(cluster: Cluster, running: Clients) -> None:
    """They negotiate at the node that has the session, and connect at the one that has not: the connection
    token is good at both."""
    async with led(cluster) as (session, owner, other):
        here, there = (f"{cluster.proxy_url}/n/{each}/hub" for each in (other, owner))
        play = Play(session, running, here, there)
        await play.join(negotiateAt=f"{there}?node={owner}")
        await play.ask()
        for story in await play.finish():
            assert (story["resumed"], story["anew"]) == (0, 0)
        await check(cluster, play)


async def a_node_goes_away_in_mid_question(cluster: Cluster, running: Clients) -> None:
    """It hands its sessions on, and closes its connections so that their clients come back to the other."""
    async with led(cluster) as (session, owner, other):
        play = Play(session, running, f"{cluster.proxy_url}/hub", f"{cluster.proxy_url}/n/{other}/hub")

        async def end() -> None:
            process = cluster.node(owner)
            process.send_signal(signal.SIGTERM)
            assert await all_ended([process])

        await play.join()
        await play.ask()
        await play.ask(end)
        await play.ask()
        stories = await play.finish()
        assert [story["anew"] for story in stories] == [0] * len(stories)
        assert sum(story["resumed"] for story in stories) > 0
        await check(cluster, play)


async def check(cluster: Cluster, play: Play) -> None:
    """Every acknowledged answer is stored, once."""
    async with open_asyncio(), Database.open(embedded.dsn(cluster.data_dir)) as database:
        assert stored(await database.fetch(STORED, play.session.session_id)) == play.acks
