"""Whole quizzes by Microsoft's client, on either transport of a node."""

from __future__ import annotations

import pytest

from server.realtime.reactor.transport import ReactorTransport
from server.realtime.trio_websocket import TrioWebSocketTransport
from tests.realtime.rig import MakeTransport, rig
from tests.signalr.clients import PATIENCE_S, WAYS, run


@pytest.mark.parametrize(
    ("make", "transport", "protocol"),
    [
        *((ReactorTransport, *way) for way in WAYS),
        (TrioWebSocketTransport, "skipNegotiation", "json"),
    ],
)
async def test_a_whole_quiz(make: MakeTransport, transport: str, protocol: str) -> None:
    async with rig(make, patience_s=PATIENCE_S) as node:
        url, token = f"http://127.0.0.1:{node.port}/hub", node.host_token()
        heard = await run("quiz.mjs", url, node.code, token, transport, protocol)
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
