"""Extra time: the players whose time to answer is longer, each by a factor of their own.

A factor is kept in percent, in whole numbers. A player's own time limit is the limit of the question times
the factor. The time that counts runs slower by the same factor: with factor 2 an answer after 10 s counts as
one after 5 s, in points and wherever else answering time is compared. Facts and results hold the time that
counts.

How to think about it: a led question stays open for everybody as long as it is held for anybody. It is held
for the players with extra time that are present and have not answered it. So the longest factor among these
says when it closes.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from typing import Final, Literal

NONE: Final = 100
"""The time limit as it is."""

MOST: Final = 400

UNTIMED: Final = 0
"""Without a time limit, where nobody waits for anybody. The time that counts runs as slowly as it may."""

Factor = float | Literal["untimed"]
"""As it is told: 1 to 4, or "untimed"."""


def percent_of(factor: object) -> int | None:
    """The percent of a factor; None for anything that is no `Factor`."""
    if factor == "untimed":
        return UNTIMED
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= MOST / 100:
        return None
    return round(100 * factor)


def factor_of(percent: int) -> Factor:
    """The factor of a percent."""
    return "untimed" if percent == UNTIMED else percent / 100


def bounded(percent: int, most: int, *, others_wait: bool) -> int:
    """What a session gives of it. Args: most: the session's bound, a factor; others_wait: whether a question
    stays open for all players until this one has answered. Then nobody is without a limit."""
    if percent == UNTIMED and not others_wait and most == MOST // NONE:
        return UNTIMED
    return min(percent or MOST, NONE * most)


class ExtraTime:
    """The players of one session that have extra time, and those of them that the open question is held for.

    Two of these are equal if the same players have the same: who is present is no matter of facts.
    """

    __slots__ = ("_counts", "_given_at", "_held", "_percents")

    def __init__(self) -> None:
        self._percents: dict[int, int] = {}
        self._given_at: dict[int, int] = {}
        self._held: dict[int, int] = {}
        """The percent of each player that the open question is held for."""
        self._counts: dict[int, int] = {}
        """How many these are of each percent: so the longest is found fast, however many there are."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExtraTime):
            return NotImplemented
        return self._percents == other._percents and self._given_at == other._given_at

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    def __bool__(self) -> bool:
        return bool(self._percents)

    @property
    def players(self) -> Collection[int]:
        return self._percents.keys()

    def of(self, player: int) -> int:
        """The player's time limit in percent of the question's; `UNTIMED` for none."""
        return self._percents.get(player, NONE)

    def given_at(self, player: int) -> int:
        """When extra time was last given to the player, or taken away; 0 for never."""
        return self._given_at.get(player, 0)

    def give(self, player: int, percent: int, at: int) -> None:
        self._given_at[player] = at
        if percent == NONE:
            self._percents.pop(player, None)
        else:
            self._percents[player] = percent

    def hold(self, player: int) -> None:
        """Hold the open question for the player, if the player has extra time."""
        percent = self._percents.get(player)
        if percent is not None and player not in self._held:
            self._held[player] = percent
            self._counts[percent] = self._counts.get(percent, 0) + 1

    def release(self, player: int) -> bool:
        """No longer hold the question for the player. False if it was not held."""
        percent = self._held.pop(player, None)
        if percent is None:
            return False
        self._counts[percent] -= 1
        if not self._counts[percent]:
            del self._counts[percent]
        return True

    def open(self, players: Iterable[int], without: Container[int]) -> None:
        """A question opens: hold it for those of these players that have extra time."""
        self.close()
        for player in players:
            if player not in without:
                self.hold(player)

    def close(self) -> None:
        """The question is held for nobody any more."""
        self._held, self._counts = {}, {}

    def release_each(self, players: Iterable[int]) -> bool:
        """As `release`; whether it was held for any of them."""
        released = [self.release(player) for player in players] if self._held else ()
        return any(released)

    @property
    def longest(self) -> int:
        """The greatest percent that the open question is held for."""
        return max(self._counts) if self._counts else NONE
