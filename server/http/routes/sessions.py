"""Opening sessions, finding them, taking them over, deleting them."""

from __future__ import annotations

from server.http import examples
from server.http.openapi import Gives, Link, Operation, Takes
from server.http.routes.route import IDENTITY_CODES, LOCATION, OF_SESSION, OVER_CODES, Route
from server.wire.api import queries, sessions

SESSIONS = (
    Route(
        "POST",
        "/api/sessions",
        lambda views: views.lifecycle.create,
        Operation(
            "openSession",
            "Open a session",
            "sessions",
            who=("author",),
            takes=Takes(sessions.NewSession, examples.NEW_SESSION),
            gives=(
                Gives(
                    201,
                    "The lobby is open.",
                    sessions.OpenedSession,
                    examples.OPENED_SESSION,
                    headers=LOCATION,
                    links=(
                        Link("getSession", "See what everybody may see of it.", OF_SESSION),
                        Link("join", "Become a player.", OF_SESSION),
                        Link("getLeaderboard", "See the standing.", OF_SESSION),
                        Link("listPlayers", "See who is in, with the host token.", OF_SESSION),
                        Link("lead", "Lead it, with the host token.", OF_SESSION),
                        Link("takeOver", "Take it over.", OF_SESSION),
                        Link("getResults", "See how it came out, with the host token.", OF_SESSION),
                        Link("deleteSession", "Delete it once it is over.", OF_SESSION),
                    ),
                ),
            ),
            codes=("quiz_not_found", "session_unavailable"),
        ),
    ),
    Route(
        "GET",
        "/api/sessions",
        lambda views: views.lifecycle.list,
        Operation(
            "listSessions",
            "The sessions opened last",
            "sessions",
            who=("author",),
            description="Those that the author may read, page by page.",
            query=queries.SessionListQuery,
            gives=(Gives(200, "Newest first.", sessions.SessionList, examples.SESSION_LIST),),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/{key}",
        lambda views: views.lifecycle.get,
        Operation(
            "getSession",
            "What everybody may see of a session",
            "sessions",
            who=("host", "player", "user", "author", "all"),
            description="While it runs, what a spectator sees. Once it is over, its standing is shown to "
            "its host, authors and whoever took part in it, and to all if its setting results_public says "
            "so; for others `podium` is null and the leaderboard empty.",
            query=queries.NoQuery,
            gives=(Gives(200, "The session.", sessions.Session, examples.SESSION),),
            codes=("player_not_found", *OVER_CODES, *IDENTITY_CODES),
        ),
    ),
    Route(
        "DELETE",
        "/api/sessions/{key}",
        lambda views: views.erasing.session,
        Operation(
            "deleteSession",
            "Delete a session that is over",
            "sessions",
            who=("host", "author"),
            description="With everything that is stored of it: players, answers, results. With the author "
            "key, `key` is the id: other sessions may have had the same code.",
            query=queries.NoQuery,
            gives=(Gives(200, "The session is deleted.", sessions.DeletedSession, examples.DELETED_SESSION),),
            codes=("not_host", "token_replaced", "session_running", "bad_field"),
        ),
    ),
    Route(
        "POST",
        "/api/sessions/{key}/host-token",
        lambda views: views.lifecycle.take_over,
        Operation(
            "takeOver",
            "Take the session over: a fresh host token; older ones are void",
            "sessions",
            who=("author",),
            query=queries.NoQuery,
            gives=(
                Gives(
                    201,
                    "The host token, once that is stored.",
                    sessions.FreshHostToken,
                    examples.FRESH_HOST_TOKEN,
                ),
            ),
            codes=("session_finished",),
        ),
    ),
)
