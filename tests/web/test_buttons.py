"""What a nervous thumb does to the buttons of a host, in a real browser against a real node."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import orjson
import pytest
from playwright.sync_api import Locator, Page, Request, expect

from tests.e2e.node import Node
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.leading import Session, hears, join, opened

WIDTHS = (390, 1024, 1920)

IS_PRESSED = """([x, y]) => {
    const found = document.elementFromPoint(x, y)?.closest("button, a, summary, input");
    return found && !found.disabled && found.ariaDisabled !== "true" ? found.id : null;
}"""

SHOWN = "JSON.stringify({...document.body.dataset, deaf: 0, of: document.getElementById('of').textContent})"
CHANGED = f"(before) => before !== {SHOWN}"
BUTTONS = "#controls button"


def lead(visit: Visit, url: str, session: Session, width: int) -> Page:
    """The page of the host: on a phone if it is as narrow as one."""
    page = visit.page(size="phone" if width == 390 else "desktop", reduced_motion=True)
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{url}/host?code={session.code}#{session.token}")
    expect(page.locator("#start:visible, #resume:visible, #next:visible").first).to_be_visible()
    hears(page)
    return page


@contextmanager
def commands(page: Page) -> Iterator[list[str]]:
    """What the page tells the node to do."""
    told: list[str] = []

    def asked(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/host"):
            told.append(orjson.loads(request.post_data or "")["do"])

    page.on("request", asked)
    yield told
    page.evaluate("0")  # what came before it has been told
    page.remove_listener("request", asked)


def middle(button: Locator) -> tuple[float, float]:
    box = button.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def double(page: Page, button: Locator) -> None:
    page.mouse.dblclick(*middle(button))


def triple(page: Page, button: Locator) -> None:
    page.mouse.click(*middle(button), click_count=3, delay=10)


def two_taps(page: Page, button: Locator) -> None:
    """The second one as soon as the page shows what the first one did."""
    press = page.touchscreen.tap if page.evaluate("navigator.maxTouchPoints") else page.mouse.click
    before, place = page.evaluate(SHOWN), middle(button)
    press(*place)
    page.wait_for_function(CHANGED, arg=before, polling="raf")
    press(*place)


def held(key: str, page: Page, button: Locator) -> None:
    """Pressed until the page has changed, and on."""
    before = page.evaluate(SHOWN)
    button.focus()
    page.keyboard.down(key)
    for _ in range(3):
        page.keyboard.down(key)
    if key == "Enter":  # the space bar presses when it is let go
        page.wait_for_function(CHANGED, arg=before, polling="raf")
    for _ in range(3):
        page.keyboard.down(key)
    page.keyboard.up(key)


NERVOUS: Mapping[str, Callable[[Page, Locator], None]] = {
    "double": double,
    "triple": triple,
    "two taps": two_taps,
    "held Enter": partial(held, "Enter"),
    "held Space": partial(held, "Space"),
}

STEPS: Mapping[str, str] = {
    "ask": "approval",
    "lock": "lock",
    "start": "start",
    "pause": "pause",
    "resume": "resume",
    "close": "close",
    "next": "next",
    "skip": "skip",
}
"""Every button of a host in an order in which each is there in its turn, and the one step that it is for."""


# What strikes a place finds at each width what has moved there; a key does not depend on it.
@pytest.mark.parametrize(
    ("how", "width"),
    [
        *(("two taps", width) for width in WIDTHS),
        *(("triple", width) for width in WIDTHS),
        ("double", 390),
        ("held Enter", 1024),
        ("held Space", 1024),
    ],
)
async def test_no_button_of_a_host_takes_more_than_one_step(
    chromium: Chromium, shared_node: Node, how: str, width: int
) -> None:
    def play(session: Session, visit: Visit) -> None:
        visit.allow("status of 409")
        page = lead(visit, shared_node.url, session, width)
        for name, step in STEPS.items():
            button = page.locator(f"#{name}")
            place = middle(button)
            with commands(page) as told:
                NERVOUS[how](page, button)
                page.wait_for_function("() => true", polling="raf")
            expect(page.locator("#wrong")).to_be_empty()
            assert told == [step], name
            if name not in ("lock", "ask"):
                page.wait_for_function(
                    "(name) => !document.getElementById(name).checkVisibility() || name === 'skip'"
                    " || document.getElementById(name).ariaDisabled === 'true'",
                    arg=name,
                )
            hears(page)
            beneath = page.evaluate(IS_PRESSED, place)
            assert beneath in (None, name, {"pause": "resume", "resume": "pause"}.get(name)), (name, beneath)
        expect(page.locator("#of")).to_have_text("Question 2 of 5")
        assert page.locator("body").get_attribute("data-phase") == "reveal"

    types = ("single", "multiple", "true_false", "text", "numeric")
    async with opened(shared_node.url, *types, author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


@pytest.mark.parametrize("width", WIDTHS)
async def test_every_button_stays_in_its_place(chromium: Chromium, shared_node: Node, width: int) -> None:
    def places(page: Page) -> dict[str, list[int]]:
        """In whole pixels."""
        return {
            str(each.get_attribute("id")): [round(side) for side in (each.bounding_box() or {}).values()]
            for each in page.locator(BUTTONS).all()
            if each.is_visible()
        }

    def play(session: Session, visit: Visit) -> None:
        page = lead(visit, shared_node.url, session, width)
        known = places(page)
        assert set(known) == {"lock", "ask", "start"}
        for do, phase, there in (
            ("start", "question", {"lock", "ask", "pause", "skip", "close", "next"}),
            ("pause", "question", {"lock", "ask", "resume"}),
            ("resume", "question", {"lock", "ask", "pause", "skip", "close", "next"}),
            ("close", "reveal", {"lock", "ask", "skip", "next"}),
            ("next", "question", {"lock", "ask", "pause", "skip", "close", "next"}),
        ):
            visit.run(session.lead, do)
            expect(page.locator("body")).to_have_attribute("data-phase", phase)
            expect(page.locator("#resume")).to_be_visible(visible=do == "pause")
            now = places(page)
            assert set(now) == there
            for name, box in now.items():
                assert known.setdefault(name, box) == box, (do, name)
        assert known["start"] == known["next"]
        assert known["pause"] == known["resume"]
        apart = [known[each] for each in ("lock", "ask", "pause", "skip", "close", "next")]
        assert len({tuple(box[:2]) for box in apart}) == len(apart)
        screenshot(page, f"buttons-{width}")

    async with opened(shared_node.url, "single", "text", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


async def test_the_focus_rests_where_it_does_no_harm(chromium: Chromium, shared_node: Node) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = lead(visit, shared_node.url, session, 1024)
        expect(page.locator("#start")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("body")).to_have_attribute("data-phase", "question")
        expect(page.locator("#next")).to_be_focused()
        hears(page)
        with commands(page) as told:
            page.keyboard.press("Enter")  # which is for the time after the question
            page.keyboard.press("Space")
        assert told == []
        page.locator("#close").focus()
        hears(page)
        page.keyboard.press("Space")
        expect(page.locator("body")).to_have_attribute("data-phase", "reveal")
        expect(page.locator("#next")).to_be_focused()

    async with opened(shared_node.url, "single", "text", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


@pytest.mark.parametrize(("on", "back"), [("PageDown", "PageUp"), ("ArrowRight", "ArrowLeft"), ("n", "p")])
async def test_a_presenters_remote_leads_a_quiz(
    chromium: Chromium, shared_node: Node, on: str, back: str
) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = lead(visit, shared_node.url, session, 1024)
        body = page.locator("body")
        page.keyboard.press(on)
        expect(body).to_have_attribute("data-phase", "question")
        hears(page)
        with commands(page) as told:
            page.keyboard.press(on)
            page.keyboard.press(on)  # as soon again as nobody means it
        assert told == []
        expect(page.locator("#wrong")).to_contain_text("once more")
        hears(page)
        page.keyboard.press(back)
        expect(body).to_have_attribute("data-paused", "true")
        expect(page.locator("#wrong")).to_be_empty()
        hears(page)
        page.keyboard.press(on)
        expect(body).to_have_attribute("data-paused", "false")
        for _ in range(2):
            hears(page)
            page.keyboard.press(on)
        expect(body).to_have_attribute("data-phase", "reveal")
        hears(page)
        page.keyboard.press(on)
        expect(page.locator("#of")).to_have_text("Question 2 of 2")

    async with opened(shared_node.url, "single", "text", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))


KEYBOARDS: Mapping[str, tuple[str, str]] = {
    "AZERTY": ("é", "Digit2"),
    "Cyrillic": ("и", "KeyB"),
    "Greek": ("β", "KeyB"),
    "Arabic": ("٢", "Digit2"),
    "Dvorak": ("b", "KeyN"),
    "number pad": ("2", "Numpad2"),
}
"""What the key for the second choice writes, and where it is."""

PRESS = """([key, code]) => document.activeElement.dispatchEvent(
    new KeyboardEvent("keydown", {key, code, bubbles: true, cancelable: true}))"""


@pytest.mark.parametrize("keyboard", KEYBOARDS)
async def test_keys_choose_on_every_keyboard(chromium: Chromium, shared_node: Node, keyboard: str) -> None:
    def play(session: Session, visit: Visit) -> None:
        page = join(visit, shared_node.url, session.code, "Ada", size="desktop")
        leader = lead(visit, shared_node.url, session, 1024)
        leader.evaluate(PRESS, ["т", "KeyN"] if keyboard == "Cyrillic" else ["n", "KeyL"])
        expect(page.get_by_role("button", name="Lisbon")).to_be_enabled()
        page.evaluate(PRESS, list(KEYBOARDS[keyboard]))
        expect(page.locator(".choice.mine:visible, .bars .mine")).to_contain_text("Lisbon")
        expect(page.locator("body")).to_have_attribute("data-phase", re.compile("question|reveal"))

    async with opened(shared_node.url, "single", author_key=shared_node.author_key) as session:
        await chromium.run(partial(play, session))
