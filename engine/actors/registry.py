"""Which sessions are in memory, and how they come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import trio

from engine.actors import messages
from engine.actors.actor import SessionActor
from engine.actors.adaptive_tick import AdaptiveTick
from engine.actors.clock import BEAT_S, SessionClock
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Command, Detach, Host
from engine.actors.counters import Counters
from engine.actors.delivery.stream import StreamState
from engine.actors.handoff import HandoffSnapshot
from engine.actors.lookups import Lookups, Waiting
from engine.actors.options import ActorOptions
from engine.actors.states import Fenced
from engine.actors.supervisor import Crashes, Quarantined, RestartPolicy, supervise
from engine.actors.tokens import Tokens
from engine.boundary import Boundary, Mistake
from engine.domain.name_rules import PLAIN, NameRules
from engine.domain.session import Phase, Settings
from engine.domain.session_keys import is_id, is_session_key
from engine.ports import (
    CodeTaken,
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

SWEEP_EVERY_S = 600.0
CODE_TRIES = 20
ENDED_LATELY_MS = 120_000
"""How long ago a session may have ended that a start brings back: its node was down for some of that."""

GIVE_AWAY_S = 3.0
"""A session that is given away says nothing until all of it is committed: not for longer than that."""

EXPECTED_MAX = 1_000
"""Sessions that are about to be given to this node, and were not yet."""

WAITING_MAX = 10_000
"""Commands that may wait at one time for their session to come into memory."""


CLAIMS_AT_ONCE = 16
"""Sessions that are brought into memory at the same time. The others wait for their turn, and not for a
connection."""

LET_GO_S = 5.0
"""For giving up a session that rests. Whoever comes for it meanwhile waits."""

_ONCE = RestartPolicy(crashes_max=0)
"""Of sessions that have ended: what cannot be brought back is read from the store instead."""


class SessionFinished(Exception):
    """The session is over: it can be read from the store, not played."""

    def __init__(self, record: SessionRecord) -> None:
        super().__init__(record.id)
        self.record = record


class SessionUnavailable(Exception):
    """The session was taken out of service."""


class NodeFull(Exception):
    """The node holds as many sessions as it may, or found no free code."""


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """A snapshot. `subscribers` and `backlog` (commands in mailboxes) are sums over the active sessions;
    `tick_ms` is the one in force."""

    active: int
    quarantined: int
    waiting: int
    subscribers: int
    players: int
    backlog: int
    crashes: int
    answers_accepted: int
    answers_repeated: int
    refused: dict[str, int]
    players_joined: int
    broadcasts: int
    frames_pushed: int
    tick_ms: int


NOT_TO_BE_HAD = (
    SessionNotFound,
    SessionFinished,
    SessionUnavailable,
    StorageUnavailable,
    NodeFull,
    OwnedElsewhere,
    Unreadable,
    Mistake,
)
"""What `Registry.get` raises."""


def refuse(error: Exception | None, command: Command) -> None:
    """Tell whoever sent a command why its session was not to be had: `busy` for what passes, and without a
    reason."""
    mark = command.id if isinstance(command, Answer | Host) else None
    match error:
        case SessionNotFound():
            frame = messages.error("session_not_found", "No session has this code.", id=mark)
        case SessionFinished():
            frame = messages.error("session_finished", "This session is over.", id=mark)
        case SessionUnavailable() | Unreadable():
            frame = messages.error("session_unavailable", CloseReason.UNAVAILABLE.sentence, id=mark)
        case _:
            frame = messages.busy(mark)
    command.reply.push(frame)


class _Claim:
    """Port `Owned`: a session that was claimed, and whose actor is still being made."""

    __slots__ = ("epoch", "lost", "session_id")

    def __init__(self, session_id: str, epoch: int) -> None:
        self.session_id = session_id
        self.epoch = epoch
        self.lost = False

    def fenced(self) -> None:
        """As `CommitListener.fenced`."""
        self.lost = True


class _Slot:
    """A session's place on this node, whether its actor is there just now or not."""

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

    def __init__(self, record: SessionRecord, stream: StreamState | None = None) -> None:
        self.record = record
        self.stream = stream
        """What the first actor goes on with."""
        self.epoch = 0
        """Of the last actor."""
        self.snapshot: HandoffSnapshot | None = None
        self.elsewhere: OwnedElsewhere | None = None
        self.actor: SessionActor | None = None
        self.claim: _Claim | None = None
        self.unavailable = False
        self.gone = False
        self.changed = trio.Event()

    def announce(self) -> None:
        """Wake all who wait for a change."""
        self.changed.set()
        self.changed = trio.Event()


class Registry:
    """Finds sessions by id or code, brings them into memory on demand, and lets the idle go.

    Args:
        nursery: where the actors run. Cancelling it ends them all without a word to the clients; call
            `close` first.
        new_id, new_code: sources of fresh session ids and six-digit codes.
        gone: in a cluster, whether another owner is known to be gone, so that its sessions may be claimed. A
            node that is alone claims what it likes.
        in_doubt: whether others may have taken sessions of this node. It is asked when the process has stood
            still: until it is certain of them again, its sessions say nothing and no time passes in them.
        boundary: of the node.
        name_rules: what the names of new players are held against.
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
        new_id: Callable[[], str],
        new_code: Callable[[], str],
        options: ActorOptions,
        sessions_max: int = 20_000,
        policy: RestartPolicy | None = None,
        gone: Callable[[str], bool] | None = None,
        boundary: Boundary | None = None,
        in_doubt: Callable[[], bool] = lambda: False,
        name_rules: NameRules = PLAIN,
    ) -> None:
        self._boundary = boundary or Boundary()
        self._gone = gone
        self._in_doubt = in_doubt
        self._name_rules = name_rules
        self._nursery = nursery
        self._store = store
        self._catalog = catalog
        self._journal = journal
        self._tokens = tokens
        self._clock = clock
        self._owner = owner
        self._new_id = new_id
        self._new_code = new_code
        self._options = options
        self.pace = AdaptiveTick(options.tick_ms, options.tick_max_ms)
        """Of all sessions here; whoever knows how busy the loop is tells it."""
        self._sessions_max = sessions_max
        self._policy = policy or RestartPolicy()
        self._by_id: dict[str, _Slot] = {}
        self._by_code: dict[str, _Slot] = {}
        self._expected: dict[str, StreamState] = {}
        self._lookups = Lookups(nursery, self._find, NOT_TO_BE_HAD, self._boundary)
        self._waiting = Waiting(nursery, refuse, NOT_TO_BE_HAD, self._boundary, WAITING_MAX)
        self._claims = trio.CapacityLimiter(CLAIMS_AT_ONCE)
        self._counters = Counters()
        self._crashes = Crashes()

    # -- reaching a session ----------------------------------------------------------------------

    def deliver(self, key: str, command: Command) -> None:
        """Hand a command to the session with this id or code. Never blocks; brings the session into memory
        when needed; whatever goes wrong is an `error` to `command.reply`."""
        slot = self._slot(key)
        if self._waiting.holds(self._route, key):
            self._waiting.add(self._route, key, command)
        elif slot is not None and slot.actor is not None:
            slot.actor.send(command)
        elif isinstance(command, Detach):
            return
        elif not is_session_key(key):
            refuse(SessionNotFound(key), command)
        else:
            self._waiting.add(self._route, key, command)

    async def _route(self, key: str) -> Callable[[Command], None]:
        return (await self.get(key)).send

    def here(self, key: str) -> SessionActor | None:
        """The live actor of the session with this id or code, if it is in memory."""
        slot = self._slot(key)
        return None if slot is None else slot.actor

    def holds(self, key: str) -> bool:
        """Whether the session with this id or code is in memory, or on its way there."""
        return self._slot(key) is not None

    async def get(self, key: str) -> SessionActor:
        """The live actor of the session with this id or code. Send to it before the next checkpoint.

        Raises SessionNotFound, SessionFinished, SessionUnavailable, NodeFull, StorageUnavailable,
        OwnedElsewhere, Unreadable, Mistake.
        """
        if not is_session_key(key):
            raise SessionNotFound(key)
        while True:
            slot = self._slot(key) or await self._lookups.outcome(key)
            while not slot.gone:
                if slot.actor is not None:
                    return slot.actor
                if slot.unavailable:
                    raise SessionUnavailable(key)
                await slot.changed.wait()
            if slot.elsewhere is not None:
                raise slot.elsewhere

    async def bring(self, record: SessionRecord) -> SessionActor:
        """As `get`, for a session that was looked up already."""
        if record.id not in self._by_id:
            self._open(record)
        return await self.get(record.id)

    def expect(self, session_id: str, stream: StreamState) -> None:
        """The session is about to be given to this node, which is to go on with this stream. Whoever asks for
        the session first brings it into memory. Raises ValueError for what is no session's id."""
        if not is_id(session_id):
            raise ValueError(f"{session_id!r:.60} is not the id of a session")
        while len(self._expected) >= EXPECTED_MAX:
            del self._expected[next(iter(self._expected))]
        self._expected[session_id] = stream

    async def give_away(self, session_id: str) -> HandoffSnapshot | None:
        """Have the actor of the session end with all committed, and leave it to the caller what comes of it.
        None if it is not here, is over, or ends in another way meanwhile; and if its facts are not committed
        within `GIVE_AWAY_S`: then it goes on."""
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

    async def revive(self, session_id: str) -> SessionActor:
        """As `get`, for a finished session too: it is brought back once more, without its code, which may be
        another's by now."""
        try:
            return await self.get(session_id)
        except SessionFinished as over:
            if session_id not in self._by_id:
                self._open(over.record, by_code=False)
            try:
                return await self.get(session_id)
            except SessionFinished:
                raise SessionUnavailable(session_id) from None

    def _slot(self, key: str) -> _Slot | None:
        return self._by_code.get(key) or self._by_id.get(key)

    async def _find(self, key: str) -> _Slot:
        """Look a session up in the store and open it."""
        record = await self._store.find(key)
        slot = self._by_id.get(record.id)
        if slot is None and record.finished_at is not None:
            raise SessionFinished(record)
        return slot or self._open(record)

    # -- sessions come and go --------------------------------------------------------------------

    async def create(self, quiz_id: str, settings: Settings, version: int | None = None) -> SessionRecord:
        """Store a new session under a free code and bring it into memory.

        Raises QuizNotFound, NodeFull, StorageUnavailable.
        """
        if len(self._by_id) >= self._sessions_max:
            raise NodeFull
        record = await self.store_new(quiz_id, settings, version)
        await self.get(record.id)
        return record

    async def store_new(
        self,
        quiz_id: str,
        settings: Settings,
        version: int | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> SessionRecord:
        """Store a new session under a free code, and under an id from `new_id` if that is given. Nobody owns
        it yet. Raises as `create`."""
        stored = await self._catalog.get(quiz_id, version)
        if stored.deleted:
            raise QuizNotFound(quiz_id)
        for _ in range(CODE_TRIES):
            record = SessionRecord(
                id=(new_id or self._new_id)(),
                code=self._new_code(),
                quiz_id=stored.id,
                quiz_version=stored.version,
                settings=settings,
                created_at=self._clock.now_ms(),
            )
            with suppress(CodeTaken):
                await self._store.create(record)
                return record
        raise NodeFull

    async def recover(self) -> int:
        """Bring every unfinished session back that somebody ran, and wait until each runs or has failed.
        Returns how many. One that rested is nobody's, and waits for whoever comes.

        Those that have ended lately come too, for as long as a finished session stays: among their players
        are some who were cut off before they heard of the end, or of their last answer.
        """
        records = await self._store.orphans(())
        ended = await self._store.ended_since(self._clock.now_ms() - ENDED_LATELY_MS)
        for record in [*records, *ended][: self._sessions_max]:
            if record.id not in self._by_id:
                # The code of one that has ended may be another's by now, also of one that rests.
                self._open(record, by_code=record.finished_at is None)
        for slot in list(self._by_id.values()):
            while slot.actor is None and not (slot.gone or slot.unavailable):
                await slot.changed.wait()
        return len(records)

    async def keep_time(self) -> None:
        """Forever: notice when the process has stood still, so that the sessions give that time back, and
        follow the wall clock while no countdown runs here."""
        seen = self._clock.gaps_total
        while True:
            with self._boundary.within("keeping the time"):
                self._clock.beat()
                if self._clock.is_off and all(actor.session.deadline is None for actor in self.active()):
                    self._clock.catch_up()
                if gaps := self._clock.gaps_after(seen):
                    seen = self._clock.gaps_total
                    stood_s = sum(gap.by_ms for gap in gaps) / 1000
                    log.warning(
                        "this process stood still for %.1f s; running countdowns get them back", stood_s
                    )
                    for actor in self.active():
                        actor.wake()
            await trio.sleep(BEAT_S)

    async def sweep(self) -> None:
        """Forever: wake the sessions that sleep past their greatest age, so that they end and free their
        codes."""
        while True:
            await trio.sleep(SWEEP_EVERY_S)
            with self._boundary.within("looking for sessions past their greatest age"):
                await self._wake_overdue()

    async def _wake_overdue(self) -> None:
        oldest = self._clock.now_ms() - int(self._options.max_age_s * 1000)
        try:
            overdue = [r for r in await self._store.unfinished() if r.created_at <= oldest]
        except StorageUnavailable:
            return
        for record in overdue:
            if record.id not in self._by_id and len(self._by_id) < self._sessions_max:
                self._open(record)

    def close(self, close_reason: CloseReason) -> None:
        """Close every connection of every session. The sessions themselves stay unfinished in the store."""
        for slot in list(self._by_id.values()):
            if slot.actor is not None:
                slot.actor.end(close_reason)

    def _open(self, record: SessionRecord, *, by_code: bool = True) -> _Slot:
        if len(self._by_id) >= self._sessions_max:
            raise NodeFull
        slot = _Slot(record, self._expected.pop(record.id, None))
        self._by_id[record.id] = slot
        if by_code:
            self._by_code[record.code] = slot
        self._nursery.start_soon(self._run, slot)
        return slot

    async def _run(self, slot: _Slot) -> None:
        def started(actor: SessionActor) -> None:
            if slot.claim is not None and slot.claim.lost:
                actor.fenced()
            slot.actor, slot.claim = actor, None
            slot.announce()

        def stopped() -> None:
            if slot.actor is not None:
                slot.snapshot, slot.epoch = slot.actor.snapshot, slot.actor.epoch
            slot.actor = slot.claim = None
            slot.announce()

        async def activate() -> SessionActor:
            await self._journal.settled(slot.record.id)
            async with self._claims:
                # A quiz that cannot be read is found out before the session is this node's.
                try:
                    await self._catalog.get(slot.record.quiz_id, slot.record.quiz_version)
                except QuizNotFound as error:
                    raise Unreadable(f"session {slot.record.id}, its quiz: {error} is not there") from None
                claimed = await self._store.claim(slot.record.id, self._owner, self._gone)
                slot.claim = _Claim(slot.record.id, claimed.epoch)
                stream, slot.stream = slot.stream, None
                return await SessionActor.revive(
                    claimed,
                    clock=self._clock,
                    journal=self._journal,
                    tokens=self._tokens,
                    options=self._options,
                    pace=self.pace,
                    counters=self._counters,
                    stream=stream,
                    in_doubt=self._in_doubt,
                    name_rules=self._name_rules,
                )

        ended = slot.record.finished_at is not None
        policy = _ONCE if ended else self._policy
        try:
            await supervise(slot.record.id, activate, started, stopped, policy=policy, crashes=self._crashes)
            if slot.snapshot is None and not ended:
                with self._boundary.within("letting a session go", slot.record.id):
                    await self._let_go(slot)
        except (Quarantined, Unreadable) as error:
            if isinstance(error, Unreadable):
                log.error("session %s is out of service: %s", slot.record.id, error)  # noqa: TRY400 - it says all
            # One that has ended is read from the store, as if it had never been brought back.
            if not ended:
                slot.unavailable = True
                slot.announce()
                return
        except Fenced:
            log.warning("session %s was let go: it is somebody else's, or may be", slot.record.id)
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

    async def _let_go(self, slot: _Slot) -> None:
        """A session that rests is nobody's: the next to need it need not wait for this node, and a start does
        not bring it back for nothing. While it cannot be given up it stays this node's."""
        with suppress(StorageUnavailable), trio.move_on_after(LET_GO_S):
            await self._journal.settled(slot.record.id)
            await self._store.grant(slot.record.id, slot.epoch, self._owner, None)

    # -- looking in ------------------------------------------------------------------------------

    def active(self) -> Iterator[SessionActor]:
        """The actors in memory just now."""
        return (slot.actor for slot in list(self._by_id.values()) if slot.actor is not None)

    def owned(self) -> Iterator[Owned]:
        """All that this node holds as its own, also what is still on its way into memory."""
        for slot in list(self._by_id.values()):
            owned = slot.actor or slot.claim
            if owned is not None:
                yield owned

    def statistics(self) -> RegistryStatistics:
        actors = list(self.active())
        counters = self._counters
        return RegistryStatistics(
            active=len(actors),
            quarantined=sum(slot.unavailable for slot in self._by_id.values()),
            waiting=len(self._waiting),
            subscribers=sum(actor.subscribers for actor in actors),
            players=sum(actor.session.active for actor in actors),
            backlog=sum(actor.backlog for actor in actors),
            crashes=self._crashes.total,
            answers_accepted=counters.answers_accepted,
            answers_repeated=counters.answers_repeated,
            refused=dict(counters.refused),
            players_joined=counters.players_joined,
            broadcasts=counters.sent.broadcasts,
            frames_pushed=counters.sent.frames,
            tick_ms=self.pace.tick_ms,
        )
