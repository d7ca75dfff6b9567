"""A load run from the quiz to the verdict."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from loadtest.bots.probes import Probes
from loadtest.client.api import Api
from loadtest.runs.faults import Breakable, Faults, Moments, costs
from loadtest.runs.fleet import Generator, Pulse, generators, read_ledgers, shared_out, sources_of
from loadtest.runs.load_quiz import LoadQuiz, load_quiz
from loadtest.runs.load_sessions import LoadSessions, Session
from loadtest.runs.proof import AskAnswers, AskMerged, Proof, StoredSession, Verdict
from loadtest.runs.sampling import NodeMetrics, Processes, sample
from loadtest.runs.scenario import EVEN, LIVE, Scenario
from loadtest.runs.scores import AskScores, prove_scores
from loadtest.runs.spread import Spreads
from loadtest.runs.timeline import Timeline
from loadtest.swarm.compact_ledger import CompactLedger
from loadtest.swarm.connection import Target
from loadtest.swarm.crowd import SPREADS, CrowdPlan, Seats, Signing
from loadtest.swarm.player import Habits

AHEAD_S = 1.0
"""Time for the generators to make their players before the first one comes."""

END_SPARE_S = 60.0
"""How long after the last question everybody has left, at most."""

SLOWEST = 5
"""How much longer than the median player the slowest one takes, at most."""

AskOwners = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""Reads from the database which node ran sessions last: its WebSocket's address, by the session's id."""


class RunFailed(Exception):
    """The run did not come far enough to prove anything."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, and to whom.

    Args:
        nodes: addresses of the HTTP APIs; one after another gets the next session.
        generators: how many processes drive the players.
        seed: of sizes, skill and the like; what happens when is up to the machine.
        processes: process ids by name, whose costs are sampled; those of the generators are added.
        ask_answers: None when the database cannot be asked.
        signing: of the identities of users, for the pace SELF.
        ask_scores: None as well.
        anywhere: whether the nodes are one cluster, any of which takes any client: then every player begins
            at a random one of them.
        moments: of the faults.
        breakable: the nodes, for those; None when they are not to be broken.
    """

    scenario: Scenario
    nodes: Sequence[str]
    generators: int
    seed: int = 1
    author_key: str | None = None
    processes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ask_answers: AskAnswers | None = None
    ask_owners: AskOwners | None = None
    ask_merged: AskMerged | None = None
    signing: Signing | None = None
    ask_scores: AskScores | None = None
    anywhere: bool = False
    moments: Moments = field(default_factory=Moments)
    breakable: Breakable | None = None


@dataclass(slots=True)
class Places:
    """Where the players of a cluster were in last, by node: host and port of its WebSocket."""

    players: Counter[str] = field(default_factory=Counter)
    at_owner: int | None = None
    """Those who were with the node that ran their session last; None if nobody could say which that was."""

    def take(self, ledger: CompactLedger, owners: Mapping[int, str]) -> None:
        """Args: owners: the same of nodes, by the number of the session; empty if unknown."""
        if ledger.place is not None:
            self.players[ledger.place] += 1
            if owners:
                self.at_owner = (self.at_owner or 0) + (ledger.place == owners.get(ledger.session))


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run has found. Moments are seconds on its timeline."""

    timeline: Timeline
    verdict: Verdict
    sessions: int
    probes: int
    commits: Mapping[float, float]
    """Commits of all nodes by the upper bound of their latency in seconds."""
    play_began_s: float
    """When the first session may have started."""
    all_play_s: float
    """When the last one had."""
    play_ends_s: float
    """When the first one is over at the earliest."""
    cut_at_s: Sequence[float]
    spreads: Spreads = field(default_factory=Spreads)
    places: Places | None = None
    """None for lone nodes."""
    faults: Sequence[Mapping[str, Any]] = ()
    """As `loadtest.runs.faults.costs` has them."""


class LoadRun:
    """One run. `phase` and `timeline` may be watched meanwhile."""

    def __init__(self, plan: Plan) -> None:
        self.phase = "starting"
        self.timeline = Timeline(time.monotonic())
        self._plan = plan
        self._scenario = plan.scenario
        self._pulsed = trio.Event()
        self._metrics: list[NodeMetrics] = []
        self._cut_at_s: list[float] = []
        self._play_began_s = self._all_play_s = 0.0
        self._ws_urls: Sequence[str] = ()
        """Of the nodes of a cluster."""
        self._faults: Faults | None = None
        self._spreads = Spreads()
        self._places = Places()

    async def run(self) -> Outcome:
        """Raises RunFailed, NotFinal, GeneratorDied, ApiRefused, ApiUnreachable."""
        plan, scenario = self._plan, self._scenario
        quiz = load_quiz(scenario.questions, scenario.question_s)
        async with AsyncExitStack() as stack:
            apis = [
                await stack.enter_async_context(Api(url, author_key=plan.author_key, timeout_s=60.0))
                for url in plan.nodes
            ]
            if plan.anywhere:
                self._ws_urls = [str((await api.alive())["ws_url"]) for api in apis]
            sessions = LoadSessions(apis, scenario, random.Random(plan.seed), anywhere=plan.anywhere)
            self.phase = "opening sessions"
            await sessions.open(quiz)
            probes = Probes(scenario, sessions.opened, apis, quiz, plan.seed, self._ws_urls)
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=30.0, trust_env=False))
            self._metrics = [NodeMetrics(url, http) for url in plan.nodes]
            crowds = await stack.enter_async_context(generators(plan.generators, self._on_pulse))
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfare-load-")))
            if plan.breakable is not None:
                rng = random.Random(f"{plan.seed}/faults")
                self._faults = Faults(plan.breakable, self._ws_urls, crowds, rng)
            async with trio.open_nursery() as beside:
                beside.start_soon(self._sample, crowds)
                await self._play(sessions, probes, crowds, quiz)
                beside.cancel_scope.cancel()
            verdict = await self._prove(sessions, probes, crowds, directory)
        return Outcome(
            self.timeline,
            verdict,
            len(sessions.opened),
            len(probes),
            sum((Counter(node.commits) for node in self._metrics), Counter[float]()),
            self._play_began_s,
            self._all_play_s,
            self._play_began_s + scenario.rounds_s,
            self._cut_at_s,
            self._spreads,
            self._places if plan.anywhere else None,
            costs(self._faults.struck, [crowd.faults for crowd in crowds], self.timeline)
            if self._faults is not None
            else (),
        )

    # -- the play --------------------------------------------------------------------------------

    async def _play(
        self, sessions: LoadSessions, probes: Probes, crowds: Sequence[Generator], quiz: LoadQuiz
    ) -> None:
        scenario = self._scenario
        self.phase = "joining"
        coming_s = self._now_s() + AHEAD_S
        for crowd, plan in zip(crowds, self._crowd_plans(sessions.opened, quiz), strict=True):
            await crowd.begin(plan)
        async with trio.open_nursery() as playing:
            await playing.start(probes.play)
            joining_s = scenario.players / scenario.join_per_s + AHEAD_S
            await self._until(self._all_came, joining_s + 2 * scenario.patience_s)
            self.phase = "playing"
            self._play_began_s = self._now_s()
            for moment_s in scenario.cut_all_at_s:
                playing.start_soon(self._cut_all, crowds, moment_s)
            if self._faults is not None:
                playing.start_soon(self._faults.run, self._plan.moments)
            if scenario.own_pace:
                self._play_began_s = coming_s
            else:
                await sessions.start()
            self._all_play_s = self._now_s()
            longest_s = scenario.rounds_s * scenario.attempts * (SLOWEST if scenario.own_pace else 1)
            within_s = longest_s + scenario.patience_s + END_SPARE_S
            await self._until(lambda: self.timeline.all_over, within_s)
            if scenario.own_pace:
                await sessions.finish()
            playing.cancel_scope.deadline = trio.current_time() + scenario.patience_s

    def _crowd_plans(self, opened: Sequence[Session], quiz: LoadQuiz) -> list[CrowdPlan]:
        scenario, count = self._scenario, self._plan.generators
        seats, first = [], 1
        for session in opened:
            ws_urls = self._ws_urls or (session.ws_url,)
            seats.append(Seats(session.number, session.code, ws_urls, first, session.players))
            first += session.players
        habits = habits_of(scenario)
        try:
            loopback = all(Target.of(url).loopback for url in {url for each in seats for url in each.ws_urls})
        except (ValueError, OSError) as exc:
            raise RunFailed(str(exc)) from exc
        plans = []
        for number, share in enumerate(shared_out(seats, count)):
            players = sum(each.count for each in share)
            plans.append(
                CrowdPlan(
                    self._plan.seed,
                    habits,
                    time.monotonic() + AHEAD_S,
                    max(scenario.join_per_s * players / scenario.players, 0.001),
                    sources_of(number, players) if loopback else (),
                    quiz.answers,
                    share,
                    self._plan.signing,
                )
            )
        return plans

    def _all_came(self) -> bool:
        """Whether everyone has joined or given it up."""
        totals = self.timeline.totals
        return totals["joined"] + totals["never_in"] >= self._scenario.players

    async def _cut_all(self, crowds: Sequence[Generator], after_s: float) -> None:
        await trio.sleep(after_s)
        self._cut_at_s.append(self._now_s())
        for crowd in crowds:
            await crowd.cut_all()

    def _now_s(self) -> float:
        """On the timeline."""
        return time.monotonic() - self.timeline.zero_s

    def _on_pulse(self, generator: int, pulse: Pulse) -> None:
        self.timeline.take(generator, pulse)
        self._pulsed.set()
        self._pulsed = trio.Event()

    async def _until(self, reached: Callable[[], bool], within_s: float) -> None:
        """Wait for the generators to report it; raises RunFailed when they do not in time."""
        with trio.move_on_after(within_s):
            while not reached():
                await self._pulsed.wait()
            return
        totals = self.timeline.totals
        raise RunFailed(
            f"after {within_s:.0f} s of {self.phase}, {totals['joined']} of {self._scenario.players} players "
            f"have joined and {totals['gone']} have left; connections ended: {self.timeline.tally('ends')}"
        )

    # -- beside it -------------------------------------------------------------------------------

    async def _sample(self, crowds: Sequence[Generator]) -> None:
        groups = {**self._plan.processes, "generators": [crowd.pid for crowd in crowds]}
        known = 0

        def restarted() -> Sequence[int]:
            nonlocal known
            fresh = self._faults.restarted[known:] if self._faults is not None else []
            known += len(fresh)
            return fresh

        await sample(self._metrics, Processes(groups), self.timeline, restarted)

    # -- the proof -------------------------------------------------------------------------------

    async def _prove(
        self, sessions: LoadSessions, probes: Probes, crowds: Sequence[Generator], directory: Path
    ) -> Verdict:
        self.phase = "comparing the ledgers"
        async with trio.open_nursery() as writing:
            for number, crowd in enumerate(crowds):
                writing.start_soon(crowd.write, directory / f"{number}")
        stored = await self._stored(sessions)
        owners = await self._owners(sessions)
        proof = Proof(stored)

        def take(ledger: CompactLedger) -> None:
            proof.take(ledger)
            self._places.take(ledger, owners)

        for number in range(len(crowds)):
            await read_ledgers(directory / f"{number}", take)
            self._spreads.read((directory / f"{number}").with_suffix(SPREADS))
        for ledger in probes.ledgers():
            proof.take(ledger)
        verdict = proof.verdict()
        if self._scenario.own_pace and self._plan.ask_scores is not None:
            self.phase = "comparing scores and leaderboards"
            ids = [session.id for session in sessions.opened]
            await prove_scores(verdict, self._plan.ask_scores, ids, sessions.apis, sessions.quiz_id)
        return verdict

    async def _owners(self, sessions: LoadSessions) -> dict[int, str]:
        """Of a cluster: by the number of the session, which node ran it last."""
        if not self._plan.anywhere or self._plan.ask_owners is None:
            return {}
        told = await self._plan.ask_owners([session.id for session in sessions.opened])
        return {
            session.number: Target.of(told[session.id]).place
            for session in sessions.opened
            if session.id in told
        }

    async def _stored(self, sessions: LoadSessions) -> dict[int, StoredSession]:
        found: dict[int, StoredSession] = {}

        async def read(session: Session) -> None:
            found[session.number] = StoredSession(await sessions.results(session), None)

        async with trio.open_nursery() as reading:
            for session in sessions.opened:
                reading.start_soon(read, session)
        if self._plan.ask_answers is not None:
            answers = await self._plan.ask_answers([session.id for session in sessions.opened])
            for session in sessions.opened:
                found[session.number].answers = answers.get(session.id, [])
        return found


def habits_of(scenario: Scenario) -> Habits:
    """What concerns one player."""
    return Habits(
        scenario.answer_spread == EVEN,
        scenario.think_s,
        scenario.skill,
        scenario.silent_share,
        scenario.duplicate_share,
        scenario.drop_share,
        scenario.stall_share,
        scenario.stall_s,
        scenario.patience_s,
        scenario.board == LIVE,
        scenario.own_pace,
        scenario.pause_s,
        scenario.away_share,
        scenario.away_s,
        scenario.again_share,
    )
