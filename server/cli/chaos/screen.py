"""What a run of faults says while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from loadtest.chaos.run import Survived
    from loadtest.runs.proof import Verdict


def tell_fault(console: Console, survived: Survived, faults: int, acks: int) -> None:
    """One line for each fault that is over."""
    fault = survived.fault
    console.print(
        f"{survived.over_s:7.1f} s  {fault.number:4} of {faults}  {fault.kind.value:15}  "
        f"no ack for {survived.silence_s:5.2f} s, back after {survived.back_s:5.2f} s  "
        f"{acks:,} acknowledged"
    )


def summarize(found: Mapping[str, Any], console: Console) -> None:
    """The report in short, and whether it is proven."""
    table = Table(
        "fault", "times", "acks meanwhile", "longest without ack", "mean", "back after", "most", box=None
    )
    for kind, costs in found["kinds"].items():
        table.add_row(
            kind,
            f"{costs['count']}",
            f"{costs['acks']:,} in {costs['lasted_s']:.1f} s",
            *(f"{costs[name]:.2f} s" for name in ("silence_max_s", "silence_mean_s", "back_median_s")),
            f"{costs['back_max_s']:.2f} s",
        )
    console.print(table)
    for title, name in (("all", "ack_ms"), ("during faults", "ack_in_faults_ms")):
        values = found[name]
        if values["p50"] is not None:
            told = ", ".join(f"{percent} {value:,.1f} ms" for percent, value in values.items())
            console.print(f"answer to ack, {title}: {told}", soft_wrap=True)
    console.print(
        f"{found['players']:,} players in {found['sessions']:,} sessions, {found['sent']:,} answers sent, "
        f"{found['acknowledged']:,} acknowledged, {found['acks_in_faults']:,} of them during faults; "
        f"{found['reconnects']:,} came back; {found['took_s']:,.0f} s",
        soft_wrap=True,
    )
    for heading in ("ends", "refused"):
        if found[heading]:
            told = ", ".join(f"{reason} {count:,}" for reason, count in found[heading].items())
            console.print(f"{heading}: {told}", style="dim", soft_wrap=True)
    for sentence in found["trouble"]:
        click.echo(f"Trouble: {sentence}", err=True)
    survived = f"{found['faults_survived']} of {found['faults_planned']} faults survived"
    if found["proven"]:
        console.print(f"Seed {found['seed']}: {survived}.", style="bold green")
    else:
        click.echo(f"Seed {found['seed']}, at fault {found['position']}: {survived}.", err=True)
    if found["proof"] is not None:
        _tell_proof(found["proof"], console)
    if found["audit"]:
        console.print(found["audit"], soft_wrap=True)


def tell_verdict(verdict: Verdict, console: Console) -> None:
    from dataclasses import asdict

    _tell_proof(asdict(verdict), console)


def _tell_proof(proof: Mapping[str, Any], console: Console) -> None:
    checked = (
        f"{proof['acks']:,} acknowledged answers against {proof['rows']:,} rows, and the last leaderboards "
        f"of {proof['boards']:,} players, {proof['scores']:,} scores of users and {proof['lines']:,} lines "
        f"of leaderboards over sessions, which nodes have filled in Redis {proof.get('filled', 0):,} times; "
        f"{proof['gave_up']:,} players missed the end, and of "
        f"{proof['unsettled']:,} answers nobody heard what became"
    )
    if not proof["broken"]:
        console.print(f"Proven: {checked}.", style="bold green", soft_wrap=True)
        return
    click.echo(f"Not proven: {checked}.", err=True)
    for kind, count in proof["broken"].items():
        click.echo(f"  {kind}: {count:,}", err=True)
        for sentence in proof["examples"][kind]:
            click.echo(f"    {sentence}", err=True)
