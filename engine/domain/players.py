"""A player, as the session keeps one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Player:
    """A player, with the points and the answering time.

    `streak` counts the right answers in a row that end at `streak_question`. It does not change when a player
    gives no answer: a `streak_question` that falls behind means that the streak is broken. So closing a
    question costs nothing per player.
    """

    id: int
    name: str
    score: int = 0
    elapsed_ms: int = 0
    kicked: bool = False
    erased: bool = False
    """Whether the name was erased; no client may be this player any more."""
    user_id: str | None = None
    """The user of the app that the player is; None for a guest, and once the player is erased."""
    streak: int = 0
    streak_question: int = 0

    def streak_with(self, previous: int) -> int:
        """The streak that a right answer would make to the question that follows `previous`, among those that
        count."""
        return self.streak + 1 if self.streak_question == previous else 1
