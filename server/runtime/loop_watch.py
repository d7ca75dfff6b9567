"""What the event loop does with its time, seen from inside: how busy it is, and who holds it for how long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import trio

from engine.beats import next_beat
from engine.latency import NO_LATENCY, LastMinute, Latency, LatencyStatistics, Percentiles
from server.runtime.run_queue import run_queue_s

BEAT_S = 0.25
"""Between two readings of the share and of the lag."""

BEATS_A_SECOND = 4

BUSY_OVER_BEATS = 20
"""Beats that `busy_ratio` looks back on: five seconds."""

MINUTE_S = 60.0

NOTED_S = 0.001
"""A shorter hold is not recorded."""

PROMISED_S = 0.005
"""What no connection, session or fan-out holds the loop over."""


class Hold(NamedTuple):
    """One step of one task, from where it was resumed to where it gave way. `cpu_s` is the processor time in
    it, at least: the rest of `wall_s` the machine gave to others."""

    cpu_s: float
    wall_s: float
    task: str


NO_HOLD = Hold(0.0, 0.0, "")


class Beat(NamedTuple):
    """What is read at a beat: of the last `over_s` seconds, the share in which the loop had something to do,
    and the share in which its thread could have run and another process had the processor."""

    busy: float
    over_s: float
    starved: float


T = TypeVar("T", float, Hold)


class Recent(Generic[T]):
    """The greatest of the last minute, exactly.

    Kept are only those that nothing later exceeds: each may yet become the greatest.
    """

    __slots__ = ("_kept", "_nothing")

    def __init__(self, nothing: T) -> None:
        self._nothing: T = nothing
        self._kept: deque[tuple[float, T]] = deque()

    def note(self, now_s: float, value: T) -> None:
        kept = self._kept
        while kept and kept[-1][1] <= value:
            kept.pop()
        kept.append((now_s, value))
        self._forget(now_s)

    def most(self, now_s: float) -> T:
        """The given default, if nothing was recorded."""
        self._forget(now_s)
        return self._kept[0][1] if self._kept else self._nothing

    def _forget(self, now_s: float) -> None:
        while self._kept and self._kept[0][0] < now_s - MINUTE_S:
            self._kept.popleft()


@dataclass(frozen=True, slots=True)
class LoopStatistics:
    """Seconds, but for `busy_ratio` (of the last five seconds), the counts and the names.

    `turns_total` counts turns of the loop: its looks which of its tasks can go on. `lag` is how late a sleep
    ended. `hold_s` is the longest step of a task, `hold` the one that took most of the processor, `gap_s` the
    longest time between two looks at the sockets, each in the last minute; 0 stands for anything below a
    millisecond. `hold_ever`, `busy_total_s` and `holds_total` (steps that took
    over 5 ms of the processor) are since the start.
    """

    turns_total: int
    lag_s: float
    lag_max_s: float
    beats_total: int
    busy_ratio: float
    busy_total_s: float
    hold_s: float
    hold: Hold
    hold_ever: Hold
    holds_total: int
    gap_s: float
    lags: Percentiles | None = None
    long_steps: LatencyStatistics = NO_LATENCY


class LoopWatch(trio.abc.Instrument):
    """An instrument of trio, and a task that reads it four times a second.

    Trio calls it before every step of every task: so those calls do next to nothing, and there is none after
    a step; a step ends where the next one or the wait for sockets begins.

    Args:
        on_beat: told, at each beat, what the loop did since the last one.
        now_s: the machine's clock, not trio's: what is measured is what the loop does to real time.
        cpu_s: processor time of the loop's thread.
        queued_s: how long the loop's thread has waited for a processor in all.
    """

    def __init__(
        self,
        on_beat: Callable[[Beat], None] = lambda beat: None,  # noqa: ARG005 - tells nobody
        *,
        now_s: Callable[[], float] = time.perf_counter,
        cpu_s: Callable[[], float] = time.thread_time,
        queued_s: Callable[[], float] = run_queue_s,
    ) -> None:
        self._on_beat = on_beat
        self._now_s = now_s
        self._cpu_s = cpu_s
        self._queued_s = queued_s
        self._started_s = self._woke_s = self._step_s = self._slept_from_s = now_s()
        self._read_s, self._read_cpu_s = self._started_s, cpu_s()
        self._task: trio.lowlevel.Task | None = None
        self._idle_s = 0.0
        self._waits: Recent[float] = Recent(0.0)
        self._holds: Recent[Hold] = Recent(NO_HOLD)
        self._gaps: Recent[float] = Recent(0.0)
        self._lags: Recent[float] = Recent(0.0)
        self._all_lags = LastMinute()
        self._long_steps = Latency()
        self._hold_ever = NO_HOLD
        self._holds_total = 0
        self._turns_total = 0
        self._lag_s = 0.0
        self._beats_total = 0
        self._beats: deque[tuple[float, float]] = deque([(self._started_s, 0.0)], maxlen=BUSY_OVER_BEATS + 1)
        """When, and how long the loop had been idle in all."""

    # -- trio's instrument -----------------------------------------------------------------------

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Instrument."""
        now_s = self._now_s()
        if now_s - self._step_s > NOTED_S:
            self._note_hold(now_s)
        self._step_s = now_s
        self._task = task

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - trio's
        """Instrument."""
        now_s = self._now_s()
        self._turns_total += 1
        if now_s - self._step_s > NOTED_S:
            self._note_hold(now_s)
        if now_s - self._woke_s > NOTED_S:
            self._gaps.note(now_s, now_s - self._woke_s)
        self._task = None
        self._slept_from_s = now_s

    def after_io_wait(self, timeout: float) -> None:
        """Instrument. A wait of no time is a look only: the loop has work to do."""
        now_s = self._now_s()
        if timeout > 0:
            self._idle_s += now_s - self._slept_from_s
        self._woke_s = self._step_s = self._read_s = now_s
        self._read_cpu_s = self._cpu_s()

    def _note_hold(self, now_s: float) -> None:
        wall_s = now_s - self._step_s
        # The processor's clock takes a call of the system, so it is not read at each step. The short steps
        # since it was read are taken to have had the processor all the time.
        cpu_s = self._cpu_s()
        spent_s = cpu_s - self._read_cpu_s - (self._step_s - self._read_s)
        hold = Hold(min(max(spent_s, 0.0), wall_s), wall_s, self._task.name if self._task else "")
        self._read_s, self._read_cpu_s = now_s, cpu_s
        self._waits.note(now_s, wall_s)
        self._long_steps.add(wall_s)
        self._holds.note(now_s, hold)
        self._holds_total += hold.cpu_s > PROMISED_S
        self._hold_ever = max(self._hold_ever, hold)

    # -- the task --------------------------------------------------------------------------------

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch the loop of this task during the block."""
        self._woke_s = self._step_s = self._read_s = self._now_s()
        self._read_cpu_s = self._cpu_s()
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            with suppress(KeyError):  # trio itself takes out an instrument that raises
                trio.lowlevel.remove_instrument(self)

    async def run(self) -> None:
        """Run until cancelled."""
        queued_s = self._queued_s()
        while True:
            began_s, beat_at = self._now_s(), next_beat(BEAT_S)
            planned_s = beat_at - trio.current_time()
            await trio.sleep_until(beat_at)
            now_s = self._now_s()
            self._lag_s = max(0.0, now_s - began_s - planned_s)
            self._lags.note(now_s, self._lag_s)
            self._all_lags.add(now_s, self._lag_s)
            self._beats_total += 1
            if self._beats_total == BUSY_OVER_BEATS:
                # What starting took is over: it says nothing of what clients get.
                self._holds = Recent(NO_HOLD)
            before_s, idle_before_s = self._beats[-1]
            self._beats.append((now_s, self._idle_s))
            over_s = now_s - before_s
            queued_before_s, queued_s = queued_s, self._queued_s()
            if over_s > 0:
                starved = min(1.0, (queued_s - queued_before_s) / over_s)
                self._on_beat(Beat(_share(over_s, self._idle_s - idle_before_s), over_s, starved))

    def busy(self) -> float:
        """The share of the last second in which the loop had something to do."""
        return self._busy_over(BEATS_A_SECOND)

    def _busy_over(self, beats: int) -> float:
        first_s, idle_first_s = self._beats[max(-len(self._beats), -1 - beats)]
        last_s, idle_last_s = self._beats[-1]
        return _share(last_s - first_s, idle_last_s - idle_first_s)

    def statistics(self) -> LoopStatistics:
        now_s = self._now_s()
        return LoopStatistics(
            turns_total=self._turns_total,
            lag_s=self._lag_s,
            lag_max_s=self._lags.most(now_s),
            beats_total=self._beats_total,
            busy_ratio=self._busy_over(BUSY_OVER_BEATS),
            busy_total_s=max(0.0, now_s - self._started_s - self._idle_s),
            hold_s=self._waits.most(now_s),
            hold=self._holds.most(now_s),
            hold_ever=self._hold_ever,
            holds_total=self._holds_total,
            gap_s=self._gaps.most(now_s),
            lags=self._all_lags.percentiles(now_s),
            long_steps=self._long_steps.statistics(),
        )


def _share(over_s: float, idle_s: float) -> float:
    return min(1.0, max(0.0, 1 - idle_s / over_s)) if over_s > 0 else 0.0
