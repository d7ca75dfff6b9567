"""Authentication of HTTP requests: the same rules on both ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol

from engine.actors.clock import Clock
from server.config.config import Config
from server.security.client_address import client_address, origin_allowed
from server.security.identity import IdentityError
from server.security.limits import Attempts, Try
from server.security.tokens import Grant, TokenError
from server.wire.errors import ApiError, too_many_attempts

PREFLIGHT_HEADERS: Mapping[str, str] = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID, Traceparent, X-Request-Id",
    "Access-Control-Max-Age": "600",
}
"""What pages of allowed origins may send; for others the header that names the origin is missing."""

HUB_HEADERS: Mapping[str, str] = {"Access-Control-Allow-Credentials": "true"}
"""Of every answer of the hub: its clients ask for credentials unless they are told not to. None are used."""

HUB_PREFLIGHT: Mapping[str, str] = {
    **PREFLIGHT_HEADERS,
    **HUB_HEADERS,
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Traceparent, X-Request-Id, "
    "X-Requested-With, X-SignalR-User-Agent",
}

STANDING_HEADERS: Mapping[str, str] = {
    "Vary": "Origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Of every answer that does not say otherwise."""


def bearer_of(authorization: str | None) -> str | None:
    """The token in an Authorization header; None without one."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def differ(given: str | None, bearer: str | None) -> bool:
    """Whether a request says in two ways whose it is, and not the same."""
    return bool(given) and bearer is not None and given != bearer


def one_token(given: str | None, bearer: str | None, path: str) -> str | None:
    """The token in the query or in the body, under `path`, or else the bearer's. Raises ApiError if there are
    both, and they differ."""
    if differ(given, bearer):
        raise ApiError("bad_field", f"{path} is not the bearer's token. Send one of them.", path)
    return given or bearer


class TokenReader(Protocol):
    def read(self, token: str) -> Grant:
        """Raises TokenError."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A request's side of the matter: `peer` is the address that the socket shows, the others are headers;
    `forwarded_for` is all X-Forwarded-For headers, joined by commas."""

    peer: str
    host: str | None = None
    origin: str | None = None
    forwarded_for: str | None = None
    authorization: str | None = None

    def bearer(self) -> str | None:
        """What the Authorization header brings along."""
        return bearer_of(self.authorization)


class Guard:
    """Answers for callers. Failures count against the address they come from.

    Args:
        pages: the addresses of all nodes, whose web pages may use this one.
    """

    def __init__(
        self,
        config: Config,
        tokens: TokenReader,
        attempts: Attempts,
        clock: Clock,
        pages: Callable[[], Iterable[str]],
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._attempts = attempts
        self._clock = clock
        self._pages = pages

    # -- addresses -------------------------------------------------------------------------------

    def address(self, caller: Caller) -> str:
        """The client's, as far as the configured proxies tell it."""
        return client_address(caller.peer, caller.forwarded_for, self._config.proxy_hops)

    def enter(self, caller: Caller, code: str) -> Try:
        """Begin to look for the session with this code or id. Raises ApiError for an address that has too
        many such tries waiting."""
        found = self._attempts.enter(self.address(caller), code, self._clock.now_ms())
        if found is None:
            raise too_many_attempts()
        return found

    def know(self, caller: Caller, code: str) -> None:
        """The caller has shown to be in the session with this code."""
        self._attempts.know(self.address(caller), code)

    def count_failure(self, caller: Caller) -> None:
        """Raises ApiError for an address that has used up its tries."""
        if not self._attempts.charge(self.address(caller), self._clock.now_ms()):
            raise too_many_attempts()

    # -- tokens ----------------------------------------------------------------------------------

    def grant(self, caller: Caller, token: str | None = None) -> Grant:
        """What the given token, or else the bearer's, allows. Raises ApiError, also if they differ."""
        token = one_token(token, caller.bearer(), "token")
        if token is None:
            raise ApiError("token_missing", "This needs Authorization: Bearer <token>.")
        try:
            return self._tokens.read(token)
        except TokenError as error:
            if error.code != "token_expired":  # that one was good once, and nobody guesses
                self.count_failure(caller)
            raise ApiError(error.code, error.message) from None

    def refuse_foreign_token(self, caller: Caller) -> NoReturn:
        """For a token that is good, but for another session."""
        self.count_failure(caller)
        raise ApiError("token_invalid", "This token belongs to another session.")

    def identity_refused(self, caller: Caller, error: IdentityError) -> ApiError:
        """The refusal of an identity token. One that may be made up counts as a wrong try."""
        if error.guessed:
            try:
                self.count_failure(caller)
            except ApiError as too_many:
                return too_many
        return ApiError(error.code, error.message, "identity")

    # -- web origins -----------------------------------------------------------------------------

    def refuse_foreign_origin(self, caller: Caller, method: str) -> None:
        """Raises ApiError if a page of neither this node nor an allowed origin wants to change something."""
        if method not in ("GET", "HEAD", "OPTIONS") and not self._origin_allowed(caller):
            raise ApiError("origin_refused", "Pages of this origin may not use this node.")

    def refuse_cookie_from_elsewhere(self, caller: Caller, method: str) -> None:
        """Raises ApiError if a cookie is to change something and the request is not known to come from a page
        of this very node: browsers send cookies along whichever page asks."""
        own = caller.origin is not None and origin_allowed(
            caller.origin, caller.host, self._config.http_port, self._config.public_url, ()
        )
        if method not in ("GET", "HEAD", "OPTIONS") and not own:
            raise ApiError("origin_refused", "Pages of this origin may not use the sign-in of an author.")

    def headers(self, caller: Caller) -> Mapping[str, str]:
        """Those of every answer, with what lets a page of an allowed origin read it."""
        if caller.origin is None or not self._origin_allowed(caller):
            return STANDING_HEADERS
        return {
            **STANDING_HEADERS,
            "Access-Control-Allow-Origin": caller.origin,
            "Access-Control-Expose-Headers": "Location, Retry-After, X-Request-Id",
        }

    def _origin_allowed(self, caller: Caller) -> bool:
        config = self._config
        return origin_allowed(
            caller.origin,
            caller.host,
            config.http_port,
            config.public_url,
            config.allowed_origins,
            self._pages(),
        )
