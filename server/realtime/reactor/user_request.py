"""A player's request that brings the identity of a user of the app, instead of the token of a seat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command, Identity
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from server.realtime.conversation import refusal_in
from server.realtime.reactor.port import Port
from server.security.authentication import Caller
from server.security.identity import IdentityError
from server.security.limits import Try
from server.wire.errors import ApiError, rate_limited, too_many_attempts

Make = Callable[[Subscriber, int, str | None, str | None], Command]
"""Makes the command of a request, from where the reply goes, and the player with the code or the user. Raises
ApiError for a body that is none."""


class Reply(Subscriber, Protocol):
    """What answers the request."""

    @property
    def waiting(self) -> bool:
        """Whether the client still waits for the answer."""

    def fail(self, error: ApiError) -> None:
        """Refuse the request."""


class UserRequest:
    """Reads the identity, and asks the session; which player the user is there, the session knows. Subscriber
    in between: a token proves that its session exists, and an identity does not, so the code or id counts as
    a try until the session has spoken.

    Args:
        key: the code or the id of the session, as the client has it.
    """

    __slots__ = ("_caller", "_command", "_key", "_make", "_port", "_reply", "_try")

    def __init__(self, port: Port, caller: Caller, key: str, reply: Reply, make: Make) -> None:
        self._port = port
        self._caller = caller
        self._key = key
        self._reply = reply
        self._make = make
        self._command: Command | None = None
        self._try: Try | None = None

    def begin(self, token: str) -> None:
        self._port.deps.identities.read(token, self._hear_of_identity)

    def _hear_of_identity(self, found: Identity | IdentityError) -> None:
        if not self._reply.waiting:
            return
        try:
            if isinstance(found, IdentityError):
                raise self._port.guard.identity_refused(self._caller, found)
            if not self._port.rate.take("user", found.user_id, self._now()):
                raise rate_limited()
            self._command = self._make(self, 0, None, found.user_id)
            entered = self._try = self._port.guard.enter(self._caller, self._key)
        except ApiError as error:
            self._reply.fail(error)
            return
        if not entered.wait_ms:
            self._ask()
        elif not self._port.deps.call_later(entered.wait_ms / 1000, self._ask):
            entered.unjudged()
            self._reply.fail(too_many_attempts())

    def _ask(self) -> None:
        assert self._command is not None, "it was made before its turn was waited for"
        if self._reply.waiting:
            self._port.deps.sessions.deliver(self._key, self._command)
        elif self._try is not None:
            self._try.wrong(self._now())

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._try is not None:
            self._try.judge(refusal_in(frame), self._now())
        self._reply.push(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if self._try is not None:
            self._try.unjudged()
        self._reply.close(close_reason)

    def _now(self) -> int:
        return self._port.deps.clock.now_ms()
