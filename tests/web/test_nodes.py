"""The pages of a cluster: sessions change their node, and nodes die, while people look at them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from playwright.sync_api import expect

from loadtest.client.api import Api
from tests.e2e.test_cluster import Cluster, running_cluster
from tests.web.chromium import Chromium, Visit
from tests.web.leading import LOST, Session, join, opened


async def owner_of(cluster: Cluster, session: Session, asked: str) -> str:
    """The name of the node that runs it. `asked`: the address of a node that lives."""
    async with Api(asked, author_key=cluster.author_key) as api:
        ws_url = (await api.session(session.code))["ws_url"]
    told = re.findall(r"^  (node-\d+) .* (ws://\S+)", cluster.said, re.MULTILINE)
    return next(name for name, each in told if each == ws_url)


async def test_players_go_where_their_session_goes(chromium: Chromium, short_tmp_path: Path) -> None:
    def play(cluster: Cluster, session: Session, visit: Visit) -> None:
        visit.allow(*LOST, "status of 503")
        urls = dict(zip(("node-1", "node-2", "node-3"), cluster.urls, strict=True))
        first = visit.run(owner_of, cluster, session, cluster.urls[0])
        players = [join(visit, url, session.code, f"From {name}") for name, url in urls.items()]
        ops = visit.page(size="desktop")
        ops.goto(f"{urls[first]}/ops#key={cluster.author_key}")
        expect(ops.locator("#nodes h3")).to_have_text(sorted(urls), timeout=30_000)
        for name in urls:
            expect(ops.get_by_role("img", name=f"{name}, answers acknowledged")).to_be_visible(timeout=30_000)
        expect(ops.locator("#sessions tr")).to_contain_text([session.code], timeout=30_000)
        visit.run(session.lead, "start")
        players[0].get_by_role("button", name="Lisbon").click()
        expect(players[0].locator(".state")).to_have_text("Saved")

        visit.run(session.api.drain, first)
        for each in players[1:]:
            each.get_by_role("button", name="Lisbon").click()
        for each in players:
            expect(each.locator(".verdict h1")).to_have_text("Correct!", timeout=30_000)
            expect(each.locator("#banner")).to_be_empty(timeout=30_000)
        second = visit.run(owner_of, cluster, session, urls[first])
        assert second != first
        expect(ops.locator("#troubles")).to_contain_text(f"{first} drains", timeout=30_000)
        expect(ops.locator("#events")).to_contain_text("handed 1 session on", timeout=30_000)
        expect(ops.locator("#sessions tr")).to_contain_text([second], timeout=30_000)

        visit.run(session.lead, "next")
        for each in players:
            expect(each.locator(".top:visible")).to_contain_text("Question 2 of 2")
        cluster.node(second).kill()
        told = ops.locator("#events")
        players[0].get_by_role("button", name="True").click()
        for each in players:
            # That of the dead node too, which has no other address for requests.
            expect(each.locator("#banner")).to_be_empty(timeout=60_000)
            expect(each.get_by_role("button", name="True")).to_be_visible()
        for each in players[1:]:
            each.get_by_role("button", name="True").click()
        for each in players:
            expect(each.locator(".verdict h1")).to_have_text("Correct!", timeout=30_000)
        expect(told).to_contain_text(f"misses {second}", timeout=30_000)
        # Found by a look for sessions without an owner, or by the first client who comes: that is chance.
        third = visit.run(owner_of, cluster, session, urls[first])
        expect(ops.locator("#sessions tr")).to_contain_text([third], timeout=30_000)
        expect(ops.locator("#nodes h3")).to_have_count(2, timeout=30_000)

    async with (
        running_cluster(short_tmp_path / "nodes", "--nodes", "3") as cluster,
        opened(cluster.urls[0], "single", "true_false", author_key=cluster.author_key) as session,
    ):
        await chromium.run(partial(play, cluster, session), within_s=180)
