"""The messages of `fanfare.v1`: what clients say over the WebSocket, and what they hear there or on an event
stream.

These types describe; `asyncapi.json` is made from them, and a test holds whole conversations and `parse`
against them. What comes in is judged by `server/wire/protocol.py`, and what goes out is made by
`engine/actors/messages.py`, shared by all who hear it. What the HTTP API has as well is the same type.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from engine.actors.close_reasons import Reconnect
from engine.domain.phases import Phase
from server.wire import protocol
from server.wire.api import playing, sessions
from server.wire.api.common import Body, Code, Id, Milliseconds
from server.wire.api.playing import (
    AttemptNumber,
    AttemptScore,
    Choice,
    Factor,
    OwnResult,
    Reviewed,
    Ticket,
    Traceparent,
    WaitingPlayer,
)
from server.wire.api.sessions import AnswerCounts, Attempts, Line, ShownCounts

Token = Annotated[str, Meta(min_length=1, max_length=protocol.TOKEN_CHARS_MAX)]
Position = Annotated[
    Annotated[int, Meta(ge=0)] | UnsetType,
    Meta(description="Where the client stands: that of the last broadcast that it has heard."),
]
Offset = Annotated[int, Meta(description="The number of the broadcast, without gaps.")]
LastOffset = Annotated[int, Meta(description="That of the last broadcast before it: it takes none itself.")]
Now = Annotated[Milliseconds, Meta(description="The server's clock.")]


# -- client to server ------------------------------------------------------------------------------


class JoinAsPlayer(Body, tag_field="t", tag="join", kw_only=True):
    """A new player."""

    code: Code
    name: Annotated[str | UnsetType, Meta(description="Needed where players choose their names.")] = UNSET
    ticket: Annotated[
        Ticket | UnsetType,
        Meta(description="Of a player who asks again whether the host lets that player in."),
    ] = UNSET
    former: Annotated[
        Token | UnsetType, Meta(description="The token of the player that the same device was before.")
    ] = UNSET
    traceparent: Traceparent = UNSET


class JoinAsUser(JoinAsPlayer, tag="join", kw_only=True):
    """A user of the app: as a new player, or as the player that this user is."""

    identity: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=protocol.IDENTITY_CHARS_MAX,
            description="A JWT with which the app tells who its user is (docs/embedding.md).",
        ),
    ]
    epoch: Position = UNSET
    offset: Position = UNSET


class JoinAgain(Body, tag_field="t", tag="join", kw_only=True):
    """A player, host or spectator who comes back, and a host at first."""

    code: Code
    token: Token
    epoch: Position = UNSET
    offset: Position = UNSET
    traceparent: Traceparent = UNSET


class JoinToWatch(Body, tag_field="t", tag="join", kw_only=True):
    """A spectator."""

    code: Code
    role: Literal["spectator"]
    epoch: Position = UNSET
    offset: Position = UNSET
    traceparent: Traceparent = UNSET


class Answer(playing.Answer, tag_field="t", tag="answer"):
    """An answer of a player."""


class Next(Body, tag_field="t", tag="next"):
    """The next question, in a session in which players go at their own pace."""

    id: Id | UnsetType = UNSET
    attempt: Annotated[
        Annotated[int, Meta(ge=1)] | UnsetType,
        Meta(
            description="Which attempt of the player's is meant; the first by default. One that follows an "
            "attempt that is over begins with this."
        ),
    ] = UNSET


class Ping(Body, tag_field="t", tag="ping"):
    """Asks for the server's clock, and whether the connection is alive."""

    at: Annotated[float, Meta(description="The client's own clock, whatever it counts; `pong` carries it.")]


class Leave(Body, tag_field="t", tag="leave"):
    """The connection closes with `left`. The seat stays."""


# -- server to client: the whole picture -----------------------------------------------------------


class AskedQuestion(sessions.Question, kw_only=True):
    """The question that is open, paused, or was closed last."""

    correct: Annotated[Any, Meta(description="To the host alone, as in `reveal`.")] = UNSET
    now: Annotated[Milliseconds | UnsetType, Meta(description="With the pace self: the server's clock.")] = (
        UNSET
    )
    attempt: AttemptNumber = UNSET


class GivenAnswer(Body):
    """The answer of a player to the current question."""

    question: int
    choice: Choice
    elapsed_ms: int


class LastResult(Body, kw_only=True):
    """As `result`; with the pace self as in `ack`."""

    number: int
    correct: bool | None
    points: int
    score: int | None
    rank: int | None
    streak: int | None
    around: list[Line] | UnsetType = UNSET
    skipped: Literal[True] | UnsetType = UNSET
    answer: Annotated[Any, Meta(description="With the pace self: what is right.")] = UNSET
    attempt_score: AttemptScore = UNSET


class You(Body, kw_only=True):
    """A player's own part of the picture."""

    player: int
    name: str
    score: Annotated[int | None, Meta(description="Null for a player who may not know it yet.")]
    rank: int | None
    streak: int | None
    answered: Annotated[GivenAnswer | None, Meta(description="To the current question.")]
    result: Annotated[LastResult | None, Meta(description="Of the current question once it is closed.")]
    watches: Annotated[
        int | UnsetType, Meta(description="The question that this player joined too late to answer.")
    ] = UNSET
    done: Annotated[
        bool | UnsetType, Meta(description="With the pace self: whether the player is through.")
    ] = UNSET
    review: Annotated[list[Reviewed] | UnsetType | None, Meta(description="With the pace self.")] = UNSET
    attempt: AttemptNumber = UNSET
    attempt_score: AttemptScore = UNSET


class QuizQuestion(Body):
    """One question of the quiz, to the host of a session in which players go at their own pace."""

    text: str
    correct: Any


class State(sessions.State, kw_only=True):
    """The whole picture, for a seat that comes in."""

    question: AskedQuestion | None
    you: Annotated[You | None, Meta(description="Null unless a player.")]  # type: ignore[assignment]  # of a spectator it is always null
    asked: Annotated[
        list[QuizQuestion] | UnsetType,
        Meta(description="To the host, with the pace self: the questions as the quiz has them."),
    ] = UNSET


# -- server to client: the messages ----------------------------------------------------------------


class Joined(Body, tag_field="t", tag="joined", kw_only=True):
    """The seat is in."""

    player: Annotated[int | None, Meta(description="Null for host and spectator, and so is `name`.")]
    token: Annotated[str, Meta(description="What the client comes back with.")]
    name: str | None
    session: str
    code: Code
    role: Literal["player", "host", "spectator"]
    state: Annotated[
        State | None, Meta(description="Null if the client has resumed: then what it missed follows.")
    ]
    epoch: int
    offset: Offset
    shuffle: Annotated[
        Annotated[int, Meta(ge=0, lt=2**32)] | UnsetType,
        Meta(description="The seed of the order in which this player sees choices."),
    ] = UNSET
    extra_time: Factor | UnsetType = UNSET


class Waiting(playing.Waiting, tag_field="t", tag="waiting"):
    """The host has yet to let this player in: ask again, with the ticket, after that time."""


class Moved(Body, tag_field="t", tag="moved"):
    """The session runs on another node."""

    url: Annotated[str, Meta(description="Where to open the next WebSocket.")]
    after_ms: Annotated[int, Meta(ge=0)]


class Error(Body, tag_field="t", tag="error", kw_only=True):
    """A refusal; docs/protocol.md lists the codes."""

    id: str | UnsetType = UNSET
    code: Annotated[str, Meta(description="Stable and machine-readable.")]
    message: Annotated[str, Meta(description="One sentence for a person.")]
    path: Annotated[str | UnsetType, Meta(description="The member that it is about.")] = UNSET


class Question(sessions.Question, tag_field="t", tag="question", kw_only=True):
    """A question is shown. It takes answers once `opens_in_ms` have passed."""

    now: Now
    offset: Annotated[
        int | UnsetType, Meta(description="The number of the broadcast; absent with the pace self.")
    ] = UNSET
    id: Annotated[str | UnsetType | None, Meta(description="With the pace self: that of `next`.")] = UNSET
    correct: Annotated[Any, Meta(description="To the host alone, as in `reveal`.")] = UNSET
    missed: Annotated[
        OwnResult | UnsetType,
        Meta(description="With the pace self: of the question before, if its time was over."),
    ] = UNSET
    attempt: AttemptNumber = UNSET


class Leaderboard(sessions.Standing, tag_field="t", tag="leaderboard"):
    """The first ten. An older one gives way to a newer one."""

    offset: LastOffset
    tick_ms: Annotated[int, Meta(description="The least time to the next one.")]


class Progress(Body, tag_field="t", tag="progress"):
    """How many have answered the open question; with the pace self how many players are through."""

    offset: LastOffset
    number: int
    answered: int
    players: int
    shown: ShownCounts = UNSET
    answers: AnswerCounts = UNSET


class Ack(playing.Ack, tag="ack"):
    """The answer is stored."""


class Revealed(sessions.Reveal, tag_field="t", tag="reveal", kw_only=True):
    """What is right in the question that was closed."""

    offset: Offset


class Result(Body, tag_field="t", tag="result", kw_only=True):
    """To each player after a reveal."""

    number: int
    correct: Annotated[bool | None, Meta(description="Null if the player has not answered.")]
    points: int
    score: int
    rank: int
    streak: int
    around: Annotated[
        list[Line], Meta(max_length=5, description="Up to two players ahead and behind, and this one.")
    ]
    skipped: Annotated[
        Literal[True] | UnsetType, Meta(description="Only there when the question counts for nobody.")
    ] = UNSET


class StateChange(Body, tag_field="t", tag="state", kw_only=True):
    """After pause, resume, lock and approval, and when the clock or the deadline is another."""

    offset: Offset
    phase: Phase
    locked: bool
    approval: bool
    number: int
    remaining_ms: int | None
    opens_in_ms: int | None
    now: Now
    over_ms: int | UnsetType = UNSET
    extended_ms: Annotated[
        int | UnsetType, Meta(description="The node had stood still for so long, and the countdown got it.")
    ] = UNSET
    closes_at: Annotated[
        Milliseconds | UnsetType | None, Meta(description="With the pace self: the deadline.")
    ] = UNSET


class OwnPlace(Body):
    """Where a player came out."""

    rank: int
    score: int


class Finished(Body, tag_field="t", tag="finished"):
    """The session is over, and all that counts is stored."""

    offset: Offset
    podium: Annotated[list[Line], Meta(max_length=10)]
    you: Annotated[OwnPlace | None, Meta(description="Null unless a player.")]


class RosterLine(Body):
    """A player who is new, or has got extra time."""

    id: int
    name: str
    extra_time: Factor | UnsetType = UNSET


class Way(Body):
    """Where a player is who goes at the own pace."""

    id: int
    question: Annotated[int | None, Meta(description="That was shown last, as the quiz numbers it.")]
    at: Annotated[int, Meta(description="Its number on the way of this player; 0 before the first.")]
    waits: Annotated[bool, Meta(description="Whether it has no answer yet.")]
    since: Annotated[Milliseconds | None, Meta(description="When the player was shown it.")]
    done: Annotated[bool, Meta(description="Whether the player is through.")]
    attempt: Annotated[
        int | UnsetType,
        Meta(description="Where players have several attempts: in which one the player is."),
    ] = UNSET


class Roster(Body, tag_field="t", tag="roster"):
    """To the host: what has changed among the players."""

    joined: list[RosterLine]
    on: Annotated[list[int], Meta(description="Whose connection has come.")]
    off: Annotated[list[int], Meta(description="Whose connection has gone.")]
    kicked: list[int]
    players: int
    connected: int
    ways: Annotated[
        list[Way] | UnsetType, Meta(description="With the pace self: of the players that this tells of.")
    ] = UNSET


class WaitingList(Body, tag_field="t", tag="waiting_list"):
    """To the host: the players to be let in, a hundred at most, and how many they are."""

    players: Annotated[list[WaitingPlayer], Meta(max_length=playing.WAITING_SHOWN_MAX)]
    count: int


class Health(Body, tag_field="t", tag="health"):
    """To the host: how the session is."""

    players: int
    connected: int
    lagging: Annotated[int, Meta(description="Connections that have not taken all that was sent to them.")]
    waiting: Annotated[int, Meta(description="Commands that the session has yet to handle.")]
    p99_ms: Annotated[
        int | None, Meta(description="Of the time from an answer to its `ack`; null without answers.")
    ]
    saved: bool
    saved_in: Literal["postgresql", "spool"]


class ExtraTime(Body, tag_field="t", tag="extra_time"):
    """To a player: the host has given or taken extra time."""

    factor: Factor


class Done(playing.Done, tag="done"):
    """A command of the host is stored."""

    id: str


class DoneAll(Body, tag_field="t", tag="done_all", kw_only=True):
    """To a player at the own pace: there is no further question."""

    id: str | None
    of: int
    done: Annotated[bool, Meta(description="False when the session is over and the player is not through.")]
    phase: Phase
    score: Annotated[int | None, Meta(description="Null for a player who may not know it yet.")]
    rank: int | None
    streak: int | None
    attempt: AttemptNumber = UNSET
    attempts: Attempts = UNSET
    attempt_score: AttemptScore = UNSET
    players: int
    review: list[Reviewed] | None
    missed: OwnResult | UnsetType = UNSET


class Pong(Body, tag_field="t", tag="pong"):
    """The server's clock."""

    at: float
    now: Now


# -- what an event stream alone says ---------------------------------------------------------------


class Alive(Body, tag_field="t", tag="alive"):
    """Comes when nothing else has come for 5 s. Nothing for 12 s: the client opens another stream."""


class Close(Body, tag_field="t", tag="close"):
    """The last event of a stream: why it ends. A WebSocket says it with its close code."""

    code: Annotated[int, Meta(description="As the WebSocket would close.")]
    reason: str
    reconnect: Annotated[Reconnect, Meta(description="Whether, and how, the client comes back.")]
