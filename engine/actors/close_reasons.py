"""Every way a connection ends: its name, its WebSocket close code, and whether the client reconnects.

Codes below 4000 belong to RFC 6455 and are listed because the client meets them too.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class Reconnect(StrEnum):
    """Whether and how a client reconnects."""

    NO = "no"
    """Do not reconnect."""

    RESUME = "resume"
    """Reconnect at once, after up to 250 ms of jitter, with the token, epoch and offset."""

    LATER = "later"
    """Reconnect with the token after 0.5 to 3 s, chosen at random, doubling from the third
    failure in a row."""

    MOVE = "move"
    """Connect to the address in the preceding `moved`, after the time that it gives."""


class CloseReason(Enum):
    """Members carry (close code, reconnect policy, sentence)."""

    BAD_FRAME = (1003, Reconnect.NO, "only text frames with one JSON object each are understood")
    TOO_LARGE = (1009, Reconnect.NO, "the frame is larger than 4 KiB")
    FAILED = (1011, Reconnect.LATER, "a mistake on the server's side")

    LEFT = (4000, Reconnect.NO, "you left")
    REPLACED = (4001, Reconnect.NO, "this token joined from somewhere else")
    KICKED = (4002, Reconnect.NO, "the host removed you")
    FINISHED = (4003, Reconnect.NO, "the session is over")
    RATE_LIMITED = (4004, Reconnect.LATER, "too many messages")
    TOO_MANY_ATTEMPTS = (4005, Reconnect.LATER, "too many wrong codes or tokens from this address")
    SLOW_CONSUMER = (4006, Reconnect.RESUME, "too far behind")
    PING_TIMEOUT = (4007, Reconnect.RESUME, "no sign of life")
    JOIN_TIMEOUT = (4008, Reconnect.LATER, "no join within the time allowed")
    MOVED = (4009, Reconnect.MOVE, "the session runs on another node")
    SHUTDOWN = (4010, Reconnect.LATER, "the node is going down")
    RESTARTING = (4011, Reconnect.LATER, "the session is being restored")
    UNAVAILABLE = (4012, Reconnect.NO, "the session keeps failing and was taken out of service")
    TAKEN_OVER = (4013, Reconnect.RESUME, "another node runs the session now")

    def __init__(self, code: int, reconnect: Reconnect, sentence: str) -> None:
        self.code = code
        self.reconnect = reconnect
        self.sentence = sentence

    @property
    def reason(self) -> str:
        """The name on the wire: the close frame's reason."""
        return self.name.lower()


BY_CODE: dict[int, CloseReason] = {close_reason.code: close_reason for close_reason in CloseReason}
