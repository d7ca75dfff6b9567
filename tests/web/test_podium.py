"""The podium, on which players may share a place."""

from __future__ import annotations

from functools import partial

import pytest
from playwright.sync_api import expect

from tests.e2e.node import Node
from tests.web.accessibility import fits, is_seen_whole, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, join, opened


@pytest.mark.parametrize(("winners", "others"), [(1, 3), (2, 2), (0, 12)])
async def test_who_shares_a_place_shares_a_step(
    chromium: Chromium, shared_node: Node, winners: int, others: int
) -> None:
    names = [f"Winner {number}" for number in range(winners)] + [
        f"Other {number}" for number in range(others)
    ]

    async def all_in(session: Session) -> None:
        for name in names:
            token = str((await session.api.join(session.code, name))["token"])
            tokens.append(token)

    async def played(session: Session) -> None:
        await session.lead("start")
        for number in range(winners):
            await session.api.answer(session.code, tokens[number], f"a{number}", 1, 1)
        await session.lead("close")

    tokens: list[str] = []

    def play(session: Session, visit: Visit) -> None:
        screen = visit.page(size="desktop", reduced_motion=True)
        screen.goto(f"{shared_node.url}/screen?code={session.code}")
        visit.run(all_in, session)
        player = join(visit, shared_node.url, session.code, "Me", reduced_motion=True)
        visit.run(played, session)
        visit.run(session.lead, "next")
        pages = (screen, player)
        for page in pages:
            steps = page.locator("ff-podium .step")
            expect(steps).to_have_count(2 if winners else 1)
            places = [step.locator(".block").inner_text() for step in steps.all()]
            assert places == (["1", str(winners + 1)] if winners else ["1"])
            if winners:
                assert steps.first.locator(".name").all_inner_texts() == names[:winners]
            shown = steps.last.locator(".name").count()
            assert shown == min(others + 1, 5)
            more = steps.last.locator(".more")
            expect(more).to_have_text(["and others"] if others > 5 else [])
            no_violations(page)
            fits(page) if page is player else is_seen_whole(page)
            screenshot(page, f"podium-{winners}-{others}-{'screen' if page is screen else 'player'}")

    async with opened(
        shared_node.url, "single", author_key=shared_node.author_key, scoring="flat", early_close=False
    ) as session:
        await chromium.run(partial(play, session))
