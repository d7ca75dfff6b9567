"""The sessions in the memory of this node: activated, handed off, passivated.

How to think about this: the registry does not know where other sessions are. `engine.shards.router` finds the
record of a session and decides on which node it runs; the registry of that node claims the session in the
store, runs its actor, and restarts it after a crash. An idle session is given up, and then has no owner.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass

import trio

from engine.actors.actor import SessionActor
from engine.actors.adaptive_tick import AdaptiveTick
from engine.actors.clock import SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.counters import Counters
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.stream import StreamState
from engine.actors.handoff import HandoffSnapshot
from engine.actors.options import ActorOptions
from engine.actors.pacing import Pacing
from engine.actors.refusals import NodeFull, SessionUnavailable
from engine.actors.session_health import tell_health
from engine.actors.slow_answers import SlowAnswers
from engine.actors.states import Fenced
from engine.actors.supervisor import Crashes, Quarantined, RestartPolicy, supervise
from engine.actors.tokens import Tokens
from engine.boundary import Boundary
from engine.domain.name_rules import PLAIN, NameRules
from engine.domain.session import Phase
from engine.domain.session_keys import is_id
from engine.latency import LatencyStatistics
from engine.ports import (
    Journal,
    Owned,
    OwnedElsewhere,
    QuizCatalog,
    QuizNotFound,
    SessionNotFound,
    SessionRecord,
    SessionStore,
    StorageUnavailable,
    Unreadable,
)

log = logging.getLogger(__name__)

GIVE_AWAY_S = 3.0
"""How long a session that is handed off may wait for its commits. It sends nothing meanwhile."""

EXPECTED_MAX = 1_000
"""The most sessions that are announced to this node and not handed to it yet."""

CLAIMS_AT_ONCE = 16
"""The most sessions that are activated at the same time. Others wait here, not for a connection to the
database."""

SURVEYED_AT_ONCE = 200
"""The most sessions that are looked at between two checkpoints."""

LET_GO_S = 5.0
"""How long giving up an idle session may take. Commands for it wait meanwhile."""

_ONCE = RestartPolicy(crashes_max=0)
"""For finished sessions: one that cannot be activated is read from the store instead."""


STALLED_MS = 1_000


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """A snapshot. `subscribers` and `backlog` (commands in mailboxes) are sums over the active sessions;
    `stalled` counts those whose oldest answer or join has waited for over `STALLED_MS`; `tick_ms` is the one
    in force."""

    active: int
    quarantined: int
    subscribers: int
    players: int
    backlog: int
    crashes: int
    answers_accepted: int
    answers_repeated: int
    acks: int
    ack_latency: LatencyStatistics
    refused: dict[str, int]
    players_joined: int
    broadcasts: int
    frames_pushed: int
    tick_ms: int
    stalled: int
    rejoins: int
    join_latency: LatencyStatistics
    broadcast_latency: LatencyStatistics
    answer_broadcast_latency: LatencyStatistics


@dataclass(slots=True)
class _Sums:
    """Over sessions in memory. `now` is when they are counted, in ms since the epoch."""

    now: int
    active: int = 0
    subscribers: int = 0
    players: int = 0
    backlog: int = 0
    stalled: int = 0

    def add(self, actors: list[SessionActor]) -> _Sums:
        self.active += len(actors)
        self.subscribers += sum(actor.subscribers for actor in actors)
        self.players += sum(actor.session.active for actor in actors)
        self.backlog += sum(actor.backlog for actor in actors)
        self.stalled += sum(actor.waits_since < self.now - STALLED_MS for actor in actors)
        return self


class _Claim:
    """Port `Owned`: a session that is claimed, and whose actor is not made yet."""

    __slots__ = ("epoch", "lost", "session_id")

    def __init__(self, session_id: str, epoch: int) -> None:
        self.session_id = session_id
        self.epoch = epoch
        self.lost = False

    def fenced(self) -> None:
        """As `CommitListener.fenced`."""
        self.lost = True


class _Slot:
    """A session of this node, with or without an actor."""

    __slots__ = (
        "actor",
        "changed",
        "claim",
        "elsewhere",
        "epoch",
        "gone",
        "record",
        "snapshot",
        "stream",
        "unavailable",
    )

    def __init__(self, record: SessionRecord, stream: StreamState | None) -> None:
        self.record = record
        self.stream = stream
        """The stream that the first actor continues."""
        self.epoch = 0
        """The epoch of the last actor."""
        self.snapshot: HandoffSnapshot | None = None
        self.elsewhere: OwnedElsewhere | None = None
        self.actor: SessionActor | None = None
        self.claim: _Claim | None = None
        self.unavailable = False
        self.gone = False
        self.changed = trio.Event()

    def announce(self) -> None:
        """Wake every task that waits for a change."""
        self.changed.set()
        self.changed = trio.Event()


class Registry:
    """Holds the sessions of this node.

    Args:
        nursery: runs the actors. Cancelling it ends them all without closing their connections; call `close`
            first.
        gone: whether another owner is certainly gone, so that its sessions may be claimed. None for a lone
            node, which claims any session.
        in_doubt: whether another node may have taken sessions of this node. It is called when the process has
            stood still: until the node is certain of its sessions again, they send nothing and no time passes
            in them.
        boundary: of the node.
        name_rules: the rules that the names of new players must follow.
        pacing: how long reads and commits of this node wait for company. Without it they never do.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        store: SessionStore,
        catalog: QuizCatalog,
        journal: Journal,
        tokens: Tokens,
        clock: SessionClock,
        owner: str,
        options: ActorOptions,
        sessions_max: int = 20_000,
        policy: RestartPolicy | None = None,
        gone: Callable[[str], bool] | None = None,
        boundary: Boundary | None = None,
        in_doubt: Callable[[], bool] = lambda: False,
        name_rules: NameRules = PLAIN,
        pacing: Pacing | None = None,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._gone = gone
        self._in_doubt = in_doubt
        self._name_rules = name_rules
        self.pacing = pacing or Pacing()
        self._nursery = nursery
        self._context = copy_context()
        """In which actors start: it has what the store needs, and nothing of who opens a session."""
        self._store = store
        self._catalog = catalog
        self._journal = journal
        self._tokens = tokens
        self._clock = clock
        self._owner = owner
        self._options = options
        self.pace = AdaptiveTick(options.tick_ms, options.tick_max_ms)
        """The tick of all sessions here. The loop watch reports to it how busy the loop is."""
        self._sessions_max = sessions_max
        self._policy = policy or RestartPolicy()
        self._by_id: dict[str, _Slot] = {}
        self._by_code: dict[str, _Slot] = {}
        self._actors: dict[str, SessionActor] = {}
        """The live actors, by id and by code."""
        self._expected: dict[str, StreamState] = {}
        self._claims = trio.CapacityLimiter(CLAIMS_AT_ONCE)
        self.slow_answers = SlowAnswers(clock)
        """The slow, refused and failed answers of all sessions here."""
        self.counters = Counters(self.slow_answers)
        """The counts of all sessions here, since the start."""
        self._crashes = Crashes()

    # -- the sessions here -----------------------------------------------------------------------

    def here(self, key: str) -> SessionActor | None:
        """The live actor of the session with this id or code, if it is in memory."""
        return self._actors.get(key)

    def holds(self, key: str) -> bool:
        """Whether the session with this id or code is in memory, or being activated."""
        return key in self._by_code or key in self._by_id

    @property
    def full(self) -> bool:
        """Whether the node holds as many sessions as it may."""
        return len(self._by_id) >= self._sessions_max

    async def get(self, key: str) -> SessionActor:
        """The live actor of a session that this node holds, as soon as there is one. Send to it before the
        next checkpoint.

        Raises SessionUnavailable; SessionNotFound when the node does not hold it; and OwnedElsewhere, without
        an owner when the session was passivated meanwhile: then look it up again.
        """
        slot = self._by_code.get(key) or self._by_id.get(key)
        if slot is None:
            raise SessionNotFound(key)
        while not slot.gone:
            if slot.actor is not None:
                return slot.actor
            if slot.unavailable:
                raise SessionUnavailable(key)
            await slot.changed.wait()
        raise slot.elsewhere or OwnedElsewhere(slot.record.id, None)

    async def activate(self, record: SessionRecord) -> SessionActor:
        """As `get`, for a session that was found in the store and that this node should run. Also raises
        NodeFull."""
        self.open(record)
        return await self.get(record.id)

    async def revive(self, record: SessionRecord) -> SessionActor:
        """As `activate`, for a finished session too. A finished session is activated without its code, which
        may belong to another session by now."""
        if record.finished_at is None:
            return await self.activate(record)
        self.open(record, by_code=False)
        try:
            return await self.get(record.id)
        except OwnedElsewhere as error:
            if error.owner is None:
                raise SessionUnavailable(record.id) from None
            raise

    def open(self, record: SessionRecord, *, by_code: bool = True) -> None:
        """Begin to run a session, unless the node holds it already. Args: by_code: whether the session can be
        found by its code. Raises NodeFull."""
        if record.id in self._by_id:
            return
        if self.full:
            raise NodeFull
        slot = _Slot(record, self._expected.pop(record.id, None))
        self._by_id[record.id] = slot
        if by_code:
            self._by_code[record.code] = slot
            # A finished session that stays for a while may have had the same code.
            self._actors.pop(record.code, None)
        self._context.copy().run(self._nursery.start_soon, self._run, slot)

    async def opened(self) -> None:
        """Wait until every session that was opened runs or has failed."""
        for slot in list(self._by_id.values()):
            while slot.actor is None and not (slot.gone or slot.unavailable):
                await slot.changed.wait()

    def close(self, close_reason: CloseReason) -> None:
        """Close every connection of every session. The sessions themselves stay unfinished in the store."""
        for actor in self.active():
            actor.end(close_reason)

    # -- handing a session off -------------------------------------------------------------------

    def expect(self, session_id: str, stream: StreamState) -> None:
        """Another node is about to hand over the session, with this stream. The first command for the session
        activates it. Raises ValueError if the id is not the id of a session."""
        if not is_id(session_id):
            raise ValueError(f"{session_id!r:.60} is not the id of a session")
        while len(self._expected) >= EXPECTED_MAX:
            del self._expected[next(iter(self._expected))]
        self._expected[session_id] = stream

    async def give_away(self, session_id: str) -> HandoffSnapshot | None:
        """End the actor of the session with every fact committed, and return its snapshot for the next owner.
        None if the session is not here, is over, or ends in another way meanwhile. None also if its facts are
        not committed within `GIVE_AWAY_S`; then the session plays on."""
        slot = self._by_id.get(session_id)
        actor = None if slot is None else slot.actor
        if slot is None or actor is None or actor.session.phase is Phase.FINISHED:
            return None
        actor.give_away()
        try:
            with trio.move_on_after(GIVE_AWAY_S):
                while slot.actor is actor:
                    await slot.changed.wait()
        finally:
            actor.take_back()
        return actor.snapshot

    # -- the life of a session here --------------------------------------------------------------

    async def _run(self, slot: _Slot) -> None:
        ended = slot.record.finished_at is not None
        try:
            await supervise(
                slot.record.id,
                lambda: self._activated(slot),
                lambda actor: self._started(slot, actor),
                lambda: self._stopped(slot),
                policy=_ONCE if ended else self._policy,
                crashes=self._crashes,
            )
            if slot.snapshot is None and not ended:
                with self._boundary.within("letting a session go", slot.record.id):
                    await self._let_go(slot)
        except (Quarantined, Unreadable) as error:
            if isinstance(error, Unreadable):
                log.error("session %s is out of service: %s", slot.record.id, error)  # noqa: TRY400 - it says all
            # A finished session is read from the store, as if it had never been activated again.
            if not ended:
                slot.unavailable = True
                slot.announce()
                return
        except Fenced:
            log.warning("session %s is given up: it has another owner, or may have", slot.record.id)
        except OwnedElsewhere as error:
            slot.elsewhere = error
        except SessionNotFound:
            log.warning("session %s is no longer in the store", slot.record.id)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._boundary.caught(error, "running a session", slot.record.id)
        slot.gone = True
        del self._by_id[slot.record.id]
        if self._by_code.get(slot.record.code) is slot:
            del self._by_code[slot.record.code]
        slot.announce()

    async def _activated(self, slot: _Slot) -> SessionActor:
        """Claim the session and rebuild its actor from the facts."""
        record = slot.record
        await self._journal.settled(record.id)
        async with self._claims:
            # An unreadable quiz is noticed before this node owns the session.
            try:
                await self._catalog.get(record.quiz_id, record.quiz_version)
            except QuizNotFound as error:
                raise Unreadable(f"session {record.id}, its quiz: {error} is not there") from None
            claimed = await self._store.claim(record.id, self._owner, self._gone)
            slot.claim = _Claim(record.id, claimed.epoch)
            stream, slot.stream = slot.stream, None
            return await SessionActor.revive(
                claimed,
                clock=self._clock,
                journal=self._journal,
                tokens=self._tokens,
                options=self._options,
                pace=self.pace,
                pacing=self.pacing,
                counters=self.counters,
                stream=stream,
                in_doubt=self._in_doubt,
                name_rules=self._name_rules,
            )

    def _started(self, slot: _Slot, actor: SessionActor) -> None:
        if slot.claim is not None and slot.claim.lost:
            actor.fenced()
        slot.actor, slot.claim = actor, None
        self._actors[slot.record.id] = actor
        if self._by_code.get(slot.record.code) is slot:
            self._actors[slot.record.code] = actor
        slot.announce()

    def _stopped(self, slot: _Slot) -> None:
        actor = slot.actor
        if actor is not None:
            slot.snapshot, slot.epoch = actor.snapshot, actor.epoch
            for key in (slot.record.id, slot.record.code):
                if self._actors.get(key) is actor:
                    del self._actors[key]
        slot.actor = slot.claim = None
        slot.announce()

    async def _let_go(self, slot: _Slot) -> None:
        """Give up an idle session: the next node that needs it need not wait for this one, and a start does
        not activate it for nothing. If the store is away, the session stays this node's."""
        with suppress(StorageUnavailable), trio.move_on_after(LET_GO_S):
            await self._journal.settled(slot.record.id)
            await self._store.grant(slot.record.id, slot.epoch, self._owner, None)

    # -- looking in ------------------------------------------------------------------------------

    def active(self) -> Iterator[SessionActor]:
        """The actors in memory just now."""
        return (slot.actor for slot in list(self._by_id.values()) if slot.actor is not None)

    async def tell_hosts(self, p99_ms: int | None, *, spools: bool) -> None:
        """Tell every host how the session is. Args: as of `tell_health`. Yields to other tasks in between."""
        slicer = Slicer()
        for actor in self.active():
            if actor.live.attendance.roster is not None:
                with self._boundary.within("telling a host how the session is", actor.session_id):
                    await tell_health(actor.live, p99_ms, spools=spools)
            await slicer.breathe()

    def owned(self) -> Iterator[Owned]:
        """All sessions that this node owns, also those that are being activated."""
        for slot in list(self._by_id.values()):
            owned = slot.actor or slot.claim
            if owned is not None:
                yield owned

    def statistics(self) -> RegistryStatistics:
        return self._statistics(_Sums(self._clock.now_ms()).add(list(self.active())))

    async def survey(self, largest: int) -> tuple[RegistryStatistics, list[SessionActor]]:
        """The same, and so many of the sessions with the most players. Yields to other tasks in between."""
        slicer, sums = Slicer(), _Sums(self._clock.now_ms())
        found: list[SessionActor] = []
        actors = list(self.active())
        for start in range(0, len(actors), SURVEYED_AT_ONCE):
            some = actors[start : start + SURVEYED_AT_ONCE]
            sums.add(some)
            found = heapq.nlargest(largest, [*found, *some], key=lambda actor: actor.session.active)
            await slicer.breathe()
        return self._statistics(sums), found

    def _statistics(self, sums: _Sums) -> RegistryStatistics:
        counters = self.counters
        return RegistryStatistics(
            active=sums.active,
            quarantined=sum(slot.unavailable for slot in self._by_id.values()),
            subscribers=sums.subscribers,
            players=sums.players,
            backlog=sums.backlog,
            crashes=self._crashes.total,
            answers_accepted=counters.answers_accepted,
            answers_repeated=counters.answers_repeated,
            acks=counters.acks,
            ack_latency=counters.ack_latency.statistics(),
            refused=dict(counters.refused),
            players_joined=counters.players_joined,
            broadcasts=counters.sent.broadcasts,
            frames_pushed=counters.sent.frames,
            tick_ms=self.pace.tick_ms,
            stalled=sums.stalled,
            rejoins=counters.rejoins,
            join_latency=counters.join_latency.statistics(),
            broadcast_latency=counters.sent.latency.statistics(),
            answer_broadcast_latency=counters.told_latency.statistics(),
        )
