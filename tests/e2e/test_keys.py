"""Whatever a client writes where a session's code or id belongs, over every door of a real node: it hears
that there is no such session, and nobody else notices."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
import trio
from trio_websocket import open_websocket_url

from engine.actors.clock import SessionClock
from server.security.tokens import Tokens
from tests.e2e.node import PATIENCE_S, Node, running_node
from tests.e2e.test_node import QUIZ
from tests.keys import NOT_QUITE, session_id

SECRET = "a-secret-of-sixteen"
READS = ("", "/leaderboard", "/events", "/results", "/results.csv", "/players")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """As in test_node.py."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        yield Path(path) / "data"


async def asked(port: int, method: str, path: str, token: str | None = None, body: bytes = b"") -> int:
    """The status of the answer to one request, whose address is sent as it is."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    if token is not None:
        head += f"Authorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    said = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(head.encode() + b"\r\n" + body)
        while b"\r\n" not in said:
            data = await stream.receive_some()
            assert data, (port, method, path)
            said += data
    return int(said.split()[1])


async def told(node: Node, message: dict[str, object]) -> str:
    """The code of the error that a message over a new WebSocket is answered with."""
    async with open_websocket_url(node.ws_url) as websocket:
        await websocket.send_message(orjson.dumps(message).decode())
        answer = orjson.loads(await websocket.get_message())
    return str(answer["code"])


def keys(rng: random.Random) -> set[str]:
    """What is no key, and keys that nobody has, with a character changed here and there."""
    made = set(NOT_QUITE)
    for _ in range(20):
        key = list(rng.choice((session_id(rng.randrange(1 << 32)), f"{rng.randrange(10**6):06}")))
        for _ in range(rng.randrange(4)):
            key[rng.randrange(len(key))] = rng.choice("_-0aAf{}%/ \u0663\uff15\n")
        made.add("".join(key))
    return made


async def test_no_key_of_a_session_harms_a_node(data_dir: Path) -> None:
    limits = ("--attempts-per-min", "1000000", "--secret", SECRET)
    async with running_node(data_dir, *limits) as (node, api):
        await api.add_quiz(QUIZ, "all-five")
        there = await api.create_session("all-five", {})
        http_port, realtime_port = node.ports
        tokens = Tokens(SECRET.encode(), 3600, SessionClock())
        answer = orjson.dumps({"id": "a", "question": 1, "choice": 0})
        with trio.fail_after(4 * PATIENCE_S):
            for key in keys(random.Random(1)) - {there["code"], there["session_id"]}:
                where = f"/api/sessions/{quote(key, safe='')}"
                forged = tokens.issue(key, "player", 1), tokens.issue(key, "host", None)
                for path in READS:
                    assert await asked(http_port, "GET", where + path) in (401, 404), key
                assert await asked(realtime_port, "GET", where + "/events") == 404, key
                for token in forged:
                    good = f"/api/sessions/{there['code']}"
                    for port in node.ports:
                        assert await asked(port, "GET", f"{good}/events", token) == 404, key
                        assert await asked(port, "POST", f"{good}/answers", token, answer) in (403, 404), key
                    rejoin = {"t": "join", "code": there["code"], "token": token}
                    assert await told(node, rejoin) == "session_not_found", key
                watch = {"t": "join", "code": key, "role": "spectator"}
                assert await told(node, watch) in ("bad_field", "session_not_found"), key
        assert (await api.join(there["code"], "Ada"))["player_id"] == 1, "the neighbour plays on"
        assert node.process is not None
        assert node.process.poll() is None
        await node.stop()
        assert "Traceback" not in node.said, node.said
