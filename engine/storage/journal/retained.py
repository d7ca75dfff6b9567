"""What PostgreSQL has confirmed lately, kept in memory in case it comes back without it.

A standby that was promoted before it had everything, or a disk that lied, has lost the last commits: always
the last, because commits are lost in the order of the server's log. The loss has to be noticed before
anything is committed on top of it. A server cannot lose commits without losing its connections, so this
node looks at every new connection before its first statement. If the newest facts that are kept are there,
all are there. If not, this node writes again what is missing of each session, in order, under the epoch
that it had: its row, its claim, its facts. Rows that are there already stay as they are.

A session that another node has claimed meanwhile belongs to that node. The missing facts of it were
acknowledged all the same: they are put aside for that node to merge, like facts that come from a spool too
late.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import orjson

from engine.domain import facts as f
from engine.ports import SessionRecord, StoredQuiz
from engine.storage.journal.rows import READ_FACTS, FactRows, fact_of
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.postgres import Connection, UniqueViolation
from engine.storage.spool.codec import encode_facts

_log = logging.getLogger(__name__)

_NEWEST = 50
"""Sessions that are looked for first. Two commits may be confirmed in another order than that of the server's
log, but not many."""

_PER_LOOK = 500
_PER_WRITE = 500
_PER_CLAIM = 500
"""Facts that are kept of those that a claim has read. Another node may just have confirmed them."""

_MISSING_MAX_AGE_MS = 86_400_000
"""Retention never drops a younger session. So an older session that is not there was dropped, and is not
lost. A deleted session is remembered for longer than this (`erasing`)."""


@dataclass(frozen=True, slots=True)
class RetainedStatistics:
    """Since the start.

    Attributes:
        losses_total: times that the database was found to have lost what it had confirmed.
        written_again_total: facts that were missing and are there again.
        put_aside_total: facts that were missing and wait to be merged, because their session is another's.
        lost_total: facts that were missing and no longer kept.
    """

    losses_total: int = 0
    written_again_total: int = 0
    put_aside_total: int = 0
    lost_total: int = 0


@dataclass(slots=True)
class _Deed:
    """A session as this node has last written its row, and the last fact that was confirmed of it."""

    record: SessionRecord
    quiz: StoredQuiz
    epoch: int
    owner: str | None
    granted_by: str | None
    last: f.Fact | None


class _KeptFacts:
    """The newest facts, at most `facts_max`, in the parts in which they came. What is asked about a session
    costs what is kept of that session, however many others there are."""

    def __init__(self, facts_max: int) -> None:
        self._facts_max = facts_max
        self._facts = 0
        self._numbers = count()
        self._parts: OrderedDict[int, tuple[str, Sequence[f.Fact]]] = OrderedDict()
        self._parts_of: dict[str, deque[int]] = {}

    def append(self, session_id: str, facts: Sequence[f.Fact]) -> None:
        """Keep a part, and forget the oldest parts beyond the bound."""
        number = next(self._numbers)
        self._parts[number] = session_id, facts
        self._parts_of.setdefault(session_id, deque()).append(number)
        self._facts += len(facts)
        while self._facts > self._facts_max:
            _, (oldest, part) = self._parts.popitem(last=False)
            self._facts -= len(part)
            numbers = self._parts_of[oldest]
            numbers.popleft()
            if not numbers:
                del self._parts_of[oldest]

    def of(self, session_id: str) -> Iterator[f.Fact]:
        """All facts of a session, in the order in which they came."""
        for number in self._parts_of.get(session_id, ()):
            yield from self._parts[number][1]

    def forget(self, session_id: str) -> None:
        for number in self._parts_of.pop(session_id, ()):
            self._facts -= len(self._parts.pop(number)[1])


class Retained:
    """Args:
    node: the node that puts facts aside, as `spooled_facts` names it.
    facts_max: facts kept; the oldest are forgotten.
    sessions_max: sessions kept; the sessions without a confirmed fact for longest are forgotten.
    """

    def __init__(
        self, *, node: str, now_ms: Callable[[], int], facts_max: int = 50_000, sessions_max: int = 20_000
    ) -> None:
        self._node = node
        self._now_ms = now_ms
        self._sessions_max = sessions_max
        self._deeds: OrderedDict[str, _Deed] = OrderedDict()
        self._facts = _KeptFacts(facts_max)
        self._statistics = RetainedStatistics()
        self._looking = asyncio.Lock()

    def statistics(self) -> RetainedStatistics:
        return self._statistics

    # -- what was confirmed ----------------------------------------------------------------------

    def created(self, record: SessionRecord, quiz: StoredQuiz) -> None:
        """A new session is stored. It was nobody's then."""
        if record.id not in self._deeds:
            self._keep(_Deed(record, quiz, 0, None, None, None))

    def claimed(
        self, record: SessionRecord, quiz: StoredQuiz, epoch: int, owner: str, facts: Sequence[f.Fact]
    ) -> None:
        """The session was claimed, and these facts were found in it."""
        self._keep(_Deed(record, quiz, epoch, owner, None, facts[-1] if facts else None))
        kept = {fact.seq for fact in self._facts.of(record.id)}
        if new := [fact for fact in facts[-_PER_CLAIM:] if fact.seq not in kept]:
            self._facts.append(record.id, new)

    def granted(self, session_id: str, by: str, to: str | None) -> None:
        """The session was handed on."""
        if (deed := self._deeds.get(session_id)) is not None and deed.owner == by:
            deed.owner, deed.granted_by = to, by

    def stored(self, session_id: str, facts: Sequence[f.Fact]) -> None:
        """These facts are stored. Kept only if the session was claimed here."""
        deed = self._deeds.get(session_id)
        if deed is not None:
            deed.last = facts[-1]
            self._deeds.move_to_end(session_id)
            self._facts.append(session_id, facts)

    def forget(self, session_id: str) -> None:
        """The session is to be no more."""
        self._deeds.pop(session_id, None)
        self._facts.forget(session_id)

    def _keep(self, deed: _Deed) -> None:
        self._deeds.pop(deed.record.id, None)
        while len(self._deeds) >= self._sessions_max:
            self._deeds.popitem(last=False)
        self._deeds[deed.record.id] = deed

    def _kept(self, session_id: str) -> list[f.Fact]:
        """In the order of `seq`, and without a gap."""
        found = {fact.seq: fact for fact in self._facts.of(session_id)}
        kept: list[f.Fact] = []
        for seq in sorted(found, reverse=True):
            if kept and seq != kept[-1].seq - 1:
                break
            kept.append(found[seq])
        return kept[::-1]

    # -- whether it is still there ---------------------------------------------------------------

    async def look(self, connection: Connection) -> None:
        """Look whether all that is kept is there, over a connection that nothing was said on yet, and write
        again what is not. May be cancelled at any point, and looked again. One at a time: all connections
        come back together, and would write the same again, each waiting for the rows of the others."""
        async with self._looking:
            await self._look(connection)

    async def _look(self, connection: Connection) -> None:
        deeds = list(self._deeds.values())
        if not await self._missing(connection, deeds[-_NEWEST:]):
            return
        before, sessions = self._statistics, 0
        for start in range(0, len(deeds), _PER_LOOK):
            for deed in await self._missing(connection, deeds[start : start + _PER_LOOK]):
                sessions += await self._restore(connection, deed)
        if not sessions:
            return
        self._count(losses=1)
        now = self._statistics
        _log.error(
            "PostgreSQL has come back without the last of what it had confirmed. Of %d sessions something "
            "was missing: %d facts are written again, %d are put aside for others to merge, %d are lost",
            sessions,
            now.written_again_total - before.written_again_total,
            now.put_aside_total - before.put_aside_total,
            now.lost_total - before.lost_total,
        )

    async def _missing(self, connection: Connection, deeds: Sequence[_Deed]) -> list[_Deed]:
        """Those of which the row or the last fact is not there as it was confirmed."""
        if not deeds:
            return []
        columns = zip(*(_as_row(deed) for deed in deeds), strict=True)
        return [deeds[row["n"] - 1] for row in await connection.fetch(_MISSING, *map(list, columns))]

    async def _restore(self, connection: Connection, deed: _Deed) -> bool:
        """All or nothing of one session. False if nothing was missing that should be there."""
        await connection.execute("BEGIN")
        try:
            was_missing = await self._restore_here(connection, deed)
        except UniqueViolation:
            await connection.execute("ROLLBACK")
            _log.error("session %s is lost: another has its code", deed.record.id)
            self._count(lost=len(self._kept(deed.record.id)))
            self.forget(deed.record.id)
            return True
        await connection.execute("COMMIT")
        return was_missing

    async def _restore_here(self, connection: Connection, deed: _Deed) -> bool:
        record, kept = deed.record, self._kept(deed.record.id)
        row = await connection.fetchrow(_LOCK, record.id)
        if row is None:
            old = record.created_at < self._now_ms() - _MISSING_MAX_AGE_MS
            if old or await connection.fetch(_DELETED, record.id):
                self.forget(record.id)
                return False
            await connection.execute(_CREATE_QUIZ, *_quiz_row(deed.quiz))
            await connection.execute(_CREATE_SESSION, *_session_row(record))
            row = await connection.fetchrow(_LOCK, record.id)
        assert row is not None
        first = kept[0].seq if kept else 1 if deed.last is None else deed.last.seq + 1
        found = [fact_of(each) for each in await connection.fetch(READ_FACTS, record.id, first - 1)]
        there = {fact.seq for fact in found}
        missing = [fact for fact in kept if fact.seq not in there]
        if row["epoch"] < deed.epoch:
            # Facts that this node does not know were written by somebody who went on where they saw the end.
            theirs = found != kept[: len(found)]
        else:
            theirs = (row["epoch"], row["owner"]) != (deed.epoch, deed.owner)
        if theirs:
            await self._put_aside(connection, deed, missing)
            if self._deeds.get(record.id) is deed:
                del self._deeds[record.id]
            return bool(missing)
        await connection.execute(_OWN, record.id, deed.epoch, deed.owner, deed.granted_by)
        for start in range(0, len(missing), _PER_WRITE):
            batch = Batch()
            batch.add(record.id, deed.epoch, FactRows(missing[start : start + _PER_WRITE]))
            await connection.fetch(COMMIT, *batch.arguments(None))
        self._count(written_again=len(missing))
        if (lost := first - 1 - await connection.fetchval(_LAST_BEFORE, record.id, first)) > 0:
            self._count(lost=lost)
            _log.error("session %s has lost %d acknowledged facts before the fact %d", record.id, lost, first)
        return True

    async def _put_aside(self, connection: Connection, deed: _Deed, missing: Sequence[f.Fact]) -> None:
        if missing:
            _log.error(
                "session %s has another owner: %d facts of epoch %d are put aside for it",
                deed.record.id,
                len(missing),
                deed.epoch,
            )
        await put_aside(connection, deed.record.id, deed.epoch, missing, self._node)
        self._count(put_aside=len(missing))

    def _count(self, *, losses: int = 0, written_again: int = 0, put_aside: int = 0, lost: int = 0) -> None:
        now = self._statistics
        self._statistics = replace(
            now,
            losses_total=now.losses_total + losses,
            written_again_total=now.written_again_total + written_again,
            put_aside_total=now.put_aside_total + put_aside,
            lost_total=now.lost_total + lost,
        )


async def put_aside(
    connection: Connection, session_id: str, epoch: int, facts: Sequence[f.Fact], node: str
) -> None:
    """Keep acknowledged facts for the owner of their session to merge. Repeated, it changes nothing."""
    for start in range(0, len(facts), _PER_WRITE):
        part = facts[start : start + _PER_WRITE]
        data = orjson.dumps(encode_facts(part)).decode()
        await connection.execute(PUT_ASIDE, session_id, epoch, part[0].seq, len(part), node, data)


PUT_ASIDE = """
INSERT INTO spooled_facts (session_id, epoch, seq, count, node, facts, put_at)
SELECT $1, $2, $3, $4, $5, $6::jsonb, now() FROM sessions WHERE id = $1
ON CONFLICT DO NOTHING
"""
"""Of a session that was deleted nothing is kept."""


def _as_row(deed: _Deed) -> tuple[object, ...]:
    """What `_MISSING` is asked with."""
    kind: str | None = None
    player: int | None = None
    question: int | None = None
    seq = 0
    match deed.last:
        case f.PlayerJoined(seq=seq, player=player):
            kind = "joined"
        case f.AnswerAccepted(seq=seq, player=player, question=question):
            kind = "answered"
        case f.AnswerMerged(seq=seq):
            kind = "merged"
        case None:
            pass
        case fact:
            kind, seq = "changed", fact.seq
    return deed.record.id, deed.epoch, deed.owner, kind, player, question, seq


def _session_row(record: SessionRecord) -> tuple[object, ...]:
    settings = json.dumps(record.settings.to_dict())
    return (
        record.id,
        record.code,
        record.quiz_id,
        record.quiz_version,
        settings,
        record.created_at,
        record.owner_id,
    )


def _quiz_row(stored: StoredQuiz) -> tuple[object, ...]:
    quiz = stored.quiz
    definition = json.dumps(quiz.to_dict(), ensure_ascii=False)
    return (
        stored.id,
        stored.version,
        quiz.title,
        quiz.language,
        definition,
        stored.created_at,
        stored.owner_id,
    )


# What somebody else has claimed since, or was granted by a statement whose answer was lost, is not missing as
# long as the facts are there.
_MISSING = """
SELECT k.n
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::smallint[], $7::integer[])
     WITH ORDINALITY AS k (id, epoch, owner, kind, player, question, seq, n)
WHERE NOT EXISTS (
        SELECT FROM sessions s
        WHERE s.id = k.id
          AND (s.epoch > k.epoch
               OR s.epoch = k.epoch AND (s.owner IS NOT DISTINCT FROM k.owner OR s.granted_by = k.owner)))
   OR k.kind = 'joined' AND NOT EXISTS (
        SELECT FROM players p WHERE p.session_id = k.id AND p.player = k.player)
   OR k.kind = 'answered' AND NOT EXISTS (
        SELECT FROM answers a
        WHERE a.session_id = k.id AND a.question = k.question AND a.player = k.player)
   OR k.kind = 'merged' AND NOT EXISTS (
        SELECT FROM merged_answers m WHERE m.session_id = k.id AND m.seq = k.seq)
   OR k.kind = 'changed' AND NOT EXISTS (
        SELECT FROM session_changes c WHERE c.session_id = k.id AND c.seq = k.seq)
ORDER BY k.n
"""

_LOCK = "SELECT epoch, owner FROM sessions WHERE id = $1 FOR UPDATE"

_CREATE_QUIZ = """
INSERT INTO quizzes (id, version, title, language, definition, created_at, owner_id)
VALUES ($1, $2, $3, $4, $5, 'epoch'::timestamptz + $6::float8 * interval '1 ms', $7)
ON CONFLICT DO NOTHING
"""

_CREATE_SESSION = """
INSERT INTO sessions (id, code, quiz_id, quiz_version, settings, created_at, owner_id)
VALUES ($1, $2, $3, $4, $5, 'epoch'::timestamptz + $6::float8 * interval '1 ms', $7)
ON CONFLICT (id) DO NOTHING
"""

_DELETED = "SELECT FROM deleted_sessions WHERE session_id = $1"

_OWN = "UPDATE sessions SET epoch = $2, owner = $3, granted_by = $4 WHERE id = $1"

_LAST_BEFORE = """
SELECT coalesce(max(seq), 0) FROM (
    SELECT max(seq) AS seq FROM players WHERE session_id = $1 AND seq < $2
    UNION ALL SELECT max(seq) FROM answers WHERE session_id = $1 AND seq < $2
    UNION ALL SELECT max(seq) FROM merged_answers WHERE session_id = $1 AND seq < $2
    UNION ALL SELECT max(seq) FROM session_changes WHERE session_id = $1 AND seq < $2
) AS each
"""
