"""`fanfare top`: what happens on a node just now, and on those beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from server.cli.terminal import api_at, output, printable, run, server_option

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

EVERY_S = 2.0
SLOW_SHOWN = 5
Live = dict[str, Any]
"""The reply of GET /api/ops."""


@click.command()
@click.option("--once", is_flag=True, help="Print it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, once.")
@server_option
def top(once: bool, as_json: bool, url: str) -> None:
    """Show what happens just now: nodes, what is degraded, the largest sessions, slow answers.

    For admins: with the author key. On a terminal the picture is drawn anew until Ctrl-C. Sessions and
    answers are those of the node at --url.
    """

    async def main() -> int:
        import orjson
        import trio
        from rich.live import Live as Screen

        from loadtest.client.api import ApiRefused

        console = output()
        async with api_at(url) as api:
            now = await api.ops()
            if as_json:
                click.echo(orjson.dumps(now))
                return 0
            if once or not console.is_terminal:
                console.print(picture(now, None))
                return 0
            with Screen(picture(now, None), console=console, auto_refresh=False, screen=True) as screen:
                while True:
                    await trio.sleep(EVERY_S)
                    before = now
                    try:
                        now = await api.ops()
                    except (ApiRefused, OSError) as error:
                        screen.update(picture(now, None, f"The node does not answer: {error}"), refresh=True)
                    else:
                        screen.update(picture(now, before), refresh=True)

    run(main, on_signal=0)


def picture(now: Live, before: Live | None, trouble: str = "") -> RenderableType:
    """What is shown of a reply. From the one before it come the answers per second."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_heading(now, before)]
    lines = [trouble] if trouble else []
    lines += [f"Cannot take work: {reason}" for reason in now["reasons"]]
    parts += [Text(printable(line), style="bold red") for line in lines]
    parts += [Text(f"Degraded: {printable(each)}", style="yellow") for each in now["degraded"]]
    parts.append(_nodes(now["cluster"]["nodes"]))
    if now["sessions"]:
        parts.append(_sessions(now["sessions"]))
    for title, answers in (
        ("Slowest answers of the last hour", now["slowest"]),
        ("Refused or failed", now["failed"]),
    ):
        if answers:
            parts += [Text(f"\n{title}", style="bold"), _answers(answers[:SLOW_SHOWN])]
    return Group(*parts)


def _heading(now: Live, before: Live | None) -> RenderableType:
    from rich.text import Text

    at = time.strftime("%H:%M:%S", time.localtime(now["at"] / 1000))
    heading = Text(f"Fanfare, {at}", style="bold")
    heading.append(f"   {now['acks']:,} answers acknowledged", style="cyan")
    if before is not None and now["at"] > before["at"] and now["acks"] >= before["acks"]:
        rate = (now["acks"] - before["acks"]) / (now["at"] - before["at"]) * 1000
        heading.append(f", {rate:,.0f}/s", style="cyan")
    refused = ", ".join(
        f"{printable(code)} {count:,}" for code, count in sorted(now["refused"].items()) if count
    )
    if refused:
        heading.append(f"\nRefused: {refused}", style="dim")
    return heading


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for column in columns:
        table.add_column(column, justify="left" if column in ("Node", "State", "Session") else "right")
    return table


def _nodes(nodes: list[Live]) -> Table:
    from rich.text import Text

    table = _table("Node", "State", "Busy", "Sessions", "Players", "Connections", "Queued", "Commit p99, ms")
    for node in nodes:
        table.add_row(
            Text(printable(node["name"])),
            node["state"],
            f"{node['busy']:.0%}",
            *(f"{node[key]:,}" for key in ("sessions", "players", "connections", "queued")),
            f"{node['lag_ms']:,.0f}",
        )
    return table


def _sessions(sessions: list[Live]) -> Table:
    from rich.text import Text

    table = _table("Session", "Players", "Listening", "Waiting", "State")
    for each in sessions:
        table.add_row(
            Text(printable(each["session_id"])),
            *(f"{each[key]:,}" for key in ("players", "subscribers", "backlog")),
            "all saved" if each["saved"] else "saving",
        )
    return table


def _answers(answers: list[Live]) -> RenderableType:
    from rich.text import Text

    from engine.actors.slow_answers import parts_of

    lines = Text()
    for each in answers:
        took = ((name, ended_ms - begun_ms) for name, begun_ms, ended_ms in parts_of(each))
        parts = ", ".join(f"{name} {ms:,}" for name, ms in took if ms)
        total = "" if each["acked_ms"] is None else f"{each['acked_ms']:,} ms"
        trace = "" if each["trace_id"] is None else f"  trace {printable(each['trace_id'])}"
        lines.append(
            f"{printable(each['session_id'])}  player {each['player']}, question {each['question']}: "
            f"{printable(each['outcome'])} {total} ({parts or 'at once'}){trace}\n"
        )
    return lines
