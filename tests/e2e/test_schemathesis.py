"""What `openapi.json` says, held against a real node by requests made from it, good ones and bad ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.e2e.node import running_node
from tests.http.edge import QUIZ
from tests.settings import AT_ONCE


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """As in test_node.py."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        yield Path(path) / "data"


async def test_a_node_does_what_its_document_says(data_dir: Path) -> None:
    # Its import takes a second, and every process of a run of tests reads this file.
    from tests.e2e.exploring import Scene, explore

    limits = ("--attempts-per-min", "1000000", "--messages-per-s", "100000", "--messages-burst", "100000")
    async with running_node(data_dir, *limits) as (node, api):
        await api.add_quiz(QUIZ, "capitals")
        over = await api.create_session("capitals", AT_ONCE)
        await api.host(over["code"], over["host_token"], "h1", "finish")
        made = await api.create_session("capitals", AT_ONCE)
        ada = await api.join(made["code"], "Ada")
        await api.start(made["code"], made["host_token"])
        tokens = {
            "authorKey": node.author_key,
            "hostToken": made["host_token"],
            "playerToken": ada["token"],
        }
        scene = Scene(made["code"], over["code"], tokens)
        play_url = node.ws_url.replace("ws://", "http://").removesuffix("/ws")
        asked = await trio.to_thread.run_sync(explore, scene, node.url, play_url)
        assert len([each for each in asked if each.endswith("realtime")]) == 6
        assert node.process is not None
        assert node.process.poll() is None
        await node.stop()
        assert "Traceback" not in node.said, node.said
