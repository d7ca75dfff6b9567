"""The sessions of a load run, over HTTP: opened, started, and read when they are over."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from loadtest.client.connection import Message
from loadtest.runs.ledger import StoredResult
from loadtest.runs.load_quiz import LoadQuiz
from loadtest.runs.scenario import Scenario

REQUESTS_MAX = 64
"""Requests to the nodes at the same time."""

ATTEMPTS_MAX = 6
"""For a request that is answered `busy`, or not at all by a node that has others beside it; half a second and
more apart."""

LIMIT_SPARE = 20
"""Places in a session for probes, and for players who join twice because an answer was lost."""

PLAYER_LIMIT_MAX = 200_000
FINAL_WITHIN_S = 60.0

T = TypeVar("T")


class NotFinal(Exception):
    """The results of a session have not become final."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session of the run. `node` is the place of its node among the nodes."""

    number: int
    node: int
    players: int
    id: str
    code: str
    ws_url: str
    host_token: str


def session_sizes(players: int, bounds: tuple[int, int], rng: random.Random) -> list[int]:
    """How many players each session has: within the bounds, but for the last one, which takes the rest."""
    sizes: list[int] = []
    left = players
    while left:
        size = min(rng.randint(*bounds), left)
        sizes.append(size)
        left -= size
    if len(sizes) > 1 and sizes[-1] < bounds[0] and sizes[-1] + sizes[-2] <= bounds[1]:
        last = sizes.pop()
        sizes[-1] += last
    return sizes


class LoadSessions:
    """Asks the nodes, a few requests at a time.

    Each session is opened through one node after another. Lone nodes run the sessions that they open, and are
    asked about those only. Calls raise ApiRefused and ApiUnreachable.

    Args:
        anywhere: whether the nodes are one cluster: then the next one is asked what one does not answer.
    """

    def __init__(
        self, apis: Sequence[Api], scenario: Scenario, rng: random.Random, *, anywhere: bool = False
    ) -> None:
        self.apis = apis
        self._anywhere = anywhere
        self._scenario = scenario
        self._rng = rng
        self._limit = trio.CapacityLimiter(REQUESTS_MAX)
        self.opened: list[Session] = []
        self.quiz_id = ""

    async def open(self, quiz: LoadQuiz) -> None:
        """Add the quiz, and open as many sessions as the players need."""
        self.quiz_id = quiz.id
        await self._ask(0, lambda api: api.add_quiz(quiz.data, quiz.id))
        sizes = session_sizes(self._scenario.players, self._scenario.session_players, self._rng)
        async with trio.open_nursery() as nursery:
            for number, players in enumerate(sizes):
                nursery.start_soon(self._open_one, quiz, number, players)
        self.opened.sort(key=lambda session: session.number)

    async def _open_one(self, quiz: LoadQuiz, number: int, players: int) -> None:
        node = number % len(self.apis)
        settings: dict[str, object] = {
            "player_limit": min(players + players // 10 + LIMIT_SPARE, PLAYER_LIMIT_MAX)
        }
        if self._scenario.own_pace:
            settings |= {"pace": "self", "identity": "required"}
            if self._scenario.attempts > 1:
                settings["attempts"] = self._scenario.attempts
        else:
            settings |= {
                "pace": "auto",
                "reveal_ms": int(self._scenario.reveal_s * 1000),
                "board": self._scenario.board,
                "get_ready_ms": 0,
                "early_close": False,
            }
        told: Message = await self._ask(node, lambda api: api.create_session(quiz.id, settings))
        self.opened.append(
            Session(
                number,
                node,
                players,
                told["session_id"],
                told["code"],
                told["ws_url"],
                told["host_token"],
            )
        )

    async def finish(self) -> None:
        """End every session that has no end of its own."""
        async with trio.open_nursery() as nursery:
            for session in self.opened:
                nursery.start_soon(self._finish_one, session)

    async def _finish_one(self, session: Session) -> None:
        # The same mark each time: a command that was carried out before is answered as then.
        await self._ask(
            session.node, lambda api: api.host(session.code, session.host_token, "finish", "finish")
        )

    async def start(self) -> None:
        """Start every session, at random moments within the scenario's spread."""
        async with trio.open_nursery() as nursery:
            for session in self.opened:
                delay_s = self._rng.uniform(0.0, self._scenario.start_spread_s)
                nursery.start_soon(self._start_one, session, delay_s)

    async def _start_one(self, session: Session, delay_s: float) -> None:
        await trio.sleep(delay_s)
        try:
            await self._ask(session.node, lambda api: api.start(session.code, session.host_token))
        except ApiRefused as exc:
            # An earlier attempt may have been carried out though its answer was `busy`.
            if exc.code != "illegal_move":
                raise

    async def results(self, session: Session) -> list[StoredResult]:
        """Of a session that is over, in order. Raises NotFinal."""
        with trio.move_on_after(FINAL_WITHIN_S):
            while True:
                told = await self._ask(session.node, lambda api: api.results(session.id, session.host_token))
                if told["final"]:
                    return [StoredResult(**each) for each in told["players"]]
                await trio.sleep(0.5)
        raise NotFinal(f"the results of session {session.code} have not become final")

    async def _ask(self, node: int, request: Callable[[Api], Awaitable[T]]) -> T:
        """Args: node: the place of the one to ask, or to ask first."""
        for attempt in range(ATTEMPTS_MAX):
            api = self.apis[node]
            try:
                async with self._limit:
                    return await request(api)
            except ApiRefused as exc:
                if not exc.not_now or attempt == ATTEMPTS_MAX - 1:
                    raise
            except ApiUnreachable:
                if not self._anywhere or len(self.apis) < 2 or attempt == ATTEMPTS_MAX - 1:
                    raise
                node = (node + 1) % len(self.apis)
                if attempt < len(self.apis) - 1:
                    continue  # one that was not asked yet, at once
            await trio.sleep(self._rng.uniform(0.5, 1.0) * 2**attempt)
        raise AssertionError("unreachable")
