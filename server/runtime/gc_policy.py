"""When this process collects garbage, and how much of it at a time.

Almost every object here is freed by reference counting. Python's collector is for cycles: some of the objects
that a request, an exception or a cancelled task leaves behind. It searches all live objects for them, on the
loop; by its own rules it walks all connections and players again and again, and holds the loop for tens of
milliseconds each time.

How to think about it: new objects are *young*, and collected often, few at a time. Objects that have survived
that for a while are *frozen*, and the collector does not look at them any more; reference counting still
frees them. A cycle that forms among frozen objects stays until a *full* collection, which looks at
everything. That takes long, so it waits for a quiet moment, but not for ever.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident

import trio

from engine.beats import sleep_to_beat
from server.runtime.loop_watch import Recent

THRESHOLDS = (1_000, 3, 1)
"""New objects between two collections of the youngest, and how many of each kind come between two of the
next: the oldest of the young are looked at after some eight thousand new objects."""

YOUNG_MAX = 4_000
"""More than so many that survive as the oldest of the young are frozen."""

EVERY_S = 1.0

FULL_AFTER_S = 60.0
"""Between two full collections, at least."""

FULL_WITHIN_S = 3_600.0
"""Between two full collections, at most."""

FULL_WITHIN_FREEZES = 500
"""The same, by what may have been missed: what is under way when something is frozen is frozen with it."""

WORTHWHILE = 0.1
"""Share of either bound before which a full collection would find too little, however quiet it is."""

QUIET = 0.1
"""Busy for no more than this share of a second: a quiet moment."""

KINDS = ("youngest", "young", "oldest young", "full")


@dataclass(frozen=True, slots=True)
class CollectorStatistics:
    """`collections_total` by kind. `pause_s` is the processor time of the longest collection of the last
    minute but for full ones, `full_pause_s` that of the last full one; `since_full_s` is how long ago that
    was, or the start."""

    collections_total: Mapping[str, int]
    freezes_total: int
    pause_s: float
    full_pause_s: float
    since_full_s: float


class Collector:
    """The process's garbage collection, while it is installed.

    Args:
        busy: the share of the last second in which the loop had something to do.
        question_open: whether anybody could be answering just now. A pause would cost them points.
        cpu_s: processor time of the loop's thread: how long a collection would take on a machine of its own.
    """

    def __init__(
        self,
        busy: Callable[[], float],
        question_open: Callable[[], bool],
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._busy = busy
        self._question_open = question_open
        self._cpu_s = cpu_s
        self._thread = get_ident()
        self._began_s = 0.0
        self._collecting_fully = False
        self._collections_total = dict.fromkeys(KINDS, 0)
        self._freezes_total = 0
        self._freezes_before = 0
        """As many as there were at the last full collection."""
        self._pauses: Recent[float] = Recent(0.0)
        self._full_pause_s = 0.0
        self._full_at = trio.current_time()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Collect by these rules during the block. What lives at its beginning is taken to live long."""
        thresholds = gc.get_threshold()
        _collect_and_freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            gc.set_threshold(*thresholds)
            gc.unfreeze()

    async def run(self) -> None:
        """Look for moments for a full collection, until cancelled."""
        while True:
            await sleep_to_beat(EVERY_S)
            if self._may_collect_fully():
                self.collect_fully()

    def collect_fully(self) -> None:
        """Find all garbage there is. Holds the loop for as long as that takes."""
        self._collecting_fully = True
        began_s = self._cpu_s()
        gc.unfreeze()
        _collect_and_freeze()
        self._full_pause_s = self._cpu_s() - began_s
        self._collecting_fully = False
        self._collections_total["full"] += 1
        self._full_at = trio.current_time()
        self._freezes_before = self._freezes_total

    def _may_collect_fully(self) -> bool:
        """The longer it was put off, the less quiet a moment has to be."""
        since_s = trio.current_time() - self._full_at
        freezes = self._freezes_total - self._freezes_before
        put_off = max(since_s / FULL_WITHIN_S, freezes / FULL_WITHIN_FREEZES)
        if put_off < WORTHWHILE or since_s < FULL_AFTER_S:
            return False
        if put_off >= 1:
            return True
        if put_off >= 0.5:
            return self._busy() <= put_off
        return self._busy() <= QUIET and not self._question_open()

    def _on_collection(self, phase: str, info: Mapping[str, int]) -> None:
        """Called by Python before and after each collection, in the thread that triggers it."""
        if self._collecting_fully or get_ident() != self._thread:
            return
        if phase == "start":
            self._began_s = self._cpu_s()
            return
        generation = info["generation"]
        if generation == 2 and len(gc.get_objects(generation=2)) > YOUNG_MAX:
            gc.freeze()
            self._freezes_total += 1
        self._pauses.note(time.perf_counter(), self._cpu_s() - self._began_s)
        self._collections_total[KINDS[generation]] += 1

    def statistics(self) -> CollectorStatistics:
        return CollectorStatistics(
            collections_total=dict(self._collections_total),
            freezes_total=self._freezes_total,
            pause_s=self._pauses.most(time.perf_counter()),
            full_pause_s=self._full_pause_s,
            since_full_s=trio.current_time() - self._full_at,
        )


def _collect_and_freeze() -> None:
    gc.collect()
    gc.freeze()
    # Python waits with the oldest of the young until they are a quarter of what survived the last time. With
    # what is frozen now that would be tens of thousands: so once more, with nothing there.
    gc.collect()
