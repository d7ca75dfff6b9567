"""The rules of Prometheus as a resource of its operator: `python -m tests.deploy.prometheus_rule` writes the
file anew."""

from __future__ import annotations

from pathlib import Path

import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
FILE = DEPLOY / "kubernetes/observe/rules.yaml"

HEAD = """\
# Made from deploy/prometheus/rules by: python -m tests.deploy.prometheus_rule
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: fanfare
  labels:
    app: fanfare
spec:
  groups:
"""


def text() -> str:
    """What the file has to be."""
    files = sorted((DEPLOY / "prometheus/rules").glob("*.yaml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text("utf-8"))["groups"]]
    lines = yaml.safe_dump(groups, sort_keys=False, width=1000, allow_unicode=True).splitlines()
    return HEAD + "".join(f"    {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
