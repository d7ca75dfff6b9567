"""The ports of the actors to the outside world, and what each of them guarantees.

Every implementation of a port passes the same contract test. Times are milliseconds since the epoch unless
a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from engine.domain.facts import Fact
from engine.domain.quiz import Quiz
from engine.domain.session import Settings


class StorageUnavailable(Exception):
    """The store cannot be reached just now. Nothing was changed, or it is unknown whether it was; every
    operation that raises this may be repeated without harm."""


class CodeTaken(Exception):
    """Another unfinished session has this code."""


class SessionNotFound(Exception):
    """No session has this id or code."""


class Unreadable(Exception):
    """This release cannot use the stored session or quiz: a later one wrote it, or it is broken. The message
    is one sentence."""


class OwnedElsewhere(Exception):
    """Another owner has the session, and may still be running it."""

    def __init__(self, session_id: str, owner: str | None) -> None:
        super().__init__(session_id, owner)
        self.session_id = session_id
        self.owner = owner

    def __str__(self) -> str:
        return f"session {self.session_id} belongs to {self.owner}"


class SessionRunning(Exception):
    """The session is not over, as far as it is committed."""


class PlayerNotFound(Exception):
    """The session has no player with this number, as far as it is committed."""


class QuizNotFound(Exception):
    """No quiz has this id, or it has no such version."""


Owners = Sequence[str | None] | None
"""Whose quizzes or sessions a listing has: those of these authors, where None stands for what was made with
the author key; or with None in place of the list, everybody's."""


def anyone(owner_id: str | None) -> None:
    """Lets every author write to the quiz of this owner."""


@dataclass(frozen=True, slots=True)
class StoredQuiz:
    """A quiz under its id. `version` counts from 1. A stored version never changes, except that it may be
    deleted: then it is kept only for the sessions that use it."""

    id: str
    version: int
    quiz: Quiz
    created_at: int
    deleted: bool = False
    owner_id: str | None = None
    """The author who made the quiz; None for what was made with the author key."""


@dataclass(frozen=True, slots=True)
class QuizSummary:
    """The newest version of a quiz, without its questions."""

    id: str
    version: int
    title: str
    language: str
    questions: int
    created_at: int
    owner_id: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a session: one run of a node. `address` is the address that the run has announced to other
    nodes; None when it is unknown. `holds` tells whether its lease had not ended."""

    run: str
    address: str | None
    holds: bool


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The row of a session: the values fixed at creation, and its end. `owner` is the owner at the time the
    row was read; None for a session without an owner. `owner_id` is the author who opened the session; None
    for a session that was opened with the author key, and where another node has told of the session."""

    id: str
    code: str
    quiz_id: str
    quiz_version: int
    settings: Settings
    created_at: int
    finished_at: int | None = None
    owner: Owner | None = field(default=None, compare=False)
    owner_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClaimedSession:
    """A session that this node now owns, with everything that is needed to rebuild it.

    `facts` are in the order of `seq`. `last_alive_at` is the last moment at which the last owner is known to
    have run the session, by the clock of that owner; None if no node ever ran it. The clock of a question in
    progress is moved by the difference to now, so that players lose neither the time without an owner nor the
    difference of the two clocks.
    """

    record: SessionRecord
    quiz: Quiz
    epoch: int
    facts: Sequence[Fact]
    last_alive_at: int | None


@dataclass(slots=True)
class CacheCounts:
    """Of a cache of quizzes, since its start: look-ups that it could answer, look-ups that it could not, and
    quizzes that it was told to forget."""

    hits: int = 0
    misses: int = 0
    invalidations: int = 0


class QuizCatalog(Protocol):
    async def add(
        self,
        quiz: Quiz,
        quiz_id: str | None = None,
        owner_id: str | None = None,
        allow: Callable[[str | None], None] = anyone,
    ) -> StoredQuiz:
        """Store a quiz. Without an id one is made from the title. Under an existing id, a quiz equal to the
        newest version changes nothing and returns that version; a different quiz becomes the next version,
        and so does any quiz after a deletion.

        A new quiz, and one after a deletion, belongs to `owner_id`; a next version to the owner of the
        version before it. Before anything is written under an existing id, `allow` is called with that owner,
        and what it raises is raised.

        Repeated without an id after StorageUnavailable, it may be stored twice, under two ids."""

    async def get(self, quiz_id: str, version: int | None = None) -> StoredQuiz:
        """One version, also a deleted one that a session uses; by default the newest that is not deleted.
        Raises QuizNotFound, Unreadable."""

    async def page(
        self,
        limit: int,
        after: tuple[str, str] | None = None,
        owners: Owners = None,
        title: str | None = None,
    ) -> Sequence[QuizSummary]:
        """The newest version of each quiz of these owners, by title and id, at most `limit` of them: those
        behind the title and the id of `after`; with `title` only those with this text in their title,
        whatever its case."""

    async def versions(self, quiz_id: str, limit: int) -> Sequence[QuizSummary]:
        """The last versions of one quiz, newest first. Raises QuizNotFound."""

    async def delete(self, quiz_id: str) -> None:
        """Delete all versions of a quiz: no new session of it begins, and it is not listed any more.
        Sessions that use a version go on with it; the content of a version is removed for good when no
        session uses it, at once or with the last of them. Raises QuizNotFound, also when there is
        nothing left to delete."""

    async def is_taken(self, quiz_id: str) -> bool:
        """Whether a quiz has this id, or had it before it was deleted."""


@dataclass(frozen=True, slots=True)
class PlayerResult:
    """One line of the final standing, computed from the stored facts alone."""

    rank: int
    player: int
    name: str
    score: int
    correct: int
    answered: int
    elapsed_ms: int


class Seat(Enum):
    """Of one player in a session."""

    TAKEN = "taken"
    REMOVED = "removed"
    """By the host."""
    NOBODYS = "nobodys"
    """The player was erased, removed before or not, or has never joined."""


RESULTS_PER_SLICE = 250
"""Results in one slice: a millisecond or two of work."""


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One line of a listing of sessions. `players` does not count kicked players."""

    id: str
    code: str
    quiz_id: str
    title: str
    players: int
    created_at: int
    finished_at: int | None
    owner_id: str | None = None


class SessionStore(Protocol):
    """Listings leave out sessions that cannot be read."""

    async def create(self, record: SessionRecord) -> None:
        """Store a new session. Raises CodeTaken; QuizNotFound if its quiz does not exist, or was deleted.
        Repeated with the same id, it changes nothing."""

    async def find(self, key: str) -> SessionRecord:
        """Find a session by id, or by six-digit code: the unfinished session with this code, else the one
        created last. Raises SessionNotFound, without a query if the key is neither; Unreadable."""

    async def claim(
        self, session_id: str, owner: str, gone: Callable[[str], bool] | None = None
    ) -> ClaimedSession:
        """Become the owner: raises the epoch by one in the same transaction that takes the row, so that no
        commit under an older epoch can succeed any more, and loads the facts. Raises SessionNotFound;
        Unreadable, and then nothing has changed.

        `owner` names one run of a node: signs of life are told apart by it. With `gone`, the session of
        another owner is taken only if `gone(owner)` and the lease of that owner has ended; else
        OwnedElsewhere is raised and nothing has changed. A lease that is renewed at the same time is either
        seen here, or its holder is told that it had ended."""

    async def grant(self, session_id: str, epoch: int, owner: str, to: str | None) -> bool:
        """Hand the session on to another run, or with None give it up, if `owner` still has it under this
        epoch. Returns whether it had. The epoch stays, so every fact must be in the store before."""

    async def orphans(self, live: Collection[str]) -> Sequence[SessionRecord]:
        """Unfinished sessions whose owner is not in `live`, oldest first. Sessions without an owner are left
        out."""

    async def owned_by(self, owner: str) -> Sequence[str]:
        """Ids of the unfinished sessions of this owner."""

    async def unfinished(self) -> Sequence[SessionRecord]:
        """Every unfinished session, oldest first."""

    async def overdue(self, now: int, created_by: int) -> Sequence[SessionRecord]:
        """Unfinished sessions that should have ended, oldest first: self-paced ones whose deadline has passed
        by `now`, and of the others those created at `created_by` or before."""

    async def ended_since(self, at: int) -> Sequence[SessionRecord]:
        """Sessions that ended at that time or later, oldest first. A session that was created more than a day
        before that time may be missing."""

    async def page(
        self,
        limit: int,
        after: tuple[int, str] | None = None,
        owners: Owners = None,
        title: str | None = None,
    ) -> Sequence[SessionSummary]:
        """The sessions that these authors opened, newest first, at most `limit` of them: those behind the
        time of creation and the id of `after`; with `title` only sessions of quizzes with this text in their
        title, whatever its case."""

    async def results(
        self,
        session_id: str,
        take: Callable[[Sequence[PlayerResult]], None],
        up_to: int | None = None,
    ) -> None:
        """The standing of a session, running or finished, as far as it is committed, by rank; within a
        rank the smaller total answering time first. Kicked players are left out. With `up_to`, so are the
        answers to the questions after that one.

        `take` is called with one slice of at most `RESULTS_PER_SLICE` after another, with checkpoints in
        between. Each call must be as quick as making a slice. Raises SessionNotFound."""

    async def first_results(self, session_id: str, count: int) -> tuple[Sequence[PlayerResult], int]:
        """The first `count` of the results, which may be none, and how many there are in all. Raises
        SessionNotFound."""

    async def host_generation(self, session_id: str) -> int:
        """How often the host was replaced; 0 for a session that is not stored."""

    async def skipped(self, session_id: str) -> Sequence[int]:
        """The skipped questions, in their order; none for a session that is not stored."""

    async def results_around(self, session_id: str, player: int, reach: int) -> Sequence[PlayerResult]:
        """The player's result with as many as `reach` before and after it; empty if there is none."""

    async def results_by_player(
        self, session_id: str, after: int, limit: int
    ) -> tuple[Sequence[PlayerResult], int]:
        """At most `limit` results of players with numbers above `after`, in the order of the numbers, and the
        total count of results. Raises SessionNotFound."""

    async def seat(self, session_id: str, player: int) -> Seat:
        """What has become of this player, as far as it is committed."""

    async def seat_of_user(self, session_id: str, user_id: str) -> int | None:
        """The player that a user of the app is in this session, as far as it is committed; None without a
        seat. Whether that player was removed, `seat` tells."""

    async def erase_player(self, session_id: str, player: int) -> None:
        """Erase the name of a player everywhere in the stored session: `erased_name` replaces it, also in the
        fact of the join. Answers and scores stay. Repeated, it changes nothing.

        Raises PlayerNotFound, also for a player that is not in the store yet. The caller must tell the owner
        that runs the session."""

    async def delete(self, session_id: str) -> None:
        """Delete a finished session, with everything that is stored of it. Raises SessionNotFound,
        SessionRunning."""

    async def progress(self, session_id: str) -> int:
        """How many questions have been opened, as far as it is committed; 0 for an unknown session."""


@dataclass(frozen=True, slots=True)
class SpooledFacts:
    """Facts that an earlier owner acknowledged from its spool under `epoch`, and that reached the store after
    another owner had taken the session. `merged` tells whether an owner has merged them."""

    id: int
    epoch: int
    facts: Sequence[Fact]
    merged: bool


class SpooledFactsStore(Protocol):
    """Acknowledged facts that wait for the owner of their session to merge them."""

    async def waiting(self, owner: str) -> Sequence[str]:
        """Ids of the sessions with unmerged facts that `owner` may merge: its own sessions; and of those
        whose facts have waited for a while, the sessions without an owner, and the finished ones whose owner
        has no lease."""

    async def spooled(self, session_id: str) -> Sequence[SpooledFacts]:
        """All spooled facts of a session, merged ones too, in the order in which they arrived."""

    async def set_merged(self, ids: Sequence[int]) -> None:
        """Note that these facts are merged, and the merged facts committed. Repeated, it changes nothing."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One group commit, which every listener with facts in it is told of.

    Attributes:
        started_s: when the journal first tried to get the batch to PostgreSQL or into the spool, by trio's
            clock.
        ended_s: when the batch was there.
        facts: how many facts are in it, of all sessions.
        spooled: whether it is on the disk of this node, and not in PostgreSQL yet.
    """

    started_s: float
    ended_s: float
    facts: int
    spooled: bool = False


class CommitListener(Protocol):
    """Is told the outcome of appended facts. Called from the task of the journal: must return at once and
    must not raise."""

    def committed(self, seq: int, commit: Commit | None = None) -> None:
        """Every fact of the session up to and including `seq` outlives a crash: it is in PostgreSQL, or on
        the disk of this node and will get there, and no other node can have taken the session. `commit` has
        the last of these facts; None where that is not known."""

    def fenced(self) -> None:
        """Another owner has the session now. Facts that were appended and not yet reported as committed never
        will be. None of them are stored, unless a commit took effect whose answer was lost: then the new
        owner has found them there."""


class Owned(Protocol):
    """A session that this node owns."""

    @property
    def session_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...

    def fenced(self) -> None:
        """As `CommitListener.fenced`."""


class Lease(Protocol):
    """Whether this node still owns its sessions, as far as it can know by itself."""

    def certain(self, now_s: float) -> bool:
        """True only while no other node can have claimed a session of this node. `now_s` is a time of the
        clock that the lease was updated by."""


JOINS_SHARE = 0.8
"""The share of the journal's room beyond which new players are refused, so that present players can play
longer."""


class Journal(Protocol):
    """Write-behind: accepted facts queue up and reach PostgreSQL many sessions at a time, if need be by way
    of a spool on the disk of this node."""

    def has_room(self, share: float = 1.0) -> bool:
        """Whether there is room for an append. If not, refuse the request with `busy` and change nothing.

        `share` is the part of the room that this kind of request may fill: less important requests may fill
        less."""

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        """Queue facts behind all earlier ones. Never blocks, never drops. A fact that follows from the clock
        may be appended without room, because a session has only a few of these.

        Raises ValueError, and queues nothing, if a fact can never be stored (not-a-number, a NUL)."""

    async def settled(self, session_id: str) -> None:
        """Wait until every fact of this session that was reported as committed is in PostgreSQL. A claim
        before that would not find all of them."""
