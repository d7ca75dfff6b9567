"""A page can be looked at in every moment of a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from playwright.sync_api import Page

from loadtest.client.api import Api
from tests.e2e.node import Node
from tests.web.chromium import Chromium
from tests.web.screenshots import MOMENTS, Scene, View, shoot


async def test_pictures_are_taken_of_each_moment(
    chromium: Chromium, shared_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCREENSHOTS", str(tmp_path))
    seen = []

    def show(page: Page, scene: Scene) -> None:
        page.goto(scene.url)
        asked = "async (code) => (await fetch(`/api/sessions/${code}`)).json()"
        state = page.evaluate(asked, scene.code)["state"]
        question = state["question"] and state["question"]["type"].replace("_", "-")
        seen.append(question if state["phase"] == "question" else state["phase"])
        assert seen[-1] == scene.moment

    views = [View("session", show, sizes=["phone"], schemes=["dark"])]
    async with Api(shared_node.url, author_key=shared_node.author_key) as api:
        await shoot(shared_node, api, chromium, views)
    assert seen == [moment for moment, _ in MOMENTS]
    taken = {picture.name for picture in await trio.Path(tmp_path).iterdir()}
    assert taken == {f"session-{moment}-phone-dark.png" for moment in seen}
