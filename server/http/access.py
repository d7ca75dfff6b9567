"""Who is asking, and whether they may."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NoReturn

from quart import request

from server.auth import Grant
from server.callers import Caller, Guard
from server.errors import ApiError
from server.http.services import Services

HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


class Access:
    """Answers for the request at hand, by the rules of `Guard`."""

    def __init__(self, services: Services) -> None:
        self._config = services.config
        self._guard = Guard(
            services.config,
            services.tokens,
            services.attempts,
            services.clock,
            lambda: (member.http_url for member in services.members()),
        )

    @staticmethod
    def caller() -> Caller:
        headers = request.headers
        client = request.scope.get("client")
        return Caller(
            peer=client[0] if client else "",
            host=headers.get("Host"),
            origin=headers.get("Origin"),
            forwarded_for=",".join(headers.getlist("X-Forwarded-For")) or None,
            authorization=headers.get("Authorization"),
        )

    def refuse_blocked(self) -> None:
        """Raises ApiError for an address that has used up its failures."""
        self._guard.refuse_blocked(self.caller())

    def count_failure(self) -> None:
        self._guard.count_failure(self.caller())

    # -- tokens ----------------------------------------------------------------------------------

    def bearer(self) -> str | None:
        """What the Authorization header brings along."""
        return self.caller().bearer()

    def grant(self, token: str | None = None) -> Grant:
        """What the given token, or else the bearer's, allows. Raises ApiError."""
        return self._guard.grant(self.caller(), token)

    def refuse_foreign_token(self) -> NoReturn:
        """For a token that is good, but for another session."""
        self._guard.refuse_foreign_token(self.caller())

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
            and is_loopback(self.caller().peer)
            and is_loopback(host_name(request.headers.get("Host", "")))
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
        self._guard.refuse_foreign_origin(self.caller(), request.method)

    def headers(self) -> Mapping[str, str]:
        """Those of every answer, with what lets a page of an allowed origin read it."""
        return self._guard.headers(self.caller())


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


def is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if not _is_address(name):
        return False
    parsed = ip_address(name)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
