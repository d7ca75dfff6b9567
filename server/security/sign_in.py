"""Signing in by OpenID Connect: authorization code with PKCE, state and nonce, and a cookie afterwards.

How to think about it: the node keeps nothing. What has to come back unchanged from the provider's page waits
in one signed cookie of the browser, which is good for ten minutes and one try; who is signed in stands in
another. Both are signed by the secret that signs tokens, so every node of a cluster takes them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData

from engine.actors.clock import Clock
from server.config.config import Config
from server.security.authors import Author
from server.security.provider import Provider, SignInRefused
from server.security.tokens import SecretError, serializer

WAITING_S = 600
"""How long somebody may take on the provider's page."""

LONGEST_S = 43_200
"""After that an author signs in again: until then a role that was taken away still counts."""

RENEWED_SHARE = 0.1
"""How much of its time a cookie has used up when it is renewed."""

USER_ID_CHARS_MAX = 128
NAME_CHARS_MAX = 100
COOKIE_CHARS_MAX = 2_000

_OWN_PAGE = re.compile(r"/(author|host|ops)(\?[A-Za-z0-9_.~%=&+-]{0,500})?")


class NoRole(Exception):
    """The user has neither of the roles that may author."""


@dataclass(frozen=True, slots=True)
class Started:
    """A sign-in that was begun: where the browser goes, and the cookie that waits for it."""

    address: str
    cookie: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A valid cookie. `renewed` is the cookie to send in its place, if it is time for that."""

    author: Author
    renewed: str | None


class SignIn:
    """Args: secret: what signs the cookies; that of the tokens."""

    def __init__(self, config: Config, provider: Provider, secret: bytes, clock: Clock) -> None:
        self._config = config
        self._provider = provider
        self._clock = clock
        client = f"{config.oidc_issuer} {config.oidc_client_id}"
        self._waiting = serializer(secret, f"fanfare sign-in {client}", clock)
        self._signed_in = serializer(secret, f"fanfare author {client}", clock)

    async def begin(self, redirect_uri: str, to: str | None) -> Started:
        """Begin. Args: to: the page to come back to. Raises ProviderUnavailable."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        digest = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        address = await self._provider.address(
            redirect_uri, self._config.oidc_scopes, state, nonce, challenge
        )
        return Started(address, self._waiting.dumps([state, nonce, verifier, own_page(to)]))

    async def finish(
        self, redirect_uri: str, cookie: str | None, state: str | None, code: str | None
    ) -> tuple[str, str]:
        """The cookie of the author whom the provider has sent back, and the page to go on with. Raises
        SignInRefused, NoRole, ProviderUnavailable."""
        expected, nonce, verifier, to = self._waited(cookie)
        if not state or not code or not hmac.compare_digest(state.encode(), expected.encode()):
            raise SignInRefused("the state is not that of a sign-in of this browser")
        claims = await self._provider.redeem(code, redirect_uri, verifier, nonce)
        return self._cookie_of(claims), to

    def read(self, cookie: str | None) -> SignedIn | None:
        """The author of a cookie; None for one that is too old or was not made here."""
        if cookie is None or len(cookie) > COOKIE_CHARS_MAX:
            return None
        try:
            payload, issued = self._signed_in.loads(cookie, return_timestamp=True)
        except (BadData, ValueError):
            return None
        match payload:
            case [str(user_id), str(name), bool(admin), int(since_s)]:
                pass
            case _:
                return None
        now_s, lifetime_s = self._clock.now_ms() / 1000, self._config.sign_in_s
        age_s = now_s - issued.timestamp()
        if not -lifetime_s <= age_s <= lifetime_s or now_s - since_s > LONGEST_S:
            return None
        author = Author(user_id, name, admin, admin or self._config.others_readable)
        renewed = self._signed_in.dumps(payload) if age_s > RENEWED_SHARE * lifetime_s else None
        return SignedIn(author, renewed)

    def _waited(self, cookie: str | None) -> tuple[str, str, str, str]:
        """State, nonce, verifier, and page."""
        try:
            payload, issued = self._waiting.loads((cookie or "")[:COOKIE_CHARS_MAX], return_timestamp=True)
        except (BadData, ValueError):
            raise SignInRefused("the browser has begun no sign-in") from None
        if not -WAITING_S <= self._clock.now_ms() / 1000 - issued.timestamp() <= WAITING_S:
            raise SignInRefused("the sign-in was begun too long ago")
        state, nonce, verifier, to = payload
        return state, nonce, verifier, to

    def _cookie_of(self, claims: Mapping[str, Any]) -> str:
        """Raises SignInRefused, NoRole."""
        user_id = claims["sub"]
        if not (isinstance(user_id, str) and 0 < len(user_id) <= USER_ID_CHARS_MAX and user_id.isprintable()):
            raise SignInRefused("the name of the user within the provider is too long, or is none")
        roles = roles_in(claims, self._config.oidc_roles_claim)
        admin = self._config.oidc_admin_role in roles
        if not (admin or self._config.oidc_author_role in (*roles, "*")):
            raise NoRole
        return self._signed_in.dumps([user_id, _shown_name(claims), admin, self._clock.now_ms() // 1000])


def open_sign_in(config: Config, secret: bytes, clock: Clock) -> SignIn | None:
    """As configured; None where authors show the author key alone. Nothing is asked of the provider yet.

    Raises SecretError: the file with the client's secret cannot be read.
    """
    if config.oidc_issuer is None or config.oidc_client_id is None:
        return None
    client_secret, file = None, config.oidc_client_secret_file
    if file is not None:
        try:
            client_secret = file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise SecretError(file, f"cannot be read: {error}") from error
    provider = Provider(config.oidc_issuer, config.oidc_client_id, client_secret, clock.now_ms)
    return SignIn(config, provider, secret, clock)


def own_page(to: str | None) -> str:
    """The page, if it is one of those that ask for a sign-in; else that of authors."""
    return to if to is not None and _OWN_PAGE.fullmatch(to) else "/author"


def roles_in(claims: Mapping[str, Any], path: str) -> list[str]:
    """The roles that this claim lists: a list of texts, or one text. A claim of this very name goes before
    one within objects."""
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    return [each for each in listed if isinstance(each, str)]


def _shown_name(claims: Mapping[str, Any]) -> str:
    for claim in ("name", "preferred_username", "email"):
        name = claims.get(claim)
        if isinstance(name, str) and name.strip():
            return "".join(each for each in name.strip() if each.isprintable())[:NAME_CHARS_MAX]
    return ""
