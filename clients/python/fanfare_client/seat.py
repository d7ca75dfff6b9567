"""What every client of `fanfare.v1` keeps and decides, whatever it speaks over: no socket, no clock, no task.

How to think about it: a connection comes and goes, a `Seat` stays. It knows with what to join again, and
which broadcast is the next. The client of this package stands on it, and so do those of the load harness.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Message = dict[str, Any]

BROADCASTS = frozenset({"question", "reveal", "state", "finished"})
"""Numbered by `offset`, without gaps."""

PASSING = frozenset({"leaderboard", "progress"})
"""Carry the offset of the last broadcast before them; a newer one replaces an older one."""

NOT_NOW = frozenset({"busy", "rate_limited"})
"""Codes of errors that say: the same request again in a moment."""

MOVES_MAX = 8
"""`moved` in a row without a `joined` between: more is a circle."""

SETTLE_S = 10.0
"""How long a client stays after `finished` for answers to its last requests."""

NAMES_MAX = 10
"""Names that a new player tries when the answers to its joins were lost."""

_NAME_CHARS_MAX = 28


class Gap(NamedTuple):
    """A broadcast that should have come and did not."""

    epoch: int
    expected: int
    got: int


class Seat:
    """The place of a client in a session: what it comes back with, and how far it has heard.

    Args:
        code: the six digits of the session.
        token: of the host, or of a player who was in before.
        gaps: where to note broadcasts that should have come and did not.
    """

    __slots__ = ("code", "epoch", "gaps", "joins", "offset", "token")

    def __init__(self, code: str, token: str | None = None, gaps: list[Gap] | None = None) -> None:
        self.code = code
        self.token = token
        self.epoch: int | None = None
        self.offset = 0
        self.gaps = [] if gaps is None else gaps
        self.joins = 0
        """How often a new player has asked under a name."""

    def join(self, *, name: str | None = None, **members: object) -> Message:
        """The message to begin a connection with. `name` is left out once there is a token."""
        message: Message = {"t": "join", "code": self.code}
        if self.token is not None:
            message["token"] = self.token
        elif name is not None:
            message["name"] = name
            self.joins += 1
        if self.epoch is not None:
            message |= {"epoch": self.epoch, "offset": self.offset}
        return message | members

    def joined(self, message: Message) -> str | None:
        """Take in a `joined`. Returns what is wrong with it, or None.

        With `state` the server shows the whole picture and names the position; without, what was missed
        follows, and the position is still the client's own.
        """
        if message["token"] is not None:
            self.token = message["token"]
        if message["state"] is not None:
            self.epoch, self.offset = message["epoch"], message["offset"]
        elif message["epoch"] != self.epoch:
            return f"resumed in epoch {message['epoch']}, asked for {self.epoch}"
        return None

    def in_order(self, offset: int) -> bool:
        """Take in a numbered broadcast. Returns whether it is new; a missing one before it is a gap."""
        if offset <= self.offset:
            return False
        if offset != self.offset + 1:
            self.gaps.append(Gap(self.epoch or 0, self.offset + 1, offset))
        self.offset = offset
        return True

    def up_to(self, offset: int) -> None:
        """Take in that all broadcasts up to this one have been sent."""
        if offset > self.offset:
            self.gaps.append(Gap(self.epoch or 0, self.offset + 1, offset + 1))
            self.offset = offset

    def another_name(self, wanted: str) -> str | None:
        """After `name_taken`: what to ask for instead. When the answer to an earlier join was lost, this very
        player may have the name. None when the name is another player's, or too many were tried."""
        if self.token is None and 1 < self.joins < NAMES_MAX:
            return f"{wanted[:_NAME_CHARS_MAX]} {self.joins}"
        return None
