"""What a bot is like, and what it therefore does about a question."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from loadtest.bots.knowledge import Knowledge, guess, mistyped, wrong
from loadtest.client.connection import Message
from loadtest.runs.attempts import numbered

THINK_SHARE = 0.3
"""Median time to answer as a share of the limit, unless the plan says otherwise."""

IN_TIME_SHARE = 0.9
"""However slow a bot is, it answers within this share of the time that is left."""


@dataclass(frozen=True, slots=True)
class CrowdPlan:
    """What a crowd of bots is like. Shares are from 0 to 1.

    Args:
        players: how many bots.
        seed: of all that is random.
        think_s: median time to answer; None for a share of each question's limit.
        http_share: bots that join and answer over HTTP and listen on the WebSocket.
        duplicate_share: answers that are sent twice.
        drop_share: answers during which the connection is cut.
        typo_share: typed answers with a typo.
        silent_share: questions that a bot does not answer.
        again_share: bots that go through the quiz once more when they are through, if they may.
        patience_s: how long a bot goes on trying while the server is away.
    """

    players: int
    seed: int = 1
    think_s: float | None = None
    http_share: float = 0.1
    duplicate_share: float = 0.05
    drop_share: float = 0.02
    typo_share: float = 0.1
    silent_share: float = 0.03
    again_share: float = 0.3
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Intent:
    """What a bot is going to do about one question. `number` is as `loadtest.runs.attempts` has it;
    `cut_after_s`: it loses its connection that long after sending the answer."""

    number: int
    choice: object
    think_s: float
    twice: bool
    cut_after_s: float | None


class Habits:
    """One bot's skill, speed and carelessness: from the plan's seed and the bot's number alone."""

    def __init__(self, plan: CrowdPlan, number: int, knowledge: Knowledge) -> None:
        rng = random.Random(f"{plan.seed}/{number}")
        self._rng = rng
        self._plan = plan
        self._knowledge = knowledge
        self._skill = rng.betavariate(5.0, 2.5)
        self._slowness = rng.lognormvariate(0.0, 0.35)
        self.by_http = rng.random() < plan.http_share

    def intend(self, question: Message) -> Intent | None:
        """None: it stays silent. Draws the same number of times whatever comes of it."""
        rng, plan = self._rng, self._plan
        silent = rng.random() < plan.silent_share
        think_s = self._think_s(question, math.exp(rng.gauss(0.0, 0.45)))
        twice = rng.random() < plan.duplicate_share
        cut = rng.random() < plan.drop_share
        cut_after_s = rng.uniform(0.0, 0.02)
        choice = self._choose(question, random.Random(rng.random()))
        if silent:
            return None
        number = numbered(question["number"], question.get("attempt", 1))
        return Intent(number, choice, think_s, twice, cut_after_s if cut else None)

    def goes_again(self) -> bool:
        return self._rng.random() < self._plan.again_share

    def _think_s(self, question: Message, mood: float) -> float:
        limit_s = question["limit_ms"] / 1000
        median_s = THINK_SHARE * limit_s if self._plan.think_s is None else self._plan.think_s
        remaining_s = (question["remaining_ms"] or 0) / 1000
        return min(median_s * self._slowness * mood, IN_TIME_SHARE * remaining_s)

    def _choose(self, question: Message, rng: random.Random) -> object:
        right = self._knowledge.right(question)
        if right is None:
            return guess(question, rng)
        choice = right if rng.random() < self._skill else wrong(question, right, rng)
        if isinstance(choice, str) and rng.random() < self._plan.typo_share:
            return mistyped(choice, rng)
        return choice
