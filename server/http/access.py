"""Who is asking, and whether they may."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NoReturn

from quart import request

from server.auth import Grant
from server.callers import Caller, Guard
from server.errors import ApiError
from server.http.services import Services


class Access:
    """Answers for the request at hand, by the rules of `Guard`."""

    def __init__(self, services: Services) -> None:
        self._author_key = services.author_key
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

    def address(self) -> str:
        """The client's."""
        return self._guard.address(self.caller())

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
        """Whether the request may write quizzes and open sessions: it brings the author key along.

        Nothing else counts, neither where it comes from nor what it says of itself: a forwarder on this
        machine makes everybody's requests look like those of whoever sits at it.
        """
        given = self.bearer() or ""
        return hmac.compare_digest(given.encode(), self._author_key.encode())

    def require_author(self) -> None:
        """Raises ApiError for everyone else."""
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
