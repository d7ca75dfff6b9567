"""Broadcasts go out in slices, and between two slices the actor does what cannot wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.commands import Answer, Detach, Host, Join, Rejoin, SubscribeNode, Watch
from engine.actors.delivery import fanout
from engine.actors.delivery.audience import Place
from engine.actors.delivery.fanout import CHUNK
from engine.actors.delivery.frame import Frame
from engine.actors.options import ActorOptions
from engine.domain.facts import AnswerAccepted
from tests.actors.world import QUIZ, Client, World, settle, world

CROWD = 15_000


class Hall:
    """Counts what a crowd is pushed, and does something at a certain push of each kind."""

    def __init__(self) -> None:
        self.pushes: Counter[object] = Counter()
        self.interrupts: dict[tuple[object, int], Callable[[], None]] = {}

    def push(self, frame: Frame) -> None:
        self.pushes[frame.kind] += 1
        if (interrupt := self.interrupts.get((frame.kind, self.pushes[frame.kind]))) is not None:
            interrupt()


class Seat:
    """A subscriber in the crowd."""

    def __init__(self, hall: Hall) -> None:
        self.push = hall.push

    def close(self, close_reason: object) -> None:
        pass


class Interrupting(Client):
    """Sends an answer in the middle of a broadcast, and notes what the crowd was pushed meanwhile."""

    def __init__(self, w: World, hall: Hall, actor: SessionActor, player: int) -> None:
        super().__init__()
        self._w, self._hall, self._actor, self._player = w, hall, actor, player
        self.waited: int | None = None

    def send(self) -> None:
        self.waited = -self._hall.pushes.total()
        self._w.answer(self._actor, self, self._player)

    def push(self, frame: Frame) -> None:
        super().push(frame)
        assert self.waited is not None
        self.waited += self._hall.pushes.total()


async def crowded(w: World, hall: Hall, crowd: int = CROWD // 10, **settings: Any) -> SessionActor:
    """A session with so many players, and a host."""
    actor = await w.session(player_limit=crowd, early_close=False, **settings)
    session, audience = actor.live.session, actor.live.audience
    for player in range(1, crowd + 1):
        session.join(f"P{player}", w.clock.now_ms())
        audience.seat(Seat(hall), Place("player", player))
    await w.host(actor)
    return actor


async def test_an_answer_waits_for_one_slice_of_a_broadcast_at_most(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)  # a slice is one step: as many pushes as `CHUNK` says
    async with world() as w:
        hall = Hall()
        actor = await crowded(w, hall, CROWD)
        w.journal.auto = "now"
        await settle()
        mock_clock.jump(2)
        hall.pushes.clear()
        answering = {}
        kinds = ("question", "progress", "state", "reveal", "result", "leaderboard", "finished")
        for player, kind in enumerate(kinds, 2):
            answering[kind] = Interrupting(w, hall, actor, player)
            hall.interrupts[kind, CROWD // 3] = answering[kind].send
        await w.do(actor, "start")
        mock_clock.jump(2)
        w.answer(actor, Client(), 1)
        await settle()
        for do in ("pause", "resume", "close", "finish"):
            await w.do(actor, do)
        for kind, client in answering.items():
            assert client.kinds == ["ack" if kind in ("question", "progress") else "error"], kind
            assert client.waited is not None
            at_one_time = 3 if kind in ("reveal", "result", "leaderboard") else 1
            assert client.waited <= at_one_time * CHUNK, kind
            assert hall.pushes[kind] >= CROWD, "and the broadcast has gone to all"
        answers = [fact for fact in w.store.facts(actor.session_id) if isinstance(fact, AnswerAccepted)]
        assert [fact.player for fact in answers] == [2, 1, 3]


class Gathering(Client):
    """Notes which frames it was pushed at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[object]] = []

    def push_all(self, frames: Sequence[Frame]) -> None:
        self.groups.append([frame.kind for frame in frames])
        for frame in frames:
            self.push(frame)


async def test_what_a_question_ends_with_is_pushed_at_one_time(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        player, silent, host, screen = (Gathering() for _ in range(4))
        for name, client in (("Ada", player), ("Ben", silent)):
            actor.send(Join(client, name, w.clock.now_ms()))
        actor.send(Rejoin(host, "host"))
        w.seat(actor, screen)
        await settle()
        mock_clock.jump(2)
        await w.do(actor, "start")
        w.answer(actor, player, 1)
        await settle()
        await w.do(actor, "close")
        for client in (player, silent):
            assert client.groups == [["reveal", "result", "leaderboard"]]
            assert client.kinds[-3:] == ["reveal", "result", "leaderboard"]
        for watching in (host, screen):
            assert watching.groups == [["reveal", "leaderboard"]]


async def test_facts_are_written_and_acks_sent_while_a_broadcast_goes_out(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)
    async with world() as w:
        hall, replies = Hall(), [Client() for _ in range(10)]
        actor = await crowded(w, hall)
        w.journal.auto = "off"

        def interrupt() -> None:
            for player, reply in enumerate(replies, 1):
                w.answer(actor, reply, player)

        hall.interrupts["question", 500] = interrupt
        actor.send(Host(Client(), "h", "start"))
        while actor.session.answered < 10 or w.journal.queue[-1].facts[-1].seq < actor.session.seq:
            await trio.lowlevel.checkpoint()
        written = hall.pushes["question"]
        assert written <= 500 + 2 * CHUNK
        assert not any(reply.frames for reply in replies)
        w.journal.commit()
        while not all(reply.got("ack") for reply in replies):
            await trio.lowlevel.checkpoint()
        assert hall.pushes["question"] <= written + 2 * CHUNK


async def test_a_deadline_and_the_host_wait_until_the_question_has_reached_everybody(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)
    async with world() as w:
        hall = Hall()
        actor = await crowded(w, hall)
        reply = Client()

        def interrupt() -> None:
            mock_clock.jump(19.9)
            w.answer(actor, reply, 1)
            mock_clock.jump(5)
            actor.send(Host(Client(), "h", "pause"))

        hall.interrupts["question", 100] = interrupt
        actor.send(Host(Client(), "h", "start"))
        while not hall.pushes["reveal"]:
            if hall.pushes["question"] < CROWD // 10 and hall.pushes["question"]:
                assert actor.session.phase == "question"
            await trio.lowlevel.checkpoint()
        assert hall.pushes["question"] == CROWD // 10
        assert reply.kinds == ["ack"]
        assert hall.pushes["state"] == 0


async def test_a_session_is_handed_over_after_what_was_told_has_gone_out(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)
    async with world() as w:
        hall = Hall()
        actor = await crowded(w, hall)
        hall.interrupts["question", 100] = actor.give_away
        actor.send(Host(Client(), "h", "start"))
        await settle()
        assert actor.snapshot is not None
        assert hall.pushes["question"] == CROWD // 10
        assert actor.snapshot.stream.offset == 1


@pytest.mark.parametrize("end", ["fenced", "crash"])
async def test_what_goes_out_stops_when_the_session_is_fenced_or_crashes(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)
    async with world() as w:
        hall = Hall()
        actor = await crowded(w, hall)

        def crash() -> None:
            raise ValueError("a push has failed")

        hall.interrupts["question", 100] = crash if end == "crash" else actor.fenced
        actor.send(Host(Client(), "h", "start"))
        await settle()
        assert hall.pushes["question"] <= 100 + CHUNK
        assert w.registry.statistics().crashes == (end == "crash")
        assert actor.subscribers == 0


async def test_the_tick_follows_how_long_the_loop_was_held_and_not_what_was_done_meanwhile(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE_S", 0)
    async with world(ActorOptions(tick_ms=100, tick_max_ms=60_000)) as w:
        actor = await w.session(board="live", early_close=False)
        players = [await w.join(actor, f"P{n}") for n in range(1, 101)]
        await w.do(actor, "start")
        mock_clock.jump(2)
        await settle()

        class Far(Client):
            def push(self, frame: Frame) -> None:
                super().push(frame)
                if frame.kind == "leaderboard":
                    mock_clock.jump(0.25)

        w.seat(actor, Far())
        await settle()
        mock_clock.jump(2)
        done = False

        async def neighbour() -> None:
            while not done:
                if actor.live.broadcasts.in_progress:
                    mock_clock.jump(0.05)
                await trio.lowlevel.checkpoint()

        w.nursery.start_soon(neighbour)
        w.answer(actor, players[0], 1)
        while not actor.live.broadcasts.in_progress:
            await trio.lowlevel.checkpoint()
        began = w.clock.now_ms()
        while actor.live.broadcasts.in_progress:
            await trio.lowlevel.checkpoint()
        done = True
        assert w.clock.now_ms() - began > 300
        assert actor.live.broadcasts.board.tick_ms == 5 * 250


# -- each subscriber, each broadcast, once ---------------------------------------------------------------

NUMBERED = frozenset({"question", "reveal", "state", "finished"})
PLAYERS = 7

OPS = st.lists(
    st.one_of(
        st.tuples(st.just("leave"), st.integers(0, PLAYERS - 1)),
        st.tuples(st.just("resume"), st.integers(0, PLAYERS - 1)),
        st.tuples(st.just("anew"), st.integers(0, PLAYERS - 1)),
        st.tuples(st.sampled_from(["replace", "again"]), st.integers(0, PLAYERS - 1)),
        st.tuples(st.just("answer"), st.integers(0, PLAYERS - 1)),
        st.tuples(st.just("watch"), st.just(0)),
        st.tuples(st.just("away"), st.integers(0, PLAYERS - 1)),
        st.tuples(st.just("kick"), st.integers(0, PLAYERS - 1)),
        st.tuples(st.just("host"), st.sampled_from([0, 0, 0, 1, 2])),
        st.tuples(st.just("time"), st.sampled_from([1, 20])),
        st.tuples(st.just("turns"), st.integers(1, 4)),
    ),
    max_size=40,
)


class Life(Client):
    """One connection: checks what it is pushed as it comes. `stood`: the offset that it resumes from."""

    def __init__(self, stood: int | None = None) -> None:
        super().__init__()
        self.offset = stood
        self.resumed = stood is not None
        self.revealed: set[object] = set()
        self.results: list[object] = []
        self.after_close = 0

    def push(self, frame: Frame) -> None:
        if self.close_reason is not None:
            self.after_close += frame.kind in NUMBERED or frame.kind == "result"
            return
        super().push(frame)
        self.hear(frame.message)

    def hear(self, message: Any) -> None:
        if message["t"] == "joined":
            if message["state"] is not None:
                self.offset = message["offset"]
                self.results.clear()
                if message["state"]["reveal"] is not None:
                    self.revealed.add(message["state"]["number"])
        elif message["t"] in NUMBERED:
            assert self.offset is not None
            assert message["offset"] == self.offset + 1
            self.offset += 1
            if message["t"] == "reveal":
                self.revealed.add(message["number"])
        elif message["t"] == "result":
            assert message["number"] in self.revealed or self.resumed
            assert message["number"] not in self.results
            self.results.append(message["number"])


class Elsewhere(Client):
    """A node that takes part. What it is told, and how its clients are let in, comes in one order."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: list[Life] = []
        self._rows: list[Any] = []

    def push(self, frame: Frame) -> None:
        super().push(frame)
        message: Any = frame.message
        if frame.kind == "cast":
            for life in self.lives:
                life.hear(message["frame"])
        elif frame.kind == "standing":
            self._rows += message["rows"]
            if message["last"]:
                for life in self.lives:
                    life.hear(message["finished"] or {"t": "result", "number": message["number"]})
                self._rows = []

    def admitted(self, frames: list[Any]) -> None:
        life = Life()
        for message in frames:
            life.hear(message)
        self.lives.append(life)


class Admission(Client):
    def __init__(self, node: Elsewhere) -> None:
        super().__init__()
        self._node = node

    def push(self, frame: Frame) -> None:
        super().push(frame)
        if frame.kind == "admitted":
            message: Any = frame.message
            self._node.admitted(message["frames"])


async def interleaved(ops: list[tuple[str, int]], with_node: bool, clock: MockClock) -> None:
    async with world() as w:
        actor = await w.session(QUIZ, board="live", early_close=True)
        lives: list[Life | None] = []
        everybody: list[Life] = []

        def come(life: Life) -> Life:
            everybody.append(life)
            return life

        for n in range(PLAYERS):
            await w.join(actor, f"P{n}")
            life = come(Life())
            actor.send(Rejoin(life, "player", n + 1))
            lives.append(life)
        await settle()
        stood: dict[int, int] = {}
        kicked: set[int] = set()
        node = Elsewhere()
        if with_node:
            actor.send(SubscribeNode(node, "other"))
            await settle()
        for what, n in [*ops, ("host", 0), ("turns", 2)]:
            life = lives[n] if what in ("leave", "resume", "anew", "away", "replace", "again") else None
            if what == "turns":
                for _ in range(n):
                    await trio.lowlevel.checkpoint()
            elif what == "time":
                clock.jump(n)
            elif what == "host":
                phase = actor.session.phase
                do = {"lobby": "start", "question": "close", "reveal": "next", "paused": "resume"}.get(phase)
                do = ("pause" if phase == "question" and n == 2 else do) or "finish"
                actor.send(Host(Client(), "h", do))
            elif what == "kick":
                kicked.add(n)
                actor.send(Host(Client(), "h", "kick", player=n + 1))
            elif what == "answer":
                actor.send(Answer(Client(), n + 1, "a", actor.session.number, 0, w.clock.now_ms()))
            elif what == "watch":
                actor.send(Watch(come(Life())))
            elif n in kicked:
                continue
            elif what == "away" and with_node:
                actor.send(Rejoin(Admission(node), "player", n + 1, relay="other"))
                lives[n] = None
            elif what == "again" and life is not None:
                actor.send(Rejoin(life, "player", n + 1))
            elif what == "replace" and life is not None:
                lives[n] = come(Life())
                actor.send(Rejoin(lives[n], "player", n + 1))
            elif life is not None and life.offset is not None:
                actor.send(Detach(life))
                stood[n] = life.offset
                lives[n] = None
                everybody.remove(life)
                assert life.after_close == 0
                if what == "leave":
                    continue
                again = come(Life(stood[n]) if what == "resume" else Life())
                where = {"epoch": actor.epoch, "offset": stood[n]} if what == "resume" else {}
                actor.send(Rejoin(again, "player", n + 1, **where))  # type: ignore[arg-type]
                lives[n] = again
        await settle()
        assert w.registry.statistics().crashes == 0
        assert not actor.live.broadcasts.in_progress
        for life in everybody:
            assert life.after_close == 0
            if life.close_reason is None and life.frames and not life.errors:
                assert life.offset == actor.offset
        for life in node.lives:
            assert life.offset == actor.offset


@settings(deadline=None, max_examples=150)
@given(OPS, st.booleans())
def test_each_broadcast_reaches_each_subscriber_once_and_in_order(
    ops: list[tuple[str, int]], with_node: bool
) -> None:
    clock = MockClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "SLICE_S", 0)
        patch.setattr(fanout, "CHUNK", 2)
        trio.run(interleaved, ops, with_node, clock, clock=clock)
