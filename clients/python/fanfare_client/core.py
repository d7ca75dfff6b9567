"""One seat in one session, without socket, clock or task: what to say, what to pass on, when to come back.

How to think about it: the shell (`connection.py`) opens connections and sleeps; the core decides. The
shell gives it each message (`hear`) and each loss (`lost`), and carries out what it returns. A request
stays `outstanding` until its reply is here, over as many connections as it takes; only a host's command is
given up with its connection, because to say it twice is for the host to decide.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from fanfare_client.reconnect import NOT_YET, Policy, after_close, delay_s
from fanfare_client.seat import BROADCASTS, PASSING, Message, Seat

TEMPORARY = NOT_YET | {"unreachable", "internal", "too_many_connections", "request_timeout", "join_timeout"}
"""Codes of errors after which the same request may go through."""

EXPECTING = frozenset({"start", "next", "close", "skip"})
"""The host's commands that are about what the host saw."""


class FanfareError(Exception):
    """A refusal of the node, or why a connection is over; `unreachable` when there was no answer.

    `code` is stable (docs/protocol.md), `message` is a sentence for a person, `path` the member that it is
    about.
    """

    def __init__(self, code: str, message: str = "", path: str | None = None) -> None:
        super().__init__(code, message, path)
        self.code = code
        self.message = message
        self.path = path

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" if self.message else self.code

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may go through a little later."""
        return self.code in TEMPORARY

    @classmethod
    def told(cls, error: Message) -> FanfareError:
        """The one that an `error` tells of."""
        return cls(str(error.get("code", "internal")), str(error.get("message", "")), error.get("path"))


@dataclass(frozen=True, slots=True)
class Retry:
    """Come back after so many seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over, and this is why: a reason such as `finished` or `kicked`, or a refusal."""

    error: FanfareError


@dataclass(slots=True)
class Heard:
    """What follows from a message."""

    events: list[Message] = field(default_factory=list)
    """To pass on."""
    send: list[Message] = field(default_factory=list)
    """To say now, on the same connection."""
    settled: list[tuple[str, Message]] = field(default_factory=list)
    """Requests by their id, and their replies."""
    later: list[str] = field(default_factory=list)
    """Requests to say once more in a second or two: the node had no room for them."""
    join_again_s: float | None = None
    """When to say `join` again: the host has yet to let the player in."""
    over: Retry | Ended | None = None
    """What comes after the connection, if it is over."""


def may_pass(error: FanfareError, kind: str) -> bool:
    """Whether a request of this kind, refused for this, is said again a little later."""
    return kind != "host" and (error.is_temporary or (kind == "answer" and error.code == "not_open_yet"))


class ServerClock:
    """The server's clock in ms, as it is seen from a clock of one's own that is passed in, in ms too."""

    __slots__ = ("_ahead", "_round_trip")

    def __init__(self) -> None:
        self._ahead = float("-inf")
        self._round_trip = float("inf")

    def at(self, here: float) -> float:
        return here + self._ahead

    def measured(self, asked: float, received: float, now: float) -> None:
        """A `pong`. The quickest one tells best."""
        if received - asked <= self._round_trip:
            self._round_trip = received - asked
            self._ahead = now - (asked + received) / 2

    def heard(self, here: float, now: float) -> None:
        """Something was said at `now`: the server is at least that far ahead."""
        self._ahead = max(self._ahead, now - here)


class Core:
    """Args:
    code: the six digits.
    who: the members of the first `join` that say who joins: `name`, `token`, `identity`, `role`, `former`.
    rng: for the time until it comes back.
    """

    def __init__(self, code: str, who: Message, rng: random.Random) -> None:
        self.seat = Seat(code, who.pop("token", None))
        self.clock = ServerClock()
        self.outstanding: dict[str, Message] = {}
        self.joined: Message | None = None
        """The first one."""
        self.is_in = False
        self.look_again = True
        """Whether to ask where the session is, before the next connection."""
        self.urls: list[str] = []
        self._who = who
        self._rng = rng
        self._at = 0
        self._failures = 0
        self._moved: Message | None = None
        self._seen: Message | None = None
        self._opens: tuple[int, float] | None = None
        """The number of a question, and when it takes answers, by the clock of one's own in ms."""
        self._last_id = 0
        self._attempt = 1
        """Which attempt this player is in, where players go at their own pace."""

    # -- connections ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The WebSocket to try next."""
        return self.urls[self._at % len(self.urls)]

    def found(self, url: str) -> None:
        """Take in where the session is."""
        if url not in self.urls:
            self.urls.append(url)
        self._at = self.urls.index(url)
        self.look_again = False

    def join(self) -> Message:
        """What to begin a connection with."""
        return self.seat.join() if self.seat.token is not None else self.seat.join(**self._who)

    @property
    def body(self) -> Message:
        """The same for a request."""
        return dict(self._who)

    @property
    def last_event_id(self) -> str | None:
        """Where the seat stands, for an event stream."""
        return None if self.seat.epoch is None else f"{self.seat.epoch}:{self.seat.offset}"

    def lost(
        self, code: int | None = None, reason: str | None = None, policy: Policy | None = None
    ) -> Retry | Ended:
        """What comes after a connection. `code` is that of the close frame, None without one."""
        self.is_in = False
        policy = after_close(code) if policy is None else policy
        if policy is Policy.NO:
            return Ended(FanfareError(reason or "closed"))
        if policy is Policy.MOVE and self._moved is not None:
            moved, self._moved = self._moved, None
            self.found(str(moved["url"]))
            return Retry(int(moved["after_ms"]) / 1000)
        pause = delay_s(policy, self._failures, self._rng)
        self._failures += 1
        if policy is not Policy.RESUME:
            self._at += 1
            self.look_again = True
        return Retry(pause)

    def refused(self, error: FanfareError) -> Retry | Ended:
        """What comes after a refusal to join."""
        return self.lost(policy=Policy.LATER) if error.is_temporary else Ended(error)

    def given_up(self) -> list[str]:
        """Requests that end with their connection, which is over. They are outstanding no more."""
        ids = [mark for mark, message in self.outstanding.items() if message["t"] == "host"]
        for mark in ids:
            del self.outstanding[mark]
        return ids

    # -- requests ---------------------------------------------------------------------------------

    def ask(self, kind: str, **members: Any) -> Message:
        """A request under an id of its own. It is outstanding from now on."""
        self._last_id += 1
        mark = f"{self._rng.getrandbits(48):x}.{self._last_id}"
        message: Message = {"t": kind, "id": mark}
        if kind in ("answer", "next") and self._attempt > 1:
            message["attempt"] = self._attempt
        if kind == "host" and members.get("do") in EXPECTING and self._seen is not None:
            message["expect"] = self._seen
        self.outstanding[mark] = message | members
        return self.outstanding[mark]

    def opens_in_ms(self, question: int, here: float) -> float:
        """How long the question takes no answers yet."""
        number, at = self._opens or (None, here)
        return at - here if number == question else 0.0

    # -- messages ---------------------------------------------------------------------------------

    def hear(self, message: Message, here: float) -> Heard:
        """Take in a message; `here` is the time of the clock of one's own, in ms."""
        kind = message["t"]
        heard = Heard()
        state = message.get("state") or message
        now = state.get("now")
        if isinstance(state.get("opens_in_ms"), int | float):
            self._opens = state["number"], here + state["opens_in_ms"]
        if kind == "pong":
            self.clock.measured(message["at"], here, message["now"])
            return heard
        if now:
            self.clock.heard(here, now)
        if kind == "moved":
            self._moved = message
        elif kind == "close":
            heard.over = self.lost(message["code"], message["reason"], Policy(message["reconnect"]))
        elif kind == "waiting":
            self._who = {**self._who, "ticket": message["ticket"]}
            heard.join_again_s = message["again_ms"] / 1000
            heard.events.append(message)
        elif kind == "error":
            self._hear_error(message, heard)
        elif kind == "joined":
            self._hear_joined(message, heard)
        elif kind != "alive":
            self._hear_event(message, heard)
        return heard

    def _hear_error(self, message: Message, heard: Heard) -> None:
        error, mark = FanfareError.told(message), message.get("id")
        request = self.outstanding.get(str(mark))
        if request is None:
            if not self.is_in:
                heard.over = self.refused(error)
        elif may_pass(error, request["t"]):
            heard.later.append(str(mark))
        else:
            self._settle(str(mark), message, heard)

    def _hear_joined(self, message: Message, heard: Heard) -> None:
        wrong = self.seat.joined(message)
        if wrong is not None:
            self.seat.epoch = None  # the whole state, next time
            heard.over = self.lost(policy=Policy.LATER)
            return
        self.is_in = True
        self._failures = 0
        self.joined = self.joined or message
        if message["state"] is not None:
            self._notice("state", message["state"])
        heard.events.append(message)
        heard.send += self.outstanding.values()

    def _hear_event(self, message: Message, heard: Heard) -> None:
        kind = message["t"]
        if kind in BROADCASTS and "offset" in message and not self.seat.in_order(message["offset"]):
            return
        if kind in PASSING:
            self.seat.up_to(message["offset"])
        self._notice(kind, message)
        mark = message.get("id")
        if mark is not None and str(mark) in self.outstanding:
            self._settle(str(mark), message, heard)
        heard.events.append(message)

    def _settle(self, mark: str, reply: Message, heard: Heard) -> None:
        del self.outstanding[mark]
        heard.settled.append((mark, reply))

    def _notice(self, kind: str, message: Message) -> None:
        """What a host's command will be about, and the attempt that a player's request belongs to."""
        told = message.get("attempt") or (message.get("you") or {}).get("attempt") or 1
        self._attempt = max(self._attempt, told)
        if kind in ("question", "reveal"):
            self._seen = {"number": message["number"], "phase": kind}
        elif kind == "state":
            self._seen = {"number": message["number"], "phase": message["phase"]}
