"""The commands of a session. Each may be refused; the answer goes to `reply`.

`id` is the mark of the client on its request, and comes back with the answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from engine.actors.delivery.subscriber import Subscriber
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    AttemptBegun,
    DeadlineMoved,
    ExtraTimeGiven,
    PlayerDone,
    PlayerJoined,
    QuestionShown,
)
from engine.trace import Trace

Role = Literal["player", "host", "spectator"]

SeatKey = int | Annotated[str, Meta(pattern=r"^host\Z")]
"""A seat: the number of a player, or "host"."""

USER_ID_CHARS_MAX = 128

UserId = Annotated[str, Meta(min_length=1, max_length=USER_ID_CHARS_MAX)]
"""A user of the app, as the edge has verified it."""

Played = AnswerAccepted | AnswerMerged | QuestionShown | PlayerDone | ExtraTimeGiven | DeadlineMoved
Mergeable = PlayerJoined | AttemptBegun | Played
"""What the next owner of a session takes over from what an earlier owner had acknowledged."""

PAGE_MAX = 1_000
"""Players in one frame."""


def may_be_user_id(text: str) -> bool:
    """Whether a user can have this id: 1 to 128 characters, none of them a control character."""
    return 0 < len(text) <= USER_ID_CHARS_MAX and all(unicodedata.category(each) != "Cc" for each in text)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of the app that the engine is part of, as the edge has verified it; the actor trusts it.

    Attributes:
        user_id: what the app calls the user, opaque here.
        name: what the app says the user is called; None leaves it to the player.
        locale: the user's language, a BCP 47 tag.
        extra_time: the factor, 1 to 4, by which this user has longer to answer, or "untimed".
    """

    user_id: UserId
    name: str | None = None
    locale: str | None = None
    extra_time: float | Literal["untimed"] | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Become a new player; or with the `identity` of a user who has a seat here, come back to it, at `epoch`
    and `offset` as with `Rejoin`.

    With `attach` the reply stays on as the player's subscriber. `name` is the value
    that came over the wire, None when it was left out. `address` is the network of the client, as limits
    count it. `ticket` identifies a player that waits for the host and asks again. If `former_session` is not
    None, the client has shown the token of `former_player` in the session with that id.

    Here and below: `trace` is that of the request, if it has one. `generation` is that of a host's token,
    None for any other client. `may_move` tells whether the client may be sent to another node. `relay` is
    the run of a node that seats the client itself; one frame, `admitted`, then answers the command."""

    reply: Subscriber
    name: object
    at: int
    attach: bool = True
    may_move: bool = False
    relay: str | None = None
    address: str | None = None
    ticket: str | None = None
    former_session: str | None = None
    former_player: int | None = None
    identity: Identity | None = None
    epoch: int | None = None
    offset: int | None = None
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Rejoin:
    """Come back with a token that was checked. `code`, when given, must be the session's: the token and
    the code then belong to the same session.

    Here and below: with `user` it is the player that this user is here, and `player` says nothing."""

    reply: Subscriber
    role: Role
    player: int | None = None
    code: str | None = None
    epoch: int | None = None
    offset: int | None = None
    may_move: bool = False
    relay: str | None = None
    generation: int | None = None
    user: UserId | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Become a spectator."""

    reply: Subscriber
    epoch: int | None = None
    offset: int | None = None
    may_move: bool = False
    relay: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """See the state of the session without a seat in it. One frame answers: `look`, with the state as `role`
    and `player` may see it; or with `top` the `board`, that many lines from the top, and with `player` the
    lines around that player."""

    reply: Subscriber
    role: Role = "spectator"
    player: int | None = None
    top: int | None = None
    user: UserId | None = None


@dataclass(frozen=True, slots=True)
class ListPlayers:
    """List the players in the order of their numbers. One frame answers: `players`, with at most `limit`
    players whose numbers are above `after`. With `removed` it lists the players that the host has removed."""

    reply: Subscriber
    after: int
    limit: int
    removed: bool = False
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class SubscribeNode:
    """Subscribe a node for all of its clients: each broadcast is pushed to the reply once, and the node
    relays it. `node` is its run; a later subscription of the same run replaces an earlier one.

    A node that has clients already, because the session has moved or the link was lost for a moment, gives
    their position in the stream (`epoch`, `offset`), and in `seats` the players, and "host", among them."""

    reply: Subscriber
    node: str
    epoch: int | None = None
    offset: int | None = None
    seats: Sequence[SeatKey] | None = None


@dataclass(frozen=True, slots=True)
class Flushed:
    """From a subscribed node: it has passed on every answer that it had received when the `flush` with this
    number arrived."""

    reply: Subscriber
    node: str
    number: int


@dataclass(frozen=True, slots=True)
class Left:
    """From a subscribed node: no client of it has the seat `key` any more."""

    reply: Subscriber
    node: str
    key: SeatKey


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the open question. `at` is when the node read it, in milliseconds. It had lain in the kernel for
    `held_ms` before (None: it had not). `choice` is the value that came over the wire. `code`, when given,
    must be the session's. `request_id` is that of the HTTP request that brought it, for the log. Here and
    below: `attempt` is which of the player's attempts is meant, at the own pace; None: the first."""

    reply: Subscriber
    player: int
    id: str | None
    question: int
    choice: object
    at: int
    code: str | None = None
    held_ms: int | None = None
    trace: Trace | None = None
    user: UserId | None = None
    request_id: str | None = None
    attempt: int | None = None

    @property
    def received_at(self) -> int:
        """When the kernel of the node had it, in milliseconds."""
        return self.at - (self.held_ms or 0)


@dataclass(frozen=True, slots=True)
class Next:
    """Show the player the next question, in a session in which players go at their own pace; or again the one
    that the player has not answered yet; the first of an attempt that has not begun, once the one before is
    over. One frame answers: `question`, or `done_all`. `code`, when given,
    must be the session's."""

    reply: Subscriber
    player: int
    id: str | None = None
    code: str | None = None
    user: UserId | None = None
    attempt: int | None = None


Retry = Answer | Next
"""Commands that a client may send again without harm."""


@dataclass(frozen=True, slots=True)
class Host:
    """A command of the host. `player` belongs to kick, readmit and extra_time, and may belong to admit and
    refuse; `on` to lock and approval; `percent`, 0 for no limit, to extra_time; `closes_at`, in milliseconds
    since the epoch, to extend. With `seen_number` and
    `seen_phase` the command is refused if the session is no longer at that question and in that phase."""

    reply: Subscriber
    id: str | None
    do: str
    player: int | None = None
    on: bool | None = None
    seen_number: int | None = None
    seen_phase: str | None = None
    closes_at: int | None = None
    generation: int | None = None
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class TakeOver:
    """From an author: replace the host. The tokens of earlier hosts become invalid. Answered with
    `host_token`."""

    reply: Subscriber


@dataclass(frozen=True, slots=True)
class Detach:
    """The connection of this subscriber is gone. Unknown subscribers are no error."""

    reply: Subscriber


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge facts that an earlier owner had acknowledged. Answered with `done` when they are committed."""

    reply: Subscriber
    facts: Sequence[Mergeable]


@dataclass(frozen=True, slots=True)
class Erase:
    """Forget the name of a player, which was deleted from the store. Without a player: leave memory, because
    the session, which is over, is about to be deleted from the store. Answered with `done`."""

    reply: Subscriber
    player: int | None = None


Command = (
    Join
    | Rejoin
    | Watch
    | Look
    | ListPlayers
    | SubscribeNode
    | Flushed
    | Left
    | Answer
    | Next
    | Host
    | TakeOver
    | Detach
    | Merge
    | Erase
)
