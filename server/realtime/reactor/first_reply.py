"""What a request over HTTP waits for: the first frame of its session."""

from __future__ import annotations

from typing import Protocol

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from server.security.authentication import Caller
from server.wire.errors import ApiError, busy, refused

REPLY_TIMEOUT_S = 15.0
"""How long a request waits for its session. The command may still be handled; sending it again is safe."""


class Answered(Protocol):
    """Whoever sends the response."""

    def answered(self, caller: Caller, answer: Frame | ApiError) -> None:
        """The session has spoken. May be called by it."""


class FirstReply:
    """Subscriber: takes the first frame of a session for a request. Once `exchange` is None, frames are
    ignored."""

    __slots__ = ("caller", "exchange")

    def __init__(self, exchange: Answered, caller: Caller) -> None:
        self.exchange: Answered | None = exchange
        self.caller = caller

    @property
    def wait_s(self) -> float:
        """How long it waits."""
        return REPLY_TIMEOUT_S

    def expire(self) -> None:
        """The time is over."""
        self.fail(busy())

    @property
    def waiting(self) -> bool:
        """Whether the client still waits for the answer."""
        return self.exchange is not None

    def fail(self, error: ApiError) -> None:
        """Refuse the request."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.answered(self.caller, error)

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.answered(self.caller, refused(frame) if frame.kind == "error" else frame)

    def close(self, close_reason: CloseReason) -> None:  # noqa: ARG002 - Subscriber: whatever it is, try again
        """Subscriber."""
        self.fail(busy())
