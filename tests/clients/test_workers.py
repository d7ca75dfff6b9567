"""The JavaScript client plays in a worker: of a browser, where there is no page, and of Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio
from playwright.sync_api import Page

from tests.clients.test_js import PATIENCE_S, WAYS, switches
from tests.e2e.node import Node
from tests.npm import program
from tests.web.chromium import Chromium, Visit
from tests.web.leading import Session, opened

SCRIPTS = Path(__file__).parent
PLAYED = ("joined", "question", "ack", "reveal", "result", "finished", "end")

START = """address => {
  globalThis.heard = [];
  new Worker(address, { type: "module" }).onmessage = ({ data }) => heard.push(data);
}"""


@pytest.mark.parametrize("way", WAYS)
async def test_a_player_plays_in_a_worker_of_node(project: Path, client_node: Node, way: str) -> None:
    for script in ("worker.mjs", "threads.mjs"):
        shutil.copy(SCRIPTS / script, project / "tests")
    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        words = [program("node"), *switches(way), "tests/threads.mjs", client_node.url, session.code, "Ada"]
        process = await trio.lowlevel.open_process(words, cwd=project, stdout=subprocess.PIPE)
        assert process.stdout is not None
        heard, rest = [], b""
        with trio.fail_after(PATIENCE_S):
            async for data in process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    heard.append(json.loads(line)["t"])
                    if heard[-1] == "joined":
                        await session.lead("start")
                    elif heard[-1] == "result":
                        await session.lead("next")
            assert await process.wait() == 0
        assert set(PLAYED) <= set(heard)
        assert await session.answers("Ada") == 1


async def test_a_player_plays_in_a_worker_of_a_browser(
    project: Path, chromium: Chromium, client_node: Node, app: tuple[str, Path]
) -> None:
    shutil.copy(SCRIPTS / "worker.mjs", project / "tests")

    def until(page: Page, kind: str) -> None:
        page.wait_for_function("kind => heard.some(({ t }) => t === kind)", arg=kind)

    def play(session: Session, visit: Visit) -> None:
        page = visit.page()
        page.goto(f"{app[0]}/board.html?node={client_node.url}&code={session.code}")
        query = urlencode({"url": client_node.url, "code": session.code, "name": "Ada"})
        page.evaluate(START, f"/tests/worker.mjs?{query}")
        until(page, "joined")
        visit.run(session.lead, "start")
        until(page, "result")
        visit.run(session.lead, "next")
        until(page, "end")
        heard = page.evaluate("heard.map(({ t }) => t)")
        assert set(PLAYED) <= set(heard)

    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        await chromium.run(partial(play, session))
        assert await session.answers("Ada") == 1
