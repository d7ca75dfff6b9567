"""The page about the metrics, made from their tables: `python -m tests.metrics_page` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.http.metrics import TABLES
from server.http.metrics.row import COUNTER, HISTOGRAM, Row

FILE = Path(__file__).parent.parent / "docs/metrics.md"

HEAD = """\
# Metrics

What a node tells at `/metrics`, by subject. Made from the tables in `server/http/metrics/` by
`python -m tests.metrics_page`. Which of them to watch first is in
[running it](operations.md#health-and-metrics), and what calls somebody in [alerts](alerts.md).

Times are in seconds and sizes in bytes. Each node tells of itself, and counts from 0 when it starts.
"Over nodes" says how values of several nodes become one:

| over nodes | means |
|---|---|
| sum of rates | `sum(rate(NAME[5m]))`; with labels, by those of interest |
| sum by le | `histogram_quantile(0.99, sum by (le) (rate(NAME_bucket[5m])))` |
| sum, max, min | `sum(NAME)` and so on; with labels, by those |
| each | not at all: it is about one node |

Neither values nor quantiles are averaged over nodes: a node in trouble would hide behind those that are well.
A metric is missing where its subject is: those of the spool without a spool, those of the cluster on a node
alone. Beside these there are `fanfare_info` with the version, `process_*` (processor, memory, open files) and
`python_gc_*`, under their usual names.
"""

KINDS = {COUNTER: ("counter", "sum of rates"), HISTOGRAM: ("histogram", "sum by le")}


def _line(row: Row[Any]) -> str:
    kind, over_nodes = KINDS.get(row.make, ("gauge", row.over_nodes))
    name = row.name + ("_total" if row.make is COUNTER else "")
    labels = ", ".join(f"`{label}`" for label in row.labels)
    return f"| `{name}` | {kind} | {labels} | {row.help} | {row.advice} | {over_nodes} |"


def text() -> str:
    """What the page has to be."""
    parts = [HEAD]
    for subject, rows in TABLES.items():
        parts.append(f"\n## {subject}\n\n| name | kind | labels | meaning | advice | over nodes |\n")
        parts.append("|---|---|---|---|---|---|\n")
        parts.extend(f"{_line(row)}\n" for row in rows)
    return "".join(parts)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
