"""The progress of a load run, and its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtest.runs.page import flat_sentence
from loadtest.runs.run import LoadRun
from loadtest.runs.soak import SoakRun

REFRESH_S = 0.5
LINE_EVERY_S = 5.0
"""Into a pipe or a file."""


async def show(run: LoadRun | SoakRun, players: int, console: Console) -> None:
    """Show the progress of the run, until cancelled."""
    if not console.is_terminal:
        while True:
            console.print(_line(run, players))
            await trio.sleep(LINE_EVERY_S)
    with Live(_table(run, players), console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_table(run, players), refresh=True)
            await trio.sleep(REFRESH_S)


def _standing(run: LoadRun | SoakRun, players: int) -> dict[str, str]:
    timeline = run.timeline
    latest = timeline.latest
    found = {
        "at": f"{time.monotonic() - timeline.zero_s:.0f} s",
        "phase": run.phase,
        "connected": f"{timeline.open:,} of {players:,}",
    }
    if latest is not None:
        p99 = latest.durations["ack"].percentile_s(99)
        found |= {
            "answers/s": f"{latest.counts['acks']:,}",
            "frames/s": f"{latest.counts['frames']:,}",
            "ack p99": "-" if p99 is None else f"{p99 * 1000:,.0f} ms",
            "nodes": _cost(timeline.usage, "nodes"),
            "generators": _cost(timeline.usage, "generators"),
            "PostgreSQL": _cost(timeline.usage, "postgres"),
        }
    return found


def _cost(usage: Mapping[str, float], name: str) -> str:
    if f"{name}_cpu" not in usage:
        return "-"
    return f"{usage[f'{name}_cpu'] * 100:.0f} %, {usage[f'{name}_mib']:,.0f} MiB"


def _line(run: LoadRun | SoakRun, players: int) -> str:
    return "  ".join(f"{name} {value}" for name, value in _standing(run, players).items())


def _table(run: LoadRun | SoakRun, players: int) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in _standing(run, players).items():
        table.add_row(name, value)
    return table


def summarize(found: Mapping[str, Any], console: Console) -> None:
    """The report in short, and whether it is proven."""
    table = Table("", "p50", "p90", "p99", "p99.9", "most", box=None)
    words = {
        "join": "to be in",
        "ack": "answer to ack",
        "board": "answer to leaderboard",
        "late": "generator late",
    }
    for name, meaning in words.items():
        values = found["latency_ms"][name]
        if values["p50"] is not None:
            columns = (values[each] for each in ("p50", "p90", "p99", "p99.9", "p100"))
            table.add_row(meaning, *(f"{value:,.1f} ms" for value in columns))
    console.print(table)
    totals, proof = found["totals"], found["proof"]
    console.print(
        f"{totals['joined']:,} players in {found['sessions']:,} sessions on {found['nodes']} "
        f"node{'' if found['nodes'] == 1 else 's'}, "
        f"{totals['acks']:,} answers acknowledged, {totals['frames']:,} frames, "
        f"{totals['reconnects']:,} came back"
    )
    steady = found["steady"]
    if steady is not None:
        acks = steady["duration_ms"]["ack"]
        told = ", ".join(f"{name} {acks[name]:,.1f} ms" for name in ("p50", "p99", "p99.9") if acks[name])
        console.print(
            f"While all sessions played, {steady['seconds']} s: "
            f"{steady['acks_per_s']:,.0f} answers/s acknowledged, {told}"
        )
    for sentence in _cluster(found):
        console.print(sentence)
    for group, mib in found["memory_mib"].items():
        console.print(
            f"Memory of {group}: {mib['start']:,.0f} to {mib['end']:,.0f} MiB, "
            f"{mib['per_min']:+,.2f} MiB a minute"
        )
    flat = found["flat"]
    if flat is not None:
        console.print(flat_sentence(flat), style="" if flat["holds"] else "bold red", soft_wrap=True)
    for heading in ("ends", "refused"):
        if found[heading]:
            told = ", ".join(f"{reason} {count:,}" for reason, count in found[heading].items())
            console.print(f"{heading}: {told}", style="dim", soft_wrap=True)
    rows = f"{proof['rows']:,} rows" if proof["rows"] else "the results (no database to ask)"
    if proof["scores"]:
        console.print(
            f"{proof['scores']:,} scores of users and {proof['lines']:,} lines of leaderboards over sessions "
            "were compared with the facts",
            soft_wrap=True,
        )
    if found["proven"]:
        console.print(
            f"Proven: {proof['acknowledged']:,} acknowledged answers against {rows}, and "
            + (
                f"the last leaderboards of {proof['leaderboards']:,} players."
                if proof["leaderboards"]
                else f"what {proof['players']:,} players were told at the end."
            ),
            style="bold green",
        )
        return
    click.echo("Not proven:", err=True)
    for kind, count in proof["broken"].items():
        click.echo(f"  {kind}: {count:,}", err=True)
        for sentence in proof["examples"][kind]:
            click.echo(f"    {sentence}", err=True)


def _cluster(found: Mapping[str, Any]) -> Iterator[str]:
    """What there is to say of several nodes that are one service."""
    cluster, spread = found["cluster"], found["spread"]
    if cluster is not None:
        ended = cluster["at_owner"]
        yield (
            f"{cluster['moved']:,} joins were sent on to another node, and {cluster['handed']:,} players in "
            "the midst of a session"
            + ("" if ended is None else f"; {ended:,} ended at the node that ran theirs last")
        )
    if spread["questions"]:
        worst = max(spread["questions"], key=lambda each: float(each["ms"]))
        yield f"A question reached all players of its session within {worst['ms']:,.0f} ms"
    if spread["end"] is not None:
        after_ms = spread["end"]["after_last_answer_ms"]
        told = "" if after_ms is None else f", {after_ms:,.0f} ms after the last answer"
        yield f"The end reached all players of its session within {spread['end']['ms']:,.0f} ms{told}"
    for fault in found["faults"]:
        yield from _fault(fault)


def _fault(fault: Mapping[str, Any]) -> Iterator[str]:
    def longest(name: str) -> str:
        values = [fault[name][percent] for percent in ("p50", "p99", "p100")]
        return "/".join("-" if value is None else f"{value:,.0f}" for value in values) + " ms"

    def moment(name: str) -> str:
        return "never" if fault[name] is None else f"after {fault[name]:,.0f} ms"

    took = "" if fault["restart_s"] is None else f", ready again after {fault['restart_s']:,.1f} s"
    yield f"{fault['kind'].capitalize()} of {fault['node']} at {fault['at_s']:,.1f} s{took}:"
    yield (
        f"  {fault['affected']:,} players affected, {fault['back']:,} back, 99 % {moment('back_99_ms')}; "
        f"the first ack {moment('first_ack_ms')}"
    )
    yield (
        f"  p50/p99/most: away {longest('away_ms')}, answer to ack {longest('ack_ms')}; "
        f"answer to ack of the others {longest('beside_ack_ms')}"
    )
