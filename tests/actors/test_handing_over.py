"""An actor gives its session away, and another goes on with it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Detach, Host, Join, Rejoin
from engine.actors.deadlines import HANDED_OVER_MS
from engine.actors.delivery.stream import StreamState
from engine.actors.handoff import HandoffSnapshot
from engine.actors.options import ActorOptions
from engine.actors.refusals import SessionFinished
from engine.actors.registry import GIVE_AWAY_S, Registry
from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.quiz import Quiz
from engine.domain.session import Phase
from engine.ports import OwnedElsewhere, SessionRecord
from engine.shards.relay import HOLD_S
from tests.actors.world import QUIZ, Client, World, settle, world
from tests.keys import session_id

PROMPT = Quiz.parse(
    {
        "title": "Prompt",
        "questions": [
            {
                "type": "single",
                "text": "Which?",
                "choices": ["right", "wrong"],
                "correct": "right",
                "time_limit_s": 10,
            }
        ],
    }
)


class Handing:
    """What `give_away` comes to, while the test does other things."""

    def __init__(self, w: World, session_id: str) -> None:
        self.over = False
        self.snapshot: HandoffSnapshot | None = None
        w.nursery.start_soon(self._run, w.registry, session_id)

    async def _run(self, registry: Registry, session_id: str) -> None:
        self.snapshot = await registry.give_away(session_id)
        self.over = True

    @property
    def made(self) -> HandoffSnapshot:
        assert self.snapshot is not None
        return self.snapshot


async def given(w: World, actor: SessionActor) -> HandoffSnapshot:
    handing = Handing(w, actor.session_id)
    await settle()
    return handing.made


async def held_up(w: World, actor: SessionActor, ada: Client) -> Handing:
    """The session is being given away, and waits for the commit of an answer."""
    w.journal.auto = "off"
    w.answer(actor, ada, 1)
    await settle()
    handing = Handing(w, actor.session_id)
    await settle()
    return handing


async def brought(
    w: World, snapshot: HandoffSnapshot, stream: StreamState | None, registry: Registry | None = None
) -> SessionActor:
    """The actor that the next node makes of a snapshot."""
    assert await w.store.grant(snapshot.record.id, snapshot.epoch, "node", "next")
    following = registry or w.another("next").registry
    if stream is not None:
        following.expect(snapshot.record.id, stream)
    return await following.activate(snapshot.record)


# -- giving away -------------------------------------------------------------------------------------


async def test_everything_is_committed_before_a_session_is_given_away(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await w.started("Ada", "Ben")
        handing = await held_up(w, actor, ada)
        assert not handing.over
        assert ada.got("ack") == []
        w.journal.commit()
        await settle()
        assert len(ada.got("ack")) == 1
        assert handing.made.stream.offset == actor.offset
        assert len(w.store.facts(actor.session_id)) == actor.session.seq
        assert w.registry.here(actor.session_id) is None


async def test_a_session_that_cannot_be_committed_is_taken_back_and_plays_on(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await w.started("Ada", "Ben", early_close=False)
        w.journal.auto = "off"
        w.answer(actor, ada, 1, id="before")
        await settle()
        handing = Handing(w, actor.session_id)
        await settle()
        mock_clock.jump(1)
        w.answer(actor, ben, 2, id="meanwhile")
        await settle()
        mock_clock.jump(GIVE_AWAY_S - 1)
        await settle()
        assert (handing.over, handing.snapshot) == (True, None)
        assert w.registry.here(actor.session_id) is actor
        assert ada.got("ack") == ben.got("ack") == [], "nothing is committed yet"
        w.journal.commit()
        await settle()
        assert ada.last("ack")["status"] == ben.last("ack")["status"] == "accepted"
        assert ben.last("ack")["elapsed_ms"] == 1_000
        w.journal.auto = "soon"
        assert (await w.do(actor, "close")).last("done")["phase"] == "reveal"
        assert (await given(w, actor)).stream.offset == actor.offset


async def test_what_comes_while_a_session_is_given_away_is_bounded(mock_clock: MockClock) -> None:
    async with world(ActorOptions(mailbox_max=5)) as w:
        actor, ada = await w.started("Ada", early_close=False)
        handing = await held_up(w, actor, ada)
        late = [Client() for _ in range(8)]
        for client in late:
            actor.send(Rejoin(client, "player", 1))
        actor.send(Detach(ada))
        assert [client.errors for client in late] == [[]] * 5 + [["busy"]] * 3
        w.journal.commit()
        await settle()
        assert len(handing.made.commands) == 6, "a place that is free is told of whatever the bound"


async def test_a_snapshot_has_the_connected_clients_with_their_seats(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada, host, watching = await w.join(actor, "Ada"), await w.host(actor), await w.watch(actor)
        snapshot = await given(w, actor)
        seats = {who: (place.role, place.player) for who, place in snapshot.seated}
        assert seats == {ada: ("player", 1), host: ("host", None), watching: ("spectator", None)}
        assert [client.close_reason for client in (ada, host, watching)] == [None] * 3
        assert actor.subscribers == 0


async def test_a_snapshot_has_the_commands_that_came_too_late(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, ben = await w.started("Ada", "Ben")
        handing = await held_up(w, actor, ada)
        late = [Detach(ada), Host(ben, "h", "close")]
        for command in late:
            actor.send(command)
        w.journal.commit()
        await settle()
        assert handing.made.commands == late
        assert actor.session.question_open


async def test_a_snapshot_has_the_commands_of_the_mailbox_unhandled(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        actor.send(Detach(ada))
        w.answer(actor, ada, 1)
        actor.give_away()
        actor.send(Detach(ada))
        await settle()
        assert actor.snapshot is not None
        assert [type(command) for command in actor.snapshot.commands] == [Detach, Answer, Detach]
        assert ada.got("ack") == []
        assert actor.session.answered == 0


async def test_no_time_passes_while_a_session_is_given_away(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await w.started("Ada", "Ben")
        w.journal.auto = "off"
        w.answer(actor, ada, 1)
        await settle()
        mock_clock.jump(19)
        handing = Handing(w, actor.session_id)
        await settle()
        mock_clock.jump(GIVE_AWAY_S - 0.5)
        await settle()
        assert actor.session.question_open
        w.journal.commit()
        await settle()
        assert handing.made.stream.offset == 1
        assert ada.got("reveal") == []


async def test_an_actor_that_is_fenced_meanwhile_hands_nothing_over(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await w.started("Ada", "Ben")
        handing = await held_up(w, actor, ada)
        late = Client()
        actor.send(Host(late, "h", "close"))
        w.store.take_over(actor.session_id)
        w.journal.commit()
        await settle()
        assert (handing.over, handing.snapshot) == (True, None)
        assert (ada.got("ack"), ada.close_reason, late.close_reason) == (
            [],
            CloseReason.RESTARTING,
            CloseReason.RESTARTING,
        )


async def test_an_actor_that_crashes_meanwhile_hands_nothing_over(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada, _ = await w.started("Ada", "Ben")
        handing = await held_up(w, actor, ada)
        actor.live.lifecycle.fail(RuntimeError("as the test wants it"))
        w.journal.commit()
        await settle()
        assert (handing.over, handing.snapshot) == (True, None), "the session comes back here"
        mock_clock.jump(1)
        await settle()
        assert (await w.node.get(actor.session_id)).session.answered == 1


async def test_a_session_that_is_over_or_not_here_is_not_given_away(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.do(actor, "finish")
        assert await w.registry.give_away(actor.session_id) is None
        assert w.registry.here(actor.session_id) is actor
        assert await w.registry.give_away("nobody's") is None


async def test_a_session_whose_end_is_on_its_way_is_not_given_away(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        ada = await w.join(actor, "Ada")
        w.journal.auto = "off"
        await w.do(actor, "finish")
        assert await w.registry.give_away(actor.session_id) is None
        w.journal.commit()
        await settle()
        assert ada.kinds[-1] == "finished"


# -- going on ----------------------------------------------------------------------------------------


async def test_the_next_actor_goes_on_with_offsets_and_epoch(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, ada = await w.started("Ada")
        snapshot = await given(w, actor)
        again = await brought(w, snapshot, snapshot.stream)
        assert (again.epoch, again.live.stream.epoch, again.offset) == (actor.epoch + 1, actor.epoch, 1)
        back = await w.rejoin(again, 1, epoch=actor.epoch, offset=ada.last("question")["offset"])
        assert back.kinds[:2] == ["joined", "leaderboard"]
        assert back.last("joined")["state"] is None
        await w.do(again, "close")
        assert (back.last("reveal")["offset"], again.offset) == (2, 2)


async def test_what_was_missed_before_the_move_is_still_to_be_had(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada")
        await w.do(actor, "close")
        await w.do(actor, "next")
        snapshot = await given(w, actor)
        told = StreamState.parse(snapshot.stream.to_dict())
        again = await brought(w, snapshot, told)
        back = await w.rejoin(again, 1, epoch=actor.epoch, offset=0)
        assert back.offsets == [1, 2, 3]
        assert back.kinds[:6] == ["joined", "question", "reveal", "question", "result", "leaderboard"]
        host = Client()
        w.seat(again, host, epoch=actor.epoch, offset=2)
        await settle()
        assert "correct" not in host.last("question")


async def test_a_host_who_resumes_after_the_move_gets_the_hosts_question(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.do(actor, "start")
        await w.do(actor, "close")
        await w.do(actor, "next")
        snapshot = await given(w, actor)
        again = await brought(w, snapshot, snapshot.stream)
        host = Client()
        again.send(Rejoin(host, "host", epoch=actor.epoch, offset=0))
        await settle()
        assert host.offsets == [1, 2, 3]
        assert [question["correct"] for question in host.got("question")] == [0, 0]


async def test_a_question_in_progress_keeps_its_clock(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada", quiz=PROMPT)
        deadline = actor.session.deadline
        mock_clock.jump(4)
        snapshot = await given(w, actor)
        mock_clock.jump(3)
        again = await brought(w, snapshot, snapshot.stream)
        assert again.session.deadline == deadline
        assert again.session.remaining_ms(w.clock.now_ms()) == 3_000
        again_seen = await w.watch(again)
        assert again_seen.last("joined")["state"]["question"]["remaining_ms"] == 3_000


async def test_answers_that_were_in_time_count_though_they_come_after_the_deadline(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor, _, _ = await w.started("Ada", "Ben", quiz=PROMPT)
        began = w.clock.now_ms()
        mock_clock.jump(9.9)
        snapshot = await given(w, actor)
        mock_clock.jump(0.2)
        again = await brought(w, snapshot, snapshot.stream)
        host = Client()
        w.seat(again, host)
        await settle()
        assert again.session.question_open, "the deadline is 100 ms ago"
        mock_clock.jump((HANDED_OVER_MS - 50) / 1000)
        late = Client()
        again.send(Answer(late, 1, "a", 1, 0, began + 9_950))
        await settle()
        assert late.last("ack")["elapsed_ms"] == 9_950
        overtook, first = Client(), Client()
        again.send(Answer(overtook, 2, "a", 1, 0, began + 10_001 + RECEIPT_GRACE_MS))
        await settle()
        assert overtook.errors == ["busy"], "the one that was in time may be behind it"
        again.send(Answer(first, 2, "a", 1, 0, began + 9_990))
        again.send(Answer(overtook, 2, "a", 1, 0, began + 10_020))
        await settle()
        assert overtook.last("ack")["elapsed_ms"] == 9_990
        assert host.last("reveal")["counts"] == [2, 0]


async def test_a_stream_of_another_epoch_is_not_gone_on_with(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada", quiz=PROMPT)
        deadline = actor.session.deadline
        assert deadline is not None
        mock_clock.jump(4)
        snapshot = await given(w, actor)
        # Somebody has had the session in between, and was gone.
        w.store.take_over(actor.session_id)
        w.store.alive["somebody else"] = w.clock.now_ms()
        mock_clock.jump(3)
        following = w.another("next").registry
        following.expect(snapshot.record.id, snapshot.stream)
        again = await following.activate(snapshot.record)
        assert again.live.stream.epoch == again.epoch == actor.epoch + 2
        assert again.session.deadline == deadline + 3_000
        await settle()
        assert again.offset == 1, "the extension is the first that the new stream tells"
        back = await w.rejoin(again, 1, epoch=actor.epoch, offset=1)
        assert back.last("joined")["state"]["phase"] == "question"


async def test_after_a_crash_the_clock_is_extended_and_the_stream_begins_anew(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await w.started("Ada", quiz=PROMPT)
        deadline = actor.session.deadline
        assert deadline is not None
        mock_clock.jump(4)
        w.store.alive["node"] = w.clock.now_ms()
        actor.fenced()
        await settle()
        mock_clock.jump(3)
        again = await w.another("next").registry.activate(actor.record)
        assert again.session.deadline == deadline + 3_000
        assert again.live.stream.epoch == again.epoch == actor.epoch + 1


async def test_a_session_past_its_greatest_age_waits_for_late_answers_too(mock_clock: MockClock) -> None:
    async with world(ActorOptions(max_age_s=60)) as w:
        actor = await w.session()
        await w.do(actor, "start")
        snapshot = await given(w, actor)
        mock_clock.jump(61)
        again = await brought(w, snapshot, snapshot.stream)
        with trio.fail_after(5):
            await settle()
        assert again.session.phase is not Phase.FINISHED
        mock_clock.jump(HANDED_OVER_MS / 1000)
        await settle()
        assert again.session.phase is Phase.FINISHED


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"epoch": 1, "offset": 1, "left_under": 1},
        {"epoch": "x", "offset": 1, "left_under": 1, "entries": []},
        {"epoch": 1, "offset": 1, "left_under": 1, "entries": [[1, {}]]},
        {"epoch": 1, "offset": 1, "left_under": 1, "entries": [[1, 2, None]]},
    ],
)
def test_what_is_no_state_of_a_stream_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not the state of a stream"):
        StreamState.parse(data)


# -- whose a session is ------------------------------------------------------------------------------


def nobody_gone(run: str) -> bool:
    return False


async def test_in_a_cluster_a_session_at_rest_is_nobodys(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with world(ActorOptions(idle_s=10), gone=nobody_gone) as w:
        actor = await w.session()
        await trio.sleep(11)
        assert not w.registry.holds(actor.session_id)
        assert (await w.store.find(actor.session_id)).owner is None
        other = await w.another("next").get(actor.session_id)
        assert other.epoch == actor.epoch + 1, "without waiting for this node to be gone"


async def test_one_who_comes_while_a_session_goes_to_rest_finds_it_again(mock_clock: MockClock) -> None:
    async with world(ActorOptions(idle_s=10), gone=nobody_gone) as w:
        actor = await w.session()
        await settle()
        mock_clock.jump(10)
        ada = Client()
        while w.registry.here(actor.session_id) is not None:
            await trio.lowlevel.checkpoint()
        assert w.registry.holds(actor.session_id), "it is being let go"
        w.router.deliver(actor.code, Join(ada, "Ada", w.clock.now_ms()))
        await settle()
        assert ada.kinds == ["joined"]
        assert w.store.epoch(actor.session_id) == actor.epoch + 1


async def test_a_caller_is_told_that_the_session_has_another_owner(mock_clock: MockClock) -> None:
    async with world(gone=nobody_gone) as w:
        actor = await w.session()
        other = w.another("next")
        with pytest.raises(OwnedElsewhere) as told:
            await other.registry.activate(actor.record)
        assert (told.value.session_id, told.value.owner) == (actor.session_id, "node")
        asked = Client()
        other.router.deliver(actor.code, Join(asked, "Ada", w.clock.now_ms()))
        await settle()
        assert asked.frames == [], "the client waits until a node runs it"
        mock_clock.jump(HOLD_S)
        await settle()
        assert asked.errors == ["busy"]
        assert not other.registry.holds(actor.session_id)
        assert w.store.epoch(actor.session_id) == actor.epoch


async def test_everybody_who_waits_hears_that_the_session_is_elsewhere(mock_clock: MockClock) -> None:
    async with world(gone=nobody_gone) as w:
        actor = await w.session()
        other = w.another("next")
        asked = [Client() for _ in range(3)]
        for client in asked:
            other.router.deliver(actor.session_id, Join(client, "Ada", w.clock.now_ms()))
        await settle()
        mock_clock.jump(HOLD_S)
        await settle()
        assert [client.errors for client in asked] == [["busy"]] * 3


async def test_what_was_looked_up_is_brought_without_a_second_look(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        await w.do(actor, "finish")
        record = SessionRecord(
            session_id(9), "000009", actor.record.quiz_id, 1, actor.record.settings, w.clock.now_ms()
        )
        await w.store.create(record)
        first, again = await w.registry.activate(record), await w.registry.activate(record)
        assert first is again
        assert first.session.quiz == QUIZ
        # A record may be old: the claim decides, and one that is over by then is brought like any other.
        with pytest.raises(SessionFinished):
            await w.another("next").get(actor.session_id)


async def test_a_session_is_owned_from_the_claim_on(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session()
        assert [(each.session_id, each.epoch) for each in w.registry.owned()] == [
            (actor.session_id, actor.epoch)
        ]
        await given(w, actor)
        assert list(w.registry.owned()) == []


async def test_a_claim_that_was_lost_is_not_played(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its actor was still being made when the node heard that another has taken the session."""
    held = trio.Event()
    revive = SessionActor.revive

    async def slowly(*args: object, **more: object) -> SessionActor:
        await held.wait()
        return await revive(*args, **more)  # type: ignore[arg-type]  # passed on as they are

    async with world(gone=nobody_gone) as w:
        actor = await w.session()
        actor.fenced()
        await settle()
        monkeypatch.setattr(SessionActor, "revive", slowly)
        ada = Client()
        w.router.deliver(actor.code, Join(ada, "Ada", w.clock.now_ms()))
        await settle()
        assert w.registry.here(actor.session_id) is None
        (owned,) = w.registry.owned()
        assert (owned.session_id, owned.epoch) == (actor.session_id, actor.epoch + 1)
        w.store.take_over(actor.session_id)
        owned.fenced()
        held.set()
        await settle()
        assert list(w.registry.owned()) == []
        assert ada.got("joined") == []
