"""A session actor as its clients and its journal see it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from engine.actors import direct
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Detach, Erase, Host, Join, Look, Rejoin, SubscribeNode
from engine.actors.live_session import FINISHED_LINGER_S
from engine.actors.options import ActorOptions
from engine.domain.session import Phase
from tests.actors.world import GRACE_S, START_MS, Client, settle, world


async def test_a_whole_quiz_at_the_hosts_pace(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        host = await w.host(actor)
        assert ada.last("joined")["player"] == 1
        assert ada.last("joined")["state"]["phase"] == "lobby"
        assert (await w.do(actor, "start")).last("done")["phase"] == "question"
        question = ada.last("question")
        assert question["number"] == 1
        assert question["of"] == 3
        assert "correct" not in question
        assert host.last("question")["correct"] == 0

        mock_clock.jump(2)
        w.answer(actor, ada, 1, 0, id="mine")
        w.answer(actor, ben, 2, 1)
        await settle()
        assert ada.last("ack") == {
            "t": "ack",
            "id": "mine",
            "question": 1,
            "status": "accepted",
            "elapsed_ms": 2000,
        }
        reveal = ada.last("reveal")
        assert (reveal["correct"], reveal["counts"]) == (0, [1, 1, 0])
        assert ada.last("result") | {"around": None} == {
            "t": "result",
            "number": 1,
            "correct": True,
            "points": 950,
            "score": 950,
            "rank": 1,
            "streak": 1,
            "around": None,
        }
        assert ben.last("result")["points"] == 0
        assert [entry["name"] for entry in ben.last("result")["around"]] == ["Ada", "Ben"]
        assert ben.last("leaderboard")["top"][0] == {"rank": 1, "id": 1, "name": "Ada", "score": 950}

        for phase in ("question", "reveal", "question", "reveal", "finished"):
            await w.do(actor, "next" if phase != "reveal" else "close")
            assert actor.session.phase == phase
        assert ada.last("finished")["you"] == {"rank": 1, "score": 950}
        assert host.last("finished")["you"] is None
        assert ada.offsets == [1, 2, 3, 4, 5, 6, 7]
        assert host.offsets == ada.offsets


async def test_nothing_is_confirmed_before_the_commit(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        w.journal.auto = "off"
        w.answer(actor, ada, 1)
        ben = await w.join(actor, "Ben")
        paused = await w.do(actor, "pause")
        assert ada.got("ack") == []
        assert ben.frames == []
        assert paused.frames == []
        assert ada.last("reveal")["counts"] == [1, 0, 0], "what everybody sees does not wait"
        w.journal.commit()
        await settle()
        assert len(ada.got("ack")) == 1
        assert ben.last("joined")["player"] == 2
        assert paused.last("done")["do"] == "pause"


async def test_a_repeated_answer_gets_the_same_ack_and_only_after_the_commit(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        w.journal.auto = "off"
        over_http = Client()
        w.answer(actor, ada, 1, 0, id="x")
        w.answer(actor, over_http, 1, 0, id="x")  # type: ignore[arg-type]
        await settle()
        assert ada.got("ack") == over_http.got("ack") == []
        w.journal.commit()
        await settle()
        assert ada.got("ack") == over_http.got("ack")
        assert ada.last("ack")["status"] == "accepted"
        w.answer(actor, ada, 1, 1, id="y")
        await settle()
        assert ada.last("ack") == {
            "t": "ack",
            "id": "y",
            "question": 1,
            "status": "duplicate",
            "elapsed_ms": 0,
        }
        assert [type(f).__name__ for f in w.store.facts(actor.session_id)].count("AnswerAccepted") == 1


async def test_the_newer_connection_of_a_token_wins(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        first = await w.join(actor, "Ada")
        second = await w.rejoin(actor, 1)
        assert first.close_reason is CloseReason.REPLACED
        assert second.last("joined")["name"] == "Ada"
        actor.send(Detach(first))
        await w.do(actor, "start")
        mock_clock.jump(1)
        await settle()
        assert second.kinds[-1] == "question"
        assert first.got("question") == []


async def test_an_ack_or_two_are_sent_as_the_commit_is_told_and_many_by_the_actor(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        players = [await w.join(actor, f"P{number}") for number in range(1, 8)]
        await w.do(actor, "start")
        w.journal.auto = "off"
        for count in (1, 2, 4):
            answering, players = players[:count], players[count:]
            for player in answering:
                w.answer(actor, player, player.last("joined")["player"])
            await settle()
            assert not any(player.got("ack") for player in answering)
            w.journal.commit()
            assert sum(len(player.got("ack")) for player in answering) == min(count, 2)
            await settle()
            assert [len(player.got("ack")) for player in answering] == [1] * count


async def test_a_session_that_was_taken_over_confirms_nothing_more(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        w.journal.auto = "off"
        w.answer(actor, ada, 1)
        await settle()
        actor.fenced()
        actor.live.confirmations.committed(actor.session.seq)
        await settle()
        assert ada.got("ack") == []
        assert ada.close_reason is CloseReason.RESTARTING


async def test_the_leaderboard_comes_at_most_once_a_tick(mock_clock: MockClock) -> None:
    async with world(ActorOptions(tick_ms=250)) as w:
        actor = await w.session(early_close=False, board="live")
        screen = await w.watch(actor)
        players = [await w.join(actor, f"P{n}") for n in range(1, 6)]
        mock_clock.jump(1)
        await w.do(actor, "start")
        await settle()
        before = len(screen.got("leaderboard"))
        for number, player in enumerate(players, 1):
            w.answer(actor, player, number)
            await settle()
        assert len(screen.got("leaderboard")) == before
        mock_clock.jump(0.25)
        await settle()
        assert len(screen.got("leaderboard")) == before + 1
        assert screen.last("leaderboard")["answered"] == 5
        mock_clock.jump(5)
        await settle()
        assert len(screen.got("leaderboard")) == before + 1, "nothing changed, nothing sent"


async def test_auto_pace_plays_by_the_clock_alone(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="auto", lobby_ms=10_000, reveal_ms=5_000)
        ada = await w.join(actor, "Ada")
        timeline = []
        for _ in range(90):
            mock_clock.jump(1)
            await settle()
            timeline.append(actor.session.phase)
            if actor.session.phase is Phase.FINISHED:
                break
        assert len(timeline) == 10 + 3 * (20 + 5)
        assert ada.kinds.count("question") == ada.kinds.count("reveal") == 3
        assert ada.offsets == [1, 2, 3, 4, 5, 6, 7]


async def test_what_was_received_in_time_counts_however_long_it_lay_in_the_mailbox(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        clients = [await w.join(actor, f"P{n}") for n in range(1, 251)]
        await w.do(actor, "start")
        mock_clock.jump(20 + GRACE_S)
        for number, client in enumerate(clients, 1):
            actor.send(Answer(client, number, "a", 1, 0, START_MS + 19_999))
        late = Client()
        actor.send(Answer(late, 1, "late", 1, 1, w.clock.now_ms() + 1))
        await settle()
        assert all(client.last("ack")["status"] == "accepted" for client in clients)
        assert clients[0].last("reveal")["counts"] == [250, 0, 0]


async def test_a_host_who_comes_right_after_the_deadline_finds_the_question_closed(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        mock_clock.jump(20 + GRACE_S)
        w.answer(actor, ada, 1)
        assert (await w.do(actor, "next")).last("done")["phase"] == "question"
        assert ada.last("ack")["status"] == "accepted"
        assert ada.offsets == [1, 2, 3]


async def test_resume_brings_what_was_missed_and_nothing_twice(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        ada = await w.join(actor, "Ada")
        screen = await w.watch(actor)
        await w.do(actor, "start")
        actor.send(Detach(ada))
        w.answer(actor, Client(), 1)
        mock_clock.jump(5)
        await w.do(actor, "close")
        await w.do(actor, "next")
        mock_clock.jump(3)
        await settle()

        again = await w.rejoin(actor, 1, epoch=actor.epoch, offset=1)
        assert again.kinds == ["joined", "reveal", "question", "result", "leaderboard", "progress"]
        assert again.last("joined")["state"] is None
        assert again.last("question")["remaining_ms"] == 17_000
        assert again.offsets == [2, 3]
        assert screen.offsets == [1, 2, 3]

        nothing_missed = await w.watch(actor, epoch=actor.epoch, offset=3)
        assert nothing_missed.kinds == ["joined", "leaderboard", "progress"]


@pytest.mark.parametrize("then", ["reveal", "next", "finish"])
async def test_a_connection_that_was_lost_between_reveal_and_result_gets_the_result(then: str) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        w.answer(actor, ada, 1)
        await w.do(actor, "close")
        assert ada.offsets == [1, 2]
        actor.send(Detach(ada))
        if then != "reveal":
            await w.do(actor, then)

        again = await w.rejoin(actor, 1, epoch=actor.epoch, offset=2)
        assert again.last("result") == ada.last("result")
        assert again.kinds.index("result") < again.kinds.index("leaderboard")
        if then == "finish":
            assert again.kinds[-1] == "finished"
        else:
            later = await w.rejoin(actor, 1, epoch=actor.epoch, offset=3)
            assert later.got("result") == [], "results come before the next broadcast"


async def test_an_end_that_is_not_committed_is_told_to_nobody(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        w.journal.auto = "off"
        ben, asked = await w.join(actor, "Ben"), Client()
        host = await w.do(actor, "finish")
        watching = await w.watch(actor)
        again = await w.rejoin(actor, 1)
        actor.send(Look(asked))
        board = Client()
        actor.send(Look(board, top=3))
        await settle()
        assert [line["name"] for line in board.last("board")["top"]] == ["Ada", "Ben"]
        w.journal.commit(1)  # Ben is in, and what followed is not stored
        await settle()
        assert [each.kinds for each in (host, ben, watching, again, asked)] == [[]] * 5
        w.journal.commit()
        await settle()
        assert host.kinds == ["done"]
        for each in (ben, watching, again):
            assert each.last("joined")["state"]["phase"] == "finished"
        assert asked.last("look")["state"]["phase"] == "finished"


async def test_one_who_missed_the_end_hears_of_it_last() -> None:
    """Whoever hears `finished` may go, and must have the final leaderboard by then."""
    async with world() as w:
        actor, ada = await w.started("Ada")
        actor.send(Detach(ada))
        w.answer(actor, Client(), 1)
        await w.do(actor, "finish")

        again = await w.rejoin(actor, 1, epoch=actor.epoch, offset=1)
        assert again.kinds == ["joined", "reveal", "result", "leaderboard", "finished"]
        assert again.last("leaderboard")["top"][0]["score"] == again.last("finished")["you"]["score"]
        assert again.offsets == [2, 3]


async def test_nobody_hears_of_an_end_that_is_not_committed() -> None:
    """After it nobody comes back to hear that it was otherwise."""
    async with world() as w:
        actor, ada, ben = await w.started("Ada", "Ben")
        w.journal.auto = "off"
        acked = Client()
        w.answer(actor, acked, 1)
        leader = await w.do(actor, "finish")
        actor.send(Detach(ben))
        late, gone = await w.rejoin(actor, 2), await w.watch(actor)
        actor.send(Detach(gone))
        await settle()
        assert ada.got("reveal")
        assert not ada.got("finished")
        assert late.kinds == gone.kinds == acked.kinds == leader.kinds == []

        w.journal.commit()
        await settle()
        assert acked.kinds == ["ack"]
        assert leader.kinds == ["done"]
        assert ada.kinds[-1] == "finished"
        assert late.last("joined")["state"]["phase"] == "finished"
        assert gone.kinds == []


async def test_only_who_watched_before_may_watch_a_session_that_is_over() -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        screen = await w.watch(actor)
        assert screen.last("joined")["token"] == f"{actor.session_id}/spectator/None"
        stood = {"epoch": screen.last("joined")["epoch"], "offset": screen.last("joined")["offset"]}
        actor.send(Detach(screen))
        await w.do(actor, "start")
        await w.do(actor, "finish")
        for where in ({}, stood):
            stranger = await w.watch(actor, **where)
            assert stranger.kinds == ["error"]
            assert stranger.last("error")["code"] == "session_finished"
        back = Client()
        actor.send(Rejoin(back, "spectator", **stood))
        await settle()
        assert back.last("finished")["podium"][0]["name"] == "Ada"


async def test_anybody_may_watch_the_end_of_a_session_with_public_results() -> None:
    async with world() as w:
        actor = await w.session(results_public=True)
        await w.join(actor, "Ada")
        await w.do(actor, "finish")
        assert (await w.watch(actor)).last("joined")["state"]["podium"][0]["name"] == "Ada"


async def test_an_end_that_is_lost_was_heard_by_nobody() -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        w.journal.auto = "off"
        await w.do(actor, "finish")
        late = await w.watch(actor)
        actor.end(CloseReason.SHUTDOWN)
        assert ada.close_reason is late.close_reason is CloseReason.SHUTDOWN
        assert not ada.got("finished")
        assert not late.frames


@pytest.mark.parametrize(("epoch", "offset"), [(1, 99), (1, -1), (7, 1), (1, None), (None, None)])
async def test_a_client_that_cannot_resume_gets_the_whole_state(
    mock_clock: MockClock, epoch: int | None, offset: int | None
) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        again = await w.rejoin(actor, 1, epoch=epoch, offset=offset)
        state = again.last("joined")["state"]
        assert again.kinds == ["joined"]
        assert state["phase"] == "question"
        assert state["question"]["number"] == 1
        assert "correct" not in state["question"]
        assert state["reveal"] is None
        assert state["you"]["rank"] == 1


async def test_history_is_bounded(mock_clock: MockClock) -> None:
    async with world(ActorOptions(history_max=2)) as w:
        actor = await w.session()
        await w.do(actor, "start")
        await w.do(actor, "pause")
        await w.do(actor, "resume")
        within = await w.watch(actor, epoch=1, offset=1)
        beyond = await w.watch(actor, epoch=1, offset=0)
        assert within.offsets == [2, 3]
        assert beyond.last("joined")["state"]["phase"] == "question"


async def test_the_right_answer_goes_to_the_host_alone_until_the_close(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        ada, screen = await w.join(actor, "Ada"), await w.watch(actor)
        await w.do(actor, "start")
        late, host = await w.watch(actor), await w.host(actor)
        replay = await w.watch(actor, epoch=1, offset=0)
        for client in (ada, screen, late, replay):
            assert "correct" not in repr([frame.message for frame in client.frames])
        assert host.last("joined")["state"]["question"]["correct"] == 0
        await w.do(actor, "close")
        assert all("reveal" in client.kinds for client in (ada, screen, late, replay))
        assert (await w.watch(actor)).last("joined")["state"]["reveal"]["correct"] == 0


async def test_pause_stops_the_clock(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        mock_clock.jump(5)
        await w.do(actor, "pause")
        assert ada.last("state")["remaining_ms"] == 15_000
        mock_clock.jump(100)
        w.answer(actor, ada, 1)
        await settle()
        assert ada.errors == ["paused"]
        await w.do(actor, "resume")
        assert ada.last("state") == {
            "t": "state",
            "offset": 3,
            "phase": "question",
            "locked": False,
            "approval": False,
            "number": 1,
            "opens_in_ms": 0,
            "remaining_ms": 15_000,
            "now": START_MS + 105_000,
        }
        mock_clock.jump(14.9)
        await settle()
        assert actor.session.phase is Phase.QUESTION
        mock_clock.jump(0.2)
        await settle()
        assert actor.session.phase is Phase.REVEAL


async def test_countdowns_tell_when_they_were_true(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        assert (ada.last("question")["now"], ada.last("question")["remaining_ms"]) == (START_MS, 20_000)
        mock_clock.jump(4)
        state = (await w.watch(actor)).last("joined")["state"]
        assert (state["now"], state["question"]["remaining_ms"]) == (START_MS + 4_000, 16_000)
        await w.do(actor, "pause")
        await w.do(actor, "resume")
        mock_clock.jump(2)
        back = await w.rejoin(actor, 1, epoch=actor.epoch, offset=0)
        told = [(each["now"], each["remaining_ms"]) for each in back.got("question") + back.got("state")]
        assert told == [(START_MS + 6_000, 14_000)] * 3, "what was missed is told as it stands"
        assert ada.last("state")["now"] == START_MS + 4_000


async def test_kick_and_lock(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        assert (await w.do(actor, "kick", player=1)).last("done")
        assert ada.close_reason is CloseReason.KICKED
        assert (await w.rejoin(actor, 1)).errors == ["kicked"]
        assert (await w.do(actor, "lock", on=True)).last("done")
        assert (await w.join(actor, "Ben")).errors == ["session_locked"]
        assert (await w.do(actor, "lock", on=False)).last("done")
        assert (await w.join(actor, "Ben")).last("joined")["player"] == 2


async def test_refusals_name_the_request_and_change_nothing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        w.answer(actor, ada, 1, id="early", question=1)
        await settle()
        assert ada.last("error")["id"] == "early"
        assert ada.errors == ["wrong_question"]
        assert (await w.do(actor, "next")).errors == ["illegal_move"]
        assert (await w.do(actor, "dance")).errors == ["bad_field"]
        assert (await w.do(actor, "kick", player=9)).errors == ["player_not_found"]
        assert (await w.rejoin(actor, 9)).errors == ["player_not_found"]
        assert (await w.rejoin(actor, 1, code="999999")).errors == ["token_invalid"]
        assert (await w.join(actor, "ADA ")).errors == ["name_taken"]
        await w.do(actor, "start")
        w.answer(actor, ada, 1, "nonsense")
        await settle()
        assert ada.last("error")["path"] == "choice"
        assert len(w.store.facts(actor.session_id)) == 2


async def test_new_players_are_refused_before_answers_are(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        players = [await w.join(actor, f"Player {n}") for n in range(1, 6)]
        await w.do(actor, "start")
        w.journal.auto = "off"
        w.journal.facts_max = 5
        for player, client in enumerate(players[:4], start=1):
            w.answer(actor, client, player)
        await settle()
        assert (await w.join(actor, "Newcomer")).errors == ["busy"]
        w.answer(actor, players[4], 5)
        await settle()
        w.journal.commit()
        await settle()
        assert players[4].last("ack")["status"] == "accepted"


async def test_a_full_journal_and_a_full_mailbox_answer_busy(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "DIRECT_MAX", 1)  # the next ones go into the mailbox
    async with world(ActorOptions(mailbox_max=3)) as w:
        actor, ada = await w.started("Ada", early_close=False)
        w.journal.facts_max = 0
        w.answer(actor, ada, 1, id="no room")
        await settle()
        assert (await w.join(actor, "Ben")).errors == ["busy"]
        assert ada.last("error") | {"message": ""} == {
            "t": "error",
            "id": "no room",
            "code": "busy",
            "message": "",
        }
        assert (await w.do(actor, "pause")).errors == ["busy"]
        w.journal.facts_max = 50_000
        w.answer(actor, ada, 1, id="at once")
        for n in range(5):
            w.answer(actor, ada, 1, id=str(n))
        refused = [message["id"] for message in ada.got("error")][1:]
        actor.send(Detach(ada))
        await settle()
        assert refused == ["3", "4"]
        assert actor.subscribers == 0, "a departure is heard though the mailbox was full"
        assert len(ada.got("ack")) == 4


async def test_idle_sessions_leave_memory_and_come_back_equal(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=60)) as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        mock_clock.jump(120)
        await settle()
        assert list(w.registry.active()) == [actor], "somebody is there"
        actor.send(Detach(ada))
        await settle()
        mock_clock.jump(59)
        await settle()
        assert list(w.registry.active()) == [actor]
        mock_clock.jump(2)
        await settle()
        assert list(w.registry.active()) == []

        ben = Client()
        w.router.deliver(actor.code, Join(ben, "Ben", w.clock.now_ms()))
        await settle()
        assert ben.last("joined")["player"] == 2
        assert ben.last("joined")["epoch"] == 2


async def test_a_session_without_listeners_goes_on_while_its_clock_runs(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=1)) as w:
        actor = await w.session(pace="auto", lobby_ms=5_000)
        for _ in range(200):
            mock_clock.jump(1)
            await settle()
        assert [type(f).__name__ for f in w.store.facts(actor.session_id)][-1] == "Finished"


async def test_a_finished_session_lingers_and_then_ends_its_connections(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        await w.do(actor, "finish")
        again = await w.rejoin(actor, 1)
        assert again.last("joined")["state"]["podium"][0]["name"] == "Ada"
        mock_clock.jump(FINISHED_LINGER_S)
        await settle()
        assert again.close_reason is CloseReason.FINISHED
        assert ada.close_reason is CloseReason.REPLACED
        late = Client()
        w.router.deliver(actor.code, Join(late, "Ben", w.clock.now_ms()))
        await settle()
        assert late.errors == ["session_finished"]


async def test_a_session_past_its_greatest_age_is_finished(mock_clock: MockClock) -> None:
    async with world(ActorOptions(max_age_s=3600)) as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        mock_clock.jump(3601)
        await settle()
        assert ada.got("finished")


async def test_a_fenced_actor_stops_at_once_and_confirms_nothing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        w.store.take_over(actor.session_id)
        w.answer(actor, ada, 1)
        await settle()
        assert ada.got("ack") == []
        assert ada.close_reason is CloseReason.RESTARTING
        assert list(w.registry.active()) == []


async def test_rejoin_keeps_nothing_of_a_connection_that_left_meanwhile(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        client = Client()
        actor.send(Rejoin(client, "player", 1))
        actor.send(Detach(client))
        await settle()
        assert len(w.store.facts(actor.session_id)) == 1
        assert actor.subscribers == 0


async def test_host_commands_default_to_locking(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        client = Client()
        actor.send(Host(client, "h", "lock"))
        await settle()
        assert actor.session.locked


async def test_a_session_is_given_away_though_its_last_acks_leave_without_it(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ann = await w.started("Ann")
        w.journal.auto = "off"
        w.answer(actor, ann, 1)
        await settle()
        snapshots: list[object] = []

        async def give_away() -> None:
            snapshots.append(await w.registry.give_away(actor.session_id))

        w.nursery.start_soon(give_away)
        await settle()
        assert not snapshots
        w.journal.commit()
        await settle()
        assert ann.last("ack")["status"] == "accepted"
        assert snapshots == [actor.snapshot]
        assert actor.snapshot is not None


async def test_requests_do_not_keep_a_finished_session_in_memory(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        await w.do(actor, "finish")
        for _ in range(int(FINISHED_LINGER_S) + 1):
            actor.send(Look(Client()))
            actor.send(Rejoin(Client(), "player", 1))
            mock_clock.jump(1)
            await settle()
        assert w.registry.here(actor.session_id) is None
        assert ada.close_reason is CloseReason.FINISHED or ada.close_reason is CloseReason.REPLACED


@pytest.mark.parametrize("end", [False, True])
async def test_a_client_that_waits_for_a_commit_is_told_when_its_reply_cannot_be_made(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, end: bool
) -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        w.journal.auto = "off"
        if end:
            await w.do(actor, "finish")
            waiting = [await w.rejoin(actor, 1), await w.watch(actor)]
        else:
            waiting = [await w.join(actor, name) for name in ("Ben", "Cleo")]
        assert [client.kinds for client in waiting] == [[], []]

        def broken(*_: object) -> str:
            raise ValueError("no token can be made")

        monkeypatch.setattr(type(actor.live.tokens), "issue", broken)
        w.journal.commit()
        await settle()
        assert [client.close_reason for client in waiting] == [CloseReason.RESTARTING] * 2
        assert w.registry.statistics().crashes == 1


async def test_an_erased_player_is_shown_out_and_nobody_comes_back_in_that_place(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        await w.do(actor, "start")
        w.answer(actor, ada, 1)
        asked = Client()
        actor.send(Erase(asked, 1))
        await settle()
        assert asked.kinds == ["done"]
        assert ada.close_reason is CloseReason.KICKED
        mock_clock.jump(1)
        await settle()
        assert (1, "#1") in [(each["id"], each["name"]) for each in host.last("roster")["joined"]]
        assert (await w.rejoin(actor, 1)).last("error")["code"] == "player_not_found"
        for player in (1, 1, 7):
            again = Client()
            actor.send(Erase(again, player))
            await settle()
            assert again.kinds == (["done"] if player == 1 else ["error"])
        await w.do(actor, "finish")
        assert [line["name"] for line in ben.last("finished")["podium"]] == ["#1", "Ben"]
        names = {"#1": 1, "Ada": None, "Ben": 2}
        assert {name: actor.session.called(name) for name in names} == names


async def test_what_is_kept_for_those_who_come_back_names_no_erased_player() -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        ben = await w.join(actor, "Ben")
        stood = {"epoch": ben.last("joined")["epoch"], "offset": ben.last("joined")["offset"]}
        await w.do(actor, "start")
        await w.do(actor, "finish")
        actor.send(Erase(Client(), 1))
        await settle()
        relay = Client()
        actor.send(SubscribeNode(relay, "elsewhere", **stood, seats=[2]))
        for come in (await w.rejoin(actor, 2, **stood), await w.rejoin(actor, 2), relay):
            await settle()
            assert come.frames
            assert "Ada" not in str([frame.message for frame in come.frames])
            assert "#1" in str([frame.message for frame in come.frames])


async def test_a_session_that_is_over_leaves_memory_when_it_is_to_be_deleted(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        early, late = Client(), Client()
        actor.send(Erase(early))
        await w.do(actor, "finish")
        assert early.last("error")["code"] == "session_running"
        actor.send(Erase(late))
        await settle()
        assert late.kinds == ["done"]
        assert ada.close_reason is CloseReason.FINISHED
        assert w.registry.here(actor.session_id) is None
