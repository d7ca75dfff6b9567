"""Sessions in Postgres: creation, ownership, recovery, results."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence

from engine.domain.errors import DomainError
from engine.domain.facts import Fact, of_one_clock
from engine.domain.session import Settings
from engine.domain.session_keys import is_code, is_id
from engine.ports import (
    ClaimedSession,
    CodeTaken,
    OwnedElsewhere,
    Owner,
    Owners,
    PlayerNotFound,
    PlayerResult,
    QuizCatalog,
    QuizNotFound,
    Seat,
    SessionNotFound,
    SessionRecord,
    SessionSummary,
    Unreadable,
)
from engine.storage import results
from engine.storage.erasing import delete_session, erase_player
from engine.storage.journal.retained import Retained, put_aside
from engine.storage.journal.rows import READ_FACTS, fact_of
from engine.storage.listing import sessions_page
from engine.storage.postgres import Connection, Database, Row, UniqueViolation

_log = logging.getLogger(__name__)

_FACTS_PER_FETCH = 500
"""Turned into facts without a pause in between: about 2 ms."""

_LAST_FACTS = 100

_PASSED_OVER_MAX = 1_000


class PostgresSessionStore:
    """Port `SessionStore`. The quiz of a claimed session comes from `catalog`; `retained` hears of what is
    stored."""

    def __init__(self, database: Database, catalog: QuizCatalog, retained: Retained | None = None) -> None:
        self._retained = retained
        self._database = database
        self._catalog = catalog
        self._passed_over: set[str] = set()
        """Sessions of which the log has said that they cannot be read."""

    async def create(self, record: SessionRecord) -> None:
        quiz = await self._catalog.get(record.quiz_id, record.quiz_version)
        try:
            made = await self._database.fetchrow(
                _CREATE,
                record.id,
                record.code,
                record.quiz_id,
                record.quiz_version,
                json.dumps(record.settings.to_dict()),
                record.created_at,
                record.owner_id,
            )
        except UniqueViolation:
            raise CodeTaken(record.code) from None
        if made is None and not await self._database.fetch("SELECT FROM sessions WHERE id = $1", record.id):
            raise QuizNotFound(f"{record.quiz_id}, version {record.quiz_version}")
        if self._retained is not None:
            self._retained.created(record, quiz)

    async def find(self, key: str) -> SessionRecord:
        row = None
        if is_code(key):
            # An id names the partition that it lies in; of a code alone, all have to be asked.
            live = await self._database.fetchrow("SELECT session_id FROM live_codes WHERE code = $1", key)
            if live is not None:
                row = await self._database.fetchrow(f"{SELECT} WHERE id = $1", live["session_id"])
            if row is None:
                row = await self._database.fetchrow(_FIND_CODE, key)
        elif is_id(key):
            row = await self._database.fetchrow(f"{SELECT} WHERE id = $1", key)
        if row is None:
            raise SessionNotFound(key)
        return record_of(row)

    async def claim(
        self, session_id: str, owner: str, gone: Callable[[str], bool] | None = None
    ) -> ClaimedSession:
        if not is_id(session_id):
            raise SessionNotFound(session_id)

        # A long history is read before the claim: while the row is locked, every commit with a fact of this
        # session waits. Facts are committed in the order of seq, so the claim adds only the last of them.
        facts = await self._facts(session_id)

        async def take(connection: Connection) -> tuple[Row, list[Fact]]:
            if gone is not None:
                await _allow(connection, session_id, owner, gone)
            row = await connection.fetchrow(_CLAIM, session_id, owner)
            if row is None:
                raise SessionNotFound(session_id)
            record_of(row)  # what cannot be read is not taken
            rest = await connection.fetch(READ_FACTS, session_id, facts[-1].seq if facts else 0)
            found = [*facts, *map(fact_of, rest)]
            if found and found[-1].seq != len(found):
                if row["finished_at"] is not None:
                    # How it came out is in the tables. To bring it to life takes every fact.
                    raise Unreadable(f"session {session_id} is over, and the database has lost facts of it")
                found = await _up_to_the_hole(connection, session_id, row["epoch"] - 1, owner)
            return row, found

        row, facts = await self._database.in_transaction(take)
        record = record_of(row)
        stored = await self._catalog.get(record.quiz_id, record.quiz_version)
        if self._retained is not None:
            self._retained.claimed(record, stored, row["epoch"], owner, facts)
        last_alive_at = None if row["rested"] else _last_alive_at(row, facts)
        return ClaimedSession(record, stored.quiz, row["epoch"], facts, last_alive_at)

    async def _facts(self, session_id: str) -> list[Fact]:
        async def read(connection: Connection) -> list[Fact]:
            facts: list[Fact] = []
            cursor = await connection.cursor(READ_FACTS, session_id, 0)
            while rows := await cursor.fetch(_FACTS_PER_FETCH):
                facts += map(fact_of, rows)
            return facts

        return await self._database.in_transaction(read)

    async def grant(self, session_id: str, epoch: int, owner: str, to: str | None) -> bool:
        if not is_id(session_id):
            return False
        granted = await self._database.fetchrow(_GRANT, session_id, epoch, owner, to) is not None
        if granted and self._retained is not None:
            self._retained.granted(session_id, owner, to)
        return granted

    async def orphans(self, live: Collection[str]) -> Sequence[SessionRecord]:
        rows = await self._database.fetch(_ORPHANS, list(live))
        return self._readable(rows)

    async def owned_by(self, owner: str) -> Sequence[str]:
        return [str(row["id"]) for row in await self._database.fetch(_OWNED, owner)]

    async def unfinished(self) -> Sequence[SessionRecord]:
        rows = await self._database.fetch(_UNFINISHED)
        return self._readable(rows)

    async def overdue(self, now: int, created_by: int) -> Sequence[SessionRecord]:
        return self._readable(await self._database.fetch(_OVERDUE, now, created_by))

    async def ended_since(self, at: int) -> Sequence[SessionRecord]:
        rows = await self._database.fetch(_ENDED, at, at - _DAY_MS)
        return self._readable(rows)

    def _readable(self, rows: Sequence[Row]) -> list[SessionRecord]:
        records = []
        for row in rows:
            try:
                records.append(record_of(row))
            except Unreadable as error:
                self._pass_over(str(row["id"]), error)
        return records

    def _pass_over(self, session_id: str, error: Unreadable) -> None:
        if session_id not in self._passed_over:
            if len(self._passed_over) >= _PASSED_OVER_MAX:
                self._passed_over.clear()
            self._passed_over.add(session_id)
            _log.warning("a session is passed over: %s", error)

    async def page(
        self,
        limit: int,
        after: tuple[int, str] | None = None,
        owners: Owners = None,
        title: str | None = None,
    ) -> Sequence[SessionSummary]:
        rows = await sessions_page(self._database, limit, after, owners, title)
        return [
            SessionSummary(
                str(row["id"]),
                row["code"],
                row["quiz_id"],
                row["title"],
                row["players"],
                row["created_at"],
                row["finished_at"],
                row["owner_id"],
            )
            for row in rows
        ]

    async def results(
        self,
        session_id: str,
        take: Callable[[Sequence[PlayerResult]], None],
        up_to: int | None = None,
    ) -> None:
        if not is_id(session_id):
            raise SessionNotFound(session_id)
        if not await results.read_results(self._database, session_id, take, up_to):
            await self.find(session_id)

    async def first_results(self, session_id: str, count: int) -> tuple[Sequence[PlayerResult], int]:
        total = await self._players_in(session_id)
        if not (total and count):
            return [], total
        return await results.first_results(self._database, session_id, count), total

    async def host_generation(self, session_id: str) -> int:
        if not is_id(session_id):
            return 0
        row = await self._database.fetchrow(_HOST_GENERATION, session_id)
        return 0 if row is None else int(row["times"])

    async def skipped(self, session_id: str) -> Sequence[int]:
        if not is_id(session_id):
            return []
        rows = await self._database.fetch(_SKIPPED, session_id)
        return [row["question"] for row in rows]

    async def results_around(self, session_id: str, player: int, reach: int) -> Sequence[PlayerResult]:
        if not is_id(session_id):
            return []
        return await results.results_around(self._database, session_id, player, reach)

    async def results_by_player(
        self, session_id: str, after: int, limit: int
    ) -> tuple[Sequence[PlayerResult], int]:
        total = await self._players_in(session_id)
        if not (total and limit):
            return [], total
        return await results.results_by_player(self._database, session_id, after, limit), total

    async def _players_in(self, session_id: str) -> int:
        """Raises SessionNotFound."""
        if not is_id(session_id):
            raise SessionNotFound(session_id)
        total = await results.players_in(self._database, session_id)
        if not total:
            await self.find(session_id)
        return total

    async def seat(self, session_id: str, player: int) -> Seat:
        row = await self._database.fetchrow(_SEAT, session_id, player) if is_id(session_id) else None
        if row is None:
            return Seat.NOBODYS
        return Seat.REMOVED if row["removed"] else Seat.TAKEN

    async def seat_of_user(self, session_id: str, user_id: str) -> int | None:
        if not is_id(session_id):
            return None
        row = await self._database.fetchrow(_SEAT_OF_USER, session_id, user_id)
        return None if row is None else int(row["player"])

    async def erase_player(self, session_id: str, player: int) -> None:
        if not is_id(session_id):
            raise PlayerNotFound(player)
        await self._database.in_transaction(lambda connection: erase_player(connection, session_id, player))

    async def delete(self, session_id: str) -> None:
        if not is_id(session_id):
            raise SessionNotFound(session_id)
        await self._database.in_transaction(lambda connection: delete_session(connection, session_id))
        if self._retained is not None:
            self._retained.forget(session_id)

    async def progress(self, session_id: str) -> int:
        if not is_id(session_id):
            return 0
        row = await self._database.fetchrow(
            "SELECT count(*) AS opened FROM session_changes WHERE session_id = $1 AND kind = 'opened'",
            session_id,
        )
        return 0 if row is None else int(row["opened"])


async def _allow(connection: Connection, session_id: str, owner: str, gone: Callable[[str], bool]) -> None:
    """Lock the session, and raise OwnedElsewhere if another run may still be running it.

    That run cannot renew its lease from the look at it until the end of the transaction. So when `gone` is
    asked, the lease is over and stays so: there is one moment at which both rights were gone.
    """
    row = await connection.fetchrow(_LOCK, session_id)
    if row is None:
        raise SessionNotFound(session_id)
    previous = row["owner"]
    if previous is None or previous == owner:
        return
    lease = await connection.fetchrow(_LEASE, previous)
    if (lease is not None and lease["holds"]) or not gone(previous):
        raise OwnedElsewhere(session_id, previous)


async def _up_to_the_hole(connection: Connection, session_id: str, epoch: int, owner: str) -> list[Fact]:
    """The facts before the first that is missing, of a session that was just claimed.

    The database has lost commits, and nobody had the facts any more. What lies behind cannot be replayed, but
    was acknowledged: it is put aside, to be merged, and leaves its place to what happens from now on.
    """
    facts = [fact_of(row) for row in await connection.fetch(READ_FACTS, session_id, 0)]
    whole = next((at for at, fact in enumerate(facts) if fact.seq != at + 1), len(facts))
    behind = facts[whole:]
    if behind:
        _log.error(
            "session %s lacks the facts %d to %d: the database has lost them. It goes on from there; the %d "
            "facts behind are put aside to be merged",
            session_id,
            whole + 1,
            behind[0].seq - 1,
            len(behind),
        )
        await put_aside(connection, session_id, epoch, behind, owner)
        for table in ("players", "answers", "merged_answers", "session_changes"):
            beyond = f"DELETE FROM {table} WHERE session_id = $1 AND seq > $2"
            await connection.execute(beyond, session_id, whole)
    return facts[:whole]


def record_of(row: Row) -> SessionRecord:
    """Raises Unreadable."""
    try:
        settings = Settings.stored(json.loads(row["settings"]))
    except DomainError as error:
        raise Unreadable(f"session {row['id']}, settings: {error}") from None
    return SessionRecord(
        id=str(row["id"]),
        code=row["code"],
        quiz_id=row["quiz_id"],
        quiz_version=row["quiz_version"],
        settings=settings,
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        owner=None if row["owner"] is None else Owner(row["owner"], row["address"], row["holds"]),
        owner_id=row["owner_id"],
    )


def _last_alive_at(row: Row, facts: Sequence[Fact]) -> int | None:
    """Signs of life are written twice a second at best: the last facts may be younger."""
    signs: list[int] = [] if row["alive_at"] is None else [row["alive_at"]]
    # Answers are dated by their arrival, and may be applied a little out of that order.
    signs += [fact.at for fact in of_one_clock(facts[-_LAST_FACTS:])]
    return max(signs, default=None)


_COLUMNS = """id, code, quiz_id, quiz_version, settings::text AS settings,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_at,
       (extract(epoch FROM finished_at) * 1000)::bigint AS finished_at,
       owner_id, owner, address, coalesce(lease_until > clock_timestamp(), false) AS holds"""

SELECT = f"SELECT {_COLUMNS} FROM sessions LEFT JOIN nodes ON node = owner"

_FIND_CODE = f"{SELECT} WHERE code = $1 ORDER BY created_at DESC LIMIT 1"

_UNFINISHED = f"""
{SELECT} WHERE id IN (SELECT session_id FROM live_codes) AND finished_at IS NULL
ORDER BY sessions.created_at, id
"""

# Settings are what is stored: numbers in them may be of any size, or no numbers. A mistake in one row must
# keep no other from being found.
_OVERDUE = f"""
{SELECT} WHERE id IN (SELECT session_id FROM live_codes) AND finished_at IS NULL AND CASE settings ->> 'pace'
    WHEN 'self' THEN coalesce(
        (SELECT c.by_ms FROM session_changes c WHERE c.session_id = sessions.id AND c.kind = 'deadline'
         ORDER BY c.seq DESC LIMIT 1),
        CASE WHEN jsonb_typeof(settings -> 'open_ms') = 'number'
            AND coalesce(jsonb_typeof(settings -> 'open_from'), 'null') IN ('number', 'null')
        THEN coalesce((settings ->> 'open_from')::numeric, extract(epoch FROM created_at) * 1000)
            + (settings ->> 'open_ms')::numeric END) <= $1::bigint
    ELSE created_at <= 'epoch'::timestamptz + $2::float8 * interval '1 ms' END
ORDER BY sessions.created_at, id
"""

_DAY_MS = 86_400_000

# By the time of creation there is an index; few sessions live for long.
_ENDED = f"""
{SELECT}
WHERE finished_at >= 'epoch'::timestamptz + $1::float8 * interval '1 ms'
  AND created_at >= 'epoch'::timestamptz + $2::float8 * interval '1 ms'
ORDER BY sessions.created_at, id
"""

_CREATE = """
INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at, owner_id)
SELECT $1, $2, $3, $4, $5, 'epoch'::timestamptz + $6::float8 * interval '1 ms', $7
FROM (SELECT FROM quizzes WHERE id = $3 AND version = $4 AND deleted_at IS NULL FOR KEY SHARE) AS quiz
ON CONFLICT (id) DO NOTHING
RETURNING id
"""

# A commit under the old epoch holds the row until its facts are in; after this statement none can succeed.
_CLAIM = f"""
WITH before AS (
    SELECT id, owner, granted_by FROM sessions WHERE id = $1 FOR UPDATE
), taken AS (
    UPDATE sessions SET epoch = epoch + 1, owner = $2, granted_by = NULL FROM before
    WHERE sessions.id = before.id AND sessions.id = $1
    RETURNING sessions.*, before.owner AS previous_owner, before.granted_by AS granted_before
)
SELECT {_COLUMNS}, epoch,
       (SELECT (extract(epoch FROM alive_at) * 1000)::bigint
        FROM nodes WHERE node = previous_owner) AS alive_at,
       previous_owner IS NULL OR previous_owner = owner AND granted_before IS NOT NULL AS rested
FROM taken LEFT JOIN nodes ON node = owner
"""

_LOCK = "SELECT owner FROM sessions WHERE id = $1 FOR UPDATE"

_LEASE = "SELECT lease_until > clock_timestamp() AS holds FROM nodes WHERE node = $1 FOR SHARE"

# Said again after its answer was lost, it finds its own work done.
_GRANT = """
UPDATE sessions SET owner = $4, granted_by = $3
WHERE id = $1 AND epoch = $2 AND (owner = $3 OR granted_by = $3 AND owner IS NOT DISTINCT FROM $4)
RETURNING id
"""

_ORPHANS = f"""
{SELECT} WHERE finished_at IS NULL AND owner IS NOT NULL AND owner <> ALL ($1::text[])
ORDER BY sessions.created_at, id
"""

_OWNED = "SELECT id FROM sessions WHERE owner = $1 AND finished_at IS NULL ORDER BY id"

_SEAT_OF_USER = "SELECT player FROM players WHERE session_id = $1 AND user_id = $2 LIMIT 1"

_SEAT = """
SELECT EXISTS (
    SELECT FROM removed_players k WHERE k.session_id = p.session_id AND k.player = p.player) AS removed
FROM players p WHERE p.session_id = $1 AND p.player = $2 AND p.erased_at IS NULL
"""

_HOST_GENERATION = """
SELECT count(*) AS times FROM session_changes WHERE session_id = $1 AND kind = 'host_replaced'
"""

_SKIPPED = """
SELECT question FROM session_changes WHERE session_id = $1 AND kind = 'skipped' ORDER BY question
"""
