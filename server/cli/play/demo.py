"""`fanfare demo`: a whole session, from an empty directory to ledgers that agree."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli.terminal import output, run

if TYPE_CHECKING:
    from rich.console import Console

    from loadtest.bots.bot import Crowd
    from loadtest.client.api import Api
    from loadtest.client.connection import Message
    from loadtest.client.player import SpectatorClient
    from server.cli.play.terminal_view import TerminalView

REVEAL_MS = 1_500
GET_READY_MS = 1_000
THINK_S = 0.8


@click.command()
@click.option(
    "--players", type=click.IntRange(1, 2_000), default=200, show_default=True, help="How many bots."
)
@click.option("--quiz", default="quick-tour", show_default=True, help="Which of the sample quizzes.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another crowd.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the data here.  [default: a temporary directory]",
)
def demo(players: int, quiz: str, seed: int, data_dir: Path | None) -> None:
    """Start a node, let bots play a whole session, and compare the ledgers.

    What the bots were told, results.csv and the answers table must say the same; the exit code is 0 only
    then. Nothing it started is left running.
    """

    async def main() -> int:
        from loadtest.client.api import Api
        from server.cli.cluster.node_process import CROWDED, node_process
        from server.cli.play.bot_runner import make_room_for

        make_room_for(players)
        console = output()
        with _directory(data_dir) as directory:
            console.print(f"Starting a node in {directory}", soft_wrap=True)
            async with (
                node_process(directory, CROWDED) as node,
                Api(node.url, author_key=node.author_key) as api,
            ):
                known = (await api.quiz(quiz))["quiz"]
                opened = await api.create_session(
                    quiz, {"pace": "auto", "reveal_ms": REVEAL_MS, "get_ready_ms": GET_READY_MS}
                )
                crowd = _crowd(api, opened, known, players, seed)
                await _play(api, crowd, opened, console)
                return await _compare(api, crowd, opened, directory, console)

    run(main)


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """The given directory, which is kept, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="fanfare-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _crowd(api: Api, opened: Message, known: Message, players: int, seed: int) -> Crowd:
    from loadtest.bots.bot import Crowd
    from loadtest.bots.habits import CrowdPlan
    from loadtest.bots.knowledge import Knowledge

    plan = CrowdPlan(players, seed=seed, think_s=THINK_S, silent_share=0.0)
    return Crowd(plan, ws_url=opened["ws_url"], code=opened["code"], api=api, knowledge=Knowledge(known))


async def _play(api: Api, crowd: Crowd, opened: Message, console: Console) -> None:
    """From the first bot that joins to the last that leaves, with the leaderboard in between."""
    import random

    import trio

    from loadtest.client.player import HostClient, SpectatorClient
    from server.cli.play.bot_runner import bring_in
    from server.cli.play.session_view import SessionView
    from server.cli.play.terminal_view import TerminalView

    ws_url, code = opened["ws_url"], opened["code"]
    view = SessionView(code)
    view.see((await api.session(code))["state"], trio.current_time())
    screen = TerminalView(view, console)
    spectator = SpectatorClient(ws_url, code, rng=random.Random(), listener=screen.hear)
    host = HostClient(ws_url, code, rng=random.Random(), token=opened["host_token"])
    async with trio.open_nursery() as watching:
        async with trio.open_nursery() as playing:
            await bring_in(crowd, console, playing)
            watching.start_soon(host.run)
            started = await host.command("start", expect={"number": 0, "phase": "lobby"})
            if started.error is not None:
                raise click.ClickException(f"The session does not start: {started.message['message']}")
            await host.leave()
            playing.start_soon(_watch, spectator, screen)
        watching.cancel_scope.cancel()


async def _watch(spectator: SpectatorClient, screen: TerminalView) -> None:
    import trio

    with screen.shown():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.redraw)
            await spectator.run()
            nursery.cancel_scope.cancel()


async def _compare(api: Api, crowd: Crowd, opened: Message, directory: Path, console: Console) -> int:
    """The bots' ledgers, the results and the table, side by side. Returns the exit code."""
    from rich.table import Table

    from server.cli.operate.sql import totals, totals_query
    from server.cli.play.bot_runner import audit, report, report_mismatches

    found = await audit(api, opened["code"], crowd.ledgers, crowd.token)
    report(found.told, crowd, console)
    query = totals_query(opened["session_id"])
    ledgers = {
        "what the bots were told": (found.told.answered, found.told.score),
        "results.csv": (found.stored_answers, found.stored_score),
        "SQL": await totals(directory, opened["session_id"]),
    }
    table = Table("", box=None)
    table.add_column("answers", justify="right")
    table.add_column("points", justify="right")
    for source, (answers, points) in ledgers.items():
        table.add_row(source, f"{answers:,}", f"{points:,}")
    console.print()
    console.print(table)
    console.print(f"{query};", style="dim", soft_wrap=True)
    report_mismatches(found.mismatches)
    if found.mismatches or len(set(ledgers.values())) != 1:
        console.print("The ledgers do not agree.", style="bold red")
        return 1
    console.print("The ledgers agree.", style="bold green")
    return 0
