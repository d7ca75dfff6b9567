"""A session in which each player goes at the own pace, on the pages of players and host."""

from __future__ import annotations

from functools import partial

from playwright.sync_api import expect

from tests.e2e.node import Node
from tests.web.accessibility import no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, join, opened, press


async def test_two_players_go_their_own_ways(chromium: Chromium, shared_node: Node) -> None:
    """Ada over a WebSocket, Bob over HTTP alone; Ada comes back in the middle of a question."""

    def play(session: Session, visit: Visit) -> None:
        url = shared_node.url
        visit.allow("ERR_PROXY_CONNECTION_FAILED")
        host = visit.page(size="desktop")
        host.goto(f"{url}/host?code={session.code}#{session.token}")
        ada = join(visit, url, session.code, "Ada")
        bob = join(visit, url, session.code, "Bob", websockets=False)
        no_violations(ada)
        screenshot(ada, "self-lobby")
        ada.get_by_role("button", name="Start").click()
        expect(ada.locator(".asked:visible")).to_contain_text("capital")
        expect(bob.get_by_role("button", name="Start")).to_be_visible()
        ada.reload()
        ada.get_by_role("button", name="Lisbon").click()
        expect(ada.locator(".verdict h1")).to_have_text("Correct!")
        no_violations(ada)
        screenshot(ada, "self-result")
        ada.get_by_role("button", name="Next question").click()
        ada.get_by_role("button", name="False").click()
        expect(ada.locator(".verdict h1")).to_have_text("Not this time")
        ada.get_by_role("button", name="Next question").click()
        expect(ada.get_by_role("heading", name="You have reached the end")).to_be_visible()
        expect(ada.locator("#review li")).to_have_count(2)
        no_violations(ada)
        screenshot(ada, "self-through")
        bob.get_by_role("button", name="Start").click()
        bob.get_by_role("button", name="Porto").click()
        expect(bob.locator(".verdict h1")).to_have_text("Not this time")
        expect(host.locator("#players")).to_have_text("2 players · 1 has finished")
        expect(host.locator("#where li")).to_have_text(
            [
                "Question 1: 2 shown, 2 answered",
                "Question 2: 1 shown, 1 answered",
            ]
        )
        no_violations(host)
        screenshot(host, "self-host")
        press(host, "#extend")
        visit.run(session.lead, "finish")
        for page in (ada, bob):
            expect(page.locator("ff-podium .name")).to_have_text(["Ada", "Bob"])

    settings = {"pace": "self", "open_ms": 3_600_000}
    types = ("single", "true_false")
    async with opened(shared_node.url, *types, author_key=shared_node.author_key, **settings) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 2
        assert await session.answers("Bob") == 1
