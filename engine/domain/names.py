"""The names of the players of one session, and which names a new player cannot have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final

from engine.domain.errors import Refusal
from engine.domain.name_rules import NameRules, stands_for_erased
from engine.domain.text import NAME_MAX, fold

_NAME_TAKEN: Final = Refusal("name_taken", "Somebody here has this name already, or one that looks like it.")
_NAME_REFUSED: Final = Refusal("name_refused", "This name is not for players here.")


class Names:
    """Equal when the same players have the same names."""

    __hash__ = None  # type: ignore[assignment]  # changes, so it must not be a key

    def __init__(self, rules: NameRules) -> None:
        self._rules: Final = rules
        self._folded: dict[str, int] = {}
        self._skeletons: dict[str, int] = {}
        self._erased: dict[str, int] = {}
        """What erased players are called."""
        # Hashes of the erased names of removed players, who do not come in again under them. They mean
        # nothing outside of this process, and no fact holds them.
        self._shut: set[int] = set()
        self._next_numbers: dict[str, int] = {}
        """Where to look on for a free number behind a name."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        return (self._folded, self._skeletons, self._erased) == (
            other._folded,
            other._skeletons,
            other._erased,
        )

    def player(self, name: str) -> int | None:
        """The player whose name equals this one or is too similar; None if there is none. The name of an
        erased player is its placeholder."""
        found = self._folded.get(_likeness(name))
        return self._erased.get(name) if found is None else found

    def refuse(self, name: str, language: str, *, filtered: bool) -> Refusal | None:
        """Why a new player cannot have this clean name; None if it can. Args: filtered: names that offend, or
        that claim to lead the session, are refused."""
        likeness, skeleton = _likeness(name), self._rules.skeleton(name)
        if filtered and self._rules.refuses(likeness, skeleton, language):
            return _NAME_REFUSED
        if stands_for_erased(likeness):
            return _NAME_REFUSED
        if likeness in self._folded or skeleton in self._skeletons:
            return _NAME_TAKEN
        if hash(likeness) in self._shut or hash(skeleton) in self._shut:
            return _NAME_TAKEN
        return None

    def free(self, name: str, taken: Callable[[str], bool]) -> str:
        """This clean name, or if it is taken, a numbered one that is not."""
        if not taken(name):
            return name
        return next(each for number in count(2) if not taken(each := numbered(name, number)))

    def free_for_user(self, name: str, language: str) -> str:
        """This clean name of a user, or if it is taken, a numbered one that no player here has or had. A
        thousand users of one name cost a thousand looks and no more."""
        if self.refuse(name, language, filtered=False) is None:
            return name
        likeness = _likeness(name)
        for number in count(self._next_numbers.get(likeness, 2)):
            candidate = numbered(name, number)
            if self.refuse(candidate, language, filtered=False) is None:
                self._next_numbers[likeness] = number + 1
                return candidate
        raise AssertionError("numbers do not end")

    def give(self, name: str, player: int) -> None:
        self._folded[_likeness(name)] = player
        self._skeletons[self._rules.skeleton(name)] = player

    def give_erased(self, name: str, player: int) -> None:
        """`name` is what stands in place of the player's."""
        self._erased[name] = player

    def take_away(self, name: str, player: int, *, shut: bool) -> None:
        """Free the name of a player. With `shut` no other player can have it nevertheless."""
        likeness, skeleton = _likeness(name), self._rules.skeleton(name)
        if self._folded.get(likeness) == player:
            del self._folded[likeness]
        if self._skeletons.get(skeleton) == player:
            del self._skeletons[skeleton]
        if shut:
            self._shut |= {hash(likeness), hash(skeleton)}


def numbered(name: str, number: int) -> str:
    """The clean name of the second, third, ... player of this name: shortened where it gets too long."""
    suffix = f" {number}"
    return name[: NAME_MAX - len(suffix)].rstrip() + suffix


def _likeness(name: str) -> str:
    """Names with an equal key are too similar. A name that consists of marks only folds to nothing."""
    return fold(name) or name
