"""`fanfare top`: what happens on a node just now, and on those beside it."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from server.cli.terminal import api_at, output, printable, run, server_option

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

EVERY_S = 2.0
SESSIONS_SHOWN = 20
WORDED = ("Node", "State", "Session", "Phase")
"""Columns of words, not of figures."""

SLOW_SHOWN = 5
EVENTS_SHOWN = 8
SPARKS = "▁▂▃▄▅▆▇█"
SAMPLES_A_SPARK = 6
"""Half a minute: 15 minutes are 30 bars."""

WORDS = {
    "started": "started",
    "draining": "drains: its sessions go to the others",
    "node_joined": "{about} has joined",
    "node_left": "{about} has left",
    "taken_over": "sessions taken over from a node that was gone: {count}",
    "handed_on": "sessions handed on: {count}",
    "not_handed_on": "sessions that could not be handed on: {count}",
    "crashed": "crashes of sessions: {count}",
    "quarantined": "sessions taken out of service: {count}",
    "component": "{about}: {state}",
}
"""What is said of an event, by its kind."""

Live = dict[str, Any]
"""The reply of GET /api/ops."""


@click.command()
@click.option("--once", is_flag=True, help="Print it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, once.")
@server_option
def top(once: bool, as_json: bool, url: str) -> None:
    """Show what happens just now: nodes, what they depend on, the largest sessions, slow answers, events.

    For admins: with the author key. On a terminal the picture is drawn anew until Ctrl-C. Any node of a
    cluster tells of all; the page /ops shows the same.
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
                console.print(picture(now))
                return 0
            with Screen(picture(now), console=console, auto_refresh=False, screen=True) as screen:
                while True:
                    await trio.sleep(EVERY_S)
                    try:
                        now = await api.ops()
                    except (ApiRefused, OSError) as error:
                        screen.update(picture(now, f"The node does not answer: {error}"), refresh=True)
                    else:
                        screen.update(picture(now), refresh=True)

    run(main, on_signal=0)


def picture(now: Live, trouble: str = "") -> RenderableType:
    """What is shown of a reply."""
    from rich.console import Group
    from rich.text import Text

    nodes = now["nodes"]
    down = [trouble] if trouble else []
    down += [f"{name} does not answer" for name in now["silent"]]
    down += [f"{node['name']} cannot take work: {reason}" for node in nodes for reason in node["reasons"]]
    down += _unwell(nodes, "down")
    degraded = [
        f"{node['name']} is draining: its sessions go to the other nodes"
        for node in now["cluster"]["nodes"]
        if node["state"] == "draining"
    ]
    degraded += _unwell(nodes, "degraded")
    parts: list[RenderableType] = [_heading(now)]
    if not (down or degraded):
        parts.append(Text("All is well", style="green"))
    parts += [Text(printable(line), style="bold red") for line in down]
    parts += [Text(printable(line), style="yellow") for line in degraded]
    parts.append(_nodes(now))
    parts += [Text("\nWhat they depend on", style="bold"), _components(nodes)]
    sessions = [(node["name"], each) for node in nodes for each in node["sessions"]]
    if sessions:
        largest = sorted(sessions, key=lambda each: -each[1]["players"])
        parts.append(_sessions(largest[:SESSIONS_SHOWN]))
    slowest = sorted(_all(nodes, "slowest"), key=lambda each: -(each["acked_ms"] or 0))
    failed = sorted(_all(nodes, "failed"), key=lambda each: -each["at"])
    for title, answers in (("Slowest answers of the last hour", slowest), ("Refused or failed", failed)):
        if answers:
            parts += [Text(f"\n{title}", style="bold"), _answers(answers[:SLOW_SHOWN])]
    if events := sorted(
        ((each["at"], node["name"], each) for node in nodes for each in node["events"]),
        key=lambda each: (-each[0], each[1]),
    ):
        parts += [Text("\nWhat has happened", style="bold"), _events(events[:EVENTS_SHOWN])]
    return Group(*parts)


def _unwell(nodes: list[Live], state: str) -> list[str]:
    """The components in this state, each in a sentence."""
    return [
        f"{node['name']}: {each['name']} is {state}: {each['detail']}"
        for node in nodes
        for each in node["components"]
        if each["state"] == state
    ]


def _components(nodes: list[Live]) -> RenderableType:
    """The state of each component of each node."""
    from rich.text import Text

    lines = Text()
    for node in nodes:
        states = ", ".join(f"{each['name']} {each['state']}" for each in node["components"])
        lines.append(f"{printable(node['name'])}  {printable(states)}\n")
    return lines


def _all(nodes: list[Live], what: str) -> list[Live]:
    return [each for node in nodes for each in node[what]]


def _newest(node: Live | None) -> Live:
    """The last sample of a node; nothing while there is none."""
    return node["samples"][-1] if node is not None and node["samples"] else {}


def _heading(now: Live) -> RenderableType:
    from rich.text import Text

    at = time.strftime("%H:%M:%S", time.localtime(now["at"] / 1000))
    heading = Text(f"Fanfare, {at}", style="bold")
    acks = sum(node["acks"] for node in now["nodes"])
    rate = sum(_newest(node).get("answers_per_s", 0) for node in now["nodes"])
    heading.append(f"   {acks:,} answers acknowledged, {rate:,.0f}/s", style="cyan")
    counts: Counter[str] = Counter()
    for node in now["nodes"]:
        counts.update(node["refused"])
    refused = ", ".join(f"{printable(code)} {count:,}" for code, count in sorted(counts.items()) if count)
    if refused:
        heading.append(f"\nRefused: {refused}", style="dim")
    return heading


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for column in columns:
        table.add_column(column, justify="left" if column in WORDED else "right")
    return table


def _nodes(now: Live) -> Table:
    from rich.text import Text

    counts = ("sessions", "players", "connections", "queued")
    table = _table(
        "Node", "State", "Busy", *(count.capitalize() for count in counts), "Answers/s", "Ack p50", "p99, ms"
    )
    table.add_column("The last 15 minutes")
    said = {node["name"]: node for node in now["nodes"]}
    for node in now["cluster"]["nodes"]:
        own = said.get(node["name"])
        newest = _newest(own)
        table.add_row(
            Text(printable(node["name"])),
            "silent" if node["name"] in now["silent"] else node["state"],
            f"{newest.get('busy', node['busy']):.0%}",
            *(f"{newest.get(key, node[key]):,}" for key in counts),
            *(_figure(newest.get(key)) for key in ("answers_per_s", "p50_ms", "p99_ms")),
            sparks([each["answers_per_s"] for each in own["samples"]] if own else []),
        )
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def sparks(values: list[float]) -> str:
    """A line of bars, the newest at the right: each is the greatest of some samples."""
    each = SAMPLES_A_SPARK
    begins = len(values) % each
    parts = [values[:begins]] if begins else []
    parts += [values[start : start + each] for start in range(begins, len(values), each)]
    peaks = [max(part) for part in parts]
    most = max(peaks, default=0) or 1
    return "".join(SPARKS[round(peak / most * (len(SPARKS) - 1))] for peak in peaks)


def _sessions(sessions: list[tuple[str, Live]]) -> Table:
    from rich.text import Text

    table = _table("Session", "Node", "Phase", "Players", "Connected", "Waiting", "State")
    for node, each in sessions:
        table.add_row(
            Text(printable(each["session_id"])),
            Text(printable(node)),
            Text(printable(each["phase"])),
            *(f"{each[key]:,}" for key in ("players", "connected", "backlog")),
            "all saved" if each["saved"] else "saving",
        )
    return table


def _events(events: list[tuple[int, str, Live]]) -> RenderableType:
    from rich.text import Text

    lines = Text()
    for at, node, event in events:
        kind, about, count = event["kind"], event["about"], event["count"]
        said = str(WORDS.get(kind, kind)).format(count=f"{count:,}", about=about, state=event["state"])
        when = time.strftime("%H:%M:%S", time.localtime(at / 1000))
        lines.append(f"{when}  {printable(node)}  {printable(said)}\n")
    return lines


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
