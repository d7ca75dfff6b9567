"""What the layers above need from the outside world, and what each of them guarantees.

Every implementation of a port passes the same contract test. Times are milliseconds since the epoch unless
a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.domain.facts import Fact
from engine.domain.quiz import Quiz
from engine.domain.session import Settings


class StorageUnavailable(Exception):
    """The store cannot be reached just now. Nothing was changed, or it cannot be known whether it was;
    every operation that raises this may be repeated without harm."""


class CodeTaken(Exception):
    """Another unfinished session already answers to this code."""


class SessionNotFound(Exception):
    """No session has this id or code."""


class Unreadable(Exception):
    """What is stored of a session or a quiz is nothing that this release can use: a later one wrote it, or
    something is broken. One sentence."""


class OwnedElsewhere(Exception):
    """Somebody else owns the session, and may still be running it."""

    def __init__(self, session_id: str, owner: str | None) -> None:
        super().__init__(f"session {session_id} belongs to {owner}")
        self.session_id = session_id
        self.owner = owner


class SessionRunning(Exception):
    """The session is not over, as far as it is committed."""


class PlayerNotFound(Exception):
    """The session has no player with this number, as far as it is committed."""


class QuizNotFound(Exception):
    """No quiz has this id, or it has no such version."""


@dataclass(frozen=True, slots=True)
class StoredQuiz:
    """A quiz under its id. `version` counts from 1; a stored version never changes, but for being deleted:
    then it is there for the sessions that use it alone."""

    id: str
    version: int
    quiz: Quiz
    created_at: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class QuizSummary:
    """The newest version of a quiz, without its questions."""

    id: str
    version: int
    title: str
    language: str
    questions: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a session: one run of a node. `address` is what that run has told of itself, for the other
    nodes to read; None when it is not known. `holds` tells whether its lease had not ended."""

    run: str
    address: str | None
    holds: bool


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The row of a session: what is fixed at creation, and where it stands. `owner` is who owned it when the
    row was read; None for a session that nobody owns."""

    id: str
    code: str
    quiz_id: str
    quiz_version: int
    settings: Settings
    created_at: int
    finished_at: int | None = None
    owner: Owner | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClaimedSession:
    """A session that this node now owns, with all that is needed to rebuild it.

    `facts` come in the order of `seq`. `last_alive_at` is the last moment at which the last owner is
    known to have run the session, by the clock of that owner; None when none ever did. The clock of a
    question in progress is moved by the difference to now: so nobody loses the time without an owner, nor by
    how much the two clocks differ.
    """

    record: SessionRecord
    quiz: Quiz
    epoch: int
    facts: Sequence[Fact]
    last_alive_at: int | None


class QuizCatalog(Protocol):
    async def add(self, quiz: Quiz, quiz_id: str | None = None) -> StoredQuiz:
        """Store a quiz. Without an id one is made from the title. Under an id that exists, a quiz equal to
        the newest version changes nothing and returns that; a different one becomes the next version, and so
        does any after a deletion.

        Repeated without an id after StorageUnavailable, it may be stored twice, under two ids."""

    async def get(self, quiz_id: str, version: int | None = None) -> StoredQuiz:
        """One version, also a deleted one that a session uses; by default the newest that is not deleted.
        Raises QuizNotFound, Unreadable."""

    async def list(self) -> Sequence[QuizSummary]:
        """The newest version of every quiz, by title."""

    async def versions(self, quiz_id: str, limit: int) -> Sequence[QuizSummary]:
        """The last versions of one quiz, newest first. Raises QuizNotFound."""

    async def delete(self, quiz_id: str) -> None:
        """Let no session of any version of this quiz begin any more, and list it no more. Sessions that use
        one go on with it; what is in a version is gone for good when no session uses it, at once or with the
        last of them. Raises QuizNotFound, also when there is nothing left to delete."""

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


RESULTS_PER_SLICE = 250
"""A millisecond or two."""


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One line of a listing of sessions. `players` counts those who were not kicked."""

    id: str
    code: str
    quiz_id: str
    title: str
    players: int
    created_at: int
    finished_at: int | None


class SessionStore(Protocol):
    """What is listed leaves out sessions that cannot be read."""

    async def create(self, record: SessionRecord) -> None:
        """Store a new session. Raises CodeTaken; QuizNotFound when its quiz is not there, or was deleted.
        Repeated with the same id, it changes nothing."""

    async def find(self, key: str) -> SessionRecord:
        """By id, or by six-digit code: then the unfinished session with this code, else the one that
        was created last. Raises SessionNotFound, without a look for what is neither; Unreadable."""

    async def claim(
        self, session_id: str, owner: str, gone: Callable[[str], bool] | None = None
    ) -> ClaimedSession:
        """Become the owner: raises the epoch by one in the same transaction that takes the row, so that no
        commit under an older epoch can succeed any more, and loads the facts. Raises SessionNotFound;
        Unreadable, and then nothing has changed.

        `owner` names one run of a node, and no earlier one: signs of life are told apart by it. With `gone` a
        session of another owner is taken only if `gone` says so of it and its lease is over as well; else
        OwnedElsewhere is raised and nothing has changed. A lease that is renewed at the same time is either
        seen here, or its holder is told that it had lapsed."""

    async def grant(self, session_id: str, epoch: int, owner: str, to: str | None) -> bool:
        """Hand the session on to another run, or with None to nobody, if it still is `owner`'s under this
        epoch: whether it was. The epoch stays, so every fact must be in the store before."""

    async def orphans(self, live: Collection[str]) -> Sequence[SessionRecord]:
        """Unfinished sessions whose owner is none of these, oldest first. Those without an owner are left
        out."""

    async def owned_by(self, owner: str) -> Sequence[str]:
        """Ids of the unfinished sessions of this owner."""

    async def unfinished(self) -> Sequence[SessionRecord]:
        """Every session without an end, oldest first."""

    async def ended_since(self, at: int) -> Sequence[SessionRecord]:
        """Sessions that have ended at that time or later, oldest first. One that was created more than a day
        before it may be missing."""

    async def recent(self, limit: int) -> Sequence[SessionSummary]:
        """The sessions created last, newest first."""

    async def results(
        self,
        session_id: str,
        take: Callable[[Sequence[PlayerResult]], None],
        up_to: int | None = None,
    ) -> None:
        """The standing of a session, running or finished, as far as it is committed, by rank; within a
        rank the smaller total answering time first. Kicked players are left out. With `up_to`, so are the
        answers to the questions after that one.

        `take` is called with one slice of at most `RESULTS_PER_SLICE` after another, with others having their
        turn in between, and must be as quick as a slice is short. Raises SessionNotFound."""

    async def first_results(self, session_id: str, count: int) -> tuple[Sequence[PlayerResult], int]:
        """The first `count` of the results, which may be none, and how many there are in all. Raises
        SessionNotFound."""

    async def host_generation(self, session_id: str) -> int:
        """How often the session was taken over; 0 for one that is not stored."""

    async def skipped(self, session_id: str) -> Sequence[int]:
        """The questions that count for nobody, in their order; none of a session that is not stored."""

    async def results_around(self, session_id: str, player: int, reach: int) -> Sequence[PlayerResult]:
        """The player's result with as many as `reach` before and after it; empty if there is none."""

    async def results_by_player(
        self, session_id: str, after: int, limit: int
    ) -> tuple[Sequence[PlayerResult], int]:
        """As many as `limit` of the results of players with numbers above `after`, in the order of the
        numbers, and how many results there are in all. Raises SessionNotFound."""

    async def is_in(self, session_id: str, player: int) -> bool:
        """Whether this player has joined the session and was neither removed nor erased, as far as it is
        committed."""

    async def erase_player(self, session_id: str, player: int) -> None:
        """Take the name of a player out of all that is stored of the session: `erased_name` stands in its
        place, and the fact of the join says so. Answers and scores stay. Repeated, it changes nothing.

        Raises PlayerNotFound, also for a player who is not in the store yet. An owner that runs the session
        is to be told by the caller."""

    async def delete(self, session_id: str) -> None:
        """Remove a session that is over, with everything that is stored of it. Raises SessionNotFound,
        SessionRunning."""

    async def progress(self, session_id: str) -> int:
        """How many questions have been opened, as far as it is committed; 0 for an unknown session."""


@dataclass(frozen=True, slots=True)
class SpooledFacts:
    """Facts that an earlier owner acknowledged from its spool under `epoch`, and that came here after another
    had taken the session. `merged` says that an owner has folded them in."""

    id: int
    epoch: int
    facts: Sequence[Fact]
    merged: bool


class SpooledFactsStore(Protocol):
    """What was acknowledged and waits for the owner of its session to fold it in."""

    async def waiting(self, owner: str) -> Sequence[str]:
        """Ids of the sessions that have spooled facts nobody has merged, and that `owner` may see to: its
        own; and of those that nobody has seen to for a while, the ones that nobody owns, and the finished
        ones whose owner has no lease."""

    async def spooled(self, session_id: str) -> Sequence[SpooledFacts]:
        """All of a session, merged ones too, in the order in which they came here."""

    async def set_merged(self, ids: Sequence[int]) -> None:
        """These are folded in, and what came of it is committed. Repeated, it changes nothing."""


class CommitListener(Protocol):
    """Who hears of the fate of appended facts. Called from the journal's task: must return at once and
    must not raise."""

    def committed(self, seq: int) -> None:
        """Every fact of the session up to and including `seq` outlives a crash: it is in Postgres, or on the
        disk of this node from where it will get there, and nobody else can have taken the session."""

    def fenced(self) -> None:
        """Somebody else owns the session now. What was appended and not yet reported as committed never will
        be. None of it is stored, unless a commit took effect whose answer was lost: then the new owner has
        found it there."""


class Owned(Protocol):
    """A session that this node holds as its own."""

    @property
    def session_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...

    def fenced(self) -> None:
        """As `CommitListener.fenced`."""


class Lease(Protocol):
    """Whether this node is still the owner of what it owned, as far as it can know by itself."""

    def certain(self, now_s: float) -> bool:
        """True only while it is impossible that somebody else has claimed a session of this node. `now_s`
        is of the clock that the lease was told everything else by."""


JOINS_SHARE = 0.8
"""Of the journal's room: beyond it new players are refused, so that those who play can go on for longer."""


class Journal(Protocol):
    """Write-behind: accepted facts queue up and reach Postgres many sessions at a time, if need be by way of
    a spool on this node's disk."""

    def has_room(self, share: float = 1.0) -> bool:
        """Whether an append is welcome. False means: refuse the request with `busy` and change nothing.

        `share` says how much of the room this kind of request may fill: what matters less has less."""

    def append(self, session_id: str, epoch: int, facts: Sequence[Fact], listener: CommitListener) -> None:
        """Queue facts behind all earlier ones. Never blocks, never drops. A fact that follows from the
        clock may be appended without room; the few a session has of those are not bounded by it.

        Raises ValueError, and queues nothing, when a fact can never be stored (not-a-number, a NUL)."""

    async def settled(self, session_id: str) -> None:
        """Wait until every fact of this session that was reported as committed is in Postgres. A claim
        before that would not find them all."""
