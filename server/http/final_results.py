"""The standing of sessions that are over and out of memory, from the stored facts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import trio

from engine.actors import messages
from engine.actors.delivery.frame import Message
from engine.domain.session import Phase
from engine.ports import PlayerResult, SessionRecord
from server.http.services import Services
from server.http.sessions import REPLY_TIMEOUT_S, bounded_wait
from server.wire.errors import ApiError

AT_ONCE_MAX = 2
"""The database ranks all players of a session to tell of any: of a large one, a second's work."""

FRESH_S = 2.0
KEPT_MAX = 1_000

T = TypeVar("T")


def without_standing(state: Message) -> dict[str, object]:
    """The `state` of a session that is over, for a client that was not in it: no player is named."""
    board = {"top": [], "players": state["players"], "answered": 0}
    return {**state, "question": None, "reveal": None, "leaderboard": board, "podium": None, "you": None}


class _Top(NamedTuple):
    """The first lines, how many players there are, and how many questions were opened."""

    made_at_s: float
    lines: Sequence[dict[str, object]]
    players: int
    opened: int


class FinalResults:
    """Few questions go to the database at a time. What most ask for is remembered for `FRESH_S`: a crowd may
    come to see the end, and a correction shows soon enough. Everything raises ApiError `busy` after a wait
    that leads to nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._at_once = trio.CapacityLimiter(AT_ONCE_MAX)
        self._tops: dict[str, _Top] = {}
        self._asking: dict[str, trio.Lock] = {}

    async def in_turn(self, ask: Callable[[], Awaitable[T]], within_s: float = REPLY_TIMEOUT_S) -> T:
        """Whatever `ask` gives or raises, when it has its turn at the database."""
        with bounded_wait(within_s):
            async with self._at_once:
                return await ask()

    async def state(self, record: SessionRecord) -> dict[str, object]:
        """The `state` of the session, as docs/protocol.md describes it."""
        quiz = (await self._services.catalog.get(record.quiz_id, record.quiz_version)).quiz
        top = await self._top(record)
        return {
            "phase": Phase.FINISHED,
            "locked": True,
            "approval": False,
            "title": quiz.title,
            "language": quiz.language,
            "number": top.opened,
            "of": len(quiz.questions),
            "players": top.players,
            "answered": 0,
            "now": self._services.clock.now_ms(),
            "question": None,
            "reveal": None,
            "leaderboard": {"top": top.lines, "players": top.players, "answered": 0},
            "podium": messages.on_podium(top.lines),
            "you": None,
        }

    async def board(self, record: SessionRecord, count: int, me: int | None) -> dict[str, object]:
        """The first `count` lines, and the lines around the player `me`. Raises ApiError for an unknown
        player."""
        store = self._services.store
        around = None
        if me is not None:
            near = await self.in_turn(lambda: store.results_around(record.id, me, messages.AROUND))
            if not near:
                raise ApiError("player_not_found", "This session has no such player.")
            around = lines(near)
        if count <= messages.TOP:
            top = await self._top(record)
            first, players = top.lines[:count], top.players
        else:
            found, players = await self.in_turn(lambda: store.first_results(record.id, count))
            first = lines(found)
        return {"top": first, "around": around, "players": players, "answered": 0}

    async def players(self, record: SessionRecord, after: int, limit: int) -> dict[str, object]:
        """As many as `limit` of those with numbers above `after`, in their order."""
        found, total = await self.in_turn(
            lambda: self._services.store.results_by_player(record.id, after, limit + 1)
        )
        players = [
            {
                "id": each.player,
                "name": each.name,
                "score": each.score,
                "rank": each.rank,
                "connected": False,
            }
            for each in found[:limit]
        ]
        more = len(found) > limit
        return {
            "players": players,
            "next": players[-1]["id"] if more else None,
            "total": total,
            "connected": 0,
            "waiting": [],
        }

    def forget(self, session_id: str) -> None:
        """Somebody is not to be found in it any more."""
        self._tops.pop(session_id, None)

    async def _top(self, record: SessionRecord) -> _Top:
        """One question for all who ask at the same time."""
        lock = self._asking.setdefault(record.id, trio.Lock())
        try:
            with bounded_wait():
                async with lock:
                    top = self._tops.get(record.id)
                    if top is None or trio.current_time() - top.made_at_s >= FRESH_S:
                        top = await self.in_turn(lambda: self._read(record.id))
                        self._keep(record.id, top)
                    return top
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._asking.pop(record.id, None)

    async def _read(self, session_id: str) -> _Top:
        store = self._services.store
        found, players = await store.first_results(session_id, messages.TOP)
        opened = await store.progress(session_id)
        return _Top(trio.current_time(), lines(found), players, opened)

    def _keep(self, session_id: str, top: _Top) -> None:
        self._tops.pop(session_id, None)
        while len(self._tops) >= KEPT_MAX:
            del self._tops[next(iter(self._tops))]
        self._tops[session_id] = top


def lines(results: Sequence[PlayerResult]) -> list[dict[str, object]]:
    return [
        {"rank": result.rank, "id": result.player, "name": result.name, "score": result.score}
        for result in results
    ]
