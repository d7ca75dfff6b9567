"""A run from the first wave to the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from loadtest.chaos.inject import Stage, StageFailed, inject
from loadtest.chaos.plan import Fault
from loadtest.chaos.proof import prove_all
from loadtest.chaos.timeline import AckTimeline
from loadtest.chaos.waves import Load, Waves
from loadtest.client.api import Api, ApiRefused, ApiUnreachable
from loadtest.runs.fleet import GeneratorDied
from loadtest.runs.proof import AskAnswers, AskMerged, Verdict
from loadtest.runs.scores import AskScores

RECOVER_WITHIN_S = 40.0
"""After the clean-up of a fault somebody has been told of an accepted answer, or something hangs."""

FIRST_ACK_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Survived:
    """What one fault has cost. Moments are seconds since the beginning of the run.

    Args:
        undone_s: when its clean-up was done.
        over_s: when an answer was acknowledged that is younger than that.
        acks: while the fault lasted.
        silence_s: the longest time without any ack between the fault and `over_s`.
    """

    fault: Fault
    began_s: float
    undone_s: float
    over_s: float
    acks: int
    silence_s: float

    @property
    def back_s(self) -> float:
        """From the moment at which the clean-up began, such as the start of a node, to an ack."""
        return max(self.over_s - self.began_s - self.fault.lasts_s, 0.0)


@dataclass(slots=True)
class Outcome:
    """All that a run has found. `trouble` is why it proves nothing, if so; `audit` is what the audit of all
    sessions has said."""

    survived: list[Survived] = field(default_factory=list)
    position: int = 0
    """Number of the fault that was in progress, or the last one."""
    sessions: int = 0
    took_s: float = 0.0
    verdict: Verdict | None = None
    audit: str = ""
    trouble: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return self.verdict is not None and self.verdict.holds and not self.trouble


@dataclass(frozen=True, slots=True)
class Aim:
    """What a run does, and when it has done enough.

    Args:
        answers: at least so many are acknowledged.
        minutes_max: by then all players have come to an end, or something hangs.
        nodes: that there are.
    """

    plan: Sequence[Fault]
    load: Load
    seed: int
    answers: int
    minutes_max: float
    nodes: int = 1


class ChaosRun:
    """One run; afterwards `outcome` and `timeline` are what it has found.

    Args:
        apis: of the nodes. Any of them is asked.
        directory: where ledgers are written.
        on_fault: called with each fault when it is over, how many there are, and the answers acknowledged
            so far.
    """

    def __init__(
        self,
        aim: Aim,
        stage: Stage,
        apis: Sequence[Api],
        ask_answers: AskAnswers,
        ask_merged: AskMerged,
        ask_scores: AskScores,
        directory: Path,
        on_fault: Callable[[Survived, int, int], None],
    ) -> None:
        self.timeline = AckTimeline()
        self.outcome = Outcome()
        self._aim = aim
        self._stage = stage
        self._apis = apis
        self._ask_answers = ask_answers
        self._ask_merged = ask_merged
        self._ask_scores = ask_scores
        self._directory = directory
        self._zero = time.monotonic()
        self._waves = Waves(apis, stage.ws_urls, aim.load, aim.seed, self.timeline, directory)
        self._on_fault = on_fault

    async def run(self) -> None:
        """Never raises for what the run has found: that is in the outcome."""
        outcome = self.outcome
        try:
            with trio.move_on_after(self._aim.minutes_max * 60) as bound:
                await self._play()
            if bound.cancelled_caught:
                outcome.trouble.append(
                    f"players have come to no end within {self._aim.minutes_max:g} minutes; "
                    f"{self.timeline.playing} are in"
                )
            outcome.trouble += self._waves.stuck
            if self.timeline.acks < self._aim.answers:
                outcome.trouble.append(
                    f"{self.timeline.acks:,} answers were acknowledged, and not {self._aim.answers:,}"
                )
            outcome.verdict = await prove_all(
                self._apis, self._ask_answers, self._ask_merged, self._directory, self._ask_scores
            )
        except* (StageFailed, GeneratorDied, ApiRefused, ApiUnreachable) as group:
            outcome.trouble += [str(each) for each in _leaves(group)]
        finally:
            outcome.sessions = len(self._waves.sessions)
            outcome.took_s = time.monotonic() - self._zero

    async def _play(self) -> None:
        await self._waves.add_quiz()
        done = False

        def wanted() -> bool:
            return not done or self.timeline.acks < self._aim.answers

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._waves.run, wanted)
            try:
                await self._break_things()
            finally:
                done = True

    async def _break_things(self) -> None:
        await self._ack_after(self._zero, FIRST_ACK_WITHIN_S, "the beginning")
        for fault in self._aim.plan:
            await trio.sleep(fault.after_s)
            self.outcome.position = fault.number
            began = time.monotonic()
            self.timeline.begin_fault()
            await inject(fault, self._stage, self._waves.cut_all)
            undone = time.monotonic()
            over = await self._ack_after(undone, RECOVER_WITHIN_S, f"fault {fault.number}")
            await self._stage.settled(RECOVER_WITHIN_S)
            self.timeline.end_fault(over)
            survived = Survived(
                fault,
                began - self._zero,
                undone - self._zero,
                over - self._zero,
                self.timeline.acks_between(began, undone),
                self.timeline.longest_silence_s(began, over),
            )
            self.outcome.survived.append(survived)
            self._on_fault(survived, len(self._aim.plan), self.timeline.acks)

    async def _ack_after(self, moment: float, within_s: float, what: str) -> float:
        with trio.move_on_after(within_s):
            return await self.timeline.ack_after(moment)
        raise StageFailed(f"no answer was acknowledged within {within_s:.0f} s after {what}")


# The command line has this too; what is a client imports nothing of the server.
def _leaves(exc: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups within; or just the exception."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    return [leaf for each in exc.exceptions for leaf in _leaves(each)]
