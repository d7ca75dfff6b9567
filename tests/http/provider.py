"""An OpenID Connect provider in memory. It judges a request for a token as RFC 6749 and RFC 7636 have it."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER = "https://login.example"
CLIENT_ID = "fanfare"
CLIENT_SECRET = "s/cret"


class FakeProvider:
    """`claims` are put over those of every ID token, `header` over its header; a key other than `key` makes
    it a forgery. `asked` counts the requests by path; while `away`, nothing is answered."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.key = ECKey.generate_key("P-256", {"kid": "1", "use": "sig"})
        self.signs_with = self.key
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.issuer = ISSUER
        self.asked: list[str] = []
        self.away = False
        self._codes: dict[str, tuple[Mapping[str, str], Mapping[str, Any]]] = {}
        self.transport = httpx.MockTransport(self._answer)

    def authorize(self, address: str, sub: str, **claims: Any) -> tuple[str, str]:
        """Somebody agrees on the page at this address. Returns code and state."""
        assert address.startswith(f"{ISSUER}/authorize?")
        asked = dict(parse_qsl(urlsplit(address).query, strict_parsing=True))
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked, {"sub": sub, **claims}
        return code, asked["state"]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.away:
            raise httpx.ConnectError("away", request=request)
        match request.url.path:
            case "/.well-known/openid-configuration":
                return httpx.Response(
                    200,
                    json={
                        "issuer": self.issuer,
                        "authorization_endpoint": f"{ISSUER}/authorize",
                        "token_endpoint": f"{ISSUER}/token",
                        "jwks_uri": f"{ISSUER}/jwks",
                    },
                )
            case "/jwks":
                return httpx.Response(200, json={"keys": [self.key.as_dict(private=False)]})
            case "/token":
                return self._token(request)
        return httpx.Response(404)

    def _token(self, request: httpx.Request) -> httpx.Response:
        form = {name: value for name, [value] in parse_qs(request.content.decode()).items()}
        basic = base64.b64encode(f"{CLIENT_ID}:s%2Fcret".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {basic}":
            return httpx.Response(401, json={"error": "invalid_client"})
        asked, claims = self._codes.pop(form["code"], ({}, {}))
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked.get("code_challenge") != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        now_s = self._now_ms() // 1000
        told = {
            "iss": ISSUER,
            "aud": CLIENT_ID,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": asked["nonce"],
            **claims,
            **self.claims,
        }
        header = {"alg": "ES256", "kid": "1", **self.header}
        return httpx.Response(
            200, json={"token_type": "Bearer", "access_token": "-", "id_token": self._sign(header, told)}
        )

    def _sign(self, header: dict[str, Any], told: dict[str, Any]) -> str:
        if header["alg"] != "none":
            return jwt.encode(header, told, self.signs_with)
        parts = (base64.urlsafe_b64encode(repr(each).replace("'", '"').encode()) for each in (header, told))
        return b".".join([*(each.rstrip(b"=") for each in parts), b""]).decode()
