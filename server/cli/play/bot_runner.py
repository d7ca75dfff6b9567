"""Lets a crowd of bots play, and compares its ledgers with the results."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest.bots.bot import Crowd
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api, ApiRefused
from loadtest.runs.ledger import Ledger, Mismatch, StoredResult, Tally, compare, read_results, tally
from server.quizfile import load

FILES_BESIDE = 100
"""Open files of this process besides the bots' connections."""

FINAL_WITHIN_S = 15.0
MISMATCHES_SHOWN = 20


def make_room_for(players: int) -> None:
    """Raise the limit of open files as far as it must and may be. Raises ClickException."""
    needed = players + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return
    if hard != unlimited and hard < needed:
        raise click.ClickException(
            f"{players} bots need {needed} open files, and a process may have {hard}: start fewer, twice."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def knowledge_of(api: Api, quiz: str | None) -> Knowledge:
    """The right answers, from a quiz file or, by id, from the server; None: the bots guess.

    Raises QuizFileError, ApiRefused.
    """
    if quiz is None:
        return Knowledge()
    if Path(quiz).suffix in (".yaml", ".yml", ".json"):
        return Knowledge(load(Path(quiz)).data)
    return Knowledge((await api.quiz(quiz))["quiz"])


async def bring_in(crowd: Crowd, console: Console, playing: trio.Nursery) -> None:
    """Start the crowd and show how it comes in. Returns when everyone has, or has given it up."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("Bots joining", total=len(crowd.bots))

        def on_join() -> None:
            progress.update(task, advance=1)

        playing.start_soon(crowd.run, on_join)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_drawing, progress)
            await crowd.all_in.wait()
            nursery.cancel_scope.cancel()
        progress.refresh()


async def _keep_drawing(progress: Progress) -> None:
    while True:
        progress.refresh()
        await trio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Audit:
    """The bots' ledgers and the stored results, side by side."""

    told: Tally
    stored: Sequence[StoredResult]
    mismatches: Sequence[Mismatch]

    @property
    def stored_answers(self) -> int:
        return sum(row.answered for row in self.stored)

    @property
    def stored_score(self) -> int:
        return sum(row.score for row in self.stored)


async def audit(api: Api, code: str, ledgers: Sequence[Ledger], token: str | None = None) -> Audit:
    """Compare with the final results, as soon as they are final. Raises ClickException if they never are.

    Args: token: of a participant, who may see them; None asks as an author.
    """
    with trio.move_on_after(FINAL_WITHIN_S):
        while not await _final(api, code, token):  # noqa: ASYNC110 - the event is in another process
            await trio.sleep(0.2)
        stored = read_results(await api.results_csv(code, token))
        players = {ledger.player for ledger in ledgers}
        ours = [row for row in stored if row.player in players]
        return Audit(tally(ledgers), ours, compare(ledgers, stored))
    raise click.ClickException(f"The results of session {code} have not become final.")


async def _final(api: Api, code: str, token: str | None) -> bool:
    try:
        return bool((await api.results(code, token))["final"])
    except ApiRefused as error:
        if error.code == "not_host":  # not yet over
            return False
        raise


def report(told: Tally, crowd: Crowd, console: Console) -> None:
    """What the bots did and were told."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_row("players", f"{told.players:,}")
    table.add_row("answers acknowledged", f"{told.answered:,}")
    table.add_row("answers refused", f"{told.refused:,}")
    table.add_row("answers without a reply", f"{told.unsettled:,}")
    table.add_row("total score", f"{told.score:,}")
    table.add_row("ack latency p50", _milliseconds(told.ack_p50_ms))
    table.add_row("ack latency p99", _milliseconds(told.ack_p99_ms))
    table.add_row("reconnects", f"{crowd.reconnects:,}")
    for reason, count in sorted(crowd.ends.items()):
        if reason != "finished":
            table.add_row(f"left: {reason}", f"{count:,}")
    console.print(table)


def report_mismatches(mismatches: Sequence[Mismatch]) -> None:
    for mismatch in mismatches[:MISMATCHES_SHOWN]:
        click.echo(f"  {mismatch}", err=True)
    if len(mismatches) > MISMATCHES_SHOWN:
        click.echo(f"  and {len(mismatches) - MISMATCHES_SHOWN} more", err=True)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


async def settle(api: Api, code: str, crowd: Crowd, console: Console) -> int:
    """After the last bot has left: report and compare. Returns the exit code. Raises ClickException."""
    told = tally(crowd.ledgers)
    report(told, crowd, console)
    if not told.players:
        raise click.ClickException(f"No bot came into session {code}.")
    found = await audit(api, code, crowd.ledgers, crowd.token)
    if found.mismatches:
        click.echo(f"The ledgers do not agree with the results of session {code}:", err=True)
        report_mismatches(found.mismatches)
        return 1
    console.print(
        f"The ledgers agree with the results: {found.stored_answers:,} answers, "
        f"{found.stored_score:,} points."
    )
    return 0
