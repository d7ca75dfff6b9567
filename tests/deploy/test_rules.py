"""The alerts: what each one looks at is there, each fires when it should and not else, and each says what to
do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.actors.slow_answers import SLOW_MS
from engine.latency import BOUNDS_S
from server.http.metrics import TABLES
from server.http.metrics.row import COUNTER, HISTOGRAM
from tests.deploy.prometheus import run
from tests.test_docs import anchors

ROOT = Path(__file__).parent.parent.parent
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yaml"))
CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))

OF_PROCESS = {
    "process_open_fds",
    "process_max_fds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}
"""Of the process: `ProcessCollector`."""


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def exposed() -> set[str]:
    """The names of the series that a node exposes, by the table of its metrics."""
    names = set()
    for table in TABLES.values():
        for row in table:
            ends = {COUNTER: ("_total",), HISTOGRAM: ("_bucket", "_count", "_sum")}.get(row.make, ("",))
            names |= {row.name + end for end in ends}
    return names


def named(expression: str) -> set[str]:
    """The metrics in an expression; not the recorded ones, which have colons."""
    return set(re.findall(r"(?<![\w:\"$])(?:fanfare|process)_\w+(?![\w:(])", expression))


def test_prometheus_takes_the_rules() -> None:
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_the_rules_do_what_their_cases_say() -> None:
    run("promtool", "test", "rules", *CASES)


def cases() -> Iterator[dict[str, Any]]:
    for path in CASES:
        yield from yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_cases_says_what_to_do_and_looks_at_what_is_there(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    fires = [
        sample
        for case in cases()
        for test in case.get("promql_expr_test", ())
        if f'alertname="{name}",alertstate="firing"' in test["expr"]
        for sample in test["exp_samples"]
    ]
    severity = alert["labels"]["severity"]
    assert severity in ("page", "ticket")
    assert [(sample["labels"], sample["value"]) for sample in fires] == [(f'{{severity="{severity}"}}', 1)]
    quiet = [
        test["exp_alerts"]
        for case in cases()
        for test in case.get("alert_rule_test", ())
        if test["alertname"] == name
    ]
    assert quiet
    assert not any(quiet)

    notes = alert["annotations"]
    assert set(notes) == {"summary", "players", "runbook"}
    page, _, anchor = notes["runbook"].partition("#")
    assert anchor in anchors(ROOT / page)
    assert name.lower().startswith(anchor)
    text = (ROOT / page).read_text(encoding="utf-8")
    section = re.split(rf"^## {name.removesuffix('Lastingly')}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, flags=re.MULTILINE)[0]
    assert f"**Players:** {notes['players']}" in section
    assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == ["1", "2", "3"]


def test_rules_and_runbooks_name_only_metrics_that_a_node_exposes() -> None:
    known = exposed() | OF_PROCESS
    for rule in rules():
        assert named(rule["expr"]) <= known, rule
    runbooks = (ROOT / "docs/runbooks.md").read_text(encoding="utf-8")
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in known}
    spans = re.findall(r"`([^`]+)`", runbooks)
    assert {name for span in spans for name in named(span)} <= known | families


def test_every_recorded_name_that_is_used_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {
        name for rule in rules() for name in re.findall(r"\bfanfare:\w+:\w+", rule["expr"]) if "alert" in rule
    }
    assert used == recorded


def test_promises_and_what_is_slow_are_bounds_of_the_histograms() -> None:
    asked = {float(le) for rule in rules() for le in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert asked == {0.5, 1.0}
    assert {*asked, SLOW_MS / 1000} <= set(BOUNDS_S)


def test_there_is_one_alert_of_each_name_and_one_runbook_for_each() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(names) == len(set(names)) > 30
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE))
    assert headings == {name.removesuffix("Lastingly") for name in names}
