"""All benchmarks, or those that are named, in one table: `python -m bench [NAME ...] [--json FILE]`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, machine, measure

BENCHMARKS = (
    "leaderboard",
    "fan_out",
    "hub_fan_out",
    "answer",
    "answer_wire",
    "http_answers",
    "connections",
    "group_commit",
    "stored",
    "spool",
    "links",
    "forwarded",
    "nodes",
    "handover",
    "pages",
)
EXTRA = ("peers", "rates", "leaderboards", "leaderboards_http", "listing", "self_paced", "hub_cuts")
"""Not run unless named: they take long, or much memory, or servers that the project does not need."""

WIDTH = 120


def number(value: float) -> str:
    """Three significant digits or whole numbers, whichever is more."""
    if value >= 100 or not value:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(results: Mapping[str, Sequence[Figure]]) -> Table:
    shown = Table("benchmark", "what", "at", title="Fanfare benchmarks", box=None, pad_edge=False)
    for heading in ("figure", "", "ratio"):
        shown.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    shown.add_column("to")
    for name, figures in results.items():
        for place, figure in enumerate(figures):
            shown.add_row(
                "" if place else name,
                figure.what,
                figure.at,
                number(figure.value),
                figure.unit,
                "" if figure.ratio is None else number(figure.ratio),
                figure.to,
                end_section=place == len(figures) - 1,
            )
    return shown


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(BENCHMARKS + EXTRA))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here as well.")
def main(names: tuple[str, ...], json_file: Path | None) -> None:
    """Run all benchmarks, or those that are named."""
    facts = machine()
    results = {}
    started = time.monotonic()
    # A process of its own for each: none inherits what another has left in memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for name in names or BENCHMARKS:
            click.echo(f"{name} …", err=True)
            results[name] = pool.submit(measure, name).result()
    console = Console(width=WIDTH)
    console.print(facts, highlight=False)
    console.print(table(results))
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)
    if json_file is not None:
        figures = {name: [asdict(figure) for figure in each] for name, each in results.items()}
        json_file.write_text(json.dumps({"machine": facts, "figures": figures}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
