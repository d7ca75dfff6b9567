"""Signing in and out, and who it is."""

from __future__ import annotations

import logging

from quart import Response, request

from server.http.authorization import AUTHOR_COOKIE, Access, set_cookie
from server.http.requests import read_query
from server.http.responses import Answer, body_answer, json_answer
from server.http.services import Services
from server.security.client_address import host_name
from server.security.provider import ProviderUnavailable, SignInRefused
from server.security.sign_in import WAITING_S, NoRole
from server.wire.api import authors as types
from server.wire.api.queries import NoQuery, SignInQuery
from server.wire.errors import ApiError

log = logging.getLogger(__name__)

WAITING_COOKIE = "fanfare-sign-in"
BACK = "/login/back"
FAILED = "/login/failed"


class SigningIn:
    def __init__(self, services: Services, access: Access) -> None:
        self._config = services.config
        self._sign_in = services.sign_in
        self._access = access

    async def start(self) -> Answer:
        """To the provider; or to a page that says why not."""
        to = read_query(SignInQuery).to
        if self._sign_in is None:
            return _failed("login_off")
        try:
            started = await self._sign_in.begin(self._redirect_uri(), to)
        except ProviderUnavailable as error:
            log.warning("nobody can sign in: %s", error)
            return _failed("login_unavailable")
        answer = _forward(started.address)
        set_cookie(answer, self._config, WAITING_COOKIE, started.cookie, WAITING_S, path="/login")
        return answer

    async def back(self) -> Answer:
        """From the provider: to the page where the sign-in was begun; or to one that says why not. Whatever
        it is, the sign-in that was begun is over."""
        answer = await self._back()
        set_cookie(answer, self._config, WAITING_COOKIE, "", 0, path="/login")
        return answer

    async def _back(self) -> Answer:
        if self._sign_in is None:
            return _failed("login_off")
        if request.args.get("error") == "access_denied":
            return _failed("login_denied")
        try:
            cookie, to = await self._sign_in.finish(
                self._redirect_uri(),
                request.cookies.get(WAITING_COOKIE),
                request.args.get("state"),
                request.args.get("code"),
            )
        except ProviderUnavailable as error:
            log.warning("nobody can sign in: %s", error)
            return _failed("login_unavailable")
        except SignInRefused as error:
            log.warning("a sign-in was refused: %s", error)
            return _failed("login_failed")
        except NoRole:
            return _failed("login_no_role")
        answer = _forward(to)
        set_cookie(answer, self._config, AUTHOR_COOKIE, cookie, self._config.sign_in_s)
        return answer

    async def me(self) -> Answer:
        """For everybody: nobody is signed in by default."""
        read_query(NoQuery)
        signed_in = self._access.signed_in()
        return json_answer(
            types.Me(
                sign_in=self._sign_in is not None,
                user_id=None if signed_in is None else signed_in.user_id,
                name=None if signed_in is None else signed_in.name,
                admin=signed_in is not None and signed_in.admin,
            )
        )

    async def end(self) -> Answer:
        """Signed out, and nobody signed in before: the same."""
        read_query(NoQuery)
        answer = json_answer(types.SignedOut(signed_out=True))
        set_cookie(answer, self._config, AUTHOR_COOKIE, "", 0)
        return answer

    def _redirect_uri(self) -> str:
        """As the provider knows it: at `public_url`, else where the browser reaches this node."""
        base = self._config.public_url
        if base is None:
            host = request.headers.get("Host", "")
            if not host_name(host):
                raise ApiError("bad_message", "The Host header does not say how this node is reached.")
            base = f"{request.scheme}://{host}"
        return f"{base}{BACK}"


def _failed(code: str) -> Response:
    return _forward(f"{FAILED}?why={code}")


def _forward(address: str) -> Response:
    return body_answer(b"", "text/plain", 302, {"Location": address, "Cache-Control": "no-store"})
