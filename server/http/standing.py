"""The standing of a session that is over, from the stored facts."""

from __future__ import annotations

from collections.abc import Sequence

from engine.actors import messages
from engine.domain.session import Phase
from engine.ports import PlayerResult, SessionRecord
from server.errors import ApiError
from server.http.services import Services


async def final_state(services: Services, record: SessionRecord) -> dict[str, object]:
    """The `state` of a session that is over and out of memory, as docs/protocol.md describes it."""
    quiz = (await services.catalog.get(record.quiz_id, record.quiz_version)).quiz
    results = await services.store.results(record.id)
    top = lines(results[: messages.TOP])
    return {
        "phase": Phase.FINISHED,
        "locked": True,
        "title": quiz.title,
        "number": await services.store.progress(record.id),
        "of": len(quiz.questions),
        "players": len(results),
        "answered": 0,
        "now": services.clock.now_ms(),
        "question": None,
        "reveal": None,
        "leaderboard": {"top": top, "players": len(results), "answered": 0},
        "podium": top[: messages.PODIUM],
        "you": None,
    }


def final_board(results: Sequence[PlayerResult], count: int, me: int | None) -> dict[str, object]:
    """Of a session that is over: the first `count`, and those around the player `me`. Raises ApiError for a
    player who is not in."""
    around = None
    if me is not None:
        at = next((at for at, result in enumerate(results) if result.player == me), None)
        if at is None:
            raise ApiError("kicked", "The host removed you from this session.")
        around = lines(results[max(at - messages.AROUND, 0) : at + messages.AROUND + 1])
    return {"top": lines(results[:count]), "around": around, "players": len(results), "answered": 0}


def final_players(results: Sequence[PlayerResult], after: int, limit: int) -> dict[str, object]:
    """Of a session that is over: as many as `limit` of those with numbers above `after`, in their order."""
    following = sorted((result for result in results if result.player > after), key=lambda each: each.player)
    players = [
        {
            "id": each.player,
            "name": each.name,
            "score": each.score,
            "rank": each.rank,
            "connected": False,
        }
        for each in following[:limit]
    ]
    more = len(following) > limit
    return {
        "players": players,
        "next": players[-1]["id"] if more else None,
        "total": len(results),
        "connected": 0,
    }


def lines(results: Sequence[PlayerResult]) -> list[dict[str, object]]:
    return [
        {"rank": result.rank, "id": result.player, "name": result.name, "score": result.score}
        for result in results
    ]
