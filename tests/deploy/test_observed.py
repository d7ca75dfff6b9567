"""A real Prometheus and a real Alertmanager watch a node that has played a quiz, and that loses its
PostgreSQL."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import trio

from loadtest.bots.bot import Crowd
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api
from loadtest.client.player import HostClient
from server.listening import free_ports
from tests.deploy import dashboards
from tests.deploy.observed import Observed, observing
from tests.e2e.node import PATIENCE_S, Node
from tests.settings import AT_ONCE
from tests.storage.gate import Gate

PLAYERS = 8
QUIZ = {
    "title": "Short",
    "questions": [{"type": "true_false", "text": "True", "correct": True, "time_limit_s": 5}] * 2,
}

ONLY_SOMETIMES = {"Whose step that was"}
"""Panels without data where there is nothing to show: no step has been long since the start."""


OF_THE_MACHINE = "FanfareLoop.*|FanfareStoodStill"
"""Alerts about a node that gets no processor. A sixtieth of their time is soon over."""


async def play(node: Node) -> str:
    """Let bots play a quiz. Returns the code of another session, which stays in its lobby."""
    async with Api(node.url, author_key=node.author_key) as api:
        await api.add_quiz(QUIZ, "short")
        made = await api.create_session("short", {**AT_ONCE, "pace": "auto", "reveal_ms": 500})
        plan = CrowdPlan(PLAYERS, seed=7, think_s=0.3, silent_share=0.0, drop_share=0.0)
        crowd = Crowd(plan, ws_url=node.ws_url, code=made["code"], api=api, knowledge=Knowledge(QUIZ))
        rng = random.Random(5)
        host = HostClient(node.ws_url, made["code"], token=made["host_token"], rng=rng, patience_s=PATIENCE_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run)
            nursery.start_soon(host.run)
            await crowd.all_in.wait()
            await host.command("start")
        assert crowd.ends == {"finished": PLAYERS}
        return str((await api.create_session("short", {**AT_ONCE, "pace": "host"}))["code"])


async def join(node: Node, code: str) -> None:
    async with Api(node.url) as api:
        await api.join(code, "Ada")


async def without_data(observed: Observed) -> list[tuple[str, str, str]]:
    """Dashboard, panel and expression of each query that returns nothing just now."""
    return [
        (dashboard, panel, expression)
        for dashboard, panel, expression in dashboards.queries()
        if not await observed.query(expression)
    ]


async def test_what_happens_is_seen_and_the_right_alert_reaches_whom_it_should(
    database_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    gate = Gate(database_dsn)
    ports = free_ports(4)
    async with gate.standing():
        options = ["--database-url", gate.dsn, "--spool-after-s", "0.3", "--redis-url", redis_url]
        name = f"observed-{secrets.token_hex(4)}"
        keys = ["--secret", secrets.token_hex(16), "--author-key", secrets.token_hex(8)]
        cluster = ["--cluster", name, "--node", "one", "--link-port", "0", *keys]
        node = Node(tmp_path / "node", [*options, *cluster], ports[:2])
        try:
            await node.start()
            target = f"127.0.0.1:{ports[0]}"
            async with observing(tmp_path / "observed", [target], ports[2:]) as observed:
                webhook = observed.webhook
                await observed.until("up == 1")
                lobby = await play(node)
                # Once more, so that all has been seen twice since the quiz: a rate needs two.
                await observed.until("increase(fanfare_acks_total[1m]) > 0")
                await observed.until("fanfare_spool_certain == 1")
                await observed.until("fanfare:answers_slow:ratio_rate3d >= 0")

                # A scrape that a busy machine missed leaves a gap, which the next one ends.
                without = await without_data(observed)
                with trio.move_on_after(PATIENCE_S):
                    while {panel for _, panel, _ in without} - ONLY_SOMETIMES:
                        await trio.sleep(0.25)
                        without = await without_data(observed)
                assert {panel for _, panel, _ in without} <= ONLY_SOMETIMES, without
                assert (
                    await observed.query(f'ALERTS{{alertstate="firing",alertname!~"{OF_THE_MACHINE}"}}') == []
                )

                gate.set("shut")
                await join(node, lobby)
                await webhook.hear("/page", "firing", "FanfarePostgresDown")
                # As long as the cause lasts, what follows from it is not told.
                await observed.until_inhibited("FanfareSpoolInUse")
                assert "FanfareSpoolInUse" not in {name for _, _, name in webhook.told}
                gate.set("open")
                await webhook.hear("/page", "resolved", "FanfarePostgresDown")
                alert = next(
                    each for each in webhook.alerts if each["labels"]["alertname"] == "FanfarePostgresDown"
                )
                assert alert["annotations"]["summary"] == f"{target} does not reach PostgreSQL"
                assert alert["annotations"]["runbook"] == "docs/runbooks.md#fanfarepostgresdown"
        finally:
            with trio.CancelScope(shield=True):
                if node.process is not None:
                    await node.kill()
