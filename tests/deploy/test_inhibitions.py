"""As long as a cause is told, what follows from it is not: a real Alertmanager with the rules of deploy/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from server.listening import free_ports
from tests.deploy.observed import PROMETHEUS, Webhook, manager_command, running
from tests.deploy.test_rules import ALERTS

NAMES = {rule["alert"]: rule for rule in ALERTS}
INHIBITIONS = yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text())["inhibit_rules"]

Alert = dict[str, str]


def matched(matcher: str) -> list[str]:
    """The alerts that a matcher on `alertname` takes."""
    found = re.fullmatch(r'alertname=(~?)"([^"]+)"', matcher)
    assert found is not None, matcher
    return [name for name in NAMES if re.fullmatch(found[2] if found[1] else re.escape(found[2]), name)]


def pairs() -> Iterator[tuple[str, str, bool]]:
    """Cause, what follows from it, and whether that holds of one instance alone."""
    for rule in INHIBITIONS:
        ([source], [target]) = (rule["source_matchers"], rule["target_matchers"])
        for cause in matched(source):
            for effect in matched(target):
                yield cause, effect, rule.get("equal") == ["instance"]


def alert(name: str, instance: str, **labels: str) -> Alert:
    return {"alertname": name, "instance": instance, "severity": NAMES[name]["labels"]["severity"], **labels}


def test_every_name_in_a_rule_is_that_of_an_alert() -> None:
    for rule in INHIBITIONS:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert matched(matcher), matcher
            for name in re.findall(r"Fanfare\w+", matcher):
                assert any(known.startswith(name) for known in NAMES), name


@pytest.mark.parametrize(("cause", "effect", "of_an_instance"), list(pairs()))
def test_alerts_that_must_be_equal_in_the_instance_have_one(
    cause: str, effect: str, of_an_instance: bool
) -> None:
    """`sum(…)` leaves no instance: nothing would ever be equal, or everything without a word."""
    for name in (cause, effect):
        assert not of_an_instance or not re.match(r"(sum|max|min|absent)\(", NAMES[name]["expr"])


async def test_what_follows_from_a_cause_is_kept_back_and_told_when_the_cause_is_gone(tmp_path: Path) -> None:
    webhook = Webhook()
    ports = free_ports(1)
    url = f"http://127.0.0.1:{ports[0]}/api/v2/alerts"
    async with trio.open_nursery() as nursery, httpx.AsyncClient() as http:
        await nursery.start(webhook.serve)
        async with running(http, tmp_path / "log", [manager_command(tmp_path, ports[0], webhook)], ports):

            async def state(of: Alert) -> bool:
                """Whether it is kept back, once Alertmanager has it."""
                while True:
                    said: list[Any] = (await http.get(url)).json()
                    for each in said:
                        # A fresh alert is unprocessed, which says nothing of its inhibition.
                        if each["labels"] == of and each["status"]["state"] != "unprocessed":
                            return bool(each["status"]["inhibitedBy"])
                    await trio.sleep(0.05)

            for number, (cause, effect, of_an_instance) in enumerate(pairs()):
                here, there = f"node-{number}:1", f"node-{number}:2"
                source = alert(cause, here)
                target, elsewhere = alert(effect, here, n="0"), alert(effect, there, n="0")
                with trio.fail_after(20):
                    ends_at = {"startsAt": "2026-01-01T00:00:00Z"}
                    await http.post(url, json=[{"labels": source, **ends_at}])
                    assert not await state(source), cause
                    await http.post(url, json=[{"labels": each, **ends_at} for each in (target, elsewhere)])
                    while not await state(target):  # noqa: ASYNC110  # another process
                        await trio.sleep(0.05)
                    assert await state(elsewhere) is not of_an_instance, (cause, effect)
                    gone = {"startsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-01T00:00:01Z"}
                    await http.post(url, json=[{"labels": source, **gone}])
                    while await state(target):  # noqa: ASYNC110  # another process
                        await trio.sleep(0.05)
                    await http.post(url, json=[{"labels": each, **gone} for each in (target, elsewhere)])
        nursery.cancel_scope.cancel()
