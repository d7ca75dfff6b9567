"""Playing and leading, and how it came out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from engine.domain.extra_time import MOST
from engine.domain.phases import Phase
from engine.domain.questions import ANSWER_MAX
from engine.domain.spellings import Match
from server.wire import protocol
from server.wire.api.common import Body, Code, PlayUrl, WsUrl
from server.wire.api.sessions import Attempts, Line

WAITING_SHOWN_MAX = 100

Choice = Annotated[
    Any,
    Meta(
        description="By question type: the index of the choice from 0 (single), a list of indices "
        "(multiple), a boolean (true_false), a text (text), a number (numeric).",
        extra_json_schema={
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "integer", "minimum": 0}},
                {"type": "boolean"},
                {"type": "string", "maxLength": ANSWER_MAX},
                {"type": "number"},
            ]
        },
    ),
]


Factor = Annotated[float, Meta(ge=1, le=MOST / 100)] | Literal["untimed"]


Traceparent = Annotated[
    Any,
    Meta(
        description="As the header of that name has it (W3C Trace Context), for clients that cannot send the "
        "header, which counts first. A value that is none is ignored."
    ),
]

Ticket = Annotated[str, Meta(min_length=protocol.TICKET_CHARS_MIN, max_length=protocol.TICKET_CHARS_MAX)]


class NewPlayer(Body):
    """Who wants to play."""

    name: Annotated[
        str | UnsetType,
        Meta(
            description="At most 32 characters once cleaned. Needed where players choose their names "
            "(`settings.names`), else ignored."
        ),
    ] = UNSET
    ticket: Annotated[
        Ticket | UnsetType,
        Meta(description="That of the 202 before, from a player who waits for the host and asks again."),
    ] = UNSET
    former: Annotated[
        Annotated[str, Meta(min_length=1, max_length=protocol.TOKEN_CHARS_MAX)] | UnsetType,
        Meta(
            description="The token of the player that the same device was before in this session: a player "
            "who was removed does not come in as somebody else (`kicked`). A token that is not good is "
            "ignored."
        ),
    ] = UNSET
    identity: Annotated[
        Annotated[str, Meta(min_length=1, max_length=protocol.IDENTITY_CHARS_MAX)] | UnsetType,
        Meta(
            description="A JWT with which the app tells who its user is (docs/embedding.md). A user has one "
            "seat: with a user who has joined before, the answer is that player, with a token. It may come "
            "as the bearer as well."
        ),
    ] = UNSET
    traceparent: Traceparent = UNSET


class Joined(Body):
    """The new player and the token to play with."""

    player_id: int
    name: str
    token: Annotated[str, Meta(description="For this player alone.")]
    session_id: str
    code: Code
    ws_url: WsUrl
    play_url: PlayUrl
    extra_time: Annotated[
        Factor | UnsetType,
        Meta(description="Only of a player with extra time: by how much longer the own time limit is."),
    ] = UNSET
    shuffle: Annotated[
        Annotated[int, Meta(ge=0, lt=2**32)] | UnsetType,
        Meta(
            description="Only where choices are shuffled: from this number docs/protocol.md has the order in "
            "which the player sees them. Answers name choices by their places in the quiz all the same."
        ),
    ] = UNSET


class Waiting(Body):
    """The host has yet to let the player in."""

    code: Code
    ticket: Annotated[str, Meta(description="Goes into the next request.")]
    again_ms: Annotated[int, Meta(ge=0, description="When to ask again.")]


class Answer(Body):
    """A player's answer to a question."""

    id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=protocol.ID_CHARS_MAX,
            description="The client's own mark; the ack carries it.",
        ),
    ]
    question: Annotated[int, Meta(ge=1, description="The number of the question.")]
    choice: Choice
    attempt: Annotated[
        Annotated[int, Meta(ge=1)] | UnsetType,
        Meta(description="Which attempt of the player's the question belongs to; the first by default."),
    ] = UNSET
    traceparent: Traceparent = UNSET


AttemptNumber = Annotated[
    int | UnsetType, Meta(description="Where players have several attempts: which one this is.")
]
AttemptScore = Annotated[
    int | UnsetType | None,
    Meta(
        description="Where players have several attempts: the points of this one, null for a player who may "
        "not know them yet. `score` is that of the best."
    ),
]


class OwnResult(Body):
    """What one answer of the player was worth. `number` is that of the question as the player sees it."""

    number: int
    correct: Annotated[bool | None, Meta(description="Null without an answer.")]
    points: int
    answer: Annotated[Any, Meta(description="What is right, as the question's type has it.")]
    score: int | None
    rank: int | None
    streak: int | None
    attempt_score: AttemptScore = UNSET


class Reviewed(Body):
    """One question of a player who is through, with the player's choice and what was right."""

    number: int
    type: Literal["single", "multiple", "true_false", "text", "numeric"]
    text: str
    choices: list[str] | None
    limit_ms: int
    points: int
    choice: Any
    correct: bool | None
    answer: Any
    match: Match | UnsetType = UNSET


class Ack(Body, tag_field="t", tag="ack"):
    """The answer is stored."""

    id: str
    question: int
    status: Annotated[
        Literal["accepted", "duplicate"],
        Meta(description="duplicate: an earlier answer with another choice stands."),
    ]
    elapsed_ms: int
    result: Annotated[
        OwnResult | UnsetType,
        Meta(description="With the pace self, where the session reveals after each answer."),
    ] = UNSET


class NextStep(Body, kw_only=True):
    """With the pace self: the player's next question, or that the player is through. `question` has the
    members from `number` on to `now`; `done_all` those from `done` on; both have `attempt`. `missed` is the
    result of a question whose time was over, where the session reveals after each answer."""

    t: Literal["question", "done_all"]
    id: str | None
    of: int
    number: int | UnsetType = UNSET
    type: Literal["single", "multiple", "true_false", "text", "numeric"] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    choices: list[str] | UnsetType | None = UNSET
    match: Match | UnsetType = UNSET
    limit_ms: int | UnsetType = UNSET
    points: int | UnsetType = UNSET
    remaining_ms: Annotated[
        int | UnsetType | None, Meta(description="Time left to answer; null without a limit.")
    ] = UNSET
    over_ms: Annotated[
        int | UnsetType,
        Meta(description="For how long it is over for a player without extra time; absent while it is not."),
    ] = UNSET
    opens_in_ms: int | UnsetType = UNSET
    now: Annotated[int | UnsetType, Meta(description="The node's clock in milliseconds.")] = UNSET
    missed: OwnResult | UnsetType = UNSET
    done: Annotated[
        bool | UnsetType, Meta(description="False when the session is over and the player is not through.")
    ] = UNSET
    phase: Phase | UnsetType = UNSET
    score: Annotated[
        int | UnsetType | None, Meta(description="Null for a player who may not know it yet.")
    ] = UNSET
    rank: int | UnsetType | None = UNSET
    streak: int | UnsetType | None = UNSET
    attempt: AttemptNumber = UNSET
    attempts: Attempts = UNSET
    attempt_score: AttemptScore = UNSET
    players: int | UnsetType = UNSET
    review: Annotated[
        list[Reviewed] | UnsetType | None,
        Meta(description="All questions and what was right; null for a player who may not know it yet."),
    ] = UNSET


class Expect(Body):
    """What the host saw."""

    number: Annotated[int, Meta(ge=0)]
    phase: Phase


class HostCommand(Body, kw_only=True):
    """A command of the host."""

    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=protocol.ID_CHARS_MAX)] | UnsetType,
        Meta(description="The client's own mark."),
    ] = UNSET
    do: protocol.HostDo
    player: Annotated[
        Annotated[int, Meta(ge=1)] | UnsetType,
        Meta(
            description="With kick, readmit and extra_time. With admit and refuse one of those who wait; "
            "without it all of them.",
        ),
    ] = UNSET
    factor: Annotated[
        Factor | UnsetType,
        Meta(
            description="With extra_time: by how much longer the player's time limit is, 1 takes it away. At "
            "most extra_time_max of the session; `untimed` is as much as that."
        ),
    ] = UNSET
    closes_at: Annotated[
        Annotated[int, Meta(ge=1)] | UnsetType,
        Meta(description="With extend: until when the session is open, in milliseconds since the epoch."),
    ] = UNSET
    on: Annotated[bool | UnsetType, Meta(description="With lock and approval.")] = UNSET
    expect: Annotated[
        Expect | UnsetType,
        Meta(
            description="With start, next, close and skip: what the host saw. When that is not so any "
            "more, the command is refused with illegal_move and changes nothing."
        ),
    ] = UNSET


class Done(Body, tag_field="t", tag="done"):
    """The command is done and stored."""

    id: str | None
    do: protocol.HostDo
    phase: Phase


class ListedPlayer(Body):
    """One player in a listing; `id` and `name` alone of those who were removed."""

    id: int
    name: str
    score: int | UnsetType = UNSET
    rank: int | UnsetType = UNSET
    connected: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether a WebSocket or an event stream of this player is open. A player who plays "
            "by requests alone is not connected."
        ),
    ] = UNSET
    extra_time: Annotated[
        Factor | UnsetType, Meta(description="Only of a player with extra time: by how much longer.")
    ] = UNSET
    question: Annotated[
        int | UnsetType | None,
        Meta(
            description="With the pace self: the question that the player was shown last, as the quiz "
            "numbers it; null before the first."
        ),
    ] = UNSET
    at: Annotated[
        int | UnsetType, Meta(description="Its number on the way of this player; 0 before the first.")
    ] = UNSET
    waits: Annotated[bool | UnsetType, Meta(description="Whether that one has no answer yet.")] = UNSET
    since: Annotated[
        int | UnsetType | None, Meta(description="When the player was shown it, in ms since the epoch.")
    ] = UNSET
    done: Annotated[bool | UnsetType, Meta(description="Whether the player is through.")] = UNSET
    attempt: Annotated[
        int | UnsetType,
        Meta(description="Where players have several attempts: in which one the player is."),
    ] = UNSET


class WaitingPlayer(Body):
    """A player whom the host has yet to let in."""

    id: Annotated[int, Meta(ge=1)]
    name: str


class Players(Body):
    """One page of the players of a session."""

    players: list[ListedPlayer]
    next: Annotated[int | None, Meta(description="`after` of the next page; null on the last.")]
    total: Annotated[int, Meta(description="Players who are in.")]
    connected: Annotated[int, Meta(description="How many of them are connected.")]
    waiting: Annotated[
        list[WaitingPlayer],
        Meta(
            max_length=WAITING_SHOWN_MAX,
            description="Those whom the host has yet to let in, the first hundred of them. `id` is theirs "
            "while they wait, and no player's.",
        ),
    ]


class ErasedPlayer(Body):
    """The player whose name is gone."""

    session_id: str
    player_id: int
    name: Annotated[str, Meta(description="The neutral name that stands in its place.")]


class Leaderboard(Body):
    """The standing."""

    top: list[Line]
    around: list[Line] | None
    players: int
    answered: int


class PlayerResult(Body):
    """One line of the final standing."""

    rank: int
    player: int
    name: str
    score: int
    correct: int
    answered: int
    elapsed_ms: int


class Redirect(Body, rename="camel"):
    """Where a client of SignalR negotiates next."""

    url: Annotated[str, Meta(description="Of the hub.")]
    access_token: Annotated[str, Meta(description="The one that the client has shown, or a word for none.")]


class Results(Body):
    """The standing of all players, from what is stored."""

    session_id: str
    code: Code
    final: Annotated[
        bool,
        Meta(
            description="Whether the session is over and all of it is stored: then this does not change "
            "any more."
        ),
    ]
    skipped: Annotated[list[int], Meta(description="The questions that count for nobody.")]
    players: list[PlayerResult]
