"""The hub by the clients of others: `@microsoft/signalr` in Node, the newest that was tried."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from server.realtime.reactor.transport import ReactorTransport
from server.realtime.trio_websocket import TrioWebSocketTransport
from tests.npm import npm, program
from tests.realtime.rig import MakeTransport, Rig, rig

VERSION = "10.0.11"
PACKAGES = (f"@microsoft/signalr@{VERSION}", f"@microsoft/signalr-protocol-msgpack@{VERSION}")
SCRIPTS = Path(__file__).parent.parent / "signalr"
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def signalr_dir() -> Path:
    """Where Node finds the client. npm installs it once for all runs, at exactly this version."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(home) / "fanfare-tests" / f"signalr-{VERSION}"
    if not (directory / "installed").exists():
        directory.mkdir(parents=True, exist_ok=True)
        npm("install", "--prefix", str(directory), "--save-exact", *PACKAGES, cwd=directory)
        (directory / "installed").touch()
    return directory


async def run(script: str, signalr_dir: Path, *arguments: str) -> dict[str, Any]:
    """What a script prints."""
    with trio.fail_after(PATIENCE_S):
        done = await trio.run_process(
            [program("node"), str(SCRIPTS / script), *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "SIGNALR_DIR": str(signalr_dir)},
        )
    assert done.returncode == 0, done.stderr.decode()
    heard = json.loads(done.stdout)
    assert isinstance(heard, dict)
    return heard


def hub_url(node: Rig) -> str:
    return f"http://127.0.0.1:{node.port}/hub"


@pytest.mark.parametrize(
    ("make", "transport", "protocol"),
    [
        (ReactorTransport, "WebSockets", "json"),
        (ReactorTransport, "WebSockets", "messagepack"),
        (ReactorTransport, "ServerSentEvents", "json"),
        (ReactorTransport, "LongPolling", "json"),
        (ReactorTransport, "LongPolling", "messagepack"),
        (TrioWebSocketTransport, "skipNegotiation", "json"),
    ],
)
async def test_a_whole_quiz(make: MakeTransport, transport: str, protocol: str, signalr_dir: Path) -> None:
    async with rig(make, patience_s=PATIENCE_S) as node:
        token = node.host_token()
        heard = await run("quiz.mjs", signalr_dir, hub_url(node), node.code, token, transport, protocol)
        assert (heard["host"], heard["screen"], heard["players"]) == ("host", "spectator", [1, 2, 3])
        assert "wrong_question: " in heard["refused"]
        assert "unknown_type: Jump" in heard["unknown"]
        assert "unknown_type: This hub has no streams." in heard["stream"]
        assert heard["acks"] == ["accepted", "duplicate"] * 3
        assert heard["results"] == [True, False, True] * 3
        assert heard["podium"][2] == "Ben"
        assert sorted(heard["ranks"]) == [1, 2, 3] or heard["ranks"][1] == 3
        assert (heard["left"], heard["errors"]) == (None, [])
        assert node.statistics.closed_total.get("failed") is None
