"""`fanfare chaos`: faults chosen by a seed, under load, and the proof that nothing was lost."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.cli.terminal import leaves, output, run

if TYPE_CHECKING:
    from loadtest.chaos.plan import Kind
    from loadtest.chaos.run import Aim, ChaosRun, Survived

SPARE_MIN = 4.0
"""Beyond the minutes of the plan: for the waves to end, and for a machine that is slow."""

SPARE_FACTOR = 2.0
REPORT_FILE = "report.json"


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another plan.")
@click.option(
    "--faults", type=click.IntRange(0, 100_000), default=60, show_default=True, help="How many faults."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, 1_440),
    default=5.0,
    show_default=True,
    help="Over about how long the faults are spread.",
)
@click.option(
    "--answers",
    type=click.IntRange(0, 100_000_000),
    default=0,
    show_default=True,
    help="Go on until at least so many are acknowledged.",
)
@click.option(
    "--players",
    type=click.IntRange(1, 14_000),
    default=4_000,
    show_default=True,
    help="How many play at one time.",
)
@click.option(
    "--questions",
    type=click.IntRange(1, 200),
    default=20,
    show_default=True,
    help="Of one session, a second each.",
)
@click.option(
    "--own-pace",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    help="Share of the sessions in which all go at their own pace. They are users of an app.",
)
@click.option(
    "--users",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the other sessions that are played by users of an app.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 8),
    default=1,
    show_default=True,
    help="Several are a cluster, with faults of its own.",
)
@click.option(
    "--only",
    "names",
    multiple=True,
    metavar="KIND",
    help="Only faults of this kind; again for more.  [default: every kind]",
)
@click.option(
    "--without",
    "left_out",
    multiple=True,
    metavar="KIND",
    help="No faults of this kind; again for more.",
)
@click.option(
    "--node-option",
    "node_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the node, as in tick_ms=1000; again for more.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Print the plan of this seed, and do nothing.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep logs, ledgers and data in this new directory, whatever comes of it.",
)
@click.option(
    "--prove",
    "kept",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Do no more than prove again what a run has kept in this directory.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here."
)
def chaos(
    seed: int,
    faults: int,
    minutes: float,
    answers: int,
    players: int,
    questions: int,
    own_pace: float,
    users: float,
    nodes: int,
    names: tuple[str, ...],
    left_out: tuple[str, ...],
    node_options: tuple[str, ...],
    plan_only: bool,
    keep: Path | None,
    kept: Path | None,
    json_file: Path | None,
) -> None:
    """Break a node and its PostgreSQL again and again under load, and prove that nothing was lost.

    Both are started for it; with --nodes a cluster, and what its nodes need is taken from them
    one by one. Which faults come in which order, how long each lasts, and how long after the one before it,
    follows from --seed, --faults, --minutes, --nodes, --only and --without alone. The exit code is 0 only
    if every acknowledged answer is stored exactly once with the figures that the player was told, scores and
    leaderboards, over sessions too, are what the stored answers make, and every player came to an end. A run
    that fails keeps its logs, ledgers and data.
    """
    from loadtest.chaos.plan import CLOCK_KINDS, make_plan
    from loadtest.chaos.run import Aim
    from loadtest.chaos.waves import SESSIONS_FILE, Load
    from server.cli.chaos.node import clock_library
    from server.cli.load.command import serve_option

    options = [serve_option(each) for each in node_options]
    plan = make_plan(seed, faults, minutes, _kinds(names, left_out, nodes), nodes)
    if plan_only:
        for fault in plan:
            click.echo(str(fault))
        return
    if kept is not None:
        if not (kept / SESSIONS_FILE).exists():
            raise click.ClickException(f"{kept} is no directory that a run has kept.")
        run(partial(_prove_again, kept.absolute(), options, nodes))
        return
    if any(fault.kind in CLOCK_KINDS for fault in plan):
        clock_library()  # before anything is made: who has none is told so
    if keep is not None:
        if keep.exists():
            raise click.UsageError(f"--keep {keep}: it exists already.")
        directory = keep.absolute()
        directory.mkdir(parents=True)
    else:
        directory = Path(tempfile.mkdtemp(prefix="fanfare-chaos-"))
    aim = Aim(
        plan,
        Load(players=players, questions=questions, own_share=own_pace, user_share=users),
        seed,
        answers,
        minutes * SPARE_FACTOR + SPARE_MIN,
        nodes,
    )
    repeat = _command_line()
    click.echo(f"{repeat}\n{len(plan)} faults, in {directory}")

    async def main() -> int:
        found = await _found(directory, aim, options)
        text = json.dumps(found, indent=1)
        for file in (directory / REPORT_FILE, json_file):
            if file is not None:
                file.write_text(text, encoding="utf-8")
        return 0 if found["proven"] else 1

    proven = False
    try:
        run(main)
    except SystemExit as end:
        proven = end.code == 0
        raise
    finally:
        if proven and keep is None:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            click.echo(f"Logs, ledgers and data: {directory}", err=not proven)
        if not proven:
            click.echo(f"To repeat it: {repeat}", err=True)
            several = f" --nodes {nodes}" if nodes > 1 else ""
            click.echo(f"To prove it again: fanfare chaos{several} --prove {directory}", err=True)


def _kinds(names: Sequence[str], left_out: Sequence[str], nodes: int) -> Sequence[Kind]:
    """Raises UsageError."""
    from loadtest.chaos.plan import CLUSTER_KINDS, EVERY_KIND

    kinds = EVERY_KIND if nodes == 1 else CLUSTER_KINDS
    known = [kind.value for kind in kinds]
    for option, given in (("--only", names), ("--without", left_out)):
        if not set(given) <= set(known):
            raise click.UsageError(f"{option}: KIND is one of {', '.join(known)}.")
    # In the order of the kinds: the plan does not depend on the order in which they were named.
    chosen = [k for k in kinds if (not names or k.value in names) and k.value not in left_out]
    if not chosen:
        raise click.UsageError("--without: no kind is left.")
    return chosen


async def _found(directory: Path, aim: Aim, options: Sequence[str]) -> dict[str, Any]:
    from loadtest.chaos.report import report
    from server.cli.chaos.screen import summarize, tell_fault

    console = output()
    chaos_run = await break_and_prove(directory, aim, options, on_fault=partial(tell_fault, console))
    found = report(aim, chaos_run.outcome, chaos_run.timeline)
    summarize(found, console)
    return found


def _command_line() -> str:
    """What repeats this run: the plan, and the load, as they were asked for."""
    context = click.get_current_context()
    words = ["fanfare chaos"]
    asked = ("seed", "faults", "minutes", "answers", "players", "questions", "own_pace", "users")
    words += [f"--{name.replace('_', '-')} {context.params[name]}" for name in asked]
    words += [f"--nodes {context.params['nodes']}"] if context.params["nodes"] > 1 else []
    words += [f"--only {name}" for name in context.params["names"]]
    words += [f"--without {name}" for name in context.params["left_out"]]
    words += [f"--node-option {each}" for each in context.params["node_options"]]
    return " ".join(words)


async def break_and_prove(
    directory: Path,
    aim: Aim,
    options: Sequence[str] = (),
    *,
    on_fault: Callable[[Survived, int, int], None],
    program: Sequence[str] | None = None,
) -> ChaosRun:
    """The whole run, in a directory that is there.

    Args:
        on_fault: called with each fault when it is over, how many there are, and the answers acknowledged
            so far.
        program: what takes the place of `fanfare` where the node is started.

    Raises StageFailed when the processes do not even start.
    """
    from loadtest.chaos.inject import StageFailed
    from loadtest.chaos.plan import CLOCK_KINDS
    from loadtest.chaos.run import ChaosRun
    from server.cli.chaos.node import NODE, clock_library
    from server.cli.chaos.stage import staged
    from server.cli.operate.sql import answers_of, merged_in, scores_of

    begun: ChaosRun | None = None
    clocks = clock_library() if any(fault.kind in CLOCK_KINDS for fault in aim.plan) else None
    try:
        async with AsyncExitStack() as stack:
            stage = await stack.enter_async_context(
                staged(directory, options, program or NODE, aim.nodes, clocks)
            )
            apis = [await stack.enter_async_context(stage.api(node)) for node in range(len(stage.urls))]
            begun = ChaosRun(
                aim,
                stage,
                apis,
                lambda ids: answers_of(stage.database, ids),
                lambda: merged_in(stage.database),
                lambda ids, quiz_id: scores_of(stage.database, ids, quiz_id),
                directory,
                on_fault,
            )
            await begun.run()
            agrees, said = await audited(stage.database)
            begun.outcome.audit = said.splitlines()[-1] if said else ""
            if not agrees:
                begun.outcome.trouble.append(f"the audit: {said}")
    except* StageFailed as group:
        if begun is None:
            raise
        begun.outcome.trouble += [str(each) for each in leaves(group)]
    assert begun is not None
    return begun


async def audited(database: str) -> tuple[bool, str]:
    """Audit every session, as an operator would. Returns whether all agree, and the output."""
    import trio

    command = [sys.executable, "-m", "server.cli.main", "audit", "--all", "--database-url", database]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace").strip()


async def _prove_again(directory: Path, options: Sequence[str], nodes: int) -> int:
    from loadtest.chaos.proof import prove_all
    from server.cli.chaos.screen import tell_verdict
    from server.cli.chaos.stage import staged
    from server.cli.operate.sql import answers_of, merged_in, scores_of

    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(staged(directory, options, nodes=nodes))
        verdict = await prove_all(
            [await stack.enter_async_context(stage.api(node)) for node in range(nodes)],
            lambda ids: answers_of(stage.database, ids),
            lambda: merged_in(stage.database),
            directory,
            lambda ids, quiz_id: scores_of(stage.database, ids, quiz_id),
        )
    tell_verdict(verdict, output())
    return 0 if verdict.holds else 1
