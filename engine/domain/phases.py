"""Where a session stands, and which moves lead where."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from engine.domain.errors import DomainError, Refusal
from engine.domain.facts import (
    DeadlineMoved,
    Fact,
    Finished,
    Paused,
    PlayerDone,
    QuestionClosed,
    QuestionOpened,
    QuestionShown,
    QuestionSkipped,
    Resumed,
)


class Phase(StrEnum):
    """The phases by their names on the wire."""

    LOBBY = "lobby"
    QUESTION = "question"
    REVEAL = "reveal"
    PAUSED = "paused"
    FINISHED = "finished"
    OPEN = "open"
    """With the pace `self`, from the creation to the end: each player is somewhere else (`self_pace`)."""


# How to think about this
# =======================
#
# A session is always in exactly one phase:
#
#                  start             close, skip, time, all answered
#       LOBBY ----------------> QUESTION -------------------------> REVEAL
#                                  ^                                  |  |
#                                  +-------------- next --------------+  |
#                                                                        | next after the last question
#                                       finish from anywhere             v
#                                      ------------------------------> FINISHED
#
# PAUSED lies beside the three phases in which time may pass. It is entered from each of them and leads back
# to the very one it was entered from; that one is remembered beside the phase, because three PAUSED phases
# would only say the same thing thrice. Nothing leads out of FINISHED.
#
# A self-paced session is OPEN until it is FINISHED, and in no other phase.
#
# There are two tables because there are two questions. What may be asked for? A command looks itself up in
# COMMANDS, is refused if the phase is not there, and then nothing has changed. What does a fact do? The
# fact looks itself up in MOVES. Facts alone move a session, when they happen and again in recovery, so
# a finish in the middle of things is no move of its own: it is Resumed if need be, QuestionClosed if need be,
# and then Finished. A skip is Resumed if need be, and then QuestionSkipped, also of a closed question.

_NOT_OVER: Final = frozenset(Phase) - {Phase.FINISHED}

COMMANDS: Final[Mapping[str, frozenset[Phase]]] = {
    "start": frozenset({Phase.LOBBY}),
    "next": frozenset({Phase.REVEAL}),
    "close": frozenset({Phase.QUESTION}),
    "skip": frozenset({Phase.QUESTION, Phase.REVEAL, Phase.PAUSED}),
    "pause": frozenset({Phase.LOBBY, Phase.QUESTION, Phase.REVEAL}),
    "resume": frozenset({Phase.PAUSED}),
    "finish": _NOT_OVER,
    "extend": frozenset({Phase.OPEN}),
    "lock": _NOT_OVER,
    "approval": _NOT_OVER,
    "kick": _NOT_OVER,
    "readmit": _NOT_OVER,
    "extra_time": _NOT_OVER,
}

BACK: Final = None
"""As the target of a move: the phase in which the session was paused."""

MOVES: Final[Mapping[type[Fact], Mapping[Phase, Phase | None]]] = {
    QuestionOpened: {Phase.LOBBY: Phase.QUESTION, Phase.REVEAL: Phase.QUESTION},
    QuestionClosed: {Phase.QUESTION: Phase.REVEAL},
    QuestionSkipped: {Phase.QUESTION: Phase.REVEAL, Phase.REVEAL: Phase.REVEAL},
    Paused: {Phase.LOBBY: Phase.PAUSED, Phase.QUESTION: Phase.PAUSED, Phase.REVEAL: Phase.PAUSED},
    Resumed: {Phase.PAUSED: BACK},
    Finished: {Phase.LOBBY: Phase.FINISHED, Phase.REVEAL: Phase.FINISHED, Phase.OPEN: Phase.FINISHED},
    QuestionShown: {Phase.OPEN: Phase.OPEN},
    PlayerDone: {Phase.OPEN: Phase.OPEN},
    DeadlineMoved: {Phase.OPEN: Phase.OPEN},
}


def refuse(command: str, phase: Phase) -> Refusal | None:
    """Why a command does not fit the phase; None when it does."""
    if phase in COMMANDS[command]:
        return None
    if phase is Phase.FINISHED:
        return Refusal("session_finished", "The session is over.")
    return Refusal("illegal_move", f"`{command}` does not fit the phase `{phase}`.")


def move(fact: Fact, phase: Phase, paused_in: Phase | None) -> Phase:
    """The phase after a fact of MOVES.

    Raises:
        DomainError: `bad_fact` when the fact cannot have happened in this phase.
    """
    moves = MOVES[type(fact)]
    if phase not in moves:
        raise DomainError("bad_fact", f"{type(fact).__name__} cannot happen in the phase `{phase}`")
    target = moves[phase] or paused_in
    assert target is not None, "a paused session remembers where it was"
    return target
