"""The OpenID Connect provider by which authors sign in: what it says of itself, and what it says of them.

How to think about it: the provider is another's server, and may be slow, away, or wrong. Every request to it
has a time-out and a bound on what is read of the answer; what it says of itself is kept for an hour, and for
as long as it cannot be asked again; a key that is not known makes the keys be read again, at most once a
minute. Nothing here is on the way of a request that plays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import jwt
import orjson
import trio

from server.security.fetch import Fetcher, FetchError
from server.security.key_ring import KeySet, KeysUnavailable, find_key, keys_in

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 262_144
FRESH_S = 3_600.0
KEYS_AGAIN_S = 60.0
LEEWAY_S = 60
"""By how much the clocks of provider and node may differ."""

AT_ONCE_MAX = 4
"""Requests to the provider at a time."""


class ProviderUnavailable(Exception):
    """The provider cannot be asked, or its answer is none. The message is for the log."""


class SignInRefused(Exception):
    """The provider, or what it says, does not let this user in. The message is for the log."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where the provider has what (OpenID Connect Discovery)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    secret_in_body: bool
    """Whether it takes the client's secret in the body alone."""


class Provider:
    """Args:
    client_secret: None for a client without one, which PKCE alone protects.
    now_ms: milliseconds since the epoch, for the times in tokens.
    transport: what carries the requests; None is the network.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        now_ms: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._now_ms = now_ms
        self._fetcher = Fetcher(TIMEOUT_S, ANSWER_BYTES_MAX, transport)
        self._at_once = trio.CapacityLimiter(AT_ONCE_MAX)
        self._metadata: tuple[Metadata, float] | None = None
        self._keys: tuple[KeySet, float] | None = None
        self._asking = trio.Lock()

    async def address(self, redirect_uri: str, scopes: str, state: str, nonce: str, challenge: str) -> str:
        """Where the browser goes to sign in. Raises ProviderUnavailable."""
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = (await self._read_metadata()).authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def redeem(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Mapping[str, Any]:
        """The claims of the ID token that the code stands for, once all of them are verified. Raises
        ProviderUnavailable, SignInRefused."""
        metadata = await self._read_metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        auth = None
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif metadata.secret_in_body:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        else:  # RFC 6749 wants both encoded
            auth = quote(self._client_id, safe=""), quote(self._client_secret, safe="")
        answer = await self._ask("POST", metadata.token_endpoint, data=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInRefused(f"no ID token: {str(answer.get('error'))[:100]}")
        return await self._verified(metadata, token, nonce)

    async def _verified(self, metadata: Metadata, token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token (OpenID Connect Core, 3.1.3.7). Raises SignInRefused."""
        keys = await self._read_keys(metadata)
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = str(header.get("alg")), header.get("kid")
            key = find_key(keys, kid, algorithm)
            if key is None:
                key = find_key(await self._read_keys(metadata, again=True), kid, algorithm)
            if key is None:
                raise SignInRefused("the ID token is signed by no key of the provider")
            payload = jwt.api_jws.decode(token, key, algorithms=[algorithm])
            claims = orjson.loads(payload)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise SignInRefused(f"the ID token is not good: {error}") from None
        if not isinstance(claims, dict):
            raise SignInRefused("the ID token has no claims")
        self._judge(claims, nonce)
        return claims

    def _judge(self, claims: Mapping[str, Any], nonce: str) -> None:
        """Raises SignInRefused."""
        now_s = self._now_ms() / 1000
        audience, expires_s, issued_s = claims.get("aud"), claims.get("exp"), claims.get("iat")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self._issuer:
            raise SignInRefused("the ID token is of another issuer")
        if self._client_id not in audiences or claims.get("azp", self._client_id) != self._client_id:
            raise SignInRefused("the ID token is for another client")
        if claims.get("nonce") != nonce:
            raise SignInRefused("the ID token is for another sign-in")
        if not isinstance(expires_s, int | float) or now_s >= expires_s + LEEWAY_S:
            raise SignInRefused("the ID token has expired")
        if not isinstance(issued_s, int | float) or issued_s - LEEWAY_S > now_s:
            raise SignInRefused("the ID token is of the future")

    # -- what the provider says of itself --------------------------------------------------------

    async def _read_metadata(self) -> Metadata:
        async with self._asking:
            known, now_s = self._metadata, trio.current_time()
            if known is not None and now_s - known[1] < FRESH_S:
                return known[0]
            try:
                found = self._metadata_of(
                    await self._ask("GET", f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                )
            except ProviderUnavailable:
                if known is None:
                    raise
                return known[0]
            self._metadata = found, now_s
            return found

    def _metadata_of(self, answer: Mapping[str, Any]) -> Metadata:
        if answer.get("issuer") != self._issuer:
            raise ProviderUnavailable(f"it calls itself {str(answer.get('issuer'))[:200]!r}")
        places = [answer.get(each) for each in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        secure = "https://" if self._issuer.startswith("https://") else "http"
        if not all(isinstance(each, str) and each.startswith(secure) for each in places):
            raise ProviderUnavailable("it does not say where its endpoints are")
        methods = answer.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        authorize, token, keys = map(str, places)
        return Metadata(authorize, token, keys, "client_secret_basic" not in methods)

    async def _read_keys(self, metadata: Metadata, *, again: bool = False) -> KeySet:
        async with self._asking:
            known, now_s = self._keys, trio.current_time()
            if known is not None and now_s - known[1] < (KEYS_AGAIN_S if again else FRESH_S):
                return known[0]
            try:
                keys = keys_in(await self._read("GET", metadata.jwks_uri))
            except KeysUnavailable as error:
                raise ProviderUnavailable(f"{metadata.jwks_uri}: {error}") from None
            self._keys = keys, now_s
            return keys

    async def _ask(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        """The JSON object that the provider answers with, whatever the status. Raises ProviderUnavailable."""
        try:
            found = orjson.loads(await self._read(method, url, **more))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderUnavailable(f"{url}: no JSON object")
        return found

    async def _read(self, method: str, url: str, **more: Any) -> bytes:
        """What the provider answers, whatever the status. Raises ProviderUnavailable."""
        try:
            with trio.fail_after(2 * TIMEOUT_S):
                async with self._at_once:
                    _, body = await self._fetcher.read(method, url, **more)
                    return body
        except FetchError as error:
            raise ProviderUnavailable(str(error)) from None
        except trio.TooSlowError:
            raise ProviderUnavailable(f"{url}: no answer within {2 * TIMEOUT_S:g} s") from None
