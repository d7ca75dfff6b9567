"""Users of the swarm go through a self-paced session, on two nodes, and are held to what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest
from trio.testing import MockClock

from loadtest.client.api import Api
from loadtest.runs.ledger import StoredResult
from loadtest.runs.proof import StoredAnswer, StoredSession, Verdict, prove
from loadtest.runs.scenario import ScenarioError, load, parse
from loadtest.runs.scores import StoredScores, prove_scores
from loadtest.swarm.crowd import Crowd, CrowdPlan, Seats, Signing
from tests.loadtest import scripted
from tests.loadtest.peers import Listener, Message, Peer, VirtualLoop
from tests.loadtest.test_swarm import HABITS

PLAYERS, QUESTIONS = 30, 10
SECRET = "a secret of thirty-two characters"
OWN_PACE = replace(
    HABITS, own_pace=True, live=True, think_s=0.02, skill=0.6, pause_s=0.01, away_share=0.2, away_s=0.05
)
"""Quick people: as long as sockets are quiet, a short time passes at once."""


class ToyNodes:
    """Two nodes with one session, in which choice 1 is right and worth 100 points. Some requests are
    answered `busy`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.listeners = [Listener(loop, self.hear) for _ in range(2)]
        self.users: list[str] = []
        self.seats: dict[Peer, int] = {}
        self.shown: dict[int, dict[int, float]] = {}
        """By player: when each question was shown."""
        self.answers: dict[int, dict[int, tuple[int, int]]] = {}
        """By player and question: choice and time."""
        self.joins: Counter[str] = Counter()
        self.requests = 0

    def hear(self, peer: Peer, message: Message) -> None:
        self.requests += 1
        if message["t"] == "join":
            self._join(peer, message)
        elif self.requests % 29 == 0:
            peer.say(scripted.error("busy", message))
        elif message["t"] == "next":
            self._next(peer, self.seats[peer])
        else:
            self._answer(peer, self.seats[peer], message)

    def _join(self, peer: Peer, message: Message) -> None:
        user = jwt.decode(message["identity"], SECRET, ["HS256"])
        self.joins[user["sub"]] += 1
        if user["sub"] not in self.users:
            self.users.append(user["sub"])
        player = self.seats[peer] = self.users.index(user["sub"]) + 1
        state = scripted.picture("open", score=self.score(player))
        peer.say(scripted.joined(player=player, token="t", name=user["name"], state=state))

    def _next(self, peer: Peer, player: int) -> None:
        shown, given = self.shown.setdefault(player, {}), self.answers.setdefault(player, {})
        number = len(given) + 1
        if number > QUESTIONS:
            review = [
                {"number": each, "correct": choice == 1, "points": 100 * (choice == 1)}
                for each, (choice, _) in given.items()
            ]
            peer.say({"t": "done_all", "id": "next", "score": self.score(player), "review": review})
            return
        since_s = self.loop.time_s - shown.setdefault(number, self.loop.time_s)
        question = scripted.question(0, number, id="next", remaining_ms=20_000 - int(since_s * 1000))
        del question["offset"]
        peer.say(question)

    def _answer(self, peer: Peer, player: int, message: Message) -> None:
        number, given = message["question"], self.answers[player]
        elapsed_ms = int((self.loop.time_s - self.shown[player][number]) * 1000)
        choice, elapsed_ms = given.setdefault(number, (message["choice"], elapsed_ms))
        result = {"number": number, "correct": choice == 1, "points": 100 * (choice == 1)}
        told = result | {"score": self.score(player)}
        peer.say(scripted.ack(message, elapsed_ms=elapsed_ms) | {"result": told})
        peer.say(scripted.leaderboard(0, (1, "P1", 100)))

    def score(self, player: int) -> int:
        return sum(100 for choice, _ in self.answers.get(player, {}).values() if choice == 1)

    def stored(self) -> StoredSession:
        answers = [
            StoredAnswer(player, number, elapsed_ms, choice == 1, 100 * (choice == 1))
            for player, given in self.answers.items()
            for number, (choice, elapsed_ms) in given.items()
        ]
        results = []
        for player in self.answers:
            own = [each for each in answers if each.player == player]
            correct, elapsed_ms = sum(each.correct for each in own), sum(each.elapsed_ms for each in own)
            score = self.score(player)
            rank = 1 + sum(self.score(other) > score for other in self.answers)
            results.append(StoredResult(rank, player, f"P{player}", score, correct, len(own), elapsed_ms))
        return StoredSession(sorted(results, key=lambda each: each.rank), answers)


@pytest.fixture
def nodes() -> Iterator[ToyNodes]:
    made = ToyNodes(VirtualLoop())
    yield made
    for listener in made.listeners:
        listener.end()
    made.loop.close()


def crowd_of(nodes: ToyNodes, **habits: Any) -> Crowd:
    plan = CrowdPlan(
        1,
        replace(OWN_PACE, **habits),
        nodes.loop.time_s,
        50.0,
        ["127.0.1.1"],
        [("1", "0")] * QUESTIONS,
        [Seats(0, "123456", [each.url for each in nodes.listeners], 1, PLAYERS)],
        Signing(SECRET, "load-1-"),
    )
    crowd = Crowd(CrowdPlan.from_dict(plan.to_dict()), nodes.loop)
    crowd.begin()
    return crowd


def test_users_leave_come_back_at_another_node_and_answer_every_question(nodes: ToyNodes) -> None:
    crowd = crowd_of(nodes, drop_share=0.05, duplicate_share=0.05)
    nodes.loop.run_for(12)
    assert crowd.over
    assert sorted(nodes.users) == sorted(f"load-1-P{number}" for number in range(1, PLAYERS + 1))
    taken = crowd.take()
    assert taken["acks"] == PLAYERS * QUESTIONS
    assert taken["ends"]["left for a while"] > PLAYERS
    assert nodes.joins.total() == PLAYERS + taken["reconnects"]
    assert all(len(listener.peers) > PLAYERS for listener in nodes.listeners)
    assert {each.ledger.ended for each in crowd.players} == {"finished"}
    ledgers = [each.ledger for each in crowd.players]
    stored = nodes.stored()
    verdict = prove(ledgers, {0: stored})
    assert verdict.holds, verdict.examples
    assert (verdict.players, verdict.acks, verdict.boards) == (PLAYERS, PLAYERS * QUESTIONS, 0)

    stored.results = [replace(each, score=each.score + 1) for each in stored.results]
    assert prove(ledgers, {0: stored}).broken["score or rank"] == PLAYERS


def test_a_user_who_gets_no_question_is_noted(nodes: ToyNodes) -> None:
    nodes._next = lambda peer, player: peer.say(scripted.error("not_player", {"id": "next"}))  # type: ignore[method-assign]
    crowd = crowd_of(nodes)
    nodes.loop.run_for(2)
    assert all(each.ledger.faults == ["no next question: `not_player`"] for each in crowd.players)
    assert crowd.over


@pytest.mark.parametrize("code", ["wrong_question", "late"])
def test_a_question_that_is_shown_again_after_a_refusal_is_answered_again(nodes: ToyNodes, code: str) -> None:
    answer, refused = nodes._answer, set[int]()

    def forgetful(peer: Peer, player: int, message: Message) -> None:
        if message["question"] == 2 and player not in refused:
            refused.add(player)
            peer.say(scripted.error(code, message))
        else:
            answer(peer, player, message)

    nodes._answer = forgetful  # type: ignore[method-assign]
    crowd = crowd_of(nodes)
    nodes.loop.run_for(12)
    assert crowd.over
    assert len(refused) == PLAYERS
    assert crowd.take()["acks"] == PLAYERS * QUESTIONS
    verdict = prove([each.ledger for each in crowd.players], {0: nodes.stored()})
    assert verdict.holds, verdict.examples


def test_what_goes_with_the_own_pace() -> None:
    assert (load("self").questions, load("self").own_pace) == (10, True)
    least = 'description = "x"\nplayers = 10\nduration_s = 60\npace = "self"\nsilent_share = 0\n'
    with pytest.raises(ScenarioError, match="and so do pace self and these"):
        parse(f"{least}probes = 0\n", "x.toml")
    with pytest.raises(ScenarioError, match="pace self has no waves, probes"):
        parse(f"{least}session_questions = 1\n", "x.toml")


async def test_every_node_has_to_show_the_leaderboards_as_they_are_stored(autojump_clock: MockClock) -> None:
    lines = [("load-1-P2", 900, 10), ("load-1-P1", 800, 10)]
    asked = 0

    def node(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        if request.url.host == "gone":
            raise httpx.ConnectError("refused")
        asked += 1
        late = request.url.host == "late" and (asked < 8 or "period=all" in str(request.url))
        names = ("user_id", "score", "elapsed_ms")
        top = [dict(zip(names, line, strict=True)) for line in (lines[1:] if late else lines)]
        return httpx.Response(200, json={"top": top})

    async def ask(session_ids: object, quiz_id: str) -> StoredScores:
        assert (session_ids, quiz_id) == (["s1"], "load-x")
        top = {("all", "day"): lines, ("all", "all"): lines}
        return StoredScores(2, 12, [("score of a user", "load-1-P1: not so")], "2026-11-29", top)

    verdict = Verdict(players=2)
    transport = httpx.MockTransport(node)
    good, gone, late = (Api(f"http://{name}", transport=transport) for name in ("good", "gone", "late"))
    async with good, gone, late:
        await prove_scores(verdict, ask, ["s1"], [good, gone, late], "load-x")
        nothing = Verdict(players=2)
        await prove_scores(nothing, ask, ["s1"], [gone], "load-x")
    assert nothing.examples["leaderboard over sessions"] == ["no node shows any"]
    assert (verdict.scores, verdict.lines) == (2, 12 + 2 * 2 * 2)
    assert verdict.broken == {"score of a user": 1, "leaderboard over sessions": 1}
    assert verdict.examples["leaderboard over sessions"] == [
        "node 3, all, all: 1 lines for 2, not the same from line 1 on"
    ]
