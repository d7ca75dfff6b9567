"""What must hold for whoever looks at a page: what axe-core finds, and whether all of it can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.web.chromium import settle

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OF_COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that can be broken in the dark alone: a test sees to it that the styles for it are of colours."""

NARROW = (320, 568)
WIDE = (3840, 2160)
PROJECTORS = ((1280, 720), (1920, 1080), WIDE)


def no_violations(page: Page) -> None:
    """Fails with a list of the rules that the page breaks as it is now, in light or in dark: where, and what
    to do about it."""
    lines: list[str] = []
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    for scheme, rules in (("light", TAGS), ("dark", OF_COLOURS)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of those that it takes
        settle(page)
        options = {"runOnly": rules, "resultTypes": ["violations"]}
        found = page.evaluate("async (options) => (await axe.run(options)).violations", options)
        lines += [
            f"{scheme}: {rule['id']} ({rule['impact']}) at {' '.join(map(str, node['target']))}: "
            + " ".join(node["failureSummary"].split())
            for rule in found
            for node in rule["nodes"]
        ]
    assert not lines, "\n".join([f"{page.url} is not accessible:", *lines])


def fits(page: Page) -> None:
    """Fails if something is to be reached by scrolling sideways only, on the narrowest phone or on a wall."""
    for size in (NARROW, WIDE):
        with _of_size(page, size):
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], f"{page.url} at {size}"


def is_seen_whole(page: Page) -> None:
    """Fails if a page for a projector has to be scrolled."""
    for size in PROJECTORS:
        with _of_size(page, size):
            needed = page.evaluate(
                "[document.documentElement, document.querySelector('main:not([hidden])')]"
                ".map((part) => part.scrollHeight - part.clientHeight)"
            )
            assert max(needed) <= 0, f"{page.url} at {size}"


@contextmanager
def _of_size(page: Page, size: tuple[int, int]) -> Iterator[None]:
    before = page.viewport_size
    assert before is not None
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    yield
    page.set_viewport_size(before)
