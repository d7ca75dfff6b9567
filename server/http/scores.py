"""Leaderboards over sessions, and what a user has scored."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date
from typing import NamedTuple
from uuid import UUID

import trio
from msgspec import UNSET, convert

from engine.actors.commands import may_be_user_id
from engine.ports import PlayerNotFound, QuizNotFound
from engine.storage.leaderboards import FOREVER_MS, Cursor
from server.http.authorization import Access
from server.http.erasing import DELETING_MAX_S, Erasing
from server.http.quizzes import may_be_quiz_id
from server.http.requests import read_query
from server.http.responses import Answer, json_answer
from server.http.services import Services
from server.http.sessions import bounded_wait
from server.scores import Line
from server.wire.api import scores as types
from server.wire.api.queries import BoardQuery, NoQuery, UserScoresQuery
from server.wire.cursors import behind, one_page
from server.wire.errors import ApiError, busy

ALL = "all"
"""Instead of a quiz's id: the leaderboard over all quizzes."""
OWN = "me"
"""Instead of a user's id: the user of the identity token."""

_SEATS_AT_ONCE = 100
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Asker(NamedTuple):
    """Who asks: an author, a user, or, where all may, anybody."""

    author: bool
    user_id: str | None


class ScoresView:
    """Each question waits no longer than `bounded_wait` for the database."""

    def __init__(self, services: Services, access: Access, erasing: Erasing) -> None:
        self._scores = services.scores
        self._catalog = services.catalog
        self._public = services.config.leaderboards_public
        self._access = access
        self._erasing = erasing

    async def leaderboard(self, quiz_id: str) -> Answer:
        """The first lines of a leaderboard, and those around the user who asks. For users and authors; with
        `leaderboards_public` for all."""
        asker = await self._asker(public=self._public)
        query = read_query(BoardQuery)
        day = None if query.date is None else _day(query.date)
        if query.around is not None and asker.user_id is None:
            raise ApiError("token_missing", "around=me needs the identity token of a user.")
        of = "" if quiz_id == ALL else await self._quiz(quiz_id)
        with bounded_wait():
            if day is None:
                day = await self._scores.today()
            board = self._scores.board(of, query.period, day)
            top = await self._scores.page(board, query.skip, query.top)
            around = None
            if query.around is not None and asker.user_id is not None:
                around = await self._scores.around(board, asker.user_id)
        return json_answer(
            types.UserLeaderboard(
                quiz_id=of or None,
                period=query.period,
                starts_on=None if query.period == "all" else board.starts_on.isoformat(),
                rule=board.rule,
                total=top.total,
                top=[_line(line, asker) for line in top.lines],
                around=None if around is None else [_line(line, asker) for line in around.lines],
            )
        )

    async def user(self, user_id: str) -> Answer:
        """Totals and scores of a user. For that user and for authors."""
        user_id, _ = await self._named(user_id)
        query = read_query(UserScoresQuery)
        after = behind(query.cursor, tuple[int, UUID])
        with bounded_wait():
            totals = await self._scores.totals(user_id)
            cursor = None if after is None else Cursor(min(max(after[0], 0), FOREVER_MS), str(after[1]))
            found = await self._scores.scores(user_id, cursor, query.limit + 1)
        shown, following = one_page(found, query.limit, lambda last: (last.finished_at, last.session_id))
        return json_answer(
            types.UserScores(
                user_id=user_id,
                totals=convert(totals, types.UserTotals, from_attributes=True),
                scores=[convert(each, types.Play, from_attributes=True) for each in shown],
                next=following,
            )
        )

    async def erase(self, user_id: str) -> Answer:
        """Scores, lines in leaderboards, and names in sessions go. For that user and for authors. Repeated,
        it goes on where it was cut off."""
        user_id, own = await self._named(user_id)
        read_query(NoQuery)
        with trio.move_on_after(DELETING_MAX_S):
            erased, refused = await self._erase_names(user_id, own=own)
            await self._scores.forget_user(user_id)
            await self._scores.look()
            if refused is not None:
                raise refused
            return json_answer(types.ErasedUser(user_id, erased))
        raise busy()

    async def _erase_names(self, user_id: str, *, own: bool) -> tuple[int, ApiError | None]:
        """How many, and why not all of them: a user who was removed from a session could join it again."""
        erased, refused, after = 0, None, None
        while seats := await self._scores.seats(user_id, after, _SEATS_AT_ONCE):
            for seat in seats:
                try:
                    await self._erasing.seat(seat.session_id, seat.player, own=own)
                    erased += 1
                except PlayerNotFound:
                    continue
                except ApiError as error:
                    if error.code == "session_not_found":
                        continue  # deleted meanwhile
                    if error.code != "kicked":
                        raise
                    refused = error
            after = seats[-1]
        return erased, refused

    # -- who asks, and for whom ------------------------------------------------------------------

    async def _asker(self, *, public: bool) -> Asker:
        if self._access.bearer() is None and public:
            return Asker(False, None)
        user_id = await self._access.user_or_author()
        return Asker(user_id is None, user_id)

    async def _named(self, user_id: str) -> tuple[str, bool]:
        """The user of the path, if the request may know about that one, and whether it is that user's own."""
        asked = await self._access.user_or_author()
        if asked is not None and user_id in (OWN, asked):
            return asked, True
        if asked is not None:
            raise ApiError("not_author", "This token is of another user.")
        if not may_be_user_id(user_id):
            raise ApiError(
                "bad_field",
                "A user's id is text of 1 to 128 characters, none of them a control character.",
                "user_id",
            )
        return user_id, False

    async def _quiz(self, quiz_id: str) -> str:
        """Raises QuizNotFound, also for a quiz that is deleted."""
        if not may_be_quiz_id(quiz_id):
            raise QuizNotFound(quiz_id)
        with bounded_wait():
            await self._catalog.get(quiz_id)
        return quiz_id


def _line(line: Line, asker: Asker) -> types.UserLine:
    entry = line.entry
    return types.UserLine(
        rank=line.rank,
        name=line.name,
        score=entry.score,
        elapsed_ms=entry.elapsed_ms,
        reached_at=entry.reached_at,
        me=entry.user_id == asker.user_id,
        user_id=entry.user_id if asker.author else UNSET,
    )


def _day(text: str) -> date:
    # `fromisoformat` alone reads weeks as well.
    if _DAY.fullmatch(text):
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise ApiError("bad_field", "date is a day as in 2026-01-31.", "date")
