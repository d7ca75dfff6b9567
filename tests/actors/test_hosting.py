"""A host with a nervous thumb: commands about what the host saw."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors import live_session
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Host, Join, ListPlayers, Rejoin, TakeOver
from engine.domain.session import Session
from tests.actors.world import QUIZ, Client, node, settle, world


async def test_a_command_sent_twice_is_one_step(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        thumbs = [Client() for _ in range(3)]
        for thumb in thumbs:
            actor.send(Host(thumb, "h", "start", seen_number=0, seen_phase="lobby"))
        await settle()
        assert [thumb.errors for thumb in thumbs] == [[], ["illegal_move"], ["illegal_move"]]
        await w.do(actor, "close", seen_number=1, seen_phase="question")
        for thumb in thumbs:
            actor.send(Host(thumb, "h", "next", seen_number=1, seen_phase="reveal"))
        await settle()
        assert actor.session.number == 2
        await w.do(actor, "close")
        # It had been on its way for long: the same phase, and another question.
        late = await w.do(actor, "next", seen_number=1, seen_phase="reveal")
        assert late.errors == ["illegal_move"]
        assert (actor.session.number, len(host.got("question"))) == (2, 2)


async def test_a_command_that_the_clock_was_faster_than_changes_nothing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="auto", reveal_ms=1000)
        await w.do(actor, "start")
        mock_clock.jump(20.005)
        await settle()
        assert actor.session.phase == "reveal"
        mock_clock.jump(1)
        late = await w.do(actor, "next", seen_number=1, seen_phase="reveal")
        assert late.errors == ["illegal_move"]
        assert (actor.session.number, actor.session.phase) == (2, "question")


@pytest.mark.parametrize("closed", [False, True])
async def test_a_skipped_question_counts_for_nobody(closed: bool, mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(streak=True)
        host, relay = await w.host(actor), await node(actor)
        ada, ben = [await w.join(actor, name) for name in ("Ada", "Ben")]
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        w.answer(actor, ben, 2, 1)
        await settle()
        await w.do(actor, "next")
        w.answer(actor, ben, 2, question=2)
        await settle()
        if closed:
            w.answer(actor, ada, 1, question=2)
            await settle()
            assert actor.session.leaderboard.rank(1) == 1
            assert ada.last("result")["score"] == 2100
        skipped = await w.do(actor, "skip", seen_number=2, seen_phase="reveal" if closed else "question")
        assert skipped.last("done")["phase"] == "reveal"
        assert [line["score"] for line in host.last("leaderboard")["top"]] == [1000, 0]
        for each in (ada, ben, host):
            assert each.last("reveal")["skipped"] is True
        mine = {"points": 0, "correct": None, "skipped": True, "number": 2}
        assert ada.last("result").items() >= (mine | {"score": 1000, "streak": 1}).items()
        assert ben.last("result").items() >= (mine | {"score": 0, "streak": 0}).items()
        assert [chunk["skipped"] for chunk in relay.got("standing")][-1] is True
        # Once more does no harm, and the row of right answers goes on.
        facts = actor.session.seq
        assert (await w.do(actor, "skip")).errors == []
        assert actor.session.seq == facts
        await w.do(actor, "next")
        w.answer(actor, ada, 1, question=3)
        w.answer(actor, ben, 2, question=3)
        await settle()
        assert "skipped" not in ada.last("result")
        assert ada.last("result").items() >= {"score": 2100, "points": 1100, "streak": 2}.items()
        assert actor.session == Session.recover(
            QUIZ, actor.record.settings, actor.record.created_at, w.store.facts(actor.session_id)
        )


async def test_an_answer_to_a_skipped_question_is_acknowledged_as_ever(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await w.started("Ada", "Ben")
        w.answer(actor, ada, 1)
        await w.do(actor, "skip")
        w.answer(actor, ada, 1)
        await settle()
        first, again = ada.got("ack")
        assert first == again
        late = Client()
        w.answer(actor, late, 2)
        await settle()
        assert late.errors == ["question_closed"]


async def test_points_of_many_are_taken_back_little_by_little(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece is a step of its own, also when the session is brought back."""
    pieces: list[int] = []

    def settle_skip(session: Session, most: int | None = None) -> bool:
        if session._unsettled:
            assert most is not None
            pieces.append(min(most, len(session._unsettled)))
        return settled(session, most)

    settled = Session.settle_skip
    monkeypatch.setattr(Session, "settle_skip", settle_skip)
    monkeypatch.setattr(live_session, "SETTLED_AT_ONCE_MAX", 2)
    async with world() as w:
        actor = await w.session()
        for number in range(1, 6):
            client = await w.join(actor, f"player {number}")
            if number == 1:
                await w.do(actor, "start")
            w.answer(actor, client, number)
            await settle()
            if number == 1:
                break
        assert actor.session.phase == "reveal"
        await w.do(actor, "next")
        for number in range(2, 7):
            await w.join(actor, f"player {number}")
        for number in range(1, 6):
            w.answer(actor, Client(), number, question=2)
        await settle()
        assert (await w.do(actor, "skip")).errors == []
        assert pieces == [2, 2, 1]
        assert [entry.score for entry in actor.session.leaderboard.ranked()] == [1000, 0, 0, 0, 0, 0]
        w.store.take_over(actor.session_id)
        pieces.clear()
        await w.do(actor, "lock", on=True)
        again = await w.node.get(actor.session_id)
        assert again is not actor
        assert pieces == [2, 2, 1]
        assert again.session.leaderboard == actor.session.leaderboard


async def test_a_player_removed_by_mistake_is_readmitted(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host, ada, ben = await w.host(actor), *[await w.join(actor, name) for name in ("Ada", "Ben")]
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        await settle()
        await w.do(actor, "close")
        await w.do(actor, "next")
        w.answer(actor, ben, 2, question=2)
        await settle()
        mock_clock.jump(1)
        await settle()
        await w.do(actor, "kick", player=1)
        assert (ada.close_reason, actor.session.phase) == (CloseReason.KICKED, "reveal")
        assert (await w.rejoin(actor, 1)).errors == ["kicked"]
        removed = Client()
        actor.send(ListPlayers(removed, 0, 10, removed=True))
        await settle()
        assert removed.last("players")["players"] == [{"id": 1, "name": "Ada"}]
        assert (await w.do(actor, "readmit", player=1)).last("done")["do"] == "readmit"
        assert (await w.do(actor, "readmit", player=1)).errors == []
        assert (await w.do(actor, "readmit", player=9)).errors == ["player_not_found"]
        back = await w.rejoin(actor, 1)
        assert back.last("joined")["state"]["you"].items() >= {"name": "Ada", "score": 1000}.items()
        mock_clock.jump(1)
        await settle()
        assert host.last("roster")["joined"] == [{"id": 1, "name": "Ada"}]
        assert host.last("leaderboard")["top"][0]["score"] == 1000
        await w.do(actor, "next")
        w.answer(actor, back, 1, question=3)
        await settle()
        assert back.last("ack")["status"] == "accepted"
        assert actor.session == Session.recover(
            QUIZ, actor.record.settings, actor.record.created_at, w.store.facts(actor.session_id)
        )


async def test_a_removed_player_cannot_join_under_another_name() -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")

        async def join(name: str, session: str | None, player: int | None) -> Client:
            client = Client()
            now = w.clock.now_ms()
            actor.send(Join(client, name, now, former_session=session, former_player=player))
            await settle()
            return client

        assert (await join("Ben", actor.session_id, 1)).last("joined")["player"] == 2, "nobody was removed"
        await w.do(actor, "kick", player=1)
        assert (await join("Cy", actor.session_id, 1)).errors == ["kicked"]
        others = (("another", 1), (actor.session_id, 2), (actor.session_id, 99), (None, None))
        for number, (session, player) in enumerate(others):
            assert (await join(f"Player {number}", session, player)).got("joined")
        await w.do(actor, "approval", on=True)
        assert (await join("Cy", actor.session_id, 1)).errors == ["kicked"]
        await w.do(actor, "approval", on=False)
        await w.do(actor, "readmit", player=1)
        assert (await join("Cy", actor.session_id, 1)).got("joined")


async def test_an_author_takes_a_session_over_and_the_older_host_is_told(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        older, relay = Client(), await node(actor)
        actor.send(Rejoin(older, "host", generation=0))
        await settle()
        taken = Client()
        w.journal.auto = "off"
        actor.send(TakeOver(taken))
        await settle()
        assert older.close_reason is CloseReason.REPLACED
        assert taken.frames == [], "not before it is stored"
        w.journal.auto = "soon"
        w.journal.commit()
        await settle()
        assert taken.kinds == ["host_token"]
        assert (await w.do(actor, "start", generation=0)).errors == ["token_replaced"]
        for command in (
            Rejoin(older := Client(), "host", generation=0),
            ListPlayers(older, 0, 9, generation=0),
        ):
            actor.send(command)
        await settle()
        assert older.errors == ["token_replaced"] * 2
        newer = Client()
        actor.send(Rejoin(newer, "host", generation=1))
        await settle()
        assert newer.last("joined")["role"] == "host"
        assert (await w.do(actor, "start", generation=1)).errors == []
        assert relay.close_reason is None
        # It is a fact, and so holds at whichever node runs the session next.
        again = await w.another("other").get(actor.session_id)
        assert again.session.host_generation == 1
        await w.do(again, "finish")
        actor_over = Client()
        again.send(TakeOver(actor_over))
        await settle()
        assert actor_over.errors == ["session_finished"]


async def test_a_script_may_say_nothing_of_what_it_saw(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        for do in ("start", "close", "next"):
            assert (await w.do(actor, do)).errors == []
        assert actor.session.number == 2
