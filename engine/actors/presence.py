"""Which players are present: a question is held open for them, and for no others.

How to think about it: a player with a connection is present, and so for a short while is a player that has
lost it. A player that plays by requests alone is present from a request on, until a question closes that this
player has not answered. Presence lives in memory only: a node that takes the session over waits for all
players for a while, and then for those that have come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

GONE_MS = 5_000
"""How long a player that has lost the connection counts as present. Clients reconnect within 3 s, as the
protocol says; the rest is for the handshake."""

COMING_BACK_MS = 15_000
"""As `GONE_MS`, for all players of a session that was just activated on this node; and longer by the time
that it had no owner, up to twice this: the longer clients fail to reconnect, the rarer they try."""


class Presence:
    """The presence of the players of one session. Args: players: of a session that was activated at `now`."""

    def __init__(self, players: Iterable[int], now: int) -> None:
        self._leaving = dict.fromkeys(players, now + COMING_BACK_MS)
        """When each player is gone. In order of time, except that the initial players have longer."""
        self._by_requests: set[int] = set()
        self._spoke: set[int] = set()
        """Those of them with a request since the last question was opened."""

    def came(self, player: int) -> None:
        """The player has connected."""
        self._leaving.pop(player, None)
        self._by_requests.discard(player)

    def left(self, player: int, now: int) -> None:
        """The player has lost the connection."""
        self._leaving.pop(player, None)  # keeps the order of time
        self._leaving[player] = now + GONE_MS

    def spoke(self, player: int) -> None:
        """A player without a connection has joined or answered."""
        self._leaving.pop(player, None)
        self._by_requests.add(player)
        self._spoke.add(player)

    def put_off(self, by_ms: int) -> None:
        """Wait longer by `by_ms`, in which no player could come back."""
        self._leaving = {player: due + by_ms for player, due in self._leaving.items()}

    @property
    def due_at(self) -> int | None:
        """When to ask which players are gone; None when no player is leaving."""
        return next(iter(self._leaving.values()), None)

    def gone(self, now: int, most: int) -> list[int]:
        """Up to `most` players that are gone by now, each reported once."""
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
        """A question was closed. Returns the players without a connection that did not answer it: they are
        gone."""
        silent = self._by_requests - self._spoke
        self._by_requests -= silent
        return silent
