"""Corrections in a real database: results show them, the facts stay, and the audit agrees with all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from engine.domain.answer_keys import Key, key_of, with_key
from engine.domain.audit import audit
from engine.domain.rescoring import Rescore, rescore
from engine.domain.session import Session
from engine.ports import SessionNotFound, SessionRecord
from engine.storage.catalog import PostgresCatalog
from engine.storage.corrections import CorrectedMeanwhile, Corrections, NotFinished
from engine.storage.journal.rows import FactRows
from engine.storage.journal.statement import COMMIT, Batch
from engine.storage.partitions import Partitions
from engine.storage.postgres import Database
from engine.storage.session_ids import new_id
from engine.storage.sessions import PostgresSessionStore
from tests.settings import at_once
from tests.storage.making import AT, EVERY_KIND, record_of, results_of

CHOICES: Sequence[Sequence[object]] = (
    (0, 1),
    ([0, 2], [1], [0]),
    (False, True),
    ("sao paulo", "Rio"),
    (1e300, 5),
    (-3, -2.95, 0),
    (2, 2.0, 3),
)
KEYS: Sequence[tuple[int, Key]] = (
    (1, {"correct": "a"}),
    (2, {"correct": ["b"]}),
    (4, {"accept": ["Rio", "\\ \" '"]}),
    (5, {"correct": 5, "tolerance": 1e-300}),
    (3, {"correct": True}),
    (6, {"tolerance": 3}),
    (5, {"correct": 1e300}),
    (7, {"correct": 3}),
    (1, {"correct": "b"}),
)


class Books:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.catalog = PostgresCatalog(database, lambda: AT)
        self.store = PostgresSessionStore(database, self.catalog)
        self.corrections = Corrections(database, self.catalog)

    async def played(self, *, finished: bool = True, at: int = AT, **settings: Any) -> SessionRecord:
        """A session of every type of question with twelve players: one is removed, and two get extra time."""
        stored = await self.catalog.add(EVERY_KIND, "every-kind")
        record = replace(record_of(stored.id, created_at=at), id=new_id(at), settings=at_once(**settings))
        rng = Random(at)
        session = Session(EVERY_KIND, record.settings, at)
        for n in range(12):
            session.join(f"player {n}", at + n)
        session.start(at + 1_000)
        for number, choices in enumerate(CHOICES, start=1):
            opened_at = session.opened_at or 0
            for player in range(1, 13):
                if rng.random() < 0.9:
                    session.answer(player, number, rng.choice(choices), opened_at + 100 * player)
            if number == 3:
                session.kick(5, opened_at + 1_300)
                session.give_extra_time(2, 150, opened_at + 1_300)
                session.give_extra_time(3, 0, opened_at + 1_300)
            session.elapse(opened_at + 1_400)
            if session.question_open:
                session.close(opened_at + 1_400)
            if number < len(CHOICES):
                session.next(opened_at + 5_000)
        if finished:
            session.finish((session.opened_at or 0) + 9_000)
        await self.store.create(record)
        epoch = (await self.store.claim(record.id, "writer")).epoch
        batch = Batch()
        batch.add(record.id, epoch, FactRows(session.take_facts()))
        await self.database.fetch(COMMIT, *batch.arguments())
        return record

    async def worked_out(self, record: SessionRecord, question: int, key: Key) -> Rescore:
        _, evidence, _ = await self.corrections.evidence(record.id)
        assert audit(evidence) == []
        return rescore(
            evidence.quiz,
            evidence.facts,
            evidence.corrections,
            question,
            key,
            by="Ann",
            reason="wrong",
            at=AT,
        )

    async def scores(self, record: SessionRecord) -> list[tuple[int, int, int, int]]:
        results = await results_of(self.store, record.id)
        return [(each.rank, each.player, each.score, each.elapsed_ms) for each in results]


@pytest.fixture
def books(database: Database) -> Books:
    return Books(database)


async def test_results_follow_every_correction_and_the_audit_agrees(books: Books) -> None:
    record, other = await books.played(), await books.played(at=AT + 5)
    first = await books.scores(record)
    untouched = await books.scores(other)
    facts = await books.database.fetch("SELECT * FROM answers ORDER BY 1, 2, 3")
    for question, key in KEYS:
        done = await books.worked_out(record, question, key)
        assert await books.scores(record) == [tuple(entry) for entry in done.before]
        await books.corrections.correct(record.id, done)
        assert await books.scores(record) == [tuple(entry) for entry in done.after]
        _, evidence, _ = await books.corrections.evidence(record.id)
        assert audit(evidence) == []
        last = evidence.corrections[-1]
        assert (last.question, last.by, last.reason, last.at) == (question, "Ann", "wrong", AT)
        assert with_key(EVERY_KIND, question, last.new_key) == with_key(
            EVERY_KIND, question, done.correction.new_key
        )
    assert await books.scores(record) != first
    for number, question in enumerate(EVERY_KIND.questions, start=1):
        _, evidence, _ = await books.corrections.evidence(record.id)
        if number not in (1, 5):  # these were corrected back already
            await books.corrections.correct(
                record.id, await books.worked_out(record, number, key_of(question))
            )
    assert await books.scores(record) == first
    assert await books.scores(other) == untouched
    assert await books.database.fetch("SELECT * FROM answers ORDER BY 1, 2, 3") == facts
    [row] = await books.database.fetch("SELECT count(*) AS n FROM corrected_answers")
    assert row["n"] == 0


async def test_a_session_that_scores_otherwise_than_its_quiz_is_audited_so(
    books: Books,
) -> None:
    record = await books.played(scoring="flat", streak=True)
    _, evidence, _ = await books.corrections.evidence(record.id)
    assert audit(evidence) == []
    await books.corrections.correct(record.id, await books.worked_out(record, 1, {"correct": "a"}))
    _, corrected, _ = await books.corrections.evidence(record.id)
    assert audit(corrected) == []
    points = {mark.points for mark in corrected.corrected_marks.values() if mark.correct}
    assert points <= {1000 + 100 * row for row in range(6)}


async def test_a_session_that_runs_is_not_corrected(books: Books) -> None:
    record = await books.played(finished=False)
    done = await books.worked_out(record, 1, {"correct": "a"})
    with pytest.raises(NotFinished):
        await books.corrections.correct(record.id, done)
    _, evidence, _ = await books.corrections.evidence(record.id)
    assert (evidence.corrections, evidence.corrected_marks) == ([], {})


async def test_of_two_at_once_the_second_is_turned_away(books: Books) -> None:
    record = await books.played()
    one = await books.worked_out(record, 1, {"correct": "a"})
    two = await books.worked_out(record, 2, {"correct": ["b"]})
    await books.corrections.correct(record.id, one)
    after = await books.scores(record)
    with pytest.raises(CorrectedMeanwhile):
        await books.corrections.correct(record.id, two)
    assert await books.scores(record) == after


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("UPDATE answers SET points = points + 1 WHERE question = 2 AND correct", {"points"}),
        ("DELETE FROM answers WHERE player = 3", {"seq"}),
        ("UPDATE answers SET player = 77 WHERE player = 3", {"unknown_player"}),
        ("UPDATE answers SET choice = '\"x\"' WHERE question = 1", {"choice", "correct", "points"}),
        ("UPDATE sessions SET finished_at = now()", {"finished_at"}),
        ("DELETE FROM corrected_answers", {"corrected"}),
        ("UPDATE corrected_answers SET points = 1 WHERE player = 1", {"corrected", "standing"}),
        ("DELETE FROM corrections", {"corrected"}),
        ("DELETE FROM session_changes WHERE kind = 'kicked'", {"seq"}),
    ],
)
async def test_whatever_is_changed_by_hand_is_found(books: Books, sql: str, kinds: set[str]) -> None:
    record = await books.played()
    for question, key in KEYS[:3]:
        await books.corrections.correct(record.id, await books.worked_out(record, question, key))
    await books.database.execute(sql)
    _, evidence, _ = await books.corrections.evidence(record.id)
    assert kinds <= {each.kind for each in audit(evidence)}


@pytest.mark.parametrize("key", ["no-id", "00000000-0000-7000-8000-000000000000"])
async def test_sessions_that_are_not_there(books: Books, key: str) -> None:
    with pytest.raises(SessionNotFound):
        await books.corrections.evidence(key)


async def test_sessions_since_a_moment_come_oldest_first(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.storage.corrections._SESSIONS_PER_FETCH", 2)
    records = [await books.played(at=AT + n // 2) for n in range(7)]
    in_order = sorted(records, key=lambda each: (each.created_at, each.id))
    assert [each async for each in books.corrections.created_since(0)] == [each.id for each in in_order]
    since = [each.id for each in in_order if each.created_at >= AT + 2]
    assert [each async for each in books.corrections.created_since(AT + 2)] == since


async def test_what_has_no_partitions_goes_with_its_session(books: Books) -> None:
    await Partitions(books.database, lambda: AT).maintain()
    record = await books.played()
    await books.corrections.correct(record.id, await books.worked_out(record, 1, {"correct": "a"}))
    later = AT + 100 * 86_400_000
    kept = await books.played(at=AT + 31 * 86_400_000)
    await books.corrections.correct(kept.id, await books.worked_out(kept, 1, {"correct": "a"}))
    for each in (record, kept):
        await books.database.execute(
            "INSERT INTO merged_answers "
            "SELECT session_id, 90, question, player, choice, 1, correct, points, at "
            "FROM answers WHERE session_id = $1 LIMIT 1",
            each.id,
        )
        await books.database.execute(
            "INSERT INTO spooled_facts (session_id, epoch, seq, count, node, facts, put_at) "
            "VALUES ($1, 1, 1, 1, 'node', '[]', now())",
            each.id,
        )
    await Partitions(books.database, lambda: later, retention_days=60).maintain()
    for table in ("corrections", "corrected_answers", "merged_answers", "spooled_facts"):
        rows = await books.database.fetch(f"SELECT DISTINCT session_id::text AS id FROM {table}")
        assert [row["id"] for row in rows] == [kept.id]
