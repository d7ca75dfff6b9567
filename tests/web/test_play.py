"""The page on which one plays, in a real browser against a real node."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jwt
import pytest
from playwright.sync_api import WebSocketRoute, expect

from engine.domain.shuffling import order_of_choices, seed_of
from loadtest.client.connection import Message
from tests.domain.test_shuffling import VECTORS
from tests.e2e.node import Node, running_node
from tests.identities import AUDIENCE, ISSUER, SECRET, SETTINGS
from tests.web.accessibility import no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import LOST, QUESTIONS, Session, join, opened
from tests.web.speed import bytes_over_the_wire


async def test_all_five_types_from_the_code_to_the_podium(chromium: Chromium, shared_node: Node) -> None:
    types = ("single", "multiple", "true_false", "text", "numeric")

    def play(session: Session, visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.url)
        no_violations(page)
        page.get_by_label("Code").fill(session.code)
        expect(page.locator("#told")).to_have_text("Of everything")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("heading")).to_have_text("You are in, Ada!")
        assert page.url.endswith(f"?code={session.code}")
        other = join(visit, shared_node.url, session.code, "Bob", scheme="dark", size="desktop")
        for each in (page, other):
            no_violations(each)
        visit.run(session.lead, "start")
        for number, kind in enumerate(types, start=1):
            for each in (page, other):
                expect(each.locator(".top:visible")).to_contain_text(f"Question {number} of 5")
                no_violations(each)
            match kind:
                case "single":
                    page.get_by_role("button", name="Lisbon").click()
                    other.get_by_role("button", name="Porto").click()
                case "multiple":
                    for each in (page, other):
                        expect(each.get_by_role("button", name="Send")).to_be_disabled()
                        each.get_by_role("button", name="22").click()
                        each.get_by_role("button", name="8").click()
                        each.get_by_role("button", name="Send").click()
                case "true_false":
                    page.get_by_role("button", name="True").click()
                    other.get_by_role("button", name="False").click()
                case "text":
                    page.get_by_label("Your answer").fill("Hóney")
                    page.keyboard.press("Enter")
                    expect(page.locator(".state")).to_have_text("Saved")
                    no_violations(page)
                    visit.run(session.lead, "close")
                case "numeric":
                    page.get_by_label("Your number").fill("ninety")
                    page.get_by_role("button", name="Send").click()
                    expect(page.get_by_role("alert")).to_have_text("This is not a number.")
                    page.get_by_label("Your number").fill("90,5")
                    page.get_by_role("button", name="Send").click()
                    other.get_by_label("Your number").fill("91")
                    other.get_by_role("button", name="Send").click()
            right = {"multiple": "Correct!", "text": "No answer"}.get(kind, "Not this time")
            expect(page.locator(".verdict h1")).to_have_text("Correct!")
            expect(other.locator(".verdict h1")).to_have_text(right)
            expect(other.get_by_text(re.compile("points behind Ada"))).to_be_visible()
            for each in (page, other):
                no_violations(each)
            screenshot(page, f"play-reveal-{kind}")
            visit.run(session.lead, "next")
        expect(page.locator(".place")).to_have_text("1")
        expect(other.locator(".place")).to_have_text("2")
        expect(page.locator("ff-podium .name")).to_have_text(["Ada", "Bob"])
        for each in (page, other):
            no_violations(each)
        page.reload()  # the session is over; its end is still there to see
        expect(page.locator(".place")).to_have_text("1")

    async with opened(shared_node.url, *types, author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 5
        assert await session.answers("Bob") == 4


async def test_a_reload_in_mid_question_comes_back_to_it(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        page, _ = (join(visit, shared_node.url, session.code, name) for name in ("Ada", "Bob"))
        visit.run(session.lead, "start")
        expect(page.get_by_role("button", name="Lisbon")).to_be_enabled()
        page.reload()
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator(".state")).to_have_text("Saved")
        page.reload()
        expect(page.locator(".state")).to_have_text("Saved")
        expect(page.locator(".choice.mine:visible")).to_contain_text("Lisbon")
        expect(page.get_by_role("button", name="Porto")).to_be_disabled()
        visit.run(session.lead, "close")
        expect(page.locator(".verdict h1")).to_have_text("Correct!")
        page.reload()
        expect(page.locator(".verdict h1")).to_have_text("Correct!")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 1


async def test_an_answer_given_offline_is_sent_once(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow(*LOST)
        page, _ = (join(visit, shared_node.url, session.code, name) for name in ("Ada", "Bob"))
        visit.run(session.lead, "start")
        expect(page.get_by_role("button", name="Lisbon")).to_be_enabled()
        page.context.set_offline(True)
        expect(page.locator("#banner")).to_contain_text("This device is offline.")
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator(".state")).to_contain_text("Kept on this device")
        assert visit.run(session.api.session, session.code)["state"]["answered"] == 0
        kept = page.evaluate(
            "localStorage.getItem(`wait.${new URLSearchParams(location.search).get('code')}.1`)"
        )
        assert "Lisbon" not in kept
        assert '"choice":1' in kept
        page.context.set_offline(False)
        expect(page.locator(".state")).to_have_text("Saved")
        expect(page.locator("#banner")).to_be_empty()
        assert page.evaluate("localStorage.length") == 1  # the seat, and no answer that waits
        visit.run(session.lead, "close")
        expect(page.locator(".verdict h1")).to_have_text("Correct!")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 1


async def test_a_killed_node_comes_back_in_mid_question(chromium: Chromium, short_tmp_path: Path) -> None:
    def play(node: Node, session: Session, visit: Visit) -> None:
        visit.allow(*LOST)
        names = ("Ada", "Bob", "Grace")
        page, other, third = (join(visit, node.url, session.code, name) for name in names)
        visit.run(session.lead, "start")
        other.get_by_role("button", name="Porto").click()
        expect(other.locator(".state")).to_have_text("Saved")
        for each in (page, third):
            expect(each.get_by_role("button", name="Lisbon")).to_be_enabled()
        visit.run(node.kill)
        expect(page.locator("#banner")).to_contain_text("The connection is lost")
        for each in (page, third):
            each.get_by_role("button", name="Lisbon").click()
            expect(each.locator(".state")).to_contain_text("Kept on this device")
        link = third.url
        third.goto("about:blank")
        visit.run(node.start)
        expect(page.locator(".state")).to_have_text("Saved", timeout=30_000)
        third.goto(link)
        # All have answered then, which closes the question.
        for each in (page, third):
            expect(each.locator(".verdict h1")).to_have_text("Correct!", timeout=30_000)
        expect(other.locator(".verdict h1")).to_have_text("Not this time", timeout=30_000)
        for each in (page, other, third):
            expect(each.locator("#banner")).to_be_empty()

    async with (
        running_node(short_tmp_path / "killed", "--no-samples") as (node, _),
        opened(node.url, "single", author_key=node.author_key) as session,
    ):
        await chromium.run(partial(play, node, session), within_s=120)
        assert [await session.answers(name) for name in ("Ada", "Bob", "Grace")] == [1, 1, 1]


async def test_a_connection_that_says_nothing_any_more_is_left(chromium: Chromium, shared_node: Node) -> None:
    """The node hangs, or whatever is in front of it: no connection ends. Another way in is there."""

    def play(session: Session, visit: Visit) -> None:
        routes: list[WebSocketRoute] = []
        dead: list[WebSocketRoute] = []

        def forward(route: WebSocketRoute) -> None:
            routes.append(route)
            server = route.connect_to_server()
            route.on_message(lambda message: None if route in dead else server.send(message))
            server.on_message(lambda message: None if route in dead else route.send(message))

        page = visit.page(reduced_motion=False)
        page.route_web_socket(re.compile("/ws$"), forward)
        page.goto(f"{shared_node.url}/?code={session.code}")
        page.locator("#name").fill("Ada")
        page.locator("#join button").click()
        expect(page.locator("body")).to_have_attribute("data-phase", "lobby")
        dead.extend(routes)
        visit.run(session.lead, "start")
        page.get_by_role("button", name="Lisbon").click(timeout=10_000)
        expect(page.locator(".verdict h1")).to_have_text("Correct!")
        assert len(routes) == 2

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 1


@pytest.mark.parametrize("role", ["player", "late player"])
async def test_where_websockets_are_blocked_one_plays_over_http(
    chromium: Chromium, shared_node: Node, role: str
) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow("WebSocket connection to")
        bob = join(visit, shared_node.url, session.code, "Bob")
        if role == "late player":
            visit.run(session.lead, "start")
        page = join(visit, shared_node.url, session.code, "Ada", websockets=False)
        if role == "player":
            visit.run(session.lead, "start")
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator(".state")).to_have_text("Saved")
        page.reload()
        expect(page.locator(".state")).to_have_text("Saved")
        bob.get_by_role("button", name="Porto").click()
        expect(page.locator(".verdict h1")).to_have_text("Correct!")
        visit.run(session.lead, "next")
        expect(page.locator(".place")).to_have_text("1")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 1


async def test_a_refused_client_is_told_why(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow(r"status of 40[0-9]")
        page = visit.page()
        page.goto(shared_node.url)
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("alert")).to_contain_text("six digits")
        expect(page.get_by_label("Code")).to_be_focused()
        page.get_by_label("Code").fill("000000")
        expect(page.get_by_role("alert")).to_have_text("There is no quiz with this code.")
        page.get_by_label("Code").fill(session.code)
        expect(page.locator("#told")).to_have_text("Of everything")
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("alert")).to_have_text("Enter your name.")
        join(visit, shared_node.url, session.code, "Ada")
        page.get_by_label("Your name").fill("ada")
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("alert")).to_contain_text("has this name already")
        expect(page.get_by_label("Your name")).to_have_value("ada")
        no_violations(page)
        visit.run(partial(session.lead, "lock", on=True))
        page.get_by_label("Your name").fill("Grace")
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("heading")).to_have_text("The host lets nobody else in.")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_one_who_is_removed_and_one_who_plays_elsewhere(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = join(visit, shared_node.url, session.code, "Ada")
        second = page.context.new_page()
        second.goto(page.url)
        second.get_by_role("button", name="Go back in as Ada").click()
        expect(second.get_by_role("heading")).to_have_text("You are in, Ada!")
        expect(page.get_by_role("heading")).to_contain_text("another window")
        page.get_by_role("button", name="Go on here").click()
        expect(page.get_by_role("heading")).to_have_text("You are in, Ada!")
        expect(second.get_by_role("heading")).to_contain_text("another window")
        visit.run(partial(session.lead, "kick", player=1))
        expect(page.get_by_role("heading")).to_have_text("The host has removed you from this quiz.")
        no_violations(page)
        page.reload()
        expect(page.get_by_role("heading")).to_have_text("The host has removed you from this quiz.")
        page.goto(shared_node.url)
        page.locator("#code").fill(session.code)
        expect(page.locator("#told")).not_to_be_empty()
        page.locator("#name").fill("Somebody else")
        page.locator("#join button").click()
        expect(page.get_by_role("heading")).to_have_text("The host has removed you from this quiz.")
        visit.run(partial(session.lead, "readmit", player=1))
        page.reload()
        expect(page.get_by_role("heading")).to_have_text("You are in, Ada!")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_the_keyboard_alone_is_enough(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = visit.page(size="desktop")
        page.goto(f"{shared_node.url}/?code={session.code}")
        expect(page.get_by_label("Your name")).to_be_focused()
        page.keyboard.type("Ada")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading")).to_have_text("You are in, Ada!")
        join(visit, shared_node.url, session.code, "Bob")
        visit.run(session.lead, "start")
        expect(page.locator(".top:visible")).to_contain_text("Question 1 of 2")
        page.keyboard.press("b")
        expect(page.locator(".state")).to_have_text("Saved")
        expect(page.locator(".choice.mine:visible")).to_contain_text("Lisbon")
        visit.run(session.lead, "close")
        visit.run(session.lead, "next")
        expect(page.locator(".top:visible")).to_contain_text("Question 2 of 2")
        page.keyboard.press("2")
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.press("4")
        expect(page.locator(".choice.mine:visible")).to_have_count(2)
        page.keyboard.press("Tab")
        while not page.get_by_role("button", name="Send").evaluate(
            "(send) => send === document.activeElement"
        ):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(".state")).to_have_text("Saved")

    async with opened(shared_node.url, "single", "multiple", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_the_countdown_is_the_servers_whatever_the_device_thinks(
    chromium: Chromium, shared_node: Node
) -> None:
    def play(session: Session, visit: Visit) -> None:
        right = join(visit, shared_node.url, session.code, "Ada")
        page = visit.page()
        page.add_init_script("Date = class extends Date { static now() { return 0; } }")
        page.goto(f"{shared_node.url}/?code={session.code}")
        page.get_by_label("Your name").fill("Bob")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading")).to_have_text("You are in, Bob!")
        visit.run(session.lead, "start")
        for each in (right, page):
            expect(each.locator(".seconds")).to_have_text(re.compile("^(118|119|120)$"))
        visit.run(session.lead, "pause")
        expect(page.locator(".state")).to_contain_text("Paused")
        expect(page.get_by_role("button", name="Lisbon")).to_be_disabled()
        stands = page.locator(".seconds").inner_text()
        page.reload()
        expect(page.locator(".seconds")).to_have_text(stands)
        visit.run(session.lead, "resume")
        expect(page.get_by_role("button", name="Lisbon")).to_be_enabled()

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_given_names_and_another_language(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = visit.page(lang="de-AT")
        page.goto(f"{shared_node.url}/?code={session.code}")
        expect(page.locator("#told")).to_have_text("Of everything")
        expect(page.locator("#name")).to_be_hidden()
        page.get_by_role("button", name="Mitspielen").click()
        expect(page.get_by_role("heading")).to_have_text(
            re.compile("^Du bist dabei, [A-Z][a-z]+ [A-Z][a-z]+!$")
        )
        page.get_by_label("Sprache").select_option("English")
        expect(page.get_by_role("heading")).to_have_text(re.compile("^You are in, "))
        assert page.locator("html").get_attribute("lang") == "en"

    async with opened(shared_node.url, "single", names="given", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_a_user_comes_by_the_link_of_the_app_and_is_the_same_on_another_device(
    chromium: Chromium, short_tmp_path: Path
) -> None:
    now = int(time.time())
    claims = {"sub": "user-1001", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 600}
    identity = jwt.encode({**claims, "name": "Ada"}, SECRET)

    def play(node: Node, session: Session, visit: Visit) -> None:
        phone, tablet = visit.page(), visit.page()
        for page in (phone, tablet):
            page.goto(f"{node.url}/?code={session.code}#identity={identity}")
            expect(page.get_by_role("heading")).to_have_text("You are in, Ada!")
            assert page.url.endswith(f"/?code={session.code}"), "what says who one is stays nowhere"
        expect(phone.locator("#why")).to_be_visible()
        tablet.reload()
        expect(tablet.get_by_role("heading")).to_have_text("You are in, Ada!")
        old, expired = visit.page(), jwt.encode({**claims, "exp": now - 60}, SECRET)
        old.goto(f"{node.url}/?code={session.code}#identity={expired}")
        expect(old.locator("#why")).to_contain_text("The link from your app is too old.")

    options = [word for key, value in SETTINGS.items() for word in (f"--{key.replace('_', '-')}", value)]
    async with (
        running_node(short_tmp_path / "node", "--no-samples", *options) as (node, _),
        opened(node.url, "single", author_key=node.author_key) as session,
    ):
        await chromium.run(partial(play, node, session))


async def test_nothing_jumps_and_nothing_is_cut_off_on_a_narrow_phone(
    chromium: Chromium, shared_node: Node
) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = visit.page(reduced_motion=True)
        page.set_viewport_size({"width": 320, "height": 568})
        page.goto(f"{shared_node.url}/?code={session.code}")
        expect(page.locator("#told")).not_to_be_empty()
        page.get_by_label("Your name").fill("Wolfeschlegelsteinhausenbergerdo")
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("heading")).to_contain_text("You are in")
        others = [join(visit, shared_node.url, session.code, name) for name in ("Bob", "Grace")]
        visit.run(session.lead, "start")
        page.get_by_role("button", name="Lisbon").wait_for()
        page.evaluate(
            """() => { window.shifted = 0; new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) if (!entry.hadRecentInput) shifted += entry.value;
            }).observe({type: "layout-shift"}); }"""
        )
        others[0].get_by_role("button", name="Lisbon").click()
        expect(page.locator("#answered")).to_have_text("1 of 3 have answered")
        expect(page.locator(".me-strip .rank")).to_be_empty()
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator(".state")).to_have_text("Saved")
        assert page.evaluate("shifted") == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        visit.run(session.lead, "close")
        expect(page.locator(".verdict h1")).to_have_text("Correct!")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        no_violations(page)

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_a_place_is_that_of_the_last_result_and_told_with_whom_it_is_shared(
    chromium: Chromium, shared_node: Node
) -> None:
    """Nobody has a place before somebody has points, and nobody is told to be first who is not."""

    def play(session: Session, visit: Visit) -> None:
        def answer(players: Sequence[Message], number: int, choice: int) -> None:
            for each in players:
                visit.run(session.api.answer, session.code, each["token"], "a", number, choice)

        page = join(visit, shared_node.url, session.code, "Ada")
        others = [
            visit.run(session.api.join, session.code, name) for name in ("Bob", "Cem", "Dan", "Eve", "Fay")
        ]
        rank, near = page.locator("#rank"), page.locator("#near")
        visit.run(session.lead, "start")
        page.get_by_role("button", name="Porto").click()
        answer(others[:1], 1, 0)
        expect(page.locator("#answered")).to_have_text("2 of 6 have answered")
        visit.run(session.lead, "close")
        expect(rank).to_have_text("\u2013")
        expect(near).to_have_text("Nobody has points yet")

        visit.run(session.lead, "next")
        answer(others[:1], 2, 1)
        expect(page.locator("#answered")).to_have_text("1 of 6 have answered")
        expect(page.locator("#my-rank")).to_be_empty()
        page.get_by_role("button", name="Lisbon").click()
        visit.run(session.lead, "close")
        expect(rank).to_have_text("1")
        expect(near).to_have_text("You share this place with Bob")

        visit.run(session.lead, "next")
        answer(others[1:], 3, 1)
        expect(page.locator("#answered")).to_have_text("4 of 6 have answered")
        expect(page.locator("#my-rank")).to_have_text("1 of 6")
        visit.run(session.lead, "close")
        expect(near).to_have_text("You share this place with others")

        visit.run(session.lead, "next")
        answer(others[4:], 4, 1)
        visit.run(session.lead, "close")
        expect(rank).to_have_text("2")
        expect(near).to_have_text("You share this place with others")
        no_violations(page)

    async with opened(
        shared_node.url, *["single"] * 4, author_key=shared_node.author_key, scoring="flat", early_close=False
    ) as session:
        await chromium.run(partial(play, session))


async def test_the_first_load_is_small(chromium: Chromium, shared_node: Node) -> None:
    def load(visit: Visit) -> int:
        page = visit.page()
        with bytes_over_the_wire(page) as fetched:
            page.goto(shared_node.url, wait_until="networkidle")
        assert "/assets/" in "".join(fetched)
        return fetched.total()

    assert await chromium.run(load) < 150_000


async def test_a_player_has_an_order_of_choices_and_a_clock_of_their_own(
    chromium: Chromium, shared_node: Node
) -> None:
    types = ("single", "multiple")

    def play(session: Session, visit: Visit) -> None:
        page = join(visit, shared_node.url, session.code, "Ada")
        orders = page.evaluate(
            """async (vectors) => {
                const { href } = document.querySelector("link[href$='lib/shuffling.js']");
                const { orderOfChoices } = await import(href);
                return vectors.map(([seed, question, count]) => orderOfChoices(seed, question, count));
            }""",
            VECTORS,
        )
        assert orders == [vector[3] for vector in VECTORS]
        seed = seed_of(session.session_id, 1)
        host = visit.page(size="desktop")
        host.goto(f"{shared_node.url}/host?code={session.code}#{session.token}")
        cell = host.locator(".scroll li").filter(has_text="Ada")
        cell.locator("summary").first.click()
        no_violations(host)
        screenshot(host, "host-extra-time")
        cell.get_by_label("Extra time").select_option("1.5")
        visit.run(session.lead, "start")
        seconds = page.locator("ff-countdown .seconds")
        expect(seconds).to_have_text(re.compile(r"^1[67]\d$|^180$"))
        page.reload()
        expect(seconds).to_have_text(re.compile(r"^1[67]\d$|^180$"))
        host.reload()
        expect(cell.locator("select")).to_have_value("1.5")
        for number, kind in enumerate(types, start=1):
            texts = QUESTIONS[kind]["choices"]
            shown = [texts[place] for place in order_of_choices(seed, number, len(texts))]
            buttons = page.locator("#choices .text")
            expect(buttons).to_have_text(shown)
            right = [QUESTIONS[kind]["correct"]] if kind == "single" else QUESTIONS[kind]["correct"]
            for choice in right:
                page.get_by_role("button", name=choice).click()
            if kind == "multiple":
                page.get_by_role("button", name="Send").click()
            expect(page.locator(".verdict h1")).to_have_text("Correct!")
            expect(page.locator("#bars .text")).to_have_text(shown)
            expect(page.locator("#bars .right .text")).to_have_text([each for each in shown if each in right])
            expect(page.locator("#bars .mine .text")).to_have_text([each for each in shown if each in right])
            visit.run(session.lead, "next")

    async with opened(
        shared_node.url, *types, author_key=shared_node.author_key, shuffle_choices=True
    ) as session:
        await chromium.run(partial(play, session))
