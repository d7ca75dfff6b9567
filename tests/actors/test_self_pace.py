"""Players who go through the quiz at their own pace, as the actor serves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.commands import Answer, ListPlayers, Merge, Next
from engine.actors.options import ActorOptions
from engine.domain.facts import AnswerAccepted, AttemptBegun, QuestionShown
from engine.domain.session import Phase
from tests.actors.world import Client, World, node, settle, world


async def ask(
    actor: SessionActor, client: Client, player: int = 1, attempt: int | None = None
) -> Mapping[str, Any]:
    """What the session says to `next`."""
    actor.send(Next(client, player, "n", attempt=attempt))
    await settle()
    return client.frames[-1].message


async def play(
    w: World,
    actor: SessionActor,
    client: Client,
    player: int,
    choice: object = 0,
    attempt: int | None = None,
) -> None:
    """One question: asked for, and answered."""
    number = (await ask(actor, client, player, attempt))["number"]
    actor.send(Answer(client, player, "a", number, choice, w.clock.now_ms(), attempt=attempt))
    await settle()


async def test_a_player_is_asked_and_told_alone(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        question = await ask(actor, ada)
        assert (question["t"], question["number"], question["of"]) == ("question", 1, 3)
        assert question["remaining_ms"] == question["limit_ms"] == 20_000
        assert "correct" not in question
        w.answer(actor, ada, 1)
        await settle()
        assert ada.last("ack")["result"] == {
            "number": 1,
            "correct": True,
            "points": 1_000,
            "answer": 0,
            "score": 1_000,
            "rank": 1,
            "streak": 1,
        }
        await play(w, actor, ada, 1, 1)
        await play(w, actor, ada, 1)
        end = await ask(actor, ada)
        assert (end["t"], end["done"], end["score"], end["rank"]) == ("done_all", True, 2_000, 1)
        assert [each["correct"] for each in end["review"]] == [True, False, True]
        assert [each["answer"] for each in end["review"]] == [0, 0, 0]
        await trio.sleep(1)
        assert ben.got("question") == ben.got("ack") == ben.got("done_all") == []
        assert ben.last("leaderboard")["top"][0]["score"] == 2_000


async def test_the_question_is_sent_once_it_is_stored_as_shown(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        ada = await w.join(actor, "Ada")
        w.journal.auto = "off"
        actor.send(Next(ada, 1, "n"))
        await settle()
        assert ada.got("question") == []
        await trio.sleep(2)
        w.journal.commit()
        await settle()
        assert ada.last("question")["remaining_ms"] == 18_000
        assert any(isinstance(fact, QuestionShown) for fact in w.store.facts(actor.session_id))


async def test_coming_back_finds_the_question_and_what_is_left_of_its_time(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        ada = await w.join(actor, "Ada")
        await ask(actor, ada)
        actor.send(Next(ada, 1, "n"))
        await trio.sleep(5)
        again = await w.rejoin(actor, 1, epoch=ada.last("joined")["epoch"], offset=0)
        state = again.last("joined")["state"]
        assert state["phase"] == "open"
        assert state["question"]["number"] == 1
        assert state["question"]["remaining_ms"] == 15_000
        assert state["you"]["answered"] is None
        await trio.sleep(16)
        w.answer(actor, again, 1)
        await settle()
        assert again.errors == ["late"]
        step = await ask(actor, again)
        assert (step["number"], step["missed"]["correct"], step["missed"]["answer"]) == (2, None, 0)


@pytest.mark.parametrize(
    ("reveal", "while_playing", "when_done", "at_the_end"),
    [
        ("end", False, True, True),
        ("deadline", False, False, True),
        ("never", False, False, False),
    ],
)
async def test_nobody_learns_early(
    reveal: str, while_playing: bool, when_done: bool, at_the_end: bool, autojump_clock: MockClock
) -> None:
    async with world() as w:
        actor = await w.session(pace="self", reveal=reveal)
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        screen = await w.watch(actor)
        await play(w, actor, ada, 1)
        assert ("result" in ada.last("ack")) is while_playing
        ada = await w.rejoin(actor, 1)
        looked = ada.last("joined")["state"]
        assert (looked["you"]["score"], looked["you"]["rank"], looked["you"]["result"]) == (None, None, None)
        await trio.sleep(1)
        seen = (await w.watch(actor)).last("joined")["state"]["leaderboard"]
        assert [(line["name"], line["score"]) for line in seen["top"]] == [("Ada", 0), ("Ben", 0)]
        for client in (ben, screen):
            assert all(line["score"] == 0 for board in client.got("leaderboard") for line in board["top"])
        assert screen.last("progress")["answers"] == [1, 0, 0]
        await play(w, actor, ada, 1)
        await play(w, actor, ada, 1)
        end = await ask(actor, ada)
        assert (end["score"] is not None, end["review"] is not None) == (when_done, when_done)
        await trio.sleep(1)
        assert any(board["top"][0]["score"] for board in ben.got("leaderboard")) is when_done
        await w.do(actor, "finish")
        await trio.sleep(1)
        assert ben.last("finished")["podium"][0]["score"] == 3_000
        end = await ask(actor, ben, 2)
        assert (end["done"], end["phase"], end["score"]) == (False, "finished", 0)
        assert (end["review"] is not None) is at_the_end


async def test_the_deadline_ends_the_session_and_the_host_moves_it(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self", open_ms=60_000)
        ada = await w.join(actor, "Ada")
        host = await w.host(actor)
        await w.do(actor, "extend", closes_at=w.clock.now_ms() + 90_000)
        assert host.last("state")["closes_at"] == w.clock.now_ms() + 90_000
        await trio.sleep(80)
        assert (await ask(actor, ada))["t"] == "question"
        await trio.sleep(11)
        assert ada.last("finished")["you"] == {"rank": 1, "score": 0}
        assert actor.session.phase is Phase.FINISHED


@pytest.mark.parametrize("do", ["start", "next", "close", "skip", "pause", "resume"])
async def test_the_host_leads_nobody(do: str, autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        await w.join(actor, "Ada")
        assert (await w.do(actor, do)).errors == ["illegal_move"]


async def test_in_a_led_session_there_is_no_next_of_ones_own(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        assert (await ask(actor, ada))["code"] == "illegal_move"


async def test_a_session_without_players_in_it_rests_and_comes_back(autojump_clock: MockClock) -> None:
    """Its deadline is weeks away, and it holds neither an actor nor a timer until then."""
    async with world(ActorOptions(idle_s=60)) as w:
        actor = await w.session(pace="self", open_ms=30 * 86_400_000, untimed=True)
        answered = Client()
        await w.join(actor, "Ada")
        w.seat(actor, answered)
        await ask(actor, answered)
        for client in [*actor.live.audience.seated()]:
            actor.live.audience.leave(client[0])
        w.answer(actor, Client(), 1)
        await trio.sleep(200)
        assert w.registry.here(actor.session_id) is None
        again = await w.registry.revive(await w.store.find(actor.session_id))
        step = await ask(again, Client(), 1)
        assert (step["t"], step["number"]) == ("question", 2)
        assert again.session == again.session.recover(
            again.session.quiz,
            again.session.settings,
            again.session.created_at,
            w.store.facts(again.session_id),
        )


async def test_a_deadline_that_has_passed_at_rest_is_seen_to_by_whoever_asks(
    autojump_clock: MockClock,
) -> None:
    async with world(ActorOptions(idle_s=60)) as w:
        actor = await w.session(pace="self", open_ms=3_600_000)
        await trio.sleep(4_000)
        assert w.registry.here(actor.session_id) is None
        again = await w.registry.revive(await w.store.find(actor.session_id))
        await settle()
        assert again.session.phase is Phase.FINISHED
        ended = w.store.facts(again.session_id)[-1]
        assert ended.at == again.session.created_at + 3_600_000


async def test_what_an_earlier_owner_had_shown_is_merged(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        ada = await w.join(actor, "Ada")
        now = w.clock.now_ms()
        facts = (
            QuestionShown(5, now, 1, 1),
            AnswerAccepted(6, now + 1, 1, 1, 0, 1, True, 1_000),
            QuestionShown(7, now + 2, 1, 2),
        )
        actor.send(Merge(Client(), facts))
        await trio.sleep(2)
        step = await ask(actor, ada)
        assert (step["number"], step["remaining_ms"]) == (2, 18_002)


async def test_the_host_sees_how_far_everybody_is(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        host = await w.host(actor)
        other = await node(actor)
        ada = await w.join(actor, "Ada")
        await play(w, actor, ada, 1)
        await ask(actor, ada)
        await trio.sleep(1)
        assert host.last("progress")["shown"] == [1, 1, 0]
        assert host.last("progress")["answers"] == [1, 0, 0]
        actor.send(ListPlayers(host, 0, 10))
        await settle()
        [line] = host.last("players")["players"]
        assert (line["question"], line["at"], line["waits"], line["done"]) == (2, 2, True, False)
        told = [cast["players"] for cast in other.got("cast") if cast["frame"]["t"] == "progress"]
        assert told
        assert not any(told)  # players hear nothing of it


async def test_the_host_is_told_where_each_player_is_once_a_second(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        host = await w.host(actor)
        began = w.clock.now_ms()
        await ask(actor, ada)
        told = host.last("roster")
        assert told["ways"] == [
            {"id": 1, "question": 1, "at": 1, "waits": True, "since": began, "done": False}
        ]
        for _ in range(2):
            await trio.sleep(0.3)
            w.answer(actor, ada, 1, question=host.last("roster")["ways"][0]["at"])
            await settle()
            await ask(actor, ben, 2)
            assert host.last("roster") is told, "the rest of the second nothing is told"
        await trio.sleep(0.5)
        assert [(each["id"], each["at"], each["waits"]) for each in host.last("roster")["ways"]] == [
            (1, 1, False),
            (2, 1, True),
        ]
        await play(w, actor, ada, 1)
        await play(w, actor, ada, 1)
        await trio.sleep(1)
        [line] = host.last("roster")["ways"]
        assert (line["id"], line["question"], line["waits"], line["done"]) == (1, 3, False, True)
        assert len(host.got("roster")) == 3
        assert "roster" not in {*ada.kinds, *ben.kinds}


async def test_of_a_led_session_no_ways_are_told(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        host = await w.host(actor)
        await w.join(actor, "Ada")
        assert "ways" not in host.last("roster")


async def test_a_player_begins_another_attempt_and_the_best_counts(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self", attempts=2)
        ada, ben = await w.join(actor, "Ada"), await w.join(actor, "Ben")
        first = await ask(actor, ada)
        assert first["attempt"] == 1
        assert (await ask(actor, ada, attempt=2))["code"] == "illegal_move"
        for choice in (0, 0, 1):
            await play(w, actor, ada, 1, choice)
        end = await ask(actor, ada)
        assert (end["attempt"], end["attempts"], end["score"], end["attempt_score"]) == (1, 2, 2_000, 2_000)
        assert await ask(actor, ada) == end, "asked again it is over still"
        again = await ask(actor, ada, attempt=2)
        assert (again["t"], again["number"], again["attempt"]) == ("question", 1, 2)
        assert await ask(actor, ada, attempt=2) == again
        actor.send(Answer(ada, 1, "a", 1, 1, w.clock.now_ms()))
        await settle()
        assert ada.last("ack")["status"] == "duplicate", "it is an answer of the first attempt"
        await play(w, actor, ada, 1, 0, 2)
        result = ada.last("ack")["result"]
        assert (result["score"], result["attempt_score"], result["streak"]) == (2_000, 1_000, 1)
        ada = await w.rejoin(actor, 1)
        state = ada.last("joined")["state"]
        assert (state["attempts"], state["you"]["attempt"], state["you"]["done"]) == (2, 2, False)
        assert (state["you"]["score"], state["you"]["attempt_score"]) == (2_000, 1_000)
        for choice in (0, 0):
            await play(w, actor, ada, 1, choice, 2)
        end = await ask(actor, ada, attempt=2)
        assert (end["t"], end["score"], end["attempt_score"]) == ("done_all", 3_000, 3_000)
        assert (await ask(actor, ada, attempt=3))["path"] == "attempt"
        await trio.sleep(1)
        assert ben.last("leaderboard")["top"][0] == {"rank": 1, "id": 1, "name": "Ada", "score": 3_000}
        assert ben.last("leaderboard")["players"] == 2


@pytest.mark.parametrize("reveal", ["end", "deadline", "never"])
async def test_with_attempts_left_nobody_learns_what_is_right(reveal: str, autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self", attempts=2, reveal=reveal)
        ada = await w.join(actor, "Ada")
        told = reveal == "end"
        for choice in (0, 1, 1):
            await play(w, actor, ada, 1, choice)
            assert "result" not in ada.last("ack")
        end = await ask(actor, ada)
        assert (end["done"], end["review"]) == (True, None)
        assert (end["score"], end["attempt_score"]) == ((1_000, 1_000) if told else (None, None))
        await play(w, actor, ada, 1, 0, 2)
        ada = await w.rejoin(actor, 1)
        you = ada.last("joined")["state"]["you"]
        assert (you["score"], you["streak"], you["attempt_score"]) == (1_000 if told else None, None, None)
        assert (await ask(actor, ada))["review"] is None, "nor by the attempt before"
        for _ in range(2):
            await play(w, actor, ada, 1, 0, 2)
        end = await ask(actor, ada, attempt=2)
        assert (end["review"] is not None) is told
        first = await ask(actor, ada)
        assert (first["review"] is not None) is told
        await w.do(actor, "finish")
        end = await ask(actor, ada, attempt=2)
        assert (end["score"], end["attempt_score"]) == (3_000, 3_000)
        assert (end["review"] is not None) is (reveal != "never")


async def test_each_attempt_has_an_order_of_its_own_that_does_not_change(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self", attempts=100, shuffle_questions=True)
        ada = await w.join(actor, "Ada")
        orders = set()
        for attempt in range(1, 9):
            for _ in range(3):
                await play(w, actor, ada, 1, 0, attempt)
            own = actor.session.self_pace
            assert own is not None
            number = own.number_of(1, attempt)
            assert number is not None
            orders.add(tuple(own.way(number).questions))
        assert len(orders) > 1


async def test_the_host_sees_the_attempts_and_players_alone(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self", attempts=3)
        host = await w.host(actor)
        ada = await w.join(actor, "Ada")
        for _ in range(3):
            await play(w, actor, ada, 1)
        await play(w, actor, ada, 1, 0, 2)
        ben = await w.join(actor, "Ben")
        assert ben.last("joined")["player"] == 3
        await trio.sleep(2)
        [line] = [line for line in host.last("roster")["ways"] if line["id"] == 1]
        assert (line["attempt"], line["at"], line["done"]) == (2, 1, False)
        actor.send(ListPlayers(host, 0, 10))
        await settle()
        assert [(line["id"], line["attempt"]) for line in host.last("players")["players"]] == [(1, 2), (3, 1)]
        assert host.last("progress")["answered"] == 1
        actor.send(ListPlayers(host, 1, 10))
        await settle()
        assert [line["id"] for line in host.last("players")["players"]] == [3]


async def test_where_there_is_one_attempt_no_message_speaks_of_it(autojump_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(pace="self")
        host = await w.host(actor)
        ada = await w.join(actor, "Ada")
        for _ in range(3):
            await play(w, actor, ada, 1)
        await ask(actor, ada)
        await w.rejoin(actor, 1)
        await trio.sleep(1)
        assert not [
            frame for client in (host, ada) for frame in client.frames if "attempt" in str(frame.message)
        ]


async def test_an_attempt_that_an_earlier_owner_let_a_player_begin_is_merged(
    autojump_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session(pace="self", attempts=2)
        ada = await w.join(actor, "Ada")
        for _ in range(3):
            await play(w, actor, ada, 1, 1)
        now = w.clock.now_ms()
        actor.send(Merge(Client(), (AttemptBegun(20, now, 1, 2, 9),)))
        await settle()
        actor.send(Merge(Client(), (AnswerAccepted(22, now + 1, 2, 1, 0, 1, True, 1_000),)))
        await settle()
        assert (await ask(actor, ada, attempt=2))["number"] == 2
        assert actor.session.leaderboard.score(1) == 1_000
