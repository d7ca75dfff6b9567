"""How one session is run: chosen when it is created, fixed from then on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from engine.domain.quiz import Quiz, TypedText
from engine.domain.scoring import RULES, Scoring
from engine.domain.spellings import FOLDINGS
from engine.domain.validation import Fields, Problems

Pace = Literal["host", "auto", "self"]
Names = Literal["chosen", "given"]
Board = Literal["at_close", "live"]
Demand = Literal["optional", "required"]
LateJoin = Literal["current", "next", "refused"]
Reveal = Literal["each", "end", "deadline", "never"]

PACES: Final[tuple[Pace, ...]] = ("host", "auto", "self")
NAMES: Final[tuple[Names, ...]] = ("chosen", "given")
DEMANDS: Final[tuple[Demand, ...]] = ("optional", "required")
BOARDS: Final[tuple[Board, ...]] = ("at_close", "live")
LATE_JOINS: Final[tuple[LateJoin, ...]] = ("current", "next", "refused")
REVEALS: Final[tuple[Reveal, ...]] = ("each", "end", "deadline", "never")
ATTEMPTS_MAX: Final = 100
OPEN_FROM_MAX: Final = 2**45
OPEN_MIN_MS: Final = 60_000
OPEN_MAX_MS: Final = 90 * 86_400_000
PLAYER_LIMIT_MAX: Final = 200_000
REVEAL_MIN_MS: Final = 100
REVEAL_MAX_MS: Final = 600_000
LOBBY_MAX_MS: Final = 86_400_000
GET_READY_MS: Final = 3_000
GET_READY_MAX_MS: Final = 10_000
READING_MAX_MS: Final = 60_000
HOST_AWAY_MIN_S: Final = 5
HOST_AWAY_MAX_S: Final = 3_600
EXTRA_TIME_MAX: Final = 4

FIELDS: Final = (
    "pace",
    "player_limit",
    "reveal_ms",
    "lobby_ms",
    "board",
    "get_ready_ms",
    "reading_ms",
    "early_close",
    "scoring",
    "streak",
    "host_away_s",
    "names",
    "results_public",
    "name_filter",
    "approval",
    "shuffle_choices",
    "shuffle_questions",
    "identity",
    "late_join",
    "extra_time_max",
    "foldings",
    "open_from",
    "open_ms",
    "untimed",
    "reveal",
    "attempts",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Who advances, and what the limits are.

    Args:
        pace: `host`: the host opens each question; `auto`: the clock does; `self`: each player gets question
            after question, whenever the player asks for the next one.
        player_limit: players at a time, kicked ones not counted.
        reveal_ms: how long a closed question is shown before the next opens by itself.
        lobby_ms: `auto` only: the session starts by itself that long after its creation; None waits for
            the host.
        board: when the standing moves: `at_close` of each question, so that no player learns the correct
            answer from it while others still answer; or `live`, with every answer.
        get_ready_ms: how long a question is shown before its clock starts and answers are accepted.
        reading_ms: how much longer that takes so that the question is read; where it is not 0, its choices
            are withheld until then.
        early_close: a question closes as soon as every present player has answered it.
        scoring: the rule (`speed`, `flat`); None: the quiz's own.
        streak: whether right answers in a row earn a bonus; None: as the quiz has it.
        host_away_s: `host` only: after this many seconds without a connected host, the next question opens by
            itself; None waits for the host.
        names: `chosen` by the players, or `given` to them.
        results_public: whether everyone who knows the code may see the results once the session is over; else
            only its host, authors, and its participants.
        name_filter: whether names that offend, or that claim to lead the session, are refused.
        approval: players wait until the host lets them in. The host may change that at any time.
        shuffle_choices: each player sees the choices of a question in an order of their own.
        shuffle_questions: each player gets the questions in an order of their own; only where each player
            advances at their own pace.
        identity: whether new players may be guests (`optional`), or have to be users of the app (`required`).
        late_join: whether a player who joins while a question is open answers it (`current`) or watches until
            the `next` one opens, or whether nobody joins once the session has started (`refused`).
        extra_time_max: the greatest factor of extra time that a player gets here, 1 to 4. A led question is
            held for a player without a time limit as long as for one with this factor.
        foldings: the version of the rules that typed text is matched by. The version of the release that
            opens a session holds to its end and for its audit; there is no reason to choose another.
        open_from: `self` only: the first question may be asked for from then on, in milliseconds since the
            epoch; None: from the creation on.
        open_ms: `self` only: how long the session is open from then; None: until the host finishes it.
        untimed: `self` only: an answer may come at any time. An answer after the limit counts as one of the
            last moment.
        reveal: `self` only: when a player learns what is right, and the own points: after `each` answer, at
            the player's own `end`, once the session is over (`deadline`), or `never`; then points are told at
            the end of the session all the same. With more than one attempt, `end` is the end of the last one
            for what is right, and of each for points.
        attempts: `self` only: how often a player may go through the quiz, 1 to 100. The best attempt counts.

    Raises:
        DomainError: `bad_field`, with the path of the setting.
    """

    pace: Pace = "host"
    player_limit: int = 10_000
    reveal_ms: int = 5_000
    lobby_ms: int | None = None
    board: Board = "at_close"
    get_ready_ms: int = GET_READY_MS
    reading_ms: int = 0
    early_close: bool = True
    scoring: str | None = None
    streak: bool | None = None
    host_away_s: int | None = None
    names: Names = "chosen"
    results_public: bool = False
    name_filter: bool = True
    approval: bool = False
    shuffle_choices: bool = False
    shuffle_questions: bool = False
    identity: Demand = "optional"
    late_join: LateJoin = "current"
    extra_time_max: int = EXTRA_TIME_MAX
    foldings: int = FOLDINGS
    open_from: int | None = None
    open_ms: int | None = None
    untimed: bool = False
    reveal: Reveal = "each"
    attempts: int = 1

    def __post_init__(self) -> None:
        self._read(Fields(self.to_dict(), "", Problems(1), FIELDS))

    @classmethod
    def parse(cls, data: object, path: str = "") -> Settings:
        """From a document; what is absent has its default.

        Raises:
            DomainError: the first mistake; its path begins with `path`.
        """
        fields = Fields.of(data, path, Problems(1), FIELDS)
        assert fields is not None, "with a bound of one, the first problem is raised"
        return cls(**cls._read(fields))

    @classmethod
    def stored(cls, data: object) -> Settings:
        """From a document that was stored, by this release or another: unknown settings are passed over, and
        rules of today do not count.

        Raises:
            DomainError: the first thing that cannot be used.
        """
        fields = Fields.of(data, "", Problems(1, strict=False), FIELDS)
        assert fields is not None, "with a bound of one, the first problem is raised"
        settings = cls()
        # Not by way of the constructor, which holds them against the rules of today.
        for name, value in cls._read(fields).items():
            object.__setattr__(settings, name, value)
        return settings

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        pace = fields.one_of("pace", PACES, default="host")
        read: dict[str, Any] = {
            "pace": pace,
            "player_limit": fields.whole("player_limit", 1, PLAYER_LIMIT_MAX, default=10_000),
            "reveal_ms": fields.whole("reveal_ms", REVEAL_MIN_MS, REVEAL_MAX_MS, default=5_000),
            "board": fields.one_of("board", BOARDS, default="at_close"),
            # A session that was stored without was opened by a release that did not wait.
            "get_ready_ms": fields.whole(
                "get_ready_ms", 0, GET_READY_MAX_MS, default=GET_READY_MS if fields.problems.strict else 0
            ),
            "reading_ms": fields.whole("reading_ms", 0, READING_MAX_MS, default=0),
            "early_close": fields.flag("early_close", default=True),
            "names": fields.one_of("names", NAMES, default="chosen"),
            "results_public": fields.flag("results_public", default=False),
            "name_filter": fields.flag("name_filter", default=True),
            "approval": fields.flag("approval", default=False),
            "shuffle_choices": fields.flag("shuffle_choices", default=False),
            "shuffle_questions": fields.flag("shuffle_questions", default=False),
            "identity": fields.one_of("identity", DEMANDS, default="optional"),
            "late_join": fields.one_of("late_join", LATE_JOINS, default="current"),
            "extra_time_max": fields.whole("extra_time_max", 1, EXTRA_TIME_MAX, default=EXTRA_TIME_MAX),
            # A session that was stored without was opened by a release that knew no others.
            "foldings": fields.whole(
                "foldings", 1, FOLDINGS, default=FOLDINGS if fields.problems.strict else 1
            ),
        }
        if fields.get("lobby_ms") is not None:
            read["lobby_ms"] = fields.whole("lobby_ms", 0, LOBBY_MAX_MS, default=0)
            if pace != "auto":
                fields.rule("lobby_ms", "only a session with the pace `auto` starts by itself")
        if fields.get("scoring") is not None:
            read["scoring"] = fields.one_of("scoring", tuple(RULES), default="speed")
        if fields.get("streak") is not None:
            read["streak"] = fields.flag("streak")
        if fields.get("host_away_s") is not None:
            read["host_away_s"] = fields.whole("host_away_s", HOST_AWAY_MIN_S, HOST_AWAY_MAX_S, default=60)
            if pace != "host":
                fields.rule("host_away_s", "only a session with the pace `host` waits for one")
        if read["shuffle_questions"] and pace in ("host", "auto"):
            fields.rule("shuffle_questions", "all players of a session with this pace get the same question")
        return read | _read_self_paced(fields, pace)

    @property
    def ready_ms(self) -> int:
        """From the moment at which a question is shown to the one at which its clock starts."""
        return self.get_ready_ms + self.reading_ms

    def applied_to(self, quiz: Quiz) -> Quiz:
        """The quiz as it is played: scored as these settings say where they do, text matched by their
        foldings."""
        rule, streak = quiz.scoring.rule, quiz.scoring.streak
        scoring = Scoring(self.scoring or rule, streak if self.streak is None else self.streak)
        quiz = quiz if scoring == quiz.scoring else replace(quiz, scoring=scoring)
        if self.foldings == FOLDINGS:
            return quiz
        questions = (
            replace(each, foldings=self.foldings) if isinstance(each, TypedText) else each
            for each in quiz.questions
        )
        return replace(quiz, questions=tuple(questions))

    def to_dict(self) -> dict[str, object]:
        """The document: `Settings.parse(settings.to_dict()) == settings`."""
        return asdict(self)


_OF_OWN_PACE: Final = (
    ("open_from", None),
    ("open_ms", None),
    ("untimed", False),
    ("reveal", "each"),
    ("attempts", 1),
)
"""The settings that belong to the pace `self`, and what they are elsewhere."""


def _read_self_paced(fields: Fields, pace: Pace) -> dict[str, Any]:
    read: dict[str, Any] = {
        "untimed": fields.flag("untimed", default=False),
        "reveal": fields.one_of("reveal", REVEALS, default="each"),
        "attempts": fields.whole("attempts", 1, ATTEMPTS_MAX, default=1),
    }
    if fields.get("open_from") is not None:
        read["open_from"] = fields.whole("open_from", 0, OPEN_FROM_MAX, default=0)
    if fields.get("open_ms") is not None:
        read["open_ms"] = fields.whole("open_ms", OPEN_MIN_MS, OPEN_MAX_MS, default=OPEN_MIN_MS)
    if pace != "self":
        for name, default in _OF_OWN_PACE:
            if read.get(name) != default:
                fields.rule(name, "this belongs to the pace `self`")
    return read
