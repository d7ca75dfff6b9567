"""Leaderboards over sessions and the scores of users, as the API shows and erases them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from server.scores import Scores
from server.wire.cursors import cursor_of
from tests.http.edge import OUTSIDE, QUIZ, Edge, edge
from tests.identities import NOW_S, SETTINGS, signed
from tests.storage.scored import ZONE, played

AUTHOR = "the-author-key"
NOW = datetime.now(UTC).replace(microsecond=0)
BOARD = "/api/leaderboards/all"


@asynccontextmanager
async def node(database: Database, **config: Any) -> AsyncIterator[Edge]:
    """With a quiz, and scores in PostgreSQL."""
    async with edge(partial(PostgresSessionStore, database), author_key=AUTHOR, **SETTINGS, **config) as e:
        e.but(scores=Scores(database, rule="best", zone=ZONE))
        await e.post("/api/quizzes", QUIZ, token=AUTHOR)
        yield e


async def some_plays(e: Edge, database: Database) -> None:
    """Ten users; the later has more."""
    await played(database, {f"user {n}": [(100 * n, 10)] for n in range(10)}, NOW)
    await e.services.scores.look()


async def test_a_leaderboard_shows_names_and_the_own_line(database: Database) -> None:
    async with node(database) as e:
        await some_plays(e, database)
        found = await e.get(f"{BOARD}?period=week&top=2&around=me", token=signed("user 4"))
        assert found.status == 200, found.body
        board = found.json
        assert (board["quiz_id"], board["period"], board["rule"], board["total"]) == (
            None,
            "week",
            "best",
            10,
        )
        assert datetime.fromisoformat(board["starts_on"]).isoweekday() == 1
        assert board["top"][0] == {
            "rank": 1,
            "name": "user 9 10",
            "score": 900,
            "elapsed_ms": 10,
            "reached_at": int(NOW.timestamp() * 1000),
            "me": False,
        }
        assert [(line["rank"], line["name"], line["me"]) for line in board["around"]] == [
            (4, "user 6 7", False),
            (5, "user 5 6", False),
            (6, "user 4 5", True),
            (7, "user 3 4", False),
            (8, "user 2 3", False),
        ]
        of_quiz = (await e.get("/api/leaderboards/capitals?skip=8&top=5", token=AUTHOR)).json
        assert (of_quiz["quiz_id"], of_quiz["starts_on"]) == ("capitals", None)
        assert [(line["rank"], line["user_id"]) for line in of_quiz["top"]] == [(9, "user 1"), (10, "user 0")]
        stranger = await e.get(f"{BOARD}?around=me", token=signed("a stranger"))
        assert stranger.json["around"] == []
        long_ago = await e.get(f"{BOARD}?period=day&date=2020-02-29", token=AUTHOR)
        assert (long_ago.json["top"], long_ago.json["total"]) == ([], 0)


async def test_who_may_see_leaderboards_and_what_is_refused(database: Database) -> None:
    async with node(database) as e:
        assert (await e.get(BOARD, peer=OUTSIDE)).error == "token_missing"
        assert (await e.get(BOARD, token="nothing")).error == "token_invalid"
        assert (await e.get(BOARD, token=signed(exp=NOW_S - 31))).error == "identity_expired"
        assert (await e.get(f"{BOARD}?around=me", token=AUTHOR)).error == "token_missing"
        assert (await e.get("/api/leaderboards/rivers", token=AUTHOR)).error == "quiz_not_found"
        assert (await e.get("/api/leaderboards/%00", token=AUTHOR)).error == "quiz_not_found"
        for query in (
            "period=year",
            "date=2026-02-30",
            "date=20260228",
            "date=2026-W09-1",
            "date=2026-02-2%D9%A3",
            "top=101",
            "skip=9901",
            "around=you",
            "x=1",
        ):
            assert (await e.get(f"{BOARD}?{query}", token=AUTHOR)).status == 400
    async with node(database, leaderboards_public=True) as e:
        assert (await e.get(BOARD, peer=OUTSIDE)).status == 200
        assert (await e.get(BOARD, token="nothing")).error == "token_invalid"


async def test_keys_cannot_be_guessed_at_the_door_for_users(database: Database) -> None:
    async with node(database, attempts_per_min=3) as e:
        codes = [(await e.get(BOARD, token=f"guess-{n}", peer=OUTSIDE)).error for n in range(9)]
        assert codes[0] == "token_invalid"
        assert codes[-1] == "too_many_attempts"


async def test_a_user_sees_the_own_scores_and_an_author_those_of_all(database: Database) -> None:
    async with node(database) as e:
        for days in range(3):
            await played(database, {"ann": [(100 + days, 10)], "bob": []}, NOW - timedelta(days=days))
        await e.services.scores.look()
        url = "/api/users/ann/scores"
        first = (await e.get(f"{url}?limit=2", token=signed("ann"))).json
        assert first["totals"] == {
            "plays": 3,
            "score": 303,
            "correct": 3,
            "answered": 3,
            "elapsed_ms": 30,
            "days": 3,
            "days_best": 3,
        }
        second = (await e.get(f"{url}?limit=2&cursor={first['next']}", token=AUTHOR)).json
        assert [each["score"] for each in (*first["scores"], *second["scores"])] == [100, 101, 102]
        assert second["next"] is None
        assert (await e.get("/api/users/me/scores", token=signed("ann"))).json["user_id"] == "ann"
        assert (await e.get(url, token=signed("bob"))).error == "not_author"
        assert (await e.get(url)).error == "token_missing"
        assert (await e.get(f"/api/users/{'x' * 129}/scores", token=AUTHOR)).error == "bad_field"
        for cursor in ("x", cursor_of((1, "g" * 36)), cursor_of((10**15, "")), cursor_of((1,))):
            assert (await e.get(f"{url}?cursor={cursor}", token=AUTHOR)).error == "bad_field"
        for moment, plays in ((10**18, 3), (-(10**18), 0)):
            cursor = cursor_of((moment, "0" * 8 + "-0000-0000-0000-" + "0" * 12))
            assert len((await e.get(f"{url}?cursor={cursor}", token=AUTHOR)).json["scores"]) == plays
        for odd in ("a\u202eb", "a\u00a0b"):  # no control characters: the app may call users so
            joined = await e.get("/api/users/me/scores", token=signed(odd))
            assert (await e.get(f"/api/users/{odd}/scores", token=AUTHOR)).json == joined.json
        assert (await e.get("/api/users/a%00b/scores", token=AUTHOR)).error == "bad_field"
        nobody = (await e.get("/api/users/nobody/scores", token=AUTHOR)).json
        assert (nobody["totals"]["plays"], nobody["scores"]) == (0, [])


@pytest.mark.parametrize("token", [AUTHOR, signed("user 4")])
async def test_an_erased_user_is_gone_everywhere(database: Database, token: str) -> None:
    async with node(database) as e:
        await some_plays(e, database)
        session_id = await played(database, {"user 4": [(1, 1)]}, NOW)
        await e.services.scores.look()
        assert (await e.call("DELETE", "/api/users/user 4", token=signed("user 5"))).error == "not_author"
        gone = await e.call("DELETE", "/api/users/user 4", token=token)
        assert gone.json == {"user_id": "user 4", "sessions": 2}
        board = (await e.get(f"{BOARD}?top=100", token=AUTHOR)).json
        assert [line["user_id"] for line in board["top"]] == [
            f"user {n}" for n in (9, 8, 7, 6, 5, 3, 2, 1, 0)
        ]
        assert (await e.get("/api/users/user 4/scores", token=AUTHOR)).json["totals"]["plays"] == 0
        results = await e.get(f"/api/sessions/{session_id}/results", token=AUTHOR)
        assert "user 4" not in results.body.decode()
        assert (await e.call("DELETE", "/api/users/user 4", token=token)).json["sessions"] == 0


async def test_without_a_database_it_is_busy() -> None:
    async with edge(author_key=AUTHOR) as e:
        assert (await e.get(BOARD, token=AUTHOR)).error == "busy"
        assert (await e.get("/api/users/ann/scores", token=AUTHOR)).error == "busy"
        assert (await e.get("/api/users/me/scores", token="token")).error == "token_invalid"
