"""Pictures of every page in every state: `python -m tests.web.screenshots DIR`.

A node of its own plays one session with bots, held at one moment after another while the pictures are taken:
`NAME-MOMENT-SIZE-SCHEME.png`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import trio
from playwright.sync_api import Page, expect

from loadtest.bots.bot import Crowd
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api
from tests.e2e.node import PATIENCE_S, Node, running_node
from tests.web.chromium import Chromium, Scheme, Size, Visit, screenshot
from tests.web.install_chromium import executable, missing

BOTS = 12
THINK_S = 0.1
QUIZ = "quick-tour"
LIMIT_S = 300
"""Of every question: longer than the pictures of a moment take."""

ALL_S = 900.0

MOMENTS: Sequence[tuple[str, Sequence[str]]] = (
    ("lobby", ()),
    ("single", ("start",)),
    ("paused", ("pause",)),
    ("reveal", ("resume", "close")),
    ("true-false", ("next",)),
    ("multiple", ("close", "next")),
    ("numeric", ("close", "next")),
    ("text", ("close", "next")),
    ("finished", ("close", "finish")),
)
"""In this order, and what the host does to come from one to the next. Questions are named for their type."""


@dataclass(frozen=True)
class Scene:
    """What is going on when a picture is taken."""

    url: str
    code: str
    host_token: str
    author_key: str
    moment: str = ""


@dataclass(frozen=True)
class View:
    """One page as one person sees it.

    Args:
        show: called at each moment with the same page, empty at first: go there, and come back when it shows
            the moment.
    """

    name: str
    show: Callable[[Page, Scene], None]
    moments: Sequence[str] = tuple(name for name, _ in MOMENTS)
    sizes: Sequence[Size] = get_args(Size)
    schemes: Sequence[Scheme] = get_args(Scheme)


def at(path: str) -> Callable[[Page, Scene], None]:
    """Go to a page that says the same at all times."""

    def show(page: Page, scene: Scene) -> None:
        page.goto(f"{scene.url}{path}#key={scene.author_key}", wait_until="networkidle")

    return show


NAMES = iter(("Ada", "Grace Hopper", "Zoë", "Émilie du Châtelet"))
"""Of those whose pages are shown."""


def play(page: Page, scene: Scene) -> None:
    """Join at the first moment, answer the first question rightly and the next ones not at all."""
    if scene.moment == "lobby":
        page.goto(f"{scene.url}/?code={scene.code}")
        expect(page.locator("#told")).not_to_be_empty()
        page.locator("#name").fill(next(NAMES))
        page.locator("#join button").click()
    _await(page, scene)
    if scene.moment == "single":
        page.get_by_role("button", name="green").click()
        expect(page.locator(".state")).to_have_text("Saved")


def lead(page: Page, scene: Scene) -> None:
    """By the link, anew at each moment: there is one host at a time."""
    page.goto("about:blank")
    page.goto(f"{scene.url}/host?code={scene.code}#{scene.host_token}")
    _await(page, scene)
    page.wait_for_load_state("networkidle")


def watch(page: Page, scene: Scene) -> None:
    if scene.moment == "lobby":
        page.goto(f"{scene.url}/screen?code={scene.code}", wait_until="networkidle")
    _await(page, scene)


def _await(page: Page, scene: Scene) -> None:
    """Until the page shows the moment. Questions are told apart by their number."""
    moments = [moment for moment, _ in MOMENTS]
    numbers = {name: number for number, name in enumerate(("single", *moments[4:8]), start=1)}
    phase = scene.moment if scene.moment in ("lobby", "reveal", "finished") else "question"
    expect(page.locator("body")).to_have_attribute("data-phase", phase)
    if scene.moment in numbers:
        expect(page.get_by_text(f"Question {numbers[scene.moment]} of 5", exact=True).first).to_be_attached()


VIEWS: Sequence[View] = (
    View("join", at("/"), moments=["lobby"]),
    View("play", play),
    View("open", at("/host"), moments=["lobby"]),
    View("host", lead),
    View("screen", watch, sizes=["desktop"]),
    View("author", at("/author"), moments=["lobby"]),
    View("editor", at(f"/author?quiz={QUIZ}"), moments=["lobby"]),
)


async def shoot(
    node: Node,
    api: Api,
    chromium: Chromium,
    views: Sequence[View] = VIEWS,
    moments: Sequence[tuple[str, Sequence[str]]] = MOMENTS,
) -> None:
    """Play a session, and take all pictures into the directory that $SCREENSHOTS names. No question is closed
    before all bots have answered."""
    known = (await api.quiz(QUIZ))["quiz"]
    slow = known | {"questions": [part | {"time_limit_s": LIMIT_S} for part in known["questions"]]}
    await api.add_quiz(slow, "screenshots")
    made = await api.create_session("screenshots", {"pace": "host", "get_ready_ms": 0, "early_close": False})
    scene = Scene(node.url, made["code"], made["host_token"], node.author_key)
    plan = CrowdPlan(BOTS, think_s=THINK_S, silent_share=0.0)
    crowd = Crowd(plan, ws_url=node.ws_url, code=scene.code, api=api, knowledge=Knowledge(slow))

    async def answered() -> int:
        return int((await api.session(scene.code))["state"]["answered"])

    async def lead(moment: str, do: str) -> None:
        with trio.fail_after(PATIENCE_S):
            while do == "close" and await answered() < BOTS:  # noqa: ASYNC110 - in another process
                await trio.sleep(0.05)
        await api.host(scene.code, scene.host_token, f"{moment}-{do}", do)

    def take(visit: Visit) -> None:
        pages: dict[tuple[str, Size, Scheme], Page] = {}
        for moment, deeds in moments:
            for do in deeds:
                visit.run(lead, moment, do)
            for view in views:
                for size in view.sizes if moment in view.moments else ():
                    for scheme in view.schemes:
                        key = view.name, size, scheme
                        if key not in pages:
                            pages[key] = visit.page(size=size, scheme=scheme)
                        view.show(pages[key], replace(scene, moment=moment))
                        screenshot(pages[key], f"{view.name}-{moment}-{size}-{scheme}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        await chromium.run(take, within_s=ALL_S)
        nursery.cancel_scope.cancel()


async def main(browser: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        chromium = Chromium(browser)
        try:
            async with running_node(Path(path) / "data") as (node, api):
                await shoot(node, api, chromium)
        finally:
            chromium.close()


if __name__ == "__main__":
    found = executable()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.web.screenshots DIR")
    if found is None:
        sys.exit(missing())
    os.environ["SCREENSHOTS"] = sys.argv[1]
    trio.run(main, found)
