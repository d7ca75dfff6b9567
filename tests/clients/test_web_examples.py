"""The examples for browsers, as an app serves them: a player, a board, and how all nodes are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.node import Node
from tests.web.chromium import Chromium, Visit
from tests.web.leading import Session, opened

TOLD_WITHIN_MS = 30_000
"""The page is told every five seconds, and more than once until a machine in use has drawn it."""


async def test_a_user_of_the_app_and_a_guest_play_before_a_board(
    chromium: Chromium, client_node: Node, app: tuple[str, Path]
) -> None:
    def play(session: Session, visit: Visit) -> None:
        query = f"?node={client_node.url}&code={session.code}"
        board, user, guest = (visit.page() for _ in range(3))
        board.goto(f"{app[0]}/board.html{query}")
        for stranger in ("as=eve", "as=ada%0d%0aSet-Cookie:x=y", ""):
            assert user.request.get(f"{app[0]}/sign-in?{stranger}").status == 404
        user.request.get(f"{app[0]}/sign-in?as=ada")
        user.goto(f"{app[0]}/index.html{query}")
        guest.goto(f"{app[0]}/index.html{query}")
        guest.get_by_label("Your name").fill("Bob")
        guest.get_by_role("button", name="Join").click()
        for page, name in ((user, "Ada"), (guest, "Bob")):
            expect(page.get_by_role("heading")).to_have_text(name)
        visit.run(session.lead, "start")
        expect(board.locator("h2")).to_have_text("What is the capital of Portugal?")
        user.get_by_role("button", name="Lisbon").click()
        expect(user.get_by_role("status")).to_have_text("Saved")
        expect(board.locator("p")).to_have_text("1 of 2 have answered")
        guest.get_by_role("button", name="Porto").click()
        expect(user.get_by_role("status")).to_contain_text("Right")
        expect(guest.get_by_role("status")).to_contain_text("Not right")
        visit.run(session.lead, "next")
        expect(user.get_by_role("status")).to_contain_text("The end: place 1")
        expect(board.locator("li").first).to_contain_text("1. Ada")

    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_who_has_the_key_sees_nodes_and_sessions(
    chromium: Chromium, client_node: Node, app: tuple[str, Path]
) -> None:
    def look(session: Session, visit: Visit) -> None:
        visit.allow(r"\b401\b")
        player, page = visit.page(), visit.page()
        player.goto(f"{app[0]}/index.html?node={client_node.url}&code={session.code}")
        player.get_by_label("Your name").fill("Ada")
        player.get_by_role("button", name="Join").click()
        expect(player.get_by_role("heading")).to_have_text("Ada")
        page.goto(f"{app[0]}/status.html?node={client_node.url}")
        key, show = page.get_by_label("Author key"), page.get_by_role("button", name="Show")
        key.fill("not the key")
        show.click()
        expect(page.get_by_role("status")).to_contain_text("neither the author key")
        key.fill(client_node.author_key)
        show.click()
        expect(page.locator("#nodes tr")).to_have_count(1, timeout=TOLD_WITHIN_MS)
        expect(page.locator("#nodes td").nth(5)).to_have_text("", timeout=TOLD_WITHIN_MS)  # nobody answers
        row = page.locator("#sessions tr", has_text=session.code)
        expect(row).to_contain_text("lobby", timeout=TOLD_WITHIN_MS)
        visit.run(session.lead, "start")
        expect(row).to_contain_text("question", timeout=TOLD_WITHIN_MS)
        assert client_node.author_key not in page.url

    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        await chromium.run(partial(look, session))
