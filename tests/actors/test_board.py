"""While a question is open nobody is told who is ahead: how many have answered is what moves."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.commands import ListPlayers, Look
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from tests.actors.world import Client, World, node, settle, world

PLAYERS = 80
FIELDS = {"t", "offset", "number", "answered", "players"}


async def asked(
    w: World, actor: SessionActor, command: type[Look] | type[ListPlayers], **more: int
) -> object:
    client = Client()
    actor.send(command(client, **more))  # type: ignore[arg-type]  # fields of the one or the other
    await settle()
    return client.frames[-1].message


async def answered_one_by_one(
    w: World, actor: SessionActor, players: list[Client], mock_clock: MockClock, every_s: float
) -> None:
    for number, player in enumerate(players, 1):
        w.answer(actor, player, number)
        await settle()
        mock_clock.jump(every_s)
        await settle()


@pytest.mark.parametrize("board", ["at_close", "live"])
async def test_what_a_question_in_progress_costs_players(mock_clock: MockClock, board: str) -> None:
    """Frames to one player, to the host and to the screen from the opening to the close of a question of 20 s
    to which somebody answers every quarter of a second."""
    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(early_close=False, board=board)
        players = [await w.join(actor, f"P{n}") for n in range(1, PLAYERS + 1)]
        host, screen = await w.host(actor), await w.watch(actor)
        mock_clock.jump(2)
        await w.do(actor, "start")
        await settle()
        watched = (players[0], host, screen)
        before = [len(each.frames) for each in watched]
        await answered_one_by_one(w, actor, players[1:], mock_clock, 0.25)
        sent = [[frame.kind for frame in each.frames[n:]] for each, n in zip(watched, before, strict=True)]
        kinds = {kind for each in sent for kind in each}
        if board == "live":
            assert (kinds, [len(each) for each in sent]) == ({"leaderboard"}, [PLAYERS - 1] * 3)
        else:
            assert kinds == {"progress"}
            # What players are told goes to all, so who leads hears one of the counts twice.
            assert [len(each) for each in sent] == [19, PLAYERS, PLAYERS]


async def test_the_count_moves_and_the_board_stays(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(early_close=False)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        host, screen = await w.host(actor), await w.watch(actor)
        mock_clock.jump(2)
        await w.do(actor, "start")
        for each in (ada, ben, host, screen):
            each.frames.clear()
        w.answer(actor, ada, 1)
        await settle()
        told = {"t": "progress", "offset": 1, "number": 1, "answered": 1, "players": 2}
        assert host.last("progress") == screen.last("progress") == told
        assert ben.frames == []
        cid = await w.join(actor, "Cid")
        assert len(screen.got("progress")) == 1
        mock_clock.jump(0.25)
        await settle()
        assert screen.last("progress") == {**told, "players": 3}
        mock_clock.jump(0.75)
        await settle()
        assert ben.kinds == ["progress"]
        assert ben.last("progress") == {**told, "players": 3}
        mock_clock.jump(5)
        await settle()
        assert ben.kinds == ["progress"], "nothing changed, nothing sent"
        board = cid.last("joined")["state"]["leaderboard"]
        assert (board["answered"], {each["score"] for each in board["top"]}) == (1, {0})

        w.answer(actor, ben, 2, 1)
        await w.do(actor, "close")
        broadcasts = [kind for kind in ben.kinds if kind != "ack"]
        assert broadcasts == ["progress", "reveal", "result", "leaderboard"]
        assert len(ben.got("ack")) == 1
        assert [(line["rank"], line["score"]) for line in ben.last("leaderboard")["top"]] == [
            (1, 1000),
            (2, 0),
            (2, 0),
        ]
        mock_clock.jump(5)
        await settle()
        assert len(ben.got("progress")) == 1, "the count does not come after the close"


async def test_a_session_that_only_players_are_in_tells_counts_as_rarely_as_they_get_them(
    mock_clock: MockClock,
) -> None:
    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(early_close=False)
        players = [await w.join(actor, f"P{n}") for n in range(1, PLAYERS + 1)]
        mock_clock.jump(2)
        await w.do(actor, "start")
        await settle()
        sent = actor.live.counters.sent
        told, before = len(players[0].frames), sent.broadcasts
        await answered_one_by_one(w, actor, players[1:], mock_clock, 0.25)
        assert sent.broadcasts - before == len(players[0].frames) - told == 19
        screen = await w.watch(actor)
        assert screen.last("progress")["answered"] == PLAYERS - 1
        w.answer(actor, players[0], PLAYERS)
        mock_clock.jump(0.25)
        await settle()
        assert screen.last("progress")["answered"] == PLAYERS, "at the next tick"


async def test_a_fan_out_that_takes_long_makes_the_count_rarer_for_players_alone(
    mock_clock: MockClock,
) -> None:
    class Far(Client):
        def push(self, frame: Frame) -> None:
            super().push(frame)
            if frame.kind == "progress":
                mock_clock.jump(0.1)

    async with world(ActorOptions(tick_ms=250, tick_max_ms=4_000)) as w:
        actor = await w.session(early_close=False)
        players = [await w.join(actor, f"P{n}") for n in range(1, PLAYERS + 1)]
        far = Far()
        w.seat(actor, far)
        away = await w.rejoin(actor, 1)
        await w.do(actor, "start")
        await settle()
        far.frames.clear()
        await answered_one_by_one(w, actor, players[1:], mock_clock, 0.5)
        assert len(far.got("progress")) > 2 * len(away.got("progress")) > 10


async def test_a_leaderboard_goes_out_for_who_was_removed_and_shows_nothing_else(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        ada, ben, cid = [await w.join(actor, name) for name in ("Ada", "Ben", "Cid")]
        mock_clock.jump(2)
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        w.answer(actor, ben, 2)
        await w.do(actor, "kick", player=2)
        mock_clock.jump(2)
        await settle()
        assert [(line["name"], line["score"]) for line in cid.last("leaderboard")["top"]] == [
            ("Ada", 0),
            ("Cid", 0),
        ]
        assert cid.last("progress")["answered"] == 1


async def test_nodes_that_take_part_are_told_for_whom_the_count_is(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(early_close=False)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        other = await node(actor)
        mock_clock.jump(2)
        await w.do(actor, "start")
        other.frames.clear()
        for number, client in enumerate((ada, ben), 1):
            w.answer(actor, client, number)
            mock_clock.jump(0.75)
            await settle()
        casts = [(message["frame"]["answered"], message["players"]) for message in other.got("cast")]
        assert casts == [(1, False), (2, True)]
        assert set(other.last("cast")["frame"]) == FIELDS


async def test_a_session_that_comes_up_again_shows_the_same_board(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await w.started("Ada", "Ben", early_close=False)
        w.answer(actor, ada, 1)
        await settle()
        before = actor.session
        actor.give_away()
        await settle()
        revived = await w.node.get(actor.session_id)
        assert revived is not actor
        assert revived.session.leaderboard == before.leaderboard
        back = await w.rejoin(revived, 1)
        you = back.last("joined")["state"]["you"]
        assert (you["score"], you["rank"], you["streak"]) == (0, 1, 0)
