"""What axe-core finds in a page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.web.chromium import settle

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def no_violations(page: Page) -> None:
    """Fails with a list of the rules that the page breaks as it is now: where, and what to do about it."""
    settle(page)
    found = Axe().run(page, options={"runOnly": TAGS, "resultTypes": ["violations"]}).response["violations"]
    lines = [
        f"{rule['id']} ({rule['impact']}) at {' '.join(map(str, node['target']))}: "
        + " ".join(node["failureSummary"].split())
        for rule in found
        for node in rule["nodes"]
    ]
    assert not lines, "\n".join([f"{page.url} is not accessible:", *lines])
