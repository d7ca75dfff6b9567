"""What the host sees of the players: who is in, who is connected, and what changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from trio.testing import MockClock

from engine.actors import deadlines
from engine.actors.actor import SessionActor
from engine.actors.commands import Detach, Join, Left, ListPlayers, Look, Merge, Rejoin, SubscribeNode
from engine.actors.delivery import roster
from engine.actors.delivery.roster import Roster
from engine.actors.live_session import JOINS_FOLLOW_MS
from engine.domain.facts import PlayerJoined
from tests.actors.world import Client, World, node, settle, world

NOTHING: dict[str, list[object]] = {"joined": [], "on": [], "off": [], "kicked": []}


def told(host: Client) -> list[dict[str, Any]]:
    """The rosters so far, without their type."""
    return [{name: value for name, value in each.items() if name != "t"} for each in host.got("roster")]


async def tick(w: World, clock: MockClock) -> None:
    clock.jump(w.options.tick_ms / 1000)
    await settle()


async def listed(actor: SessionActor, after: int = 0, limit: int = 1_000) -> Mapping[str, Any]:
    client = Client()
    actor.send(ListPlayers(client, after, limit))
    await settle()
    assert client.kinds == ["players"]
    return client.last("players")


async def test_the_host_hears_who_joins_comes_goes_and_is_removed(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        host = await w.host(actor)
        await tick(w, mock_clock)
        assert told(host) == [], "who was there before is read from the list"
        ben = await w.join(actor, "Ben")
        over_http = Client()
        actor.send(Join(over_http, "Cem", w.clock.now_ms(), attach=False))
        await settle()
        await tick(w, mock_clock)
        newcomers = [{"id": 2, "name": "Ben"}, {"id": 3, "name": "Cem"}]
        assert told(host) == [
            NOTHING | {"joined": newcomers[:1], "on": [2], "players": 2, "connected": 2},
            NOTHING | {"joined": newcomers[1:], "off": [3], "players": 3, "connected": 2},
        ]
        actor.send(Detach(ada))
        await settle()
        await w.do(actor, "kick", player=2)
        await tick(w, mock_clock)
        assert ben.close_reason is not None
        back = await w.rejoin(actor, 1)
        await tick(w, mock_clock)
        assert told(host)[2:] == [
            NOTHING | {"off": [1], "kicked": [2], "players": 2, "connected": 0},
            NOTHING | {"on": [1], "players": 2, "connected": 1},
        ]
        assert "roster" not in {*ada.kinds, *ben.kinds, *back.kinds}


async def test_it_comes_at_the_pace_of_leaderboards_and_only_when_something_changed(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        for name in ("Ada", "Ben", "Cem"):
            await w.join(actor, name)
        assert len(told(host)) == 1, "the first at once"
        await tick(w, mock_clock)
        assert [line["name"] for each in told(host) for line in each["joined"]] == ["Ada", "Ben", "Cem"]
        assert len(told(host)) == 2
        for _ in range(3):
            await tick(w, mock_clock)
        assert len(told(host)) == 2


async def test_nothing_is_gathered_without_a_host_and_another_host_begins_anew(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        assert actor.live.attendance.roster is None
        first = await w.host(actor)
        await w.join(actor, "Ben")
        await w.join(actor, "Cem")
        second = await w.host(actor)
        await tick(w, mock_clock)
        assert (len(told(first)), told(second)) == (1, [])
        actor.send(Detach(second))
        await settle()
        assert actor.live.attendance.roster is None
        await w.join(actor, "Dan")
        await tick(w, mock_clock)
        assert told(second) == []


async def test_after_the_end_there_is_no_roster(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        host = await w.host(actor)
        await w.do(actor, "finish")
        actor.send(Detach(ada))
        await settle()
        await tick(w, mock_clock)
        assert (told(host), host.kinds[-1]) == ([], "finished")


async def test_one_message_tells_of_so_many_and_the_rest_waits(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "PLAYERS_AT_ONCE_MAX", 2)
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        clients = [Client() for _ in range(5)]
        for number, client in enumerate(clients):
            actor.send(Join(client, f"P{number}", w.clock.now_ms()))
        await settle()
        for _ in range(4):
            await tick(w, mock_clock)
        rosters = told(host)
        assert [each["id"] for roster in rosters for each in roster["joined"]] == [1, 2, 3, 4, 5]
        assert [player for roster in rosters for player in roster["on"]] == [1, 2, 3, 4, 5]
        assert all(len(roster["joined"]) <= 2 for roster in rosters)
        assert (rosters[-1]["players"], rosters[-1]["connected"]) == (5, 5)


async def test_a_client_of_another_node_counts_as_connected_until_that_node_says_otherwise(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        relay, host = Client(), await w.host(actor)
        actor.send(SubscribeNode(relay, "other"))
        for name in ("Ada", "Ben"):
            actor.send(Join(Client(), name, w.clock.now_ms(), relay="other"))
        await settle()
        await tick(w, mock_clock)
        assert (told(host)[-1]["players"], told(host)[-1]["connected"]) == (2, 2)
        gone = Client()
        actor.send(Left(gone, "a third", 1))
        actor.send(Left(gone, "other", 1))
        await settle()
        await tick(w, mock_clock)
        assert gone.kinds == ["done", "done"]
        assert told(host)[-1] == NOTHING | {"off": [1], "players": 2, "connected": 1}
        assert [(each["id"], each["connected"]) for each in (await listed(actor))["players"]] == [
            (1, False),
            (2, True),
        ]
        actor.send(Detach(relay))
        await settle()
        await tick(w, mock_clock)
        assert told(host)[-1] == NOTHING | {"off": [2], "players": 2, "connected": 0}


async def test_a_player_kicked_at_another_node_is_not_connected(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await node(actor)
        actor.send(Join(Client(), "Ada", w.clock.now_ms(), relay="other"))
        await settle()
        host = await w.host(actor)
        await w.do(actor, "kick", player=1)
        await tick(w, mock_clock)
        assert told(host) == [NOTHING | {"kicked": [1], "players": 0, "connected": 0}]


async def test_a_host_at_another_node_is_told_there(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        actor.send(Rejoin(Client(), "host", relay="other"))
        await settle()
        await w.join(actor, "Ada")
        assert relay.last("for_host")["frame"]["joined"] == [{"id": 1, "name": "Ada"}]
        actor.send(Left(Client(), "other", "host"))
        await settle()
        assert actor.live.attendance.roster is None


async def test_a_host_who_stayed_while_the_session_moved_is_told_of_everybody_again(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        for name in ("Ada", "Ben", "Cem"):
            await w.join(actor, name)
        await w.do(actor, "kick", player=2)
        relay = await node(actor, epoch=actor.live.stream.epoch, offset=actor.offset, seats=[1, "host"])
        assert relay.last("for_host")["frame"] == {"t": "roster"} | NOTHING | {
            "joined": [{"id": 1, "name": "Ada"}, {"id": 3, "name": "Cem"}],
            "on": [1, 3],
            "kicked": [2],
            "players": 2,
            "connected": 2,
        }
    assert w.options.tick_ms >= deadlines.HANDED_OVER_MS


async def test_a_relay_that_takes_part_anew_says_who_is_still_there(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await node(actor)
        for name in ("Ada", "Ben"):
            actor.send(Join(Client(), name, w.clock.now_ms(), relay="other"))
        await settle()
        await node(actor, epoch=actor.live.stream.epoch, offset=actor.offset, seats=[2])
        page = await listed(actor)
        assert ([each["connected"] for each in page["players"]], page["connected"]) == ([False, True], 1)


async def test_the_list_goes_page_by_page_without_those_who_were_removed(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(early_close=False, board="live")
        clients = [await w.join(actor, f"P{number}") for number in range(1, 6)]
        await w.do(actor, "start")
        w.answer(actor, clients[4], 5)
        actor.send(Detach(clients[0]))
        await settle()
        await w.do(actor, "kick", player=2)
        first = await listed(actor, limit=2)
        assert first["players"] == [
            {"id": 1, "name": "P1", "score": 0, "rank": 2, "connected": False},
            {"id": 3, "name": "P3", "score": 0, "rank": 2, "connected": True},
        ]
        assert (first["next"], first["total"], first["connected"]) == (3, 4, 3)
        second = await listed(actor, after=3, limit=2)
        assert [(each["id"], each["score"], each["rank"]) for each in second["players"]] == [
            (4, 0, 2),
            (5, 1000, 1),
        ]
        assert second["next"] is None
        assert (await listed(actor, after=5))["players"] == []


async def test_the_roster_has_a_player_once_the_join_is_committed(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        w.journal.auto = "off"
        await w.join(actor, "Ada")
        await tick(w, mock_clock)
        assert told(host) == []
        w.journal.commit()
        await settle()
        assert [each["joined"] for each in told(host)] == [[{"id": 1, "name": "Ada"}]]


async def test_the_roster_has_a_merged_player(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        host = await w.host(actor)
        now = w.clock.now_ms()
        actor.send(Merge(Client(), [PlayerJoined(1, now, 1, "Ada"), PlayerJoined(2, now, 2, "Ben")]))
        await settle()
        await tick(w, mock_clock)
        told_of = NOTHING | {"joined": [{"id": 2, "name": "Ben"}], "off": [2]}
        assert told(host) == [told_of | {"players": 2, "connected": 1}]


async def test_a_player_whose_join_is_still_in_an_earlier_owners_spool_is_told_to_come_again(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        first = await w.session()
        await w.join(first, "Ada")
        assert (await w.rejoin(first, 2)).errors == ["player_not_found"], "nobody had the session before"
        actor = await w.another("next").get(first.session_id)
        await w.do(actor, "start")
        early, asked = await w.rejoin(actor, 2), Client()
        actor.send(Look(asked, "player", 2, top=1))
        w.answer(actor, asked, 2)
        await settle()
        assert early.errors + asked.errors == ["busy", "busy", "busy"]
        now = w.clock.now_ms()
        actor.send(Merge(Client(), [PlayerJoined(1, now, 2, "Ben")]))
        await settle()
        assert (await w.rejoin(actor, 2)).last("joined")["player"] == 2
        mock_clock.jump(JOINS_FOLLOW_MS / 1000)
        assert (await w.rejoin(actor, 3)).errors == ["player_not_found"]


def test_news_of_one_player_is_told_once() -> None:
    gathered = Roster()
    for joined in (False, True, False):
        gathered.note(7, joined=joined)
    assert len(gathered) == 1
