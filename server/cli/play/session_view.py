"""What can be seen of a session: kept up to date by the messages that a spectator or a host hears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the leaderboard. `moved`: ranks gained since the question opened; None for a player that
    was not listed."""

    rank: int
    name: str
    score: int
    moved: int | None


class SessionView:
    """Args: code: the session's."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.title = ""
        self.phase = "lobby"
        self.locked = False
        self.approval = False
        self.waiting: Message = {"players": [], "count": 0}
        """Whom the host has yet to let in."""
        self.health: Message | None = None
        """What a host was told last of how the session is."""
        self.number = 0
        self.of = 0
        self.players = 0
        self.answered = 0
        self.question: Message | None = None
        self.reveal: Message | None = None
        self.podium: list[Line] | None = None
        self._top: Sequence[Message] = ()
        self._ranks_before: Mapping[int, int] = {}
        self._closes_at: float | None = None
        self._opens_at = 0.0
        """When the question takes answers."""

    def hear(self, message: Message, now: float) -> None:
        """Take in a message. `now` in seconds of any clock that `remaining_s` is asked by, too."""
        match message["t"]:
            case "joined" if message["state"] is not None:
                self.see(message["state"], now)
            case "question":
                self.phase, self.reveal, self.answered = "question", None, 0
                self._compare_with_now()
                self._ask(message, now)
            case "reveal":
                self.phase, self.reveal, self._closes_at = "reveal", message, None
            case "leaderboard":
                self._top = message["top"]
                self.players, self.answered = message["players"], message["answered"]
            case "progress" if message["number"] == self.number:
                self.players, self.answered = message["players"], message["answered"]
            case "state":
                self.phase, self.locked = message["phase"], message["locked"]
                self.number = message["number"]
                self.approval = message.get("approval", False)
                self._count_down(message, now)
            case "health":
                self.health = message
            case "waiting_list":
                self.waiting = message
            case "finished":
                self.phase, self._closes_at = "finished", None
                self.podium = self._lines(message["podium"])

    def see(self, state: Message, now: float) -> None:
        """Take in the whole picture: the `state` of `joined`, or of the session's page."""
        self.phase, self.locked, self.title = state["phase"], state["locked"], state["title"]
        self.approval = state.get("approval", False)
        self.number, self.of, self.players = state["number"], state["of"], state["players"]
        self.answered, self.reveal = state["answered"], state["reveal"]
        self._top = state["leaderboard"]["top"]
        self._compare_with_now()
        if state["question"] is not None:
            self._ask(state["question"], now)
        if state["podium"] is not None:
            self.podium = self._lines(state["podium"])

    def remaining_s(self, now: float) -> float | None:
        """The remaining time to answer; None while no question is open."""
        if self._closes_at is None or self.phase != "question":
            return None
        return max(self._closes_at - max(now, self._opens_at), 0.0)

    def ready_s(self, now: float) -> float:
        """The time until the question takes answers; 0 once it does, and without a question."""
        return max(self._opens_at - now, 0.0) if self.phase == "question" else 0.0

    @property
    def top(self) -> list[Line]:
        return self._lines(self._top)

    def _ask(self, question: Message, now: float) -> None:
        self.question, self.number, self.of = question, question["number"], question["of"]
        self._count_down(question, now)

    def _count_down(self, message: Message, now: float) -> None:
        remaining_ms: int | None = message["remaining_ms"]
        self._opens_at = now + (message.get("opens_in_ms") or 0) / 1000
        self._closes_at = None if remaining_ms is None else self._opens_at + remaining_ms / 1000

    def _lines(self, entries: Sequence[Message]) -> list[Line]:
        return [Line(entry["rank"], entry["name"], entry["score"], self._moved(entry)) for entry in entries]

    def _compare_with_now(self) -> None:
        """Report moves of ranks from now on. Before the first points no player has a rank to lose."""
        scored = any(entry["score"] for entry in self._top)
        self._ranks_before = {entry["id"]: entry["rank"] for entry in self._top} if scored else {}

    def _moved(self, entry: Message) -> int | None:
        if not self._ranks_before:
            return 0
        before = self._ranks_before.get(entry["id"])
        return None if before is None else before - entry["rank"]
