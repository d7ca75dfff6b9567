"""A node's actors without a network and without Postgres, under trio's mock clock."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from engine.actors.actor import SessionActor
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Flushed, Host, Join, Rejoin, SubscribeNode, Watch
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from engine.actors.pacing import Pacing
from engine.actors.registry import Registry
from engine.actors.supervisor import RestartPolicy
from engine.actors.upkeep import Upkeep
from engine.boundary import Boundary
from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.quiz import Quiz
from engine.shards.router import Router
from tests.fakes import MemoryCatalog, MemoryJournal, MemorySessionStore
from tests.lone_node import LoneNode
from tests.messages import HEARD_NAMES, check_heard
from tests.settings import at_once

START_MS = 1_700_000_000_000

GRACE_S = RECEIPT_GRACE_MS / 1000
"""After the deadline of a question, until it is seen to."""

QUIZ = Quiz.parse(
    {
        "title": "Capitals",
        "questions": [
            {
                "type": "single",
                "text": f"Capital number {n}?",
                "choices": ["right", "wrong", "other"],
                "correct": "right",
                "time_limit_s": 20,
            }
            for n in (1, 2, 3)
        ],
    }
)


class Client:
    """A subscriber that keeps what it was sent."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.close_reason: CloseReason | None = None

    def push(self, frame: Frame) -> None:
        if self.close_reason is None:
            if frame.kind in HEARD_NAMES - {"done"}:  # which commands between nodes have too
                check_heard(frame.message)
            self.frames.append(frame)

    def close(self, close_reason: CloseReason) -> None:
        if self.close_reason is None:
            self.close_reason = close_reason

    def got(self, kind: str) -> list[Mapping[str, Any]]:
        return [frame.message for frame in self.frames if frame.kind == kind]

    def last(self, kind: str) -> Mapping[str, Any]:
        return self.got(kind)[-1]

    @property
    def kinds(self) -> list[object]:
        return [frame.kind for frame in self.frames]

    @property
    def offsets(self) -> list[object]:
        """Of the numbered broadcasts, in the order they came."""
        numbered = ("question", "reveal", "state", "finished")
        return [frame.message["offset"] for frame in self.frames if frame.kind in numbered]

    @property
    def errors(self) -> list[str]:
        return [message["code"] for message in self.got("error")]


class PlainTokens:
    def issue(self, session_id: str, role: str, player: int | None, generation: int = 0) -> str:
        return f"{session_id}/{role}/{player}"


class RunningNode(LoneNode):
    """One run of a node in a world."""

    def __init__(self, w: World, run: str, nursery: trio.Nursery) -> None:
        super().__init__(
            nursery,
            store=w.store,
            catalog=w.catalog,
            journal=w.journal,
            tokens=PlainTokens(),
            clock=w.clock,
            run=run,
            options=w.options,
            policy=w.policy,
            gone=w.gone,
            boundary=w.boundary,
            pacing=w.pacing,
            numbers=w.numbers,
        )
        self.upkeep = Upkeep(
            self.registry, w.store, w.clock, max_age_s=w.options.max_age_s, boundary=w.boundary
        )


class World:
    def __init__(
        self,
        nursery: trio.Nursery,
        options: ActorOptions,
        policy: RestartPolicy | None,
        gone: Callable[[str], bool] | None = None,
    ) -> None:
        self.nursery = nursery
        self.gone = gone
        self.clock = SessionClock(START_MS)
        self.catalog = MemoryCatalog()
        self.store = MemorySessionStore(self.catalog)
        self.journal = MemoryJournal(self.store)
        self.options = options
        self.policy = policy
        self.boundary = Boundary()
        self.pacing = Pacing()
        self.numbers = itertools.count(1)
        self.node = self.another("node")

    def start(self, owner: str = "node", nursery: trio.Nursery | None = None) -> RunningNode:
        """From now on this run of the node is the one that the test talks to."""
        self.node = self.another(owner, nursery)
        return self.node

    def another(self, owner: str = "next", nursery: trio.Nursery | None = None) -> RunningNode:
        """A run of a node beside that."""
        return RunningNode(self, owner, nursery or self.nursery)

    @property
    def registry(self) -> Registry:
        return self.node.registry

    @property
    def router(self) -> Router:
        return self.node.router

    async def session(self, quiz: Quiz = QUIZ, **settings: Any) -> SessionActor:
        stored = await self.catalog.add(quiz)
        record = await self.router.create(stored.id, at_once(**settings))
        return await self.registry.get(record.id)

    async def started(self, *names: str, quiz: Quiz = QUIZ, **settings: Any) -> tuple[Any, ...]:
        """A session whose first question is open, and its players in that order."""
        actor = await self.session(quiz, **settings)
        players = [await self.join(actor, name) for name in names]
        await self.do(actor, "start")
        return actor, *players

    async def join(self, actor: SessionActor, name: str) -> Client:
        client = Client()
        actor.send(Join(client, name, self.clock.now_ms()))
        await settle()
        return client

    async def rejoin(self, actor: SessionActor, player: int, **where: Any) -> Client:
        client = Client()
        actor.send(Rejoin(client, "player", player, **where))
        await settle()
        return client

    async def host(self, actor: SessionActor) -> Client:
        client = Client()
        actor.send(Rejoin(client, "host"))
        await settle()
        return client

    async def watch(self, actor: SessionActor, **where: Any) -> Client:
        client = Client()
        self.seat(actor, client, **where)
        await settle()
        return client

    def seat(self, actor: SessionActor, client: Client, **where: Any) -> None:
        """Let a client watch that a test has made."""
        actor.send(Watch(client, **where))

    async def do(self, actor: SessionActor, do: str, **kwargs: Any) -> Client:
        client = Client()
        actor.send(Host(client, "h", do, **kwargs))
        await settle()
        return client

    def answer(
        self,
        actor: SessionActor,
        client: Client,
        player: int,
        choice: object = 0,
        *,
        question: int = 1,
        id: str = "a",  # noqa: A002
    ) -> None:
        actor.send(Answer(client, player, id, question, choice, self.clock.now_ms()))


async def settle() -> None:
    """Until every task waits for something."""
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def world(
    options: ActorOptions | None = None,
    policy: RestartPolicy | None = None,
    gone: Callable[[str], bool] | None = None,
) -> AsyncIterator[World]:
    """Args: gone: makes the registry that of a node among others, as in `Registry`."""
    async with trio.open_nursery() as nursery:
        yield World(nursery, options or ActorOptions(), policy, gone)
        nursery.cancel_scope.cancel()


class Node(Client):
    """A subscribed node. `prompt`: it answers a flush at once, because nothing is in transit."""

    def __init__(self, actor: SessionActor, run: str, prompt: bool) -> None:
        super().__init__()
        self._actor = actor
        self._run = run
        self._prompt = prompt

    def push(self, frame: Frame) -> None:
        super().push(frame)
        if self._prompt and frame.kind == "flush":
            number = frame.message["number"]
            assert isinstance(number, int)
            self._actor.send(Flushed(Client(), self._run, number))


async def node(actor: SessionActor, run: str = "other", *, prompt: bool = True, **where: object) -> Client:
    """A node takes part."""
    client = Node(actor, run, prompt)
    actor.send(SubscribeNode(client, run, **where))  # type: ignore[arg-type]  # passed on as they are
    await settle()
    return client
