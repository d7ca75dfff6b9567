"""What a run has found, as one document for machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loadtest.chaos.plan import TRAITS, Kind
from loadtest.chaos.run import Aim, Outcome, Survived
from loadtest.chaos.timeline import AckTimeline

FORMAT = 1
PERCENTS = (50.0, 90.0, 99.0, 99.9, 100.0)


def report(aim: Aim, outcome: Outcome, timeline: AckTimeline) -> dict[str, Any]:
    """Times are milliseconds or seconds as their names say."""
    verdict, totals = outcome.verdict, timeline.totals()
    return {
        "format": FORMAT,
        "seed": aim.seed,
        "nodes": aim.nodes,
        "load": asdict(aim.load),
        "faults_planned": len(aim.plan),
        "faults_survived": len(outcome.survived),
        "position": outcome.position,
        "took_s": round(outcome.took_s, 1),
        "proven": outcome.holds,
        "trouble": outcome.trouble,
        "kinds": by_kind(outcome.survived),
        "sessions": outcome.sessions,
        "players": totals.joined,
        "acknowledged": totals.acks,
        "sent": totals.sent,
        "reconnects": totals.reconnects,
        "refused": dict(totals.refused),
        "ends": dict(totals.ends),
        "ack_ms": timeline.ack.percentiles_ms(PERCENTS),
        "ack_in_faults_ms": timeline.ack_in_faults.percentiles_ms(PERCENTS),
        "acks_in_faults": timeline.ack_in_faults.count,
        "proof": None if verdict is None else asdict(verdict),
        "audit": outcome.audit,
        "faults": [
            {
                "number": each.fault.number,
                "kind": each.fault.kind.value,
                "node": each.fault.node,
                "began_s": round(each.began_s, 2),
                "undone_s": round(each.undone_s, 2),
                "over_s": round(each.over_s, 2),
                "acks": each.acks,
                "silence_s": round(each.silence_s, 2),
                "back_s": round(each.back_s, 2),
            }
            for each in outcome.survived
        ],
    }


def by_kind(survived: Sequence[Survived]) -> dict[str, dict[str, Any]]:
    """In the order of the kinds: how often, and what it cost."""
    grouped: dict[Kind, list[Survived]] = defaultdict(list)
    for each in survived:
        grouped[each.fault.kind].append(each)
    found: dict[str, dict[str, Any]] = {}
    for kind in TRAITS:
        if kind not in grouped:
            continue
        costs = grouped[kind]
        back_s = sorted(each.back_s for each in costs)
        found[kind.value] = {
            "count": len(costs),
            "acks": sum(each.acks for each in costs),
            "lasted_s": round(sum(each.undone_s - each.began_s for each in costs), 2),
            "silence_max_s": round(max(each.silence_s for each in costs), 2),
            "silence_mean_s": round(sum(each.silence_s for each in costs) / len(costs), 2),
            "back_median_s": round(back_s[len(back_s) // 2], 2),
            "back_max_s": round(back_s[-1], 2),
        }
    return found
