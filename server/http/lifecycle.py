"""Sessions: open one, list them, look at one."""

from __future__ import annotations

from typing import cast

from msgspec import convert

from engine.actors.commands import Look, TakeOver
from engine.actors.delivery.frame import Message
from engine.domain.phases import Phase
from engine.domain.session_keys import is_id
from engine.domain.settings import FIELDS, Settings
from engine.ports import QuizNotFound, SessionRecord
from server.http.addresses import join_url, play_url, ws_url
from server.http.authorization import Access
from server.http.final_results import FinalResults, without_standing
from server.http.quizzes import may_be_quiz_id, search_text
from server.http.requests import read_object, read_query
from server.http.responses import Answer, json_answer
from server.http.services import LiveSession, Services
from server.http.sessions import Sessions, ask
from server.wire.api import sessions as types
from server.wire.api.queries import VERSION_MAX, NoQuery, SessionListQuery
from server.wire.cursors import Moment, behind, one_page
from server.wire.errors import ApiError


class Lifecycle:
    def __init__(
        self, services: Services, access: Access, sessions: Sessions, final_results: FinalResults
    ) -> None:
        self._services = services
        self._access = access
        self._sessions = sessions
        self._final_results = final_results

    async def create(self) -> Answer:
        """A new session, its code, and the token that leads it."""
        author = self._access.require_author()
        data = await read_object(types.NewSession)
        settings = Settings.parse({name: data[name] for name in FIELDS if name in data})
        if settings.identity == "required" and self._services.config.identity == "off":
            raise ApiError("bad_field", "This node takes no identities: nobody could join.", "identity")
        self._refuse_over_already(settings)
        quiz_id, version = _quiz_id(data), _quiz_version(data)
        if not author.admin:
            author.require_playable((await self._services.catalog.get(quiz_id, version)).owner_id)
        record = await self._services.directory.create(quiz_id, settings, version, author.user_id)
        session = await self._sessions.made(record)
        self._access.know(record.code)
        body = types.OpenedSession(
            session_id=record.id,
            code=record.code,
            quiz_id=record.quiz_id,
            quiz_version=record.quiz_version,
            host_token=self._services.tokens.issue(record.id, "host", None),
            ws_url=ws_url(self._services, session),
            play_url=play_url(self._services, session),
        )
        return json_answer(body, 201, {"Location": f"/api/sessions/{record.code}"})

    def _refuse_over_already(self, settings: Settings) -> None:
        open_from, open_ms = settings.open_from, settings.open_ms
        if open_from is None or open_ms is None:
            return
        if open_from + open_ms <= self._services.clock.now_ms():
            raise ApiError("bad_field", "The session would be over before it began.", "open_ms")

    async def take_over(self, key: str) -> Answer:
        """A new host token. Older tokens become invalid, and a connected host is closed with `replaced`."""
        author = self._access.require_author()
        read_query(NoQuery)
        session = await self._sessions.live(key)
        await self._sessions.require_own(author, session.session_id)
        taken = await ask(session, TakeOver)
        body = types.FreshHostToken(
            session_id=session.session_id,
            code=session.code,
            host_token=str(taken.message["token"]),
            ws_url=ws_url(self._services, session),
        )
        return json_answer(body, 201)

    async def list(self) -> Answer:
        author = self._access.require_author()
        query = read_query(SessionListQuery)
        after = behind(query.cursor, tuple[Moment, str])
        if after is not None and not is_id(after[1]):
            raise ApiError("bad_field", "cursor is `next` of the page before.", "cursor")
        owners, title = author.owners_of_sessions(query.owner), search_text(query.title)
        found = await self._services.store.page(query.limit + 1, after, owners, title)
        page, following = one_page(found, query.limit, lambda last: (last.created_at, last.id))
        summaries = [convert(each, types.SessionSummary, from_attributes=True) for each in page]
        return json_answer(types.SessionList(summaries, following))

    async def get(self, key: str) -> Answer:
        """`types.Session`, as a spectator sees it. Once the session is over, only its participants see the
        standing."""
        read_query(NoQuery)
        found = await self._sessions.live_or_over(key)
        look = await self._sessions.look(found, Look)
        if isinstance(look, SessionRecord):
            state = await self._final_results.state(look)
            if not await self._sessions.may_see_end(look):
                state = without_standing(state)
            return json_answer(self._public(look, None) | {"epoch": None, "offset": None, "state": state})
        assert not isinstance(found, SessionRecord), "that would have been the look"
        seen = {name: look.message[name] for name in ("epoch", "offset", "state")}
        if look.message["phase"] == Phase.FINISHED and not await self._sessions.may_see_end(found.record):
            seen["state"] = without_standing(cast(Message, seen["state"]))
        return json_answer(self._public(found.record, found) | seen)

    def _public(self, record: SessionRecord, session: LiveSession | None) -> dict[str, object]:
        return {
            "session_id": record.id,
            "code": record.code,
            "quiz_id": record.quiz_id,
            "quiz_version": record.quiz_version,
            "settings": record.settings.to_dict(),
            "created_at": record.created_at,
            "join_url": join_url(self._services, record.code),
            "ws_url": ws_url(self._services, session),
            "play_url": play_url(self._services, session),
        }


def _quiz_id(data: dict[str, object]) -> str:
    quiz_id = data["quiz_id"]
    if not isinstance(quiz_id, str):
        raise ApiError("bad_field", "quiz_id is text.", "quiz_id")
    if not may_be_quiz_id(quiz_id):
        raise QuizNotFound(quiz_id)
    return quiz_id


def _quiz_version(data: dict[str, object]) -> int | None:
    version = data.get("quiz_version")
    if version is None:
        return None
    # bool is a subclass of int, hence the type itself.
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise ApiError("bad_field", "quiz_version is a whole number from 1.", "quiz_version")
    return version
