"""The states of an actor, as a table: every state times every command, and every state times every move."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import trio
from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import (
    Answer,
    Command,
    Detach,
    Erase,
    Flushed,
    Host,
    Join,
    Left,
    ListPlayers,
    Look,
    Merge,
    Next,
    Rejoin,
    SubscribeNode,
    TakeOver,
    Watch,
)
from engine.actors.handlers import HANDLERS
from engine.actors.options import ActorOptions
from engine.actors.states import ALWAYS_FIT, FATES, MOVES, SERVING, Fate, Fenced, Lifecycle, State
from engine.domain.session import Phase
from tests.actors.world import GRACE_S, START_MS, Client, World, node, settle, world

WHAT_BECOMES_OF = """
                RUNNING  ENDING         OVER     HANDING_OVER  FENCED  FAILED  STOPPED
Join            handled  handled        handled  handed_on     closed  closed  busy
Rejoin          handled  after_the_end  handled  handed_on     closed  closed  busy
Watch           handled  after_the_end  handled  handed_on     closed  closed  busy
Look            handled  after_the_end  handled  handed_on     closed  closed  busy
ListPlayers     handled  handled        handled  handed_on     closed  closed  busy
SubscribeNode   handled  handled        handled  handed_on     closed  closed  busy
Flushed         handled  handled        handled  handed_on     closed  closed  dropped
Left            handled  handled        handled  handed_on     closed  closed  dropped
Answer          handled  handled        handled  handed_on     closed  closed  busy
Next            handled  handled        handled  handed_on     closed  closed  busy
Host            handled  handled        handled  handed_on     closed  closed  busy
TakeOver        handled  handled        handled  handed_on     closed  closed  busy
Detach          handled  handled        handled  handed_on     closed  closed  dropped
Merge           handled  handled        handled  handed_on     closed  closed  busy
Erase           handled  handled        handled  handed_on     closed  closed  busy
"""

MAKE: dict[str, Callable[[Client], Command]] = {
    "Join": lambda client: Join(client, "Ben", START_MS),
    "Rejoin": lambda client: Rejoin(client, "player", 1),
    "Watch": Watch,
    "Look": Look,
    "ListPlayers": lambda client: ListPlayers(client, 0, 10),
    "SubscribeNode": lambda client: SubscribeNode(client, "other"),
    "Flushed": lambda client: Flushed(client, "other", 1),
    "Left": lambda client: Left(client, "other", 1),
    "Answer": lambda client: Answer(client, 1, "a", 1, 0, START_MS),
    "Next": lambda client: Next(client, 1),
    "Host": lambda client: Host(client, "h", "lock"),
    "TakeOver": TakeOver,
    "Detach": Detach,
    "Merge": lambda client: Merge(client, ()),
    "Erase": lambda client: Erase(client, 1),
}


def cells() -> list[tuple[State, str, Fate]]:
    header, *rows = (line.split() for line in WHAT_BECOMES_OF.strip().splitlines())
    return [
        (State[state], command, Fate[fate.upper()])
        for command, *fates in rows
        for state, fate in zip(header, fates, strict=True)
    ]


def test_the_table_is_that_of_the_actor_and_has_every_command_in_every_state() -> None:
    types = {each.__name__: each for each in get_args(Command)}
    assert set(MAKE) == set(types)
    assert set(HANDLERS) == set(types.values())
    assert len(cells()) == len(State) * len(types)
    for state, command, fate in cells():
        assert FATES[state][types[command]] is fate, (state, command)


async def brought_into(state: State, w: World) -> SessionActor:
    """An actor in this state, with the player Ada. What is said to it next finds it there still."""
    actor = await w.session(results_public=True)
    await w.join(actor, "Ada")
    w.journal.auto = "off"
    match state:
        case State.ENDING:
            await w.do(actor, "finish")
        case State.OVER:
            await w.do(actor, "finish")
            w.journal.commit()
            await settle()
        case State.HANDING_OVER:
            await w.do(actor, "lock")
            actor.give_away()
            await settle()
        case State.FENCED:
            actor.fenced()
        case State.FAILED:
            actor.live.lifecycle.fail(RuntimeError("as the test wants it"))
            actor.wake()
        case State.STOPPED:
            actor.end(CloseReason.RESTARTING)
    assert actor.live.lifecycle.state is state
    return actor


@pytest.mark.parametrize(("state", "name", "fate"), cells(), ids=lambda value: getattr(value, "name", value))
async def test_what_becomes_of_a_command(state: State, name: str, fate: Fate, mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await brought_into(state, w)
        client = Client()
        command = MAKE[name](client)
        actor.send(command)
        if fate in (Fate.BUSY, Fate.DROPPED):
            assert client.errors == (["busy"] if fate is Fate.BUSY else [])
            return
        assert (client.frames, actor.backlog) == ([], 1), "nothing is said before the actor's turn"
        await settle()
        if fate is Fate.CLOSED:
            assert (client.frames, client.close_reason) == ([], CloseReason.RESTARTING)
            return
        assert client.close_reason is None
        if fate is Fate.HANDED_ON:
            assert client.frames == []
            w.journal.commit()
            await settle()
            assert actor.snapshot is not None
            assert list(actor.snapshot.commands) == [command]
            return
        assert actor.backlog == 0
        if fate is Fate.AFTER_THE_END:
            assert client.frames == []
        w.journal.commit()
        await settle()
        assert "busy" not in client.errors
        assert bool(client.frames) == (name != "Detach")
        if fate is Fate.AFTER_THE_END:
            [shown] = client.frames
            assert shown.message["state"]["phase"] == "finished"


@pytest.mark.parametrize("state", sorted(SERVING | {State.HANDING_OVER}, key=lambda state: state.name))
async def test_a_full_mailbox_takes_only_what_always_fits(state: State, mock_clock: MockClock) -> None:
    async with world(ActorOptions(mailbox_max=2)) as w:
        actor = await brought_into(state, w)
        for _ in range(2):
            actor.send(Look(Client()))
        for name, make in MAKE.items():
            client = Client()
            command = make(client)
            before = actor.backlog
            actor.send(command)
            fits = type(command) in ALWAYS_FIT
            assert (client.errors, actor.backlog) == ([] if fits else ["busy"], before + fits), name


# -- moves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("after", State)
async def test_a_move_that_is_not_in_the_table_changes_nothing(state: State, after: State) -> None:
    lifecycle = Lifecycle("s", state)
    if after in MOVES[state]:
        lifecycle.enter(after)
        assert (lifecycle.state, lifecycle.serves) == (after, after in SERVING)
    else:
        with pytest.raises(RuntimeError, match=f"{state.name} cannot become {after.name}"):
            lifecycle.enter(after)
        assert (lifecycle.state, lifecycle.serves) == (state, state in SERVING)


@pytest.mark.parametrize("state", State)
async def test_whatever_its_state_an_actor_that_is_fenced_says_so(state: State) -> None:
    lifecycle = Lifecycle("s", state)
    lifecycle.fail(ValueError("oops"))
    assert isinstance(lifecycle.error, ValueError)
    lifecycle.fence()
    assert isinstance(lifecycle.error, Fenced)
    lifecycle.fail(ValueError("another"))
    assert isinstance(lifecycle.error, Fenced)
    assert lifecycle.state is (State.STOPPED if state is State.STOPPED else State.FENCED)
    lifecycle.stop()
    assert lifecycle.state is State.STOPPED


@pytest.mark.parametrize("state", sorted(set(State) - SERVING, key=lambda state: state.name))
async def test_no_time_passes_but_for_a_session_that_is_served(state: State, mock_clock: MockClock) -> None:
    """An answer that was received in time may lie in the mailbox, which nobody looks at any more."""
    async with world() as w:
        actor, ada = await w.started("Ada", early_close=False)
        mock_clock.jump(21)
        w.answer(actor, ada, 1)
        if state is State.HANDING_OVER:
            actor.give_away()
        else:
            actor.live.lifecycle.enter(state)
        assert not await actor.live.deadlines.pass_time()
        assert actor.session.question_open


async def test_host_commands_that_wait_for_a_deadline_are_handed_on_before_all_others(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        actor = await w.session(early_close=False)
        ada = await w.join(actor, "Ada")
        await node(actor, prompt=False)
        await w.do(actor, "start")
        closing, locking = Host(Client(), "h", "close"), Host(Client(), "h", "lock")
        for command in (closing, locking):
            actor.send(command)
        await settle()
        assert actor.session.question_open, "the other node may have answers"
        w.answer(actor, ada, 1)
        actor.give_away()
        await settle()
        assert actor.snapshot is not None
        assert list(actor.snapshot.commands[:2]) == [closing, locking]
        assert [type(command) for command in actor.snapshot.commands] == [Host, Host, Answer]


async def test_a_session_taken_back_goes_on_with_what_came_meanwhile(mock_clock: MockClock) -> None:
    async with world() as w:
        actor = await brought_into(State.HANDING_OVER, w)
        looking = Client()
        actor.send(Look(looking))
        await settle()
        assert looking.frames == []
        actor.take_back()
        await settle()
        assert looking.kinds == ["look"]
        assert actor.live.lifecycle.state is State.RUNNING


async def test_only_a_running_session_is_given_away(mock_clock: MockClock) -> None:
    for state in set(State) - {State.RUNNING}:
        async with world() as w:
            actor = await brought_into(state, w)
            actor.give_away()
            assert actor.live.lifecycle.state is state
            await trio.lowlevel.checkpoint()


async def test_an_end_that_is_committed_within_its_turn_is_told_before_the_actor_rests(
    mock_clock: MockClock,
) -> None:
    """Nobody had asked the session for anything for longer than a finished session lingers."""
    async with world() as w:
        actor, ada = await w.started("Ada", pace="auto", reveal_ms=60_000)
        w.journal.auto = "now"
        for _ in range(actor.session.of):
            mock_clock.jump(20 + GRACE_S)
            await settle()
            assert actor.session.phase is Phase.REVEAL
            mock_clock.jump(60)
            await settle()
        assert ada.kinds[-1] == "finished"
        assert ada.close_reason is None
