"""Comparing, from outside, the scores of a load run with the facts."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.aio import open_asyncio
from engine.storage.scoring import Scoring
from server.cli.operate.sql import scores_of
from tests.conftest import fresh_database
from tests.storage.scored import ZONE, played

NOW = datetime.now(UTC)


async def test_scores_and_lines_that_are_not_as_the_facts_have_them_are_found(postgres_dsn: str) -> None:
    async with open_asyncio(), fresh_database(postgres_dsn) as (database, dsn):
        one = await played(database, {"ann": [(500, 20), (0, 5)], "bob": [(500, 30)], None: [(900, 1)]}, NOW)
        two = await played(database, {"eve": [(100, 10)], "kim": []}, NOW)
        await Scoring(database, rule="best", zone=ZONE).settle()
        # psql knows no search_path in an address.
        asked = f"{postgres_dsn}&options=-csearch_path%3D{dsn.rpartition('=')[2]}"
        found = await scores_of(asked, [one, two], "capitals")
        assert (found.scores, found.lines, found.wrong) == (4, 4 * 2 * 3, [])
        assert list(found.top) == [
            (quiz, period) for quiz in ("capitals", "all") for period in ("day", "all")
        ]
        for top in found.top.values():
            assert top == [("ann", 500, 25), ("bob", 500, 30), ("eve", 100, 10), ("kim", 0, 0)]

        await database.execute("UPDATE user_scores SET rank = 1 WHERE user_id = 'ann'")
        await database.execute("DELETE FROM user_scores WHERE user_id = 'kim'")
        await database.execute("TRUNCATE score_changes")
        await database.execute("DELETE FROM leaderboard_entries WHERE user_id = 'eve'")
        await database.execute("UPDATE leaderboard_entries SET score = 7 WHERE user_id = 'bob'")
        found = await scores_of(asked, [one, two], "capitals")
    kinds = [(kind, sentence.partition(",")[0]) for kind, sentence in found.wrong]
    assert sorted(kinds) == sorted(
        [("score of a user", user) for user in ("ann", "kim")]
        + [("line of a leaderboard", user) for user in ("bob", "eve") for _ in range(6)]
    )


async def test_of_a_user_who_comes_back_the_best_counts_whichever_session_is_asked_about(
    postgres_dsn: str,
) -> None:
    async with open_asyncio(), fresh_database(postgres_dsn) as (database, dsn):
        sessions = [
            await played(database, {"ann": [(score, elapsed_ms)]}, NOW)
            for score, elapsed_ms in ((500, 20), (700, 40), (700, 30))
        ]
        await Scoring(database, rule="best", zone=ZONE).settle()
        asked = f"{postgres_dsn}&options=-csearch_path%3D{dsn.rpartition('=')[2]}"
        for session in sessions:
            found = await scores_of(asked, [session], "capitals")
            assert (found.scores, found.lines, found.wrong) == (1, 2 * 3, [])
            assert found.top["all", "all"] == [("ann", 700, 30)]
