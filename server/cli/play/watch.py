"""`fanfare watch`: the big screen."""

from __future__ import annotations

import click

from server.cli.terminal import api_at, output, run, server_option, session_argument


@click.command()
@session_argument()
@server_option
def watch(code: str, url: str) -> None:
    """Follow the session CODE: questions, answers, leaderboard, podium.

    On a terminal the picture is drawn anew, elsewhere it is told in lines.
    """

    async def main() -> int:
        import random

        import trio

        from loadtest.client.player import SpectatorClient
        from server.cli.play.session_view import SessionView
        from server.cli.play.terminal_view import TerminalView

        async with api_at(url) as api:
            page = await api.session(code)
        over = page["state"]["phase"] == "finished"
        if over and page["state"]["podium"] is None:
            raise click.ClickException(
                f"Session {code} is over; how it came out is for those who were there."
            )
        view = SessionView(page["code"])
        client: SpectatorClient | None = None

        def footer() -> str:
            if client is None or client.connected or not client.arrived.is_set():
                return ""
            return "The connection is lost; coming back..."

        screen = TerminalView(view, output(), footer)
        with screen.shown():
            if over:
                screen.hear({"t": "joined", "state": page["state"]})
                screen.hear({"t": "finished", "podium": page["state"]["podium"]})
                return 0
            client = SpectatorClient(page["ws_url"], page["code"], rng=random.Random(), listener=screen.hear)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(screen.redraw)
                ended = await client.run()
                nursery.cancel_scope.cancel()
        if ended not in ("finished", "session_finished"):
            raise click.ClickException(f"The connection to {page['ws_url']} has ended: {ended}.")
        return 0

    run(main)
