"""The storage ports in memory, for tests of the layers above.

They pass the same contract tests as the real ones (tests/storage/test_contract.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import trio

from engine import ports
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    Fact,
    Finished,
    PlayerJoined,
    PlayerKicked,
    QuestionOpened,
)
from engine.domain.quiz import Quiz


def _slug(title: str) -> str:
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-")[:60].strip("-") or "quiz"


class MemoryCatalog:
    """`now_ms` is what new quizzes are dated with. `available = False` makes every call raise
    StorageUnavailable."""

    def __init__(self, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        self.available = True
        self._versions: dict[str, list[ports.StoredQuiz]] = {}

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.available:
            raise ports.StorageUnavailable("made unavailable by the test")

    async def add(self, quiz: Quiz, quiz_id: str | None = None) -> ports.StoredQuiz:
        await self._checkpoint()
        if quiz_id is None:
            slug = _slug(quiz.title)
            quiz_id, n = slug, 1
            while quiz_id in self._versions:
                n += 1
                quiz_id = f"{slug}-{n}"
        versions = self._versions.setdefault(quiz_id, [])
        if versions and versions[-1].quiz == quiz:
            return versions[-1]
        versions.append(ports.StoredQuiz(quiz_id, len(versions) + 1, quiz, self.now_ms))
        return versions[-1]

    async def get(self, quiz_id: str, version: int | None = None) -> ports.StoredQuiz:
        await self._checkpoint()
        versions = self._versions.get(quiz_id, [])
        if not versions or (version is not None and not 1 <= version <= len(versions)):
            raise ports.QuizNotFound(quiz_id)
        return versions[-1 if version is None else version - 1]

    async def list(self) -> Sequence[ports.QuizSummary]:
        await self._checkpoint()
        newest = sorted((versions[-1] for versions in self._versions.values()), key=_by_title)
        return [
            ports.QuizSummary(
                stored.id,
                stored.version,
                stored.quiz.title,
                stored.quiz.language,
                len(stored.quiz.questions),
                stored.created_at,
            )
            for stored in newest
        ]


def _by_title(stored: ports.StoredQuiz) -> tuple[str, str]:
    return stored.quiz.title, stored.id


@dataclass
class _Row:
    record: ports.SessionRecord
    owner: str | None = None
    granted_by: str | None = None
    epoch: int = 0
    facts: dict[int, Fact] = field(default_factory=dict)


class MemorySessionStore:
    """`alive[owner] = ms` is an owner's last sign of life, `leases[owner] = ms` when its lease ends by the
    clock `now_ms`, and `addresses[owner]` what it tells of itself. `available = False` makes every call raise
    StorageUnavailable."""

    def __init__(self, catalog: MemoryCatalog | None = None) -> None:
        self.catalog = catalog or MemoryCatalog()
        self.alive: dict[str, int] = {}
        self.leases: dict[str, int] = {}
        self.addresses: dict[str, str] = {}
        self.now_ms = 0
        self.available = True
        self._rows: dict[str, _Row] = {}

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.available:
            raise ports.StorageUnavailable("made unavailable by the test")

    def _row(self, session_id: str) -> _Row:
        if session_id not in self._rows:
            raise ports.SessionNotFound(session_id)
        return self._rows[session_id]

    async def create(self, record: ports.SessionRecord) -> None:
        await self._checkpoint()
        if record.id in self._rows:
            return
        if any(
            row.record.code == record.code and row.record.finished_at is None for row in self._rows.values()
        ):
            raise ports.CodeTaken(record.code)
        self._rows[record.id] = _Row(record)

    async def find(self, key: str) -> ports.SessionRecord:
        await self._checkpoint()
        if key in self._rows:
            return self._seen(self._rows[key])
        records = [self._seen(row) for row in self._rows.values() if row.record.code == key]
        if not records:
            raise ports.SessionNotFound(key)
        return max(records, key=lambda record: (record.finished_at is None, record.created_at))

    def _seen(self, row: _Row) -> ports.SessionRecord:
        """The record, with the owner as it is now."""
        owner = None
        if row.owner is not None:
            owner = ports.Owner(row.owner, self.addresses.get(row.owner), self._holds(row.owner))
        return replace(row.record, owner=owner)

    def _holds(self, owner: str) -> bool:
        return owner in self.leases and self.leases[owner] > self.now_ms

    async def claim(
        self, session_id: str, owner: str, gone: Callable[[str], bool] | None = None
    ) -> ports.ClaimedSession:
        await self._checkpoint()
        row = self._row(session_id)
        another = row.owner is not None and row.owner != owner
        if another and gone is not None and (self._holds(row.owner or "") or not gone(row.owner or "")):
            raise ports.OwnedElsewhere(session_id, row.owner)
        facts = self.facts(session_id)
        last_alive_at = None
        if row.owner is not None and (another or row.granted_by is None):
            signs = [fact.at for fact in facts]
            if row.owner in self.alive:
                signs.append(self.alive[row.owner])
            last_alive_at = max(signs, default=None)
        row.owner, row.granted_by = owner, None
        row.epoch += 1
        record, epoch = self._seen(row), row.epoch
        stored = await self.catalog.get(record.quiz_id, record.quiz_version)
        return ports.ClaimedSession(record, stored.quiz, epoch, facts, last_alive_at)

    async def grant(self, session_id: str, epoch: int, owner: str, to: str | None) -> bool:
        await self._checkpoint()
        row = self._rows.get(session_id)
        if row is None or row.epoch != epoch:
            return False
        if row.owner != owner and (row.owner, row.granted_by) != (to, owner):
            return False
        row.owner, row.granted_by = to, owner
        return True

    async def orphans(self, live: Collection[str]) -> Sequence[ports.SessionRecord]:
        unfinished = await self.unfinished()
        return [each for each in unfinished if each.owner is not None and each.owner.run not in live]

    async def owned_by(self, owner: str) -> Sequence[str]:
        return sorted(each.id for each in await self.unfinished() if each.owner and each.owner.run == owner)

    async def unfinished(self) -> Sequence[ports.SessionRecord]:
        await self._checkpoint()
        records = [self._seen(row) for row in self._rows.values() if row.record.finished_at is None]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def ended_since(self, at: int) -> Sequence[ports.SessionRecord]:
        await self._checkpoint()
        records = [self._seen(row) for row in self._rows.values() if (row.record.finished_at or 0) >= at]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def recent(self, limit: int) -> Sequence[ports.SessionSummary]:
        await self._checkpoint()
        rows = sorted(
            self._rows.values(), key=lambda row: (row.record.created_at, row.record.id), reverse=True
        )
        return [await self._summary(row) for row in rows[:limit]]

    async def _summary(self, row: _Row) -> ports.SessionSummary:
        record = row.record
        stored = await self.catalog.get(record.quiz_id, record.quiz_version)
        return ports.SessionSummary(
            record.id,
            record.code,
            record.quiz_id,
            stored.quiz.title,
            len(_active_names(row.facts.values())),
            record.created_at,
            record.finished_at,
        )

    async def results(self, session_id: str) -> Sequence[ports.PlayerResult]:
        await self._checkpoint()
        facts = list(self._row(session_id).facts.values())
        names = _active_names(facts)
        first: dict[tuple[int, int], AnswerAccepted | AnswerMerged] = {}
        for fact in sorted(facts, key=lambda fact: (fact.at, fact.seq)):
            if isinstance(fact, AnswerAccepted | AnswerMerged):
                first.setdefault((fact.player, fact.question), fact)
        answers = defaultdict(list)
        for (player, _), fact in first.items():
            answers[player].append(fact)
        scores = {player: sum(answer.points for answer in answers[player]) for player in names}
        results = [
            ports.PlayerResult(
                rank=1 + sum(other > scores[player] for other in scores.values()),
                player=player,
                name=name,
                score=scores[player],
                correct=sum(answer.correct for answer in answers[player]),
                answered=len(answers[player]),
                elapsed_ms=sum(answer.elapsed_ms for answer in answers[player]),
            )
            for player, name in names.items()
        ]
        return sorted(results, key=lambda result: (result.rank, result.elapsed_ms, result.player))

    async def progress(self, session_id: str) -> int:
        await self._checkpoint()
        row = self._rows.get(session_id)
        return sum(isinstance(fact, QuestionOpened) for fact in row.facts.values()) if row else 0

    # What the tests look at and the journal writes to.

    def facts(self, session_id: str) -> list[Fact]:
        """The committed facts in the order of `seq`."""
        row = self._row(session_id)
        return [row.facts[seq] for seq in sorted(row.facts)]

    def epoch(self, session_id: str) -> int:
        return self._row(session_id).epoch

    def take_over(self, session_id: str, owner: str = "somebody else") -> None:
        """As if another node had claimed the session: the present owner is fenced at its next commit."""
        row = self._row(session_id)
        row.owner, row.granted_by = owner, None
        row.epoch += 1

    def write(self, session_id: str, epoch: int, facts: Sequence[Fact]) -> bool:
        """False, and nothing changed, under a stale epoch."""
        row = self._rows.get(session_id)
        if row is None or row.epoch != epoch:
            return False
        for fact in facts:
            row.facts.setdefault(fact.seq, fact)
            if isinstance(fact, Finished) and row.record.finished_at is None:
                row.record = replace(row.record, finished_at=fact.at)
        return True


def _active_names(facts: Iterable[Fact]) -> dict[int, str]:
    """Players who joined and were not kicked."""
    names: dict[int, str] = {}
    kicked: set[int] = set()
    for fact in facts:
        if isinstance(fact, PlayerJoined):
            names[fact.player] = fact.name
        elif isinstance(fact, PlayerKicked):
            kicked.add(fact.player)
    return {player: name for player, name in names.items() if player not in kicked}


@dataclass(frozen=True)
class Appended:
    """One call of `append`."""

    session_id: str
    epoch: int
    facts: tuple[Fact, ...]
    listener: ports.CommitListener


class MemoryJournal:
    """A journal over a MemorySessionStore.

    `auto` says when appended facts are committed:

    - ``"soon"`` (default): at the next turn of the trio loop, from outside the appending task, as the
      real one does;
    - ``"now"``: inside `append`;
    - ``"off"``: when the test calls `commit()`.

    `fail()` holds every commit back until `heal()`; `fence(session_id)` lets another owner take the session.
    """

    def __init__(
        self,
        store: MemorySessionStore,
        *,
        auto: Literal["soon", "now", "off"] = "soon",
        facts_max: int = 50_000,
    ) -> None:
        self.store = store
        self.auto = auto
        self.facts_max = facts_max
        self.queue: deque[Appended] = deque()
        self.commits_total = 0
        self._failing = False

    @property
    def queued(self) -> int:
        """Facts that wait for their commit."""
        return sum(len(appended.facts) for appended in self.queue)

    def has_room(self, share: float = 1.0) -> bool:
        return self.queued < share * self.facts_max

    def append(
        self, session_id: str, epoch: int, facts: Sequence[Fact], listener: ports.CommitListener
    ) -> None:
        if facts:
            self.queue.append(Appended(session_id, epoch, tuple(facts), listener))
            self._wake()

    def _wake(self) -> None:
        if self.auto == "now":
            self.commit()
        elif self.auto == "soon":
            trio.lowlevel.current_trio_token().run_sync_soon(self.commit, idempotent=True)

    def commit(self, batches: int | None = None) -> None:
        """Commit the oldest `batches` appends (default: all that wait). Does nothing while failing."""
        if self._failing:
            return
        left = len(self.queue) if batches is None else batches
        committed: dict[ports.CommitListener, int] = {}
        fenced: list[ports.CommitListener] = []
        while self.queue and left > 0:
            appended = self.queue.popleft()
            left -= 1
            if self.store.write(appended.session_id, appended.epoch, appended.facts):
                committed[appended.listener] = appended.facts[-1].seq
            elif appended.listener not in fenced:
                fenced.append(appended.listener)
        self.commits_total += 1
        for listener, seq in committed.items():
            listener.committed(seq)
        for listener in fenced:
            self.queue = deque(waiting for waiting in self.queue if waiting.listener is not listener)
            listener.fenced()

    async def settled(self, session_id: str) -> None:
        """At once: what is reported is in the store."""
        await trio.lowlevel.checkpoint()

    async def drain(self) -> None:
        """Until nothing waits any more."""
        await trio.lowlevel.checkpoint()
        if self.auto != "off":
            self.commit()

    def fail(self) -> None:
        """From now on Postgres is away: facts stay in the queue."""
        self._failing = True

    def heal(self) -> None:
        """Postgres is back."""
        self._failing = False
        if self.queue:
            self._wake()

    def fence(self, session_id: str) -> None:
        """Another owner takes the session; what waits is refused at the next commit."""
        self.store.take_over(session_id)
        if any(appended.session_id == session_id for appended in self.queue):
            self._wake()
