"""Sessions: opening them, and what everybody may see of one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from engine.domain import settings
from engine.domain.phases import Phase
from engine.domain.settings import Board, Demand, LateJoin, Names
from engine.domain.settings import Reveal as Reveals
from engine.domain.spellings import FOLDINGS, Match
from server.wire.api.common import Body, Code, Milliseconds, NextPage, OwnerId, PlayUrl, WsUrl
from server.wire.api.queries import VERSION_MAX

_DEFAULTS = settings.Settings()

ShownCounts = Annotated[
    list[int] | UnsetType,
    Meta(description="With the pace self: how many players were shown each question, in all attempts."),
]
AnswerCounts = Annotated[
    list[int] | UnsetType,
    Meta(description="With the pace self: how many players have answered each question, in all attempts."),
]
Attempts = Annotated[
    int | UnsetType, Meta(description="How many attempts each player has; absent if it is one.")
]


class Settings(Body):
    """How one session is run: chosen when it is created, fixed from then on."""

    pace: Annotated[
        settings.Pace,
        Meta(description="Who advances: the host, the clock, or with `self` every player alone."),
    ] = _DEFAULTS.pace
    player_limit: Annotated[
        int, Meta(ge=1, le=settings.PLAYER_LIMIT_MAX, description="Players at a time.")
    ] = _DEFAULTS.player_limit
    reveal_ms: Annotated[
        int,
        Meta(
            ge=settings.REVEAL_MIN_MS,
            le=settings.REVEAL_MAX_MS,
            description="How long a closed question is shown before the next opens by itself: with pace "
            "auto, or while the host is away.",
        ),
    ] = _DEFAULTS.reveal_ms
    lobby_ms: Annotated[
        Annotated[int, Meta(ge=0, le=settings.LOBBY_MAX_MS)] | None,
        Meta(description="With pace auto: the session starts by itself that long after its creation."),
    ] = _DEFAULTS.lobby_ms
    board: Annotated[
        Board,
        Meta(
            description="When scores and ranks move: at the close of each question, or with every answer, "
            "which tells who is right while others still answer."
        ),
    ] = _DEFAULTS.board
    get_ready_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=settings.GET_READY_MAX_MS,
            description="How long everybody sees a question before its clock starts and answers are taken.",
        ),
    ] = _DEFAULTS.get_ready_ms
    reading_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=settings.READING_MAX_MS,
            description="How much longer that takes; where it is not 0, choices are withheld until then.",
        ),
    ] = _DEFAULTS.reading_ms
    early_close: Annotated[
        bool,
        Meta(
            description="A question closes as soon as every player who is connected, or has played by "
            "requests until the last question, has answered it."
        ),
    ] = _DEFAULTS.early_close
    scoring: Annotated[
        Literal["speed", "flat"] | None,
        Meta(description="What a right answer earns; null: as the quiz has it."),
    ] = None
    streak: Annotated[
        bool | None,
        Meta(description="Whether right answers in a row earn a bonus; null: as the quiz has it."),
    ] = _DEFAULTS.streak
    host_away_s: Annotated[
        Annotated[int, Meta(ge=settings.HOST_AWAY_MIN_S, le=settings.HOST_AWAY_MAX_S)] | None,
        Meta(
            description="With pace host: once no host has been connected for so many seconds, the next "
            "question opens by itself, reveal_ms after the last was closed at the earliest; null: it "
            "waits for the host."
        ),
    ] = _DEFAULTS.host_away_s
    names: Annotated[
        Names, Meta(description="Whether players choose their names, or the node names them.")
    ] = _DEFAULTS.names
    results_public: Annotated[
        bool,
        Meta(
            description="Whether anybody who knows the code may see how the session came out once it is "
            "over; else only its host, authors and whoever took part."
        ),
    ] = _DEFAULTS.results_public
    name_filter: Annotated[
        bool,
        Meta(
            description="Whether players may not choose names with swearwords in them, nor such as only "
            "the host may have."
        ),
    ] = _DEFAULTS.name_filter
    approval: Annotated[
        bool,
        Meta(description="Players wait until the host lets them in. The host may change that at any time."),
    ] = _DEFAULTS.approval
    shuffle_choices: Annotated[
        bool,
        Meta(description="Each player sees the choices of a question in an order of their own."),
    ] = _DEFAULTS.shuffle_choices
    shuffle_questions: Annotated[
        bool,
        Meta(
            description="Each player gets the questions in an order of their own: not with the paces host "
            "and auto, where all get the same question."
        ),
    ] = _DEFAULTS.shuffle_questions
    identity: Annotated[
        Demand,
        Meta(
            description="Whether new players have to be users of the app, and show an identity token "
            "(`required`), or may be guests (`optional`) as far as the node takes guests."
        ),
    ] = _DEFAULTS.identity
    late_join: Annotated[
        LateJoin,
        Meta(
            description="A player who joins while a question is open answers it, watches until the next one "
            "opens, or does not join at all once the session has started."
        ),
    ] = _DEFAULTS.late_join
    extra_time_max: Annotated[
        int,
        Meta(ge=1, le=settings.EXTRA_TIME_MAX, description="The greatest factor of extra time of a player."),
    ] = _DEFAULTS.extra_time_max
    foldings: Annotated[
        int,
        Meta(
            ge=1,
            le=FOLDINGS,
            description="The version of what typed text is matched by, which a session keeps to its end: "
            "2, or 1 if it was opened by a release that knew only case, accents, blanks and the shapes of "
            "quotes and hyphens.",
        ),
    ] = _DEFAULTS.foldings
    open_from: Annotated[
        Annotated[int, Meta(ge=0, le=settings.OPEN_FROM_MAX)] | None,
        Meta(
            description="With pace self: questions may be asked for from then on, in milliseconds since the "
            "epoch; null: at once."
        ),
    ] = _DEFAULTS.open_from
    open_ms: Annotated[
        Annotated[int, Meta(ge=settings.OPEN_MIN_MS, le=settings.OPEN_MAX_MS)] | None,
        Meta(
            description="With pace self: how long the session is open from then; null: until the host "
            "finishes it."
        ),
    ] = _DEFAULTS.open_ms
    untimed: Annotated[
        bool,
        Meta(description="With pace self: answers may come at any time, and count as in the last moment."),
    ] = _DEFAULTS.untimed
    reveal: Annotated[
        Reveals,
        Meta(
            description="With pace self: when a player learns what is right, and the own points: after each "
            "answer, at the player's own end, at the deadline, or never (points then at the deadline)."
        ),
    ] = _DEFAULTS.reveal
    attempts: Annotated[
        Annotated[int, Meta(ge=1, le=settings.ATTEMPTS_MAX)],
        Meta(
            description="With pace self: how often a player may go through the quiz; the best attempt "
            "counts. Before the last attempt is over, `reveal: end` tells points alone."
        ),
    ] = _DEFAULTS.attempts


class NewSession(Settings, kw_only=True):
    """The quiz of a session and its settings."""

    quiz_id: str
    quiz_version: Annotated[
        Annotated[int, Meta(ge=1, le=VERSION_MAX)] | None, Meta(description="By default the newest.")
    ] = None


class OpenedSession(Body):
    """A session whose lobby is open."""

    session_id: str
    code: Code
    quiz_id: str
    quiz_version: int
    host_token: Annotated[str, Meta(description="Leads the session; for its host alone.")]
    ws_url: WsUrl
    play_url: PlayUrl


class FreshHostToken(Body):
    """The token that leads the session from now on."""

    session_id: str
    code: Code
    host_token: Annotated[str, Meta(description="Older ones are void.")]
    ws_url: WsUrl


class SessionSummary(Body):
    """One session in a listing."""

    id: str
    code: Code
    quiz_id: str
    title: str
    players: int
    created_at: Milliseconds
    finished_at: Milliseconds | None
    owner_id: OwnerId


class SessionList(Body):
    """One page of the sessions, the newest first."""

    sessions: list[SessionSummary]
    next: NextPage


class DeletedSession(Body):
    """The session that is gone, with everything that was stored of it."""

    session_id: str
    code: Code


class Line(Body):
    """One player in a standing."""

    rank: int
    id: int
    name: str
    score: int


class Question(Body):
    """The current question as players see it."""

    number: int
    of: int
    type: Literal["single", "multiple", "true_false", "text", "numeric"]
    text: str
    choices: list[str] | None
    limit_ms: int
    opens_in_ms: Annotated[
        int | None,
        Meta(
            description="How long it takes no answers yet; 0 once it does. Its time to answer, "
            "remaining_ms, runs from then on. Null once it is closed."
        ),
    ]
    remaining_ms: int | None
    points: int
    over_ms: Annotated[
        int | UnsetType,
        Meta(
            description="Only there while the question is open after its time limit, because some players "
            "have extra time: for how long by now."
        ),
    ] = UNSET
    match: Annotated[
        Match | UnsetType,
        Meta(description="Of a question of the type text: how much of the answer has to be right."),
    ] = UNSET


class Reveal(Body):
    """What was right in the question that was closed last."""

    number: int
    correct: Annotated[Any, Meta(description="As the question's type has it.")]
    counts: Annotated[list[int], Meta(description="Answers per choice.")]
    skipped: Annotated[
        Literal[True] | UnsetType, Meta(description="Only there when the question counts for nobody.")
    ] = UNSET


class Standing(Body):
    """The first of the standing."""

    top: list[Line]
    players: int
    answered: int


class State(Body):
    """`state` of docs/protocol.md as a spectator sees it."""

    phase: Phase
    locked: bool
    approval: Annotated[bool, Meta(description="Whether new players wait until the host lets them in.")]
    title: str
    language: Annotated[
        str, Meta(description="That the quiz is written in: a language tag such as en or pt-BR.")
    ]
    number: int
    of: int
    players: int
    answered: int
    now: Annotated[
        int,
        Meta(description="The node's clock in milliseconds, at which remaining_ms of the question was true."),
    ]
    question: Question | None
    reveal: Reveal | None
    leaderboard: Standing
    podium: list[Line] | None
    you: None
    opens_at: Annotated[
        Milliseconds | UnsetType, Meta(description="With the pace self: when the session opens, or did.")
    ] = UNSET
    closes_at: Annotated[
        Milliseconds | UnsetType | None,
        Meta(description="With the pace self: the deadline; null: the host finishes it."),
    ] = UNSET
    reveals: Reveals | UnsetType = UNSET
    attempts: Attempts = UNSET
    shown: ShownCounts = UNSET
    answers: AnswerCounts = UNSET


class Session(Body):
    """`epoch` and `offset` are null once the session is over and out of memory."""

    session_id: str
    code: Code
    quiz_id: str
    quiz_version: int
    settings: Annotated[Settings, Meta(extra_json_schema={"required": list(Settings.__struct_fields__)})]
    created_at: Milliseconds
    join_url: Annotated[
        str | None,
        Meta(
            description="The page on which players join, as others reach it; null if the Host header does "
            "not say how the node is reached."
        ),
    ]
    ws_url: WsUrl
    play_url: PlayUrl
    epoch: int | None
    offset: int | None
    state: State
