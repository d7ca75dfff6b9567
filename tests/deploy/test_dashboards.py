"""The dashboards are what Grafana reads, and show what a node exposes. That every query returns data is seen
in `test_observed.py`."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import dashboards
from tests.deploy.test_rules import OF_PROCESS, exposed, named, rules


def test_they_fit_the_schema() -> None:
    schema = Path(__file__).parent / "dashboard.schema.json"
    subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--schemafile", schema, *dashboards.FILES], check=True
    )


@pytest.mark.parametrize("path", dashboards.FILES, ids=lambda path: path.stem)
def test_panels_have_an_id_of_their_own_and_do_not_overlap(path: Path) -> None:
    panels = dashboards.load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells
        ids = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", dashboards.FILES, ids=lambda path: path.stem)
def test_the_variables_that_are_used_are_there(path: Path) -> None:
    built_in = {"__rate_interval"}
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{?(\w+)", text)) - built_in
    assert used <= {variable["name"] for variable in dashboards.load(path)["templating"]["list"]}


def test_every_metric_that_is_shown_is_exposed() -> None:
    known = exposed() | OF_PROCESS
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for dashboard, panel, expression in dashboards.queries():
        assert named(expression) <= known, (dashboard, panel)
        assert set(re.findall(r"\bfanfare:\w+:\w+", expression)) <= recorded, (dashboard, panel)


def test_each_is_a_dashboard_of_its_own() -> None:
    loaded = [dashboards.load(path) for path in dashboards.FILES]
    assert {each["uid"] for each in loaded} == {f"fanfare-{path.stem}" for path in dashboards.FILES}
    assert len({each["title"] for each in loaded}) == len(loaded) == 5
