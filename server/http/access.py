"""Who is asking, and whether they may."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NoReturn

from quart import request

from server.auth import Grant, TokenError
from server.http.errors import ApiError
from server.http.services import Services
from server.peers import client_address, origin_allowed

HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


class Access:
    """Answers for the request at hand. Failures count against the address they come from."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._config = services.config

    # -- addresses -------------------------------------------------------------------------------

    def address(self) -> str:
        """The client's, as far as the configured proxies tell it."""
        forwarded = request.headers.getlist("X-Forwarded-For")
        return client_address(self._peer(), ",".join(forwarded) or None, self._config.proxy_hops)

    def _peer(self) -> str:
        client = request.scope.get("client")
        return client[0] if client else ""

    def refuse_blocked(self) -> None:
        """Raises ApiError for an address that has used up its failures."""
        if self._services.attempts.blocked(self.address(), self._services.clock.now_ms()):
            raise ApiError(
                "too_many_attempts", "Too many wrong codes or tokens from this address. Wait a minute."
            )

    def count_failure(self) -> None:
        self._services.attempts.failed(self.address(), self._services.clock.now_ms())

    # -- tokens ----------------------------------------------------------------------------------

    def bearer(self) -> str | None:
        """What the Authorization header brings along."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def grant(self, token: str | None = None) -> Grant:
        """What the given token, or else the bearer's, allows. Raises ApiError."""
        token = token or self.bearer()
        if token is None:
            raise ApiError("token_missing", "This needs Authorization: Bearer <token>.")
        try:
            return self._services.tokens.read(token)
        except TokenError as error:
            self.refuse_blocked()
            self.count_failure()
            raise ApiError(error.code, error.message) from None

    def refuse_foreign_token(self) -> NoReturn:
        """For a token that is good, but for another session."""
        self.refuse_blocked()
        self.count_failure()
        raise ApiError("token_invalid", "This token belongs to another session.")

    # -- authors ---------------------------------------------------------------------------------

    def is_author(self) -> bool:
        """Whether the request may write quizzes and open sessions.

        With a key configured, its bearer may. Without one, whoever sits at this machine may: the peer is
        loopback, nothing says that it speaks for somebody else, and the page it comes from was asked for
        by a loopback name (which a name that was rebound to this machine is not).
        """
        if self._config.author_key is not None:
            given = self.bearer() or ""
            return hmac.compare_digest(given.encode(), self._config.author_key.encode())
        proxied = any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-Ip"))
        return (
            not self._config.proxy_hops
            and not proxied
            and _is_loopback(self._peer())
            and _is_loopback(host_name(request.headers.get("Host", "")))
        )

    def require_author(self) -> None:
        """Raises ApiError for everyone else."""
        if self._config.author_key is None:
            if not self.is_author():
                raise ApiError(
                    "author_only",
                    "Without an author_key configured, authoring is open on the node's own machine only.",
                )
            return
        self.refuse_blocked()
        if self.is_author():
            return
        if self.bearer() is None:
            raise ApiError("token_missing", "This needs Authorization: Bearer <author_key>.")
        self.count_failure()
        raise ApiError("token_invalid", "This is not the author key.")

    # -- web origins -----------------------------------------------------------------------------

    def refuse_foreign_origin(self) -> None:
        """Raises ApiError if a page of neither this node nor an allowed origin wants to change something."""
        if request.method not in ("GET", "HEAD", "OPTIONS") and not self._origin_allowed():
            raise ApiError("origin_refused", "Pages of this origin may not use this node.")

    def cors_headers(self) -> Mapping[str, str]:
        """What lets a page of an allowed origin read the answer."""
        origin = request.headers.get("Origin")
        if origin is None or not self._origin_allowed():
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "Location, Retry-After",
        }

    def _origin_allowed(self) -> bool:
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
        return origin_allowed(origin, host, self._config.public_url, self._config.allowed_origins)


def host_name(host: str) -> str:
    """The name or address in a Host header, without brackets and port; empty for what is none."""
    match = HOST.fullmatch(host)
    return match["name"].strip("[]").lower() if match else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if not _is_address(name):
        return False
    parsed = ip_address(name)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
