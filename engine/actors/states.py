"""The states of a session actor, and the fate of a command in each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, get_args

import trio

from engine.actors.commands import Command, Detach, Flushed, Left, Look, Rejoin, Watch

DOUBT_LOOK_S = 0.05
DOUBT_LOOK_MAX_S = 1.0
"""Between two looks whether the session is certainly this node's still: rarer and rarer, as all look."""


class Fenced(Exception):
    """Another owner has taken the session. The actor stops at once and confirms nothing more."""


class State(Enum):
    """An actor is in exactly one of these."""

    RUNNING = "the session is played"
    ENDING = "the session is over; the fact that says so is not committed, and so nobody was told"
    OVER = "the session is over and everybody was told; the actor lingers for those who come late"
    HANDING_OVER = "the session goes to another node as soon as every fact is committed"
    FENCED = "another owner has the session; the actor's task is about to raise Fenced"
    FAILED = "the actor has crashed outside of its own task, which is about to raise the error"
    STOPPED = "the actor has closed every connection, and serves nobody any more"


class Fate(Enum):
    """The fate of a command. If it is `HANDLED`, `AFTER_THE_END`, `HANDED_ON` or `CLOSED`, the command waits
    in the mailbox. If the mailbox is full, the actor answers `busy` instead, except for `ALWAYS_FIT`."""

    HANDLED = "the actor handles the command in its turn"
    AFTER_THE_END = "the actor checks the command in its turn, and answers once the end is committed"
    HANDED_ON = "the command waits: the next owner gets it, or this actor handles it after `take_back`"
    CLOSED = "the command is never handled: its reply is closed with the reason for which the actor ends"
    BUSY = "the reply gets `busy` at once"
    DROPPED = "nothing happens"


# How to think about this
# =======================
#
#                    Finished is recorded        Finished is committed, everybody was told
#         RUNNING --------------------> ENDING --------------------> OVER
#          |  ^
#          |  | take_back
#   give_   |  |
#    away   v  |          all is committed
#       HANDING_OVER ---------------------------> STOPPED
#
# From each of these an actor can become FENCED or FAILED, and FAILED can become FENCED; every state ends in
# STOPPED. Nothing leads out of STOPPED. An actor that is fenced, or fails, after it has stopped still raises
# that error from its task (`Lifecycle.error`), because its supervisor has to know.
#
# Time passes (deadlines, ticks) in RUNNING, ENDING and OVER alone. FENCED and FAILED last until the actor's
# task notices them, at the end of its turn at the latest.

SERVING: Final = frozenset({State.RUNNING, State.ENDING, State.OVER})
"""The states in which the actor handles commands, and time passes."""

MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.RUNNING: frozenset({State.ENDING, State.HANDING_OVER, State.FENCED, State.FAILED, State.STOPPED}),
    State.ENDING: frozenset({State.OVER, State.FENCED, State.FAILED, State.STOPPED}),
    State.OVER: frozenset({State.FENCED, State.FAILED, State.STOPPED}),
    State.HANDING_OVER: frozenset({State.RUNNING, State.FENCED, State.FAILED, State.STOPPED}),
    State.FAILED: frozenset({State.FENCED, State.STOPPED}),
    State.FENCED: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}

ALWAYS_FIT: Final = frozenset({Detach, Flushed, Left})
"""Commands that free something, or that other nodes wait for: a full mailbox takes them too."""

_SHOWN: Final = frozenset({Rejoin, Watch, Look})
"""Commands that are answered with the state of the session."""

_FATES: Final[Mapping[State, tuple[Fate, Fate, Fate]]] = {
    # Rejoin, Watch, Look; Detach, Flushed, Left; all others
    State.RUNNING: (Fate.HANDLED, Fate.HANDLED, Fate.HANDLED),
    State.ENDING: (Fate.AFTER_THE_END, Fate.HANDLED, Fate.HANDLED),
    State.OVER: (Fate.HANDLED, Fate.HANDLED, Fate.HANDLED),
    State.HANDING_OVER: (Fate.HANDED_ON, Fate.HANDED_ON, Fate.HANDED_ON),
    State.FENCED: (Fate.CLOSED, Fate.CLOSED, Fate.CLOSED),
    State.FAILED: (Fate.CLOSED, Fate.CLOSED, Fate.CLOSED),
    State.STOPPED: (Fate.BUSY, Fate.DROPPED, Fate.BUSY),
}


def _fate(state: State, command: type[Command]) -> Fate:
    shown, always_fit, others = _FATES[state]
    if command in _SHOWN:
        return shown
    return always_fit if command in ALWAYS_FIT else others


FATES: Final[Mapping[State, Mapping[type[Command], Fate]]] = {
    state: {command: _fate(state, command) for command in get_args(Command)} for state in State
}
"""The fate of each command in each state of the actor."""


class Lifecycle:
    """The state of one actor. Only `MOVES` change it."""

    __slots__ = ("error", "fates", "fenced", "serves", "session_id", "state")

    def __init__(self, session_id: str, state: State) -> None:
        self.session_id = session_id
        self.error: Exception | None = None
        """The error that the actor's task raises at its next turn."""
        self.fenced = trio.Event()
        self._set(state)

    def _set(self, state: State) -> None:
        self.state = state
        self.fates = FATES[state]
        self.serves = state in SERVING

    def enter(self, state: State) -> None:
        """Change the state. Raises RuntimeError for a move that is not in `MOVES`; the state then stays as it
        is."""
        if state not in MOVES[self.state]:
            raise RuntimeError(f"an actor that is {self.state.name} cannot become {state.name}")
        self._set(state)

    def fence(self) -> None:
        """Another owner has the session. The task raises Fenced, instead of any other error."""
        self.error = Fenced(self.session_id)
        self.fenced.set()
        if State.FENCED in MOVES[self.state]:
            self._set(State.FENCED)

    def fail(self, error: Exception) -> None:
        """Make the actor's task raise this error, unless it already has another error to raise."""
        if self.error is None:
            self.error = error
        if State.FAILED in MOVES[self.state]:
            self._set(State.FAILED)

    async def certain(self, in_doubt: Callable[[], bool]) -> bool:
        """Wait until the session is certainly this node's still. False once it is not."""
        pause_s = DOUBT_LOOK_S
        while in_doubt() and self.error is None:
            with trio.move_on_after(pause_s):
                await self.fenced.wait()
            pause_s = min(2 * pause_s, DOUBT_LOOK_MAX_S)
        return self.error is None

    def stop(self) -> None:
        """Serve no clients any more."""
        if self.state is not State.STOPPED:
            self._set(State.STOPPED)
