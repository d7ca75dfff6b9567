"""Which players are here: for whom a question is held open, and for whom it is not.

How to think about it: whoever has a connection is here, and for a short while whoever had one. Whoever plays
by requests alone is here from one request on, until a question was closed that this player has not answered.
All of it is about the moment and lives in memory: a node that takes the session over waits for everybody for
a while, and then for those who have come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

GONE_MS = 5_000
"""Whoever has lost the connection is back by then, or is not waited for. Clients whose connection broke try
again within 3 s, as the protocol has it; the rest is for the handshake."""

COMING_BACK_MS = 15_000
"""As `GONE_MS`, for all players of a session that has just come to this node."""


class Presence:
    """Args: players: of a session that has just come to this node, at `now`."""

    def __init__(self, players: Iterable[int], now: int) -> None:
        self._leaving = dict.fromkeys(players, now + COMING_BACK_MS)
        """When each is gone, the next one first but for those of the beginning, who have longer."""
        self._by_requests: set[int] = set()
        self._spoke: set[int] = set()
        """Of these, those who have asked for something since the last question was opened."""

    def came(self, player: int) -> None:
        """A connection has come."""
        self._leaving.pop(player, None)
        self._by_requests.discard(player)

    def left(self, player: int, now: int) -> None:
        """The connection is gone."""
        self._leaving.pop(player, None)  # the last to leave is the last in the row
        self._leaving[player] = now + GONE_MS

    def spoke(self, player: int) -> None:
        """Somebody without a connection has joined or answered."""
        self._leaving.pop(player, None)
        self._by_requests.add(player)
        self._spoke.add(player)

    def put_off(self, by_ms: int) -> None:
        """Nobody could come back for so long."""
        self._leaving = {player: due + by_ms for player, due in self._leaving.items()}

    @property
    def due_at(self) -> int | None:
        """When to ask who is gone; None when nobody is leaving."""
        return next(iter(self._leaving.values()), None)

    def gone(self, now: int, most: int) -> list[int]:
        """Up to so many who are gone by now, and have not been told of before."""
        gone = []
        for player, due in islice(self._leaving.items(), most):
            if due > now:
                break
            gone.append(player)
        for player in gone:
            del self._leaving[player]
        return gone

    def opened(self) -> None:
        """A question was opened."""
        self._spoke = set()

    def silent(self) -> set[int]:
        """A question was closed: those who play by requests and did not answer it. They are gone."""
        silent = self._by_requests - self._spoke
        self._by_requests -= silent
        return silent
