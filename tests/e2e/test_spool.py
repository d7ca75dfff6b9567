"""Real nodes whose PostgreSQL goes away, that are killed or stopped meanwhile, and ledgers that must
agree."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import trio

from engine.storage.postgres import Database
from loadtest.bots.bot import Crowd
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api, ApiRefused
from loadtest.client.player import HostClient
from loadtest.runs.ledger import compare, read_results, tally
from tests.e2e.node import PATIENCE_S, Node, fanfare
from tests.e2e.test_node import QUIZ
from tests.settings import AT_ONCE
from tests.storage.gate import Gate

PLAYERS = 40


@dataclass
class Site:
    """A database that nodes reach through a gate of their own each, and that the test reaches at any time."""

    database: Database
    dsn: str
    directory: Path

    @asynccontextmanager
    async def node(self, name: str, *options: str) -> AsyncIterator[tuple[Node, Api, Gate]]:
        gate = Gate(self.dsn)
        async with gate.standing():
            node = Node(
                self.directory / name,
                ["--database-url", gate.dsn, "--node", name, "--spool-after-s", "0.3", *options],
            )
            try:
                await node.start()
                async with Api(node.url, author_key=node.author_key) as api:
                    yield node, api, gate
            finally:
                with trio.CancelScope(shield=True):
                    if node.process is not None:
                        node.process.send_signal(signal.SIGCONT)
                        await node.kill()

    async def answers(self, session_id: str) -> list[tuple[int, int, Any]]:
        rows = await self.database.fetch(
            "SELECT player, question, elapsed_ms FROM standing_answers WHERE session_id = $1 ORDER BY 1, 2",
            session_id,
        )
        return [(row["player"], row["question"], row["elapsed_ms"]) for row in rows]


@pytest.fixture
def site(database: Database, database_dsn: str, tmp_path: Path) -> Site:
    return Site(database, database_dsn, tmp_path)


async def ready(node: Node) -> dict[str, Any]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{node.url}/readyz")
    return {"status": answer.status_code, **answer.json()}


async def metric(node: Node, name: str) -> float:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{node.url}/metrics")).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


async def until(node: Node, name: str, holds: Callable[[float], bool]) -> None:
    """Until a metric of another process says so."""
    with trio.fail_after(PATIENCE_S):
        while not holds(await metric(node, name)):  # noqa: ASYNC110  # another process
            await trio.sleep(0.05)


async def certain(node: Node) -> None:
    await until(node, "fanfare_spool_certain", bool)


async def begun(api: Api) -> tuple[dict[str, Any], dict[str, Any]]:
    """A session with Ada, question 1 open for as long as the test takes."""
    question = {"type": "true_false", "text": "True", "correct": True, "time_limit_s": 600}
    await api.add_quiz({"title": "Long", "questions": [question] * 2}, "long")
    made = dict(await api.create_session("long", {**AT_ONCE, "pace": "host", "early_close": False}))
    ada = dict(await api.join(made["code"], "Ada"))
    await api.host(made["code"], made["host_token"], "s", "start")
    return made, ada


def answer_request(made: dict[str, Any], player: dict[str, Any], *, question: int) -> bytes:
    """The bytes of an answer over HTTP."""
    body = orjson.dumps({"id": "a", "question": question, "choice": True})
    head = f"""POST /api/sessions/{made["code"]}/answers HTTP/1.1
Host: localhost
Authorization: Bearer {player["token"]}
Content-Type: application/json
Content-Length: {len(body)}

"""
    return head.replace("\n", "\r\n").encode() + body


@pytest.mark.parametrize("killed", [False, True])
async def test_a_session_is_played_on_while_the_database_is_away(site: Site, killed: bool) -> None:
    rng = random.Random(31 + killed)
    async with site.node("one") as (node, api, gate):
        await api.add_quiz(QUIZ, "all-five")
        made = await api.create_session("all-five", {**AT_ONCE, "pace": "auto", "reveal_ms": 500})
        plan = CrowdPlan(PLAYERS, seed=7, think_s=0.6, silent_share=0.0, drop_share=0.05)
        crowd = Crowd(plan, ws_url=node.ws_url, code=made["code"], api=api, knowledge=Knowledge(QUIZ))
        host = HostClient(node.ws_url, made["code"], token=made["host_token"], rng=rng, patience_s=PATIENCE_S)

        async def trouble() -> None:
            for _ in range(2 if killed else 1):
                before = await metric(node, "fanfare_spool_in_facts_total")
                gate.set(rng.choice(["shut", "frozen"]))
                await until(node, "fanfare_spool_in_facts_total", lambda now, then=before: now > then)
                said = await ready(node)
                assert (said["status"], said["ready"], bool(said["degraded"])) == (200, True, True)
                await trio.sleep(rng.uniform(0, 0.8))
                if killed:
                    await node.kill()
                gate.set("open")
                if killed:
                    await node.start()
                    await certain(node)
                    # Clients pause longer after each attempt that fails: one that two outages in a row have
                    # kept out may come back after the question is over.
                    await until(node, "fanfare_connections", lambda now: now > PLAYERS)
            await until(node, "fanfare_spool_active", lambda active: not active)

        with trio.fail_after(3 * PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crowd.run)
                nursery.start_soon(host.run)
                await crowd.all_in.wait()
                await certain(node)
                await host.command("start")
                await trio.sleep(rng.uniform(0.2, 1.0))
                await trouble()
        assert crowd.ends == {"finished": PLAYERS}
        told = tally(crowd.ledgers)
        results = read_results(await api.results_csv(made["code"]))
        assert compare(crowd.ledgers, results) == []
        assert told.answered == sum(row.answered for row in results) == PLAYERS * len(QUIZ["questions"])
        assert told.unsettled == told.refused == 0
        assert await metric(node, "fanfare_spool_put_aside_facts_total") == 0


async def test_every_ack_before_a_kill_is_kept_and_so_is_who_joined(site: Site) -> None:
    rng = random.Random(5)
    async with site.node("one") as (node, api, gate):
        made, ada = await begun(api)
        acks = {1: await api.answer(made["code"], ada["token"], "a", 1, True)}
        for turn in range(3):
            await certain(node)
            gate.set("shut")

            enough = len(acks) + rng.randrange(5, 40)
            reached = trio.Event()

            async def play(turn: int = turn, enough: int = enough, reached: trio.Event = reached) -> None:
                n = 0
                while True:
                    n += 1
                    try:
                        joined = await api.join(made["code"], f"Player {turn}-{n}")
                        acks[joined["player_id"]] = {}
                        if len(acks) >= enough:
                            reached.set()
                        ack = await api.answer(made["code"], joined["token"], "a", 1, bool(n % 2))
                    except (ApiRefused, Exception):  # noqa: BLE001  # the node is killed under the request
                        return
                    acks[joined["player_id"]] = ack

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(play)
                with trio.fail_after(PATIENCE_S):
                    await reached.wait()
                await node.kill()
            gate.set("open")
            await node.start()
        stored = {player: elapsed_ms for player, _, elapsed_ms in await site.answers(made["session_id"])}
        for player, ack in acks.items():
            if ack:
                assert stored[player] == ack["elapsed_ms"]
        rows = await site.database.fetch(
            "SELECT player FROM players WHERE session_id = $1", made["session_id"]
        )
        assert {row["player"] for row in rows} >= set(acks)
        assert not list((node.data_dir / "spool").glob("*.spool"))


async def test_a_node_stopped_while_another_took_its_session_sends_nothing_more(site: Site) -> None:
    async with site.node("one") as (first, api, _):
        made, ada = await begun(api)
        await certain(first)
        assert first.process is not None
        async with await trio.open_tcp_stream("127.0.0.1", first.ports[1]) as stream:
            await stream.send_all(answer_request(made, ada, question=9))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 409")
            first.process.send_signal(signal.SIGSTOP)
            # The answer waits in the kernel, so it comes to the session before the node can know what has
            # happened. A session that it knows to be another's it would claim anew for the next command.
            await stream.send_all(answer_request(made, ada, question=1))
            async with site.node("two") as (second, other_api, _):
                assert (await other_api.session(made["code"]))["state"]["number"] == 1
                first.process.send_signal(signal.SIGCONT)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 503")
                assert await site.answers(made["session_id"]) == []
                await until(first, "fanfare_journal_fenced_total", bool)
                assert await metric(first, "fanfare_spool_certain") == 0
                assert await metric(second, "fanfare_journal_fenced_total") == 0


async def test_what_was_in_the_spool_of_a_stopped_node_is_merged_and_it_adds_nothing(site: Site) -> None:
    async with site.node("one") as (first, api, gate):
        made, ada = await begun(api)
        ben = await api.join(made["code"], "Ben")
        await certain(first)
        # What a slow commit has sent to the spool is in PostgreSQL by then.
        await until(first, "fanfare_spool_active", lambda active: not active)
        gate.set("shut")
        ack = await api.answer(made["code"], ada["token"], "a", 1, True)
        zoe = await api.join(made["code"], "Zoë")
        assert first.process is not None
        first.process.send_signal(signal.SIGSTOP)
        # Longer than a node may be stopped without noticing.
        noticed_s = trio.current_time() + 2.5
        async with site.node("two") as (second, other_api, _):
            assert (await other_api.session(made["code"]))["state"]["players"] == 2
            await trio.sleep_until(noticed_s)
            first.process.send_signal(signal.SIGCONT)
            with pytest.raises(ApiRefused) as refused:
                await api.answer(made["code"], ben["token"], "b", 1, True)
            assert refused.value.code == "busy"
            assert await metric(first, "fanfare_spool_certain") == 0
            assert (await ready(first))["status"] == 503
            gate.set("open")
            await until(first, "fanfare_spool_put_aside_facts_total", lambda facts: facts >= 2)
            with trio.fail_after(PATIENCE_S):
                while await site.database.fetch("SELECT FROM spooled_facts WHERE merged_at IS NULL"):  # noqa: ASYNC110  # another process
                    await trio.sleep(0.05)
            stored = await site.answers(made["session_id"])
            assert stored == [(ada["player_id"], 1, ack["elapsed_ms"])]
            state = (await other_api.session(made["code"]))["state"]
            assert state["answered"] == 1
            lines = (await other_api.results(made["code"]))["players"]
            assert {line["name"] for line in lines} == {"Ada", "Ben", "Zoë"}
            assert zoe["player_id"] == 3
            assert await metric(second, "fanfare_session_crashes_total") == 0
            assert await metric(first, "fanfare_session_crashes_total") == 0


async def test_a_damaged_spool_keeps_a_node_from_starting_until_somebody_decides(site: Site) -> None:
    async with site.node("one") as (node, api, gate):
        made, ada = await begun(api)
        await certain(node)
        gate.set("shut")
        await api.answer(made["code"], ada["token"], "a", 1, True)
        await api.join(made["code"], "Ben")
        await node.kill()
        [path] = (node.data_dir / "spool").glob("*.spool")
        content = path.read_bytes()
        path.write_bytes(content[:-3] + b"?" + content[-2:])
        gate.set("open")
        code, said = await fanfare(*node.words, forked=True)
        assert code == 1
        assert f"{path} is damaged" in said
        assert "fanfare spool cut" in said
        at = ["--data-dir", str(node.data_dir)]
        code, said = await fanfare("spool", "show", *at, forked=True)
        assert code == 1
        assert made["session_id"] in said
        code, said = await fanfare("spool", "cut", *at, forked=True)
        assert code == 0
        [aside] = node.data_dir.glob("spool-damaged-*")
        assert str(aside) in said
        assert (aside / path.name).exists()
        code, said = await fanfare("spool", "show", *at, forked=True)
        assert code == 0
        assert "1 facts" in said
        await node.start()
        assert len(await site.answers(made["session_id"])) == 1
        code, said = await fanfare("spool", "show", *at, forked=True)
        assert (code, said.strip()) == (0, "The spool is empty.")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_a_disk_that_is_full_turns_answers_away_and_play_goes_on(site: Site, small_disk: Path) -> None:
    small = Site(site.database, site.dsn, small_disk)
    async with small.node("one") as (node, api, gate):
        made, ada = await begun(api)
        ben = await api.join(made["code"], "Ben")
        await certain(node)
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free))
        gate.set("shut")
        acks = []

        async def answer() -> None:
            acks.append(await api.answer(made["code"], ada["token"], "a", 1, True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await until(node, "fanfare_spool_failing", bool)
            with pytest.raises(ApiRefused) as refused:
                await api.answer(made["code"], ben["token"], "b", 1, True)
            assert refused.value.code == "busy"
            assert (await ready(node))["status"] == 503
            state = (await api.session(made["code"]))["state"]
            assert (state["phase"], state["answered"]) == ("question", 1)
            assert acks == []
            filler.unlink()
        assert acks[0]["status"] == "accepted"
        await until(node, "fanfare_spool_failing", lambda failing: not failing)
        assert (await api.answer(made["code"], ben["token"], "b", 1, True))["status"] == "accepted"
        gate.set("open")
        await until(node, "fanfare_spool_active", lambda active: not active)
        assert len(await site.answers(made["session_id"])) == 2
        assert await node.stop() == 0
        assert node.said.count("the spool cannot be written") == 1
