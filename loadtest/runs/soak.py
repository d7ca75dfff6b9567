"""A load run whose sessions come and go, and what the nodes keep of them: nothing."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import trio

from loadtest.chaos.proof import prove_all
from loadtest.chaos.waves import Load, Waves
from loadtest.client.api import Api
from loadtest.runs.proof import Verdict
from loadtest.runs.run import Outcome, Plan, RunFailed, habits_of
from loadtest.runs.sampling import NodeMetrics, Processes, sample
from loadtest.runs.timeline import Timeline


class SoakRun:
    """One run of a scenario with waves, as `LoadRun` is one of any other. The database has to be asked."""

    def __init__(self, plan: Plan) -> None:
        self.phase = "starting"
        self.timeline = Timeline(time.monotonic())
        self._plan = plan
        self._metrics: list[NodeMetrics] = []

    async def run(self) -> Outcome:
        """Raises RunFailed, GeneratorDied, ApiRefused, ApiUnreachable."""
        plan, scenario = self._plan, self._plan.scenario
        if plan.ask_answers is None or plan.ask_merged is None:
            raise RunFailed("where sessions come and go, the ledgers are compared with the database: name it")
        load = Load(
            players=scenario.players,
            slots=scenario.waves,
            session_players=scenario.session_players,
            questions=scenario.questions,
            question_s=scenario.question_s,
            reveal_s=scenario.reveal_s,
            habits=habits_of(scenario),
            pulse_s=1.0,
        )
        async with AsyncExitStack() as stack:
            apis = [
                await stack.enter_async_context(Api(url, author_key=plan.author_key, timeout_s=60.0))
                for url in plan.nodes
            ]
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=30.0, trust_env=False))
            self._metrics = [NodeMetrics(url, http) for url in plan.nodes]
            ws_urls = [str((await api.alive())["ws_url"]) for api in apis]
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfare-soak-")))
            waves = Waves(apis, ws_urls, load, plan.seed, self.timeline, directory)
            await waves.add_quiz()
            self.phase = "playing"
            began_s = self._now_s()
            async with trio.open_nursery() as beside:
                beside.start_soon(sample, self._metrics, Processes(plan.processes), self.timeline)
                await waves.run(lambda: self._now_s() < began_s + scenario.duration_s)
                beside.cancel_scope.cancel()
            self.phase = "comparing the ledgers"
            verdict = await prove_all(apis, plan.ask_answers, plan.ask_merged, directory)
        for sentence in waves.stuck:
            verdict.add("players without an end", sentence)
        return self._outcome(verdict, len(waves.sessions), began_s, load.wave_s)

    def _outcome(self, verdict: Verdict, sessions: int, began_s: float, wave_s: float) -> Outcome:
        commits = sum((Counter(node.commits) for node in self._metrics), Counter[float]())
        ends_s = began_s + self._plan.scenario.duration_s
        return Outcome(self.timeline, verdict, sessions, 0, commits, began_s, began_s + wave_s, ends_s, ())

    def _now_s(self) -> float:
        """On the timeline."""
        return time.monotonic() - self.timeline.zero_s
