"""A session in which each player goes at the own pace, on the pages of players and host."""

from __future__ import annotations

import re
import time
from functools import partial

import orjson
import trio
from playwright.sync_api import expect

from tests.e2e.node import Node
from tests.web.accessibility import fits, no_violations
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
        ways = host.locator("ff-roster li:visible .way")
        expect(ways).to_have_text(["Question 1 · answered", "Finished"])
        host.locator("#stop").select_option("1")
        expect(host.locator("ff-roster .name")).to_have_text(["Bob"])
        host.locator("#stop").select_option("done")
        expect(host.locator("ff-roster .name")).to_have_text(["Ada"])
        expect(host.locator("#stop option")).to_have_count(5)
        host.locator("#stop").select_option("all")
        expect(host.locator("#until")).to_contain_text("Open until")
        no_violations(host)
        fits(host)
        screenshot(host, "self-host")
        host.reload()
        expect(ways).to_have_text(["Question 1 · answered", "Finished"])
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


async def test_a_question_that_is_shown_again_after_a_refusal_may_be_answered(
    chromium: Chromium, shared_node: Node
) -> None:
    """The answer was late, and then the host gave the player more time."""
    refused = {"t": "rejected", "question": 1, "choice": 0, "code": "late"}
    question = {"t": "question", "number": 1, "of": 2, "remaining_ms": 4_000, "now": 0, "limit_ms": 5_000}
    question |= {"type": "single", "choices": ["a", "b"]}

    def show(visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.url)
        given = page.evaluate(
            """async (told) => {
                const { href } = document.querySelector("link[href$='lib/model.js']");
                const { Model } = await import(href);
                const model = new Model({ now: () => 0, set: () => {} });
                model.own = true;
                return told.map((message) => {
                    model.apply(message);
                    return Boolean(model.given);
                });
            }""",
            [question, question | {"remaining_ms": 0}, refused, question],
        )
        assert given == [False, False, True, False]

    await chromium.run(show)


async def test_a_player_plays_again_and_the_best_attempt_counts(
    chromium: Chromium, shared_node: Node
) -> None:
    """With a quiz of one question, whose number tells no attempt from another; Bob over HTTP alone."""

    def play(session: Session, visit: Visit) -> None:
        url = shared_node.url
        visit.allow("ERR_PROXY_CONNECTION_FAILED")
        host = visit.page(size="desktop")
        host.goto(f"{url}/host?code={session.code}#{session.token}")
        ada = join(visit, url, session.code, "Ada")
        bob = join(visit, url, session.code, "Bob", websockets=False)
        for page, second in ((ada, "Porto"), (bob, "Lisbon")):
            page.get_by_role("button", name="Start").click()
            page.get_by_role("button", name="Lisbon" if page is ada else "Porto").click()
            page.get_by_role("button", name="Next question").click()
            expect(page.get_by_role("heading", name="You have reached the end")).to_be_visible()
            expect(page.locator("#review li")).to_have_count(0)
            expect(page.locator("#own-right")).to_contain_text("after the last attempt")
            expect(page.locator("#own-best")).to_contain_text("Attempt 1 of 2")
            no_violations(page)
            page.reload()
            page.get_by_role("button", name="Play again (attempt 2 of 2)").click()
            expect(page.locator(".asked:visible")).to_contain_text("capital")
            page.reload()
            page.get_by_role("button", name=second).click()
            page.get_by_role("button", name="Next question").click()
            expect(page.locator("#own-best")).to_contain_text("Attempt 2 of 2")
            expect(page.locator("#review li")).to_have_count(1)
            expect(page.locator("#again")).to_be_hidden()
            expect(page.locator("#own-score")).to_have_text(
                "0 points" if page is ada else re.compile(r"^[1-9][\d,]* points$")
            )
        no_violations(ada)
        screenshot(ada, "self-again")
        ways = host.locator("ff-roster li:visible .way")
        expect(ways).to_have_text(["Finished · attempt 2", "Finished · attempt 2"])
        expect(host.locator("#players")).to_have_text("2 players · 2 have finished")
        visit.run(session.lead, "finish")
        expect(ada.locator("ff-podium .name")).to_have_count(2)

    settings = {"pace": "self", "attempts": 2, "reveal": "end"}
    async with opened(shared_node.url, "single", author_key=shared_node.author_key, **settings) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 1


async def test_a_host_opens_one_until_a_date(chromium: Chromium, shared_node: Node) -> None:
    """In German, and in dark as well as in light."""

    def open_it(visit: Visit) -> None:
        visit.allow("status of 400")
        page = visit.page(size="desktop", lang="de-DE")
        page.goto(shared_node.as_author("/host"))
        page.locator("details.card summary", has_text="Einstellungen").click()
        expect(page.get_by_label("Punkte und Plätze ändern sich")).to_be_visible()
        expect(page.get_by_label("Öffnet")).to_be_hidden()
        page.get_by_label("Wer schaltet weiter?").select_option(label="Alle für sich, im eigenen Tempo")
        expect(page.get_by_label("Punkte und Plätze ändern sich")).to_be_hidden()
        page.get_by_label("Öffnet").fill("2030-05-01T08:00")
        page.get_by_label("Wie lange sie offen ist").select_option(label="Bis zu einem Termin")
        page.get_by_label("Schließt").fill("2030-05-01T08:00")
        page.get_by_label("Was richtig ist, erfahren alle").select_option(label="wenn die Runde vorbei ist")
        page.get_by_label("Zeit zum Antworten").select_option(label="So lange sie mögen")
        page.get_by_label("Reihenfolge der Fragen").select_option(label="Für alle eine andere")
        page.get_by_label("Versuche für alle").select_option(label="3")
        no_violations(page)
        fits(page)
        screenshot(page, "self-settings")
        page.locator("#open").click()
        expect(page.locator("#wrong")).to_have_text(
            "Eine Runde ist mindestens eine Minute und höchstens 90 Tage offen: Wähle ein anderes Ende."
        )
        page.get_by_label("Schließt").fill("2030-05-08T20:00")
        page.locator("#open").click()
        expect(page.locator("#until")).to_have_text(
            "Öffnet am 01.05.2030, 08:00. Offen bis 08.05.2030, 20:00"
        )
        opened_at = page.evaluate("Date.parse('2030-05-01T08:00')")
        code = page.evaluate("new URLSearchParams(location.search).get('code')")
        settings = page.evaluate(f"fetch('/api/sessions/{code}').then((r) => r.json())")["settings"]
        assert settings["open_from"] == opened_at
        assert settings["open_ms"] == (7 * 24 + 12) * 3_600_000
        assert settings["attempts"] == 3
        assert (settings["reveal"], settings["untimed"], settings["shuffle_questions"]) == (
            "deadline",
            True,
            True,
        )
        no_violations(page)

    await chromium.run(open_it)


async def test_hundreds_of_players_leave_the_page_of_the_host_calm(
    chromium: Chromium, shared_node: Node
) -> None:
    """It is told of them once a second at most, and has those in its document who are in sight."""
    players = 300

    async def all_go_on(session: Session) -> None:
        async def one(number: int, limit: trio.CapacityLimiter) -> None:
            async with limit:
                token = (await session.api.join(session.code, f"Player {number}"))["token"]
                await session.api.next(session.code, token)
                if number % 2:
                    await session.api.answer(session.code, token, "a", 1, 1)

        limit = trio.CapacityLimiter(8)
        async with trio.open_nursery() as nursery:
            for number in range(players):
                nursery.start_soon(one, number, limit)

    def play(session: Session, visit: Visit) -> None:
        host = visit.page(size="desktop")
        rosters: list[dict[str, object]] = []

        def hear(frame: str | bytes) -> None:
            message = orjson.loads(frame)
            if message["t"] == "roster":
                rosters.append(message)

        host.on("websocket", lambda socket: socket.on("framereceived", hear))
        host.goto(f"{shared_node.url}/host?code={session.code}#{session.token}")
        expect(host.locator("#where li")).to_have_count(2)
        began = time.monotonic()
        visit.run(all_go_on, session)
        expect(host.locator("#where li").first).to_have_text(
            f"Question 1: {players} shown, {players // 2} answered", timeout=30_000
        )
        host.locator("#stop").select_option("1")
        expect(host.locator("#connected")).to_have_text(f"0 of {players} connected", timeout=30_000)
        expect(host.locator("ff-roster .way", has_text="answered").first).to_be_visible()
        seconds = time.monotonic() - began
        assert 0 < len(rosters) <= seconds + 2
        assert all(len(each["ways"]) <= 250 for each in rosters)  # type: ignore[arg-type]  # a list
        assert host.locator("ff-roster li").count() < 80
        no_violations(host)
        screenshot(host, "self-hundreds")

    async with opened(
        shared_node.url, "single", "numeric", author_key=shared_node.author_key, pace="self"
    ) as session:
        await chromium.run(partial(play, session))
