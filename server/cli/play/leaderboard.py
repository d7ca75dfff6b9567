"""`fanfare leaderboard` and `fanfare users`: what users have scored over sessions."""

from __future__ import annotations

from datetime import datetime

import click

from server.cli.terminal import api_at, output, printable, run, server_option, sure, yes_option


@click.command()
@click.argument("quiz_id", metavar="[QUIZ]", default="all")
@click.option("--period", type=click.Choice(["day", "week", "all"]), default="all", show_default=True)
@click.option("--date", type=click.DateTime(["%Y-%m-%d"]), help="A day of the period.  [default: today]")
@click.option("--top", type=click.IntRange(1, 100), default=10, show_default=True, help="How many lines.")
@server_option
def leaderboard(quiz_id: str, period: str, date: datetime | None, top: int, url: str) -> None:
    """Show which users have scored most over sessions: of the quiz QUIZ, or of all."""

    async def main() -> int:
        from rich.table import Table
        from rich.text import Text

        async with api_at(url) as api:
            day = None if date is None else date.date().isoformat()
            found = await api.leaderboard(quiz_id, period, top, day)
        if not found["top"]:
            click.echo("Nobody is in it.")
            return 0
        table = Table(box=None)
        for column in ("Rank", "Name", "User", "Score", "Seconds"):
            table.add_column(column, justify="left" if column in ("Name", "User") else "right")
        for line in found["top"]:
            table.add_row(
                "" if line["rank"] is None else f"{line['rank']:,}",
                Text(printable(line["name"])),
                Text(printable(line["user_id"])),
                f"{line['score']:,}",
                f"{line['elapsed_ms'] / 1000:.1f}",
            )
        output().print(table)
        return 0

    run(main)


@click.group()
def users() -> None:
    """Users of the app that embeds this."""


@users.command()
@click.argument("user_id", metavar="USER")
@yes_option
@server_option
def erase(user_id: str, yes: bool, url: str) -> None:
    """Erase the user USER: scores, lines in leaderboards, and the names in sessions."""

    async def main() -> int:
        sure(f"Erase user {printable(user_id)} for good?", yes=yes)
        async with api_at(url) as api:
            erased = await api.erase_user(user_id)
        click.echo(f"User {printable(user_id)} is erased, with names in {erased['sessions']:,} sessions.")
        return 0

    run(main)
