"""Authorization of requests: which of them need which token or key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NoReturn

import trio
from quart import Response, g, request

from engine.actors.commands import Identity
from server.config.config import Config
from server.http.services import Services
from server.security.authentication import Caller, Guard, one_token
from server.security.authors import MACHINE, Author
from server.security.identity import IdentityError, is_identity
from server.security.limits import Attempts, network_of
from server.security.tokens import Grant, TokenError
from server.wire.errors import ApiError, too_many_attempts

AUTHOR_COOKIE = "fanfare-author"


def set_cookie(
    response: Response, config: Config, name: str, value: str, max_age_s: int, path: str = "/"
) -> None:
    """Of this node alone, out of reach of scripts, and not sent along when another site's page asks for
    anything but a page. With 0 seconds it is deleted."""
    secure = config.tls_cert is not None or (config.public_url or "").startswith("https:")
    response.set_cookie(
        name, value, max_age=max_age_s, path=path, secure=secure, httponly=True, samesite="Lax"
    )


class Access:
    """Answers for the request at hand, by the rules of `Guard`."""

    def __init__(self, services: Services) -> None:
        self._author_key = services.author_key
        self._sign_in = services.sign_in
        self._config = services.config
        self._tokens = services.tokens
        self._clock = services.clock
        self._identities = services.identities
        # Of their own: a class that mistypes its code must not keep its teacher from opening another.
        self._keys = Attempts(services.config.attempts_per_min)
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

    @asynccontextmanager
    async def trying(self, code: str) -> AsyncIterator[None]:
        """Around the search for a session by its code or id, which might be a guess: waits for its turn.
        Raises ApiError for an address that has too many waiting; then nothing was searched."""
        entered = self._guard.enter(self.caller(), code)
        try:
            if entered.wait_ms:
                await trio.sleep(entered.wait_ms / 1000)
            yield
        except ApiError as error:
            if error.code == "session_not_found":
                entered.wrong(self._clock.now_ms())
            else:
                entered.unjudged()
            raise
        except BaseException:
            entered.wrong(self._clock.now_ms())  # nobody waits for the answer
            raise
        entered.good()

    def network(self) -> str:
        """Where the request comes from, as limits count it."""
        return network_of(self._guard.address(self.caller()))

    def know(self, code: str) -> None:
        """Note that the client of this request has shown a token of the session with this code."""
        self._guard.know(self.caller(), code)

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

    async def identity(self, token: str | None) -> Identity | None:
        """Who the given identity token, or else that of the bearer, is of; None for a guest. Raises ApiError,
        also if they differ."""
        shown = self.bearer() if self.shows_identity() else None
        token = one_token(token, shown, "identity")
        if token is not None:
            return await self._read_identity(token)
        refusal = self._identities.refuse_guest()
        if refusal is not None:
            raise ApiError(refusal.code, refusal.message, "identity")
        return None

    def shows_identity(self) -> bool:
        """Whether the bearer looks like the identity of a user."""
        bearer = self.bearer()
        return bearer is not None and is_identity(bearer)

    async def seat(self) -> Grant | Identity:
        """Who the bearer says that the request is from: of which seat, or of which user of the app. Raises
        ApiError."""
        bearer = self.bearer()
        if bearer is not None and is_identity(bearer):
            return await self._read_identity(bearer)
        return self.grant()

    async def _read_identity(self, token: str) -> Identity:
        try:
            return await self._identities.wait_read(token)
        except IdentityError as error:
            raise self._guard.identity_refused(self.caller(), error) from None

    # -- authors ---------------------------------------------------------------------------------

    def author(self) -> Author | None:
        """The author whose request this is: it carries the author key. None for everybody else. Raises
        ApiError for a bearer that is neither the key nor a token of a session.

        Neither the address nor any header makes an author: behind a forwarder on this machine all requests
        seem to come from this machine.
        """
        given = self.bearer()
        if given is None:
            author = self.signed_in()
            if author is not None:
                self._guard.refuse_cookie_from_elsewhere(self.caller(), request.method)
            return author
        if self.shows_author_key():
            self._show_key(given)
            return MACHINE
        try:
            self._tokens.read(given)
        except TokenError as error:
            if error.code == "token_invalid":
                self._show_key(given, wrong=True)
                raise ApiError("token_invalid", "This is neither the author key nor a token.") from None
            raise ApiError(error.code, error.message) from None
        return None

    def shows_author_key(self) -> bool:
        """Whether the bearer is the author key. Nothing is counted."""
        given = self.bearer()
        return given is not None and hmac.compare_digest(given.encode(), self._author_key.encode())

    async def user_or_author(self) -> str | None:
        """The user of the identity token that the request carries; None for the author key, and for an admin
        who has signed in. Raises ApiError for everyone else."""
        given = self.bearer()
        if given is None:
            author = self.author()
            if author is not None:
                author.require_admin()
                return None
            raise ApiError("token_missing", "This needs the identity token of a user, or the author key.")
        if self.shows_author_key():
            self._show_key(given)
            return None
        if is_identity(given):
            return (await self._read_identity(given)).user_id
        self._show_key(given, wrong=True)
        raise ApiError("token_invalid", "This is neither an identity token nor the author key.")

    def require_author(self) -> Author:
        """Raises ApiError for everybody else."""
        author = self.author()
        if author is not None:
            return author
        if self.bearer() is None:
            raise ApiError("token_missing", "This needs Authorization: Bearer <author_key>, or to sign in.")
        raise ApiError("token_invalid", "This is not the author key.")

    def signed_in(self) -> Author | None:
        """The author by the cookie of the request; None for one that is too old, or was not made here."""
        if self._sign_in is None:
            return None
        found = self._sign_in.read(request.cookies.get(AUTHOR_COOKIE))
        if found is None:
            return None
        if found.renewed is not None:
            g.author_cookie = found.renewed
        return found.author

    def renew(self, response: Response) -> None:
        """Send a fresh cookie, if the request has shown that it is time for that."""
        renewed = g.pop("author_cookie", None)
        if renewed is not None:
            set_cookie(response, self._config, AUTHOR_COOKIE, renewed, self._config.sign_in_s)

    def _show_key(self, key: str, *, wrong: bool = False) -> None:
        """Count a try. Raises ApiError for an address that has used up its tries: then the key must not be
        told from others."""
        mark = hashlib.sha256(key.encode()).hexdigest()
        now = self._clock.now_ms()
        entered = self._keys.enter(self._guard.address(self.caller()), mark, now)
        if entered is None or entered.wait_ms:
            if entered is not None:
                entered.unjudged()
            raise too_many_attempts()
        if wrong:
            entered.wrong(now)
        else:
            entered.good()

    # -- web origins -----------------------------------------------------------------------------

    def refuse_foreign_origin(self) -> None:
        """Raises ApiError if a page of neither this node nor an allowed origin wants to change something."""
        self._guard.refuse_foreign_origin(self.caller(), request.method)

    def headers(self) -> Mapping[str, str]:
        """Those of every answer, with what lets a page of an allowed origin read it."""
        return self._guard.headers(self.caller())
