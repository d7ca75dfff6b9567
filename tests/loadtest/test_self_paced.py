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

from loadtest.chaos.proof import sums_that_differ
from loadtest.client.api import Api
from loadtest.runs.attempts import attempt_of, numbered, question_of
from loadtest.runs.ledger import StoredResult
from loadtest.runs.proof import StoredAnswer, StoredSession, Verdict, prove
from loadtest.runs.scenario import ScenarioError, load, parse
from loadtest.runs.scores import StoredScores, prove_scores
from loadtest.runs.timeline import WaveState, state
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
        """By player and question: choice and time. Those of later attempts are numbered higher."""
        self.attempts = 1
        """How many a player has."""
        self.joins: Counter[str] = Counter()
        self.requests = 0

    def hear(self, peer: Peer, message: Message) -> None:
        self.requests += 1
        if message["t"] == "join":
            self._join(peer, message)
        elif self.requests % 29 == 0:
            peer.say(scripted.error("busy", message))
        elif message["t"] == "next":
            self._next(peer, self.seats[peer], message.get("attempt", 1))
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

    def _next(self, peer: Peer, player: int, attempt: int) -> None:
        shown, given = self.shown.setdefault(player, {}), self.answers.setdefault(player, {})
        if not 1 <= attempt <= self.attempts or (attempt > 1 and not self._through(player, attempt - 1)):
            peer.say(scripted.error("illegal_move", {"id": "next"}))
            return
        marked = {"attempt": attempt, "attempts": self.attempts} if self.attempts > 1 else {}
        if self._through(player, attempt):
            review = [
                {"number": question_of(each), "correct": choice == 1, "points": 100 * (choice == 1)}
                for each, (choice, _) in given.items()
                if attempt_of(each) == attempt
            ]
            done = {"t": "done_all", "id": "next", "phase": "open", "score": self.score(player)}
            peer.say(done | marked | {"review": review})
            return
        number = next(n for q in range(1, QUESTIONS + 1) if (n := numbered(q, attempt)) not in given)
        since_s = self.loop.time_s - shown.setdefault(number, self.loop.time_s)
        asked = question_of(number)
        question = scripted.question(0, asked, id="next", remaining_ms=20_000 - int(since_s * 1000)) | marked
        del question["offset"]
        peer.say(question)

    def _answer(self, peer: Peer, player: int, message: Message) -> None:
        attempt, given = message.get("attempt", 1), self.answers[player]
        number = numbered(message["question"], attempt)
        elapsed_ms = int((self.loop.time_s - self.shown[player][number]) * 1000)
        choice, elapsed_ms = given.setdefault(number, (message["choice"], elapsed_ms))
        result = {"number": message["question"], "correct": choice == 1, "points": 100 * (choice == 1)}
        told = result | {"score": self.score(player)}
        peer.say(scripted.ack(message, elapsed_ms=elapsed_ms) | {"result": told})
        peer.say(scripted.leaderboard(0, (1, "P1", 100)))

    def _through(self, player: int, attempt: int) -> bool:
        return sum(attempt_of(number) == attempt for number in self.answers[player]) == QUESTIONS

    def score(self, player: int) -> int:
        return max((-best[0] for best in self._attempts(player)), default=0)

    def _attempts(self, player: int) -> list[tuple[int, int, int, int]]:
        """What each has brought, the best one the least: points below 0, time, number of right answers and of
        answers."""
        sums = []
        for attempt in range(1, self.attempts + 1):
            given = [
                each for number, each in self.answers.get(player, {}).items() if attempt_of(number) == attempt
            ]
            correct = sum(choice == 1 for choice, _ in given)
            sums.append((-100 * correct, sum(elapsed_ms for _, elapsed_ms in given), correct, len(given)))
        return sums

    def stored(self) -> StoredSession:
        answers = [
            StoredAnswer(player, number, elapsed_ms, choice == 1, 100 * (choice == 1))
            for player, given in self.answers.items()
            for number, (choice, elapsed_ms) in given.items()
        ]
        results = []
        for player in self.answers:
            below_0, elapsed_ms, correct, answered = min(self._attempts(player))
            rank = 1 + sum(self.score(other) > -below_0 for other in self.answers)
            results.append(StoredResult(rank, player, f"P{player}", -below_0, correct, answered, elapsed_ms))
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


def test_users_go_again_while_they_have_attempts_and_the_best_counts(nodes: ToyNodes) -> None:
    nodes.attempts = 3
    crowd = crowd_of(nodes, again_share=0.6, drop_share=0.05)
    nodes.loop.run_for(40)
    assert crowd.over
    begun = Counter(attempt_of(number) for given in nodes.answers.values() for number in given)
    assert PLAYERS * QUESTIONS == begun[1] > begun[2] > begun[3] > 0
    assert crowd.take()["acks"] == begun.total()
    ledgers, stored = [each.ledger for each in crowd.players], nodes.stored()
    verdict = prove(ledgers, {0: stored})
    assert verdict.holds, verdict.examples
    assert sums_that_differ(stored) == []
    first = [number for number in nodes.answers[1] if attempt_of(number) == 1]
    assert len(first) == QUESTIONS


def test_who_begins_an_attempt_that_an_owner_knows_nothing_of_goes_back_to_the_one_before(
    nodes: ToyNodes,
) -> None:
    nodes.attempts = 2
    through, forgotten = nodes._through, set[int]()

    def forgetful(player: int, attempt: int) -> bool:
        """The last answer of each is unknown when the second attempt is asked for, and again known later."""
        known = through(player, attempt)
        if known and attempt == 1 and player not in forgotten and (1, QUESTIONS) in asked_again[player]:
            forgotten.add(player)
            return False
        if known and attempt == 1:
            asked_again[player].add((1, QUESTIONS))
        return known

    asked_again: dict[int, set[tuple[int, int]]] = {number: set() for number in range(1, PLAYERS + 1)}
    nodes._through = forgetful  # type: ignore[method-assign]
    crowd = crowd_of(nodes, again_share=0.9)
    nodes.loop.run_for(40)
    assert crowd.over
    assert forgotten
    assert crowd.take()["refused"]["illegal_move"] == len(forgotten)
    verdict = prove([each.ledger for each in crowd.players], {0: nodes.stored()})
    assert verdict.holds, verdict.examples


def test_a_question_that_is_shown_again_though_it_was_answered_is_passed_over(nodes: ToyNodes) -> None:
    """By an owner who has yet to hear of the answer."""
    showing, repeated = nodes._next, set[int]()

    def late(peer: Peer, player: int, attempt: int) -> None:
        if 2 in nodes.answers.get(player, {}) and player not in repeated:
            repeated.add(player)
            question = scripted.question(0, 2, id="next", remaining_ms=500)
            del question["offset"]
            peer.say(question)
        else:
            showing(peer, player, attempt)

    nodes._next = late  # type: ignore[method-assign]
    crowd = crowd_of(nodes, away_share=0.0)
    nodes.loop.run_for(15)
    assert len(repeated) == PLAYERS
    assert crowd.over
    verdict = prove([each.ledger for each in crowd.players], {0: nodes.stored()})
    assert verdict.holds, verdict.examples


def test_who_is_through_counts_once_among_those_who_came(nodes: ToyNodes) -> None:
    """While others have yet to come."""
    crowd = crowd_of(nodes, away_share=0.0)
    crowd.players[-1]._leave("had no wish to")
    assert (crowd.take()["gone"], crowd.take()["never_in"]) == (1, 1)
    nodes.loop.run_for(15)
    assert crowd.over
    assert state({**crowd.take(), "over": True}) == WaveState(PLAYERS, PLAYERS, True)


def test_a_user_who_gets_no_question_is_noted(nodes: ToyNodes) -> None:
    nodes._next = lambda peer, player, attempt: peer.say(scripted.error("not_player", {"id": "next"}))  # type: ignore[method-assign]
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
    with pytest.raises(ScenarioError, match="belong to pace self"):
        parse('description = "x"\nplayers = 10\nduration_s = 60\nattempts = 2\n', "x.toml")
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
