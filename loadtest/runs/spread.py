"""How long something takes to reach everybody: from the first player who hears of it to the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from loadtest.swarm.player import FINISHED


class Spreads:
    """Takes what each generator has seen of a session, as `Crowd.spreads` tells it."""

    def __init__(self) -> None:
        self._heard: dict[tuple[int, int], tuple[float, float, int]] = {}
        self._answered_at: dict[int, float] = {}

    def take(self, told: Mapping[str, Any]) -> None:
        session, answered_at = told["session"], told["answered_at"]
        if answered_at is not None:
            self._answered_at[session] = max(answered_at, self._answered_at.get(session, answered_at))
        for number, first, last, count in told["spreads"]:
            before = self._heard.get((session, number), (first, last, 0))
            self._heard[session, number] = (min(first, before[0]), max(last, before[1]), count + before[2])

    def read(self, path: Path) -> None:
        """From the file that a generator wrote."""
        with path.open("rb") as file:
            for line in file:
                self.take(orjson.loads(line))

    def questions(self) -> list[dict[str, Any]]:
        """For each: how many players heard of it, and how long it took where it took longest."""
        players: Counter[int] = Counter()
        most_s: dict[int, float] = {}
        for (_, number), (first, last, count) in self._heard.items():
            players[number] += count
            most_s[number] = max(most_s.get(number, 0.0), last - first)
        return [
            {"question": number, "players": players[number], "ms": round(most_s[number] * 1000, 1)}
            for number in sorted(most_s)
            if number != FINISHED
        ]

    def end(self) -> dict[str, Any] | None:
        """The same of the end, and how long after the last answer of its session the last player heard of it;
        None if nobody did."""
        ends = {session: heard for (session, number), heard in self._heard.items() if number == FINISHED}
        if not ends:
            return None
        after_s = [
            last - self._answered_at[session]
            for session, (_, last, _) in ends.items()
            if session in self._answered_at
        ]
        return {
            "players": sum(count for _, _, count in ends.values()),
            "ms": round(max(last - first for first, last, _ in ends.values()) * 1000, 1),
            "after_last_answer_ms": round(max(after_s) * 1000, 1) if after_s else None,
        }
