"""`fanfare bots`: players that play by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from server.cli.terminal import api_at, output, run, server_option, session_argument

if TYPE_CHECKING:
    from rich.console import Console

    from loadtest.bots.bot import Crowd

share = click.FloatRange(0.0, 1.0)


@click.command()
@session_argument()
@click.option(
    "--players", type=click.IntRange(1, 15_000), default=50, show_default=True, help="How many bots."
)
@click.option(
    "--quiz",
    metavar="FILE|ID",
    help="The quiz, for bots that know something: its file, or for authors its id. Without it they guess.",
)
@click.option("--think", "think_s", type=click.FloatRange(0, 600), help="Median seconds to answer.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another crowd.")
@click.option("--http-share", type=share, default=0.1, show_default=True, help="Bots that answer over HTTP.")
@click.option("--duplicate-share", type=share, default=0.05, show_default=True, help="Answers sent twice.")
@click.option(
    "--drop-share", type=share, default=0.02, show_default=True, help="Answers that lose their connection."
)
@click.option("--typo-share", type=share, default=0.1, show_default=True, help="Typed answers with a typo.")
@click.option("--silent-share", type=share, default=0.03, show_default=True, help="Questions not answered.")
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Seconds to go on trying while the server is away.",
)
@server_option
def bots(
    code: str,
    players: int,
    quiz: str | None,
    think_s: float | None,
    seed: int,
    http_share: float,
    duplicate_share: float,
    drop_share: float,
    typo_share: float,
    silent_share: float,
    patience_s: float,
    url: str,
) -> None:
    """Let bots play in the session CODE until it is over; at the players' own pace, until they are through.

    They keep ledgers of every ack and result. When the session is over the ledgers are compared with its
    results; the exit code is 0 only if they agree.
    """

    async def main() -> int:
        from loadtest.bots.bot import Crowd
        from loadtest.bots.habits import CrowdPlan
        from loadtest.runs.ledger import tally
        from server.cli.play import bot_runner

        bot_runner.make_room_for(players)
        console = output()
        async with api_at(url) as api:
            page = await api.session(code)
            if page["state"]["phase"] == "finished":
                raise click.ClickException(f"Session {code} is over.")
            plan = CrowdPlan(
                players,
                seed=seed,
                think_s=think_s,
                http_share=http_share,
                duplicate_share=duplicate_share,
                drop_share=drop_share,
                typo_share=typo_share,
                silent_share=silent_share,
                patience_s=patience_s,
            )
            crowd = Crowd(
                plan,
                ws_url=page["ws_url"],
                code=page["code"],
                api=api,
                knowledge=await bot_runner.knowledge_of(api, quiz),
            )
            try:
                await _play(crowd, console)
            except BaseException:
                bot_runner.report(tally(crowd.ledgers), crowd, console)
                console.print("The session is not over: nothing was compared.")
                raise
            if (await api.session(page["session_id"]))["state"]["phase"] == "open":
                bot_runner.report(tally(crowd.ledgers), crowd, console)
                console.print("The session stays open: nothing was compared.")
                return 0
            return await bot_runner.settle(api, page["code"], crowd, console)

    run(main)


async def _play(crowd: Crowd, console: Console) -> None:
    import trio

    from server.cli.play.bot_runner import bring_in

    async with trio.open_nursery() as playing:
        await bring_in(crowd, console, playing)
        console.print(
            f"{crowd.joined} of {len(crowd.bots)} bots have joined. They play to the end of the session."
        )
