"""Joining, answering, leading, watching, and how a session came out."""

from __future__ import annotations

from server.http import examples
from server.http.openapi import Gives, Link, Operation, Takes
from server.http.routes.route import IDENTITY_CODES, OF_SESSION, OVER_CODES, PLAYER_CODES, Route
from server.realtime.handshake import NEGOTIATE_PATH
from server.wire.api import playing, queries

STANDING = (
    "For the host and for authors; once the session is over also for whoever took part in it, and for all if "
    "its setting results_public says so."
)
STORED = (
    "As far as it is stored. While a question is open, without what was answered to it, unless the session's "
    "board is live."
)

PLAYING = (
    Route(
        "POST",
        "/api/sessions/{key}/players",
        lambda views: views.playing.join,
        Operation(
            "join",
            "Become a player",
            "playing",
            description="With the identity of a user, in the body or else as the bearer, who has a seat "
            "already: be that player again.",
            takes=Takes(playing.NewPlayer, examples.NEW_PLAYER),
            gives=(
                Gives(
                    201,
                    "The player is stored.",
                    playing.Joined,
                    examples.JOINED,
                    links=(
                        Link("answer", "Answer, with the player's token.", OF_SESSION),
                        Link("getLeaderboard", "See the standing.", OF_SESSION),
                        Link(
                            "erasePlayer",
                            "Erase the name, with the player's token.",
                            {**OF_SESSION, "number": "$response.body#/player_id"},
                        ),
                    ),
                ),
                Gives(
                    202,
                    "The host has yet to let the player in: ask again with the ticket and the same name, "
                    "after `again_ms`.",
                    playing.Waiting,
                    examples.WAITING,
                ),
            ),
            codes=(
                *("session_finished", "session_full", "session_locked", "session_started"),
                *("not_admitted", "address_full"),
                *("name_invalid", "name_too_long", "name_taken", "name_refused"),
                *("kicked", "player_not_found", "identity_required", *IDENTITY_CODES),
            ),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/{key}/players",
        lambda views: views.playing.players,
        Operation(
            "listPlayers",
            "Who is in, and who is connected",
            "playing",
            who=("host", "author"),
            description="In the order of their numbers, without those who were removed. For the host and for "
            "authors.",
            query=queries.PlayersQuery,
            gives=(Gives(200, "One page of them.", playing.Players, examples.PLAYERS),),
            codes=("not_host", "token_replaced", "session_finished"),
        ),
    ),
    Route(
        "DELETE",
        "/api/sessions/{key}/players/{number}",
        lambda views: views.erasing.player,
        Operation(
            "erasePlayer",
            "Erase the name of a player",
            "playing",
            who=("player", "host", "author"),
            description="A neutral name stands in its place. The player's token is of no use any more; "
            "answers and scores stay. For the player alone, the host and authors; with the author key, "
            "`key` is the id. A player who was removed has to wait for the end of the session.",
            query=queries.NoQuery,
            gives=(Gives(200, "The name is gone.", playing.ErasedPlayer, examples.ERASED_PLAYER),),
            codes=("not_host", "token_replaced", "bad_field", "session_finished", *PLAYER_CODES),
        ),
    ),
    Route(
        "POST",
        "/api/sessions/{key}/answers",
        lambda views: views.playing.answer,
        Operation(
            "answer",
            "Answer the current question",
            "playing",
            who=("player", "user"),
            takes=Takes(playing.Answer, examples.ANSWER),
            gives=(
                Gives(
                    200,
                    "The answer is stored. The same `ack` as on the WebSocket; sending again gives it again.",
                    playing.Ack,
                    examples.ACK,
                ),
            ),
            codes=(
                *(
                    "not_player",
                    "session_finished",
                    "wrong_question",
                    "question_closed",
                    "not_open_yet",
                    "joined_late",
                ),
                *("late", "paused", "bad_choice", "rate_limited", "too_many_connections"),
                *PLAYER_CODES,
                *IDENTITY_CODES,
            ),
            on_realtime_port=True,
        ),
    ),
    Route(
        "POST",
        "/api/sessions/{key}/next",
        lambda views: views.playing.next,
        Operation(
            "next",
            "Show the next question",
            "playing",
            who=("player", "user"),
            description="With the pace self, for this player alone. The time to answer runs from "
            "now on, and no request stops it; asked again before the answer, it shows the same question.",
            query=queries.NextQuery,
            gives=(
                Gives(
                    200,
                    "The question, which is stored as shown; or that there are no more.",
                    playing.NextStep,
                    examples.NEXT_STEP,
                    links=(Link("answer", "Answer, with the player's token.", OF_SESSION),),
                ),
            ),
            codes=(
                *("not_player", "session_finished", "not_open_yet", "illegal_move", "bad_field"),
                *("unknown_field", "rate_limited", "too_many_connections", *PLAYER_CODES, *IDENTITY_CODES),
            ),
            on_realtime_port=True,
        ),
    ),
    Route(
        "POST",
        "/api/sessions/{key}/host",
        lambda views: views.playing.lead,
        Operation(
            "lead",
            "Lead the session",
            "playing",
            who=("host",),
            takes=Takes(playing.HostCommand, examples.HOST_COMMAND),
            gives=(Gives(200, "Done and stored.", playing.Done, examples.DONE),),
            codes=("not_host", "token_replaced", "session_finished", "illegal_move", *PLAYER_CODES),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/{key}/leaderboard",
        lambda views: views.playing.leaderboard,
        Operation(
            "getLeaderboard",
            "The standing",
            "playing",
            who=("player", "user", "host", "author", "all"),
            description="While a question is open: as it was before, unless the session's board is live. "
            "Once the session is over: for its host, authors and whoever took part in it, and for all if "
            "its setting results_public says so.",
            query=queries.LeaderboardQuery,
            gives=(
                Gives(
                    200,
                    "The first, and with around=me those next to the player.",
                    playing.Leaderboard,
                    examples.LEADERBOARD,
                ),
            ),
            codes=("not_player", *OVER_CODES, *PLAYER_CODES, *IDENTITY_CODES),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/{key}/events",
        lambda views: views.events.open,
        Operation(
            "followEvents",
            "The broadcasts as Server-Sent Events",
            "playing",
            who=("player", "user", "host", "all"),
            query=queries.EventsQuery,
            headers={"Last-Event-ID": "`<epoch>:<offset>` of the last event seen."},
            gives=(
                Gives(
                    200,
                    "A stream that stays open; docs/protocol.md describes it.",
                    media_types={"text/event-stream": "string"},
                ),
            ),
            codes=(
                *("session_finished", "token_replaced", "too_many_connections"),
                *PLAYER_CODES,
                *IDENTITY_CODES,
            ),
            on_realtime_port=True,
        ),
    ),
    Route(
        "POST",
        NEGOTIATE_PATH,
        lambda views: views.playing.negotiate,
        Operation(
            "negotiateHub",
            "Begin as a client of SignalR",
            "playing",
            description="For clients of SignalR that have the address of this port: they go on at the "
            "realtime port, where the hub is.",
            gives=(Gives(200, "Negotiate there.", playing.Redirect, examples.REDIRECT),),
            codes=("bad_field",),
        ),
    ),
)

RESULTS = (
    Route(
        "GET",
        "/api/sessions/{key}/results",
        lambda views: views.results.show,
        Operation(
            "getResults",
            "The final standing",
            "results",
            who=("host", "player", "user", "author", "all"),
            description=STANDING,
            query=queries.ResultsQuery,
            gives=(Gives(200, STORED, playing.Results, examples.RESULTS),),
            codes=("not_host", "player_not_found", *OVER_CODES, *IDENTITY_CODES),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/{key}/results.json",
        lambda views: views.results.json_file,
        Operation(
            "downloadResultsJson",
            "The final standing as a JSON file",
            "results",
            who=("host", "player", "user", "author", "all"),
            description=STANDING,
            query=queries.ResultsQuery,
            gives=(Gives(200, STORED, playing.Results, examples.RESULTS),),
            codes=("not_host", "player_not_found", *OVER_CODES, *IDENTITY_CODES),
        ),
    ),
    Route(
        "GET",
        "/api/sessions/{key}/results.csv",
        lambda views: views.results.csv_file,
        Operation(
            "downloadResultsCsv",
            "The final standing as a CSV file",
            "results",
            who=("host", "player", "user", "author", "all"),
            description=STANDING,
            query=queries.CsvQuery,
            gives=(
                Gives(
                    200,
                    "rank, player, name, score, correct, answered, elapsed_ms, with a header line; in a "
                    "name, what a spreadsheet would take for a formula has an apostrophe in front.",
                    media_types={"text/csv": "string"},
                ),
            ),
            codes=("not_host", "player_not_found", *OVER_CODES, *IDENTITY_CODES),
        ),
    ),
)
