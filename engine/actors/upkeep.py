"""Periodic work for the sessions of a node, with or without clients."""

from __future__ import annotations

import logging

import trio

from engine.actors.clock import BEAT_S, SessionClock
from engine.actors.registry import Registry
from engine.beats import sleep_to_beat
from engine.boundary import Boundary
from engine.ports import SessionStore, StorageUnavailable

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0
"""The pause between two looks for sessions past their greatest age, or their deadline."""

ENDED_LATELY_MS = 120_000
"""How long ago a session may have ended that a start activates again: its node was down for some of that."""


class Upkeep:
    """Activates sessions at the start, keeps their time, and wakes sessions that should have ended.

    Args:
        max_age_s: greatest age of a session.
        boundary: of the node.
    """

    def __init__(
        self,
        registry: Registry,
        store: SessionStore,
        clock: SessionClock,
        *,
        max_age_s: float,
        boundary: Boundary | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._max_age_ms = int(max_age_s * 1000)
        self._boundary = boundary or Boundary()

    async def recover(self) -> int:
        """Activate every unfinished session that a node ran, and wait until each runs or has failed. Returns
        how many. An idle session has no owner, and waits for its first command.

        Sessions that ended lately are activated too, for as long as a finished session stays, because some of
        their players were cut off before they received the end, or their last ack.
        """
        records = await self._store.orphans(())
        ended = await self._store.ended_since(self._clock.now_ms() - ENDED_LATELY_MS)
        for record in [*records, *ended]:
            if self._registry.full:
                log.warning("this node is full: not every session could be brought back")
                break
            # The code of a finished session may belong to another session by now, also to an idle one.
            self._registry.open(record, by_code=record.finished_at is None)
        await self._registry.opened()
        return len(records)

    async def keep_time(self) -> None:
        """Until cancelled: notice when the process has stood still, so that the sessions give that time back,
        and follow the wall clock while no countdown runs here."""
        seen = self._clock.gaps_total
        while True:
            with self._boundary.within("keeping the time"):
                self._clock.beat()
                now = self._clock.now_ms()
                if self._clock.is_off and not any(
                    actor.session.counts_down(now) for actor in self._registry.active()
                ):
                    self._clock.catch_up()
                if gaps := self._clock.gaps_after(seen):
                    seen = self._clock.gaps_total
                    stood_s = sum(gap.by_ms for gap in gaps) / 1000
                    log.warning(
                        "this process stood still for %.1f s; running countdowns get them back", stood_s
                    )
                    for actor in self._registry.active():
                        actor.wake()
            await sleep_to_beat(BEAT_S)

    async def sweep(self) -> None:
        """Until cancelled: wake idle sessions past their greatest age or deadline, so that they end and free
        their codes."""
        while True:
            await trio.sleep(SWEEP_EVERY_S)
            with self._boundary.within("looking for sessions that should have ended"):
                await self._wake_overdue()

    async def _wake_overdue(self) -> None:
        now = self._clock.now_ms()
        try:
            overdue = await self._store.overdue(now, now - self._max_age_ms)
        except StorageUnavailable:
            return
        for record in overdue:
            if not self._registry.full:
                self._registry.open(record)
