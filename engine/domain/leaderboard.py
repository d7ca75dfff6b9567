"""The leaderboard: every player in order, with each change and each query in O(log n)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sortedcontainers import SortedList

_Key = tuple[int, int, int]
"""(-score, elapsed_ms, player): ascending order is the order of the standing."""


class Entry(NamedTuple):
    """One line of the standing. `elapsed_ms` is the player's total answering time."""

    rank: int
    player: int
    score: int
    elapsed_ms: int


class _Row(list[_Key]):
    """The keys in order, in one piece: 100,000 are copied in a millisecond, and a change then moves half of
    them, which takes 50 us."""

    __slots__ = ()

    def add(self, key: _Key) -> None:
        insort(self, key)

    def remove(self, key: _Key) -> None:
        del self[bisect_left(self, key)]

    def bisect_left(self, key: _Key) -> int:
        return bisect_left(self, key)

    def islice(self, start: int, stop: int) -> Iterator[_Key]:
        return iter(self[start:stop])


class Leaderboard:
    """Players by score. Equal scores share a rank and the next rank counts them all (1, 2, 2, 4); within a
    rank the smaller total answering time comes first, then the player who joined earlier.

    Querying or changing a player that is not in it raises KeyError.
    """

    def __init__(self) -> None:
        self._keys: dict[int, _Key] = {}
        self._order: SortedList[_Key] | _Row = SortedList()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, player: int) -> bool:
        return player in self._keys

    def __eq__(self, other: object) -> bool:
        return self._keys == other._keys if isinstance(other, Leaderboard) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    def snapshot(self) -> Leaderboard:
        """A copy of this leaderboard. Making it is fast and changing it is slow: only the few players that
        come and go while it is shown change it."""
        made = Leaderboard()
        made._keys = self._keys.copy()
        made._order = _Row(self._order)
        return made

    def add(self, player: int) -> None:
        """Let a player in, with nothing yet. Raises ValueError when already in."""
        if player in self._keys:
            raise ValueError(f"player {player} is already in")
        self._keys[player] = key = (0, 0, player)
        self._order.add(key)

    def remove(self, player: int) -> None:
        self._order.remove(self._keys.pop(player))

    def update(self, player: int, score: int, elapsed_ms: int) -> None:
        """Set a player's score and total answering time."""
        old = self._keys[player]
        new = (-score, elapsed_ms, player)
        if new != old:
            self._order.remove(old)
            self._order.add(new)
            self._keys[player] = new

    def score(self, player: int) -> int:
        return -self._keys[player][0]

    def rank(self, player: int) -> int:
        """One more than there are players with a higher score."""
        return self._rank_of(self._keys[player])

    def top(self, n: int) -> list[Entry]:
        """The first `n` in order."""
        return list(self._entries(self._order.islice(0, max(n, 0)), 0))

    def around(self, player: int, n: int) -> list[Entry]:
        """Up to `n` players ahead, the player, and up to `n` behind, in order."""
        at = self._order.bisect_left(self._keys[player])
        first = max(at - n, 0)
        return list(self._entries(self._order.islice(first, at + n + 1), first))

    def ranked(self) -> Iterator[Entry]:
        """Everyone in order, as it is now: what changes while it is read does not show."""
        return self._entries(list(self._order), 0)

    def _rank_of(self, key: _Key) -> int:
        # A tuple sorts before every longer one that it begins, so this finds the first of the same score.
        return self._order.bisect_left((key[0],)) + 1  # type: ignore[arg-type]  # a prefix of a key

    def _entries(self, keys: Iterable[_Key], first: int) -> Iterator[Entry]:
        rank = 0
        above: int | None = None
        for place, key in enumerate(keys, first + 1):
            negated, elapsed_ms, player = key
            if above is None and first:
                rank = self._rank_of(key)
            elif negated != above:
                rank = place
            above = negated
            yield Entry(rank, player, -negated, elapsed_ms)
