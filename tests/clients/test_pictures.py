"""The pages of host and player, and one with Microsoft's client of SignalR, in one session in Chromium."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.clients.pictures import MOMENTS, bring_client, take
from tests.e2e.node import Node
from tests.npm import ROOT
from tests.web.chromium import Chromium
from tests.web.leading import opened


async def test_they_play_one_session(
    project: Path, chromium: Chromium, client_node: Node, app: tuple[str, Path], tmp_path: Path
) -> None:
    bring_client(project)
    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        await chromium.run(partial(take, tmp_path, client_node.url, app[0], session))
        assert await session.answers("Ada") == await session.answers("Bob") == 1
    assert all((tmp_path / f"one-session-{moment}.png").stat().st_size for moment in MOMENTS)


def test_the_documentation_shows_every_moment() -> None:
    page = (ROOT / "docs" / "signalr.md").read_text()
    assert [moment for moment in MOMENTS if f"(img/one-session-{moment}.png)" not in page] == []
    assert all((ROOT / "docs" / "img" / f"one-session-{moment}.png").exists() for moment in MOMENTS)
