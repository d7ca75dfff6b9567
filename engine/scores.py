"""Scores over sessions: what a leaderboard is, the order of its entries, the sorted sets that may hold it.

How to think about it: the facts are the truth. `user_scores` follows from them, the entries of leaderboards
from `user_scores`, and the sorted sets in Redis from the entries. Each step may be made again at any time.

The order is: the higher score, then less time, then the earlier, then the user's id as bytes. A sorted set of
Redis orders by a double, and members of the same double by their bytes. So the double is the score, negated,
which is exact up to 2**53; and a member begins with time and date as twelve bytes, most significant first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, Protocol, get_args

Rule = Literal["best", "sum"]
"""Whether the best play of a user counts, or the sum of all."""

Period = Literal["day", "week", "all"]
PERIODS: tuple[Period, ...] = get_args(Period)

EPOCH = date(1970, 1, 1)
"""What a leaderboard of all time begins with."""

KEPT_DAYS = {"day": 62, "week": 400}
"""Leaderboards of days and weeks that began longer ago are not kept."""

SCORE_MAX = 2**53
PREFIX_BYTES = 12
COUNTED_MAX = 10_000
"""PostgreSQL counts so far, and no further, to tell a rank."""


@dataclass(frozen=True, slots=True)
class Board:
    """Names a leaderboard. `quiz_id` is empty for the one over all quizzes. `starts_on` is the first day of
    its period."""

    rule: Rule
    quiz_id: str
    period: Period
    starts_on: date

    @classmethod
    def of(cls, rule: Rule, quiz_id: str, period: Period, day: date) -> Board:
        """The one that a day belongs to."""
        return cls(rule, quiz_id, period, first_day(period, day))


def first_day(period: Period, day: date) -> date:
    """Of the period that a day belongs to. Weeks are those of ISO 8601."""
    if period == "all":
        return EPOCH
    return day if period == "day" else day - timedelta(days=day.weekday())


def is_kept(period: Period, starts_on: date, today: date) -> bool:
    return period == "all" or (today - starts_on).days <= KEPT_DAYS[period]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a leaderboard. `reached_at` is in milliseconds since the epoch."""

    user_id: str
    score: int
    elapsed_ms: int
    reached_at: int

    @property
    def member(self) -> bytes:
        """Of the sorted set."""
        order = self.elapsed_ms.to_bytes(6, "big") + self.reached_at.to_bytes(6, "big")
        return order + self.user_id.encode()

    @classmethod
    def of_member(cls, member: bytes, negated: float) -> Entry:
        return cls(
            user_id=member[PREFIX_BYTES:].decode(),
            score=-int(negated),
            elapsed_ms=int.from_bytes(member[:6], "big"),
            reached_at=int.from_bytes(member[6:PREFIX_BYTES], "big"),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the leaderboard with this number that came, changed or went."""

    board: int
    before: Entry | None
    after: Entry | None


@dataclass(frozen=True, slots=True)
class Page:
    """Entries that follow each other.

    Attributes:
        rank: of the first: one more than the number of entries with a higher score. None when it is beyond
            `COUNTED_MAX` and was not counted.
        place: how many entries are before the first; None like `rank`.
        total: how many entries the leaderboard has; None like `rank`.
    """

    entries: Sequence[Entry]
    rank: int | None
    place: int | None
    total: int | None

    def ranked(self) -> list[tuple[int | None, Entry]]:
        """Each with its rank: equal scores share it."""
        ranks: list[int | None] = []
        for n, entry in enumerate(self.entries):
            if n == 0:
                ranks.append(self.rank)
            elif entry.score == self.entries[n - 1].score:
                ranks.append(ranks[-1])
            else:
                ranks.append(None if self.place is None else self.place + n + 1)
        return list(zip(ranks, self.entries, strict=True))


EMPTY = Page((), None, None, 0)


class SetsUnavailable(Exception):
    """Redis cannot be reached just now."""


class BoardSets(Protocol):
    """Leaderboards as sorted sets. Nothing in them is the truth: a set that is not there, that belongs to
    another revision of the entries, or that was not filled to its end answers nothing.

    Every method may raise SetsUnavailable. `apply`, `settle` and `fill` are called inside a transaction that
    lets one caller in at a time, and are asyncio-flavoured; the others are trio's.
    """

    async def apply(self, revision: int, changes: Sequence[Change]) -> bool:
        """Make these changes in the sets that are there, which brings them to `revision`. False when they
        had not been at the one before: then all sets are given up, and others begin."""

    async def settle(self, revision: int) -> bool:
        """Whether the sets are at `revision`. If not, all of them are given up, and others begin."""

    async def fill(self, board: int, revision: int, entries: Sequence[Entry], *, done: bool) -> bool:
        """Add entries to a set that is to be filled. With `done` these were the last, and the set answers
        from then on. False when the sets are at another revision; then nothing was added."""

    async def revision(self) -> int | None:
        """Where the sets are; None when there are none."""

    async def page(self, board: int, place: int, count: int) -> Page | None:
        """`count` entries from the place on. None when the set does not answer."""

    async def around(self, board: int, entry: Entry, reach: int) -> Page | None:
        """The entry, with as many as `reach` before and after it. None when the set does not answer, or has
        no such entry."""

    async def begin_filling(self, board: int) -> bool:
        """Whether the caller is to fill this set: nobody else does so just now."""

    async def sweep(self) -> None:
        """Free the memory of the sets that this node has given up."""
