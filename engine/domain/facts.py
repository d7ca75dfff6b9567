"""The facts of a session: what has happened, in the past tense.

Facts are all that is stored of a live session. Replayed in the order of `seq` they rebuild the aggregate, and
the result equals the one that was lost. `seq` counts from 1 without gaps within a session; `at` is the
server's clock in milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Choice = int | float | bool | str | tuple[int, ...]
"""What a player answered: the index of a choice (single), sorted indices (multiple), True or False
(true_false), the text as typed (text), or a number (numeric)."""


@dataclass(frozen=True, slots=True)
class PlayerJoined:
    """`user_id`: the user of the app that the player is, in the app's own words; None for a guest.
    `erased`: the name and the user that the player had are gone for good, and `name` stands in place of the
    name. Nothing else in a fact ever changes."""

    seq: int
    at: int
    player: int
    name: str
    erased: bool = False
    user_id: str | None = None


def erased_name(player: int) -> str:
    """What stands in place of a name that was erased, in every language."""
    return f"#{player}"


@dataclass(frozen=True, slots=True)
class PlayerKicked:
    seq: int
    at: int
    player: int


@dataclass(frozen=True, slots=True)
class PlayerReadmitted:
    """A removed player is in again, with all earlier answers."""

    seq: int
    at: int
    player: int


@dataclass(frozen=True, slots=True)
class ExtraTimeGiven:
    """From now on the player's time limit is so many percent of that of a question. 100 takes extra time
    away; 0 is no limit at all, which a player has whom nobody waits for."""

    seq: int
    at: int
    player: int
    percent: int


@dataclass(frozen=True, slots=True)
class AnswerAccepted:
    """`elapsed_ms` is play time since the question opened (pauses and outages do not count), the part that
    counts of it for a player with extra time; `points` is what the answer earned, streak bonus included."""

    seq: int
    at: int
    player: int
    question: int
    choice: Choice
    elapsed_ms: int
    correct: bool
    points: int


@dataclass(frozen=True, slots=True)
class AnswerMerged:
    """An answer that an earlier owner had accepted and acknowledged, and that reached the session only after
    another had taken it. All but `seq` is as that owner had it; `at` may lie long before the fact itself. Of
    all answers of a player to a question the one with the smallest `at` stands."""

    seq: int
    at: int
    player: int
    question: int
    choice: Choice
    elapsed_ms: int
    correct: bool
    points: int


@dataclass(frozen=True, slots=True)
class QuestionOpened:
    """`question` counts from 1. Everybody sees it from `at` on; `ready_ms` later the play clock starts, and
    answers are taken."""

    seq: int
    at: int
    question: int
    ready_ms: int = 0


@dataclass(frozen=True, slots=True)
class QuestionClosed:
    seq: int
    at: int
    question: int


@dataclass(frozen=True, slots=True)
class QuestionSkipped:
    """The last question that was opened counts for no player, whatever was answered. If it was still open,
    this closes it."""

    seq: int
    at: int
    question: int


@dataclass(frozen=True, slots=True)
class QuestionShown:
    """With the pace `self`: one player sees this question from `at` on, and the time to answer it runs."""

    seq: int
    at: int
    player: int
    question: int


@dataclass(frozen=True, slots=True)
class AttemptBegun:
    """With the pace `self`: the player goes through the quiz once more. `attempt` counts from 2. Facts of
    this attempt have the number `plays_as` in the place of the player's own: no player and no other attempt
    has it."""

    seq: int
    at: int
    player: int
    attempt: int
    plays_as: int


@dataclass(frozen=True, slots=True)
class PlayerDone:
    """With the pace `self`: the player has answered, or let pass, every question."""

    seq: int
    at: int
    player: int


@dataclass(frozen=True, slots=True)
class DeadlineMoved:
    """With the pace `self`: the session is now open until `closes_at`."""

    seq: int
    at: int
    closes_at: int


@dataclass(frozen=True, slots=True)
class Paused:
    seq: int
    at: int


@dataclass(frozen=True, slots=True)
class Resumed:
    seq: int
    at: int


@dataclass(frozen=True, slots=True)
class ClockExtended:
    """The node was away for `by_ms`, or one goes on whose clock is ahead by so much: the running countdown
    starts that much later. It starts earlier, and `by_ms` is negative, when that clock is behind by more."""

    seq: int
    at: int
    by_ms: int


@dataclass(frozen=True, slots=True)
class LockChanged:
    """`locked` is None when from now on the host lets players in one by one. Earlier releases read that as an
    open door."""

    seq: int
    at: int
    locked: bool | None


@dataclass(frozen=True, slots=True)
class HostReplaced:
    """An author has taken the session over: host tokens from before this are void."""

    seq: int
    at: int


@dataclass(frozen=True, slots=True)
class Finished:
    seq: int
    at: int


Fact = (
    PlayerJoined
    | PlayerKicked
    | PlayerReadmitted
    | ExtraTimeGiven
    | AnswerAccepted
    | AnswerMerged
    | QuestionOpened
    | QuestionClosed
    | QuestionSkipped
    | QuestionShown
    | AttemptBegun
    | PlayerDone
    | DeadlineMoved
    | Paused
    | Resumed
    | ClockExtended
    | LockChanged
    | HostReplaced
    | Finished
)

_MEASURED_FROM = (
    QuestionOpened,
    QuestionClosed,
    QuestionSkipped,
    QuestionShown,
    Paused,
    Resumed,
    ClockExtended,
)


def of_one_clock(facts: Sequence[Fact]) -> Sequence[Fact]:
    """The last of these facts, dated by the clock that dates the running countdown: another node's may have
    dated those before."""
    for place in range(len(facts) - 1, -1, -1):
        if isinstance(facts[place], _MEASURED_FROM):
            return facts[place:]
    return facts
