"""The final standing, to read and to take away."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import orjson
import trio

from engine.actors import messages
from engine.actors.commands import Look
from engine.actors.delivery.frame import Message
from engine.domain.session import Phase
from engine.domain.settings import Settings
from engine.ports import RESULTS_PER_SLICE, PlayerResult, SessionRecord
from server.http.authorization import Access
from server.http.final_results import FinalResults
from server.http.requests import read_query
from server.http.responses import Answer, parts_answer, when_over
from server.http.services import Services
from server.http.sessions import Sessions, bounded_wait
from server.wire.api.queries import CsvQuery, ResultsQuery
from server.wire.errors import ApiError

COLUMNS = ("rank", "player", "name", "score", "correct", "answered", "elapsed_ms")
BOM = "\ufeff"
"""Without it spreadsheets take UTF-8 for what their system had before."""

_FORMULA = re.compile(r"(^|[\t\r\n,;|\"']\s*)(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a cell would begin with what makes a spreadsheet calculate; the last four are wide forms.

A cell begins with the name. For a spreadsheet that splits at another separator than the comma, as those do
where the comma stands in numbers, cells begin also within it. A quote may begin one as well.
"""

LARGE_MAX = 4
"""Large results that are being made or sent at one time: each is in memory, as bytes, until it is sent."""

MAKING_MAX_S = 60.0
"""For a large one to be made, once it is its turn, on a node that has much else to do."""

SENDING_MAX_S = 120.0
"""For a large one to be sent; a connection that needs longer is cut."""


class Results:
    """The results. For the host and for authors; once the session is over also for its participants, and with
    `results_public` for all."""

    def __init__(
        self, services: Services, access: Access, sessions: Sessions, final_results: FinalResults
    ) -> None:
        self._services = services
        self._access = access
        self._sessions = sessions
        self._final_results = final_results
        self._large = trio.CapacityLimiter(LARGE_MAX)
        self._making = trio.Lock()
        """Large ones are made one after the other: two at a time cost everybody else twice as much."""

    async def show(self, key: str) -> Answer:
        return await self._answer(*await self._readable(key, read_query(ResultsQuery).token), JsonRows, {})

    async def json_file(self, key: str) -> Answer:
        record, up_to = await self._readable(key, read_query(ResultsQuery).token)
        return await self._answer(record, up_to, JsonRows, _download(record.code, "json"))

    async def csv_file(self, key: str) -> Answer:
        query = read_query(CsvQuery)
        record, up_to = await self._readable(key, query.token)
        kind = partial(CsvRows, bom=query.bom)
        return await self._answer(record, up_to, kind, _download(record.code, "csv"))

    async def _answer(
        self,
        record: SessionRecord,
        up_to: int | None,
        kind: Callable[[SessionRecord, Sequence[int]], JsonRows | CsvRows],
        headers: dict[str, str],
    ) -> Answer:
        store, in_turn = self._services.store, self._final_results.in_turn
        rows = kind(record, await in_turn(lambda: store.skipped(record.id)))
        _, total = await in_turn(lambda: store.first_results(record.id, 0))
        large = total > RESULTS_PER_SLICE
        if large:
            with bounded_wait():
                await self._large.acquire_on_behalf_of(rows)
            when_over(partial(self._large.release_on_behalf_of, rows))
            with bounded_wait():
                await self._making.acquire()
            try:
                await in_turn(lambda: store.results(record.id, rows.take, up_to), MAKING_MAX_S)
            finally:
                self._making.release()
        else:
            await in_turn(lambda: store.results(record.id, rows.take, up_to))
        answer = parts_answer(rows.parts(), rows.content_type, headers)
        if large:
            answer.timeout = SENDING_MAX_S
        return answer

    async def _readable(self, key: str, token: str | None) -> tuple[SessionRecord, int | None]:
        """The session as stored, and the last question whose answers may be shown if that is not every
        question. Raises ApiError if the asker may not see its results, or not yet.

        Args:
            token: from the query, the only place where a page that offers a file can put it.
        """
        found = await self._sessions.live_or_over(key)
        look = await self._sessions.look(found, Look)
        if isinstance(look, SessionRecord):
            await self._sessions.refuse_outsiders(look, token)
            return look, None
        assert not isinstance(found, SessionRecord), "that would have been the look"
        if look.message["phase"] == Phase.FINISHED:
            await self._sessions.refuse_outsiders(found.record, token)
        elif token is None and self._access.shows_identity():
            raise _not_yet()
        elif token is None and (author := self._access.author()) is not None:
            await self._sessions.require_readable(author, found.session_id)
        else:
            grant = self._access.grant(token)
            if grant.role != "host":
                raise _not_yet()
            if grant.session_id != found.session_id:
                self._access.refuse_foreign_token()
            await self._sessions.refuse_replaced(grant)
        record = await self._services.store.find(found.session_id)
        if record.finished_at is not None or _shows_every_answer(record.settings):
            return record, None
        # As of this look: what is answered from then on, and stored before the results are read, is left out.
        return record, messages.shown_number(cast(Message, look.message["state"]))


def _not_yet() -> ApiError:
    return ApiError("not_host", "Until the session is over its results are for the host.")


def _shows_every_answer(settings: Settings) -> bool:
    """Whether each answer shows in the standing while the session runs."""
    return settings.reveal == "each" if settings.pace == "self" else settings.board == "live"


class JsonRows:
    """The results of a session as JSON, made slice by slice."""

    content_type = "application/json"

    def __init__(self, record: SessionRecord, skipped: Sequence[int]) -> None:
        # The end is the last fact of a session: if it was stored before the results are read, they are all.
        head = orjson.dumps(
            {
                "session_id": record.id,
                "code": record.code,
                "final": record.finished_at is not None,
                "skipped": skipped,
                "players": [],
            }
        )
        self._parts = [head.removesuffix(b"]}")]

    def take(self, results: Sequence[PlayerResult]) -> None:
        rows = orjson.dumps(results)[1:-1]
        self._parts.append(rows if len(self._parts) == 1 else b"," + rows)

    def parts(self) -> Sequence[bytes]:
        return [*self._parts, b"]}"]


class CsvRows:
    """As `JsonRows`, RFC 4180 with a header line. What a spreadsheet would take for a formula gets an
    apostrophe in front, which spreadsheets hide at the beginning of a cell."""

    content_type = "text/csv; charset=utf-8; header=present"

    def __init__(self, record: SessionRecord, skipped: Sequence[int], *, bom: bool) -> None:  # noqa: ARG002 - as `JsonRows`
        self._parts = [BOM.encode()] if bom else []
        self._write([COLUMNS])

    def take(self, results: Sequence[PlayerResult]) -> None:
        self._write(
            (
                each.rank,
                each.player,
                _FORMULA.sub(r"\1'", each.name),
                each.score,
                each.correct,
                each.answered,
                each.elapsed_ms,
            )
            for each in results
        )

    def parts(self) -> Sequence[bytes]:
        return self._parts

    def _write(self, rows: Iterable[Sequence[object]]) -> None:
        out = io.StringIO(newline="")
        csv.writer(out).writerows(rows)
        self._parts.append(out.getvalue().encode())


def _download(code: object, kind: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="fanfare-{code}.{kind}"'}
