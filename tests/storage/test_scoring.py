"""Scores of users, and leaderboards over sessions, are what an independent SQL makes of the facts."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from functools import partial
from random import Random

import pytest
import trio

from engine.domain.settings import Reveal, Settings
from engine.ports import StorageUnavailable
from engine.scores import EPOCH, Board, Rule
from engine.storage import scoring as scoring_module
from engine.storage.erasing import delete_session, erase_player
from engine.storage.leaderboards import Cursor, Leaderboards
from engine.storage.postgres import Connection, Database
from engine.storage.score_checks import rebuild, rebuild_session, waiting, wrong_entries, wrong_scores
from engine.storage.scoring import Scoring
from engine.storage.user_scores import forget_user, score_players
from tests.storage.scored import ZONE, Line, at, boards_of, finish, independent, played

NOW = datetime.now(UTC).replace(microsecond=123_000)
TODAY = NOW.date()
ALL = Board("best", "", "all", EPOCH)


def scoring(database: Database, rule: Rule = "best") -> Scoring:
    return Scoring(database, rule=rule, zone=ZONE)


async def shown(database: Database, board: Board) -> list[Line]:
    """The leaderboard as pages of three give it."""
    boards = Leaderboards(database)
    number = await boards.number(board)
    if number is None:
        return []
    lines: list[Line] = []
    while True:
        page = await boards.page(number, len(lines), 3)
        if not page.entries:
            return lines
        for rank, entry in page.ranked():
            assert rank is not None
            lines.append((rank, entry.user_id, entry.score, entry.elapsed_ms, entry.reached_at))


async def scores(database: Database) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await database.fetch("SELECT * FROM user_scores ORDER BY 1, 2")]


@pytest.mark.parametrize("rule", ["best", "sum"])
async def test_leaderboards_are_those_of_the_facts(database: Database, rule: Rule) -> None:
    rng = Random(rule)
    users: list[str | None] = ["ann", "Bob", "zoë", "\U0001f600", "a/b c", None]
    moments = [NOW - timedelta(hours=rng.randrange(24 * 20), minutes=rng.randrange(60)) for _ in range(12)]
    moments += [NOW] * 3
    work = scoring(database, rule)
    for moment in moments:
        plays = {
            user: [(rng.choice((0, 500, 500, 1000)), rng.choice((100, 200))) for _ in range(rng.randrange(3))]
            for user in rng.sample(users, rng.randrange(1, len(users)))
        }
        session_id = await played(database, plays, moment, rng.choice(("capitals", "rivers")))
        if rng.random() < 0.3:
            await database.execute(
                "INSERT INTO session_changes (session_id, seq, kind, player, at) "
                "VALUES ($1, 9999, 'kicked', 1, $2)",
                session_id,
                moment,
            )
        if rng.random() < 0.5:
            await work.settle()
    await work.settle()
    days = [(moment + timedelta(hours=hours)).date() for moment in moments for hours in (0, 2)]
    compared = 0
    for board in boards_of(rule, days, ("capitals", "rivers")):
        found = await shown(database, board)
        assert found == await independent(database, board)
        compared += len(found)
    assert compared > 60


async def test_equal_scores_share_a_rank_and_less_time_then_the_earlier_comes_first(
    database: Database,
) -> None:
    for user, points, elapsed_ms, minutes in (
        ("late", 500, 200, 1),
        ("slow", 500, 300, 0),
        ("early", 500, 200, 0),
        ("first", 900, 900, 2),
        ("last", 0, 1, 0),
    ):
        await played(database, {user: [(points, elapsed_ms)]}, NOW + timedelta(minutes=minutes))
    await scoring(database).settle()
    lines = [(line[0], line[1]) for line in await shown(database, ALL)]
    assert lines == [(1, "first"), (2, "early"), (2, "late"), (2, "slow"), (5, "last")]
    boards = Leaderboards(database)
    number = await boards.number(ALL)
    assert number is not None
    near = await boards.around(number, "late", 1)
    assert [(rank, entry.user_id) for rank, entry in near.ranked()] == [
        (2, "early"),
        (2, "late"),
        (2, "slow"),
    ]
    assert (near.place, near.total) == (1, 5)
    assert (await boards.around(number, "stranger", 1)).entries == ()


async def test_days_and_weeks_begin_at_midnight_of_the_zone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_module, "is_kept", lambda *_: True)
    # 23:30 UTC on Sunday is Monday in Berlin; 2026 has a week 53, which begins on 28 December.
    await played(database, {"ann": [(100, 1)]}, at("2026-12-27T22:59:59.999"))
    await played(database, {"bob": [(100, 1)]}, at("2026-12-27T23:00:00"))
    await played(database, {"eve": [(100, 1)]}, at("2027-01-03T22:59:59.999"))
    await played(database, {"joe": [(100, 1)]}, at("2027-01-03T23:00:00"))
    # In the night of 28 March 2027 Berlin has a day of 23 hours.
    await played(database, {"kim": [(100, 1)]}, at("2027-03-27T23:00:00"))
    await played(database, {"lea": [(100, 1)]}, at("2027-03-28T21:59:59.999"))
    await played(database, {"max": [(100, 1)]}, at("2027-03-28T22:00:00"))
    await scoring(database).settle()

    async def users(period: str, day: str) -> list[str]:
        board = Board.of("best", "", period, date.fromisoformat(day))  # type: ignore[arg-type]
        return sorted(line[1] for line in await shown(database, board))

    assert date(2026, 12, 28).isocalendar().week == 53
    assert await users("week", "2026-12-27") == ["ann"]
    assert await users("week", "2026-12-31") == await users("week", "2027-01-03") == ["bob", "eve"]
    assert await users("week", "2027-01-04") == ["joe"]
    assert (await users("day", "2026-12-27"), await users("day", "2026-12-28")) == (["ann"], ["bob"])
    assert (await users("day", "2027-03-28"), await users("day", "2027-03-29")) == (["kim", "lea"], ["max"])


async def test_a_score_follows_a_correction_a_merge_and_an_erasure(database: Database) -> None:
    session_id = await played(database, {"ann": [(500, 100)], "bob": [(400, 100)], None: [(900, 1)]}, NOW)
    work = scoring(database)
    await work.settle()
    [ann, bob] = await database.fetch("SELECT * FROM user_scores ORDER BY user_id")
    assert (ann["score"], ann["rank"], ann["players"], ann["name"]) == (500, 2, 3, "ann 1")
    assert (bob["score"], bob["rank"], bob["finished_at"]) == (400, 3, NOW)

    await database.execute("INSERT INTO corrected_answers VALUES ($1, 1, 1, false, 0)", session_id)
    await database.execute(
        "INSERT INTO corrections VALUES ($1, 1, 1, '{}', '{}', 'Ann', '', now())", session_id
    )
    await work.settle()
    assert [line[:3] for line in await shown(database, ALL)] == [(1, "bob", 400), (2, "ann", 0)]

    await database.execute(
        "INSERT INTO merged_answers VALUES ($1, 5000, 2, 1, '0', 100, true, 700, now())", session_id
    )
    await database.execute(
        "INSERT INTO players (session_id, player, name, joined_at, seq, user_id) "
        "VALUES ($1, 4, 'eve', now(), 5001, 'eve')",
        session_id,
    )
    await work.settle()
    assert len(await scores(database)) == 2
    await database.execute(
        "INSERT INTO spooled_facts (session_id, epoch, seq, count, node, facts, put_at) "
        "VALUES ($1, 1, 1, 1, 'node', '[]', now())",
        session_id,
    )
    await database.execute("UPDATE spooled_facts SET merged_at = now()")
    await work.settle()
    assert [line[:3] for line in await shown(database, ALL)] == [
        (1, "ann", 700),
        (2, "bob", 400),
        (3, "eve", 0),
    ]

    await database.execute("UPDATE players SET user_id = NULL, erased_at = now() WHERE player = 1")
    assert [row[1] for row in await scores(database)] == ["bob", "eve"]  # at once
    await work.settle()
    assert [line[1] for line in await shown(database, ALL)] == ["bob", "eve"]


async def test_a_crash_between_the_end_and_the_scores_is_repeated(database: Database) -> None:
    await played(database, {"ann": [(500, 100)]}, NOW)
    work = scoring(database)

    class Killed(BaseException):
        pass

    async def dies(connection: Connection, session_id: str) -> None:
        await real(connection, session_id)
        raise Killed

    real = scoring_module.score_session
    scoring_module.score_session = dies
    try:
        with pytest.raises(Killed):
            await work.look()
    finally:
        scoring_module.score_session = real
    assert await scores(database) == []
    await scoring(database).settle()
    assert [line[1] for line in await shown(database, ALL)] == ["ann"]


async def test_a_session_that_cannot_be_scored_holds_up_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await played(database, {"ann": [(500, 100)]}, NOW)
    await played(database, {"bob": [(500, 100)]}, NOW)
    real = scoring_module.score_session

    async def fails(connection: Connection, session_id: str) -> None:
        if session_id == bad:
            raise StorageUnavailable("too slow")
        await real(connection, session_id)

    monkeypatch.setattr(scoring_module, "score_session", fails)
    work = scoring(database)
    await work.look()
    assert [line[1] for line in await shown(database, ALL)] == ["bob"]
    assert (work.statistics().sessions_total, work.statistics().failed_total) == (1, 1)
    monkeypatch.setattr(scoring_module, "score_session", real)
    await work.look()
    assert [line[1] for line in await shown(database, ALL)] == ["bob"]  # it waits
    await database.execute("UPDATE unscored_sessions SET not_before = now()")
    await work.look()
    assert [line[1] for line in await shown(database, ALL)] == ["ann", "bob"]


async def test_several_nodes_score_at_once(database: Database) -> None:
    for n in range(8):
        await played(database, {"ann": [(100 * n, 100)], f"user {n}": [(5, 5)]}, NOW)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(scoring(database).settle)
    await scoring(database).settle()
    for board in boards_of("best", [TODAY], ["capitals"]):
        assert await shown(database, board) == await independent(database, board)


async def test_no_score_of_a_session_that_runs_or_of_guests(database: Database) -> None:
    running = await played(database, {"ann": [(500, 100)]}, NOW, finished=False)
    await played(database, {None: [(500, 100)]}, NOW)
    work = scoring(database)
    await work.settle()
    assert await scores(database) == []
    await finish(database, running, NOW)
    await work.settle()
    assert len(await scores(database)) == 1


async def test_who_is_through_at_the_own_pace_has_a_score_before_the_end(database: Database) -> None:
    answers = [(500, 100), (300, 50)]
    session_id = await played(
        database, {"ann": answers, "bob": [(1, 1)], None: answers, "eve": answers}, NOW, finished=False
    )
    await database.execute(
        "UPDATE quizzes SET definition = '{\"questions\": [1, 2, 3]}'",
    )

    async def through(player: int, minutes: int) -> None:
        await database.execute(
            "INSERT INTO session_changes (session_id, seq, kind, player, at) VALUES ($1, $2, 'done', $3, $4)",
            session_id,
            10_000 + player,
            player,
            NOW + timedelta(minutes=minutes),
        )

    async def wrong() -> int:
        return len(await database.in_transaction(partial(wrong_scores, session_id=session_id)))

    work = scoring(database)
    for player in (1, 3):
        await through(player, player)
    await work.settle()
    [ann] = await database.fetch("SELECT * FROM user_scores")
    assert (ann["user_id"], ann["score"], ann["correct"], ann["answered"]) == ("ann", 800, 2, 2)
    assert (ann["elapsed_ms"], ann["rank"], ann["players"]) == (150, None, None)
    assert ann["finished_at"] == NOW + timedelta(minutes=1)
    assert [line[1] for line in await shown(database, ALL)] == ["ann"]
    assert await wrong() == 0
    await through(4, 4)
    await database.execute("UPDATE players SET user_id = NULL, erased_at = now() WHERE player = 1")
    await work.settle()
    assert [line[1] for line in await shown(database, ALL)] == ["eve"]
    assert await wrong() == 0
    await finish(database, session_id, NOW + timedelta(minutes=9))
    await work.settle()
    [bob, eve] = await database.fetch("SELECT * FROM user_scores ORDER BY user_id")
    assert (bob["rank"], bob["players"], bob["finished_at"]) == (4, 4, NOW + timedelta(minutes=9))
    assert (eve["rank"], eve["players"], eve["finished_at"]) == (1, 4, NOW + timedelta(minutes=4))
    await through(2, 12)  # merged late: the end has been scored
    await work.settle()
    assert (await database.fetch("SELECT rank FROM user_scores WHERE user_id = 'bob'"))[0]["rank"] == 4


@pytest.mark.parametrize("reveal", ["each", "end", "deadline", "never"])
async def test_no_score_tells_what_is_right_before_players_may_know(
    database: Database, reveal: Reveal
) -> None:
    early = reveal in ("each", "end")
    session_id = await played(database, {"ann": [(500, 100)]}, NOW, finished=False)
    await database.execute("UPDATE quizzes SET definition = '{\"questions\": [1]}'")
    settings = Settings(pace="self", reveal=reveal)
    await database.execute("UPDATE sessions SET settings = $1", json.dumps(settings.to_dict()))
    through = NOW - timedelta(minutes=5)
    await database.execute(
        "INSERT INTO session_changes (session_id, seq, kind, player, at) VALUES ($1, 9999, 'done', 1, $2)",
        session_id,
        through,
    )
    work = scoring(database)
    await work.settle()
    assert [row[1] for row in await scores(database)] == ["ann"] * early
    assert [line[1] for line in await shown(database, ALL)] == ["ann"] * early
    await rebuild_session(database, session_id)  # neither does a rebuild of a session that runs
    await work.settle()
    assert [row[1] for row in await scores(database)] == ["ann"] * early
    assert await database.in_transaction(partial(wrong_scores, session_id=session_id)) == []
    await finish(database, session_id, NOW)
    await work.settle()
    [ann] = await database.fetch("SELECT * FROM user_scores")
    assert (ann["score"], ann["rank"], ann["finished_at"]) == (500, 1, through)


async def test_a_user_who_is_removed_from_a_session_that_goes_on_has_no_score_of_it(
    database: Database,
) -> None:
    session_id = await played(database, {"ann": [(500, 100)], "bob": [(100, 1)]}, NOW, finished=False)
    await database.execute("UPDATE quizzes SET definition = '{\"questions\": [1]}'")
    await database.execute("UPDATE sessions SET settings = $1", json.dumps(Settings(pace="self").to_dict()))
    work, through = scoring(database), NOW - timedelta(minutes=5)

    async def happens(seq: int, kind: str, at: datetime) -> list[str]:
        """Who leads then."""
        await database.execute(
            "INSERT INTO session_changes (session_id, seq, kind, player, at) VALUES ($1, $2, $3, 1, $4)",
            session_id,
            seq,
            kind,
            at,
        )
        await work.settle()
        assert await database.in_transaction(partial(wrong_scores, session_id=session_id)) == []
        return [line[1] for line in await shown(database, ALL)]

    assert await happens(9_001, "kicked", NOW) == []
    assert await happens(9_002, "readmitted", NOW) == [], "who is not through has no score"
    assert await happens(9_003, "done", through) == ["ann"]
    assert await happens(9_004, "kicked", NOW) == []
    assert await happens(9_005, "readmitted", NOW) == ["ann"]
    [ann] = await database.fetch("SELECT * FROM user_scores")
    assert (ann["score"], ann["rank"], ann["finished_at"]) == (500, None, through)
    assert await happens(9_006, "kicked", NOW) == []
    await finish(database, session_id, NOW)
    await work.settle()
    assert [line[1] for line in await shown(database, ALL)] == ["bob"]


async def test_the_best_attempt_that_a_user_is_through_with_is_the_score(database: Database) -> None:
    session_id = await played(
        database,
        # The numbers 3 and 4 are the second and third attempt of ann, 5 is the second of bob.
        {
            "ann": [(100, 50), (0, 50)],
            "bob": [(300, 10)],
            None: [(500, 40), (200, 40)],
            "not a user": [(400, 30), (200, 30)],
            "neither": [(900, 9)],
        },
        NOW,
        finished=False,
    )
    await database.execute("DELETE FROM players WHERE player > 2")
    await database.execute("UPDATE quizzes SET definition = '{\"questions\": [1, 2]}'")
    await database.execute("UPDATE sessions SET settings = $1", json.dumps(Settings(pace="self").to_dict()))
    for seq, player, attempt, number in ((8_001, 1, 2, 3), (8_002, 1, 3, 4), (8_003, 2, 2, 5)):
        await database.execute(
            "INSERT INTO session_changes (session_id, seq, kind, player, question, by_ms, at) "
            "VALUES ($1, $2, 'attempt', $3, $4, $5, $6)",
            session_id,
            seq,
            player,
            attempt,
            number,
            NOW,
        )
    work = scoring(database)

    async def through(number: int, minutes: int) -> list[tuple[str, int, int, int, datetime]]:
        await database.execute(
            "INSERT INTO session_changes (session_id, seq, kind, player, at) VALUES ($1, $2, 'done', $3, $4)",
            session_id,
            9_000 + number,
            number,
            NOW + timedelta(minutes=minutes),
        )
        return await settled()

    async def settled() -> list[tuple[str, int, int, int, datetime]]:
        await work.settle()
        assert await database.in_transaction(partial(wrong_scores, session_id=session_id)) == []
        rows = await database.fetch("SELECT * FROM user_scores ORDER BY user_id")
        return [
            (row["user_id"], row["score"], row["correct"], row["elapsed_ms"], row["finished_at"])
            for row in rows
        ]

    def after(minutes: int) -> datetime:
        return NOW + timedelta(minutes=minutes)

    assert await through(1, 1) == [("ann", 100, 1, 100, after(1))]
    bob = ("bob", 300, 1, 10, after(2))
    assert await through(2, 2) == [("ann", 100, 1, 100, after(1)), bob], "not what bob has not finished"
    assert await through(3, 3) == [("ann", 700, 2, 80, after(3)), bob]
    assert await through(4, 4) == [("ann", 700, 2, 80, after(3)), bob], "the third was worse"
    await rebuild_session(database, session_id)
    assert await settled() == [("ann", 700, 2, 80, after(3)), bob]
    for seq, kind in ((9_101, "kicked"), (9_102, "readmitted")):
        await database.execute(
            "INSERT INTO session_changes (session_id, seq, kind, player, at) VALUES ($1, $2, $3, 1, $4)",
            session_id,
            seq,
            kind,
            NOW,
        )
        here = [("ann", 700, 2, 80, after(3))] if kind == "readmitted" else []
        assert await settled() == [*here, bob]
    await finish(database, session_id, after(9))
    assert await settled() == [("ann", 700, 2, 80, after(3)), ("bob", 900, 1, 9, after(9))]
    rows = await database.fetch("SELECT player, rank, score, answered, number FROM standings ORDER BY player")
    assert [tuple(row) for row in rows] == [(1, 2, 700, 2, 3), (2, 1, 900, 1, 5)]


async def test_the_score_of_an_attempt_is_made_without_reading_those_of_others(database: Database) -> None:
    session_id = await played(database, {"ann": [(500, 100)]}, NOW, finished=False)
    await database.execute("UPDATE quizzes SET definition = '{\"questions\": [1]}'")
    await database.execute("UPDATE sessions SET settings = $1", json.dumps(Settings(pace="self").to_dict()))
    await database.execute(
        "INSERT INTO players (session_id, player, name, joined_at, seq, user_id) "
        "SELECT $1, n, n, $2, n, 'user ' || n FROM generate_series(2, 3000) AS n",
        session_id,
        NOW,
    )
    await database.execute(
        "INSERT INTO session_changes (session_id, seq, kind, player, question, by_ms, at) "
        "SELECT $1, 10000 + n, 'attempt', n, 2, 3000 + n, $2 FROM generate_series(1, 3000) AS n",
        session_id,
        NOW,
    )
    await database.execute("ANALYZE")

    async def read(connection: Connection) -> int:
        await score_players(connection, session_id, [3_001], [NOW])
        return int(
            await connection.fetchval(
                "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) "
                "FROM pg_stat_xact_user_tables WHERE relname LIKE 'session_changes%'"
            )
        )

    assert await database.in_transaction(read) < 20


async def test_a_forgotten_user_and_a_deleted_session_leave_every_leaderboard(database: Database) -> None:
    deleted = await played(database, {"ann": [(900, 100)], "bob": [(100, 1)]}, NOW)
    await played(database, {"ann": [(500, 100)], "eve": [(1, 1)]}, NOW, "rivers")
    work = scoring(database)
    await work.settle()
    await database.in_transaction(lambda connection: delete_session(connection, deleted))
    await work.settle()
    assert [line[1:3] for line in await shown(database, ALL)] == [("ann", 500), ("eve", 1)]
    boards = Leaderboards(database)
    for seat in await boards.seats("ann", None, 100):
        await database.in_transaction(partial(erase_player, session_id=seat.session_id, player=seat.player))
    await forget_user(database, "ann")
    await work.settle()
    for board in boards_of("best", [TODAY], ["capitals", "rivers"]):
        assert "ann" not in [line[1] for line in await shown(database, board)]
    assert await boards.seats("ann", None, 100) == []
    assert await boards.names(["ann", "eve"]) == {"eve": "eve 2"}


async def test_a_rebuild_makes_the_scores_anew_and_keeps_those_without_facts(database: Database) -> None:
    dropped = await played(database, {"ann": [(900, 100)]}, NOW - timedelta(days=1))
    for n in range(4):
        await played(database, {"bob": [(n, 100)]}, NOW)
    work = scoring(database)
    await work.settle()
    before = await scores(database)
    for table in ("players", "answers", "sessions"):  # as retention does
        column = "id" if table == "sessions" else "session_id"
        await database.execute(f"DELETE FROM {table} WHERE {column} = $1", dropped)
    await database.execute("UPDATE user_scores SET score = 77 WHERE user_id = 'bob'")
    await work.settle()
    after, more = None, True
    while more:
        done, more = await rebuild(database, None, after, 3)
        after = done[-1] if done else after
    await work.settle()
    assert await scores(database) == before
    assert [line[1:3] for line in await shown(database, ALL)] == [("ann", 900), ("bob", 3)]


@pytest.mark.parametrize("rule", ["best", "sum"])
async def test_what_is_not_as_the_facts_have_it_is_found(database: Database, rule: Rule) -> None:
    session_id = await played(database, {"ann": [(900, 100)], "bob": [(1, 1)]}, NOW)
    assert await waiting(database) == 1
    await scoring(database, rule).settle()
    assert await waiting(database) == 0
    boards = 2 * 3
    assert await wrong_entries(database, rule, ZONE) == (2 * boards, 0)

    async def wrong() -> list[tuple[object, object]]:
        found = await database.in_transaction(partial(wrong_scores, session_id=session_id))
        return [(a and a["score"], b and b["score"]) for a, b in found]

    assert await wrong() == []
    await database.execute("UPDATE user_scores SET score = 901 WHERE user_id = 'ann'")
    await database.execute("DELETE FROM user_scores WHERE user_id = 'bob'")
    assert await wrong() == [(901, 900), (None, 1)]
    assert await wrong_entries(database, rule, ZONE) == (2 * boards, 2 * boards)
    await scoring(database, rule).settle()
    assert await wrong_entries(database, rule, ZONE) == (boards, 0)
    await database.execute("UPDATE leaderboard_entries SET elapsed_ms = 7 WHERE board = 1")
    assert await wrong_entries(database, rule, ZONE) == (boards, 1)
    await rebuild(database, None, None, 10)
    assert await wrong() == []
    await scoring(database, rule).settle()
    assert await wrong_entries(database, rule, ZONE) == (2 * boards, 0)


async def test_a_change_of_the_rule_or_the_zone_is_followed_after_a_rebuild(database: Database) -> None:
    for points in (300, 500):
        await played(database, {"ann": [(points, 100)]}, NOW)
    await scoring(database).settle()
    await rebuild(database, None, None, 10)
    other = Scoring(database, rule="sum", zone="Pacific/Auckland")
    await other.settle()
    assert await wrong_entries(database, "sum", "Pacific/Auckland") == (6, 0)
    assert [line[1:3] for line in await shown(database, Board("sum", "", "all", EPOCH))] == [("ann", 800)]


async def test_the_scores_of_a_user_come_in_pages_with_totals_and_the_days_in_a_row(
    database: Database,
) -> None:
    noon = NOW.replace(hour=12, minute=0)
    for days in (1, 2, 3, 3, 5, 6, 8):
        await played(database, {"ann": [(100, 10), (0, 5)]}, noon - timedelta(days=days))
    await scoring(database).settle()
    boards = Leaderboards(database)
    seen: list[int] = []
    after = None
    while page := await boards.scores("ann", after, 3):
        seen += [score.finished_at for score in page]
        after = Cursor(page[-1].finished_at, page[-1].session_id)
    assert len(seen) == 7
    assert seen == sorted(seen, reverse=True)
    totals = await boards.totals("ann", noon.date(), ZONE)
    assert (totals.plays, totals.score, totals.correct, totals.answered, totals.elapsed_ms) == (
        7,
        700,
        7,
        14,
        105,
    )
    assert (totals.days, totals.days_best) == (3, 3)
    assert (await boards.totals("ann", noon.date() + timedelta(days=1), ZONE)).days == 0
    assert (await boards.totals("nobody", noon.date(), ZONE)).plays == 0


async def test_leaderboards_of_long_ago_are_not_kept(database: Database) -> None:
    await played(database, {"ann": [(100, 1)]}, NOW)
    await played(database, {"bob": [(100, 1)]}, NOW - timedelta(days=500))
    work = scoring(database)
    await work.settle()
    rows = await database.fetch(
        "SELECT DISTINCT period FROM leaderboards JOIN leaderboard_entries ON board = id "
        "WHERE user_id = 'bob'"
    )
    assert [row["period"] for row in rows] == ["all"]
    await database.execute("UPDATE leaderboards SET starts_on = starts_on - 500 WHERE period <> 'all'")
    await work.look()
    rows = await database.fetch(
        "SELECT DISTINCT period FROM leaderboards JOIN leaderboard_entries ON board = id"
    )
    assert [row["period"] for row in rows] == ["all"]
