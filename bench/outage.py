"""What players notice when PostgreSQL, or the node itself, goes away under load and comes back.

    python -m bench.outage postgres --players 6000
    python -m bench.outage node

`postgres`: the server is killed while answers come in at a steady rate, a third of the players a second, and
is started again a minute later. `node`: the node is killed in the middle of a question of a thousand
sessions, and started again at once. Both end with the proof of a load run: every acknowledged answer is
stored once.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import httpx
import trio

from bench.figures import machine
from loadtest.runs import scenario as scenarios
from loadtest.runs.fleet import generators_for
from loadtest.runs.histogram import Histogram
from loadtest.runs.run import LoadRun, Outcome, Plan
from loadtest.runs.scenario import Scenario
from loadtest.runs.timeline import Second
from server.cli.chaos.stage import Stage, staged
from server.cli.operate.sql import answers_of

WARM_S = 25.0
"""Of play before the outage."""

LOOK_EVERY_S = 0.1


class Outage:
    """Takes something away in the middle of a run. Moments are seconds of the run's timeline."""

    def __init__(self, stage: Stage, run: LoadRun, away_s: float) -> None:
        self._stage = stage
        self._run = run
        self._away_s = away_s
        self.from_s = self.back_s = self.first_ack_s = 0.0
        self.drained_s: float | None = None

    def _now_s(self) -> float:
        return time.monotonic() - self._run.timeline.zero_s

    async def of_postgres(self) -> None:
        await self._warm_up()
        self.from_s = self._now_s()
        await self._stage.kill_postgres()
        await trio.sleep(self._away_s)
        await self._stage.start_postgres()
        self.back_s = self._now_s()
        async with httpx.AsyncClient(trust_env=False) as http:
            while await _spooled(http, self._stage.url):  # noqa: ASYNC110 - of another process
                await trio.sleep(LOOK_EVERY_S)
        self.drained_s = self._now_s() - self.back_s

    async def of_node(self) -> None:
        await self._warm_up()
        self.from_s = self._now_s()
        await self._stage.kill_node()
        acks = self._run.timeline.totals["acks"]
        await self._stage.start_node()
        self.back_s = self._now_s()
        while self._run.timeline.totals["acks"] == acks:  # noqa: ASYNC110 - as exact as the pulses are
            await trio.sleep(LOOK_EVERY_S / 10)
        self.first_ack_s = self._now_s()

    async def _warm_up(self) -> None:
        while self._run.phase != "playing":  # noqa: ASYNC110 - a minute's wait
            await trio.sleep(LOOK_EVERY_S)
        await trio.sleep(WARM_S)


async def _spooled(http: httpx.AsyncClient, url: str) -> bool:
    """Whether the node still has facts in its spool."""
    text = (await http.get(f"{url}/metrics")).text
    (line,) = [each for each in text.splitlines() if each.startswith("fanfare_spool_facts ")]
    return float(line.split()[1]) > 0


async def measure(what: str, scenario: Scenario, away_s: float) -> bool:
    """Returns whether the proof holds."""
    options = ["--connections-max", str(scenario.players + 500), "--log-level", "error"]
    with tempfile.TemporaryDirectory(prefix="fanfare-outage-", ignore_cleanup_errors=True) as name:
        async with staged(Path(name), options) as stage:
            plan = Plan(
                scenario,
                [stage.url],
                generators_for(scenario.players),
                ask_answers=partial(answers_of, stage.database),
            )
            run = LoadRun(plan)
            outage = Outage(stage, run, away_s)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outage.of_postgres if what == "postgres" else outage.of_node)
                outcome = await run.run()
                nursery.cancel_scope.cancel()
    tell(what, scenario, outage, outcome)
    return outcome.verdict.holds


def tell(what: str, scenario: Scenario, outage: Outage, outcome: Outcome) -> None:
    timeline, verdict = outcome.timeline, outcome.verdict
    print(f"{machine()}\n{scenario.players:,} players in {outcome.sessions:,} sessions, one node")
    before = timeline.between(outage.from_s - WARM_S + 5, outage.from_s)
    print(f"before: {_acks(before)}")
    if what == "postgres":
        print(
            f"PostgreSQL away for {outage.back_s - outage.from_s:.0f} s: "
            f"{_acks(timeline.between(outage.from_s, outage.back_s))}"
        )
        if outage.drained_s is not None:
            print(f"spool drained {outage.drained_s:.1f} s after PostgreSQL was back")
    else:
        print(
            f"node killed: ready again after {outage.back_s - outage.from_s:.1f} s, "
            f"first answer acknowledged after {outage.first_ack_s - outage.from_s:.1f} s"
        )
        open_before = max(second.open for second in before)
        for share in (0.5, 0.99):
            back = next(
                (
                    n
                    for n in sorted(timeline.seconds)
                    if n > outage.back_s and timeline.seconds[n].open >= share * open_before
                ),
                None,
            )
            if back is not None:
                print(f"{share:.0%} of the players are in again after {back - outage.from_s:.0f} s")
    after = timeline.between(outage.back_s + 10, outcome.play_ends_s)
    if after:
        print(f"after: {_acks(after)}")
    print(f"refused: {json.dumps(timeline.tally('refused'))}")
    found = "proven" if verdict.holds else str(verdict.broken)
    print(f"acknowledged {verdict.acks:,}, rows {verdict.rows:,}: {found}")


def _acks(seconds: Sequence[Second]) -> str:
    merged = Histogram()
    for second in seconds:
        merged.merge(second.durations["ack"])
    found = merged.percentiles_ms((50.0, 99.0, 99.9))
    rate = sum(second.counts["acks"] for second in seconds) / max(len(seconds), 1)
    shown = ", ".join(f"{name} {value:,.0f} ms" for name, value in found.items() if value is not None)
    return f"{rate:,.0f} acks/s, {shown}"


@click.command()
@click.argument("what", type=click.Choice(["postgres", "node"]))
@click.option("--players", type=int, help="[default: 6,000, or 18,000 for node]")
@click.option(
    "--away", "away_s", type=float, default=60.0, show_default=True, help="Seconds without PostgreSQL."
)
def main(what: str, players: int | None, away_s: float) -> None:
    """Measure an outage of PostgreSQL, or of the node."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if what == "postgres":
        scenario = scenarios.load("answers").changed(players or 6_000, WARM_S + away_s + 40)
    else:
        steady = replace(
            scenarios.load("steady"), session_players=(18, 18), start_spread_s=20.0, drop_share=0.0
        )
        scenario = steady.changed(players or 18_000, 92.0)
    raise SystemExit(0 if trio.run(measure, what, scenario, away_s) else 1)


if __name__ == "__main__":
    main()
