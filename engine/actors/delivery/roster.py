"""What a host has yet to hear of who is there."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import islice

from engine.actors import messages
from engine.actors.delivery.frame import Frame
from engine.domain.session import Session

PLAYERS_AT_ONCE_MAX = 250
"""Of whom one message tells. Each is in two of its lists at most, and in `ways`."""


class Roster:
    """Players about whom there is news, once each, the longest waiting first. What the news is, is looked at
    when it is told.

    Args:
        untold: players of whom all is told, as if they had just joined.
    """

    __slots__ = ("_news",)

    def __init__(self, untold: Iterable[int] = ()) -> None:
        self._news: dict[int, bool] = dict.fromkeys(untold, True)

    def __len__(self) -> int:
        return len(self._news)

    def note(self, player: int, *, joined: bool = False) -> None:
        """There is something to be told: the player has joined, was removed, has come or has gone, or has
        gone on at the own pace. A player that has got extra time is told as if new."""
        self._news[player] = joined or self._news.get(player, False)

    def tell(self, session: Session, connected: Container[object], connected_count: int) -> Frame:
        """The `roster` of those who have waited longest. Args: connected: whose connection is there."""
        joined: list[messages.Line] = []
        on: list[int] = []
        off: list[int] = []
        kicked: list[int] = []
        ways: list[messages.Line] = []
        for player in list(islice(self._news, PLAYERS_AT_ONCE_MAX)):
            is_new = self._news.pop(player)
            if session.players[player].kicked:
                kicked.append(player)
                continue
            if is_new:
                line: messages.Line = {"id": player, "name": session.name_of(player)}
                joined.append(line | messages.with_extra_time(session, player))
            (on if player in connected else off).append(player)
            if way := messages.place_on_way(session, player):
                ways.append({"id": player, **way})
        body = {
            "t": "roster",
            "joined": joined,
            "on": on,
            "off": off,
            "kicked": kicked,
            "players": session.active,
            "connected": connected_count,
        }
        return Frame(body if session.self_pace is None else body | {"ways": ways})
