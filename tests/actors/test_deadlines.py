"""What was received before a deadline counts, whatever lies in front of it, and wherever it was received."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors import actor as actors
from engine.actors.actor import SessionActor
from engine.actors.commands import (
    Answer,
    Command,
    Detach,
    Flushed,
    Host,
    Join,
    Left,
    ListPlayers,
    Look,
    Merge,
    Rejoin,
    SubscribeNode,
    Watch,
)
from engine.actors.deadlines import FLUSH_MS, HOSTS_WAITING_MAX
from engine.actors.mailbox import Mailbox
from engine.domain.clock import RECEIPT_GRACE_MS
from engine.domain.facts import QuestionClosed
from engine.domain.session import Phase
from tests.actors.test_reads import Transport
from tests.actors.world import GRACE_S, Client, Node, World, node, settle, world

LIMIT_MS = 20_000
PLAYERS = 4


async def question_open(w: World, players: int = PLAYERS) -> tuple[SessionActor, int]:
    """A session whose first question is open, and when its time is over."""
    actor = await w.session(early_close=False)
    for number in range(1, players + 1):
        await w.join(actor, f"P{number}")
    await w.do(actor, "start")
    return actor, w.clock.now_ms() + LIMIT_MS


def in_front(kind: str, w: World, actor: SessionActor, sitting: Client) -> Command:
    """A command that says nothing about the question."""
    reply = Client()
    commands: dict[str, Command] = {
        "join": Join(reply, "Late", w.clock.now_ms()),
        "rejoin": Rejoin(reply, "player", 2),
        "watch": Watch(reply),
        "look": Look(reply),
        "list": ListPlayers(reply, 0, 10),
        "left": Left(reply, "other", 3),
        "passed": Flushed(reply, "other", 0),
        "detach": Detach(sitting),
        "merge": Merge(reply, ()),
        "relay": SubscribeNode(Node(actor, "other", prompt=True), "other"),
        "lock": Host(reply, "h", "lock"),
        "next": Host(reply, "h", "next"),
        "close": Host(reply, "h", "close"),
        "pause": Host(reply, "h", "pause"),
        "resume": Host(reply, "h", "resume"),
    }
    return commands[kind]


QUIET = (
    "join",
    "rejoin",
    "watch",
    "look",
    "list",
    "left",
    "passed",
    "detach",
    "merge",
    "relay",
    "lock",
    "next",
)


@pytest.mark.parametrize("kind", [*QUIET, "close"])
@pytest.mark.parametrize("read", ["in time", "late"])
async def test_an_answer_in_time_counts_whatever_lies_in_front_of_it(
    mock_clock: MockClock, kind: str, read: str
) -> None:
    async with world() as w:
        actor, deadline = await question_open(w, 120)
        clients = [Client() for _ in range(120)]
        mock_clock.jump(LIMIT_MS / 1000 + GRACE_S + (0.5 if read == "late" else 0))
        for number, client in enumerate(clients, 1):
            if number == actors.BATCH_MAX + 1:
                # The second batch begins here, and time passes before it.
                actor.send(in_front(kind, w, actor, Client()))
            at = deadline - 1 if read == "in time" else w.clock.now_ms()
            actor.send(Answer(client, number, "a", 1, 0, at, held_ms=at - deadline + 1))
        await settle()
        assert [client.errors for client in clients] == [[]] * 120
        assert all(client.last("ack")["status"] == "accepted" for client in clients)
        assert actor.session.phase in (Phase.REVEAL, Phase.QUESTION)
        assert actor.session.answer_of(120, 1) == (0, LIMIT_MS - 1)


async def test_what_lay_in_the_kernel_at_the_deadline_counts_as_of_the_last_moment(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor, deadline = await question_open(w)
        mock_clock.jump(LIMIT_MS / 1000)
        await settle()
        assert actor.session.question_open
        mock_clock.jump(GRACE_S)
        read, late = Client(), Client()
        actor.send(Answer(read, 1, "a", 1, 0, deadline + RECEIPT_GRACE_MS))
        actor.send(Answer(late, 2, "a", 1, 0, deadline + RECEIPT_GRACE_MS + 1))
        await settle()
        assert read.last("ack")["elapsed_ms"] == LIMIT_MS
        assert late.errors == ["late"]
        assert not actor.session.question_open
        [closed] = [f for f in w.store.facts(actor.session_id) if isinstance(f, QuestionClosed)]
        assert closed.at == deadline, "nobody is given more time"


async def test_a_deadline_waits_until_the_kernel_has_nothing_from_before_it(mock_clock: MockClock) -> None:
    """A loop that is late reads answers when their question is long over."""
    async with world() as w:
        actor, deadline = await question_open(w)
        transport = Transport(w.pacing.reads)
        mock_clock.jump(LIMIT_MS / 1000 + GRACE_S)
        await settle()
        assert transport.asked == 1
        transport.reads.begin()
        mock_clock.jump(0.9)
        await settle()
        assert actor.session.question_open, "the transport reads"
        now = w.clock.now_ms()
        clients = [Client() for _ in range(PLAYERS)]
        for number, received in enumerate((deadline - 3, deadline + RECEIPT_GRACE_MS), 1):
            actor.send(Answer(clients[number], number, "a", 1, 0, now, held_ms=now - received))
        actor.send(Answer(clients[3], 3, "a", 1, 0, now, held_ms=now - deadline - RECEIPT_GRACE_MS - 1))
        transport.end()
        await settle()
        assert [clients[number].last("ack")["elapsed_ms"] for number in (1, 2)] == [LIMIT_MS - 3, LIMIT_MS]
        assert clients[3].errors == ["late"]
        assert not actor.session.question_open
        assert transport.asked == 1
        [closed] = [f for f in w.store.facts(actor.session_id) if isinstance(f, QuestionClosed)]
        assert closed.at == deadline, "nobody is given more time"


@pytest.mark.parametrize("do", ["close", "pause", "finish"])
async def test_a_host_who_ends_the_answering_waits_until_the_kernel_has_nothing_from_before_it(
    do: str, mock_clock: MockClock
) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        transport = Transport(w.pacing.reads)
        mock_clock.jump(5)
        taken = w.clock.now_ms()
        host = await w.do(actor, do)
        assert (transport.asked, host.frames) == (1, [])
        transport.reads.begin()
        mock_clock.jump(0.5)
        in_time = Client()
        actor.send(Answer(in_time, 1, "a", 1, 0, w.clock.now_ms(), held_ms=w.clock.now_ms() - taken))
        transport.end()
        await settle()
        assert in_time.last("ack")["elapsed_ms"] == 5_000
        assert host.kinds == ["done"]


async def test_a_host_who_ends_nothing_does_not_wait_for_the_kernel(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        transport = Transport(w.pacing.reads)
        assert (await w.do(actor, "lock")).kinds == ["done"]
        assert transport.asked == 0


async def test_an_answer_that_was_held_up_is_not_dated_before_its_question_took_answers(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor, player = await w.started("Ada", get_ready_ms=1_000)
        mock_clock.jump(1.002)
        await settle()
        actor.send(Answer(player, 1, "a", 1, 0, w.clock.now_ms(), held_ms=10))
        await settle()
        assert (player.errors, player.last("ack")["elapsed_ms"]) == ([], 0)


async def test_the_hosts_close_waits_for_what_other_nodes_have_received_before(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        relay = await node(actor, prompt=False)
        closing = await w.do(actor, "close")
        assert closing.frames == []
        before = Client()
        actor.send(Answer(before, 1, "a", 1, 0, w.clock.now_ms()))
        actor.send(Look(looking := Client()))
        actor.send(Flushed(Client(), "other", relay.last("flush")["number"]))
        await settle()
        assert before.last("ack")["status"] == "accepted"
        assert looking.kinds == ["look"], "nobody else waits for it"
        assert closing.last("done")["phase"] == "reveal"


async def test_the_host_does_not_wait_for_ever_for_a_node_that_says_nothing(mock_clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        await node(actor, prompt=False)
        closing, after = await w.do(actor, "close"), await w.do(actor, "next")
        mock_clock.jump(FLUSH_MS / 1000)
        await settle()
        assert closing.last("done")["phase"] == "reveal"
        assert after.last("done")["phase"] == "question"


async def test_the_hosts_commands_that_wait_are_bounded_and_end_with_the_session(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        await node(actor, prompt=False)
        waiting = [await w.do(actor, "close") for _ in range(HOSTS_WAITING_MAX)]
        assert (await w.do(actor, "close")).errors == ["busy"]
        actor.fenced()
        await settle()
        assert all(client.close_reason is not None for client in waiting)


async def test_each_command_is_looked_at_once_for_a_deadline(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    def newest(self: Mailbox[Command], after: int) -> Iterator[tuple[int, Command]]:
        nonlocal looked
        for each in unpatched(self, after):
            looked += 1
            yield each

    unpatched = Mailbox[Command].newest
    monkeypatch.setattr(Mailbox, "newest", newest)
    async with world() as w:
        actor, deadline = await question_open(w)
        mock_clock.jump(LIMIT_MS / 1000 + GRACE_S)
        clients = [Client() for _ in range(3_000)]
        for place, client in enumerate(clients):
            in_time = place % 1_000 == 999
            actor.send(Answer(client, 1, "a", 1, 0, deadline + (0 if in_time else 1_000)))
        await settle()
        assert clients[999].last("ack")["status"] == "accepted"
        assert actor.session.phase is Phase.REVEAL
        assert 0 < looked <= len(clients)


# -- any interleaving --------------------------------------------------------------------------------

Step = tuple[str, int, int]
"""Its kind, and two numbers that mean something to some kinds."""

LOCAL = st.tuples(st.just("answer"), st.integers(1, PLAYERS), st.just(0))
FROM_AFAR = st.tuples(st.just("answer"), st.integers(1, PLAYERS), st.integers(1, 60))
"""Received by another node so many milliseconds ago."""

READ_LATE = st.tuples(st.just("read late"), st.integers(1, PLAYERS), st.integers(1, 60))
"""Received here, and left in the kernel for so many milliseconds."""

OTHERS = st.tuples(st.sampled_from([*QUIET, "close", "pause", "resume"]), st.just(0), st.just(0))
TURN = st.tuples(st.just("turn"), st.just(0), st.just(0))
PASS = st.tuples(st.just("pass"), st.integers(1, 30), st.just(0))
MAIL = st.one_of(LOCAL, LOCAL, FROM_AFAR, READ_LATE, OTHERS)
ANY = st.lists(st.one_of(MAIL, TURN, PASS), max_size=15)
OVER = st.tuples(st.just("pass"), st.integers(20, 40), st.just(0))
STEPS = st.builds(
    lambda *parts: [*itertools.chain(*parts)],
    ANY,
    st.lists(MAIL, max_size=15),
    OVER.map(lambda step: [step]),
    ANY,
)
"""Some lie in the mailbox while the deadline strikes."""


async def _judged(steps: Sequence[Step], clock: MockClock) -> None:
    async with world() as w:
        actor, _ = await question_open(w)
        clock.jump(LIMIT_MS / 1000 - 0.02)
        sent: list[tuple[Client, int, bool, bool]] = []
        ended_by_host = False
        sitting = await w.rejoin(actor, 3)
        for kind, one, other in steps:
            if kind == "turn":
                await settle()
            elif kind == "pass":
                clock.jump(one / 1000)
            elif kind in ("answer", "read late"):
                client, at = Client(), w.clock.now_ms() - other
                held_ms = other if kind == "read late" else 0
                was_open = actor.session.question_open and actor.session.number == 1
                sent.append((client, at, was_open, ended_by_host))
                actor.send(Answer(client, one, "a", 1, 0, at + held_ms, held_ms=held_ms or None))
            else:
                ended_by_host |= kind == "close"
                actor.send(in_front(kind, w, actor, sitting))
        await settle()
        for _ in range(3):
            await w.do(actor, "resume")
            clock.jump(1)
            await settle()
        closed = [f for f in w.store.facts(actor.session_id) if isinstance(f, QuestionClosed)]
        assert closed
        for client, at, was_open, after_close in sent:
            # The close of a host comes before what is received after it, and a question that was closed when
            # an answer came here was closed without anybody knowing of the answer.
            if at <= closed[0].at and was_open and not after_close:
                assert not {"late", "question_closed"} & set(client.errors), (at, closed[0].at)
            assert client.frames, "everybody is told something"


@settings(max_examples=60)
@given(steps=STEPS, batch=st.integers(1, 5))
@example(steps=[("answer", 1, 0), ("look", 0, 0), ("answer", 2, 0), ("pass", 26, 0)], batch=1)
@example(steps=[("pass", 26, 0), ("next", 0, 0), ("answer", 1, 60)], batch=1)
@example(steps=[("next", 0, 0), ("pass", 25, 0), ("turn", 0, 0), ("pass", 20, 0), ("answer", 1, 25)], batch=1)
def test_no_interleaving_makes_an_answer_late_that_was_not(steps: Sequence[Step], batch: int) -> None:
    with patch.object(actors, "BATCH_MAX", batch):
        clock = MockClock()
        trio.run(_judged, steps, clock, clock=clock)
