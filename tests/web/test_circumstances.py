"""The pages where a browser or a network is not as usual, in a real browser against a real node."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from playwright.sync_api import Page, expect

from tests.e2e.node import Node, running_node
from tests.web.chromium import Chromium, Visit
from tests.web.leading import LOST, Session, join, opened, press

OFFLINE = 'Object.defineProperty(Navigator.prototype, "onLine", {get: () => false})'
"""What a laptop without any network says of itself, on which a node may run."""

NO_STORAGE = """for (const area of ["localStorage", "sessionStorage"]) Object.defineProperty(window, area, {
    get() { throw new DOMException("Access is denied for this document.", "SecurityError"); }});
Object.defineProperty(document, "cookie", {get: () => "", set() {}});"""

WAKE_LOCK = """window.locks = []; Object.defineProperty(navigator, "wakeLock", {value: {async request(kind) {
    const lock = {kind, released: false, async release() { this.released = true; }};
    locks.push(lock);
    return lock;
}}});"""
"""Chromium without a screen has no lock to give."""

AWAKE = "locks.filter((lock) => lock.kind === 'screen' && !lock.released).length"


def under(visit: Visit, script: str, **how: str) -> Page:
    """An empty page in whose profile the script runs before every page's own."""
    page = visit.page(**how)  # type: ignore[arg-type]  # as `Visit.page` takes them
    page.add_init_script(script)
    return page


def come_in(page: Page, url: str, code: str, name: str) -> None:
    page.goto(f"{url}/?code={code}")
    expect(page.locator("#told")).not_to_be_empty()
    page.locator("#name").fill(name)
    page.locator("#join button").click()
    expect(page.locator("body")).to_have_attribute("data-phase", re.compile("lobby|question"))


async def test_a_browser_that_is_offline_reaches_the_node_on_its_own_machine(
    chromium: Chromium, shared_node: Node
) -> None:
    def play(session: Session, visit: Visit) -> None:
        url = shared_node.url
        page, leader, screen = (under(visit, OFFLINE) for _ in range(3))
        leader.goto(f"{url}/host?code={session.code}#{session.token}")
        screen.goto(f"{url}/screen?code={session.code}")
        come_in(page, url, session.code, "Ada")
        join(visit, url, session.code, "Bob")
        for each in (page, leader, screen):
            expect(each.locator("#players")).to_have_text("2 players")
            expect(each.locator("#banner")).to_be_empty()
        press(leader, "#start")
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator(".state")).to_have_text("Saved")
        # A network that goes makes no difference to a connection that is there.
        page.evaluate("dispatchEvent(new Event('offline'))")
        press(leader, "#close")
        for each in (page, leader, screen):
            expect(each.locator("body")).to_have_attribute("data-phase", "reveal")
            expect(each.locator("#banner")).to_be_empty()

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


@asynccontextmanager
async def behind_tls(node: Node) -> AsyncIterator[str]:
    """The HTTP API by TLS, as a load balancer has it in front that nobody told of the realtime port."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(tls)

    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some():
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def forward(client: trio.SSLStream[trio.SocketStream]) -> None:
        node_end = await trio.open_tcp_stream("127.0.0.1", node.ports[0])
        async with node_end, client, trio.open_nursery() as nursery:

            async def back() -> None:
                await pump(node_end, client)
                nursery.cancel_scope.cancel()

            nursery.start_soon(back)
            await pump(client, node_end)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, forward, 0, tls, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_behind_tls_without_an_address_for_websockets_one_plays_over_http(
    chromium: Chromium, short_tmp_path: Path
) -> None:
    """A page that came by TLS may not open a WebSocket without it."""

    def play(node: Node, url: str, session: Session, visit: Visit) -> None:
        page, leader = visit.page(certificates=False), visit.page(certificates=False)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        come_in(page, url, session.code, "Ada")
        leader.goto(f"{url}/host?code={session.code}#{session.token}")
        expect(leader.locator("#connected")).to_have_text("1 of 1 connected")
        press(leader, "#start")
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator(".verdict h1")).to_have_text("Correct!")
        assert any(f"{url}/api/sessions/{session.code}/events" in each for each in asked)

    options = ("--no-samples", "--public-ws-url", "ws://quiz.example/ws")
    async with (
        running_node(short_tmp_path / "tls", *options) as (node, _),
        behind_tls(node) as url,
        opened(node.url, "single", author_key=node.author_key) as session,
    ):
        await chromium.run(partial(play, node, url, session))


async def test_pages_whose_browser_forbids_them_to_store(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow("status of 401")
        url = shared_node.url
        author = under(visit, NO_STORAGE, size="desktop")
        author.goto(f"{url}/author")
        author.locator("#key input").fill(shared_node.author_key)
        author.locator("#key button.primary").click()
        expect(author.locator("#quizzes li").first).to_be_visible()
        author.reload()  # the tab knows the key
        expect(author.locator("#quizzes li").first).to_be_visible()
        author.locator("#new").click()
        expect(author.locator("#editor")).to_be_visible()

        leader = under(visit, NO_STORAGE, size="desktop")
        leader.goto(shared_node.as_author("/host"))
        leader.locator("#open:enabled").click()
        expect(leader.locator("#start")).to_be_visible()
        leader.reload()
        expect(leader.locator("#start")).to_be_visible()

        page, screen = under(visit, NO_STORAGE), under(visit, NO_STORAGE)
        screen.goto(f"{url}/screen?code={session.code}")
        come_in(page, url, session.code, "Ada")
        page.reload()
        expect(page.get_by_role("heading")).to_have_text("You are in, Ada!")
        page.locator("#speak").select_option("Deutsch")
        expect(page.get_by_role("heading")).to_have_text("Du bist dabei, Ada!")
        visit.run(session.lead, "start")
        page.get_by_role("button", name="Lisbon").click()
        expect(page.locator("body")).to_have_attribute("data-phase", "reveal")
        expect(screen.locator("body")).to_have_attribute("data-phase", "reveal")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_two_tabs_of_one_browser_are_two_players(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow(*LOST)
        first = join(visit, shared_node.url, session.code, "Ada")
        second = first.context.new_page()
        second.goto(first.url)
        expect(second.get_by_role("button", name="Go back in as Ada")).to_be_visible()
        second.locator("#name").fill("Bob")
        second.locator("#join button").click()
        expect(second.get_by_role("heading")).to_have_text("You are in, Bob!")
        for page, name in ((first, "Ada"), (second, "Bob")):
            expect(page.locator("#players")).to_have_text("2 players")
            page.reload()
            expect(page.get_by_role("heading")).to_have_text(f"You are in, {name}!")
        visit.run(session.lead, "start")
        for page in (first, second):
            expect(page.get_by_role("button", name="Lisbon")).to_be_enabled()
        # What each has answered without a network is its own.
        first.context.set_offline(True)
        for page, choice in ((first, "Lisbon"), (second, "Porto")):
            expect(page.locator("#banner")).not_to_be_empty()
            page.get_by_role("button", name=choice).click()
            expect(page.locator(".state")).to_contain_text("Kept on this device")
        first.context.set_offline(False)
        expect(first.locator(".verdict h1")).to_have_text("Correct!")
        expect(second.locator(".verdict h1")).to_have_text("Not this time")
        # Who closes a tab and comes back is who they were.
        link = second.url
        second.close()
        third = first.context.new_page()
        third.goto(link)
        expect(third.locator(".verdict h1")).to_have_text("Not this time")

    async with opened(shared_node.url, "single", "text", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert [await session.answers(name) for name in ("Ada", "Bob")] == [1, 1]


async def test_the_screen_stays_on_while_there_is_a_session(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        url = shared_node.url
        page, leader, screen = (under(visit, WAKE_LOCK) for _ in range(3))
        leader.goto(f"{url}/host?code={session.code}#{session.token}")
        screen.goto(f"{url}/screen?code={session.code}")
        page.goto(f"{url}/?code={session.code}")
        expect(page.locator("#told")).not_to_be_empty()
        assert page.evaluate(AWAKE) == 0
        come_in(page, url, session.code, "Ada")
        for each in (page, leader, screen):
            expect(each.locator("#players")).to_have_text("1 player")
            assert each.evaluate(AWAKE) == 1
            # The browser takes it back while the page is out of sight.
            each.evaluate("locks[0].release(), document.dispatchEvent(new Event('visibilitychange'))")
            assert each.evaluate(AWAKE) == 1
        for do in ("start", "close", "next"):
            visit.run(session.lead, do)
        for each in (page, leader, screen):
            expect(each.locator("body")).to_have_attribute("data-phase", "finished")
            each.wait_for_function(f"() => {AWAKE} === 0")

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


@pytest.mark.parametrize("path", ["/{code}", "/play?code={code}", "/join?code={code}"])
async def test_addresses_that_people_type_lead_somewhere(
    chromium: Chromium, shared_node: Node, path: str
) -> None:
    def look(session: Session, visit: Visit) -> None:
        page = visit.page()
        page.goto(shared_node.url + path.format(code=session.code))
        expect(page.locator("#told")).to_have_text("Of everything")
        page.goto(shared_node.as_author("/host/"))
        expect(page.locator("#quizzes label").first).to_be_visible()  # the key came along

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(look, session))
