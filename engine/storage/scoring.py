"""Keeps `user_scores` and the entries of the leaderboards as the facts have them.

How to think about it: triggers write down what has yet to be done (`unscored_sessions`, `score_changes`), in
the transaction that makes it necessary. Any node does it, a little at a time, and takes it off the list in
the transaction that has done it. So a crash repeats work, and loses none. Doing it twice changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

import trio

from engine.beats import sleep_to_beat
from engine.boundary import Boundary
from engine.ports import StorageUnavailable
from engine.scores import KEPT_DAYS, PERIODS, Board, BoardSets, Change, Entry, Rule, SetsUnavailable, is_kept
from engine.storage.leaderboards import to_fill
from engine.storage.postgres import Connection, Database, Row
from engine.storage.user_scores import score_players, score_session

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
_AT_ONCE = 20
"""Steps of one look, so that a look ends."""
PLAYERS_PER_STEP = 200
CHANGES_PER_STEP = 200
"""Up to six entries change with each: a few milliseconds for PostgreSQL, and for Redis."""
ENTRIES_PER_STEP = 2_000
"""Of a sorted set that is filled."""
_PRUNE_EVERY_S = 3600.0
_PRUNED_AT_ONCE = 20_000

_LOCK = 0x66616E626F617264  # "fanboard"
_IN_TURN = f"SET LOCAL lock_timeout = '5s'; SELECT pg_advisory_xact_lock({_LOCK})"
"""Those who change entries or fill sorted sets let each other in, in the order they came."""


@dataclass(frozen=True, slots=True)
class ScoringStatistics:
    """Since the start of the node.

    Attributes:
        sessions_total: sessions whose scores were made. failed_total: attempts at it that failed.
        changes_total: rows of user_scores that the leaderboards have followed.
        sets_given_up_total: how often the sorted sets were found gone, or of another revision.
        sets_filled_total: sorted sets that were filled.
    """

    sessions_total: int
    failed_total: int
    changes_total: int
    sets_given_up_total: int
    sets_filled_total: int


class Scoring:
    """The work of one node on the scores.

    Args:
        rule: which plays of a user count for leaderboards.
        zone: in which days and weeks begin: a name that PostgreSQL knows.
        sets: the sorted sets that follow the entries; None without Redis.
    """

    def __init__(
        self,
        database: Database,
        *,
        rule: Rule,
        zone: str,
        sets: BoardSets | None = None,
        boundary: Boundary | None = None,
    ) -> None:
        self._database = database
        self._rule = rule
        self._zone = zone
        self._sets = sets
        self._boundary = boundary or Boundary()
        self._sessions = self._failed = self._changes = self._given_up = self._filled = 0
        self._pruned_s = -_PRUNE_EVERY_S
        self._sets_behind = False

    def statistics(self) -> ScoringStatistics:
        return ScoringStatistics(self._sessions, self._failed, self._changes, self._given_up, self._filled)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look again and again, until cancelled. Started at once."""
        task_status.started()
        while True:
            await sleep_to_beat(LOOK_EVERY_S)
            with self._boundary.within("scoring sessions"):
                await self.look()

    async def look(self) -> None:
        """Do what is on the lists, up to a bound. Does nothing while PostgreSQL is away."""
        try:
            for _ in range(_AT_ONCE):
                if not await self._step():
                    break
            await self._prune()
        except StorageUnavailable:
            return

    async def settle(self) -> None:
        """Do all that is on the lists, whatever it takes: for tests, and for the command line.

        Raises StorageUnavailable.
        """
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Whether there may be more to do."""
        row = await self._database.fetchrow(_LOOK)
        assert row is not None
        if row["unscored"] and await self.score_next():
            return True
        if row["changed"] or await self._out_of_step(row["revision"]):
            return await self.follow()
        return False

    async def _out_of_step(self, revision: int) -> bool:
        if self._sets is None:
            return False
        try:
            there = await self._sets.revision()
        except SetsUnavailable:
            return False
        # A set that was just brought further has not been committed yet, so one look alone says little.
        behind, self._sets_behind = self._sets_behind, there != revision
        return behind and self._sets_behind

    # -- scores ----------------------------------------------------------------------------------

    async def score_next(self) -> bool:
        """Score one session of the list, or some players in it. False when there is nothing to take that
        nobody else has taken."""
        taken: list[Row] = []

        async def work(connection: Connection) -> bool:
            row = await connection.fetchrow(_TAKE)
            if row is None:
                return False
            taken.append(row)
            session_id = str(row["session_id"])
            if row["player"] is None:
                await connection.execute("DELETE FROM unscored_sessions WHERE session_id = $1", session_id)
                await score_session(connection, session_id)
            else:
                done = await connection.fetch(_TAKE_PLAYERS, session_id, PLAYERS_PER_STEP)
                await score_players(
                    connection,
                    session_id,
                    [each["player"] for each in done],
                    [each["finished_at"] for each in done],
                )
            return True

        try:
            done = await self._database.in_transaction(work)
        except StorageUnavailable as error:
            if not taken:
                raise
            # It may be this session alone: the others must not wait for it.
            self._failed += 1
            _log.warning("session %s is not scored yet: %s", taken[0]["session_id"], error)
            await self._database.execute(_LATER, taken[0]["session_id"])
            return True
        self._sessions += done
        return done

    # -- leaderboards ----------------------------------------------------------------------------

    async def follow(self) -> bool:
        """Bring the leaderboards up to date with some of the changes. False when there were none."""
        given_up = False

        async def work(connection: Connection) -> int:
            nonlocal given_up
            await connection.execute(_IN_TURN)
            revision = await connection.fetchval("SELECT revision FROM leaderboard_progress")
            rows = await connection.fetch(_TAKE_CHANGES, self._zone, CHANGES_PER_STEP)
            if not rows:
                given_up = not await self._set_to(lambda sets: sets.settle(revision))
                return 0
            changes = await self._entries(connection, rows)
            await connection.execute("UPDATE leaderboard_progress SET revision = $1", revision + 1)
            given_up = not await self._set_to(lambda sets: sets.apply(revision + 1, changes))
            return len(rows)

        done = await self._database.in_transaction(work)
        self._changes += done
        if given_up:
            self._given_up += 1
            _log.info("the leaderboards in Redis begin anew: they were gone, or not up to date")
        await self._sweep()
        return done > 0

    async def fill(self, board: int) -> bool:
        """Fill a sorted set, unless somebody else does. False when that came to nothing: the next reader has
        it tried again. Raises StorageUnavailable."""
        sets, after, filled = self._sets, "", False
        if sets is None:
            return False
        try:
            if not await sets.begin_filling(board):
                return False
            while not filled:
                ok, filled, after = await self._fill_on(sets, board, after)
                if not ok:
                    return False
        except SetsUnavailable:
            return False
        self._filled += 1
        return True

    async def _fill_on(self, sets: BoardSets, board: int, after: str) -> tuple[bool, bool, str]:
        """A part of it: whether it was added, whether it was the last, and what it ended with."""

        async def work(connection: Connection) -> tuple[bool, bool, str]:
            # No change can come between reading these entries and adding them.
            await connection.execute(_IN_TURN)
            revision = await connection.fetchval("SELECT revision FROM leaderboard_progress")
            entries = await to_fill(connection, board, after, ENTRIES_PER_STEP)
            done = len(entries) < ENTRIES_PER_STEP
            ok = await sets.fill(board, revision, entries, done=done)
            return ok, done, entries[-1].user_id if entries else after

        return await self._database.in_transaction(work)

    async def _sweep(self) -> None:
        if self._sets is not None:
            with suppress(SetsUnavailable):
                await self._sets.sweep()

    async def _set_to(self, work: Callable[[BoardSets], Awaitable[bool]]) -> bool:
        """asyncio-flavoured. False when the sets had to be given up. When Redis is away nothing happens: a
        later look finds the sets behind."""
        if self._sets is None:
            return True
        try:
            return await work(self._sets)
        except SetsUnavailable:
            return True

    async def _entries(self, connection: Connection, rows: Sequence[Row]) -> list[Change]:
        today = await connection.fetchval("SELECT (now() AT TIME ZONE $1)::date", self._zone)
        touched = set(_touched(self._rule, rows, today))
        if not touched:
            return []
        boards = sorted(
            {board for board, _ in touched}, key=lambda each: (each.quiz_id, each.period, each.starts_on)
        )
        columns = (
            [board.rule for board in boards],
            [board.quiz_id for board in boards],
            [board.period for board in boards],
            [board.starts_on for board in boards],
        )
        await connection.execute(_ADD_BOARDS, *columns)
        numbers = {
            Board(row["rule"], row["quiz_id"], row["period"], row["starts_on"]): row["id"]
            for row in await connection.fetch(_BOARDS, *columns)
        }
        wanted = sorted((numbers[board], user_id) for board, user_id in touched)
        found = await connection.fetch(
            _FOLLOW[self._rule],
            [board for board, _ in wanted],
            [user_id for _, user_id in wanted],
            self._zone,
        )
        return [
            Change(
                row["board"],
                _entry(row["user_id"], row["old_score"], row["old_elapsed_ms"], row["old_reached_at"]),
                _entry(row["user_id"], row["score"], row["elapsed_ms"], row["reached_at"]),
            )
            for row in found
        ]

    async def _prune(self) -> None:
        if trio.current_time() - self._pruned_s < _PRUNE_EVERY_S:
            return
        self._pruned_s = trio.current_time()
        await self._database.execute(
            _PRUNE, self._zone, KEPT_DAYS["day"] + 1, KEPT_DAYS["week"] + 1, _PRUNED_AT_ONCE
        )


def _touched(rule: Rule, rows: Iterable[Row], today: date) -> Iterable[tuple[Board, str]]:
    """The entries that may be other ones now. What is no longer kept is left alone."""
    for row in rows:
        for quiz_id in (row["quiz_id"], ""):
            for period in PERIODS:
                board = Board.of(rule, quiz_id, period, row["day"])
                if is_kept(period, board.starts_on, today):
                    yield board, row["user_id"]


def _entry(user_id: str, score: int | None, elapsed_ms: int, reached_at: int) -> Entry | None:
    return None if score is None else Entry(user_id, int(score), int(elapsed_ms), reached_at)


_LOOK = """
SELECT revision,
       EXISTS (SELECT FROM unscored_sessions WHERE not_before <= now()) AS unscored,
       EXISTS (SELECT FROM score_changes) AS changed
FROM leaderboard_progress
"""

_TAKE = """
SELECT session_id, player FROM unscored_sessions WHERE not_before <= now()
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
"""

_TAKE_PLAYERS = """
DELETE FROM unscored_sessions WHERE id IN (
    SELECT id FROM unscored_sessions WHERE session_id = $1 AND player IS NOT NULL
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING player, finished_at
"""

_LATER = "UPDATE unscored_sessions SET not_before = now() + interval '1 minute' WHERE session_id = $1"

_TAKE_CHANGES = """
WITH taken AS (
    DELETE FROM score_changes WHERE id IN (SELECT id FROM score_changes ORDER BY id LIMIT $2)
    RETURNING user_id, quiz_id, (finished_at AT TIME ZONE $1)::date AS day
)
SELECT user_id, quiz_id, day FROM taken
"""

_ADD_BOARDS = """
INSERT INTO leaderboards (rule, quiz_id, period, starts_on)
SELECT t.* FROM unnest($1::text[], $2::text[], $3::text[], $4::date[]) AS t (rule, quiz_id, period, starts_on)
WHERE NOT EXISTS (
    SELECT FROM leaderboards b
    WHERE (b.rule, b.quiz_id, b.period, b.starts_on) = (t.rule, t.quiz_id, t.period, t.starts_on))
ON CONFLICT DO NOTHING
"""

_BOARDS = """
SELECT b.id, b.rule, b.quiz_id, b.period, b.starts_on
FROM unnest($1::text[], $2::text[], $3::text[], $4::date[]) AS t (rule, quiz_id, period, starts_on)
JOIN leaderboards b USING (rule, quiz_id, period, starts_on)
"""

_BEST = """
    SELECT u.score, u.elapsed_ms, u.finished_at AS reached_at
    FROM user_scores u
    WHERE {of_the_board}
    ORDER BY u.score DESC, u.elapsed_ms, u.finished_at LIMIT 1
"""

_SUM = """
    SELECT sum(u.score)::bigint AS score, sum(u.elapsed_ms)::bigint AS elapsed_ms,
           max(u.finished_at) AS reached_at
    FROM user_scores u
    WHERE {of_the_board}
    HAVING count(*) > 0
"""

_OF_THE_BOARD = """u.user_id = w.user_id AND (w.quiz_id = '' OR u.quiz_id = w.quiz_id)
      AND u.finished_at >= w.since AND u.finished_at < w.until"""


def _follow(plays: str) -> str:
    return f"""
WITH wanted AS MATERIALIZED (
    SELECT w.board, w.user_id, b.quiz_id,
           CASE WHEN b.period = 'all' THEN '-infinity'
                ELSE b.starts_on::timestamp AT TIME ZONE $3 END AS since,
           CASE b.period WHEN 'all' THEN 'infinity'
                WHEN 'day' THEN (b.starts_on + 1)::timestamp AT TIME ZONE $3
                ELSE (b.starts_on + 7)::timestamp AT TIME ZONE $3 END AS until
    FROM unnest($1::integer[], $2::text[]) AS w (board, user_id) JOIN leaderboards b ON b.id = w.board
), computed AS MATERIALIZED (
    SELECT w.board, w.user_id, c.score, c.elapsed_ms, c.reached_at
    FROM wanted w LEFT JOIN LATERAL ({plays.format(of_the_board=_OF_THE_BOARD)}) AS c ON true
), was AS MATERIALIZED (
    SELECT e.* FROM wanted w JOIN leaderboard_entries e ON e.board = w.board AND e.user_id = w.user_id
), gone AS (
    DELETE FROM leaderboard_entries e USING computed c
    WHERE e.board = c.board AND e.user_id = c.user_id AND c.score IS NULL
), put AS (
    INSERT INTO leaderboard_entries AS e (board, user_id, score, elapsed_ms, reached_at)
    SELECT board, user_id, score, elapsed_ms, reached_at FROM computed WHERE score IS NOT NULL
    ON CONFLICT (board, user_id) DO UPDATE
    SET (score, elapsed_ms, reached_at) = (excluded.score, excluded.elapsed_ms, excluded.reached_at)
    WHERE (e.score, e.elapsed_ms, e.reached_at)
       IS DISTINCT FROM (excluded.score, excluded.elapsed_ms, excluded.reached_at)
)
SELECT c.board, c.user_id, c.score, c.elapsed_ms,
       (extract(epoch FROM c.reached_at) * 1000)::bigint AS reached_at,
       was.score AS old_score, was.elapsed_ms AS old_elapsed_ms,
       (extract(epoch FROM was.reached_at) * 1000)::bigint AS old_reached_at
FROM computed c LEFT JOIN was ON was.board = c.board AND was.user_id = c.user_id
WHERE (c.score, c.elapsed_ms, c.reached_at) IS DISTINCT FROM (was.score, was.elapsed_ms, was.reached_at)
"""


_FOLLOW: dict[Rule, str] = {"best": _follow(_BEST), "sum": _follow(_SUM)}
"""Makes the entries of users in leaderboards anew, and returns those that are other ones now."""

_PRUNE = """
DELETE FROM leaderboard_entries WHERE (board, user_id) IN (
    SELECT e.board, e.user_id FROM leaderboard_entries e
    WHERE e.board IN (
        SELECT id FROM leaderboards
        WHERE period = 'day' AND starts_on < (now() AT TIME ZONE $1)::date - $2::integer
           OR period = 'week' AND starts_on < (now() AT TIME ZONE $1)::date - $3::integer)
    LIMIT $4)
"""
