"""The parts of the longer commands: files, audits, and nodes as processes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import httpx
import pytest
import trio

from loadtest.client.api import Api
from loadtest.runs.ledger import Ledger
from server.cli.cluster import node_process
from server.cli.operate.sql import totals_query
from server.cli.play import bot_runner
from server.cli.terminal import explained, sole
from tests.loadtest.scripted import question

CSV = "rank,player,name,score,correct,answered,elapsed_ms\r\n1,1,Ada,0,0,{answered},0\r\n"


def api_of(answered: int, finals: list[bool]) -> Api:
    """Results that become final as `finals` says, one request at a time."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(".csv"):
            return httpx.Response(200, text=CSV.format(answered=answered))
        return httpx.Response(200, json={"final": finals.pop(0) if finals else False, "players": []})

    return Api("http://x", transport=httpx.MockTransport(answer))


async def test_an_audit_waits_until_the_results_are_final(autojump_clock: object) -> None:
    ledger = Ledger("Ada", player=1, final=(0, 1))
    found = await bot_runner.audit(api_of(0, [False, False, True]), "123456", [ledger])
    assert found.mismatches == []
    assert (found.stored_answers, found.stored_score) == (0, 0)
    assert trio.current_time() == pytest.approx(0.4)


async def test_an_audit_finds_what_does_not_agree(autojump_clock: object) -> None:
    ledger = Ledger("Ada", player=1, final=(0, 1))
    found = await bot_runner.audit(api_of(1, [True]), "123456", [ledger])
    assert [mismatch.what for mismatch in found.mismatches] == ["answers"]


async def test_results_that_never_become_final_are_an_error(autojump_clock: object) -> None:
    with pytest.raises(click.ClickException, match="have not become final"):
        await bot_runner.audit(api_of(0, []), "123456", [])


async def test_bots_learn_from_a_file_or_from_the_server(tmp_path: Path) -> None:
    quiz = {
        "title": "One",
        "questions": [
            {
                "type": "single",
                "text": question(1)["text"],
                "choices": question(1)["choices"],
                "correct": "Lisbon",
            }
        ],
    }
    path = tmp_path / "one.json"
    path.write_text(json.dumps(quiz), encoding="utf-8")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"quiz": quiz}))
    api = Api("http://x", transport=transport)
    for source in (str(path), "one"):
        assert (await bot_runner.knowledge_of(api, source)).right(question(1)) == 1
    assert (await bot_runner.knowledge_of(api, None)).right(question(1)) is None


def test_more_bots_than_open_files_are_refused() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(click.ClickException, match="open files"):
        bot_runner.make_room_for(hard)
    bot_runner.make_room_for(1)


def test_the_query_takes_nothing_but_an_id() -> None:
    session = str(uuid.uuid4())
    assert session in totals_query(session)
    with pytest.raises(ValueError, match="badly formed"):
        totals_query("x'; DROP TABLE answers; --")


def test_one_failure_within_groups_is_explained() -> None:
    failure = click.ClickException("It does not work.")
    assert explained(sole(ExceptionGroup("a", [ExceptionGroup("b", [failure])]))) is failure
    assert explained(sole(ExceptionGroup("a", [failure, failure]))) is None
    assert explained(ZeroDivisionError()) is None


async def spoken(program: str) -> node_process.Output:
    """What is heard of a process until it has ended."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output = node_process.Output(process)
    with pytest.raises(click.ClickException, match="ended by itself"):
        await output.read()
    await process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        await stream.aclose()
    return output


async def test_the_address_of_a_node_is_what_serve_prints() -> None:
    from server.cli.operate import serve
    from server.node import Running

    lines: list[str] = []
    running = Running(
        http_url="http://127.0.0.1:43210",
        ws_url="ws://127.0.0.1:43211/ws",
        sessions_recovered=0,
        author_key="k",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click, "echo", lines.append)
        serve.greet(running)
    output = await spoken(f"print({'; '.join(lines)!r}.replace('; ', chr(10)))")
    assert output.address == "http://127.0.0.1:43210"
    assert output.address_known.is_set()


@pytest.mark.parametrize(
    ("bound", "url"),
    [
        (("0.0.0.0", 43210), "http://127.0.0.1:43210"),
        (("::", 43210, 0, 0), "http://[::1]:43210"),
        (("192.168.1.5", 43210), "http://192.168.1.5:43210"),
    ],
)
def test_a_node_that_listens_everywhere_is_told_by_a_loopback_name(bound: tuple[Any, ...], url: str) -> None:
    from server.listening import url_of

    assert url_of("http", cast(Any, SimpleNamespace(getsockname=lambda: bound)), None) == url


async def test_the_last_complaints_of_a_node_that_dies_are_told() -> None:
    output = await spoken("print('one'); raise SystemExit('port 5001 is taken')")
    assert output.address is None
    assert output.tail == "\n  port 5001 is taken"
