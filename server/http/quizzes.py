"""Quizzes: write one, list them, read one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

import trio
from msgspec import convert
from msgspec.structs import asdict

from engine.domain.quiz import TITLE_MAX, Quiz
from engine.ports import QuizNotFound, QuizSummary, StoredQuiz
from server import quizfile
from server.http.authorization import Access
from server.http.requests import YAML_TYPES, read_body, read_query
from server.http.responses import Answer, json_answer
from server.http.services import Services
from server.security.authors import Author
from server.wire.api import quizzes as types
from server.wire.api.queries import (
    QUIZ_ID_CHARS_MAX,
    CreateQuizQuery,
    ListQuery,
    NoQuery,
    QuizListQuery,
    QuizQuery,
)
from server.wire.bodies import json_of
from server.wire.cursors import Stored, behind, one_page
from server.wire.errors import ApiError


class Quizzes:
    def __init__(self, services: Services, access: Access) -> None:
        self._catalog = services.catalog
        self._access = access
        self._checking = trio.CapacityLimiter(1)

    async def create(self) -> Answer:
        """201 with the new quiz or version; 200 when `?id=` has an equal newest version already."""
        author = self._access.require_author()
        quiz_id = read_query(CreateQuizQuery).id
        if quiz_id is not None and not may_be_quiz_id(quiz_id):
            raise ApiError(
                "bad_field",
                f"id is text of 1 to {QUIZ_ID_CHARS_MAX} printable characters, without slashes or outer "
                "blanks.",
                "id",
            )
        quiz = Quiz.parse(json_of(await read_body()))
        before = None if quiz_id is None else await self._newest_version(quiz_id)
        stored = await self._catalog.add(quiz, quiz_id, author.user_id, author.require_own)
        location = f"/api/quizzes/{quote(stored.id, safe='')}?version={stored.version}"
        status = 200 if stored.version == before else 201
        return json_answer(_identity(stored), status, {"Location": location})

    async def check(self) -> Answer:
        """200 for a file with mistakes too: the mistakes are the answer."""
        self._access.require_author()
        read_query(NoQuery)
        body = await read_body(YAML_TYPES)
        # A file of 1 MiB takes up to a second to read. Abandoned, it still takes its turn to the end.
        return json_answer(
            await trio.to_thread.run_sync(_checked, body, abandon_on_cancel=True, limiter=self._checking)
        )

    async def list(self) -> Answer:
        """For authors, as opening a session is: hosts choose from it."""
        author = self._access.require_author()
        query = read_query(QuizListQuery)
        if query.id is not None:
            return json_answer(types.QuizList(_summaries(await self._readable(author, query.id)), None))
        after = behind(query.cursor, tuple[Stored, Stored])
        owners, title = author.owners_of_quizzes(query.owner), search_text(query.title)
        found = await self._catalog.page(query.limit + 1, after, owners, title)
        page, following = one_page(found, query.limit, lambda last: (last.title, last.id))
        return json_answer(types.QuizList(_summaries(page), following))

    async def get(self, quiz_id: str) -> Answer:
        """Holds the right answers, so it is for authors alone."""
        author = self._access.require_author()
        version = read_query(QuizQuery).version
        if not may_be_quiz_id(quiz_id):
            raise QuizNotFound(quiz_id)
        stored = await self._catalog.get(quiz_id, version)
        if stored.deleted:
            raise QuizNotFound(quiz_id)
        author.require_playable(stored.owner_id)
        return json_answer(asdict(_identity(stored)) | {"quiz": stored.quiz.to_dict()})

    async def versions(self, quiz_id: str) -> Answer:
        author = self._access.require_author()
        limit = read_query(ListQuery).limit
        if not may_be_quiz_id(quiz_id):
            raise QuizNotFound(quiz_id)
        found = await self._catalog.versions(quiz_id, limit)
        author.require_playable(found[0].owner_id)
        return json_answer(types.QuizVersions(_summaries(found)))

    async def delete(self, quiz_id: str) -> Answer:
        """No version of it is played anew. Sessions that play one go on, and keep it."""
        author = self._access.require_author()
        read_query(NoQuery)
        if not may_be_quiz_id(quiz_id):
            raise QuizNotFound(quiz_id)
        author.require_own((await self._catalog.get(quiz_id)).owner_id)
        await self._catalog.delete(quiz_id)
        return json_answer(types.DeletedQuiz(quiz_id))

    async def _readable(self, author: Author, quiz_id: str) -> Sequence[QuizSummary]:
        """The quiz as a list has it; none if there is no such quiz, or none that the author may read."""
        if not may_be_quiz_id(quiz_id):
            return []
        try:
            found = await self._catalog.versions(quiz_id, 1)
            author.require_playable(found[0].owner_id)
        except (QuizNotFound, ApiError):
            return []
        return found

    async def _newest_version(self, quiz_id: str) -> int | None:
        try:
            return (await self._catalog.get(quiz_id)).version
        except QuizNotFound:
            return None


def _summaries(found: Iterable[QuizSummary]) -> list[types.QuizSummary]:
    return [convert(summary, types.QuizSummary, from_attributes=True) for summary in found]


def _checked(text: bytes) -> dict[str, object]:
    """`CheckedQuiz`: the quiz; or its problems, and as much of it as could be read."""
    try:
        quiz = quizfile.parse(text, "quiz").quiz
    except quizfile.QuizFileError as error:
        problems = [
            {"code": each.code, "message": each.message, "path": each.path, "line": each.line}
            for each in error.problems
        ]
        return {"quiz": None, "draft": error.data, "problems": problems}
    return {"quiz": quiz.to_dict(), "draft": None, "problems": []}


def search_text(title: str | None) -> str | None:
    """The text to look for in titles. Raises ApiError for what no title has."""
    if title is None or (0 < len(title) <= TITLE_MAX and title.isprintable()):
        return title
    raise ApiError("bad_field", f"title is 1 to {TITLE_MAX} printable characters.", "title")


def may_be_quiz_id(text: str) -> bool:
    """Whether a quiz can have this id: it must fit into an address and be valid for the store."""
    return (
        0 < len(text) <= QUIZ_ID_CHARS_MAX
        and text.isprintable()
        and text == text.strip()
        and "/" not in text
        and text not in (".", "..")
    )


def _identity(stored: StoredQuiz) -> types.QuizIdentity:
    return types.QuizIdentity(
        stored.id, stored.version, stored.quiz.title, len(stored.quiz.questions), stored.created_at
    )
