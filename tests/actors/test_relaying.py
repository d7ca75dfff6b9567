"""What an actor does for the nodes that take part in its session, and what it tells those who only look."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.actors import relay_messages, subscriptions
from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Detach, Flushed, Join, Look, Rejoin, Watch
from engine.actors.deadlines import FLUSH_MS
from engine.actors.mailbox import Mailbox
from engine.domain.clock import RECEIPT_GRACE_MS
from tests.actors.world import GRACE_S, Client, World, node, settle, world


async def looked(actor: SessionActor, *args: object, **more: object) -> Client:
    client = Client()
    actor.send(Look(client, *args, **more))  # type: ignore[arg-type]  # passed on as they are
    await settle()
    return client


async def joined_at(w: World, actor: SessionActor, name: str, run: str = "other") -> Client:
    """The admission of a client of that node."""
    admission = Client()
    actor.send(Join(admission, name, w.clock.now_ms(), relay=run))
    await settle()
    return admission


# -- looking -----------------------------------------------------------------------------------------


async def test_each_role_sees_its_own_state(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        w.answer(actor, ada, 1, 0)
        await settle()
        await w.do(actor, "next")
        seen = await looked(actor)
        assert seen.kinds == ["look"]
        look = seen.last("look")
        assert (look["phase"], look["epoch"], look["offset"]) == ("question", actor.epoch, 3)
        assert (look["state"]["you"], "correct" in look["state"]["question"]) == (None, False)
        assert (await looked(actor, "host")).last("look")["state"]["question"]["correct"] == 0
        mine = (await looked(actor, "player", 1)).last("look")["state"]
        assert (mine["you"]["name"], mine["you"]["score"]) == ("Ada", 1000)
        assert actor.subscribers == 1, "who looks takes no seat"


async def test_a_board_has_the_first_and_those_around(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        clients = [await w.join(actor, name) for name in ("Ada", "Ben", "Cem", "Dan")]
        await w.do(actor, "start")
        for player, client in enumerate(clients[:3], start=1):
            mock_clock.jump(1)
            w.answer(actor, client, player)
            await settle()
        board = (await looked(actor, top=2)).last("board")
        assert [line["name"] for line in board["top"]] == ["Ada", "Ben"]
        assert (board["around"], board["players"], board["answered"]) == (None, 4, 3)
        board = (await looked(actor, player=4, top=1)).last("board")
        assert [line["name"] for line in board["top"]] == ["Ada"]
        assert [line["name"] for line in board["around"]] == ["Ben", "Cem", "Dan"]


async def test_around_whom_there_is_nobody_is_refused(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        assert (await looked(actor, player=9, top=1)).errors == ["player_not_found"]
        await w.do(actor, "kick", player=1)
        assert (await looked(actor, player=1, top=1)).errors == ["kicked"]


# -- nodes that take part ----------------------------------------------------------------------------


async def test_a_node_gets_each_broadcast_once_with_the_hosts_beside_it(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        assert relay.last("relayed") == {
            "t": "relayed",
            "session": actor.session_id,
            "code": actor.code,
            "epoch": actor.epoch,
            "offset": 0,
        }
        for name in ("Ada", "Ben"):
            await joined_at(w, actor, name)
        await w.do(actor, "start")
        (question,) = [each for each in relay.got("cast") if each["frame"]["t"] == "question"]
        assert "correct" not in question["frame"]
        assert question["host"]["correct"] == 0
        await w.do(actor, "pause")
        paused = relay.last("cast")
        assert (paused["frame"]["t"], paused["frame"]["phase"], paused["host"]) == ("state", "paused", None)


async def test_the_admission_of_a_client_of_a_node_has_its_first_frames(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await node(actor)
        admission = await joined_at(w, actor, "Ada")
        assert admission.kinds == ["admitted"]
        admitted = admission.last("admitted")
        assert (admitted["role"], admitted["player"]) == ("player", 1)
        (told,) = admitted["frames"]
        assert (told["t"], told["player"], told["state"]["you"]["name"]) == ("joined", 1, "Ada")
        assert actor.subscribers == 1, "the node has one seat, however many its clients"


async def test_nobody_is_let_in_before_the_commit(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await node(actor)
        w.journal.auto = "off"
        admission = await joined_at(w, actor, "Ada")
        assert admission.frames == []
        w.journal.commit()
        await settle()
        assert admission.kinds == ["admitted"]


@pytest.mark.parametrize("place", ["player", "host", "spectator"])
async def test_resume_by_way_of_a_node_sends_missed_frames(place: str, mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        await node(actor)
        for do in ("start", "close", "next"):
            await w.do(actor, do)
        here, there = Client(), Client()
        for client, run in ((there, "other"), (here, None)):
            if place == "spectator":
                actor.send(Watch(client, actor.epoch, 0, relay=run))
            else:
                player = 1 if place == "player" else None
                actor.send(Rejoin(client, place, player, None, actor.epoch, 0, relay=run))  # type: ignore[arg-type]  # one of the roles
        await settle()
        (admitted,) = there.got("admitted")
        assert admitted["role"] == place
        frames = [frame.message for frame in here.frames][: len(admitted["frames"])]
        assert admitted["frames"] == frames
        assert [frame["t"] for frame in frames][:4] == ["joined", "question", "reveal", "question"]


async def test_refusals_reach_the_node_as_they_are(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        await node(actor)
        assert (await joined_at(w, actor, "Ada")).errors == ["name_taken"]
        await w.do(actor, "kick", player=1)
        admission = Client()
        actor.send(Rejoin(admission, "player", 1, relay="other"))
        await settle()
        assert admission.errors == ["kicked"]


async def test_after_a_reveal_a_node_gets_the_standing_in_chunks(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_messages, "ROWS_PER_CHUNK", 2)
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        ada = await w.join(actor, "Ada")
        await w.join(actor, "Ben")
        await joined_at(w, actor, "Cem")
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        await settle()
        await w.do(actor, "close")
        kinds = [
            message.message["frame"]["t"] if message.kind == "cast" else message.kind
            for message in relay.frames
        ]  # type: ignore[index]  # of a cast
        assert kinds[kinds.index("reveal") :] == ["reveal", "standing", "standing", "standing", "leaderboard"]
        chunks = relay.got("standing")
        assert [len(chunk["rows"]) for chunk in chunks] == [2, 1, 0]
        assert [chunk["last"] for chunk in chunks] == [False, False, True]
        assert chunks[0]["rows"] == [(1, 1, "Ada", 1000, True, 1000, 1), (2, 2, "Ben", 0, None, 0, 0)]
        assert {chunk["number"] for chunk in chunks} == {1}
        assert {chunk["finished"] for chunk in chunks} == {None}


async def test_the_end_comes_with_a_standing_and_only_once_it_is_committed(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        await joined_at(w, actor, "Ada")
        w.journal.auto = "off"
        await w.do(actor, "finish")
        assert relay.got("standing") == []
        w.journal.commit()
        await settle()
        chunks = relay.got("standing")
        assert [chunk["finished"] and chunk["finished"]["t"] for chunk in chunks] == [None, "finished"]
        assert chunks[-1]["finished"]["podium"][0]["name"] == "Ada"
        assert not [each for each in relay.got("cast") if each["frame"]["t"] == "finished"]


async def test_without_nodes_no_standing_is_made(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object) -> None:
        raise AssertionError("nobody needs it")

    monkeypatch.setattr(relay_messages, "standing", made)
    monkeypatch.setattr(relay_messages, "cast", made)
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        for do in ("start", "close", "finish"):
            await w.do(actor, do)
        assert ada.kinds[-1] == "finished"


async def test_a_kick_shows_out_who_sits_at_another_node(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        await joined_at(w, actor, "Ada")
        await w.do(actor, "kick", player=1)
        assert relay.got("disconnect") == [{"t": "disconnect", "key": 1, "close_reason": "KICKED"}]


async def test_the_newer_connection_wins_wherever_it_is(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        one, other = await node(actor, "one"), await node(actor, "other")
        await joined_at(w, actor, "Ada", "one")
        replaced = [{"t": "disconnect", "key": 1, "close_reason": "REPLACED"}]
        actor.send(Rejoin(Client(), "player", 1, relay="other"))
        await settle()
        assert (one.got("disconnect"), other.got("disconnect")) == (replaced, [])
        here = await w.rejoin(actor, 1)
        assert other.got("disconnect") == replaced
        actor.send(Rejoin(Client(), "player", 1, relay="one"))
        await settle()
        assert here.close_reason is CloseReason.REPLACED
        assert len(one.got("disconnect")) == 1


async def test_one_who_comes_again_at_the_same_node_is_the_nodes_affair(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        await joined_at(w, actor, "Ada")
        actor.send(Rejoin(Client(), "player", 1, relay="other"))
        await settle()
        assert relay.got("disconnect") == []


async def test_a_node_that_leaves_hears_nothing_more_of_its_players(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        await joined_at(w, actor, "Ada")
        actor.send(Detach(relay))
        await settle()
        heard = len(relay.frames)
        await w.do(actor, "kick", player=1)
        await w.do(actor, "start")
        assert (len(relay.frames), actor.subscribers) == (heard, 0)


async def test_a_later_relay_of_a_run_takes_the_place_of_the_earlier(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        earlier, later = await node(actor), await node(actor)
        actor.send(Detach(earlier))
        await settle()
        await w.do(actor, "start")
        assert (len(earlier.got("cast")), actor.subscribers) == (0, 1)
        assert later.got("cast")


# -- taking part again -------------------------------------------------------------------------------


async def test_a_node_that_comes_back_gets_the_questions_it_missed(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.do(actor, "start")
        await w.do(actor, "pause")
        relay = await node(actor, epoch=actor.epoch, offset=0, seats=())
        assert relay.kinds == ["relayed", "cast", "cast", "cast"]
        assert relay.last("relayed")["offset"] == 0, "where it stands; the rest follows"
        question, state, board = relay.got("cast")
        assert board["frame"]["t"] == "leaderboard", "which has no offset to be missed by"
        assert (question["frame"]["offset"], question["host"]["correct"]) == (1, 0)
        assert state["frame"]["offset"] == 2


async def test_the_countdown_that_a_node_missed_is_told_as_it_stands(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        mock_clock.jump(5)
        back = await node(actor, epoch=actor.epoch, offset=0, seats=[])
        question = back.got("cast")[0]
        told = {(each["remaining_ms"], each["now"]) for each in (question["frame"], question["host"])}
        assert told == {(15_000, w.clock.now_ms())}


@pytest.mark.parametrize("why", ["reveal", "epoch", "history"])
async def test_a_node_that_missed_too_much_begins_where_the_session_is(
    why: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "RESULTS_AT_ONCE_MAX", 0)
    async with world() as w:
        actor, _ = await w.started("Ada")
        if why == "reveal":
            await w.do(actor, "close")
        epoch, offset = actor.epoch + (why == "epoch"), -1 if why == "history" else 0
        relay = await node(actor, epoch=epoch, offset=offset, seats=[1])
        assert relay.kinds == ["relayed"]
        assert (relay.last("relayed")["epoch"], relay.last("relayed")["offset"]) == (
            actor.epoch,
            actor.offset,
        )


async def test_a_node_that_missed_the_end_of_a_question_gets_the_results_of_a_small_session(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        for do in ("start", "close", "next", "close", "next"):
            await w.do(actor, do)
        relay = await node(actor, epoch=actor.epoch, offset=0, seats=())
        told = ["relayed", "cast", "cast", "cast", "cast", "standing", "standing", "cast", "cast"]
        assert relay.kinds == told, "those of the last question, after its reveal"
        assert relay.last("standing")["number"] == 2


async def test_a_node_that_missed_the_end_gets_it_with_the_standing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        await w.do(actor, "finish")
        relay = await node(actor, epoch=actor.epoch, offset=2, seats=())
        told = ["relayed", "standing", "standing", "cast", "standing", "standing"]
        assert relay.kinds == told, (
            "the results and the last board, which the link may have lost, and the end"
        )
        assert relay.last("cast")["frame"]["t"] == "leaderboard"
        assert relay.last("standing")["finished"]["offset"] == 3


async def test_the_players_of_a_node_that_comes_back_are_its_own_again(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        first = await node(actor)
        await joined_at(w, actor, "Ada")
        actor.send(Detach(first))
        again = await node(actor, epoch=actor.epoch, offset=0, seats=[1])
        await w.do(actor, "kick", player=1)
        assert again.got("disconnect") == [{"t": "disconnect", "key": 1, "close_reason": "KICKED"}]


async def test_a_client_that_has_moved_on_meanwhile_is_not_replaced(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        first = await node(actor, "one")
        for name in ("Ada", "Ben", "Cem"):
            await joined_at(w, actor, name, "one")
        actor.send(Detach(first))
        await node(actor, "other")
        ada = await w.rejoin(actor, 1)
        actor.send(Rejoin(Client(), "player", 2, relay="other"))
        await settle()
        again = await node(actor, "one", epoch=actor.epoch, offset=0, seats=[1, 2, 3])
        assert ada.close_reason is None
        assert [(told["key"], told["close_reason"]) for told in again.got("disconnect")] == [
            (1, "REPLACED"),
            (2, "REPLACED"),
        ]


async def test_a_player_kicked_meanwhile_is_disconnected(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        first = await node(actor)
        for name in ("Ada", "Ben"):
            await joined_at(w, actor, name)
        actor.send(Detach(first))
        await w.do(actor, "kick", player=1)
        again = await node(actor, epoch=actor.epoch, offset=0, seats=[1, 2])
        assert again.got("disconnect") == [{"t": "disconnect", "key": 1, "close_reason": "KICKED"}]


# -- time --------------------------------------------------------------------------------------------


async def test_with_nodes_a_deadline_waits_for_answers_on_their_way(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor, prompt=False)
        await joined_at(w, actor, "Ada")
        await joined_at(w, actor, "Ben")
        await w.do(actor, "start")
        began = w.clock.now_ms()
        mock_clock.jump(20 + GRACE_S)
        await settle()
        number = relay.last("flush")["number"]
        assert actor.session.question_open
        in_time, late, passed = Client(), Client(), Client()
        actor.send(Answer(in_time, 1, "a", 1, 0, began + 19_999))
        actor.send(Answer(late, 2, "a", 1, 0, began + 20_001 + RECEIPT_GRACE_MS))
        actor.send(Flushed(passed, "other", number))
        await settle()
        assert in_time.last("ack")["elapsed_ms"] == 19_999
        assert late.errors == ["late"]
        assert passed.kinds == ["done"]
        assert [each["frame"]["counts"] for each in relay.got("cast") if each["frame"]["t"] == "reveal"] == [
            [1, 0, 0]
        ]


async def test_a_deadline_does_not_wait_for_ever_for_a_node_that_says_nothing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        relay = await node(actor, prompt=False)
        await w.do(actor, "start")
        mock_clock.jump(20 + GRACE_S)
        await settle()
        number = relay.last("flush")["number"]
        actor.send(Flushed(Client(), "other", number - 1))
        actor.send(Flushed(Client(), "somebody else", number))
        await settle()
        assert not ada.got("reveal"), "neither was the answer that it waits for"
        mock_clock.jump(FLUSH_MS / 1000)
        await settle()
        assert len(ada.got("reveal")) == 1


@pytest.mark.parametrize("what", ["somebody is gone", "the session expires"])
async def test_what_comes_due_while_a_deadline_waits_for_a_node_waits_with_it(
    what: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait = Mailbox.wait

    async def counted(mailbox: Mailbox[object], *, for_items: bool = True) -> None:
        nonlocal waits
        waits += 1
        await wait(mailbox, for_items=for_items)

    monkeypatch.setattr(Mailbox, "wait", counted)
    async with world() as w:
        actor = await w.session(early_close=True)
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        await node(actor, prompt=False)
        await w.do(actor, "start")
        mock_clock.jump(19)
        if what == "somebody is gone":
            actor.send(Detach(ada))
            await settle()
        else:
            actor.live.deadlines.expires_at = w.clock.now_ms() + 2_000
        mock_clock.jump(1 + GRACE_S)
        await settle()
        waits = 0
        mock_clock.jump(2.5)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert waits <= 2, "it does not look again and again"
        assert not ben.got("reveal")
        mock_clock.jump(FLUSH_MS / 1000 - 2.5)
        await settle()
        assert len(ben.got("reveal" if what == "somebody is gone" else "finished")) == 1


async def test_a_deadline_does_not_wait_for_a_node_that_has_gone(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        relay = await node(actor, prompt=False)
        await w.do(actor, "start")
        mock_clock.jump(20 + GRACE_S)
        await settle()
        actor.send(Detach(relay))
        await settle()
        assert len(ada.got("reveal")) == 1


async def test_without_nodes_a_deadline_is_seen_to_at_once(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        actor.send(Detach(await node(actor, prompt=False)))
        await w.do(actor, "start")
        mock_clock.jump(20 + GRACE_S)
        await settle()
        assert ada.kinds.count("reveal") == 1


# -- moving on ---------------------------------------------------------------------------------------


async def test_a_snapshot_has_the_subscribed_nodes(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        await joined_at(w, actor, "Ada")
        snapshot = await w.registry.give_away(actor.session_id)
        assert snapshot is not None
        assert list(snapshot.relays) == [relay]
        assert (list(snapshot.seated), relay.close_reason) == ([], None)


async def test_the_end_of_an_actor_ends_the_nodes_part_in_it(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        relay = await node(actor)
        w.registry.close(CloseReason.SHUTDOWN)
        await settle()
        assert relay.close_reason is CloseReason.SHUTDOWN
