"""What can be asked of a session. Each may be refused; the answer goes to `reply`.

`id` is the client's own mark on its request and comes back with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from engine.actors.delivery.subscriber import Subscriber
from engine.domain.facts import AnswerAccepted, AnswerMerged, PlayerJoined

Role = Literal["player", "host", "spectator"]

SeatKey = int | Annotated[str, Meta(pattern=r"^host\Z")]
"""A seat: the number of a player, or "host"."""


@dataclass(frozen=True, slots=True)
class Join:
    """Become a new player. With `attach` the reply stays on as the player's subscriber. `name` is what came
    over the wire, None when it was left out. `address` is the network that it came from, as limits count it.
    `ticket` is what whoever waits for the host is known by, when it asks again. Whoever asks has shown the
    token of `former_player` in the session with the id `former_session`, if that is not None.

    Here and below: `generation` is that of a host's token, None where it is none. `may_move` tells that the
    client may be sent to another node. `relay` is the run of a node that seats the client itself, and then
    one frame answers the command: `admitted`."""

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


@dataclass(frozen=True, slots=True)
class Rejoin:
    """Come back with a token that was checked. `code`, when given, must be the session's: the token and
    the code then speak of the same session."""

    reply: Subscriber
    role: Role
    player: int | None = None
    code: str | None = None
    epoch: int | None = None
    offset: int | None = None
    may_move: bool = False
    relay: str | None = None
    generation: int | None = None


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
    """See how the session stands, without a seat in it: answered with one frame, `state` as `role` and
    `player` may see it, or with `top` the `board`: so many from the top, and with `player` those around."""

    reply: Subscriber
    role: Role = "spectator"
    player: int | None = None
    top: int | None = None


@dataclass(frozen=True, slots=True)
class ListPlayers:
    """See who is in, in the order of their numbers: answered with one frame, `players`, with `limit` of those
    whose numbers are above `after` at most; or with `removed` those whom the host has removed."""

    reply: Subscriber
    after: int
    limit: int
    removed: bool = False
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class SubscribeNode:
    """Let a node take part for all of its clients in the session: the reply is pushed each broadcast once,
    and the node passes it on. `node` is its run; a later one of the same run takes its place.

    `epoch` and `offset` tell where its clients stand, and `seats` which players are among them, and "host",
    when it has clients already: because the session has moved, or the link was lost for a moment."""

    reply: Subscriber
    node: str
    epoch: int | None = None
    offset: int | None = None
    seats: Sequence[SeatKey] | None = None


@dataclass(frozen=True, slots=True)
class Flushed:
    """From a node that takes part: every answer that it had received when it was asked so, by the `flush`
    with this number, has been passed on before this."""

    reply: Subscriber
    node: str
    number: int


@dataclass(frozen=True, slots=True)
class Left:
    """From a node that takes part: nobody sits there any more at this place, a player's number or "host"."""

    reply: Subscriber
    node: str
    key: SeatKey


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is the time of receipt in milliseconds; `choice` is what came over the wire. `code`, when given,
    must be the session's."""

    reply: Subscriber
    player: int
    id: str | None
    question: int
    choice: object
    at: int
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """A command of the host. `player` belongs to kick and readmit, and may belong to admit and refuse; `on`
    to lock and approval. With `seen_number` and `seen_phase` it is about that question in that phase, and
    about nothing that the session has gone on to since."""

    reply: Subscriber
    id: str | None
    do: str
    player: int | None = None
    on: bool | None = None
    seen_number: int | None = None
    seen_phase: str | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Of an author: whoever has led the session until now does so no longer. Answered with `host_token`."""

    reply: Subscriber


@dataclass(frozen=True, slots=True)
class Detach:
    """The connection of this subscriber is gone. Unknown subscribers are no error."""

    reply: Subscriber


@dataclass(frozen=True, slots=True)
class Merge:
    """Fold in what an earlier owner had acknowledged. Answered with `done` when that is committed."""

    reply: Subscriber
    facts: Sequence[PlayerJoined | AnswerAccepted | AnswerMerged]


@dataclass(frozen=True, slots=True)
class Erase:
    """Forget the name of a player, which is gone from the store. Without a player: leave memory, because the
    session, which is over, is about to go from the store as well. Answered with `done`."""

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
    | Host
    | TakeOver
    | Detach
    | Merge
    | Erase
)
