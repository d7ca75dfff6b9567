from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from loadtest.runs.load_quiz import load_quiz
from loadtest.runs.load_sessions import LoadSessions, NotFinal
from loadtest.runs.scenario import parse

SCENARIO = parse('description = "x"\nplayers = 25\nduration_s = 23\nsession_players = [10, 10]', "x.toml")
RESULT = {
    "rank": 1,
    "player": 1,
    "name": "P1",
    "score": 975,
    "correct": 1,
    "answered": 1,
    "elapsed_ms": 1000,
}


class Nodes:
    """The API of two nodes, which are busy as often as they are told to be."""

    def __init__(self) -> None:
        self.busy = 0
        self.gone: set[str] = set()
        self.asked: list[str] = []
        self.refuse_start: str | None = None
        self.final_after = 0
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.started: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(request.url.host)
        if request.url.host in self.gone:
            raise httpx.ConnectError("refused")
        if self.busy:
            self.busy -= 1
            return httpx.Response(503, json={"error": {"code": "busy", "message": "Later."}})
        if path == "/api/quizzes":
            return httpx.Response(201, json={})
        if path == "/api/sessions":
            self.opened.append((request.url.host, json.loads(request.content)))
            number = len(self.opened)
            opened = {
                "session_id": f"s{number}",
                "code": f"{number:06}",
                "ws_url": "ws://x/ws",
                "host_token": "h",
            }
            return httpx.Response(201, json=opened)
        if path.endswith("/host"):
            if self.refuse_start is not None:
                return httpx.Response(409, json={"error": {"code": self.refuse_start, "message": "No."}})
            self.started.append(f"{request.url.host}{path}")
            return httpx.Response(200, json={"t": "done"})
        # By id: the code may be that of a later session by the time the ledgers are compared.
        assert path.startswith("/api/sessions/s")
        self.final_after -= 1
        return httpx.Response(200, json={"final": self.final_after < 0, "players": [RESULT]})


@asynccontextmanager
async def sessions(nodes: Nodes, *, anywhere: bool = False) -> AsyncIterator[LoadSessions]:
    transport = httpx.MockTransport(nodes)
    async with Api("http://one", transport=transport) as one, Api("http://two", transport=transport) as two:
        yield LoadSessions([one, two], SCENARIO, random.Random(1), anywhere=anywhere)


async def test_sessions_are_opened_on_one_node_after_the_other(autojump_clock: MockClock) -> None:
    nodes = Nodes()
    nodes.busy = 3
    async with sessions(nodes) as made:
        await made.open(load_quiz(1, 20))
        assert [(session.number, session.players) for session in made.opened] == [(0, 10), (1, 10), (2, 5)]
        assert sorted(host for host, _ in nodes.opened) == ["one", "one", "two"]
        assert all(asked["early_close"] is False for _, asked in nodes.opened)
        assert all(asked["player_limit"] >= 25 for _, asked in nodes.opened)
        await made.start()
    assert len(nodes.started) == 3


async def test_a_start_that_was_carried_out_before_is_one(autojump_clock: MockClock) -> None:
    nodes = Nodes()
    async with sessions(nodes) as made:
        await made.open(load_quiz(1, 20))
        nodes.refuse_start = "illegal_move"
        await made.start()
        nodes.refuse_start = "not_host"
        with pytest.raises(ExceptionGroup) as caught:
            await made.start()
    assert all(isinstance(each, ApiRefused) for each in caught.value.exceptions)


async def test_results_are_read_when_they_are_final(autojump_clock: MockClock) -> None:
    nodes = Nodes()
    async with sessions(nodes) as made:
        await made.open(load_quiz(1, 20))
        nodes.final_after = 5
        assert [row.score for row in await made.results(made.opened[0])] == [975]
        nodes.final_after = 10_000
        with pytest.raises(NotFinal):
            await made.results(made.opened[0])


async def test_a_request_that_stays_busy_is_given_up(autojump_clock: MockClock) -> None:
    nodes = Nodes()
    nodes.busy = 10_000
    async with sessions(nodes) as made:
        with pytest.raises(ApiRefused, match="busy"):
            await made.open(load_quiz(1, 20))


async def test_a_node_of_a_cluster_that_is_gone_leaves_its_work_to_the_others(
    autojump_clock: MockClock,
) -> None:
    nodes = Nodes()
    async with sessions(nodes, anywhere=True) as made:
        await made.open(load_quiz(1, 20))
        nodes.gone = {"one"}
        began = trio.current_time()
        await made.start()
        assert trio.current_time() == began, "another one is asked at once"
        assert len(nodes.started) == 3
        assert [row.score for row in await made.results(made.opened[0])] == [975]


async def test_when_all_of_a_cluster_are_gone_they_are_asked_again_but_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    nodes = Nodes()
    nodes.gone = {"one", "two"}
    async with sessions(nodes, anywhere=True) as made:
        with pytest.raises(ApiUnreachable):
            await made.open(load_quiz(1, 20))
    assert nodes.asked == ["one", "two"] * 3


async def test_nobody_else_is_asked_for_a_lone_node(autojump_clock: MockClock) -> None:
    nodes = Nodes()
    nodes.gone = {"one"}
    async with sessions(nodes) as made:
        with pytest.raises(ApiUnreachable):
            await made.open(load_quiz(1, 20))
    assert nodes.asked == ["one"]
