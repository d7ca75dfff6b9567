"""A whole quiz in the browser: a host, three players and the big screen, against a real node."""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from loadtest.client.api import Api, ApiRefused
from tests.e2e.node import Node, running_node
from tests.web.accessibility import fits, is_seen_whole, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import LOST, QUESTIONS, hears, join, press, quiz_of

TYPES = ("single", "multiple", "true_false", "text", "numeric")


def host(visit: Visit, node: Node, quiz_id: str, *, get_ready: str = '{"get_ready_ms":0}') -> Page:
    """A page in whose lobby players may join. `get_ready`: of the choices what to wait for before a question
    takes answers."""
    page = visit.page(size="desktop")
    page.goto(node.as_author(f"/host?quiz={quiz_id}"))
    expect(page.locator("[name=quiz_id]:checked")).to_have_value(quiz_id)
    page.evaluate("(chosen) => (document.getElementById('ready').value = chosen)", get_ready)
    page.locator("#open").click()
    expect(page.locator("#start")).to_be_visible()
    return page


def code_of(page: Page) -> str:
    return page.locator("#code").inner_text().replace("\n", "").replace(" ", "")


def big_screen(visit: Visit, url: str, code: str) -> Page:
    page = visit.page(size="desktop", scheme="dark")
    page.goto(f"{url}/screen?code={code}")
    expect(page.locator("#code")).to_be_visible()
    return page


def answer(page: Page, kind: str, *, right: bool) -> None:
    match kind:
        case "single":
            page.get_by_role("button", name="Lisbon" if right else "Porto").click()
        case "multiple":
            page.get_by_role("button", name="22").click()
            if right:
                page.get_by_role("button", name="8").click()
            page.get_by_role("button", name="Send").click()
        case "true_false":
            page.get_by_role("button", name="True" if right else "False").click()
        case _:
            page.get_by_role("textbox").fill(("honey" if kind == "text" else "90") if right else "12")
            page.get_by_role("button", name="Send").click()


async def stored(api: Api) -> str:
    made, _ = await api.add_quiz(quiz_of(*TYPES))
    return str(made["id"])


async def test_a_host_three_players_and_a_screen(chromium: Chromium, shared_node: Node) -> None:
    def play(quiz_id: str, visit: Visit) -> None:
        url = shared_node.url
        leader = host(visit, shared_node, quiz_id)
        no_violations(leader)
        code = code_of(leader)
        screen = big_screen(visit, url, code)
        for page in (leader, screen):
            expect(page.locator("#qr")).to_have_js_property("complete", True)
            assert page.locator("#qr").evaluate("(qr) => qr.naturalWidth") > 0
            expect(page.locator("#players")).to_have_text("0 players")
        ada, bob, grace = (join(visit, url, code, name) for name in ("Ada", "Bob", "Grace"))
        for page in (leader, screen):
            expect(page.locator("#players")).to_have_text("3 players")
        expect(leader.locator("ff-roster li")).to_have_count(3)
        expect(leader.locator("#connected")).to_have_text("3 of 3 connected")
        no_violations(leader)
        no_violations(screen)
        press(leader, "#start")
        for number, kind in enumerate(TYPES, start=1):
            for page in (leader, screen):
                expect(page.locator("#of")).to_have_text(f"Question {number} of 5")
                expect(page.locator("#question")).to_have_text(str(QUESTIONS[kind]["text"]))
            expect(leader.locator("#right")).to_be_hidden()  # the room may see the host's screen
            answer(ada, kind, right=True)
            expect(ada.locator(".state")).to_have_text("Saved")
            for page in (leader, screen):
                expect(page.locator("#answered")).to_contain_text("1 of 3")
            if kind == "multiple":
                bob.reload()
            if kind == "true_false":
                leader.reload()  # by the link alone
                expect(leader.locator("#of")).to_have_text(f"Question {number} of 5")
                expect(leader.locator("#connected")).to_have_text("3 of 3 connected")
            no_violations(leader)
            no_violations(screen)
            fits(leader)
            is_seen_whole(screen)
            answer(bob, kind, right=False)
            if kind == "text":
                press(leader, "#close")
            else:
                answer(grace, kind, right=number % 2 == 1)
            for page in (leader, screen):
                expect(page.locator("body")).to_have_attribute("data-phase", "reveal")
                expect(page.locator("#board .name").first).to_have_text("Ada")
                no_violations(page)
            fits(leader)
            is_seen_whole(screen)
            expect(ada.locator(".verdict h1")).to_have_text("Correct!")
            expect(bob.locator(".verdict h1")).to_have_text("Not this time")
            press(leader, "#next")
        for page in (leader, screen):
            expect(page.locator("ff-podium .name")).to_have_text(["Ada", "Grace", "Bob"])
            no_violations(page)
            screenshot(page, f"podium-{'host' if page is leader else 'screen'}")
        for page, place in ((ada, "1"), (grace, "2"), (bob, "3")):
            expect(page.locator(".place")).to_have_text(place)
        expect(leader.locator("#results tr")).to_have_count(3)
        with leader.expect_download() as download:
            leader.locator("#csv").click()
        rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
        assert [(row["name"], row["correct"], row["answered"]) for row in rows] == [
            ("Ada", "5", "5"),
            ("Grace", "3", "4"),
            ("Bob", "0", "5"),
        ]

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
        await chromium.run(partial(play, quiz_id), within_s=180)


async def test_the_settings_of_a_session_are_those_that_were_chosen(
    chromium: Chromium, shared_node: Node
) -> None:
    def choose(quiz_id: str, visit: Visit) -> str:
        page = visit.page(size="desktop")
        page.goto(shared_node.as_author(f"/host?quiz={quiz_id}"))
        page.locator("summary", has_text="Settings").click()
        page.locator("#pace").select_option("You; the clock, after 15 s without you")
        page.locator("#when").select_option(index=1)
        page.locator("#scoring").select_option(index=2)
        page.locator("#streak").select_option("Yes")
        page.locator("#names").select_option(index=1)
        page.locator("#filter").select_option("Any")
        page.locator("#public").select_option("For everybody with the code")
        page.locator("#limit").fill("77")
        page.locator("#early").select_option("No")
        no_violations(page)
        fits(page)
        page.locator("#open").click()
        expect(page.locator("#start")).to_be_visible()
        return code_of(page)

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        code = await chromium.run(partial(choose, await stored(api)))
        settings = (await api.session(code))["settings"]
    chosen = {
        "pace": "host",
        "host_away_s": 15,
        "board": "live",
        "scoring": "flat",
        "streak": True,
        "names": "given",
        "name_filter": False,
        "results_public": True,
        "player_limit": 77,
        "early_close": False,
    }
    assert {name: settings[name] for name in chosen} == chosen


async def test_pause_skip_kick_and_lock(chromium: Chromium, shared_node: Node) -> None:
    def play(quiz_id: str, visit: Visit) -> None:
        visit.allow("status of 40[0-9]")
        url = shared_node.url
        leader = host(visit, shared_node, quiz_id)
        code = code_of(leader)
        ada, bob = (join(visit, url, code, name) for name in ("Ada", "Bob"))
        leader.locator("ff-roster li", has_text="Bob").locator("summary").last.click()
        hears(leader)
        leader.locator("ff-roster").get_by_role("button", name="Yes, remove").click()
        expect(bob.get_by_role("heading")).to_have_text("The host has removed you from this quiz.")
        expect(leader.locator("ff-roster .name")).to_have_text(["Ada"])
        press(leader, "#lock")
        expect(leader.get_by_role("button", name="Allow joining")).to_be_visible()
        eve = visit.page()
        eve.goto(f"{url}/?code={code}")
        expect(eve.locator("#told")).not_to_be_empty()
        eve.get_by_label("Your name").fill("Eve")
        eve.get_by_role("button", name="Join").click()
        expect(eve.get_by_role("heading")).to_have_text("The host lets nobody else in.")
        hears(leader)
        leader.keyboard.press("n")
        expect(ada.get_by_role("button", name="Lisbon")).to_be_enabled()
        hears(leader)
        leader.keyboard.press("p")
        expect(ada.locator(".state")).to_contain_text("Paused")
        expect(leader.locator("#resume")).to_be_visible()
        no_violations(leader)
        press(leader, "#resume")
        expect(ada.get_by_role("button", name="Lisbon")).to_be_enabled()
        leader.locator("#peek").click()
        expect(leader.locator("#right")).to_contain_text("Lisbon")
        ada.get_by_role("button", name="Lisbon").click()
        expect(ada.locator("#verdict-title")).to_be_visible()
        press(leader, "#skip")
        expect(ada.locator("#verdict-title")).to_have_text("Skipped")
        expect(ada.locator("#verdict-text")).to_have_text("This question counts for nobody")
        expect(ada.locator("#points")).to_have_text("0")
        expect(leader.locator("#right")).to_contain_text("counts for nobody")
        press(leader, "#next")
        expect(ada.locator(".top:visible")).to_contain_text("Question 2 of 5")
        expect(leader.locator("#right")).to_be_hidden()
        ada.close()
        expect(leader.locator("#connected")).to_have_text("0 of 1 connected")

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
        await chromium.run(partial(play, quiz_id), within_s=120)


@pytest.mark.parametrize("wait", ["{}", '{"reading_ms":5000}'])
async def test_everybody_gets_ready_before_a_question_takes_answers(
    chromium: Chromium, shared_node: Node, wait: str
) -> None:
    """With the usual settings, and with choices that come only then."""

    def play(quiz_id: str, visit: Visit) -> None:
        leader = host(visit, shared_node, quiz_id, get_ready=wait)
        code = code_of(leader)
        screen = big_screen(visit, shared_node.url, code)
        ada = join(visit, shared_node.url, code, "Ada")
        press(leader, "#start")
        for page in (ada, screen, leader):
            expect(page.locator(".asked:visible").first).to_contain_text("Portugal")
            expect(page.locator("ff-countdown.ready .seconds")).to_have_text(re.compile("[1-8]"))
            expect(page.locator("#choices")).not_to_be_visible()
        if wait != "{}":
            assert ada.get_by_text("Lisbon").count() == 0
        screenshot(ada, f"get-ready-{len(wait)}")
        no_violations(ada)
        for page in (ada, screen, leader):
            expect(page.locator("#choices")).to_be_visible(timeout=9_000)
            expect(page.locator("ff-countdown.ready")).to_have_count(0)
        ada.get_by_role("button", name="Lisbon").click()
        expect(ada.locator(".verdict h1")).to_have_text("Correct!")

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
        await chromium.run(partial(play, quiz_id), within_s=120)


async def test_all_pages_come_back_after_a_kill_in_mid_question(
    chromium: Chromium, short_tmp_path: Path
) -> None:
    def play(node: Node, quiz_id: str, visit: Visit) -> None:
        visit.allow(*LOST)
        leader = host(visit, node, quiz_id)
        code = code_of(leader)
        screen = big_screen(visit, node.url, code)
        players = [join(visit, node.url, code, name) for name in ("Ada", "Bob", "Grace")]
        press(leader, "#start")
        answer(players[0], "single", right=True)
        expect(leader.locator("#answered")).to_contain_text("1 of 3")
        visit.run(node.kill)
        expect(leader.locator("#banner")).to_contain_text("The connection is lost")
        visit.run(node.start)
        for page in (leader, screen, *players):
            expect(page.locator("#banner")).to_be_empty(timeout=30_000)
        for page in (leader, screen):
            expect(page.locator("#answered")).to_contain_text("1 of 3")
        for page in players[1:]:
            answer(page, "single", right=True)
        expect(leader.locator("body")).to_have_attribute("data-phase", "reveal")
        press(leader, "#next")
        for page in players:
            expect(page.locator(".top:visible")).to_contain_text("Question 2 of 5")

    async with running_node(short_tmp_path / "quiz", "--no-samples") as (node, api):
        quiz_id = await stored(api)
        await chromium.run(partial(play, node, quiz_id), within_s=180)


async def test_a_host_and_a_screen_without_websockets(chromium: Chromium, shared_node: Node) -> None:
    def play(quiz_id: str, visit: Visit) -> None:
        visit.allow("WebSocket connection to")
        url = shared_node.url
        leader = host(visit, shared_node, quiz_id)
        code = code_of(leader)
        player = join(visit, url, code, "Ada", websockets=False)
        link = leader.url
        leader.close()  # which does not end the quiz
        leader = visit.page(size="desktop", websockets=False)
        leader.goto(link)
        screen = visit.page(size="desktop", websockets=False)
        screen.goto(f"{url}/screen?code={code}")
        expect(leader.locator("#connected")).to_have_text("1 of 1 connected")
        press(leader, "#start")
        answer(player, "single", right=True)
        for page in (leader, screen):
            expect(page.locator("#board .name").first).to_have_text("Ada")
        press(leader, "#next")
        expect(screen.locator("#of")).to_have_text("Question 2 of 5")

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
        await chromium.run(partial(play, quiz_id), within_s=120)


async def test_players_wait_until_the_host_lets_them_in(chromium: Chromium, shared_node: Node) -> None:
    def play(quiz_id: str, visit: Visit) -> None:
        visit.allow("status of 403", "ERR_PROXY_CONNECTION_FAILED")
        leader = visit.page(size="desktop")
        leader.goto(shared_node.as_author(f"/host?quiz={quiz_id}"))
        leader.get_by_text("Settings", exact=True).click()
        leader.locator("#admission").select_option(index=1)
        leader.locator("#open").click()
        expect(leader.locator("#ask .asking")).to_be_visible()
        code = code_of(leader)

        def apply(name: str, **how: Any) -> Page:
            page = visit.page(**how)
            page.goto(f"{shared_node.url}/?code={code}")
            expect(page.locator("#told")).not_to_be_empty()
            page.locator("#name").fill(name)
            page.locator("#join button").click()
            expect(page.locator("#pending")).to_have_text("Waiting for the host to let you in …")
            return page

        ada, ben = apply("Ada"), apply("Ben")
        cy = apply("Cy", websockets=False)
        expect(leader.locator("#waiting-count")).to_have_text("3 wait to join")
        no_violations(leader)
        no_violations(ada)
        for page, name in ((leader, "host"), (ada, "player")):
            screenshot(page, f"waiting-{name}")
        ada.reload()
        expect(ada.locator("#pending")).to_have_text("Waiting for the host to let you in …")
        hears(leader)
        leader.locator("#applicants li", has_text="Ada").get_by_role("button", name="Let in").click()
        expect(ada.locator("#welcome")).to_contain_text("Ada")
        hears(leader)
        leader.locator("#applicants li", has_text="Ben").get_by_role("button", name="Turn away").click()
        expect(ben.locator("#why")).to_have_text("The host has not let you in.")
        hears(leader)
        leader.get_by_role("button", name="Let all in").click()
        expect(cy.locator("#welcome")).to_contain_text("Cy")
        expect(leader.locator("#waiting")).to_be_hidden()
        screenshot(leader, "waiting-over")
        press(leader, "#ask")
        expect(leader.locator("#ask .free")).to_be_visible()
        join(visit, shared_node.url, code, "Dan")

    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        quiz_id = await stored(api)
    await chromium.run(partial(play, quiz_id), within_s=120)


async def test_a_page_that_is_told_to_slow_down_says_so_and_comes_back(
    chromium: Chromium, short_tmp_path: Path
) -> None:
    async def guess(node: Node) -> None:
        async with Api(node.url) as api:
            for number in range(3):
                with suppress(ApiRefused):
                    await api.session(f"00000{number}")

    def play(node: Node, code: str, visit: Visit) -> None:
        visit.allow("status of 429")
        page = visit.page()
        page.goto(node.url)
        page.evaluate("""(code) => localStorage.setItem(`ask.${code}`, '{"name": "Ada"}')""", code)
        visit.run(guess, node)
        page.goto(f"{node.url}/?code={code}")
        expect(page.locator("#banner")).to_contain_text("Too many wrong codes from here.")
        expect(page.locator("#welcome")).to_contain_text("Ada", timeout=60_000)

    options = ("--no-samples", "--attempts-per-min", "3")
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")  # where nobody guesses
    async with (
        running_node(short_tmp_path / "slow", *options) as (node, _),
        Api(node.url, author_key=node.author_key, transport=elsewhere) as api,
    ):
        made = await api.create_session(await stored(api), {})
        await chromium.run(partial(play, node, made["code"]), within_s=120)
