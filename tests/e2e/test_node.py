"""The whole thing: real processes, real sockets, a real PostgreSQL, and ledgers that must agree."""

from __future__ import annotations

import json
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio_websocket

from loadtest.bots.bot import Crowd
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api, ApiRefused
from loadtest.client.player import HostClient, PlayerClient
from loadtest.runs.ledger import compare, read_results, tally
from server.listening import free_ports
from tests.e2e.node import PATIENCE_S, Node, fanfare, running_node
from tests.settings import AT_ONCE

PLAYERS = 60

QUIZ = {
    "title": "All five",
    "scoring": {"rule": "speed", "streak": True},
    "questions": [
        {"type": "single", "text": "One of three", "choices": ["a", "b", "c"], "correct": "b"},
        {"type": "multiple", "text": "Two of three", "choices": ["a", "b", "c"], "correct": ["a", "c"]},
        {"type": "true_false", "text": "True", "correct": True},
        {"type": "text", "text": "Say hello", "accept": ["hello", "Grüß Gott"]},
        {"type": "numeric", "text": "Pi", "correct": 3.14, "tolerance": 0.01},
    ],
}
"""Every type of question, 20 s each; with bots that think for a moment each closes early."""

SIGN_OF_LIFE_MS = 500
"""A node says at least so often that it is alive, with the time to commit it."""

AGREED = "1 session audited: no difference.\n"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not below pytest's own directory: that one is closed to the user that runs the database."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        yield Path(path) / "data"


async def play(node: Node, api: Api, *, kill_in: int | None = None) -> str:
    """A session with bots from the lobby to the podium, and the ledgers afterwards. Returns its code.

    Args:
        kill_in: the question in the middle of which the node is killed and started again.
    """
    await api.add_quiz(QUIZ, "all-five")
    made = await api.create_session("all-five", {**AT_ONCE, "pace": "auto", "reveal_ms": 500})
    plan = CrowdPlan(PLAYERS, seed=7, think_s=0.3, silent_share=0.0, drop_share=0.05)
    crowd = Crowd(plan, ws_url=node.ws_url, code=made["code"], api=api, knowledge=Knowledge(QUIZ))
    host = HostClient(
        node.ws_url, made["code"], token=made["host_token"], rng=random.Random(1), patience_s=PATIENCE_S
    )
    with trio.fail_after(2 * PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run)
            nursery.start_soon(host.run)
            await crowd.all_in.wait()
            await host.command("start")
            if kill_in is not None:
                await _half_answered(api, made["code"], kill_in)
                await node.kill()
                await node.start()
    assert crowd.ends == {"finished": PLAYERS}

    told = tally(crowd.ledgers)
    results = read_results(await api.results_csv(made["code"]))
    assert compare(crowd.ledgers, results) == []
    assert told.players == len(results) == PLAYERS
    assert told.answered == sum(row.answered for row in results) == PLAYERS * len(QUIZ["questions"])
    assert told.unsettled == told.refused == 0
    by_sql = await node.query(
        "SELECT player, count(*) AS answered, sum(points) AS score FROM answers "
        "WHERE session_id = $1 GROUP BY player",
        made["session_id"],
    )
    assert {row["player"]: (row["answered"], row["score"]) for row in by_sql} == {
        row.player: (row.answered, row.score) for row in results
    }
    assert await fanfare("audit", made["code"], "--data-dir", str(node.data_dir), forked=True) == (0, AGREED)
    return str(made["code"])


async def _half_answered(api: Api, code: str, number: int) -> None:
    """Until this question is open and some have answered it."""
    while True:
        state = (await api.session(code))["state"]
        if state["number"] >= number and state["answered"] > PLAYERS / 4:
            assert state["phase"] == "question"
            return
        await trio.sleep(0.02)


async def test_a_whole_session_and_its_books(data_dir: Path) -> None:
    async with running_node(data_dir, forked=False) as (node, api):
        await play(node, api)
        assert await node.stop(signal.SIGINT) == 0
        assert node.database_processes == []
        assert "Traceback" not in node.said


async def test_bots_at_their_own_pace_use_the_attempts_that_they_have(data_dir: Path) -> None:
    async with running_node(data_dir) as (node, api):
        await api.add_quiz(QUIZ, "all-five")
        made = await api.create_session("all-five", {"pace": "self", "attempts": 3})
        plan = CrowdPlan(20, seed=7, think_s=0.05, silent_share=0.0, drop_share=0.05, http_share=0.3)
        crowd = Crowd(plan, ws_url=node.ws_url, code=made["code"], api=api, knowledge=Knowledge(QUIZ))
        with trio.fail_after(2 * PATIENCE_S):
            await crowd.run()
        await api.host(made["code"], made["host_token"], "f", "finish")
        told, results = tally(crowd.ledgers), read_results(await api.results_csv(made["code"]))
        assert compare(crowd.ledgers, results) == []
        assert (told.players, told.unsettled, told.unheard, told.refused) == (20, 0, 0, 0)
        assert told.answered > sum(row.answered for row in results) == 20 * len(QUIZ["questions"])
        rows = await node.query("SELECT 1 FROM answers WHERE session_id = $1", made["session_id"])
        assert len(rows) == told.answered


async def test_a_key_that_was_wrong_is_corrected_while_the_node_runs(data_dir: Path) -> None:
    async with running_node(data_dir) as (node, api):
        code = await play(node, api)
        before = await api.results(code)
        words = ["rescore", code, "--question", "1", "--data-dir", str(data_dir), "--yes", "--correct"]
        done = await fanfare(*words, "c", forked=True)
        assert (done[0], done[1].splitlines()[-1]) == (0, "Stored as correction 1 of the session.")
        after = await api.results(code)
        assert after != before
        by_csv = read_results(await api.results_csv(code))
        assert [(row.player, row.score) for row in by_csv] == [
            (row["player"], row["score"]) for row in after["players"]
        ]
        assert await node.stop() == 0
        assert await fanfare("audit", code, "--data-dir", str(data_dir), forked=True) == (0, AGREED)
        assert (await fanfare(*words, "b", forked=True))[0] == 0
        await node.start()
        assert await api.results(code) == before


async def test_a_node_that_is_killed_in_mid_question_loses_nothing(data_dir: Path) -> None:
    async with running_node(data_dir, forked=False) as (node, api):
        await play(node, api, kill_in=3)


async def test_the_clock_of_a_question_is_extended_by_the_outage(data_dir: Path) -> None:
    async with running_node(data_dir) as (node, api):
        await api.add_quiz(QUIZ, "all-five")
        made = await api.create_session(
            "all-five", {**AT_ONCE, "pace": "auto", "lobby_ms": 300, "early_close": False}
        )
        ada = await api.join(made["code"], "Ada")
        while (await api.session(made["code"]))["state"]["phase"] == "lobby":  # noqa: ASYNC110 - in another process
            await trio.sleep(0.02)
        ack = await api.answer(made["code"], ada["token"], "a", 1, 1)
        killed_s = trio.current_time()
        await node.kill()
        await trio.sleep(1.5)
        await node.start()
        after = (await api.session(made["code"]))["state"]
        assert (after["number"], after["answered"]) == (1, 1)
        assert await api.answer(made["code"], ada["token"], "a", 1, 1) == ack
        await api.join(made["code"], "Ben")  # in order: with this, all before it is committed
        since_ms = (trio.current_time() - killed_s) * 1000
        rows = await node.query(
            "SELECT by_ms FROM session_changes WHERE session_id = $1 AND kind = 'extended' ORDER BY seq",
            made["session_id"],
        )
        assert rows[0]["by_ms"] > 1500
        # Once: where the machine stands still afterwards, that is given back too, but no moment twice.
        # The sign of life is given every half second, so that much may be given back too much.
        assert sum(row["by_ms"] for row in rows) < since_ms + SIGN_OF_LIFE_MS


async def test_a_node_that_stood_still_takes_the_answers_of_its_players_afterwards(data_dir: Path) -> None:
    prompt = {**QUIZ, "questions": [{**QUIZ["questions"][0], "time_limit_s": 5}]}
    async with running_node(data_dir) as (node, api):
        await api.add_quiz(prompt, "prompt")
        made = await api.create_session("prompt", {**AT_ONCE, "early_close": False})
        heard: list[dict[str, object]] = []
        async with trio_websocket.open_websocket_url(node.ws_url) as socket:
            await socket.send_message(json.dumps({"t": "join", "code": made["code"], "name": "Ada"}))

            async def hear(kind: str) -> dict[str, object]:
                with trio.fail_after(PATIENCE_S):
                    while not heard or heard[-1]["t"] != kind:
                        heard.append(json.loads(await socket.get_message()))
                return heard[-1]

            await hear("joined")
            await api.host(made["code"], made["host_token"], "h", "start")
            await hear("question")
            await trio.sleep(1)
            assert node.process is not None
            node.process.send_signal(signal.SIGSTOP)
            await socket.send_message(json.dumps({"t": "answer", "id": "a", "question": 1, "choice": 1}))
            await trio.sleep(6)
            node.process.send_signal(signal.SIGCONT)
            ack = await hear("ack")
            assert ack["status"] == "accepted"
            # It is answered as of the moment at which the node stopped.
            assert 500 < ack["elapsed_ms"] < 3_000  # type: ignore[operator]  # of JSON
            [told] = [message for message in heard if message["t"] == "state"]
            assert 5_500 < told["extended_ms"] < 9_000  # type: ignore[operator]  # of JSON
            assert not any(message["t"] == "reveal" for message in heard)
            await hear("reveal")
            assert heard[-1]["counts"] == [0, 1, 0]
        code, said = await fanfare("audit", made["code"], "--data-dir", str(node.data_dir), forked=True)
        assert (code, said.endswith(AGREED)) == (0, True)


async def test_one_answer_by_two_ways_at_once(data_dir: Path) -> None:
    async with running_node(data_dir) as (node, api):
        await api.add_quiz(QUIZ, "all-five")
        made = await api.create_session("all-five", {**AT_ONCE, "pace": "auto", "early_close": False})
        ada = PlayerClient(node.ws_url, made["code"], "Ada", rng=random.Random(1))
        host = HostClient(node.ws_url, made["code"], token=made["host_token"], rng=random.Random(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ada.run)
            nursery.start_soon(host.run)
            await ada.arrived.wait()
            await host.command("start")
            acks = []

            async def by_websocket() -> None:
                acks.append(dict((await ada.answer(1, 1)).message))

            async def by_http() -> None:
                assert ada.token is not None
                acks.append(dict(await api.answer(made["code"], ada.token, "http", 1, 1)))

            async with trio.open_nursery() as both:
                both.start_soon(by_websocket)
                both.start_soon(by_http)
            for ack in acks:
                del ack["id"]
            assert acks[0] == acks[1]
            assert acks[0]["status"] == "accepted"
            rows = await node.query(
                "SELECT elapsed_ms FROM answers WHERE session_id = $1", made["session_id"]
            )
            assert [row["elapsed_ms"] for row in rows] == [acks[0]["elapsed_ms"]]
            nursery.cancel_scope.cancel()


async def test_the_same_token_twice(data_dir: Path) -> None:
    async with running_node(data_dir) as (node, api):
        made = await api.create_session("quick-tour", {})
        first = PlayerClient(node.ws_url, made["code"], "Ada", rng=random.Random(1))
        async with trio.open_nursery() as nursery:

            async def come_again() -> None:
                await first.arrived.wait()
                second.token = first.token
                nursery.start_soon(second.run)

            second = PlayerClient(node.ws_url, made["code"], "Ada", rng=random.Random(2))
            nursery.start_soon(come_again)
            with trio.fail_after(PATIENCE_S):
                assert await first.run() == "replaced"
                await second.arrived.wait()
            assert second.connected
            nursery.cancel_scope.cancel()


async def test_sessions_survive_a_restart_in_good_order(data_dir: Path) -> None:
    async with running_node(data_dir, forked=False) as (node, api):
        made = await api.create_session("quick-tour", {})
        joined = await api.join(made["code"], "Ada")
        assert await node.stop() == 0
        await node.start()
        state = (await api.session(made["code"]))["state"]
        assert (state["phase"], state["players"]) == ("lobby", 1)
        with pytest.raises(ApiRefused) as refused:
            await api.join(made["code"], "Ada")
        assert refused.value.code == "name_taken"
        assert joined["player_id"] == 1


async def test_what_keeps_a_node_from_starting_is_said_in_one_line(data_dir: Path) -> None:
    async with running_node(data_dir) as (node, _):
        other = free_ports(2)
        taken = await fanfare(
            "serve", "--data-dir", str(data_dir / "other"), "--http-port", str(node.ports[0])
        )
        assert taken[0] == 1
        assert f"port {node.ports[0]} on 127.0.0.1 is taken" in taken[1]
        assert "--http-port" in taken[1]
        words = ["serve", "--http-port", str(other[0]), "--realtime-port", str(other[1])]
        in_use = await fanfare(*words, "--data-dir", str(data_dir))
        assert in_use[0] == 1
        assert "is in use by process" in in_use[1]
        away = await fanfare(
            *words,
            "--data-dir",
            str(data_dir / "other"),
            "--database-url",
            "postgresql://x:secret@127.0.0.1:1/x",
        )
        assert away[0] == 1
        assert "PostgreSQL" in away[1]
        assert "secret" not in away[1]
        for _, said in (taken, in_use, away):
            assert len(said.strip().splitlines()) == 1, said


async def test_the_commands_of_the_readme(data_dir: Path) -> None:
    async with running_node(data_dir, forked=False) as (node, _):
        at = ["--url", node.url]
        code, said = await fanfare(
            "session", "start", "quick-tour", "--lobby", "4", "--reveal", "1", *at, data_dir=data_dir
        )
        assert code == 0
        session = next(word for word in said.split() if word.isdigit() and len(word) == 6)
        seen: list[tuple[int, str]] = []

        async def watch() -> None:
            seen.append(await fanfare("watch", session, *at, data_dir=data_dir))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            code, said = await fanfare(
                "bots", session, "--players", "40", "--quiz", "quick-tour", "--think", "0.2",
                "--silent-share", "0", *at, data_dir=data_dir,
            )  # fmt: skip
        assert code == 0, said
        assert "The ledgers agree" in said
        assert seen[0][0] == 0
        assert "Podium" in seen[0][1]
        code, said = await fanfare("session", "results", session, "--csv", *at, data_dir=data_dir)
        assert code == 0
        assert len(said.strip().splitlines()) == 41
        assert (await fanfare("doctor", *at, data_dir=data_dir))[0] == 0
