"""What an answer costs from its frame to its ack without a network and a database, and in which parts.

A thousand players answer a question, all at once or one after the other. The journal commits at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import orjson
import trio
import trio.testing

from bench.figures import Costs, Figure
from bench.leaderboard import LIMIT_MS, advance, quiz
from engine.actors import commands, messages
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from engine.actors.options import ActorOptions
from engine.actors.registry import Registry
from engine.domain.facts import Fact
from engine.domain.session import Session
from engine.ports import CommitListener
from engine.shards.lone_node import lone_router
from engine.shards.router import Router
from server.realtime.conversation import Conversation, ConversationDeps
from server.security.limits import Attempts
from server.security.tokens import Tokens
from server.wire.protocol import encode, parse
from tests.fakes import MemoryCatalog, MemorySessionStore
from tests.keys import session_id
from tests.settings import at_once

PLAYERS = 1_000
ROUNDS = 15
TICK_MS = 10_000
"""No leaderboard during the answers: what one costs is measured as a fan-out."""

JSON = "JSON alone, in and out"
PARSE = "parse the frame"
CONVERSATION = "conversation, parse included"
DOMAIN = "session: judge, score, rank"
ACK = "make and encode the ack"
ACTOR = "mailbox, actor, journal"
WHOLE = "frame to ack, all at once"
SINGLE = "frame to ack, one by one"

Item = TypeVar("Item")


class AtOnce:
    """A journal that has committed before `append` returns, and keeps nothing."""

    def has_room(self, share: float = 1.0) -> bool:
        return True

    async def settled(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        listener.committed(facts[-1].seq)


class Connection:
    """Encodes what it is sent, as a transport would, and counts the acks."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def push(self, frame: Frame) -> None:
        frame.encoded(encode)
        if frame.kind == "ack":
            self._counter.count()
        elif frame.kind == "error":
            raise AssertionError(frame.message)

    def close(self, close_reason: CloseReason) -> None:
        raise AssertionError(close_reason)


class Counter:
    """Wakes whoever waits for a number of acks."""

    def __init__(self) -> None:
        self._missing = 0
        self._there = trio.Event()

    def expect(self, count: int) -> None:
        self._missing = count
        self._there = trio.Event()

    def count(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._there.set()

    async def wait(self) -> None:
        await self._there.wait()


class NoSessions:
    """Seats whoever joins as player 1, and does nothing with any other command."""

    def deliver(self, key: str, command: commands.Command) -> None:
        if isinstance(command, commands.Join):
            command.reply.push(
                Frame({"t": "joined", "session": "none", "code": "000000", "role": "player", "player": 1})
            )


class Silent:
    def push(self, frame: Frame) -> None:
        pass

    def close(self, close_reason: CloseReason) -> None:
        pass


class Bench:
    """A node's worth of sessions in memory, one of them with a question open and everyone in it, and beside
    it what is measured of the parts."""

    def __init__(self, nursery: trio.Nursery, rounds: int) -> None:
        self.clock = SessionClock()
        self.questions = 2 * rounds
        self.number = 0
        self.counter = Counter()
        self._tokens = Tokens(b"a secret for the benchmark", 3600, self.clock)
        self._store = MemorySessionStore(MemoryCatalog())
        numbers = itertools.count(1)
        registry = Registry(
            nursery,
            store=self._store,
            catalog=self._store.catalog,
            journal=AtOnce(),
            tokens=self._tokens,
            clock=self.clock,
            owner="bench",
            options=ActorOptions(tick_ms=TICK_MS),
        )
        self._router = lone_router(
            nursery,
            registry=registry,
            store=self._store,
            catalog=self._store.catalog,
            clock=self.clock,
            me="bench",
            new_id=lambda: session_id(next(numbers)),
            new_code=lambda: f"{next(numbers):06}",
        )
        self.players: list[Conversation] = []
        self.unheard: list[Conversation] = []
        self.twin = Session(quiz(self.questions), at_once(early_close=False), 0)
        self._host = Silent()
        self._session_id = ""

    def _deps(self, sessions: Router | NoSessions) -> ConversationDeps:
        return ConversationDeps(sessions, self._tokens, self.clock, Attempts(1000), 1e6, 1_000_000)

    async def fill(self, players: int) -> None:
        stored = await self._store.catalog.add(quiz(self.questions))
        record = await self._router.create(stored.id, at_once(early_close=False))
        self._session_id = record.id
        self.players = self._joined(self._deps(self._router), Connection(self.counter), record.code, players)
        self.unheard = self._joined(self._deps(NoSessions()), Silent(), record.code, players)
        for number in range(players):
            self.twin.join(f"Player {number}", 0)
        self._router.deliver(record.id, commands.Rejoin(self._host, "host"))
        await trio.testing.wait_all_tasks_blocked()

    def _joined(
        self, deps: ConversationDeps, connection: Subscriber, code: str, count: int
    ) -> list[Conversation]:
        joined = [Conversation(deps, connection, "") for _ in range(count)]
        for number, each in enumerate(joined):
            each.receive(orjson.dumps({"t": "join", "code": code, "name": f"Player {number}"}))
        return joined

    async def open_question(self) -> list[bytes]:
        """Returns the frames of the answers."""
        await self._lead(*(["close", "next"] if self.number else ["start"]))
        self.number += 1
        return [
            orjson.dumps({"t": "answer", "id": f"a{n}", "question": self.number, "choice": n % 4})
            for n in range(len(self.players))
        ]

    async def _lead(self, *words: str) -> None:
        for do in words:
            self._router.deliver(self._session_id, commands.Host(self._host, "h", do))
            await trio.testing.wait_all_tasks_blocked()


def measure_parts(costs: Costs, bench: Bench, frames: Sequence[bytes]) -> None:
    size = len(frames)
    with costs.cpu_us(JSON, size, size):
        for raw in frames:
            orjson.loads(raw)
            orjson.dumps({"t": "ack", "id": "a1", "question": 1, "status": "accepted", "elapsed_ms": 1234})
    with costs.cpu_us(PARSE, size, size):
        for raw in frames:
            parse(raw)
    with costs.cpu_us(CONVERSATION, size, size):
        for raw, each in zip(frames, bench.unheard, strict=True):
            each.receive(raw)
    at = (bench.twin.number + 1) * LIMIT_MS
    if bench.twin.number:
        bench.twin.close(at)
    advance(bench.twin, at)
    bench.twin.take_facts()
    number = bench.twin.number
    with costs.cpu_us(DOMAIN, size, size):
        for player in range(1, size + 1):
            bench.twin.answer(player, number, player % 4, at + player)
            bench.twin.take_facts()
    with costs.cpu_us(ACK, size, size):
        for player in range(1, size + 1):
            messages.ack(f"a{player}", number, "accepted", player).encoded(encode)


async def measure_whole(costs: Costs, bench: Bench) -> None:
    frames = await bench.open_question()
    size = len(frames)
    bench.counter.expect(size)
    with costs.cpu_us(WHOLE, size, size):
        for raw, each in zip(frames, bench.players, strict=True):
            each.receive(raw)
        await bench.counter.wait()
    frames = await bench.open_question()
    with costs.cpu_us(SINGLE, size, size):
        for raw, each in zip(frames, bench.players, strict=True):
            bench.counter.expect(1)
            each.receive(raw)
            await bench.counter.wait()
    measure_parts(costs, bench, frames)


async def measure(players: int, rounds: int) -> Costs:
    costs = Costs()
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, rounds)
        await bench.fill(players)
        for _ in range(rounds):
            await measure_whole(costs, bench)
        nursery.cancel_scope.cancel()
    for whole, conversation, domain, ack in zip(
        *(costs.rounds(what, players) for what in (WHOLE, CONVERSATION, DOMAIN, ACK)), strict=True
    ):
        costs.add(ACTOR, players, whole - conversation - domain - ack)
    return costs


def run(players: int = PLAYERS, rounds: int = ROUNDS) -> list[Figure]:
    costs = trio.run(measure, players, rounds)
    return [
        Figure(
            what,
            f"{players:,} players",
            costs.median(what, players),
            "µs CPU",
            costs.ratio(what, players, JSON, players),
            "JSON alone",
        )
        for what in (JSON, PARSE, CONVERSATION, DOMAIN, ACK, ACTOR, WHOLE, SINGLE)
    ]
