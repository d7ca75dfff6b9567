"""The final standing, to read and to take away."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from engine.actors.commands import Look
from engine.domain.session import Phase
from engine.ports import PlayerResult, SessionRecord
from server.errors import ApiError
from server.http.access import Access
from server.http.answers import Answer, body_answer, json_answer
from server.http.reading import read_query
from server.http.services import Services
from server.http.sessions import Sessions

COLUMNS = ("rank", "player", "name", "score", "correct", "answered", "elapsed_ms")
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet calculate; the last four are the wide forms of the first."""


class Results:
    """Open to all once the session is over; before that for its host and for authors."""

    def __init__(self, services: Services, access: Access, sessions: Sessions) -> None:
        self._services = services
        self._access = access
        self._sessions = sessions

    async def show(self, key: str) -> Answer:
        return json_answer(await self._document(key))

    async def json_file(self, key: str) -> Answer:
        document = await self._document(key)
        return json_answer(document, headers=_download(document["code"], "json"))

    async def csv_file(self, key: str) -> Answer:
        record = await self._readable(key)
        body = as_csv(await self._services.store.results(record.id))
        headers = _download(record.code, "csv")
        return body_answer(body.encode(), "text/csv; charset=utf-8; header=present", headers=headers)

    async def _document(self, key: str) -> dict[str, object]:
        record = await self._readable(key)
        # The end is the last fact of a session: if it was stored before the results are read, they are all.
        final = record.finished_at is not None
        results = await self._services.store.results(record.id)
        return {
            "session_id": record.id,
            "code": record.code,
            "final": final,
            "players": results,
        }

    async def _readable(self, key: str) -> SessionRecord:
        """The session as stored. Raises ApiError if the asker may not see its results yet."""
        read_query()
        found = await self._sessions.live_or_over(key)
        look = await self._sessions.look(found, Look)
        if isinstance(look, SessionRecord):
            return look
        assert not isinstance(found, SessionRecord), "that would have been the look"
        phase = look.message["phase"]
        if phase != Phase.FINISHED and not self._access.is_author():
            grant = self._access.grant()
            if grant.role != "host":
                raise ApiError("not_host", "Until the session is over its results are for the host.")
            if grant.session_id != found.session_id:
                self._access.refuse_foreign_token()
        return await self._services.store.find(found.session_id)


def as_csv(results: Sequence[PlayerResult]) -> str:
    """RFC 4180 with a header line. A name that a spreadsheet would take for a formula gets an apostrophe in
    front, which spreadsheets hide."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for result in results:
        name = f"'{result.name}" if result.name.startswith(FORMULA_SIGNS) else result.name
        writer.writerow(
            (
                result.rank,
                result.player,
                name,
                result.score,
                result.correct,
                result.answered,
                result.elapsed_ms,
            )
        )
    return out.getvalue()


def _download(code: object, kind: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="fanfare-{code}.{kind}"'}
