"""Pictures of one session in three pages: a host's, a player's, and one with Microsoft's client of SignalR.

`python -m tests.clients.pictures docs/img` makes those of the documentation: `one-session-MOMENT.png`.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio
from playwright.sync_api import Page, expect

from tests.e2e.node import running_node
from tests.npm import ROOT
from tests.signalr.clients import library
from tests.web.chromium import Chromium, Visit
from tests.web.install_chromium import executable, missing
from tests.web.leading import Session, opened

HEIGHT = 600
MOMENTS = ("lobby", "question", "reveal", "finish")


def bring_client(folder: Path) -> None:
    """Microsoft's client, to where the page looks for it."""
    (folder / "node_modules" / "@microsoft").symlink_to(library() / "node_modules" / "@microsoft")


@contextmanager
def app(folder: Path) -> Iterator[str]:
    """The address of an app's backend, with the page that has Microsoft's client."""
    shutil.copy(ROOT / "examples" / "web" / "signalr.html", folder)
    (folder / "node_modules").mkdir()
    bring_client(folder)
    command = [sys.executable, ROOT / "examples" / "backend" / "backend.py", "0", folder, folder / "keys"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def take(directory: Path, node_url: str, app_url: str, session: Session, visit: Visit) -> None:
    """Play a question, and take a picture of each moment into the directory."""
    host, player, other = visit.page(size="desktop"), visit.page(), visit.page()
    for page, width in ((host, 640), (player, 360), (other, 360)):
        page.set_viewport_size({"width": width, "height": HEIGHT})
    host.goto(f"{node_url}/host?code={session.code}#{session.token}")
    player.goto(f"{node_url}/?code={session.code}")
    expect(player.locator("#told")).not_to_be_empty()
    player.locator("#name").fill("Ada")
    player.locator("#join button").click()
    other.goto(f"{app_url}/signalr.html?node={node_url}&code={session.code}")
    other.get_by_label("Your name").fill("Bob")
    other.get_by_role("button", name="Join").click()
    expect(other.get_by_role("heading")).to_have_text("Bob")
    expect(host.get_by_text("Ada", exact=True).first).to_be_visible()
    expect(host.get_by_text("Bob", exact=True).first).to_be_visible()
    picture(directory, "lobby", visit, host, player, other)

    visit.run(session.lead, "start")
    player.get_by_role("button", name="Lisbon").click()
    expect(player.locator(".state")).to_have_text("Saved")
    expect(other.get_by_role("button", name="Porto")).to_be_enabled()
    expect(host.locator("body")).to_have_attribute("data-phase", "question")
    expect(host.get_by_text("1 of 2").first).to_be_visible()
    picture(directory, "question", visit, host, player, other)

    other.get_by_role("button", name="Porto").click()
    expect(other.get_by_role("status")).to_contain_text("Not right: 0 points, place 2")
    for page in (host, player):
        expect(page.locator("body")).to_have_attribute("data-phase", "reveal")
    picture(directory, "reveal", visit, host, player, other)

    visit.run(session.lead, "next")
    expect(other.get_by_role("status")).to_contain_text("The end: place 2")
    for page in (host, player):
        expect(page.locator("body")).to_have_attribute("data-phase", "finished")
    expect(host.get_by_role("row")).to_have_count(3)
    picture(directory, "finish", visit, host, player, other)


def picture(directory: Path, moment: str, visit: Visit, *pages: Page) -> None:
    """The pages side by side."""
    shots = [base64.b64encode(page.screenshot(scale="css")).decode() for page in pages]
    images = "".join(f'<img src="data:image/png;base64,{shot}">' for shot in shots)
    both = visit.page(size="desktop")
    style = "display: inline-flex; gap: 8px; padding: 8px; margin: 0; background: #888"
    both.set_content(f'<body style="{style}">{images}</body>')
    both.locator("body").screenshot(path=directory / f"one-session-{moment}.png")
    both.close()


async def main(directory: Path, browser: str) -> None:
    chromium = Chromium(browser)
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path, app(Path(path)) as app_url:
        try:
            data, options = Path(path) / "data", ("--no-samples", "--allowed-origins", app_url)
            async with (
                running_node(data, *options) as (node, _),
                opened(node.url, "single", author_key=node.author_key) as session,
            ):
                await chromium.run(partial(take, directory, node.url, app_url, session))
        finally:
            chromium.close()


if __name__ == "__main__":
    found = executable()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.clients.pictures DIR")
    if found is None:
        sys.exit(missing())
    trio.run(main, Path(sys.argv[1]), found)
