"""The programs that docs/clients.md shows play a question, whether they come before it or in its middle."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from fanfare_client import Connection, connect
from tests.clients.test_js import PATIENCE_S, switches
from tests.e2e.node import Node
from tests.npm import ROOT, program
from tests.web.leading import opened


def shown(language: str) -> str:
    page = (ROOT / "docs" / "clients.md").read_text()
    return page.partition(f"```{language}\n")[2].partition("```")[0]


async def lead(host: Connection, started: bool) -> None:
    """Start with the first player, and end the session after its only question."""
    async for message in host:
        if message["t"] == "roster" and message["joined"] and not started:
            await host.host("start")
        elif message["t"] == "reveal":
            await host.host("next")
        elif message["t"] == "finished":
            return


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("language", ["js", "python"])
async def test_the_program_of_the_documentation_plays(
    project: Path, client_node: Node, language: str, started: bool
) -> None:
    async with opened(client_node.url, "single", author_key=client_node.author_key) as session:
        text = shown(language).replace("http://localhost:5001", client_node.url)
        script = project / "tests" / ("shown.mjs" if language == "js" else "shown.py")
        script.write_text(text.replace("123456", session.code))
        command = [program("node"), *switches("websocket")] if language == "js" else [sys.executable]
        with trio.fail_after(PATIENCE_S):
            async with connect(client_node.url, session.code, token=session.token) as host:
                if started:
                    await host.host("start")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lead, host, started)
                    done = await trio.run_process([*command, script], capture_stdout=True)
        assert await session.answers("Ada") == 1
    assert ("the end: left" if language == "js" else "'rank': 1") in done.stdout.decode()
