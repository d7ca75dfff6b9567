"""`pysignalr`, a client of other people for Python: it speaks WebSockets alone, and follows a redirect
without negotiating again."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from tests.e2e.node import Node
from tests.signalr.clients import PATIENCE_S
from tests.web.leading import opened


@pytest.mark.parametrize("protocol", ["json", "messagepack"])
async def test_a_whole_quiz(node: Node, protocol: str) -> None:
    # JSON by the address of the API, which sends the clients on.
    url = f"{node.url}/hub" if protocol == "json" else f"http://127.0.0.1:{node.ports[1]}/hub"
    async with opened(node.url, "single", "single", author_key=node.author_key) as session:
        words = (url, session.code, session.token, protocol)
        with trio.fail_after(PATIENCE_S):
            played = await trio.run_process(
                [sys.executable, "-m", "tests.signalr.quiz", *words],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert played.returncode == 0, played.stdout.decode()
