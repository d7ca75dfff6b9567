"""The examples for browsers, as an app serves them: a player on one page, and a board as a web component."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.node import Node
from tests.web.chromium import Chromium, Visit
from tests.web.leading import Session, opened


async def test_a_user_of_the_app_and_a_guest_play_before_a_board(
    chromium: Chromium, client_node: Node, app: tuple[str, Path]
) -> None:
    def play(session: Session, visit: Visit) -> None:
        query = f"?node={client_node.url}&code={session.code}"
        board, user, guest = (visit.page() for _ in range(3))
        board.goto(f"{app[0]}/board.html{query}")
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
