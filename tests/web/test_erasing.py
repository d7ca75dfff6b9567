"""Erasing in the pages, and who sees the end of a session there."""

from __future__ import annotations

from functools import partial

import httpx
from playwright.sync_api import expect

from loadtest.api import Api
from tests.e2e.node import Node
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import hears, join, press
from tests.web.test_quiz import big_screen, code_of, host, stored


async def test_a_host_erases_a_name_and_then_the_session(chromium: Chromium, shared_node: Node) -> None:
    def play(quiz_id: str, visit: Visit) -> None:
        visit.allow("status of 40[0-9]")
        url = shared_node.url
        leader = host(visit, shared_node, quiz_id)
        code = code_of(leader)
        ada, bob, eve = (join(visit, url, code, name) for name in ("Ada", "Bob", "Eve"))
        screen = big_screen(visit, url, code)
        leader.locator("ff-roster li", has_text="Eve").locator("summary").click()
        hears(leader)
        leader.locator("ff-roster").get_by_role("button", name="Erase the name").click()
        expect(eve.get_by_role("heading")).to_have_text("The host has removed you from this quiz.")
        expect(leader.locator("ff-roster .name")).to_have_text(["#3", "Bob", "Ada"])
        press(leader, "#start")
        expect(ada.get_by_role("button", name="Lisbon")).to_be_enabled()
        leader.get_by_role("button", name="Menu").click()
        leader.locator("#finish").click()
        hears(leader)
        leader.locator("#finish-yes").click()
        for page in (leader, screen):
            expect(page.locator("ff-podium .name")).to_have_count(3)

        late = visit.page(size="desktop")
        late.goto(f"{url}/screen?code={code}")
        expect(late.locator("#refused")).to_have_text("This quiz is over.")
        ada.reload()
        expect(ada.locator("ff-podium .name")).to_have_count(3)

        leader.locator("#results tr", has_text="Bob").locator("summary").click()
        no_violations(leader)
        screenshot(leader, "erasing-a-name")
        hears(leader)
        leader.locator("#results").get_by_role("button", name="Erase the name").click()
        expect(leader.locator("#results td:nth-child(2)")).to_have_text(["Ada", "#2", "#3"])
        expect(leader.locator("ff-podium .name")).to_have_text(["Ada", "#2", "#3"])
        bob.reload()
        expect(bob.locator("body")).not_to_have_attribute("data-phase", "finished")

        leader.get_by_text("Delete this session").click()
        no_violations(leader)
        fits(leader)
        screenshot(leader, "deleting-a-session")
        hears(leader)
        leader.get_by_role("button", name="Yes, delete for good").click()
        expect(leader.locator("#open")).to_be_visible()
        assert httpx.get(f"{url}/api/sessions/{code}").status_code == 404

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
        await chromium.run(partial(play, quiz_id), within_s=120)


async def test_an_author_deletes_a_quiz(chromium: Chromium, shared_node: Node) -> None:
    def delete(quiz_id: str, visit: Visit) -> None:
        page = visit.page(size="desktop")
        page.goto(shared_node.as_author(f"/author?quiz={quiz_id}"))
        page.get_by_label("Title").fill("Not to be saved")
        page.locator("#stored summary").click()
        no_violations(page)
        screenshot(page, "deleting-a-quiz")
        fits(page)
        page.get_by_role("button", name="Yes, delete for good").click()
        expect(page.locator("#quizzes li").first).to_be_visible()
        assert not page.locator(f"#quizzes a[href='?quiz={quiz_id}']").count()

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
        await chromium.run(partial(delete, quiz_id), within_s=60)
        assert quiz_id not in {each["id"] for each in await api.quizzes()}
