"""Who may do what: authors, addresses behind proxies, web origins."""

from __future__ import annotations

import pytest

from tests.http.edge import OUTSIDE, QUIZ, Edge, Reply, edge
from tests.http.test_cluster_api import FakeCluster, member

AUTHORING = [
    ("POST", "/api/quizzes", QUIZ),
    ("GET", "/api/quizzes/caps", None),
    ("POST", "/api/sessions", {"quiz_id": "caps"}),
    ("GET", "/api/sessions", None),
]


async def author(e: Edge, **more: object) -> list[Reply]:
    return [await e.call(method, path, body, **more) for method, path, body in AUTHORING]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (OUTSIDE, {}),
        (None, {}),
        (("127.0.0.1", 50_000), {}),
        (("127.0.0.1", 50_000), {"Host": "localhost:5001", "Origin": "http://localhost:5001"}),
        (("::1", 50_000), {"Host": "[::1]:5001"}),
        (("127.0.0.1", 50_000), {"X-Forwarded-For": "127.0.0.1"}),
    ],
)
async def test_no_address_and_no_header_makes_an_author(
    peer: tuple[str, int] | None, headers: dict[str, str]
) -> None:
    """A forwarder on the node's own machine makes everybody's requests look like that."""
    async with edge() as e:
        for reply in await author(e, peer=peer, headers=headers):
            assert (reply.status, reply.error) == (401, "token_missing")
        for reply in await author(e, peer=peer, headers=headers, token=e.author_key):
            assert reply.status in (200, 201, 404)


async def test_with_a_key_only_its_bearer_writes_from_wherever() -> None:
    async with edge(author_key="the-author-key") as e:
        for reply in await author(e):
            assert (reply.status, reply.error) == (401, "token_missing")
        for reply in await author(e, token="the-author-kez"):
            assert (reply.status, reply.error) == (401, "token_invalid")
        for reply in await author(e, token="the-author-key", peer=OUTSIDE):
            assert reply.status in (200, 201, 404)
        basic = await e.get("/api/sessions", headers={"Authorization": "Basic the-author-key"})
        assert basic.error == "token_missing"


async def test_guessing_the_key_is_stopped() -> None:
    async with edge(author_key="the-author-key", attempts_per_min=2) as e:
        codes = [(await e.get("/api/sessions", token=f"guess{n}")).error for n in range(3)]
        assert codes == ["token_invalid", "token_invalid", "too_many_attempts"]
        assert (await e.get("/api/sessions", token="the-author-key")).error == "too_many_attempts"
        assert (await e.get("/api/sessions", token="the-author-key", peer=OUTSIDE)).status == 200


async def test_failures_count_against_the_client_behind_the_proxy() -> None:
    async with edge(proxy_hops=1, attempts_per_min=1) as e:
        guesser = {"X-Forwarded-For": "127.0.0.1, 203.0.113.9"}
        other = {"X-Forwarded-For": "203.0.113.10"}
        assert (await e.get("/api/sessions/999999", headers=guesser)).status == 404
        assert (await e.get("/api/sessions/999999", headers=guesser)).status == 429
        assert (await e.get("/api/sessions/999999", headers=other)).status == 404


async def test_without_proxies_nobody_can_put_failures_on_another_address() -> None:
    async with edge(attempts_per_min=1) as e:
        for n in range(2):
            reply = await e.get("/api/sessions/999999", headers={"X-Forwarded-For": f"203.0.113.{n}"})
        assert reply.status == 429


CHANGING = [
    ("POST", "/api/quizzes", QUIZ),
    ("POST", "/api/sessions", {"quiz_id": "caps"}),
    ("POST", "/api/sessions/000002/players", {"name": "Ada"}),
    ("POST", "/api/sessions/000002/answers", {"id": "a", "question": 1, "choice": 0}),
    ("POST", "/api/sessions/000002/host", {"do": "start"}),
]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:3000", "x"],
)
async def test_pages_of_foreign_origins_change_nothing(origin: str) -> None:
    async with edge() as e:
        session = await e.session()
        assert session.code == "000002"
        for method, path, body in CHANGING:
            refused = await e.call(method, path, body, headers={"Origin": origin}, token=session.host_token)
            assert (refused.status, refused.error) == (403, "origin_refused")
        assert (await session.actor()).session.active == 0
        read = await e.get("/api/quizzes", headers={"Origin": origin})
        assert read.status == 200
        assert "Access-Control-Allow-Origin" not in read.headers


@pytest.mark.parametrize(
    ("origin", "config"),
    [
        ("http://localhost", {}),
        ("https://localhost", {}),
        ("http://localhost:5001", {}),
        ("https://play.example", {"allowed_origins": ("https://play.example",)}),
        ("https://quiz.example", {"public_url": "https://quiz.example"}),
    ],
)
async def test_pages_of_our_own_and_allowed_origins_may(origin: str, config: dict[str, object]) -> None:
    async with edge(**config) as e:
        session = await e.session()
        joined = await e.post(f"{session.url}/players", {"name": "Ada"}, headers={"Origin": origin})
        assert joined.status == 201
        assert joined.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in joined.headers["Vary"]
        error = await e.get("/api/sessions/999999", headers={"Origin": origin})
        assert error.headers["Access-Control-Allow-Origin"] == origin


async def test_pages_of_other_nodes_may_as_long_as_they_live() -> None:
    async with edge() as e:
        cluster = FakeCluster(member("a", http_url="http://a.example:5001"), member("b", http_url=""))
        e.but(cluster=cluster)
        session = await e.session()
        page = {"Origin": "http://a.example:5001"}
        joined = await e.post(f"{session.url}/players", {"name": "Ada"}, headers=page)
        assert joined.status == 201
        assert joined.headers["Access-Control-Allow-Origin"] == page["Origin"]
        del cluster.members[0]
        gone = await e.post(f"{session.url}/players", {"name": "Ben"}, headers=page)
        assert (gone.status, gone.error) == (403, "origin_refused")


async def test_preflights() -> None:
    async with edge(allowed_origins=("https://play.example",)) as e:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        url = "/api/sessions/000002/answers"
        granted = await e.call("OPTIONS", url, headers=asked | {"Origin": "https://play.example"})
        assert granted.status == 204
        assert granted.headers["Access-Control-Allow-Origin"] == "https://play.example"
        assert "POST" in granted.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in granted.headers["Access-Control-Allow-Headers"]
        refused = await e.call("OPTIONS", url, headers=asked | {"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in refused.headers
        plain = await e.call("OPTIONS", url)
        assert plain.status == 405


async def test_a_client_of_signalr_is_sent_to_the_realtime_port() -> None:
    async with edge(allowed_origins=("https://play.example",)) as e:
        page = {"Origin": "https://play.example"}
        asked = page | {"Access-Control-Request-Method": "POST"}
        granted = await e.call("OPTIONS", "/hub/negotiate?negotiateVersion=1", headers=asked)
        assert granted.status == 204
        allowed = set(granted.headers["Access-Control-Allow-Headers"].split(", "))
        assert allowed >= {"X-SignalR-User-Agent", "X-Requested-With", "X-Request-Id", "Traceparent"}
        reply = await e.call("POST", "/hub/negotiate?negotiateVersion=1", headers=page)
        for answer in (granted, reply):
            assert answer.headers["Access-Control-Allow-Origin"] == "https://play.example"
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        ws_url = (await e.get("/healthz")).json["ws_url"]
        url = ws_url.replace("ws://", "http://").replace("/ws", "/hub")
        assert reply.json == {"url": url, "accessToken": "anonymous"}
        shown = await e.call("POST", "/hub/negotiate", headers={"Authorization": "Bearer mine"})
        assert shown.json == {"url": url, "accessToken": "mine"}
        e.but(ws_url="")
        assert (await e.call("POST", "/hub/negotiate")).error == "busy"
