"""The ports of storage and of links in memory, for tests of the layers above.

They pass the same contract tests as the real ones (tests/storage/test_contract.py,
tests/shards/test_link.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import orjson
import trio

from engine import ports
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Command
from engine.actors.delivery.subscriber import Subscriber
from engine.domain.facts import (
    AnswerAccepted,
    AnswerMerged,
    AttemptBegun,
    DeadlineMoved,
    Fact,
    Finished,
    HostReplaced,
    PlayerJoined,
    PlayerKicked,
    PlayerReadmitted,
    QuestionOpened,
    QuestionSkipped,
    erased_name,
    of_one_clock,
)
from engine.domain.quiz import Quiz
from engine.domain.session_keys import is_code, is_id
from engine.shards.link.client import LinkClient
from engine.shards.link.keepalive import LOOKS, Silence
from engine.shards.link.server import LinkServer
from engine.shards.ports import LinkLost, LinkService, Member


def _slug(title: str) -> str:
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-")[:60].strip("-") or "quiz"


class MemoryCatalog:
    """`now_ms` is what new quizzes are dated with. `available = False` makes every call raise
    StorageUnavailable."""

    def __init__(self, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        self.available = True
        self.is_used: Callable[[str, int], bool] = lambda _id, _version: False
        """Whether a session uses this version; the store of the sessions says so."""
        self._versions: dict[str, list[ports.StoredQuiz]] = {}

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.available:
            raise ports.StorageUnavailable("made unavailable by the test")

    async def add(
        self,
        quiz: Quiz,
        quiz_id: str | None = None,
        owner_id: str | None = None,
        allow: Callable[[str | None], None] = ports.anyone,
    ) -> ports.StoredQuiz:
        await self._checkpoint()
        if quiz_id is None:
            slug = _slug(quiz.title)
            quiz_id, n = slug, 1
            while quiz_id in self._versions:
                n += 1
                quiz_id = f"{slug}-{n}"
        versions = self._versions.setdefault(quiz_id, [])
        if versions and not versions[-1].deleted:
            owner_id = versions[-1].owner_id
            allow(owner_id)
            if versions[-1].quiz == quiz:
                return versions[-1]
        versions.append(ports.StoredQuiz(quiz_id, len(versions) + 1, quiz, self.now_ms, owner_id=owner_id))
        return versions[-1]

    async def get(self, quiz_id: str, version: int | None = None) -> ports.StoredQuiz:
        await self._checkpoint()
        if version is None:
            found = self._there(quiz_id)[-1:]
        else:
            found = [
                each
                for each in self._versions.get(quiz_id, [])
                if each.version == version and (not each.deleted or self.is_used(quiz_id, version))
            ]
        if not found:
            raise ports.QuizNotFound(quiz_id)
        return found[0]

    def _there(self, quiz_id: str) -> list[ports.StoredQuiz]:
        return [each for each in self._versions.get(quiz_id, []) if not each.deleted]

    async def page(
        self,
        limit: int,
        after: tuple[str, str] | None = None,
        owners: ports.Owners = None,
        title: str | None = None,
    ) -> Sequence[ports.QuizSummary]:
        await self._checkpoint()
        newest = [there[-1] for quiz_id in self._versions if (there := self._there(quiz_id))]
        found = [
            each
            for each in sorted(newest, key=_by_title)
            if (after is None or _by_title(each) > after)
            and (owners is None or each.owner_id in owners)
            and (title is None or title.lower() in each.quiz.title.lower())
        ]
        return [_summary(stored) for stored in found[:limit]]

    async def versions(self, quiz_id: str, limit: int) -> Sequence[ports.QuizSummary]:
        await self._checkpoint()
        if not (there := self._there(quiz_id)):
            raise ports.QuizNotFound(quiz_id)
        return [_summary(stored) for stored in there[::-1][:limit]]

    async def delete(self, quiz_id: str) -> None:
        await self._checkpoint()
        if not self._there(quiz_id):
            raise ports.QuizNotFound(quiz_id)
        self._versions[quiz_id] = [replace(each, deleted=True) for each in self._versions[quiz_id]]

    async def is_taken(self, quiz_id: str) -> bool:
        await self._checkpoint()
        return quiz_id in self._versions

    def takes_sessions(self, quiz_id: str, version: int) -> bool:
        return any(each.version == version for each in self._there(quiz_id))


def _summary(stored: ports.StoredQuiz) -> ports.QuizSummary:
    quiz = stored.quiz
    return ports.QuizSummary(
        stored.id,
        stored.version,
        quiz.title,
        quiz.language,
        len(quiz.questions),
        stored.created_at,
        stored.owner_id,
    )


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
        self.catalog.is_used = lambda quiz_id, version: any(
            (row.record.quiz_id, row.record.quiz_version) == (quiz_id, version) for row in self._rows.values()
        )

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
        if not is_id(record.id) or not is_code(record.code):
            raise ValueError(f"no session has the id {record.id!r} or the code {record.code!r}")
        if record.id in self._rows:
            return
        if any(
            row.record.code == record.code and row.record.finished_at is None for row in self._rows.values()
        ):
            raise ports.CodeTaken(record.code)
        if not self.catalog.takes_sessions(record.quiz_id, record.quiz_version):
            raise ports.QuizNotFound(record.quiz_id)
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
            signs = [fact.at for fact in of_one_clock(facts)]
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

    async def overdue(self, now: int, created_by: int) -> Sequence[ports.SessionRecord]:
        found = []
        for record in await self.unfinished():
            if record.settings.pace != "self":
                due: int | None = now if record.created_at <= created_by else None
            else:
                opens_at, open_ms = record.settings.open_from, record.settings.open_ms
                due = None if open_ms is None else (opens_at or record.created_at) + open_ms
                moved = [fact for fact in self.facts(record.id) if isinstance(fact, DeadlineMoved)]
                due = moved[-1].closes_at if moved else due
            if due is not None and due <= now:
                found.append(record)
        return found

    async def ended_since(self, at: int) -> Sequence[ports.SessionRecord]:
        await self._checkpoint()
        records = [self._seen(row) for row in self._rows.values() if (row.record.finished_at or 0) >= at]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def page(
        self,
        limit: int,
        after: tuple[int, str] | None = None,
        owners: ports.Owners = None,
        title: str | None = None,
    ) -> Sequence[ports.SessionSummary]:
        await self._checkpoint()
        found = sorted(
            [await self._summary(row) for row in self._rows.values()],
            key=lambda each: (each.created_at, each.id),
            reverse=True,
        )
        return [
            each
            for each in found
            if (after is None or (each.created_at, each.id) < after)
            and (owners is None or each.owner_id in owners)
            and (title is None or title.lower() in each.title.lower())
        ][:limit]

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
            record.owner_id,
        )

    async def results(
        self,
        session_id: str,
        take: Callable[[Sequence[ports.PlayerResult]], None],
        up_to: int | None = None,
    ) -> None:
        await self._checkpoint()
        results = self._results(session_id, up_to)
        for start in range(0, len(results), ports.RESULTS_PER_SLICE):
            take(results[start : start + ports.RESULTS_PER_SLICE])
            await trio.lowlevel.checkpoint()

    async def first_results(self, session_id: str, count: int) -> tuple[Sequence[ports.PlayerResult], int]:
        await self._checkpoint()
        results = self._results(session_id)
        return results[:count], len(results)

    async def host_generation(self, session_id: str) -> int:
        await self._checkpoint()
        row = self._rows.get(session_id)
        return 0 if row is None else sum(isinstance(fact, HostReplaced) for fact in row.facts.values())

    async def skipped(self, session_id: str) -> Sequence[int]:
        await self._checkpoint()
        row = self._rows.get(session_id)
        return [] if row is None else _skipped(row.facts.values())

    async def results_around(self, session_id: str, player: int, reach: int) -> Sequence[ports.PlayerResult]:
        await self._checkpoint()
        results = self._results(session_id) if session_id in self._rows else []
        at = next((at for at, result in enumerate(results) if result.player == player), None)
        return [] if at is None else results[max(at - reach, 0) : at + reach + 1]

    async def results_by_player(
        self, session_id: str, after: int, limit: int
    ) -> tuple[Sequence[ports.PlayerResult], int]:
        await self._checkpoint()
        results = self._results(session_id)
        following = sorted((each for each in results if each.player > after), key=lambda each: each.player)
        return following[:limit], len(results)

    def _results(self, session_id: str, up_to: int | None = None) -> list[ports.PlayerResult]:
        facts = list(self._row(session_id).facts.values())
        names, skipped = _active_names(facts), _skipped(facts)
        first: dict[tuple[int, int], AnswerAccepted | AnswerMerged] = {}
        for fact in sorted(facts, key=lambda fact: (fact.at, fact.seq)):
            if isinstance(fact, AnswerAccepted | AnswerMerged) and fact.question not in skipped:
                first.setdefault((fact.player, fact.question), fact)
        answers = defaultdict(list)
        for (player, question), fact in first.items():
            if up_to is None or question <= up_to:
                answers[player].append(fact)
        numbers = {player: [player] for player in names}
        for fact in facts:
            if isinstance(fact, AttemptBegun) and fact.player in numbers:
                numbers[fact.player].append(fact.plays_as)

        def order(number: int) -> tuple[int, int, int]:
            given = answers[number]
            return -sum(each.points for each in given), sum(each.elapsed_ms for each in given), number

        best = {player: answers[min(own, key=order)] for player, own in numbers.items()}
        scores = {player: sum(answer.points for answer in best[player]) for player in names}
        results = [
            ports.PlayerResult(
                rank=1 + sum(other > scores[player] for other in scores.values()),
                player=player,
                name=name,
                score=scores[player],
                correct=sum(answer.correct for answer in best[player]),
                answered=len(best[player]),
                elapsed_ms=sum(answer.elapsed_ms for answer in best[player]),
            )
            for player, name in names.items()
        ]
        return sorted(results, key=lambda result: (result.rank, result.elapsed_ms, result.player))

    async def seat_of_user(self, session_id: str, user_id: str) -> int | None:
        await self._checkpoint()
        row = self._rows.get(session_id)
        facts = () if row is None else row.facts.values()
        return next(
            (fact.player for fact in facts if isinstance(fact, PlayerJoined) and fact.user_id == user_id),
            None,
        )

    async def seat(self, session_id: str, player: int) -> ports.Seat:
        await self._checkpoint()
        facts = [] if session_id not in self._rows else list(self._rows[session_id].facts.values())
        joins = [fact for fact in facts if isinstance(fact, PlayerJoined) and fact.player == player]
        if not joins or joins[0].erased:
            return ports.Seat.NOBODYS
        return ports.Seat.TAKEN if player in _active_names(facts) else ports.Seat.REMOVED

    async def erase_player(self, session_id: str, player: int) -> None:
        await self._checkpoint()
        facts = {} if session_id not in self._rows else self._rows[session_id].facts
        for fact in facts.values():
            if isinstance(fact, PlayerJoined) and fact.player == player:
                facts[fact.seq] = replace(fact, name=erased_name(player), erased=True, user_id=None)
                return
        raise ports.PlayerNotFound(player)

    async def delete(self, session_id: str) -> None:
        await self._checkpoint()
        if self._row(session_id).record.finished_at is None:
            raise ports.SessionRunning(session_id)
        del self._rows[session_id]

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


def _skipped(facts: Iterable[Fact]) -> list[int]:
    return sorted(fact.question for fact in facts if isinstance(fact, QuestionSkipped))


def _active_names(facts: Iterable[Fact]) -> dict[int, str]:
    """Players who joined and were not kicked."""
    names: dict[int, str] = {}
    kicked: set[int] = set()
    for fact in facts:
        if isinstance(fact, PlayerJoined):
            names[fact.player] = fact.name
        elif isinstance(fact, PlayerKicked):
            kicked.add(fact.player)
        elif isinstance(fact, PlayerReadmitted):
            kicked.discard(fact.player)
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
        facts = 0
        while self.queue and left > 0:
            appended = self.queue.popleft()
            left -= 1
            if self.store.write(appended.session_id, appended.epoch, appended.facts):
                committed[appended.listener] = appended.facts[-1].seq
                facts += len(appended.facts)
            elif appended.listener not in fenced:
                fenced.append(appended.listener)
        self.commits_total += 1
        now_s = trio.current_time()
        commit = ports.Commit(now_s, now_s, facts)
        for listener, seq in committed.items():
            listener.committed(seq, commit)
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


class MemoryLinks:
    """The links of all nodes of one process, by run. The ends are the real ones, and what goes between them
    is encoded, so nothing is shared by reference. Delivered through the trio loop, in order for each pair.

    Args:
        nursery: where the links run.
        delay_s: from one run to another, asked for each entry.
        waiting_max: entries on their way over one link in one direction; no room beyond that.
        silence_s: a link over which nothing can be heard for so long ends, as a real one does. None: never.
        mute: whether nothing can be heard between two runs just now, and nothing says so.
        gone: whether the first run knows that the heartbeat of the second is gone.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        delay_s: Callable[[str, str], float] = lambda near, far: 0.0,
        waiting_max: int = 50_000,
        silence_s: float | None = None,
        mute: Callable[[str, str], bool] = lambda near, far: False,
        gone: Callable[[str, str], bool] = lambda near, far: False,
    ) -> None:
        self.silence_s = silence_s
        self.mute = mute
        self.gone = gone
        self.delay_s = delay_s
        self.waiting_max = waiting_max
        self._nursery = nursery
        self._services: dict[str, LinkService] = {}
        self._links: dict[tuple[str, str], _MemoryLink] = {}
        self._cuts: set[frozenset[str]] = set()

    def node(self, run: str, service: LinkService) -> MemoryNodeLinks:
        """The port `Links` of a node, which can be reached from now on."""
        self._services[run] = service
        return MemoryNodeLinks(self, run)

    def cut(self, one: str, other: str) -> None:
        """The links between two nodes are lost, and none can be made until `heal`."""
        self._cuts.add(frozenset((one, other)))
        for pair in ((one, other), (other, one)):
            if pair in self._links:
                self._links[pair].cut()

    def heal(self, one: str, other: str) -> None:
        self._cuts.discard(frozenset((one, other)))

    def lose(self, run: str) -> None:
        """The node is gone, and with it all links from and to it."""
        self._services.pop(run, None)
        for pair, link in self._links.items():
            if run in pair:
                link.cut()

    def link(self, near: str, far: str) -> _MemoryLink | None:
        """The link from one node to another, made if it can be."""
        link = self._links.get((near, far))
        if link is not None:
            return link
        # A lost node asks nobody any more either.
        if frozenset((near, far)) in self._cuts or not {near, far} <= self._services.keys():
            return None
        link = self._links[near, far] = _MemoryLink(self, near, far)
        self._nursery.start_soon(self._keep, link, near, far)
        return link

    def links_from(self, run: str) -> Sequence[_MemoryLink]:
        return [link for (near, _), link in self._links.items() if near == run]

    async def _keep(self, link: _MemoryLink, near: str, far: str) -> None:
        try:
            await link.run(self._services.get(far))
        finally:
            del self._links[near, far]


class MemoryNodeLinks:
    """Port `Links` of one node."""

    def __init__(self, network: MemoryLinks, run: str) -> None:
        self._network = network
        self._run = run

    def send(self, member: Member, session_id: str, command: Command) -> None:
        link = self._network.link(self._run, member.run)
        if link is None:
            command.reply.close(CloseReason.RESTARTING)
        else:
            link.near.send(session_id, command)

    def drop(self, reply: Subscriber) -> None:
        for link in self._network.links_from(self._run):
            link.near.drop(reply)

    async def ask(self, member: Member, request: Mapping[str, object]) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        link = self._network.link(self._run, member.run)
        if link is None:
            raise LinkLost(f"{member.name} cannot be reached just now")
        return await link.near.ask(request)


class _MemoryWay:
    """EntryTransport: one direction of a link."""

    def __init__(self, network: MemoryLinks, link: _MemoryLink, start: str, to: str) -> None:
        self._network = network
        self._link = link
        self._start = start
        self._to = to
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0
        self._wakeup = trio.Event()
        self._room = trio.Event()

    def offer(self, entry: bytes) -> bool:
        if self._link.over or len(self._waiting) >= self._network.waiting_max:
            return False
        due = trio.current_time() + self._network.delay_s(self._start, self._to)
        self._last_due = max(due, self._last_due)  # none overtakes another
        self._waiting.append((self._last_due, entry))
        self._wakeup.set()
        return True

    def overflow(self) -> None:
        self._link.cut(CloseReason.SLOW_CONSUMER)

    @property
    def has_room(self) -> bool:
        return self._link.over or len(self._waiting) < self._network.waiting_max

    async def wait_for_room(self) -> None:
        while not self.has_room:
            await self._room.wait()

    def announce_room(self) -> None:
        self._room.set()
        self._room = trio.Event()

    async def carry(self, hear: Callable[[object], None]) -> None:
        while True:
            while self._waiting:
                await trio.sleep_until(self._waiting[0][0])
                hear(orjson.loads(self._waiting.popleft()[1]))
                self.announce_room()
            self._wakeup = trio.Event()
            await self._wakeup.wait()


class _MemoryLink:
    def __init__(self, network: MemoryLinks, near: str, far: str) -> None:
        self.over = False
        self._network = network
        self._ends = near, far
        self._there = _MemoryWay(network, self, near, far)
        self._back = _MemoryWay(network, self, far, near)
        self._close_reason = CloseReason.RESTARTING
        self._scope = trio.CancelScope()
        self.near = LinkClient(self._there)

    def cut(self, close_reason: CloseReason = CloseReason.RESTARTING) -> None:
        if not self.over:
            self.over = True
            self._close_reason = close_reason
            self._scope.cancel()
            self._back.announce_room()

    async def _watch(self) -> None:
        network = self._network
        silence = Silence()
        while network.silence_s is not None:
            await trio.sleep(network.silence_s / LOOKS)
            if not network.mute(*self._ends):
                silence.hear()
            if silence.look(network.gone(*self._ends)):
                self.cut()

    async def run(self, service: LinkService | None) -> None:
        """Args: service: of the node that is asked; None when it has gone meanwhile."""
        with self._scope:
            try:
                if service is not None:
                    async with trio.open_nursery() as nursery:
                        far = LinkServer(self._back, service, nursery)
                        try:
                            nursery.start_soon(self._watch)
                            nursery.start_soon(self._back.carry, self.near.hear)
                            await self._there.carry(far.hear)
                        finally:
                            with trio.CancelScope(shield=True):
                                await far.lost()
            finally:
                self.over = True
                self._back.announce_room()
                with trio.CancelScope(shield=True):
                    await self.near.lost(self._close_reason)
