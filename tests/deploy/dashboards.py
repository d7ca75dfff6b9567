"""The dashboards of Grafana, as tests read them: there is no Grafana to try them in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = sorted((Path(__file__).parent.parent.parent / "deploy/grafana/dashboards").glob("*.json"))

VARIABLES = {"$__rate_interval": "30s", "$instance": ".*"}
"""What Grafana puts in their place, and what tests do."""


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def queries() -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and expression of every query, with its variables filled in."""
    for path in FILES:
        for panel in load(path)["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                yield path.stem, panel["title"], expression
