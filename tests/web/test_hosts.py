"""What a host can take back and who else can lead, in a real browser against a real node."""

from __future__ import annotations

from functools import partial

from playwright.sync_api import expect

from tests.e2e.node import Node
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, hears, join, opened, press


async def test_an_author_takes_a_session_over_and_the_older_page_is_told(
    chromium: Chromium, shared_node: Node
) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow("status of 401")
        older = visit.page(size="desktop")
        older.goto(f"{shared_node.url}/host?code={session.code}#{session.token}")
        expect(older.locator("#start")).to_be_visible()
        page = visit.page(size="desktop", reduced_motion=True)
        page.goto(shared_node.as_author("/host"))
        page.locator("#others-count").click()
        row = page.locator("#others li", has_text=session.code)
        expect(row).to_contain_text("Of everything")
        no_violations(page)
        fits(page)
        screenshot(page, "take-over")
        taken: list[str] = []
        page.on("request", lambda asked: asked.url.endswith("/host-token") and taken.append(asked.url))
        hears(page)
        row.get_by_role("button").dblclick()
        expect(page.locator("#start")).to_be_visible()
        assert len(taken) == 1
        expect(older.locator("#elsewhere")).to_be_visible()
        expect(older.locator("#elsewhere")).to_have_text("This session is led from another window or device.")
        press(page, "#start")
        expect(page.locator("body")).to_have_attribute("data-phase", "question")
        older.reload()
        expect(older.locator("#why")).to_contain_text("leads this session now")
        assert older.evaluate("JSON.parse(localStorage.hosted)") == [], "the link leads nothing any more"
        page.goto(shared_node.as_author("/host"))
        expect(page.locator("#running a", has_text=session.code)).to_be_visible()
        expect(page.locator("#open")).to_be_enabled()
        expect(page.locator("#others li", has_text=session.code)).to_have_count(0)

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_a_player_removed_by_mistake_is_readmitted(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = visit.page(size="desktop", reduced_motion=True)
        page.goto(f"{shared_node.url}/host?code={session.code}#{session.token}")
        players = {name: join(visit, shared_node.url, session.code, name) for name in ("Ada", "Bob")}
        expect(page.locator("#removed")).to_be_hidden()
        for name in players:
            cell = page.locator("ff-roster li", has_text=name)
            cell.locator("summary").last.click()
            hears(page)
            cell.locator("[data-do=kick]").click()
            expect(cell).to_have_count(0)
            expect(players[name].locator("body")).to_have_attribute("data-phase", "ended")
        expect(page.locator("#removed-count")).to_have_text("2 removed")
        page.locator("#removed-count").click()
        hears(page)
        no_violations(page)
        fits(page)
        screenshot(page, "removed")
        ada, bob = (page.get_by_role("button", name=f"Let in again: {name}") for name in players)
        ada.dblclick()
        expect(page.locator("ff-roster li", has_text="Ada")).to_be_visible()
        expect(page.locator("#removed-count")).to_have_text("1 removed")
        expect(bob).to_be_visible()
        expect(page.locator("#wrong")).to_be_empty()
        page.reload()
        page.locator("#removed-count").click()
        hears(page)
        bob.click()
        expect(page.locator("ff-roster li", has_text="Bob")).to_be_visible()
        expect(page.locator("#removed")).to_be_hidden()

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
