"""How long players notice that their session moves to another node in the middle of a question.

All players of one session are connected to the node that runs it, and answer the question again and again,
which gets them the same ack each time; some of them for the first time. Then that node is drained by the API.
Its players are sent on to the next node, one after another, and come back as the protocol has it. Several
moves follow each other, with the same players.

Who is sent on wants an answer acknowledged from that very moment on, so everybody's longest wait has the way
to the other node in it. At the end all ledgers are compared with what is stored, as after a load run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import orjson
import trio

from bench import wire
from bench.answer_wire import quiz
from bench.clusters import LOOK_EVERY_S, BenchNode, Cluster, cluster
from bench.fan_out import allow_files
from bench.figures import Costs, Figure, percentile
from bench.memory_node import Address
from fanfare_client.reconnect import Policy, after_close, after_error, delay_s
from fanfare_client.seat import Gap, Seat
from loadtest.runs.ledger import StoredResult
from loadtest.runs.proof import StoredSession, prove
from loadtest.swarm.compact_ledger import CompactLedger
from loadtest.swarm.connection import Link, Target
from loadtest.swarm.loop import Loop
from server.cli.operate.sql import answers_of

SIZES = (100, 1_000, 5_000)
MOVES = 3
ANSWERS_PER_S = 2_000
"""Of all players together, as far as one may send so many."""

EVERY_LEAST_S = 0.1
CALM_S = 2.0
"""Before each move, in which half of those answer for the first time who do so at that move; the others do it
while it goes on."""

JOIN_PER_S = 1_000
PATIENCE_S = 60.0
LIMIT_S = 300
QUESTION = 1
SESSION = 0
"""In the ledger."""

FIRST_ACK = "order to first ack of the new owner"
SILENCE = "no ack for anybody"
LAST = "order to last player at the new node"
LONGEST = "answer to ack, the longest of each player"
AWAY = "sent on to in again, each player"
PARTS = {" p50": 0.5, " p99": 0.99, " most": 1.0}


class Player:
    """One player. Holder of its connection."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.ledger = CompactLedger(0, f"Player {number}")
        self.longest_s = 0.0
        """From an answer to its ack, since the move began."""
        self.away_s = 0.0
        """From the word to go, or a loss, until it was in again."""
        self.where: Target | None = None
        """The node that has let it in; None while it is away."""
        self._crowd = crowd
        self._number = number
        self._target = crowd.target
        self._link: Link | None = None
        self._seat = Seat(crowd.code, gaps=self.ledger.gaps)
        self._answers = False
        self._mark = 0
        self._waits_since: float | None = None
        self._left_at = 0.0
        self._failures = 0

    def come(self) -> None:
        self._link = Link(self._crowd.loop, self._target, None, self, slow=False)

    def begin(self) -> None:
        """Answer from now on, again and again."""
        self._answers = True
        self._answer()

    def go_home(self) -> None:
        if self._link is not None:
            self._link.cut()

    def measure_anew(self) -> None:
        self.longest_s = self.away_s = 0.0

    def _answer(self) -> None:
        crowd = self._crowd
        if crowd.over or self.ledger.final is not None:
            return
        if self._waits_since is None:
            self._want(crowd.loop.now())
        crowd.loop.at(crowd.loop.now() + crowd.every_s, self._answer)

    def _want(self, now: float) -> None:
        """An ack, from that moment on."""
        self._mark += 1
        self._waits_since = now
        if QUESTION not in self.ledger.acks:
            self.ledger.unsettled.add(QUESTION)
        self._ask()

    def _ask(self) -> None:
        if self.where is not None and self._link is not None and self._waits_since is not None:
            message = {"t": "answer", "id": str(self._mark), "question": QUESTION, "choice": self._number % 4}
            self._link.send(orjson.dumps(message))

    # -- Holder ----------------------------------------------------------------------------------

    def opened(self) -> None:
        """Holder."""
        assert self._link is not None
        self._link.send(orjson.dumps(self._seat.join(name=self.ledger.name)))

    def heard(self, payload: bytes) -> None:
        """Holder."""
        message = self._crowd.read(payload)
        match message["t"]:
            case "ack":
                self._on_ack(message)
            case "leaderboard":
                self.ledger.top = message["top"]
            case "question" | "reveal" | "state":
                self._follow(message["offset"])
            case "result":
                self.ledger.told(message["number"], message["correct"], message["points"], message["score"])
            case "joined":
                self._on_joined(message)
            case "moved":
                self._leave(self._crowd.loop.now())
                self._target = Target.of(message["url"])
                self._crowd.loop.at(self._left_at + message["after_ms"] / 1000, self._go)
            case "finished":
                self._follow(message["offset"])
                self.ledger.final = (message["you"]["rank"], message["you"]["score"])
                self._crowd.finished()
            case "error":
                self._on_error(message)

    def ended(self, code: int | None, reason: str) -> None:
        """Holder."""
        self._link = None
        policy = after_close(code)
        if policy is Policy.MOVE or self.ledger.final is not None:
            return
        self._crowd.noted[reason or "broken"] += 1
        self._come_back(policy)

    def _come_back(self, policy: Policy) -> None:
        crowd = self._crowd
        if policy is Policy.NO:
            self.ledger.faults.append("sent away")
            return
        if self.where is not None:
            self._leave(crowd.loop.now())
        crowd.loop.at(crowd.loop.now() + delay_s(policy, self._failures, crowd.rng), self.come)
        self._failures += 1

    def _leave(self, now: float) -> None:
        if self.where is not None:
            self._crowd.left(self.where)
        self.where = None
        self._left_at = now
        if self._answers and self._waits_since is None:
            self._want(now)

    def _go(self) -> None:
        if self._link is not None:
            self._link.close()
        self.come()

    def _on_joined(self, message: dict[str, Any]) -> None:
        now = self._crowd.loop.now()
        before = self._seat.epoch
        if self._seat.token is not None:
            self.away_s = max(self.away_s, now - self._left_at)
        wrong = self._seat.joined(message)
        if wrong is not None:
            self.ledger.faults.append(wrong)
        self._failures = 0
        self.ledger.player, self.ledger.name = message["player"], message["name"]
        self.where = self._target
        self._crowd.came(self._target, now)
        if message["state"] is not None and before is not None:
            self._crowd.noted["the whole picture instead of what was missed"] += 1
        self._ask()

    def _on_ack(self, message: dict[str, Any]) -> None:
        now = self._crowd.loop.now()
        self.ledger.acked(message["question"], message["status"], message["elapsed_ms"])
        if message["id"] == str(self._mark) and self._waits_since is not None:
            self.longest_s = max(self.longest_s, now - self._waits_since)
            self._waits_since = None
        self._crowd.acks_at.append(now)

    def _on_error(self, message: dict[str, Any]) -> None:
        self._crowd.noted[message["code"]] += 1
        if message.get("id") is not None:
            self._crowd.loop.at(self._crowd.loop.now() + self._crowd.rng.uniform(0.2, 1.0), self._ask)
        elif self._link is not None:
            self._link.close()
            self._link = None
            self._come_back(after_error(message["code"]))

    def _follow(self, offset: int) -> None:
        seat = self._seat
        if not seat.in_order(offset):  # here a broadcast that comes twice is a fault too
            seat.gaps.append(Gap(seat.epoch or 0, seat.offset + 1, offset))


class Crowd:
    """All players, in this process.

    Args:
        target: where the session runs.
        every_s: after which a player answers again.
    """

    def __init__(self, target: Target, code: str, count: int, every_s: float) -> None:
        self.loop = Loop()
        self.rng = random.Random(1)
        self.target = target
        self.code = code
        self.every_s = every_s
        self.over = False
        self.noted: Counter[str] = Counter()
        """What players were told or went through beside the plan, and how often."""
        self.acks_at: list[float] = []
        """Since the last order."""
        self.first_came_at: float | None = None
        """When the first player was in at another node than that of the last move, and the last one."""
        self.last_came_at = 0.0
        self.players = [Player(self, number) for number in range(count)]
        self._at: Counter[Target] = Counter()
        self._ordered_at = 0.0
        self._finished = 0
        self._memo: tuple[bytes, dict[str, Any]] = (b"", {})
        self._wanted: Callable[[], bool] = bool

    # -- for the players -------------------------------------------------------------------------

    def read(self, payload: bytes) -> dict[str, Any]:
        """Many in a row hear the same."""
        if payload != self._memo[0]:
            self._memo = (payload, orjson.loads(payload))
        return self._memo[1]

    def came(self, where: Target, now: float) -> None:
        self._at[where] += 1
        if where != self.target:
            self.first_came_at = self.first_came_at or now
            self.last_came_at = now
        self._look()

    def left(self, where: Target) -> None:
        self._at[where] -= 1

    def finished(self) -> None:
        self._finished += 1
        self._look()

    # -- for whoever leads -----------------------------------------------------------------------

    def join(self) -> None:
        """Let everybody in."""
        now = self.loop.now()
        for number, player in enumerate(self.players):
            self.loop.at(now + number / JOIN_PER_S, player.come)
        self._run_until(lambda: self._at[self.target] == len(self.players))

    def move(self, newcomers: Sequence[Player], order: Callable[[], object]) -> Move:
        """Play on, give the order when half of the newcomers have answered, and wait until all players are at
        another node."""
        loop, began_at = self.loop, self.loop.now()
        ordered_at = began_at + CALM_S
        for number, player in enumerate(newcomers):
            loop.at(began_at + 2 * CALM_S * number / len(newcomers), player.begin)
        self.first_came_at = None
        loop.at(ordered_at, self._order, order)
        self._run_until(lambda: self._at[self.target] == 0 and self._at.total() == len(self.players))
        self._run(max(began_at + 2 * CALM_S - loop.now(), 0) + CALM_S)
        assert self.first_came_at is not None
        move = Move(
            self._ordered_at,
            self.acks_at,
            self.first_came_at,
            self.last_came_at,
            [player.longest_s for player in self.players],
            [player.away_s for player in self.players],
        )
        (self.target,) = +self._at
        return move

    def end(self) -> None:
        """Wait until everybody has heard of the end."""
        self._run_until(lambda: self._finished == len(self.players))

    def close(self) -> None:
        for player in self.players:
            player.go_home()
        self.loop.close()

    def _order(self, order: Callable[[], object]) -> None:
        for player in self.players:
            player.measure_anew()
        self.acks_at = []
        self._ordered_at = self.loop.now()
        order()

    def _run(self, seconds: float) -> None:
        self.loop.at(self.loop.now() + seconds, self.loop.stop)
        self.loop.run()

    def _run_until(self, wanted: Callable[[], bool]) -> None:
        """Raises TimeoutError."""
        self._wanted = wanted
        self.loop.at(self.loop.now() + PATIENCE_S, self._give_up, wanted)
        self.loop.run()
        if not wanted():
            raise TimeoutError(f"{self._at}, {self._finished} have heard the end; {dict(self.noted)}")

    def _give_up(self, wanted: Callable[[], bool]) -> None:
        if self._wanted is wanted:
            self.loop.stop()

    def _look(self) -> None:
        if self._wanted():
            self._wanted = bool
            self.loop.stop()


@dataclass(frozen=True, slots=True)
class Move:
    """What one was like. Moments are of the machine's monotonic clock.

    Args:
        acks_at: of all players, since the order.
        longest_s: of each player, from an answer to its ack.
        away_s: of each player, from the word to go until it was in again.
    """

    ordered_at: float
    acks_at: Sequence[float]
    first_came_at: float
    last_came_at: float
    longest_s: Sequence[float]
    away_s: Sequence[float]

    def silence(self) -> tuple[float, float]:
        """The longest time without an ack to anybody until the first one had changed nodes: its length, and
        its end after the order. With what ends it, the new owner begins."""
        until = [at for at in self.acks_at if at <= self.first_came_at]
        until += [at for at in self.acks_at if at > self.first_came_at][:1]
        ends = zip([self.ordered_at, *until], until, strict=False)
        length_s, end_at = max((after - before, after) for before, after in ends)
        return length_s, end_at - self.ordered_at


async def measure(costs: Costs, size: int, moves: int) -> None:
    every_s = max(size / ANSWERS_PER_S, EVERY_LEAST_S)
    asked = quiz(1)
    asked["questions"] = [{**question, "time_limit_s": LIMIT_S} for question in asked["questions"]]
    async with cluster(moves + 1) as served:
        address, owner = await served.open_session(asked)
        crowd = Crowd(Target.of(owner.ws_url), address.code, size, every_s)
        api = served.nodes[0].api
        crowd.join()
        await api.host(address.code, address.host_token, "start", "start")
        for number in range(moves):
            with drain_order(owner, served.spawned.author_key) as order:
                move = crowd.move(crowd.players[number::moves], order)
            note(costs, size, move)
            owner = next(node for node in served.nodes if Target.of(node.ws_url) == crowd.target)
        crowd.over = True
        for do in ("close", "finish"):
            await api.host(address.code, address.host_token, do, do)
        crowd.end()
        await compare(served, address, crowd)
        crowd.close()
    for what, count in crowd.noted.items():
        click.echo(f"{size:,} players: {what} {count} times", err=True)


@contextmanager
def drain_order(owner: BenchNode, author_key: str) -> Iterator[Callable[[], None]]:
    """What tells the node to leave, without a wait for its answer, which is looked at afterwards."""
    target = f"/api/cluster/nodes/{owner.name}/drain"
    with closing(wire.connect(owner.http_port, 1)[0]) as connection:
        headers = {"Authorization": f"Bearer {author_key}"}
        yield partial(connection.sendall, wire.http_request(b"POST", target, headers))
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 202"), answer


def note(costs: Costs, size: int, move: Move) -> None:
    silence_s, first_ack_s = move.silence()
    costs.add(FIRST_ACK, size, 1000 * first_ack_s)
    costs.add(SILENCE, size, 1000 * silence_s)
    costs.add(LAST, size, 1000 * (move.last_came_at - move.ordered_at))
    for what, each_s in ((LONGEST, move.longest_s), (AWAY, move.away_s)):
        for name, part in PARTS.items():
            costs.add(f"{what}{name}", size, 1000 * percentile(each_s, part))


async def compare(served: Cluster, address: Address, crowd: Crowd) -> None:
    """Everybody's ledger with the results and the stored answers. Raises AssertionError."""
    api = served.nodes[0].api
    with trio.fail_after(PATIENCE_S):
        while not (told := await api.results(address.code, address.host_token))["final"]:  # noqa: ASYNC110
            await trio.sleep(LOOK_EVERY_S)
    session = await api.session(address.code)
    rows = await answers_of(served.spawned.database, [session["session_id"]])
    stored = StoredSession(
        [StoredResult(**each) for each in told["players"]], rows.get(session["session_id"], [])
    )
    verdict = prove((player.ledger for player in crowd.players), {SESSION: stored})
    assert verdict.holds, (verdict.broken, verdict.examples)
    assert verdict.acks == len(crowd.players), verdict


def run(sizes: Sequence[int] = SIZES, moves: int = MOVES) -> list[Figure]:
    allow_files()
    costs = Costs()
    for size in sizes:
        trio.run(measure, costs, size, moves)
    figures = [
        Figure(what, at(size), costs.median(what, size), "ms")
        for what in (FIRST_ACK, SILENCE, LAST)
        for size in sizes
    ]
    figures += [
        Figure(what, at(size), costs.median(f"{what}{name}", size), f"ms{name}")
        for what in (LONGEST, AWAY)
        for size in sizes
        for name in PARTS
    ]
    return figures


def at(size: int) -> str:
    return f"{size:,} players"
