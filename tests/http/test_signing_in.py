"""Authors sign in at a provider, and see and change what is theirs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc.jwk import ECKey
from trio.testing import MockClock

from server.security.provider import Provider
from server.security.sign_in import LONGEST_S, WAITING_S, SignIn
from tests.http.edge import QUIZ, Edge, Reply, edge
from tests.http.provider import CLIENT_ID, CLIENT_SECRET, ISSUER, FakeProvider
from tests.settings import AT_ONCE

KEY = "the-author-key"
SECRET = b"0123456789abcdef"
HERE = {"Host": "quiz.example", "Origin": "https://quiz.example"}


class SigningIn:
    """An edge and the provider at which its authors sign in."""

    def __init__(self, e: Edge) -> None:
        self.edge = e
        self.provider = FakeProvider(e.clock.now_ms)
        e.but(sign_in=self.made(SECRET))

    def made(self, secret: bytes) -> SignIn:
        e = self.edge
        provider = Provider(ISSUER, CLIENT_ID, CLIENT_SECRET, e.clock.now_ms, self.provider.transport)
        return SignIn(e.config, provider, secret, e.clock)

    async def start(self, query: str = "") -> tuple[str, str]:
        """Where the browser is sent to, and its cookie."""
        reply = await self.edge.get(f"/login{query}")
        assert reply.status == 302
        return reply.headers["Location"], cookie_of(reply)

    async def back(self, code: str, state: str, cookie: str) -> Reply:
        reply = await self.edge.get(f"/login/back?code={code}&state={state}", headers={"Cookie": cookie})
        assert reply.status == 302
        return reply

    async def sign_in(self, sub: str, query: str = "", **claims: Any) -> Reply:
        address, cookie = await self.start(query)
        claims = {"roles": ["author"], "name": sub.title(), **claims}
        return await self.back(*self.provider.authorize(address, sub, **claims), cookie)

    async def author(self, sub: str, **claims: Any) -> dict[str, str]:
        """The headers of somebody's page once signed in."""
        reply = await self.sign_in(sub, **claims)
        assert reply.headers["Location"] == "/author"
        return {**HERE, "Cookie": cookie_of(reply)}

    async def me(self, headers: dict[str, str]) -> Any:
        return (await self.edge.get("/api/me", headers=headers)).json["user_id"]


def cookies(reply: Reply) -> list[str]:
    return reply.headers.getlist("Set-Cookie")  # type: ignore[attr-defined]  # as quart has them


def cookie_of(reply: Reply) -> str:
    """What a browser would send from then on."""
    [kept] = [each for each in cookies(reply) if "Max-Age=0" not in each]
    return kept.partition(";")[0]


def why(reply: Reply) -> str:
    found = re.fullmatch(r"/login/failed\?why=(\w+)", reply.headers["Location"])
    assert found, reply.headers["Location"]
    assert all("Max-Age=0" in each for each in cookies(reply)), "nobody is signed in"
    return found[1]


@asynccontextmanager
async def signing_in(**config: Any) -> AsyncIterator[SigningIn]:
    given = {
        "author_key": KEY,
        "public_url": "https://quiz.example",
        "oidc_issuer": ISSUER,
        "oidc_client_id": CLIENT_ID,
        **config,
    }
    async with edge(**given) as e:
        yield SigningIn(e)


async def test_an_author_signs_in_writes_opens_and_signs_out() -> None:
    async with signing_in() as s:
        e = s.edge
        reply = await s.sign_in("ada", "?to=/host%3Fquiz=caps")
        assert reply.headers["Location"] == "/host?quiz=caps"
        [gone, kept] = sorted(cookies(reply), key=len)
        assert "Max-Age=0" in gone
        for needed in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=3600"):
            assert needed in kept.split("; ")
        ada = {**HERE, "Cookie": cookie_of(reply)}
        shown = await e.get("/api/me", headers=ada)
        assert shown.json == {"sign_in": True, "user_id": "ada", "name": "Ada", "admin": False}
        assert (await e.post("/api/quizzes?id=caps", QUIZ, headers=ada)).status == 201
        assert (await e.post("/api/sessions", {"quiz_id": "caps", **AT_ONCE}, headers=ada)).status == 201
        for what in ("quizzes", "sessions"):
            listed = (await e.get(f"/api/{what}?owner=me", headers=ada)).json[what]
            assert [each["owner_id"] for each in listed] == ["ada"]
        out = await e.post("/logout", headers=ada)
        assert "Max-Age=0" in cookies(out)[0]
        assert await s.me(HERE) is None
        assert (await e.get("/api/quizzes", headers=HERE)).error == "token_missing"


async def test_scores_of_users_are_for_admins_and_not_for_every_author() -> None:
    async with signing_in() as s:
        ada, eve = await s.author("ada"), await s.author("eve", roles=["admin"])
        for method, path in (
            ("GET", "/api/leaderboards/all"),
            ("GET", "/api/users/x/scores"),
            ("DELETE", "/api/users/x"),
        ):
            assert (await s.edge.call(method, path, headers=ada)).error == "not_admin"
            assert (await s.edge.call(method, path, headers=eve)).error == "busy"  # there is no database


async def test_others_neither_see_nor_change_it_and_admins_do() -> None:
    async with signing_in() as s:
        e = s.edge
        ada, ben = await s.author("ada"), await s.author("ben")
        eve = await s.author("eve", roles=["admin"])
        await e.post("/api/quizzes?id=caps", QUIZ, headers=ada)
        await e.post("/api/quizzes?id=sample", QUIZ | {"title": "Sample"}, token=KEY)
        opened = (await e.post("/api/sessions", {"quiz_id": "caps", **AT_ONCE}, headers=ada)).json
        url = f"/api/sessions/{opened['session_id']}"
        body: dict[str, Any] = {"quiz_id": "caps", **AT_ONCE}
        doors = [
            ("GET", "/api/quizzes/caps", None),
            ("GET", "/api/quizzes/caps/versions", None),
            ("POST", "/api/quizzes?id=caps", QUIZ | {"title": "Mine"}),
            ("POST", "/api/sessions", body),
            ("GET", "/api/quizzes?owner=ada", None),
            ("GET", "/api/sessions?owner=ada", None),
            ("GET", f"{url}/players", None),
            ("GET", f"{url}/results", None),
            ("GET", f"{url}/results.csv", None),
            ("DELETE", f"{url}/players/1", None),
            ("POST", f"{url}/host-token", None),
            ("DELETE", url, None),
            ("DELETE", "/api/quizzes/caps", None),
        ]
        for method, path, json in doors:
            refused = await e.call(method, path, json, headers=ben)
            assert (refused.status, refused.error) == (403, "not_owner"), (method, path)
        assert (await e.call("DELETE", "/api/quizzes/sample", headers=ben)).error == "not_owner"
        assert (await e.get("/api/quizzes/sample", headers=ben)).status == 200
        listed = (await e.get("/api/quizzes", headers=ben)).json["quizzes"]
        assert [each["id"] for each in listed] == ["sample"]
        assert (await e.get("/api/quizzes?id=caps", headers=ben)).json["quizzes"] == []
        assert (await e.get("/api/sessions", headers=ben)).json["sessions"] == []
        drain = await e.post("/api/cluster/nodes/a/drain", headers=ben)
        assert (drain.status, drain.error) == (403, "not_admin")
        for path in ("/api/ops", "/api/ops/events"):
            refused = await s.edge.get(path, headers=ada)
            assert (refused.status, refused.error) == (403, "not_admin")
        edited = await e.post("/api/quizzes?id=caps", QUIZ | {"title": "Edited"}, headers=eve)
        assert edited.status == 201
        assert (await e.get("/api/quizzes?id=caps", headers=ada)).json["quizzes"][0]["owner_id"] == "ada"
        for method, path, json in doors:
            allowed = await e.call(method, path, json, headers=eve)
            # Nobody has joined, and the session runs.
            assert allowed.status < 400 or allowed.error in ("player_not_found", "session_running"), path


async def test_with_others_readable_authors_see_and_play_what_is_others() -> None:
    async with signing_in(others_readable=True) as s:
        e = s.edge
        ada, ben = await s.author("ada"), await s.author("ben")
        await e.post("/api/quizzes?id=caps", QUIZ, headers=ada)
        opened = (await e.post("/api/sessions", {"quiz_id": "caps", **AT_ONCE}, headers=ada)).json
        url = f"/api/sessions/{opened['session_id']}"
        for path in ("/api/quizzes/caps", f"{url}/players", f"{url}/results", "/api/sessions?owner=ada"):
            assert (await e.get(path, headers=ben)).status == 200
        mine = await e.post("/api/sessions", {"quiz_id": "caps", **AT_ONCE}, headers=ben)
        assert mine.status == 201
        assert (await e.post("/api/quizzes?id=caps", QUIZ, headers=ben)).error == "not_owner"
        assert (await e.post(f"{url}/host-token", headers=ben)).error == "not_owner"


async def test_a_sign_in_counts_once_and_only_in_the_browser_that_began_it() -> None:
    async with signing_in() as s:
        address, cookie = await s.start()
        code, state = s.provider.authorize(address, "ada", roles=["author"])
        other_address, other_cookie = await s.start()
        _, other_state = s.provider.authorize(other_address, "eve", roles=["author"])
        forged = [(state, other_cookie), (other_state, cookie), ("", cookie), ("%C3%A4", cookie)]
        for tried_state, tried_cookie in [*forged, (state, ""), (state, cookie[:-3] + "xyz")]:
            assert why(await s.back(code, tried_state, tried_cookie)) == "login_failed"
        assert s.provider.asked.count("/token") == 0, "the code was not spent"
        assert cookie_of(await s.back(code, state, cookie)).startswith("fanfare-author=")
        assert why(await s.back(code, state, cookie)) == "login_failed"


async def test_a_sign_in_that_takes_too_long_is_begun_anew(mock_clock: MockClock) -> None:
    async with signing_in() as s:
        address, cookie = await s.start()
        code, state = s.provider.authorize(address, "ada", roles=["author"])
        mock_clock.jump(WAITING_S + 1)
        assert why(await s.back(code, state, cookie)) == "login_failed"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["another"]},
        {"azp": "another"},
        {"exp": 1},
        {"iat": 99_999_999_999},
        {"sub": "x" * 129},
        {"sub": "a\nb"},
        {"sub": ""},
    ],
    ids=repr,
)
async def test_a_token_that_is_not_for_this_lets_nobody_in(claims: dict[str, Any]) -> None:
    async with signing_in() as s:
        s.provider.claims = claims
        assert why(await s.sign_in("ada")) == "login_failed"


async def test_a_forged_token_lets_nobody_in() -> None:
    async with signing_in() as s:
        s.provider.signs_with = ECKey.generate_key("P-256", {"kid": "1"})
        assert why(await s.sign_in("ada")) == "login_failed"
        s.provider.header = {"alg": "none"}
        assert why(await s.sign_in("ada")) == "login_failed"


async def test_a_new_key_of_the_provider_is_learned(mock_clock: MockClock) -> None:
    async with signing_in() as s:
        await s.author("ada")
        s.provider.key = s.provider.signs_with = ECKey.generate_key("P-256", {"kid": "2"})
        s.provider.header = {"kid": "2"}
        assert why(await s.sign_in("ada")) == "login_failed", "the keys were read just now"
        mock_clock.jump(61)
        await s.author("ada")
        assert s.provider.asked.count("/jwks") == 2
        assert s.provider.asked.count("/.well-known/openid-configuration") == 1


async def test_who_has_no_role_is_told_so() -> None:
    async with signing_in(oidc_roles_claim="realm_access.roles") as s:
        assert why(await s.sign_in("ada", realm_access={"roles": ["player"]})) == "login_no_role"
        assert why(await s.sign_in("ada", realm_access="author")) == "login_no_role"
        await s.author("ada", realm_access={"roles": ["author"]})
    async with signing_in(oidc_author_role="*", oidc_roles_claim="https://quiz.example/roles") as s:
        await s.author("ada", roles=[])
        eve = await s.author("eve", **{"https://quiz.example/roles": "admin"})
        assert (await s.edge.get("/api/me", headers=eve)).json["admin"]


async def test_the_provider_may_be_away_and_the_key_still_counts() -> None:
    async with signing_in() as s:
        s.provider.away = True
        assert why(await s.edge.get("/login")) == "login_unavailable"
        assert (await s.edge.get("/api/quizzes", token=KEY)).status == 200
        s.provider.away = False
        s.provider.issuer = "https://evil.example"
        assert why(await s.edge.get("/login")) == "login_unavailable"
        s.provider.issuer = ISSUER
        ada = await s.author("ada")
        address, cookie = await s.start()
        code, state = s.provider.authorize(address, "ada")
        s.provider.away = True
        assert why(await s.back(code, state, cookie)) == "login_unavailable"
        assert await s.me(ada) == "ada", "no request of an author asks the provider"


async def test_who_says_no_at_the_provider_is_told_so() -> None:
    async with signing_in() as s:
        assert why(await s.edge.get("/login/back?error=access_denied")) == "login_denied"
        assert why(await s.edge.get("/login/back?error=server_error")) == "login_failed"
    async with edge() as e:
        for path in ("/login", "/login/back"):
            assert why(await e.get(path)) == "login_off"
        nobody = {"sign_in": False, "user_id": None, "name": None, "admin": False}
        assert (await e.get("/api/me")).json == nobody


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example",
        "//evil.example",
        "/%5Cevil.example",
        "/author%0D%0ALocation:%20x",
        "/author/..//evil.example",
        "/authorevil",
        "/host%23@evil.example",
        "/api/quizzes",
        "javascript:alert(1)",
        "",
    ],
)
async def test_a_sign_in_leads_to_no_other_page(to: str) -> None:
    async with signing_in() as s:
        assert (await s.sign_in("ada", f"?to={to}")).headers["Location"] == "/author"


async def test_a_cookie_lives_as_long_as_it_is_used_and_no_longer_than_half_a_day(
    mock_clock: MockClock,
) -> None:
    async with signing_in() as s:
        ada = await s.author("ada")
        assert cookies(await s.edge.get("/api/quizzes", headers=ada)) == []
        mock_clock.jump(3_599)
        renewed = await s.edge.get("/api/quizzes", headers=ada)
        assert renewed.status == 200
        mock_clock.jump(2)
        assert await s.me(ada) is None
        assert (await s.edge.get("/api/quizzes", headers=ada)).error == "token_missing"
        ada["Cookie"] = cookie_of(renewed)
        for _ in range(LONGEST_S // 3_000 - 1):
            mock_clock.jump(3_000)
            ada["Cookie"] = cookie_of(await s.edge.get("/api/quizzes", headers=ada))
        mock_clock.jump(3_000)
        assert await s.me(ada) is None


async def test_a_cookie_counts_on_every_node_with_the_secret_and_on_no_other() -> None:
    async with signing_in() as s:
        ada = await s.author("ada")
        s.edge.but(sign_in=s.made(SECRET))
        assert await s.me(ada) == "ada"
        s.edge.but(sign_in=s.made(b"another secret!!"))
        assert await s.me(ada) is None
        for cookie in ("fanfare-author=", "fanfare-author=a.b.c", "fanfare-author=" + "x" * 9_999):
            assert await s.me({**HERE, "Cookie": cookie}) is None


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "https://friend.example"])
async def test_a_cookie_changes_nothing_for_pages_of_other_origins(origin: str | None) -> None:
    """Not even for those that may use the API: they have a key of their own."""
    async with signing_in(allowed_origins=("https://friend.example",)) as s:
        ada = await s.author("ada")
        del ada["Origin"]
        if origin is not None:
            ada["Origin"] = origin
        refused = await s.edge.post("/api/quizzes", QUIZ, headers=ada)
        assert (refused.status, refused.error) == (403, "origin_refused")
        read = await s.edge.get("/api/quizzes", headers=ada)
        assert "Access-Control-Allow-Credentials" not in read.headers


async def test_a_bearer_goes_before_a_cookie() -> None:
    async with signing_in() as s:
        ada = await s.author("ada")
        made = await s.edge.post("/api/quizzes?id=caps", QUIZ, headers=ada, token=KEY)
        assert made.status == 201
        listed = (await s.edge.get("/api/quizzes", headers=ada)).json["quizzes"]
        assert [each["owner_id"] for each in listed] == [None]
        assert (await s.edge.get("/api/quizzes", headers=ada, token="x")).error == "token_invalid"
