"""Who may come in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
import pytest

from server.config.config import Config
from server.realtime.handshake import (
    HUB_SUBPROTOCOL_REFUSED,
    NO_CONNECTION,
    NOT_FOUND,
    ORIGIN_REFUSED,
    OVERLOADED,
    SUBPROTOCOL_REFUSED,
    TWO_TOKENS,
    Admission,
    HubEntry,
    Rejection,
    Upgrade,
    judge,
)
from server.security.connection_tokens import random_connection_tokens

CONFIG = Config(proxy_hops=1, allowed_origins=("https://school.example",), public_url="https://play.example")


@pytest.mark.parametrize(
    ("upgrade", "verdict"),
    [
        (Upgrade("192.0.2.1", "/ws"), Admission("192.0.2.1", None)),
        (Upgrade("192.0.2.1", "/ws?from=poster"), Admission("192.0.2.1", None)),
        (Upgrade("192.0.2.1", "/ws", forwarded_for="203.0.113.9"), Admission("203.0.113.9", None)),
        (
            Upgrade("192.0.2.1", "/ws", subprotocols=("chat", "fanfare.v1")),
            Admission("192.0.2.1", "fanfare.v1"),
        ),
        (Upgrade("192.0.2.1", "/ws", origin="https://school.example"), Admission("192.0.2.1", None)),
        (Upgrade("192.0.2.1", "/ws", origin="https://play.example"), Admission("192.0.2.1", None)),
        (
            Upgrade("192.0.2.1", "/ws", "quiz.example", "https://quiz.example:5001"),
            Admission("192.0.2.1", None),
        ),
        (Upgrade("192.0.2.1", "/"), NOT_FOUND),
        (Upgrade("192.0.2.1", "/ws/"), NOT_FOUND),
        (Upgrade("192.0.2.1", "http://quiz.example/ws"), NOT_FOUND),
        (Upgrade("192.0.2.1", "/ws", "quiz.example", "https://evil.example"), ORIGIN_REFUSED),
        (Upgrade("192.0.2.1", "/ws", "quiz.example", "null"), ORIGIN_REFUSED),
        (Upgrade("192.0.2.1", "/ws", subprotocols=("fanfare.v2",)), SUBPROTOCOL_REFUSED),
    ],
)
def test_the_verdict(upgrade: Upgrade, verdict: Admission | Rejection) -> None:
    assert judge(upgrade, CONFIG) == verdict


def test_the_hub_speaks_no_subprotocol_and_takes_one_token() -> None:
    tokens = random_connection_tokens()

    def verdict(query: str = "", **more: Any) -> Admission | Rejection:
        return judge(Upgrade("192.0.2.1", f"/hub{query}", **more), CONFIG, (), tokens)

    assert verdict() == Admission("192.0.2.1", None, HubEntry(None))
    for asked in (("fanfare.v1",), ("chat", "json")):
        assert verdict(subprotocols=asked) == HUB_SUBPROTOCOL_REFUSED
    assert verdict("?access_token=a", authorization="Bearer a") == Admission("192.0.2.1", None, HubEntry("a"))
    assert verdict("?access_token=a", authorization="Bearer b") == TWO_TOKENS
    token = tokens.issue().connection_token
    assert verdict(f"?id={token}") == Admission("192.0.2.1", None, HubEntry(None, token))
    tokens.spend(token)
    assert verdict(f"?id={token}") == NO_CONNECTION


def test_a_rejection_is_a_whole_http_response_that_says_why() -> None:
    head, _, body = OVERLOADED.response("an-id").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert b"Connection: close" in lines
    assert b"Retry-After: 3" in lines
    assert b"X-Request-Id: an-id" in lines
    assert b"Content-Length: %d" % len(body) in lines
    assert orjson.loads(body)["error"] == {"code": "busy", "message": OVERLOADED.message}
    assert OVERLOADED.status is HTTPStatus.SERVICE_UNAVAILABLE
