"""`fanfare load`: many real connections, and books that must agree."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.terminal import output, run

if TYPE_CHECKING:
    from loadtest.run import Outcome, Plan
    from loadtest.scenario import Scenario


@click.command()
@click.argument("scenario_name", metavar="SCENARIO")
@click.option("--players", type=int, help="How many.  [default: as the scenario has it]")
@click.option(
    "--duration", "duration_s", type=float, help="Seconds of play.  [default: as the scenario has it]"
)
@click.option(
    "--spawn",
    type=click.IntRange(1, 64),
    help="Start that many nodes over one database.  [default: as many as the players need]",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="Aim at a node that runs, by the address of its HTTP API; again for more.",
)
@click.option(
    "--database-url",
    metavar="DSN",
    help="With --url: where the nodes keep the answers, to compare them one by one.",
)
@click.option(
    "--node-option",
    "node_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the nodes that are started, as in tick_ms=1000; again for more.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another crowd.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here."
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report here as a page with plots.",
)
def load(
    scenario_name: str,
    players: int | None,
    duration_s: float | None,
    spawn: int | None,
    urls: tuple[str, ...],
    database_url: str | None,
    node_options: tuple[str, ...],
    seed: int,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Let thousands of players play, and prove that nothing was lost.

    SCENARIO is one that comes with the program (`fanfare load list` names them) or a TOML file. Nodes are
    started for it unless some are named. The exit code is 0 only if every acknowledged answer is stored
    exactly once and every player's score, rank and last leaderboard are the stored ones.
    """
    from loadtest import scenario as scenarios

    if scenario_name == "list":
        for name in scenarios.names():
            click.echo(f"{name:18} {scenarios.load(name).description}")
        return
    if urls and spawn:
        raise click.UsageError("--spawn starts nodes, --url names some that run: give one of them.")
    if database_url and not urls:
        raise click.UsageError("--database-url goes with --url.")
    if node_options and urls:
        raise click.UsageError("--node-option is for nodes that are started, not for those of --url.")
    settings = [serve_option(each) for each in node_options]
    try:
        scenario = scenarios.load(scenario_name).changed(players, duration_s)
    except scenarios.ScenarioError as exc:
        raise click.ClickException(f"{exc}.") from exc

    async def main() -> int:
        async with _planned(scenario, spawn, urls, database_url, seed, settings) as plan:
            outcome = await _run(plan)
        return _tell(scenario_name, plan, outcome, json_file, html_file)

    run(main)


def serve_option(text: str) -> str:
    """`tick_ms=1000` as `fanfare serve` takes it. Raises UsageError."""
    from server.config import settings

    name, equals, value = text.partition("=")
    known = {setting.key: setting for setting in settings()}
    if not equals or name not in known:
        raise click.UsageError(f"--node-option {text}: NAME=VALUE, with NAME one of {', '.join(known)}.")
    if known[name].flag:
        return f"--{'' if value == 'true' else 'no-'}{known[name].option[2:]}"
    return f"{known[name].option}={value}"


@asynccontextmanager
async def _planned(
    scenario: Scenario,
    spawn: int | None,
    urls: Sequence[str],
    database: str | None,
    seed: int,
    settings: Sequence[str],
) -> AsyncGenerator[Plan]:
    """What is to be done, with the nodes to do it to."""
    import math

    from loadtest.fleet import generators_for
    from loadtest.run import Plan
    from server.cli.load_nodes import PLAYERS_PER_NODE, room_for, spawned
    from server.cli.sql import answers_of

    generators = generators_for(scenario.players)
    if urls:
        yield Plan(
            scenario,
            list(urls),
            generators,
            seed=seed,
            author_key=os.environ.get("FANFARE_AUTHOR_KEY") or None,
            ask_answers=partial(answers_of, database) if database else None,
        )
        return
    players = scenario.players + scenario.canaries
    count = spawn or math.ceil(players / PLAYERS_PER_NODE)
    options = [*room_for(players, count), *settings]
    with tempfile.TemporaryDirectory(prefix="fanfare-load-", ignore_cleanup_errors=True) as directory:
        output().print(f"Starting {count} node{'s' if count > 1 else ''} in {directory}", soft_wrap=True)
        async with spawned(count, Path(directory), options) as nodes:
            yield Plan(
                scenario,
                [node.url for node in nodes.running],
                generators,
                seed=seed,
                processes={
                    "nodes": [node.pid for node in nodes.running],
                    "postgres": [nodes.database_pid],
                },
                ask_answers=partial(answers_of, nodes.database),
            )


async def _run(plan: Plan) -> Outcome:
    import trio

    from loadtest.fleet import GeneratorDied
    from loadtest.load_sessions import NotFinal
    from loadtest.run import LoadRun, RunFailed
    from server.cli.load_screen import show
    from server.cli.terminal import sole

    load_run = LoadRun(plan)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show, load_run, plan.scenario.players, output())
            outcome = await load_run.run()
            nursery.cancel_scope.cancel()
    except Exception as exc:
        failure = sole(exc)
        if isinstance(failure, RunFailed | NotFinal | GeneratorDied):
            raise click.ClickException(f"{failure}.") from exc
        raise
    return outcome


def _tell(name: str, plan: Plan, outcome: Outcome, json_file: Path | None, html_file: Path | None) -> int:
    """Write and print the report. Returns the exit code."""
    from loadtest.page import page
    from loadtest.report import report
    from server.cli.load_screen import summarize

    found = report(name, plan.scenario, outcome, nodes=len(plan.nodes), generators=plan.generators)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if html_file is not None:
        html_file.write_text(page(found), encoding="utf-8")
    summarize(found, output())
    return 0 if found["proven"] else 1
