"""One slow answer, followed through everything that shows it: PostgreSQL stands still for 700 ms.

python -m tests.deploy.slow_answer PICTURE.png      prints what is seen, and takes a picture of /ops
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from engine.storage.embedded import EmbeddedPostgres
from loadtest.client.api import Api
from server.listening import free_ports
from tests.deploy import dashboards
from tests.deploy.observed import PATIENCE_S, Observed, observing
from tests.deploy.sink import Sink
from tests.e2e.node import Node, fanfare
from tests.settings import AT_ONCE
from tests.storage.gate import Gate
from tests.web.chromium import Chromium, Visit, settle
from tests.web.install_chromium import executable

STILL_S = 0.7
QUICK = 5
QUIZ = {
    "title": "One slow answer",
    "questions": [{"type": "true_false", "text": "True", "correct": True, "time_limit_s": 300}] * 2,
}
PANEL = "Answers by how long their acknowledgement took"


class Collector(Sink):
    """Takes what an OTLP collector takes."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[dict[str, Any]] = []

    def take(self, path: str, body: bytes) -> None:
        for resource in json.loads(body)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += scope["spans"]

    async def trace(self, trace_id: str, whole: set[str]) -> dict[str, float]:
        """The spans of a trace, once all these are there: how long each took, in ms."""
        with trio.fail_after(PATIENCE_S):
            while True:
                took = {
                    span["name"]: (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6
                    for span in self.spans
                    if span["traceId"] == trace_id
                }
                if whole <= took.keys():
                    return took
                await self.heard.wait()


@dataclass
class Followed:
    """What was seen of the answer.

    Attributes:
        alert: what Prometheus said of the alert.
        dashboard: what the panel's query returned.
        exemplar: of the bucket in /metrics that has the answer.
        kept: the trace ids of the exemplars that Prometheus has kept.
        line: at `/api/ops`.
        top: the line of `fanfare top`.
        log: the lines of the log with the trace id.
    """

    trace_id: str = ""
    alert: list[dict[str, Any]] = field(default_factory=list)
    dashboard: list[dict[str, Any]] = field(default_factory=list)
    exemplar: Exemplar | None = None
    kept: set[str] = field(default_factory=set)
    spans: dict[str, float] = field(default_factory=dict)
    line: dict[str, Any] = field(default_factory=dict)
    top: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)


async def follow(
    dsn: str, directory: Path, picture: Path | None = None, *, still_s: float = STILL_S
) -> Followed:
    """Args: picture: where that of /ops goes, if there is a browser. still_s: of PostgreSQL."""
    collector, ports = Collector(), free_ports(4)
    async with trio.open_nursery() as nursery, Gate(dsn).standing() as gate:
        await nursery.start(collector.serve)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.port}"
        node = Node(
            directory / "node",
            ["--database-url", gate.dsn, "--log-format", "json", "--spool-after-s", "10"],
            ports[:2],
        )
        followed = Followed()
        try:
            await node.start()
            async with observing(
                directory / "observed", [f"127.0.0.1:{ports[0]}"], ports[2:], share=1
            ) as observed:
                await answer_slowly(node, gate, observed, still_s)
                await look(node, observed, collector, followed)
                if picture is not None and (path := executable()) is not None:
                    await take(node, path, picture, followed.trace_id)
            await node.stop()
            lines = (line for line in node.said.splitlines() if line.startswith("{"))
            followed.log = [
                line for line in map(json.loads, lines) if line.get("trace_id") == followed.trace_id
            ]
        finally:
            del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
            with trio.CancelScope(shield=True):
                if node.process is not None:
                    await node.kill()
        nursery.cancel_scope.cancel()
    return followed


async def answer_slowly(node: Node, gate: Gate, observed: Observed, still_s: float) -> None:
    """Some players answer, and then another one, while PostgreSQL stands still."""
    async with Api(node.url, author_key=node.author_key) as api:
        await api.add_quiz(QUIZ, "slow")
        made = await api.create_session("slow", {**AT_ONCE, "pace": "host"})
        players = [await api.join(made["code"], f"Player {n}") for n in range(QUICK + 1)]
        await api.start(made["code"], made["host_token"])
        for player in players[:QUICK]:
            await api.answer(made["code"], player["token"], "a", 1, True)
        await observed.until("sum(fanfare_acks_total) == 5")
        async with trio.open_nursery() as nursery:
            gate.set("frozen")
            nursery.start_soon(api.answer, made["code"], players[QUICK]["token"], "a", 1, True)
            await trio.sleep(still_s)
            gate.set("open")


async def look(node: Node, observed: Observed, collector: Collector, followed: Followed) -> None:
    pending = 'ALERTS{alertname="FanfareCommitsSlow",alertstate="pending"}'
    followed.alert = await observed.until(pending)
    [query] = [each for _, panel, each in dashboards.queries() if panel == PANEL]
    await observed.until("sum(increase(fanfare_answer_ack_seconds_count[30s])) > 0")
    followed.dashboard = await observed.query(query)
    async with httpx.AsyncClient() as http:
        said = await http.get(f"{node.url}/metrics", headers={"Accept": "application/openmetrics-text"})
        [followed.exemplar] = [
            sample.exemplar
            for family in text_string_to_metric_families(said.text)
            for sample in family.samples
            if sample.name == "fanfare_answer_ack_seconds_bucket" and sample.exemplar is not None
        ]
        assert followed.exemplar is not None
        followed.trace_id = followed.exemplar.labels["trace_id"]
        with trio.fail_after(PATIENCE_S):
            while not followed.kept:
                kept = await http.get(
                    f"{observed.url}/api/v1/query_exemplars",
                    params={"query": query, "start": "0", "end": "9999999999"},
                )
                followed.kept = {
                    exemplar["labels"]["trace_id"]
                    for series in kept.json()["data"]
                    for exemplar in series["exemplars"]
                }
    parts = {"answer", "mailbox", "judge", "queue", "commit", "ack", "broadcast"}
    followed.spans = await collector.trace(followed.trace_id, parts)
    async with Api(node.url, author_key=node.author_key) as api:
        [own] = (await api.ops())["nodes"]
        [followed.line] = own["slowest"]
    _, said = await fanfare("top", "--once", "--url", node.url, data_dir=node.data_dir)
    [followed.top] = [line for line in said.splitlines() if followed.trace_id in line] or [said]


async def take(node: Node, executable_path: str, picture: Path, trace_id: str) -> None:
    """A picture of /ops with the answer's timeline."""

    def script(visit: Visit) -> None:
        page = visit.page(size="desktop")
        page.goto(node.as_author("/ops"))
        page.get_by_text(trace_id).wait_for()
        settle(page)
        page.screenshot(path=picture, full_page=True)

    browser = Chromium(executable_path)
    try:
        await browser.run(script)
    finally:
        browser.close()


@asynccontextmanager
async def _postgres(directory: Path) -> AsyncIterator[str]:
    server = EmbeddedPostgres(directory)
    dsn = await trio.to_thread.run_sync(server.start)
    try:
        yield dsn
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.stop)


async def _main(picture: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as made:
        async with _postgres(Path(made)) as dsn:
            followed = await follow(dsn, Path(made), picture)
    print(json.dumps(followed.__dict__, indent=1, default=repr))


if __name__ == "__main__":
    trio.run(_main, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
