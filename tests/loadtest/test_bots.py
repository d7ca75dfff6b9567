"""Crowds of bots in a toy session, on virtual time: their ledgers must agree with what it stored."""

from __future__ import annotations

import httpx
import pytest
import trio

from loadtest.bots.bot import Crowd
from loadtest.bots.habits import CrowdPlan
from loadtest.bots.knowledge import Knowledge
from loadtest.client.api import Api
from loadtest.runs.ledger import compare, tally
from tests.loadtest.scripted import ScriptedServer, question
from tests.loadtest.toy_session import ToySession, server_of

QUIZ = {
    "questions": [
        {
            "type": "single",
            "text": question(1)["text"],
            "choices": question(1)["choices"],
            "correct": "Lisbon",
        }
    ]
    * 3
}


def crowd_of(session: ToySession, server: ScriptedServer, plan: CrowdPlan) -> Crowd:
    api = Api("http://quiz.example", transport=httpx.MockTransport(session.http))
    return Crowd(
        plan,
        ws_url="ws://quiz.example/ws",
        code="123456",
        api=api,
        knowledge=Knowledge(QUIZ),
        connect=server.connect,
    )


async def test_every_bot_plays_to_the_end_and_the_ledgers_agree(autojump_clock: object) -> None:
    session = ToySession()
    joined: list[int] = []
    async with trio.open_nursery() as nursery:
        crowd = crowd_of(session, server_of(nursery, session), CrowdPlan(40, http_share=0.2))
        nursery.start_soon(crowd.run, lambda: joined.append(1))
        await crowd.all_in.wait()
        await session.lead()

    assert len(joined) == len(session.names) == 40
    assert crowd.ends == {"finished": 40}
    assert compare(crowd.ledgers, session.results()) == []
    added = tally(crowd.ledgers)
    assert added.players == 40
    assert added.answered == len(session.answers) > 100
    assert added.score == sum(row.score for row in session.results()) > 0
    assert session.joins_by_http >= 2
    assert session.answers_by_http > 0
    assert session.answers_by_http + session.answers_heard > len(session.answers)


async def test_the_same_seed_gives_the_same_answers(autojump_clock: object) -> None:
    async def play(seed: int) -> dict[tuple[str, int], object]:
        session = ToySession()
        async with trio.open_nursery() as nursery:
            plan = CrowdPlan(10, seed=seed, drop_share=0.0)
            crowd = crowd_of(session, server_of(nursery, session), plan)
            nursery.start_soon(crowd.run)
            await crowd.all_in.wait()
            await session.lead()
        names = session.names
        return {(names[player - 1], number): given[0] for (player, number), given in session.answers.items()}

    first = await play(3)
    assert first == await play(3)
    assert first != await play(4)


async def test_cut_connections_cost_no_answer(autojump_clock: object) -> None:
    session = ToySession(open_s=60)
    async with trio.open_nursery() as nursery:
        plan = CrowdPlan(20, drop_share=1.0, silent_share=0.0, http_share=0.0)
        crowd = crowd_of(session, server_of(nursery, session), plan)
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        await session.lead()

    assert crowd.reconnects >= 20
    assert len(session.answers) == 60
    assert compare(crowd.ledgers, session.results()) == []
    assert tally(crowd.ledgers).unsettled == 0


async def test_a_node_that_is_killed_in_mid_question_and_comes_back(autojump_clock: object) -> None:
    session = ToySession(open_s=40)
    async with trio.open_nursery() as nursery:
        server = server_of(nursery, session)
        plan = CrowdPlan(20, silent_share=0.0, http_share=0.0)
        crowd = crowd_of(session, server, plan)
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        nursery.start_soon(session.lead)
        await trio.sleep(2)
        session.restart()
        await session.cut_all()

    assert crowd.ends == {"finished": 20}
    assert crowd.reconnects >= 20
    assert len(session.answers) == 60
    assert compare(crowd.ledgers, session.results()) == []


async def test_a_busy_api_is_asked_again(autojump_clock: object) -> None:
    session = ToySession()
    session.broken = 3
    async with trio.open_nursery() as nursery:
        plan = CrowdPlan(2, http_share=1.0, silent_share=0.0)
        crowd = crowd_of(session, server_of(nursery, session), plan)
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        session.broken = 1
        await session.lead()

    assert session.joins_by_http == 2
    assert compare(crowd.ledgers, session.results()) == []
    assert tally(crowd.ledgers).answered == 6


async def test_answers_over_http_go_elsewhere_when_their_node_is_gone(autojump_clock: object) -> None:
    session = ToySession()
    session.play_is_gone = True
    async with trio.open_nursery() as nursery:
        plan = CrowdPlan(2, http_share=1.0, silent_share=0.0)
        crowd = crowd_of(session, server_of(nursery, session), plan)
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        await session.lead()

    assert session.answers_by_http >= 6
    assert compare(crowd.ledgers, session.results()) == []


async def test_each_bot_begins_at_one_of_the_nodes_and_finds_another_when_it_is_gone(
    autojump_clock: object,
) -> None:
    session = ToySession()
    dialed: list[str] = []
    async with trio.open_nursery() as nursery:
        server = server_of(nursery, session)

        async def connect(url: str) -> trio.abc.Stream:
            dialed.append(url)
            if url == "ws://gone/ws":
                raise ConnectionRefusedError(111, "Connection refused")
            return await server.connect(url)

        api = Api("http://quiz.example", transport=httpx.MockTransport(session.http))
        urls = ["ws://gone/ws", "ws://there/ws"]
        plan = CrowdPlan(20, http_share=0.0)
        crowd = Crowd(plan, ws_url=urls, code="123456", api=api, knowledge=Knowledge(QUIZ), connect=connect)
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        await session.lead()

    assert crowd.ends == {"finished": 20}
    assert 3 < dialed.count("ws://gone/ws") < 17


async def test_without_a_server_the_crowd_gives_up(autojump_clock: object) -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    async with trio.open_nursery() as nursery:
        api = Api("http://quiz.example", transport=httpx.MockTransport(unreachable))
        server = ScriptedServer(nursery, [])
        plan = CrowdPlan(6, http_share=0.5, patience_s=20)
        crowd = Crowd(plan, ws_url="ws://quiz.example/ws", code="123456", api=api, connect=server.connect)
        await crowd.run()

    assert crowd.ends == {"unreachable": 6}
    assert crowd.all_in.is_set()
    assert tally(crowd.ledgers).players == 0


@pytest.mark.parametrize("lost", [True, False])
async def test_a_wrong_book_is_found(autojump_clock: object, lost: bool) -> None:
    session = ToySession()
    async with trio.open_nursery() as nursery:
        crowd = crowd_of(session, server_of(nursery, session), CrowdPlan(5, silent_share=0.0, drop_share=0.0))
        nursery.start_soon(crowd.run)
        await crowd.all_in.wait()
        await session.lead()

    (player, number), (choice, elapsed_ms) = next(iter(session.answers.items()))
    if lost:
        del session.answers[player, number]
    else:
        session.answers[player, number] = (choice, elapsed_ms + 1)
    found = compare(crowd.ledgers, session.results())
    assert session.names[player - 1] in {mismatch.name for mismatch in found}
