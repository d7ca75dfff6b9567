"""Whatever JSON comes in, the answer is described, and never a crash."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.edge import QUIZ, edge

FIELDS = st.sampled_from(
    [
        "id",
        "question",
        "choice",
        "name",
        "do",
        "on",
        "player",
        "t",
        "quiz_id",
        "quiz_version",
        "pace",
        "player_limit",
        "reveal_ms",
        "lobby_ms",
        "early_close",
        "title",
        "questions",
        "scoring",
        "type",
        "text",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    | st.sampled_from(["capitals", "start", "kick", "lock", "host", "auto", "a", ""])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(FIELDS, JSON, max_size=5) | JSON


@settings(max_examples=60, deadline=None)
@given(body=BODIES, good=st.dictionaries(FIELDS, JSON, max_size=2))
async def test_no_body_crashes_a_route(body: Any, good: dict[str, Any]) -> None:
    async with edge(attempts_per_min=1_000_000) as e:
        await e.post("/api/quizzes?id=capitals", QUIZ)
        session = await e.session()
        ada = await session.join("Ada")
        for path, token, whole in (
            ("/api/quizzes", None, QUIZ),
            ("/api/sessions", None, {"quiz_id": "capitals"}),
            (f"{session.url}/players", None, {"name": "Ben"}),
            (f"{session.url}/answers", ada["token"], {"id": "a", "question": 1, "choice": 0}),
            (f"{session.url}/host", session.host_token, {"do": "lock", "on": True}),
        ):
            for sent in (body, whole | good):
                reply = await e.post(path, sent, token=token)
                assert reply.status < 500, (path, sent, reply.body)


@settings(max_examples=60, deadline=None)
@given(
    path=st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    query=st.dictionaries(
        st.sampled_from(["top", "around", "version", "limit", "id", "token"]), st.text(max_size=8)
    ),
    token=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
)
async def test_no_address_crashes_a_route(path: str, query: dict[str, str], token: str) -> None:
    asked = urlencode(query)
    # The client of the tests takes what follows two slashes for the name of a host.
    inside = quote(path.lstrip("/"))
    async with edge(attempts_per_min=1_000_000) as e:
        session = await e.session()
        for address in (
            f"/{inside}",
            f"/api/quizzes/{quote(path, safe='')}",
            f"/api/sessions/{quote(path, safe='')}",
            f"{session.url}/leaderboard",
            f"{session.url}/results.csv",
            "/api/quizzes",
            "/api/sessions",
        ):
            reply = await e.get(f"{address}?{asked}", token=token)
            assert reply.status < 500, (address, asked, reply.body)
