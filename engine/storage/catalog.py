"""The catalog of quizzes: in Postgres, and a cache in front of it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import trio

from engine.domain.errors import DomainError
from engine.domain.quiz import Quiz
from engine.ports import (
    CacheCounts,
    Owners,
    QuizCatalog,
    QuizNotFound,
    QuizSummary,
    StoredQuiz,
    Unreadable,
    anyone,
)
from engine.storage.erasing import empty_deleted_quizzes
from engine.storage.listing import quizzes_page
from engine.storage.postgres import Connection, Database, Row

_SLUG_MAX = 60


class PostgresCatalog:
    """Quizzes in Postgres (port `QuizCatalog`). `now_ms` dates what is added."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def add(
        self,
        quiz: Quiz,
        quiz_id: str | None = None,
        owner_id: str | None = None,
        allow: Callable[[str | None], None] = anyone,
    ) -> StoredQuiz:
        if quiz_id is None:
            return await self._add_new(quiz, owner_id)
        while True:
            last = await self._database.fetchrow(
                f"{_SELECT} WHERE id = $1 ORDER BY version DESC LIMIT 1", quiz_id
            )
            whose = owner_id
            if last is not None and not last["deleted"]:
                whose = last["owner_id"]
                allow(whose)
                newest = _stored(last)
                if newest.quiz == quiz:
                    return newest
            # Somebody else may take the number meanwhile; then this is an edit of theirs.
            stored = await self._insert(quiz_id, 1 if last is None else last["version"] + 1, quiz, whose)
            if stored is not None:
                return stored

    async def _add_new(self, quiz: Quiz, owner_id: str | None) -> StoredQuiz:
        slug = _slug(quiz.title)
        rows = await self._database.fetch(
            "SELECT DISTINCT id FROM quizzes WHERE id = $1 OR id LIKE $2", slug, f"{slug}-%"
        )
        taken = {row["id"] for row in rows}
        for quiz_id in (slug if n == 1 else f"{slug}-{n}" for n in count(1)):
            if quiz_id not in taken:
                stored = await self._insert(quiz_id, 1, quiz, owner_id)
                if stored is not None:
                    return stored
        raise AssertionError("unreachable")

    async def _insert(
        self, quiz_id: str, version: int, quiz: Quiz, owner_id: str | None
    ) -> StoredQuiz | None:
        """None when this version exists."""
        created_at = self._now_ms()
        row = await self._database.fetchrow(
            "INSERT INTO quizzes (id, version, title, language, definition, created_at, owner_id) "
            "VALUES ($1, $2, $3, $4, $5, 'epoch'::timestamptz + $6::float8 * interval '1 ms', $7) "
            "ON CONFLICT DO NOTHING RETURNING id",
            quiz_id,
            version,
            quiz.title,
            quiz.language,
            json.dumps(quiz.to_dict(), ensure_ascii=False),
            created_at,
            owner_id,
        )
        if row is None:
            return None
        return StoredQuiz(quiz_id, version, quiz, created_at, owner_id=owner_id)

    async def get(self, quiz_id: str, version: int | None = None) -> StoredQuiz:
        if version is None:
            row = await self._database.fetchrow(_NEWEST, quiz_id)
        else:
            row = await self._database.fetchrow(_VERSION, quiz_id, version)
        if row is None:
            raise QuizNotFound(quiz_id if version is None else f"{quiz_id}, version {version}")
        return _stored(row)

    async def page(
        self,
        limit: int,
        after: tuple[str, str] | None = None,
        owners: Owners = None,
        title: str | None = None,
    ) -> Sequence[QuizSummary]:
        rows = await quizzes_page(self._database, _SUMMARY, limit, after, owners, title)
        return [_summary(row) for row in rows]

    async def versions(self, quiz_id: str, limit: int) -> Sequence[QuizSummary]:
        rows = await self._database.fetch(_VERSIONS, quiz_id, limit)
        if not rows:
            raise QuizNotFound(quiz_id)
        return [_summary(row) for row in rows]

    async def delete(self, quiz_id: str) -> None:
        async def work(connection: Connection) -> None:
            # Whoever begins a session of it meanwhile is waited for; whoever comes later finds it deleted.
            there = await connection.fetch(
                "SELECT FROM quizzes WHERE id = $1 AND deleted_at IS NULL FOR UPDATE", quiz_id
            )
            if not there:
                raise QuizNotFound(quiz_id)
            await connection.execute(_DELETE, quiz_id, self._now_ms())
            await empty_deleted_quizzes(connection, quiz_id)

        await self._database.in_transaction(work)

    async def is_taken(self, quiz_id: str) -> bool:
        return bool(await self._database.fetch("SELECT FROM quizzes WHERE id = $1 LIMIT 1", quiz_id))


_SELECT = (
    "SELECT id, version, definition::text AS definition, "
    "(extract(epoch FROM created_at) * 1000)::bigint AS created_at, deleted_at IS NOT NULL AS deleted, "
    "owner_id "
    "FROM quizzes"
)

_NEWEST = f"{_SELECT} WHERE id = $1 AND deleted_at IS NULL ORDER BY version DESC LIMIT 1"

_VERSION = f"{_SELECT} WHERE id = $1 AND version = $2 AND definition <> 'null'"

_DELETE = """
UPDATE quizzes SET deleted_at = 'epoch'::timestamptz + $2::float8 * interval '1 ms'
WHERE id = $1 AND deleted_at IS NULL
"""

# A row that is no quiz costs nobody the list.
_SUMMARY = """
id, version, title, language,
CASE jsonb_typeof(definition -> 'questions')
    WHEN 'array' THEN jsonb_array_length(definition -> 'questions') ELSE 0 END AS questions,
(extract(epoch FROM created_at) * 1000)::bigint AS created_at, owner_id
"""

_VERSIONS = (
    f"SELECT {_SUMMARY} FROM quizzes WHERE id = $1 AND deleted_at IS NULL ORDER BY version DESC LIMIT $2"
)


def _summary(row: Row) -> QuizSummary:
    return QuizSummary(
        row["id"],
        row["version"],
        row["title"],
        row["language"],
        row["questions"],
        row["created_at"],
        row["owner_id"],
    )


def _stored(row: Row) -> StoredQuiz:
    try:
        quiz = Quiz.stored(json.loads(row["definition"]))
    except DomainError as error:
        raise Unreadable(f"quiz {row['id']}, version {row['version']}: {error}") from None
    return StoredQuiz(row["id"], row["version"], quiz, row["created_at"], row["deleted"], row["owner_id"])


def _slug(title: str) -> str:
    """The title in ASCII letters, digits and hyphens. It holds no character that LIKE takes for a pattern."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-")[:_SLUG_MAX].strip("-") or "quiz"


@dataclass(frozen=True, slots=True)
class _Cached:
    stored: StoredQuiz
    until: float


class CachedCatalog:
    """Keeps quizzes in memory that were asked for lately, in front of another catalog.

    A stored version never changes, so only the question which is the newest can grow stale, and what was
    deleted can still be there: up to `ttl_s` after a change elsewhere that `invalidate` was not told of. At
    most `quizzes_max` are kept; the one not asked for longest gives way.
    """

    def __init__(
        self,
        behind: QuizCatalog,
        *,
        ttl_s: float = 1800.0,
        quizzes_max: int = 500,
        current_time: Callable[[], float] = trio.current_time,
    ) -> None:
        self._behind = behind
        self._ttl_s = ttl_s
        self._quizzes_max = quizzes_max
        self._current_time = current_time
        self._cached: OrderedDict[tuple[str, int | None], _Cached] = OrderedDict()
        self.counts = CacheCounts()

    async def add(
        self,
        quiz: Quiz,
        quiz_id: str | None = None,
        owner_id: str | None = None,
        allow: Callable[[str | None], None] = anyone,
    ) -> StoredQuiz:
        stored = await self._behind.add(quiz, quiz_id, owner_id, allow)
        self.invalidate(stored.id)
        return stored

    async def get(self, quiz_id: str, version: int | None = None) -> StoredQuiz:
        cached = self._cached.get((quiz_id, version))
        if cached is not None and self._current_time() < cached.until:
            self._cached.move_to_end((quiz_id, version))
            self.counts.hits += 1
            await trio.lowlevel.checkpoint()
            return cached.stored
        self.counts.misses += 1
        invalidations = self.counts.invalidations
        stored = await self._behind.get(quiz_id, version)
        if invalidations == self.counts.invalidations:
            self._keep((quiz_id, stored.version), stored)
            if version is None:
                self._keep((quiz_id, None), stored)
        return stored

    async def page(
        self,
        limit: int,
        after: tuple[str, str] | None = None,
        owners: Owners = None,
        title: str | None = None,
    ) -> Sequence[QuizSummary]:
        return await self._behind.page(limit, after, owners, title)

    async def versions(self, quiz_id: str, limit: int) -> Sequence[QuizSummary]:
        return await self._behind.versions(quiz_id, limit)

    async def delete(self, quiz_id: str) -> None:
        try:
            await self._behind.delete(quiz_id)
        finally:
            self.invalidate(quiz_id)

    async def is_taken(self, quiz_id: str) -> bool:
        return await self._behind.is_taken(quiz_id)

    def invalidate(self, quiz_id: str) -> None:
        """Forget the quiz. A look-up under way does not bring it back."""
        self.counts.invalidations += 1
        for key in [key for key in self._cached if key[0] == quiz_id]:
            del self._cached[key]

    def _keep(self, key: tuple[str, int | None], stored: StoredQuiz) -> None:
        self._cached[key] = _Cached(stored, self._current_time() + self._ttl_s)
        self._cached.move_to_end(key)
        while len(self._cached) > self._quizzes_max:
            self._cached.popitem(last=False)
