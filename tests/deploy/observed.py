"""A Prometheus and an Alertmanager that watch real nodes, and a webhook that hears of alerts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import trio
import yaml

from tests.deploy.prometheus import program
from tests.deploy.sink import Sink

PROMETHEUS = Path(__file__).parent.parent.parent / "deploy/prometheus"
INTERVAL = "250ms"
PATIENCE_S = 40.0
SIXTIETH = 60
"""Minutes become seconds."""


def hurried(rules: str, share: int = SIXTIETH) -> str:
    """The rules with such a part of the time after every `for:`, and nothing else changed, so that what fires
    first still does."""
    unit_ms = {"s": 1_000, "m": 60_000, "h": 3_600_000}

    def shortened(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * unit_ms[found[3]] // share}ms"

    changed, count = re.subn(r"^( +for: )(\d+)([smh])$", shortened, rules, flags=re.MULTILINE)
    assert count == rules.count(" for: ")
    return changed


class Webhook(Sink):
    """What Alertmanager has said, in the order in which it came."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, str]] = []
        """Path, status (`firing`, `resolved`) and name."""
        self.alerts: list[dict[str, Any]] = []

    def take(self, path: str, body: bytes) -> None:
        for alert in orjson.loads(body)["alerts"]:
            self.told.append((path, alert["status"], alert["labels"]["alertname"]))
            self.alerts.append(alert)

    async def hear(self, path: str, status: str, name: str, within_s: float = PATIENCE_S) -> None:
        with trio.fail_after(within_s):
            while (path, status, name) not in self.told:
                await self.heard.wait()


@dataclass
class Observed:
    url: str
    manager_url: str
    webhook: Webhook
    http: httpx.AsyncClient

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query. Raises AssertionError with what Prometheus says against it."""
        answer = await self.http.post(f"{self.url}/api/v1/query", data={"query": expression})
        said = answer.json()
        assert said["status"] == "success", f"{expression}: {said}"
        result = said["data"]["result"]
        return result if said["data"]["resultType"] != "scalar" else [{"value": result}]

    async def until(self, expression: str) -> list[dict[str, Any]]:
        """Until it returns something."""
        with trio.fail_after(PATIENCE_S):
            while not (found := await self.query(expression)):  # noqa: ASYNC110  # another process
                await trio.sleep(0.1)
            return found

    async def until_inhibited(self, name: str) -> None:
        """Until Alertmanager knows of the alert and keeps it to itself, because another one is its cause."""
        of_this_name = {"filter": f'alertname="{name}"', "active": "false"}
        with trio.fail_after(PATIENCE_S):
            while True:
                answer = await self.http.get(f"{self.manager_url}/api/v2/alerts", params=of_this_name)
                if any(alert["status"]["inhibitedBy"] for alert in answer.json()):
                    return
                await trio.sleep(0.1)


async def _up(http: httpx.AsyncClient, url: str) -> None:
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                if (await http.get(f"{url}/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await trio.sleep(0.05)


def manager_command(directory: Path, port: int, webhook: Webhook, *, hurry: bool = True) -> list[str]:
    """What starts Alertmanager as in deploy/, which tells the webhook. In a hurry it tells at once."""
    manager = yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text(encoding="utf-8"))
    if hurry:
        manager["route"] |= {"group_wait": "100ms", "group_interval": "500ms"}
    for receiver in manager["receivers"]:
        receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{webhook.port}/{receiver['name']}"}]
    (directory / "alertmanager.yaml").write_text(yaml.safe_dump(manager), encoding="utf-8")
    return [
        program("prometheus-alertmanager"),
        f"--config.file={directory / 'alertmanager.yaml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]


@asynccontextmanager
async def running(
    http: httpx.AsyncClient, log: Path, commands: Sequence[list[str]], ports: Sequence[int]
) -> AsyncIterator[None]:
    """These programs, from when they are ready on their ports."""
    with log.open("wb") as output:
        processes = [
            await trio.lowlevel.open_process(command, stdout=output, stderr=output) for command in commands
        ]
    try:
        for port in ports:
            await _up(http, f"http://127.0.0.1:{port}")
        yield
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                process.kill()
                await process.wait()


@asynccontextmanager
async def observing(
    directory: Path,
    targets: Sequence[str],
    ports: Sequence[int],
    *,
    hurry: bool = True,
    share: int = SIXTIETH,
    interval: str = INTERVAL,
) -> AsyncIterator[Observed]:
    """Prometheus and Alertmanager as in deploy/. In a hurry, Prometheus looks at such an interval, the rules
    are `hurried`, and Alertmanager tells at once."""
    rules = directory / "rules"
    rules.mkdir(parents=True)
    for path in (PROMETHEUS / "rules").glob("*.yaml"):
        (rules / path.name).write_text(
            hurried(path.read_text(encoding="utf-8"), share if hurry else 1), encoding="utf-8"
        )
    webhook = Webhook()
    async with trio.open_nursery() as nursery, httpx.AsyncClient() as http:
        await nursery.start(webhook.serve)
        configuration = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text(encoding="utf-8"))
        if hurry:
            every = ("scrape_interval", "scrape_timeout", "evaluation_interval")
            configuration["global"] = dict.fromkeys(every, interval)
        configuration["scrape_configs"] = [
            {"job_name": "fanfare", "static_configs": [{"targets": list(targets)}]}
        ]
        [managers] = configuration["alerting"]["alertmanagers"]
        managers["static_configs"] = [{"targets": [f"127.0.0.1:{ports[1]}"]}]
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        commands = [
            [
                program("prometheus"),
                f"--config.file={directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{ports[0]}",
                "--enable-feature=exemplar-storage",
                "--rules.alert.resend-delay=500ms",
            ],
            manager_command(directory, ports[1], webhook, hurry=hurry),
        ]
        async with running(http, directory / "log", commands, ports):
            yield Observed(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", webhook, http)
        nursery.cancel_scope.cancel()
