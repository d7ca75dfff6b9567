"""What addresses hold: the parts of a path, and query strings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine.actors.commands import PAGE_MAX
from engine.domain.quiz import TITLE_MAX
from engine.domain.settings import ATTEMPTS_MAX
from server.wire.api.common import CODE_PATTERN, KEY_PATTERN
from server.wire.cursors import CURSOR_CHARS_MAX

VERSION_MAX = 999_999_999
LISTED_MAX = 200
"""Quiz versions, or sessions, in one listing."""

QUIZZES_LISTED_MAX = 100
"""Quizzes in one listing."""

AFTER_MAX = 999_999_999
QUIZ_ID_CHARS_MAX = 100
USERS_MAX = 100
"""Lines, or scores, on one page."""
SKIP_MAX = 9_900

SessionKey = Annotated[
    str,
    Meta(
        pattern=KEY_PATTERN,
        description="The six-digit code of the session, or its id. Anything else names none.",
    ),
]
QuizId = Annotated[str, Meta(description="Of the quiz.")]
PlayerNumber = Annotated[int, Meta(ge=1, description="The player's number, as `id` of a leaderboard has it.")]
TypedCode = Annotated[str, Meta(pattern=r"^\d{6}$", description="Six digits.")]
Digest = Annotated[str, Meta(description="Of the release.")]
Folder = Annotated[str, Meta(description="Of the file.")]
FileName = Annotated[str, Meta(description="Of the file.")]
UserId = Annotated[str, Meta(description="Of the user, as the app names its users.")]
NodeName = Annotated[str, Meta(description="Of the node.")]


class Query(Struct, forbid_unknown_fields=True):
    """Base of what a query string may hold: whole numbers, true or false, words and text, each field once."""


class NoQuery(Query):
    """For a route that takes no query string."""


class CreateQuizQuery(Query):
    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=QUIZ_ID_CHARS_MAX)] | None,
        Meta(description="Write under this id; by default the node makes an id from the title."),
    ] = None


class QuizQuery(Query):
    version: Annotated[
        Annotated[int, Meta(ge=1, le=VERSION_MAX)] | None, Meta(description="By default the newest.")
    ] = None


class ListQuery(Query):
    limit: Annotated[int, Meta(ge=1, le=LISTED_MAX, description="How many.")] = 50


PAGE_CURSOR = Annotated[
    Annotated[str, Meta(max_length=CURSOR_CHARS_MAX)] | None,
    Meta(description="`next` of the page before; by default the list begins at its beginning."),
]
PAGE_OWNER = Annotated[
    str | None,
    Meta(
        description="Only what this author made: `me`, or an `owner_id`. With the author key, `me` is what "
        "was made with it. By default all that the asking author may read."
    ),
]
PAGE_TITLE = Annotated[
    Annotated[str, Meta(min_length=1, max_length=TITLE_MAX)] | None,
    Meta(description="Only with this text in the title of the quiz, whatever its case."),
]


class QuizListQuery(Query):
    id: Annotated[str | None, Meta(description="Only the quiz with this id, if the author may read it.")] = (
        None
    )
    limit: Annotated[int, Meta(ge=1, le=QUIZZES_LISTED_MAX, description="How many at most.")] = (
        QUIZZES_LISTED_MAX
    )
    cursor: PAGE_CURSOR = None
    owner: PAGE_OWNER = None
    title: PAGE_TITLE = None


class SessionListQuery(ListQuery):
    cursor: PAGE_CURSOR = None
    owner: PAGE_OWNER = None
    title: PAGE_TITLE = None


class PlayersQuery(Query):
    removed: Annotated[
        bool,
        Meta(description="Whether to list those who were removed instead, with `id` and `name` alone."),
    ] = False
    after: Annotated[
        int,
        Meta(
            ge=0, le=AFTER_MAX, description="Only players with numbers above this: `next` of the page before."
        ),
    ] = 0
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="How many at most.")] = PAGE_MAX


class NextQuery(Query):
    attempt: Annotated[
        Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)] | None,
        Meta(
            description="Which attempt of the player's is meant, in a session that has several; the first by "
            "default. One that follows an attempt that is over begins with this."
        ),
    ] = None


class LeaderboardQuery(Query):
    top: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="How many of the first.")] = 10
    around: Annotated[
        Literal["me"] | None,
        Meta(description="Also up to two players ahead and two behind; needs a player's token."),
    ] = None


class BoardQuery(Query):
    period: Annotated[Literal["day", "week", "all"], Meta(description="Weeks begin on Monday.")] = "all"
    date: Annotated[
        Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None,
        Meta(description="A day of the period, by default today; both in the time zone of the node."),
    ] = None
    top: Annotated[int, Meta(ge=1, le=USERS_MAX, description="How many lines.")] = 10
    skip: Annotated[int, Meta(ge=0, le=SKIP_MAX, description="How many lines to leave out before.")] = 0
    around: Annotated[
        Literal["me"] | None,
        Meta(description="Also up to two users ahead and two behind; needs an identity token."),
    ] = None


class UserScoresQuery(Query):
    limit: Annotated[int, Meta(ge=1, le=USERS_MAX, description="How many at most.")] = USERS_MAX
    cursor: PAGE_CURSOR = None


class EventsQuery(Query):
    token: Annotated[
        str | None,
        Meta(
            description="A token of a player, the host or a spectator, for browsers, whose EventSource "
            "sends no headers."
        ),
    ] = None


class ResultsQuery(Query):
    token: Annotated[
        str | None,
        Meta(description="A token of the session, for pages, whose downloads send no headers."),
    ] = None


class CsvQuery(ResultsQuery):
    bom: Annotated[
        bool,
        Meta(
            description="Whether the file begins with a byte order mark, by which spreadsheets tell that "
            "it is UTF-8."
        ),
    ] = True


class QrQuery(Query):
    code: Annotated[
        str,
        Meta(pattern=CODE_PATTERN, description="Of the session. The node does not ask whether it exists."),
    ]


class SignInQuery(Query):
    to: Annotated[
        str | None,
        Meta(description="The page to come back to, /author or /host with its query string; else /author."),
    ] = None


class PageQuery(Query, forbid_unknown_fields=False):
    """Of a page, which takes no notice of what it does not know."""

    lang: Annotated[
        str | None, Meta(description="By default the cookie `lang`, else what the browser prefers.")
    ] = None
