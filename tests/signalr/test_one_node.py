"""Microsoft's client against a node as a process of its own, and what happens to both."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.storage.postgres import Row
from tests.door import door_to
from tests.e2e.node import Node, running_node
from tests.signalr.clients import Clients, Refused, clients
from tests.signalr.quizzes import STORED, Play, stored
from tests.web.leading import Session, opened

CROWD = 200


def hub_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/hub"


@asynccontextmanager
async def led(node: Node, *types: str) -> AsyncIterator[tuple[Session, Clients, str]]:
    """A session, clients, and the hub's address."""
    settings = {"early_close": False}
    async with (
        opened(node.url, *types, author_key=node.author_key, **settings) as session,
        clients() as running,
    ):
        yield session, running, hub_url(node.ports[1])


async def answers_in(node: Node, session: Session) -> Sequence[Row]:
    return await node.query(STORED, session.session_id)


async def test_the_node_is_killed_in_mid_question() -> None:
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        async with (
            running_node(Path(path) / "data") as (node, _),
            led(node, "single", "single", "single") as (session, running, url),
        ):
            play = Play(session, running, url, url)
            await play.join()

            async def kill() -> None:
                await node.kill()
                await node.start()

            await play.ask()
            await play.ask(kill)
            await play.ask()
            for story in await play.finish():
                assert (story["resumed"], story["anew"]) == (0, 1)
            assert stored(await answers_in(node, session)) == play.acks


async def test_the_network_is_cut(node: Node) -> None:
    door = door_to(node.ports[1])
    async with (
        door.standing(),
        led(node, "single", "single", "single") as (session, running, url),
    ):
        play = Play(session, running, hub_url(door.port), url)
        await play.join()

        async def lose_the_answers() -> None:
            door.set("frozen")
            await running.do("story", "screen")  # by now they are on their way
            door.set("shut")
            door.set("open")

        async def lose_the_acks() -> None:
            door.set("one way")
            await play.until_answered()
            door.set("shut")
            door.set("open")

        await play.ask(lose_the_answers)
        await play.ask(lose_the_acks)
        await play.ask()
        for story in await play.finish():
            assert (story["resumed"], story["anew"]) == (2, 0)
        assert stored(await answers_in(node, session)) == play.acks


async def test_one_answer_by_two_clients_of_one_player(node: Node) -> None:
    async with led(node, "single") as (session, running, url):
        me = await running.connect("first", url, join={"code": session.code, "name": "Ada"})
        await session.lead("start")
        await running.do("expect", "first", type="question")
        answer = {"id": "a", "question": 1, "choice": 1}
        ack = await running.invoke("first", "Answer", answer)
        await running.connect("second", url, transport="LongPolling", protocol="messagepack")
        await running.invoke("second", "Join", {"code": session.code, "token": me["token"]})
        assert "replaced: " in await running.do("ended", "first")
        assert await running.invoke("second", "Answer", answer) == ack
        assert await running.invoke("second", "Answer", {**answer, "id": "b"}) == {**ack, "id": "b"}
        other = await running.invoke("second", "Answer", {**answer, "id": "c", "choice": 0})
        assert (ack["status"], other["status"]) == ("accepted", "duplicate")
        assert [row["elapsed_ms"] for row in await answers_in(node, session)] == [ack["elapsed_ms"]]


async def test_tokens_that_are_wrong(node: Node) -> None:
    async with (
        led(node, "single") as (session, running, url),
        opened(node.url, "single", author_key=node.author_key) as other,
    ):
        for transport in ("WebSockets", "ServerSentEvents", "LongPolling"):
            # A token is good for joining: until then nobody looks at it, and the connection outlives it.
            await running.connect(transport, url, transport=transport, token="wrong")
            for token in ({}, {"token": "wrong"}, {"token": other.token}):
                with pytest.raises(Refused, match="token_invalid: "):
                    await running.invoke(transport, "Join", {"code": session.code, **token})
            joined = await running.invoke(transport, "Join", {"code": session.code, "name": transport})
            assert joined["role"] == "player"
        # By the address of the API, which sends it on.
        await running.connect("host", f"{node.url}/hub", token=session.token)
        assert (await running.invoke("host", "Join", {"code": session.code}))["role"] == "host"
        with pytest.raises(Refused, match="WebSocket failed to connect"):
            await running.connect("stranger", f"{url}?id=made-up.signature", skip=True)


async def test_a_client_that_asks_for_stateful_reconnect_does_without(node: Node) -> None:
    async with led(node, "single") as (session, running, url):
        await running.connect("ada", url, stateful=True, join={"code": session.code, "name": "Ada"})
        await session.lead("start")
        await running.do("expect", "ada", type="question")


async def test_two_hundred_clients_in_one_session(node: Node) -> None:
    async with led(node, "single") as (session, running, url):
        await running.do("crowd", "player", count=CROWD, url=url, join={"code": session.code})
        await session.lead("start")
        for question in await running.do("all", "player", of="expect", type="question"):
            assert question["number"] == 1
        call = {"target": "Answer", "args": [1, 1]}
        acks = await running.do("all", "player", of="invoke", **call)
        assert [ack["status"] for ack in acks] == ["accepted"] * CROWD
        await session.lead("close")
        results = await running.do("all", "player", of="expect", type="result")
        assert [result["correct"] for result in results] == [True] * CROWD
        await session.lead("finish")
        ends = await running.do("all", "player", of="expect", type="finished")
        assert sorted(end["you"]["rank"] for end in ends)[0] == 1
        assert [story["gaps"] for story in await running.do("all", "player", of="story")] == [[]] * CROWD
        rows = await answers_in(node, session)
        assert sorted(row["elapsed_ms"] for row in rows) == sorted(ack["elapsed_ms"] for ack in acks)
