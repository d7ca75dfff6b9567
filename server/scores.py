"""Leaderboards as a node shows them: from Redis where it has them, and from PostgreSQL otherwise."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

import trio

from engine.boundary import Boundary
from engine.ports import StorageUnavailable
from engine.scores import EMPTY, Board, BoardSets, Entry, Page, Period, Rule, SetsUnavailable
from engine.storage.leaderboards import Cursor, Leaderboards, Seat, Totals, UserScore
from engine.storage.postgres import Database
from engine.storage.scoring import Scoring, ScoringStatistics
from engine.storage.user_scores import forget_user

AROUND = 2
"""Lines before and after the own one."""

_AT_ONCE_MAX = 4
"""Questions about leaderboards and users that are in the database at a time."""
_TO_FILL_MAX = 1_000
_NUMBERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a leaderboard. `rank` is None when it is so far down that PostgreSQL does not count it."""

    rank: int | None
    name: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Shown:
    """A part of a leaderboard, and how many lines all of it has, with None as in `Line`."""

    lines: Sequence[Line]
    total: int | None


@dataclass(frozen=True, slots=True)
class ScoresStatistics:
    """Since the start of the node. `from_redis_total` and `from_postgres_total` count the parts of
    leaderboards that were read there."""

    scoring: ScoringStatistics
    from_redis_total: int
    from_postgres_total: int


class Scores:
    """Scores of users and leaderboards. Every call raises StorageUnavailable when PostgreSQL does not answer.

    Args:
        sets: the sorted sets; None without Redis.
        current_time: seconds.
    """

    def __init__(
        self,
        database: Database,
        *,
        rule: Rule,
        zone: str,
        sets: BoardSets | None = None,
        boundary: Boundary | None = None,
        current_time: Callable[[], float] = trio.current_time,
    ) -> None:
        self.rule = rule
        self._zone = zone
        self._database = database
        self._sets = sets
        self._boundary = boundary or Boundary()
        self._current_time = current_time
        self._boards = Leaderboards(database)
        self._scoring = Scoring(database, rule=rule, zone=zone, sets=sets, boundary=boundary)
        self._at_once = trio.CapacityLimiter(_AT_ONCE_MAX)
        self._numbers: dict[Board, int] = {}
        self._today: tuple[date, float] | None = None
        self._to_fill: deque[int] = deque()
        self._filling = trio.Event()
        self._from_redis = self._from_postgres = 0

    def statistics(self) -> ScoresStatistics:
        return ScoresStatistics(self._scoring.statistics(), self._from_redis, self._from_postgres)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Score sessions, and fill sorted sets that were asked for. Until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._scoring.run)
            nursery.start_soon(self._fill)
            task_status.started()

    async def _fill(self) -> None:
        while True:
            await self._filling.wait()
            self._filling = trio.Event()
            while self._to_fill:
                # What did not come about is tried again for the next reader.
                work = self._boundary.within("filling a leaderboard in Redis")
                with work, suppress(StorageUnavailable):
                    await self._scoring.fill(self._to_fill[0])
                self._to_fill.popleft()

    async def look(self) -> None:
        """Do at once what is to be done about scores and leaderboards, as far as it goes."""
        await self._scoring.look()

    # -- leaderboards ----------------------------------------------------------------------------

    async def today(self) -> date:
        """In the time zone of the node."""
        now_s = self._current_time()
        if self._today is None or now_s >= self._today[1]:
            async with self._at_once:
                day, left_ms = await self._boards.day(self._zone)
            # A wall clock may be set: after a minute PostgreSQL is asked again.
            self._today = day, now_s + min(left_ms / 1000, 60.0)
        return self._today[0]

    def board(self, quiz_id: str, period: Period, day: date) -> Board:
        """The leaderboard of the period that a day belongs to. An empty `quiz_id` is for all quizzes."""
        return Board.of(self.rule, quiz_id, period, day)

    async def page(self, board: Board, place: int, count: int) -> Shown:
        """`count` lines, without the first `place`."""
        async with self._at_once:
            number = await self._number(board)
            if number is None:
                return Shown((), 0)
            page = await self._from_sets(number, lambda sets: sets.page(number, place, count))
            if page is None:
                page = await self._boards.page(number, place, count)
            return await self._named(page)

    async def around(self, board: Board, user_id: str) -> Shown:
        """The line of a user with `AROUND` before and after it. No lines when the user is not in it."""
        async with self._at_once:
            number = await self._number(board)
            entry = None if number is None else await self._boards.entry(number, user_id)
            if number is None or entry is None:
                return Shown((), None)
            page = await self._from_sets(number, lambda sets: sets.around(number, entry, AROUND))
            if page is None:
                page = await self._boards.around(number, user_id, AROUND)
            return await self._named(page)

    async def _from_sets(
        self, number: int, ask: Callable[[BoardSets], Awaitable[Page | None]]
    ) -> Page | None:
        if self._sets is None:
            self._from_postgres += 1
            return None
        try:
            page = await ask(self._sets)
        except SetsUnavailable:
            page = None
        else:
            if page is None:
                self._want(number)
        if page is None:
            self._from_postgres += 1
        else:
            self._from_redis += 1
        return page

    def _want(self, number: int) -> None:
        """Have a set filled. One that is wanted while very many are is filled when it is asked for again."""
        if number not in self._to_fill and len(self._to_fill) < _TO_FILL_MAX:
            self._to_fill.append(number)
            self._filling.set()

    async def _number(self, board: Board) -> int | None:
        number = self._numbers.get(board)
        if number is None:
            number = await self._boards.number(board)
            if number is not None:
                while len(self._numbers) >= _NUMBERS_MAX:
                    del self._numbers[next(iter(self._numbers))]
                self._numbers[board] = number
        return number

    async def _named(self, page: Page) -> Shown:
        """A user who was erased in the moment has no name, and so no line."""
        if page is EMPTY or not page.entries:
            return Shown((), page.total)
        names = await self._boards.names([entry.user_id for entry in page.entries])
        lines = [
            Line(rank, names[entry.user_id], entry) for rank, entry in page.ranked() if entry.user_id in names
        ]
        return Shown(lines, page.total)

    # -- users -----------------------------------------------------------------------------------

    async def scores(self, user_id: str, after: Cursor | None, limit: int) -> Sequence[UserScore]:
        """What a user has scored, newest first."""
        async with self._at_once:
            return await self._boards.scores(user_id, after, limit)

    async def totals(self, user_id: str) -> Totals:
        day = await self.today()
        async with self._at_once:
            return await self._boards.totals(user_id, day, self._zone)

    async def seats(self, user_id: str, after: Seat | None, limit: int) -> Sequence[Seat]:
        """The players that a user is, in all sessions that are stored."""
        async with self._at_once:
            return await self._boards.seats(user_id, after, limit)

    async def forget_user(self, user_id: str) -> int:
        """Delete all scores of a user. Returns how many there were. The leaderboards follow."""
        return await forget_user(self._database, user_id)
