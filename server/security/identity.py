"""Identity tokens: the app that Fanfare is part of signs who its user is, and a node believes that.

How to think about it: a token is a JWT that the app's backend has signed. What a client says about the token
(algorithm, key) only chooses among the keys that this node is configured with, each of which goes with one
algorithm. So no token can have itself checked in a way that its key is not for.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Literal, Protocol

import jwt
import orjson
import trio

from engine.actors.clock import Clock
from engine.actors.commands import USER_ID_CHARS_MAX, Identity, may_be_user_id
from engine.domain.extra_time import Factor, percent_of
from server.wire.protocol import IDENTITY_CHARS_MAX

KNOWN_MAX = 10_000
"""Good tokens that are remembered until they expire. To check a signature again would cost as much as many an
answer."""

_LOCALE = re.compile(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8}){0,5}")
_TO_MS = 1000

Demand = Literal["off", "optional", "required"]


class IdentityError(Exception):
    """An identity that is not accepted.

    Args:
        code: one of docs/protocol.md.
        message: one sentence for a person.
        guessed: the client may have made the token up, so it counts as a wrong try.
    """

    def __init__(self, code: str, message: str, *, guessed: bool = False) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.guessed = guessed

    def __str__(self) -> str:
        return self.message


class Keys(Protocol):
    """The public keys of the app. `server.security.key_ring.KeyRing` is one."""

    @property
    def failing(self) -> bool:
        """Whether the last look at their source has failed."""

    @property
    def generation(self) -> int:
        """Counts the changes of the keys."""

    def find(self, kid: str | None, algorithm: str) -> Any | None:
        """The key with this id for this algorithm. Without an id, the only one for it."""

    def renew(self, done: Callable[[], None]) -> bool:
        """Look at the source again, soon, and call `done` then. False if too many wait for that."""


Done = Callable[[Identity | IdentityError], None]


class Identities:
    """Reads identity tokens.

    Args:
        demand: whether this node takes identities, and whether players need one.
        secret: the key of tokens that are signed by HS256; None takes no such tokens.
        keys: the public keys of all other tokens; None takes no such tokens.
        issuer, audience: what a token must say. Where no audience is configured, a token that is for one is
            refused.
        leeway_s: by how much the clocks of the app and of this node may differ.
        clock: of this node.
    """

    def __init__(
        self,
        demand: Demand,
        clock: Clock,
        *,
        secret: str | None = None,
        keys: Keys | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        leeway_s: float = 0.0,
    ) -> None:
        self._demand = demand
        self._clock = clock
        self._secret = None if secret is None else secret.encode()
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s
        self._known: dict[bytes, tuple[Identity, float]] = {}
        """By the digest of a token, with the time at which it expires; the oldest first."""
        self._known_under = 0

    def refuse_guest(self) -> IdentityError | None:
        """Why a new player without an identity is refused; None where guests may play."""
        if self._demand != "required":
            return None
        return IdentityError("identity_required", "Players come by way of their app here.")

    def read(self, token: str, done: Done) -> None:
        """Tell `done` who the token is of, or why it is not accepted: at once, or once the keys of the app
        were looked at again."""
        try:
            found = self._read(token)
        except _UnknownKey:
            assert self._keys is not None, "without keys none is unknown"
            if not self._keys.renew(lambda: done(self._read_again(token))):
                done(_unavailable())
        except IdentityError as error:
            done(error)
        else:
            done(found)

    async def wait_read(self, token: str) -> Identity:
        """Who the token is of. Raises IdentityError."""
        told: list[Identity | IdentityError] = []
        heard = trio.Event()

        def done(found: Identity | IdentityError) -> None:
            told.append(found)
            heard.set()

        self.read(token, done)
        await heard.wait()
        if isinstance(told[0], IdentityError):
            raise told[0]
        return told[0]

    def _read_again(self, token: str) -> Identity | IdentityError:
        try:
            return self._read(token)
        except _UnknownKey:
            if self._keys is not None and self._keys.failing:
                return _unavailable()
            return _invalid("is signed by a key that the app does not have")
        except IdentityError as error:
            return error

    def _read(self, token: str) -> Identity:
        if self._demand == "off":
            raise IdentityError("identity_off", "This node takes no identities.")
        if len(token) > IDENTITY_CHARS_MAX or not token.isascii():
            raise _invalid("is no token of an app")
        if self._keys is not None and self._keys.generation != self._known_under:
            self._known.clear()
            self._known_under = self._keys.generation
        mark = sha256(token.encode()).digest()
        now_s = self._clock.now_ms() / _TO_MS
        known = self._known.get(mark)
        if known is not None:
            identity, expires_s = known
            self._refuse_expired(expires_s, now_s)
            return identity
        claims = self._verified(token)
        identity, expires_s = self._judged(claims, now_s)
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[mark] = identity, expires_s
        return identity

    # -- the signature ---------------------------------------------------------------------------

    def _verified(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature is good."""
        algorithm, key = self._key_for(_header_of(token))
        try:
            payload = jwt.api_jws.decode(token, key, algorithms=[algorithm])
            claims = orjson.loads(payload)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _invalid("was not signed by the app") from None
        if type(claims) is not dict:
            raise _invalid("has no claims")
        return claims

    def _key_for(self, header: dict[str, Any]) -> tuple[str, Any]:
        """The algorithm and the key that the token is checked with."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if type(algorithm) is not str:
            raise _invalid("does not say how it is signed")
        if "crit" in header or "b64" in header or (kid is not None and type(kid) is not str):
            raise _invalid("has a head that is not understood")
        if algorithm == "HS256" and self._secret is not None:
            return "HS256", self._secret
        if algorithm not in PUBLIC_KEY_ALGORITHMS or self._keys is None:
            sentence = "The identity is signed by an algorithm that is not accepted here."
            raise IdentityError("identity_algorithm", sentence, guessed=True)
        key = self._keys.find(kid, algorithm)
        if key is None:
            raise _UnknownKey
        return algorithm, key

    # -- the claims ------------------------------------------------------------------------------

    def _judged(self, claims: dict[str, Any], now_s: float) -> tuple[Identity, float]:
        """The identity, and when it expires, in seconds."""
        expires_s = _moment(claims, "exp")
        if expires_s is None:
            raise _invalid("does not say when it expires")
        self._refuse_expired(expires_s, now_s)
        for name in ("nbf", "iat"):
            begins_s = _moment(claims, name)
            if begins_s is not None and begins_s - self._leeway_s > now_s:
                raise _invalid("is of the future")
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise IdentityError("identity_issuer", "This token is of another issuer.", guessed=True)
        audience = claims.get("aud")
        audiences = audience if type(audience) is list else [] if audience is None else [audience]
        if (self._audience or audiences) and self._audience not in audiences:
            raise IdentityError("identity_audience", "This token is for another audience.", guessed=True)
        identity = Identity(_user_in(claims), _name_in(claims), _locale_in(claims), _extra_time_in(claims))
        return identity, expires_s

    def _refuse_expired(self, expires_s: float, now_s: float) -> None:
        if now_s >= expires_s + self._leeway_s:
            raise IdentityError("identity_expired", "This token has expired; the app gives a new one.")


def no_identities() -> Identities:
    """Takes no identities, and so needs no time."""
    return Identities("off", _NoClock())


class _NoClock:
    def now_ms(self) -> int:
        return 0


PUBLIC_KEY_ALGORITHMS = ("EdDSA", "ES256", "RS256")


class _UnknownKey(Exception):
    """The app may have a key that this node has not heard of."""


def _header_of(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise _invalid("is no token of an app")
    try:
        header = orjson.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except ValueError:
        raise _invalid("is no token of an app") from None
    if type(header) is not dict:
        raise _invalid("is no token of an app")
    return header


def _moment(claims: dict[str, Any], name: str) -> float | None:
    moment = claims.get(name)
    if moment is None:
        return None
    if type(moment) not in (int, float) or not math.isfinite(moment):
        raise _invalid(f"has a time {name} that is no number")
    return float(moment)


def _user_in(claims: dict[str, Any]) -> str:
    user_id = claims.get("sub")
    if type(user_id) is not str or not 0 < len(user_id) <= USER_ID_CHARS_MAX:
        raise _invalid(f"has no user of 1 to {USER_ID_CHARS_MAX} characters")
    if not may_be_user_id(user_id):
        raise _invalid("has a user with control characters")
    return user_id


def _name_in(claims: dict[str, Any]) -> str | None:
    name = claims.get("name")
    if name is not None and type(name) is not str:
        raise _invalid("has a name that is no text")
    return name or None


def _locale_in(claims: dict[str, Any]) -> str | None:
    locale = claims.get("locale")
    if locale is None:
        return None
    if type(locale) is not str or _LOCALE.fullmatch(locale) is None:
        raise _invalid("has a locale that is no language tag")
    return locale


def _extra_time_in(claims: dict[str, Any]) -> Factor | None:
    extra_time = claims.get("extra_time")
    if extra_time is None:
        return None
    if percent_of(extra_time) is None:
        raise _invalid('has an extra_time that is neither a number from 1 to 4 nor "untimed"')
    return "untimed" if extra_time == "untimed" else float(extra_time)


def _invalid(problem: str) -> IdentityError:
    return IdentityError("identity_invalid", f"The identity {problem}.", guessed=True)


def _unavailable() -> IdentityError:
    return IdentityError(
        "identity_unavailable", "The keys of the app cannot be had just now. Try again soon."
    )


def is_identity(bearer: str) -> bool:
    """Whether what an Authorization header brings along looks like an identity. No token of ours and no key
    that a node makes begins like the head of a JWT."""
    return bearer.startswith("eyJ") and bearer.count(".") == 2
