"""Erasing in the pages, and who sees the end of a session there."""

from __future__ import annotations

from functools import partial

import httpx
from playwright.sync_api import expect

from loadtest.client.api import Api
from tests.e2e.node import Node
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, hears, join, opened, press
from tests.web.test_quiz import big_screen, code_of, host, stored


async def test_a_host_erases_a_name_and_then_the_session(chromium: Chromium, shared_node: Node) -> None:
    def play(quiz_id: str, visit: Visit) -> None:
        visit.allow("status of 40[0-9]")
        url = shared_node.url
        leader = host(visit, shared_node, quiz_id)
        code = code_of(leader)
        ada, bob, eve = (join(visit, url, code, name) for name in ("Ada", "Bob", "Eve"))
        screen = big_screen(visit, url, code)
        leader.locator("ff-roster li", has_text="Eve").locator("summary").last.click()
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


async def test_the_results_stay_where_they_are_when_a_name_is_erased(
    chromium: Chromium, shared_node: Node
) -> None:
    """And their head stays above the rows; the lobby before that is seen whole."""
    where = "[scrollY, document.querySelector('.table').scrollTop]"

    def play(session: Session, visit: Visit) -> None:
        page = visit.page(size="desktop", reduced_motion=True)
        page.goto(f"{shared_node.url}/host?code={session.code}#{session.token}")
        players = f"{shared_node.url}/api/sessions/{session.code}/players"
        for n in range(20):
            assert httpx.post(players, json={"name": f"Player {n}"}).status_code == 201
        for width, height in ((1280, 900), (1024, 768), (1920, 1080)):
            page.set_viewport_size({"width": width, "height": height})
            expect(page.locator("ff-roster li").first).to_be_visible()
            over = "document.documentElement.scrollHeight - document.documentElement.clientHeight"
            assert page.evaluate(over) <= 0, (width, height)
        visit.run(session.lead, "start")
        visit.run(session.lead, "finish")
        page.set_viewport_size({"width": 390, "height": 844})
        expect(page.locator("#results tr")).to_have_count(20)
        page.locator("#results tr").last.scroll_into_view_if_needed()
        page.evaluate("document.querySelector('.table').scrollTop -= 20")
        hidden = page.locator("thead th").evaluate_all(
            """heads => heads.filter((head) => head.checkVisibility()).map((head) => {
                const { x, y, width, height } = head.getBoundingClientRect();
                return [1, height / 2, height - 1].map((down) =>
                    document.elementFromPoint(x + width / 2, y + down)?.closest("th") === head);
            })"""
        )
        assert hidden
        assert all(all(each) for each in hidden), hidden
        row = page.locator("#results tr").last
        row.locator("summary").click()
        hears(page)
        before = page.evaluate(where)
        assert before[1] > 0
        row.get_by_role("button", name="Erase the name").click()
        expect(row.locator("td").nth(1)).to_have_text("#20")
        assert page.evaluate(where) == before
        expect(row.locator("summary")).to_be_focused()
        first = page.locator("#results tr").first
        first.locator("summary").click()
        hears(page)
        first.get_by_role("button", name="Erase the name").click()
        expect(page.locator("ff-podium .name").first).to_have_text("#1")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


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
