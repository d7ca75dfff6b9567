"""The API of a node whose sessions run on another one: nobody who asks can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command
from engine.actors.options import ActorOptions
from engine.actors.registry import Registry
from engine.shards.ports import Member
from engine.shards.router import Router
from engine.shards.session_factory import SessionFactory
from tests.actors.world import settle
from tests.fakes import MemoryLinks
from tests.http.edge import QUIZ, Edge, Played, Reply, edge
from tests.http.events import stream
from tests.keys import session_id
from tests.realtime import test_exchange as reactor
from tests.settings import AT_ONCE
from tests.shards.fakes import MemoryRedis
from tests.shards.making import member_of
from tests.shards.nodes import Known

NEAR, FAR = member_of("near", role="api"), member_of("far")


class Half:
    """The router of one of the two nodes, and its end of the links."""

    def __init__(self, nursery: trio.Nursery, e: Edge, member: Member, links: MemoryLinks, bus: Any) -> None:
        self.registry = e.registry
        if member is FAR:
            self.registry = Registry(
                nursery,
                store=e.store,
                catalog=e.catalog,
                journal=e.journal,
                tokens=e.tokens,
                clock=e.clock,
                owner=FAR.run,
                options=ActorOptions(),
                gone=lambda run: False,
            )
        known = Known()
        known.see(NEAR, FAR)
        self.router = Router(
            nursery,
            registry=self.registry,
            store=e.store,
            factory=SessionFactory(
                e.catalog,
                e.store,
                known,
                e.clock,
                lambda: session_id(next(e.numbers)),
                lambda: f"{next(e.numbers):06}",
            ),
            members=known,
            links=links.node(member.run, self),
            clock=e.clock,
            bus=bus,
            me=member.run,
            relay_above=10_000,
        )

    def deliver(self, session_id: str, command: Command) -> None:
        self.router.deliver_from_link(session_id, command)

    async def answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        raise NotImplementedError


class Pair:
    """An API, the node behind it that has every session, and what can happen between them."""

    def __init__(self, nursery: trio.Nursery, e: Edge) -> None:
        redis = MemoryRedis()
        self.links = MemoryLinks(nursery)
        self.near = Half(nursery, e, NEAR, self.links, redis.bus(NEAR.run))
        self.far = Half(nursery, e, FAR, self.links, redis.bus(FAR.run))
        e.but(directory=self.near.router)


@asynccontextmanager
async def elsewhere(**config: Any) -> AsyncIterator[tuple[Edge, Pair]]:
    async with edge(**config) as e, trio.open_nursery() as nursery:
        yield e, Pair(nursery, e)
        nursery.cancel_scope.cancel()


async def everything(e: Edge, clock: MockClock) -> list[tuple[str, Reply]]:
    """All that can be asked of a session, from its beginning to when it has left memory."""
    replies: list[tuple[str, Reply]] = []

    async def ask(what: str, asked: Any) -> Reply:
        reply: Reply = await asked
        replies.append((what, reply))
        return reply

    made = (await e.post("/api/quizzes", QUIZ)).json
    opened = await ask("create", e.post("/api/sessions", {"quiz_id": made["id"], **AT_ONCE}))
    session = Played(e, opened.json)
    await ask("page of a lobby", e.get(session.url))
    ada = (await ask("join", e.post(f"{session.url}/players", {"name": "Ada"}))).json
    ben = (await ask("join again", e.post(f"{session.url}/players", {"name": "Ben"}))).json
    await ask("name taken", e.post(f"{session.url}/players", {"name": "Ada"}))
    await ask("answer too early", session.answer(ada, 0))
    await ask("not the host", e.post(f"{session.url}/host", {"do": "start"}, token=ada["token"]))
    await ask("start", session.do("start", id="mine"))
    await ask("start twice", session.do("start", id="mine"))
    clock.jump(1)
    await settle()
    await ask("answer", session.answer(ada, 0))
    await ask("repeated", session.answer(ada, 0))
    await ask("duplicate", session.answer(ada, 1))
    await ask("bad choice", session.answer(ben, 7))
    await ask("wrong question", session.answer(ben, 0, question=2))
    await ask("page of a question", e.get(f"/api/sessions/{session.id}"))
    await ask("leaderboard", e.get(f"{session.url}/leaderboard"))
    await ask("top", e.get(f"{session.url}/leaderboard?top=1"))
    await ask("around me", e.get(f"{session.url}/leaderboard?top=1&around=me", token=ben["token"]))
    await ask("players", e.get(f"{session.url}/players?limit=1", token=session.host_token))
    await ask("results for nobody", e.get(f"{session.url}/results"))
    await ask("results for the host", e.get(f"{session.url}/results", token=session.host_token))
    seen = {"number": 1, "phase": "question"}
    await ask("close", session.do("close", expect=seen))
    await ask("close again", session.do("close", expect=seen))
    await ask("page of a reveal", e.get(session.url))
    await ask("kick", session.do("kick", player=2))
    await ask("of one who was kicked", session.answer(ben, 0))
    await ask("around one who was kicked", e.get(f"{session.url}/leaderboard?around=me", token=ben["token"]))
    await ask("finish", session.do("finish"))
    await ask("page of the end", e.get(session.url))
    await ask("results", e.get(f"{session.url}/results.json"))
    await ask("results as csv", e.get(f"{session.url}/results.csv"))
    await ask("join too late", e.post(f"{session.url}/players", {"name": "Cem"}))
    for _ in range(80):
        clock.jump(1)
        await settle()
    await ask("page from the store", e.get(session.url))
    await ask("results from the store", e.get(f"{session.url}/results"))
    await ask("leaderboard from the store", e.get(f"{session.url}/leaderboard"))
    await ask("players from the store", e.get(f"{session.url}/players", token=session.host_token))
    await ask("answer from the store", session.answer(ada, 0))
    await ask("no such session", e.get("/api/sessions/000000"))
    return replies


ADDRESSES = ("ws_url", "play_url")


def without_addresses(reply: Reply) -> object:
    if reply.headers["Content-Type"] != "application/json":
        return reply.body
    return {name: value for name, value in reply.json.items() if name not in ADDRESSES}


async def test_every_answer_is_as_if_asked_at_the_owner(mock_clock: MockClock) -> None:
    async with edge(author_key="the-author-key") as e:
        at_owner = await asked_by_the_author(e, mock_clock)
    async with elsewhere(author_key="the-author-key") as (e, pair):
        from_afar = await asked_by_the_author(e, mock_clock)
        assert pair.near.router.routed.forwarded > 20
        assert e.registry.statistics().players_joined == 0
    for (what, owners), (_, other) in zip(at_owner, from_afar, strict=True):
        assert other.status == owners.status, what
        assert without_addresses(other) == without_addresses(owners), what


async def asked_by_the_author(e: Edge, clock: MockClock) -> list[tuple[str, Reply]]:
    """With the key where the tokens of a session say nothing."""
    post = e.post

    async def with_key(path: str, json: object = None, **more: Any) -> Reply:
        if path in ("/api/quizzes", "/api/sessions"):
            more["token"] = "the-author-key"
        return await post(path, json, **more)

    e.post = with_key  # type: ignore[method-assign]  # adds the key
    return await everything(e, clock)


async def test_clients_are_shown_the_addresses_of_the_owner() -> None:
    async with elsewhere() as (e, _):
        session = await e.session()
        for reply in (
            await e.get(session.url),
            await e.post(f"{session.url}/players", {"name": "Ada"}),
            await e.post("/api/sessions", {"quiz_id": (await e.get(session.url)).json["quiz_id"]}),
        ):
            assert (reply.json["ws_url"], reply.json["play_url"]) == (FAR.ws_url, FAR.play_url)


async def test_a_stream_from_afar_shows_what_the_owners_stream_shows() -> None:
    async with elsewhere() as (e, pair):
        session = await e.session()
        ada = await session.join("Ada")
        async with (
            stream(e, f"{session.url}/events") as watching,
            stream(e, f"{session.url}/events", token=ada["token"]) as player,
            stream(e, f"{session.url}/events", token=session.host_token) as host,
        ):
            for opened in (watching, player, host):
                joined = await opened.until("joined")
                assert joined.id == "1:0"
            await session.do("start")
            assert "correct" not in (await watching.until("question")).message
            assert "correct" not in (await player.until("question")).message
            question = await host.until("question")
            assert (question.id, question.message["correct"]) == ("1:1", 0)
            await session.answer(ada, 0)
            assert (await player.until("result")).message["points"] == 1000
            assert (await watching.until("reveal")).message["counts"] == [1, 0, 0]
            await session.do("finish")
            assert (await player.until("finished")).message["you"] == {"rank": 1, "score": 1000}
            assert (await watching.until("finished")).message["you"] is None
        await settle()
        (relay,) = pair.near.router.relays()
        assert relay.subscribers == 0, "who goes gives the seat back"


async def test_resume_of_an_event_stream_on_another_node_sends_missed_frames() -> None:
    async with elsewhere() as (e, _):
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            await session.do("start")
            position = (await watching.until("question")).id
        await session.do("close")
        async with stream(e, f"{session.url}/events", last_event_id=position) as back:
            joined = await back.until("joined")
            assert (joined.id, joined.message["state"]) == (None, None)
            assert (await back.until("reveal")).id == "1:2"


async def test_refusals_of_a_stream_from_afar_are_ordinary_errors() -> None:
    async with elsewhere() as (e, pair):
        session = await e.session()
        ada = await session.join("Ada")
        await session.do("kick", player=1)
        refused = await e.get(f"{session.url}/events", token=ada["token"])
        assert (refused.status, refused.error) == (403, "kicked")
        assert sum(relay.subscribers for relay in pair.near.router.relays()) == 0


async def test_a_removed_player_cannot_join_on_another_node_under_another_name() -> None:
    async with elsewhere() as (e, _):
        session = await e.session()
        ada = await session.join("Ada")
        await session.do("kick", player=1)
        refused = await e.post(f"{session.url}/players", {"name": "Ben", "former": ada["token"]})
        assert (refused.status, refused.error) == (403, "kicked")
        assert (await e.post(f"{session.url}/players", {"name": "Ben"})).status == 201


async def test_a_stream_whose_session_moves_here_ends_and_gives_its_seat_back() -> None:
    async with elsewhere() as (e, pair):
        session = await e.session()
        async with stream(e, f"{session.url}/events") as watching:
            await watching.until("joined")
            pair.far.registry.close(CloseReason.RESTARTING)
            last = (await watching.rest())[-1]
            assert (last.message["reason"], last.message["reconnect"]) == ("restarting", "later")


@pytest.mark.parametrize("way", ["cut", "lost"])
async def test_an_owner_that_cannot_be_reached_is_busy(way: str) -> None:
    async with elsewhere() as (e, pair):
        session = await e.session()
        ada = await session.join("Ada")
        if way == "cut":
            pair.links.cut(NEAR.run, FAR.run)
        else:
            pair.links.lose(FAR.run)
        await settle()
        for reply in (
            await session.answer(ada, 0),
            await session.do("start"),
            await e.get(session.url),
            await e.get(f"{session.url}/leaderboard"),
            await e.post(f"{session.url}/players", {"name": "Ben"}),
            await e.get(f"{session.url}/events"),
        ):
            assert (reply.status, reply.error) == (503, "busy")
            assert int(reply.headers["Retry-After"]) >= 1


async def test_an_answer_that_is_lost_on_the_way_back_is_asked_for_again() -> None:
    async with elsewhere() as (e, pair):
        session, ada, _ = await e.started("Ada", "Ben")
        e.journal.auto = "off"
        lost: list[Reply] = []

        async def answer() -> None:
            lost.append(await session.answer(ada, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await settle()
            pair.links.cut(NEAR.run, FAR.run)
        assert (lost[0].status, lost[0].error) == (503, "busy")
        pair.links.heal(NEAR.run, FAR.run)
        e.journal.auto = "now"
        e.journal.commit()
        again = await session.answer(ada, 0)
        assert (again.status, again.json["status"]) == (200, "accepted")


# -- the reactor's port ------------------------------------------------------------------------------


@asynccontextmanager
async def on_both_ports() -> AsyncIterator[tuple[reactor.Ports, Pair]]:
    """As `reactor.ports`, before a node that has no session."""
    async with trio.open_nursery() as nursery:
        pairs: list[Pair] = []

        def router(e: Edge) -> Router:
            pairs.append(Pair(nursery, e))
            return pairs[0].near.router

        async with reactor.ports(router) as e:
            yield e, pairs[0]
        nursery.cancel_scope.cancel()


async def test_answers_and_streams_on_the_realtime_port_reach_a_session_elsewhere() -> None:
    async with on_both_ports() as (e, pair):
        session, ada, ben = await e.started("Ada", "Ben")
        async with e.raw() as raw, e.stream(session.url, token=ben["token"]) as player:
            joined = await player.until("joined")
            assert joined.message["state"]["question"]["number"] == 1
            await raw.send(reactor.answer(session, ada["token"], 0))
            status, ack = await reactor.read_response(raw)
            assert (status, ack["status"], ack["id"]) == (200, "accepted", "a")
            await raw.send(reactor.answer(session, ada["token"], 1))
            assert (await reactor.read_response(raw))[1]["status"] == "duplicate"
            await raw.send(reactor.answer(session, session.host_token, 0))
            status, refused = await reactor.read_response(raw)
            assert (status, refused["error"]["code"]) == (403, "not_player")
            await session.answer(ben, 0)
            assert (await player.until("reveal")).message["counts"] == [2, 0, 0]
            assert (await player.until("result")).message["correct"] is True
            (relay,) = pair.near.router.relays()
            assert relay.subscribers == 1
        await e.until_connections(0)
        assert relay.subscribers == 0
