"""What a run has found, as one document for machines."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import linear_regression, mean, median
from typing import Any

from loadtest.runs.histogram import Histogram
from loadtest.runs.run import Outcome
from loadtest.runs.sampling import bound_of
from loadtest.runs.scenario import Scenario
from loadtest.runs.timeline import COUNTED, DURATIONS, LATENCIES, PERCENTS, Second, Timeline

CURVE_PERCENTS = (0.0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99, 100.0)
FORMAT = 1
GROUPS = ("nodes", "generators", "postgres")
"""Of processes, whose costs are sampled."""

EDGE_S = 5
"""Seconds at the beginning and the end of play whose mean is the memory then."""


def report(name: str, scenario: Scenario, outcome: Outcome, *, nodes: int, generators: int) -> dict[str, Any]:
    """Times are milliseconds or seconds as their names say; `series` has one row a second."""
    timeline, verdict = outcome.timeline, outcome.verdict
    series = timeline.series()
    steady_from_s = outcome.all_play_s + scenario.round_s
    return {
        "format": FORMAT,
        "scenario": name,
        "fields": asdict(scenario),
        "machine": machine(),
        "nodes": nodes,
        "generators": generators,
        "sessions": outcome.sessions,
        "probes": outcome.probes,
        "play_began_s": round(outcome.play_began_s, 1),
        "cut_at_s": [round(moment, 1) for moment in outcome.cut_at_s],
        "spread": {"questions": outcome.spreads.questions(), "end": outcome.spreads.end()},
        "cluster": cluster(outcome),
        "faults": list(outcome.faults),
        "proven": verdict.holds,
        "flat": flat(timeline, scenario, outcome.play_began_s, outcome.play_ends_s),
        "proof": {
            "players": verdict.players,
            "acknowledged": verdict.acks,
            "rows": verdict.rows,
            "leaderboards": verdict.boards,
            "scores": verdict.scores,
            "lines": verdict.lines,
            "unsettled": verdict.unsettled,
            "broken": verdict.broken,
            "examples": verdict.examples,
        },
        "totals": {name: timeline.totals[name] for name in COUNTED},
        "ends": timeline.tally("ends"),
        "refused": timeline.tally("refused"),
        "latency_ms": {name: timeline.durations[name].percentiles_ms(PERCENTS) for name in LATENCIES},
        "curves_ms": {
            name: [
                [percent, value * 1000]
                for percent in CURVE_PERCENTS
                if (value := timeline.durations[name].percentile_s(percent)) is not None
            ]
            for name in LATENCIES
        },
        "commit_ms": {
            f"p{percent:g}": None if bound is None else bound * 1000
            for percent in (50, 99)
            for bound in (bound_of(outcome.commits, percent),)
        },
        "steady": steady(timeline, steady_from_s, outcome.play_ends_s),
        "memory_mib": memory(timeline, steady_from_s, outcome.play_ends_s),
        "peaks": peaks(series),
        "series": series,
    }


def cluster(outcome: Outcome) -> dict[str, Any] | None:
    """How players found their node, and where they were at the end; None for lone nodes."""
    if outcome.places is None:
        return None
    totals = outcome.timeline.totals
    return {
        "moved": totals["moved"],
        "handed": totals["handed"],
        "at_owner": outcome.places.at_owner,
        "players_by_node": dict(outcome.places.players.most_common()),
    }


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": len(os.sched_getaffinity(0)),
    }


def steady(timeline: Timeline, from_s: float, to_s: float) -> dict[str, Any] | None:
    """What the part was like in which every session was playing, from the second question of the last one on;
    None when there was no such part."""
    seconds = timeline.between(from_s, to_s)
    if not seconds:
        return None
    counts = sum((second.counts for second in seconds), Counter[str]())
    found: dict[str, Any] = {"from_s": math.ceil(from_s), "seconds": len(seconds)}
    found |= {
        f"{name}_per_s": round(counts[name] / len(seconds), 1) for name in ("answers_sent", "acks", "frames")
    }
    found["duration_ms"] = {name: _merged(seconds, name).percentiles_ms(PERCENTS) for name in DURATIONS}
    by_second = [
        p99_s for second in seconds if (p99_s := second.durations["ack"].percentile_s(99)) is not None
    ]
    if by_second:
        found["ack_p99_by_second_ms"] = {
            "median": round(median(by_second) * 1000, 2),
            "most": round(max(by_second) * 1000, 2),
        }
    for name in (f"{group}_cpu" for group in GROUPS):
        used = _sampled(seconds, name)
        if used:
            found[name] = round(mean(used), 3)
    return found


def memory(timeline: Timeline, from_s: float, to_s: float) -> dict[str, dict[str, float]]:
    """By group of processes: the memory at the beginning and at the end of the steady part, and by how much
    it grew in a minute, as the straight line has it that fits best. Empty when that part was too short."""
    seconds = timeline.between(from_s, to_s)
    found = {}
    for group in GROUPS:
        values = _sampled(seconds, f"{group}_mib")
        if len(values) > 2 * EDGE_S:
            per_s = linear_regression(range(len(values)), values).slope
            found[group] = {
                "start": round(mean(values[:EDGE_S]), 1),
                "end": round(mean(values[-EDGE_S:]), 1),
                "per_min": round(per_s * 60, 2),
            }
    return found


def flat(timeline: Timeline, scenario: Scenario, from_s: float, to_s: float) -> dict[str, Any] | None:
    """The nodes' mean memory in the last third of the play beside that in the third before, and whether it
    grew by no more than the scenario allows; None where that does not matter."""
    if not scenario.memory_growth_max:
        return None
    third_s = (to_s - from_s) / 3
    before = _sampled(timeline.between(to_s - 2 * third_s, to_s - third_s), "nodes_mib")
    after = _sampled(timeline.between(to_s - third_s, to_s), "nodes_mib")
    if not before or not after:
        return {"seconds": round(third_s), "before": None, "after": None, "growth": None, "holds": False}
    growth = mean(after) / mean(before) - 1
    return {
        "seconds": round(third_s),
        "before": round(mean(before), 1),
        "after": round(mean(after), 1),
        "growth": round(growth, 4),
        "holds": growth <= scenario.memory_growth_max,
    }


def _merged(seconds: Sequence[Second], name: str) -> Histogram:
    merged = Histogram()
    for second in seconds:
        merged.merge(second.durations[name])
    return merged


def _sampled(seconds: Sequence[Second], name: str) -> list[float]:
    return [second.usage[name] for second in seconds if name in second.usage]


def peaks(series: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The most that each number of a row has been."""
    found: dict[str, float] = {}
    for row in series:
        for name, value in row.items():
            if name != "s" and isinstance(value, int | float):
                found[name] = max(found.get(name, value), value)
    return found
