"""Bodies about users: leaderboards over sessions, and what a user has scored."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from server.wire.api.common import Body, Milliseconds

Score = Annotated[int, Meta(ge=0)]
Duration = Annotated[int, Meta(ge=0, description="Time that answering took, in milliseconds.")]


class UserLine(Body):
    """One user in a leaderboard."""

    rank: Annotated[
        int | None,
        Meta(
            description="Equal scores share it. Null below the first 10,000 while the node does without "
            "Redis: then it is not counted."
        ),
    ]
    name: Annotated[str, Meta(description="Under which the user has played last.")]
    score: Score
    elapsed_ms: Duration
    reached_at: Annotated[Milliseconds, Meta(description="When the last play that counts was finished.")]
    me: Annotated[bool, Meta(description="Whether it is the user of the identity token.")]
    user_id: Annotated[str | UnsetType, Meta(description="For authors alone.")] = UNSET


class UserLeaderboard(Body):
    """A leaderboard over sessions. Within a rank less time comes first, then the earlier."""

    quiz_id: Annotated[str | None, Meta(description="Null for the one over all quizzes.")]
    period: Literal["day", "week", "all"]
    starts_on: Annotated[str | None, Meta(description="First day of the period; null for all time.")]
    rule: Annotated[
        Literal["best", "sum"], Meta(description="Whether the best play of a user counts, or all of them.")
    ]
    total: Annotated[
        int | None, Meta(description="How many users are in it; null for what was not counted, as in `rank`.")
    ]
    top: list[UserLine]
    around: Annotated[
        list[UserLine] | None,
        Meta(description="With around=me: up to two lines before, the own one, and two after; or none."),
    ]


class UserTotals(Body):
    """Of all plays of a user."""

    plays: Score
    score: Score
    correct: Score
    answered: Score
    elapsed_ms: Duration
    days: Annotated[int, Meta(ge=0, description="Days in a row with a play, up to today or yesterday.")]
    days_best: Annotated[int, Meta(ge=0, description="The longest such row.")]


class Play(Body):
    """How a user did in one session."""

    session_id: str
    quiz_id: str
    name: str
    score: Score
    correct: Score
    answered: Score
    elapsed_ms: Duration
    rank: Annotated[int | None, Meta(description="Null until the session is over.")]
    players: Annotated[
        int | None, Meta(description="In the standing, guests included; null until the session is over.")
    ]
    finished_at: Milliseconds


class UserScores(Body):
    """What a user has scored, newest first."""

    user_id: str
    totals: UserTotals
    scores: list[Play]
    next: Annotated[str | None, Meta(description="`cursor` of the next page; null on the last.")]


class ErasedUser(Body):
    """The user whose scores and names are gone, and in how many sessions a name was erased."""

    user_id: str
    sessions: int
