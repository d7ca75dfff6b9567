"""`fanfare load`: many real connections, and ledgers that must agree."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.terminal import author_key_for, output, run

if TYPE_CHECKING:
    from loadtest.runs.faults import Moments
    from loadtest.runs.run import Outcome, Plan
    from loadtest.runs.scenario import Scenario
    from loadtest.swarm.crowd import Signing


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
@click.option("--cluster", is_flag=True, help="The nodes that are started are one service, over a Redis.")
@click.option(
    "--kill",
    "kill_s",
    type=click.FloatRange(min=0),
    multiple=True,
    metavar="AT_S",
    help="With --cluster: kill one of the nodes at that second of play; again for more.",
)
@click.option(
    "--roll",
    "roll_s",
    type=click.FloatRange(min=0),
    multiple=True,
    metavar="AT_S",
    help="With --cluster: from that second of play on, restart all nodes, one after the other.",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="Aim at a node that runs, by the address of its HTTP API; again for more.",
)
@click.option(
    "--anywhere",
    is_flag=True,
    help="With --url: the nodes are one cluster, and players begin at any of them.",
)
@click.option(
    "--database-url",
    metavar="DSN",
    help="With --url: where the nodes keep the answers, to compare them one by one.",
)
@click.option(
    "--identity-secret",
    metavar="SECRET",
    help="With --url, for users with identities: the `identity_secret` of the nodes.",
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
    cluster: bool,
    kill_s: tuple[float, ...],
    roll_s: tuple[float, ...],
    urls: tuple[str, ...],
    anywhere: bool,
    database_url: str | None,
    identity_secret: str | None,
    node_options: tuple[str, ...],
    seed: int,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Let thousands of players play, and prove that nothing was lost.

    SCENARIO is one that comes with the program (`fanfare load list` names them) or a TOML file. Nodes are
    started for it unless some are named. The exit code is 0 only if every acknowledged answer is stored
    exactly once, every player's score, rank and last leaderboard are the stored ones, and the nodes' memory
    has not grown where the scenario forbids it.
    """
    from loadtest.runs import scenario as scenarios
    from loadtest.runs.faults import Moments

    if scenario_name == "list":
        for name in scenarios.names():
            click.echo(f"{name:18} {scenarios.load(name).description}")
        return
    if urls and spawn:
        raise click.UsageError("--spawn starts nodes, --url names some that run: give one of them.")
    if cluster and urls:
        raise click.UsageError("--cluster is for nodes that are started; those of --url get --anywhere.")
    if anywhere and not urls:
        raise click.UsageError("--anywhere goes with --url; nodes that are started get --cluster.")
    if (kill_s or roll_s) and not cluster:
        raise click.UsageError("--kill and --roll go with --cluster: nobody takes over from a lone node.")
    if database_url and not urls:
        raise click.UsageError("--database-url goes with --url.")
    if node_options and urls:
        raise click.UsageError("--node-option is for nodes that are started, not for those of --url.")
    settings = [serve_option(each) for each in node_options]
    try:
        scenario = scenarios.load(scenario_name).changed(players, duration_s)
    except scenarios.ScenarioError as exc:
        raise click.ClickException(f"{exc}.") from exc

    if scenario.waves and (kill_s or roll_s):
        raise click.UsageError(
            "--kill and --roll go with scenarios whose sessions play from beginning to end."
        )
    if any(at_s >= scenario.rounds_s for at_s in (*kill_s, *roll_s)):
        raise click.UsageError(
            f"the play is over after {scenario.rounds_s:g} s: --kill and --roll come before."
        )
    moments = Moments(kill_s, roll_s)
    if bool(identity_secret) != (bool(urls) and scenario.own_pace):
        raise click.UsageError(
            "--identity-secret goes with --url and a scenario of users who play at their own pace."
        )
    count = spawn or _nodes_for(scenario, cluster, moments)
    if len(kill_s) >= count:
        raise click.UsageError(f"--kill may be given {count - 1} times at most: one of {count} must be left.")

    async def main() -> int:
        if urls:
            planned = _aimed(scenario, urls, database_url, seed, anywhere, identity_secret)
        else:
            planned = _spawned(scenario, count, seed, settings, cluster, moments)
        async with planned as plan:
            outcome = await _run(plan)
        return _tell(scenario_name, plan, outcome, json_file, html_file)

    run(main)


def _signing(identity_secret: str | None) -> Signing | None:
    """Users whom no earlier run had."""
    from loadtest.swarm.crowd import Signing

    if identity_secret is None:
        return None
    return Signing(identity_secret, f"load-{secrets.token_hex(4)}-")


def serve_option(text: str) -> str:
    """`tick_ms=1000` as `fanfare serve` takes it. Raises UsageError."""
    from server.config.config import settings

    name, equals, value = text.partition("=")
    known = {setting.key: setting for setting in settings()}
    if not equals or name not in known:
        raise click.UsageError(f"--node-option {text}: NAME=VALUE, with NAME one of {', '.join(known)}.")
    if known[name].flag:
        return f"--{'' if value == 'true' else 'no-'}{known[name].option[2:]}"
    return f"{known[name].option}={value}"


def _nodes_for(scenario: Scenario, cluster: bool, moments: Moments) -> int:
    """How many nodes to start: in a cluster, enough that the remaining nodes can take all players."""
    import math

    from server.cli.load.nodes import UNEVEN, players_per_node

    players = scenario.players + scenario.probes
    if not cluster:
        return math.ceil(players / players_per_node())
    return max(math.ceil(players * UNEVEN / players_per_node()), 2) + _away(moments)


def _away(moments: Moments) -> int:
    """How many nodes are away at a time, at most."""
    return len(moments.kill_s) + (1 if moments.roll_s else 0)


@asynccontextmanager
async def _aimed(
    scenario: Scenario,
    urls: Sequence[str],
    database: str | None,
    seed: int,
    anywhere: bool,
    identity_secret: str | None,
) -> AsyncGenerator[Plan]:
    """The faults for nodes that run."""
    from loadtest.runs.fleet import generators_for
    from loadtest.runs.run import Plan
    from server.cli.operate.sql import answers_of, merged_in, owners_of, scores_of

    yield Plan(
        scenario,
        list(urls),
        generators_for(scenario.players),
        seed=seed,
        author_key=author_key_for(urls[0]),
        ask_answers=partial(answers_of, database) if database else None,
        ask_owners=partial(owners_of, database) if database else None,
        ask_merged=partial(merged_in, database) if database else None,
        ask_scores=partial(scores_of, database) if database else None,
        signing=_signing(identity_secret),
        anywhere=anywhere,
    )


@asynccontextmanager
async def _spawned(
    scenario: Scenario,
    count: int,
    seed: int,
    settings: Sequence[str],
    cluster: bool,
    moments: Moments,
) -> AsyncGenerator[Plan]:
    """The faults, with their nodes."""
    from loadtest.runs.fleet import generators_for
    from loadtest.runs.run import Plan
    from server.cli.load.nodes import UNEVEN, check_room, spawned
    from server.cli.operate.sql import answers_of, merged_in, owners_of, scores_of

    identity_secret = secrets.token_hex(32) if scenario.own_pace else None
    if identity_secret is not None:
        settings = [*settings, "--identity=optional", f"--identity-secret={identity_secret}"]
    players = scenario.players + scenario.probes
    if cluster:
        check_room(int(players * UNEVEN), max(count - _away(moments), 1))
    else:
        check_room(players, count)
    with tempfile.TemporaryDirectory(prefix="fanfare-load-", ignore_cleanup_errors=True) as directory:
        what = f"node{'s' if count > 1 else ''}{' of one cluster' if cluster else ''}"
        output().print(f"Starting {count} {what} in {directory}", soft_wrap=True)
        async with spawned(count, Path(directory), settings, cluster=cluster) as nodes:
            yield Plan(
                scenario,
                [node.url for node in nodes.processes],
                generators_for(scenario.players),
                seed=seed,
                author_key=nodes.author_key,
                processes={
                    "nodes": [node.pid for node in nodes.processes],
                    "postgres": [nodes.database_pid],
                },
                ask_answers=partial(answers_of, nodes.database),
                ask_owners=partial(owners_of, nodes.database),
                ask_merged=partial(merged_in, nodes.database),
                ask_scores=partial(scores_of, nodes.database),
                signing=_signing(identity_secret),
                anywhere=cluster,
                moments=moments,
                breakable=nodes if moments else None,
            )


async def _run(plan: Plan) -> Outcome:
    import trio

    from loadtest.runs.fleet import GeneratorDied
    from loadtest.runs.load_sessions import NotFinal
    from loadtest.runs.run import LoadRun, RunFailed
    from loadtest.runs.soak import SoakRun
    from server.cli.load.screen import show
    from server.cli.terminal import sole

    load_run = SoakRun(plan) if plan.scenario.waves else LoadRun(plan)
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
    from loadtest.runs.page import page
    from loadtest.runs.report import report
    from server.cli.load.screen import summarize

    found = report(name, plan.scenario, outcome, nodes=len(plan.nodes), generators=plan.generators)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if html_file is not None:
        html_file.write_text(page(found), encoding="utf-8")
    summarize(found, output())
    return 0 if found["proven"] and (found["flat"] is None or found["flat"]["holds"]) else 1
