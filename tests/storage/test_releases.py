"""Nodes of two releases on one database: what one of them stores, the other serves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from engine.actors.clock import SessionClock
from engine.actors.commands import Watch
from engine.actors.delivery.frame import Frame
from engine.domain.settings import Settings
from engine.ports import SessionRecord, Unreadable
from engine.storage.catalog import PostgresCatalog
from engine.storage.journal import rows
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from tests.actors.world import Client
from tests.settings import at_once
from tests.storage.making import quiz_of, record_of, results_of
from tests.storage.test_merging import Players, players

GARBAGE = (
    "[]",
    "5",
    '"host"',
    "null",
    '{"pace": "of a later release"}',
    '{"player_limit": "many"}',
    '{"player_limit": 18446744073709551616}',
)


@asynccontextmanager
async def running(database: Database, name: str) -> AsyncIterator[Players]:
    journal = WriteBehind(database, owner=name, now_ms=SessionClock().now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        async with players(database, journal, name) as found:
            yield found
        nursery.cancel_scope.cancel()


@pytest.fixture
async def node(database: Database) -> AsyncIterator[Players]:
    async with running(database, "node") as found:
        yield found


async def stored(database: Database, *settings: str) -> Sequence[SessionRecord]:
    """Sessions with what stands in these documents laid over their settings, each of a quiz of its own."""
    catalog = PostgresCatalog(database, lambda: 0)
    store = PostgresSessionStore(database, catalog)
    records = []
    for document in settings:
        quiz = await catalog.add(quiz_of())
        record = replace(record_of(quiz.id, created_at=SessionClock().now_ms()), settings=Settings())
        await store.create(record)
        laid = "settings || $2::jsonb" if document.startswith('{"future') else "$2::jsonb"
        await database.execute(f"UPDATE sessions SET settings = {laid} WHERE id = $1", record.id, document)
        records.append(record)
    return records


class Told(Client):
    """A client that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = trio.Event()

    def push(self, frame: Frame) -> None:
        super().push(frame)
        self.heard.set()


async def watched(node: Players, key: str) -> Client:
    client = Told()
    node.router.deliver(key, Watch(client))
    with trio.fail_after(10):
        await client.heard.wait()
    return client


async def test_a_setting_of_a_later_release_is_passed_over(node: Players, database: Database) -> None:
    [record] = await stored(database, '{"future": 1}')
    assert (await watched(node, record.code)).kinds == ["joined"]
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    assert await store.find(record.id) == record
    assert await store.unfinished() == [record]


async def test_settings_that_are_garbage_cost_that_session_alone(
    node: Players, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    good, *bad = await stored(database, '{"future": 1}', *GARBAGE)
    for record in bad:
        for key in (record.code, record.id):
            assert (await watched(node, key)).errors == ["session_unavailable"]
    assert (await watched(node, good.code)).kinds == ["joined"]
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    await database.execute("UPDATE sessions SET owner = 'gone'")
    assert await store.unfinished() == await store.orphans(["node"]) == [good]
    for record in bad:
        with pytest.raises(Unreadable):
            await store.claim(record.id, "node")
    assert len(await store.owned_by("gone")) == len(bad) + 1, "what cannot be read is not taken"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "garbage",
    [
        '{"pace": "self", "open_ms": "many"}',
        '{"pace": "self", "open_ms": 1e300}',
        '{"pace": "self", "open_ms": 60000, "open_from": 1.5}',
        '{"pace": "self", "open_ms": 60000, "open_from": [18446744073709551616]}',
        '{"pace": "self", "open_ms": 60000, "open_from": 18446744073709551616}',
    ],
)
async def test_a_deadline_that_is_garbage_leaves_the_overdue_sessions_of_others_to_be_found(
    database: Database, garbage: str
) -> None:
    _, good = await stored(database, garbage, json.dumps(Settings(pace="self", open_ms=60_000).to_dict()))
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    found = await store.overdue(good.created_at + 60_001, 0)
    assert good.id in [record.id for record in found]


@pytest.mark.parametrize("garbage", ["{}", "null"])
async def test_a_quiz_that_is_garbage_costs_its_sessions_alone(
    node: Players, database: Database, garbage: str
) -> None:
    good, bad = await stored(database, '{"future": 1}', '{"future": 1}')
    await database.execute("UPDATE quizzes SET definition = $2::jsonb WHERE id = $1", bad.quiz_id, garbage)
    assert (await watched(node, bad.code)).errors == ["session_unavailable"]
    assert (await watched(node, good.code)).kinds == ["joined"]
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    assert await store.owned_by("node") == [good.id], "a node of the later release can still take it"
    assert node.registry.statistics().crashes == 0


async def test_a_second_attempt_costs_an_earlier_release_that_session_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that knows the setting `attempts` no more than the fact that one has begun."""
    settings = json.dumps(at_once(pace="self", attempts=2).to_dict())
    begun, untouched = await stored(database, settings, settings)
    async with running(database, "later") as later:
        later.record = begun
        ada = await later.join("Ada")
        assert await later.next(ada) == 1
        assert await later.answer(ada, False) == "accepted"
        assert await later.next(ada, attempt=2) == 1

    with monkeypatch.context() as earlier:
        earlier.delitem(rows._CHANGES, "attempt")
        async with running(database, "earlier") as node:
            assert (await watched(node, begun.code)).errors == ["session_unavailable"]
            node.record = untouched
            ben = await node.join("Ben")
            assert await node.next(ben) == 1
            assert (await watched(node, begun.code)).errors == ["session_unavailable"]

    async with running(database, "later again") as later:
        later.record = begun
        assert await later.next(ada, attempt=2) == 1
        assert await later.answer(ada, True, attempt=2) == "accepted"
    store = PostgresSessionStore(database, PostgresCatalog(database, lambda: 0))
    assert [line.correct for line in await results_of(store, begun.id)] == [1]
