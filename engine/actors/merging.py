"""Merges facts that earlier owners acknowledged from their spools into the sessions of this node."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import trio

from engine.actors.actor import SessionActor
from engine.actors.commands import Merge, Mergeable, Played
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.subscriber import ConnectionEnded, Waiter
from engine.actors.refusals import NodeFull, SessionUnavailable
from engine.actors.registry import Registry
from engine.beats import sleep_to_beat
from engine.boundary import Boundary, Mistake
from engine.domain.facts import AttemptBegun, DeadlineMoved, PlayerJoined
from engine.ports import (
    OwnedElsewhere,
    SessionNotFound,
    SessionStore,
    SpooledFacts,
    SpooledFactsStore,
    StorageUnavailable,
    Unreadable,
)

log = logging.getLogger(__name__)

FACTS_PER_COMMAND = 200
"""The most facts that one command merges: it holds the loop about as long as a batch of answers."""

LOOK_EVERY_S = 1.0
PATIENCE_S = 30.0
"""How long the merge of one session may take."""


T = TypeVar("T", bound=AttemptBegun | Played)


class NotMerged(Exception):
    """The session could not take all facts just now. Those it took are recognized when they are sent
    again."""


class Merging:
    """Looks for spooled facts of the sessions of `owner`, and of finished sessions, and merges them."""

    def __init__(
        self,
        registry: Registry,
        sessions: SessionStore,
        spooled: SpooledFactsStore,
        owner: str,
        boundary: Boundary | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._registry = registry
        self._sessions = sessions
        self._spooled = spooled
        self._owner = owner

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Started after the first look."""
        await self.look()
        task_status.started()
        while True:
            await sleep_to_beat(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Merge the facts that wait. Facts that cannot be merged now wait for the next look."""
        with self._boundary.within("looking for spooled facts"):
            await self._look()

    async def _look(self) -> None:
        try:
            for session_id in await self._spooled.waiting(self._owner):
                try:
                    with trio.fail_after(PATIENCE_S):
                        await self._merge(session_id)
                except (NotMerged, ConnectionEnded, NodeFull, Mistake, trio.TooSlowError) as error:
                    log.warning("spooled facts of session %s still wait: %r", session_id, error)
                except (OwnedElsewhere, SessionNotFound, SessionUnavailable, Unreadable):
                    continue
                except StorageUnavailable:
                    raise
                except Exception as error:  # noqa: BLE001 - the boundary logs it
                    self._boundary.caught(error, "merging what was spooled", session_id)
        except StorageUnavailable:
            return

    async def _merge(self, session_id: str) -> None:
        parts = await self._spooled.spooled(session_id)
        new = [part for part in parts if not part.merged]
        actor = self._registry.here(session_id)
        if actor is None:
            actor = await self._registry.revive(await self._sessions.find(session_id))
        before = actor.session.seq
        # A player may have joined, or begun an attempt, in a part that was merged long ago, and answered in a
        # new one.
        for epoch in sorted({part.epoch for part in new}):
            joins = [fact for fact in _facts(parts, epoch) if isinstance(fact, PlayerJoined)]
            begun = [fact for fact in _facts(parts, epoch) if isinstance(fact, AttemptBegun)]
            played = [fact for fact in _facts(new, epoch) if isinstance(fact, Played)]
            await self._send(actor, joins)
            numbers = await _numbers(actor, joins)
            begun = await _renumbered(begun, numbers)
            await self._send(actor, begun)
            for fact in begun:
                numbers[fact.plays_as] = actor.session.number_of(fact.player, fact.attempt)
            await self._send(actor, await _renumbered(played, numbers))
        await self._spooled.set_merged([part.id for part in new])
        log.warning(
            "session %s: merged what an earlier owner had acknowledged, as facts %d to %d",
            session_id,
            before + 1,
            actor.session.seq,
        )

    async def _send(self, actor: SessionActor, facts: Sequence[Mergeable]) -> None:
        for start in range(0, len(facts), FACTS_PER_COMMAND):
            waiter = Waiter()
            actor.send(Merge(waiter, facts[start : start + FACTS_PER_COMMAND]))
            if (await waiter.wait()).kind == "error":
                raise NotMerged


def _facts(parts: Sequence[SpooledFacts], epoch: int) -> Iterator[object]:
    return (fact for part in parts if part.epoch == epoch for fact in part.facts)


async def _numbers(actor: SessionActor, joins: Sequence[PlayerJoined]) -> dict[int, int | None]:
    """The present numbers of these players in the session, by those that they had. Players that joined before
    the spool began have the same."""
    slicer = Slicer()
    numbers: dict[int, int | None] = {}
    for join in joins:
        numbers[join.player] = actor.session.seat_of(join)
        await slicer.breathe()
    return numbers


async def _renumbered(facts: Sequence[T], numbers: Mapping[int, int | None]) -> list[T]:
    """The facts with the present numbers of their players, or attempts, in the session."""
    slicer = Slicer()
    renumbered: list[T] = []
    for fact in facts:
        if isinstance(fact, DeadlineMoved):
            renumbered.append(fact)
            continue
        number = numbers.get(fact.player, fact.player)
        if number is not None:
            renumbered.append(fact if number == fact.player else replace(fact, player=number))
        await slicer.breathe()
    return renumbered
