"""What a run has found, as one document for machines."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loadtest.run import Outcome
from loadtest.sampling import bound_of
from loadtest.scenario import Scenario
from loadtest.timeline import COUNTED, LATENCIES, PERCENTS

CURVE_PERCENTS = (0.0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99, 100.0)
FORMAT = 1


def report(name: str, scenario: Scenario, outcome: Outcome, *, nodes: int, generators: int) -> dict[str, Any]:
    """Times are milliseconds or seconds as their names say; `series` has one row a second."""
    timeline, verdict = outcome.timeline, outcome.verdict
    series = timeline.series()
    return {
        "format": FORMAT,
        "scenario": name,
        "fields": asdict(scenario),
        "machine": machine(),
        "nodes": nodes,
        "generators": generators,
        "sessions": outcome.sessions,
        "canaries": outcome.canaries,
        "play_began_s": round(outcome.play_began_s, 1),
        "cut_at_s": [round(moment, 1) for moment in outcome.cut_at_s],
        "proven": verdict.holds,
        "proof": {
            "players": verdict.players,
            "acknowledged": verdict.acks,
            "rows": verdict.rows,
            "leaderboards": verdict.boards,
            "unsettled": verdict.unsettled,
            "broken": verdict.broken,
            "examples": verdict.examples,
        },
        "totals": {name: timeline.totals[name] for name in COUNTED},
        "ends": timeline.tally("ends"),
        "refused": timeline.tally("refused"),
        "latency_ms": {name: timeline.latencies[name].percentiles_ms(PERCENTS) for name in LATENCIES},
        "curves_ms": {
            name: [
                [percent, value * 1000]
                for percent in CURVE_PERCENTS
                if (value := timeline.latencies[name].percentile_s(percent)) is not None
            ]
            for name in LATENCIES
        },
        "commit_ms": {
            f"p{percent:g}": None if bound is None else bound * 1000
            for percent in (50, 99)
            for bound in (bound_of(outcome.commits, percent),)
        },
        "peaks": peaks(series),
        "series": series,
    }


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": len(os.sched_getaffinity(0)),
    }


def peaks(series: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The most that each number of a row has been."""
    found: dict[str, float] = {}
    for row in series:
        for name, value in row.items():
            if name != "s" and isinstance(value, int | float):
                found[name] = max(found.get(name, value), value)
    return found
