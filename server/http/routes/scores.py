"""Leaderboards over sessions, and the scores of users."""

from __future__ import annotations

from server.http import examples
from server.http.openapi import Gives, Operation
from server.http.routes.route import IDENTITY_CODES, Route
from server.wire.api import queries, scores

SCORES = (
    Route(
        "GET",
        "/api/leaderboards/{quiz_id}",
        lambda views: views.scores.leaderboard,
        Operation(
            "getUserLeaderboard",
            "A leaderboard of users over sessions",
            "users",
            who=("author", "user", "all"),
            description="Of a quiz, or with `all` of all quizzes. For users, who show their identity token, "
            "and for authors; without a token where the node's setting leaderboards_public says so. A "
            "session counts from its end on.",
            query=queries.BoardQuery,
            gives=(
                Gives(
                    200,
                    "Lines from the first on, and with around=me those next to the user.",
                    scores.UserLeaderboard,
                    examples.USER_LEADERBOARD,
                ),
            ),
            codes=(
                "quiz_not_found",
                "not_admin",
                "token_missing",
                "token_invalid",
                "token_expired",
                *IDENTITY_CODES,
            ),
        ),
    ),
    Route(
        "GET",
        "/api/users/{user_id}/scores",
        lambda views: views.scores.user,
        Operation(
            "getUserScores",
            "What a user has scored",
            "users",
            who=("author", "user"),
            description="For the user, who shows the identity token, and for authors. `me` stands for the "
            "user of the token.",
            query=queries.UserScoresQuery,
            gives=(Gives(200, "One page of it.", scores.UserScores, examples.USER_SCORES),),
            codes=("not_author", "not_admin", *IDENTITY_CODES),
        ),
    ),
    Route(
        "DELETE",
        "/api/users/{user_id}",
        lambda views: views.scores.erase,
        Operation(
            "eraseUser",
            "Erase a user",
            "users",
            who=("author", "user"),
            description="Scores, lines in leaderboards, and the names in sessions, for which neutral ones "
            "stand from then on. For the user, who shows the identity token, and for authors. A user who was "
            "removed from a session that runs is told `kicked`: the name in it stays until its end, all else "
            "is gone.",
            query=queries.NoQuery,
            gives=(Gives(200, "The user is gone.", scores.ErasedUser, examples.ERASED_USER),),
            codes=("not_author", "not_admin", "kicked", "bad_field", "session_unavailable", *IDENTITY_CODES),
        ),
    ),
)
