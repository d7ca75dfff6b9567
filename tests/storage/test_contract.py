"""What every implementation of the storage ports must do: the real ones and those that stand in for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import ports
from engine.aio import open_asyncio
from engine.domain import facts as f
from engine.domain.self_paced_session import Asked, Through
from engine.domain.session import Session
from engine.storage.catalog import CachedCatalog, PostgresCatalog
from engine.storage.journal.writer import WriteBehind
from engine.storage.sessions import PostgresSessionStore
from tests.conftest import fresh_database
from tests.fakes import MemoryCatalog, MemoryJournal, MemorySessionStore
from tests.keys import KEYS, NOT_QUITE
from tests.settings import at_once
from tests.storage.making import (
    AT,
    EVERY_KIND,
    ONE_OF_EACH,
    Listener,
    answered,
    joined,
    merged,
    quiz_of,
    record_of,
    results_of,
)

TAKEN, REMOVED, NOBODYS = ports.Seat.TAKEN, ports.Seat.REMOVED, ports.Seat.NOBODYS


@dataclass
class Storage:
    catalog: ports.QuizCatalog
    store: ports.SessionStore
    journal: ports.Journal
    node: Callable[[str, int | None, int], Awaitable[None]]
    """Have a run show itself: when its lease ends, from now, and when it was alive."""

    async def session(
        self, code: str | None = None, created_at: int = AT, *, own_pace: Mapping[str, Any] | None = None
    ) -> ports.SessionRecord:
        """A new session of a quiz of its own; with the pace `self` if it has settings for that."""
        stored = await self.catalog.add(quiz_of(questions=1 if own_pace is None else 4))
        record = record_of(stored.id, code, created_at)
        if own_pace is not None:
            record = replace(record, settings=at_once(pace="self", **own_pace))
        await self.store.create(record)
        return record

    async def facts(self, session_id: str) -> list[f.Fact]:
        return list((await self.store.claim(session_id, "reader")).facts)

    async def write(self, record: ports.SessionRecord, *facts: f.Fact) -> None:
        """Claim the session and commit facts to it."""
        claimed = await self.store.claim(record.id, "writer")
        listener = Listener()
        self.journal.append(record.id, claimed.epoch, facts, listener)
        await listener.until(facts[-1].seq)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Storage]:
    catalog = MemoryCatalog(now_ms=AT)
    store = MemorySessionStore(catalog)
    store.now_ms = AT

    async def node(run: str, lease_ms: int | None, alive_at: int) -> None:
        await trio.lowlevel.checkpoint()
        store.alive[run] = alive_at
        store.addresses[run] = f'"{run}"'
        if lease_ms is not None:
            store.leases[run] = store.now_ms + lease_ms

    yield Storage(catalog, store, MemoryJournal(store, facts_max=100), node)


@asynccontextmanager
async def in_postgres(dsn: str, *, cached: bool) -> AsyncIterator[Storage]:
    async with open_asyncio(), fresh_database(dsn) as (database, _):
        catalog: ports.QuizCatalog = PostgresCatalog(database, lambda: AT)
        if cached:
            catalog = CachedCatalog(catalog)
        store = PostgresSessionStore(database, catalog)
        journal = WriteBehind(database, owner="writer", now_ms=lambda: AT, facts_max=100)

        async def node(run: str, lease_ms: int | None, alive_at: int) -> None:
            await database.execute(_NODE, run, f'"{run}"', lease_ms, alive_at)

        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            yield Storage(catalog, store, journal, node)
            nursery.cancel_scope.cancel()


_NODE = """
INSERT INTO nodes (node, address, alive_at, lease_until)
VALUES ($1, $2, 'epoch'::timestamptz + $4::float8 * interval '1 ms',
        clock_timestamp() + $3::float8 * interval '1 ms')
ON CONFLICT (node) DO UPDATE SET alive_at = excluded.alive_at, lease_until = excluded.lease_until
"""

LONG_MS = 3_600_000


@asynccontextmanager
async def storage_of(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    if request.param == "memory":
        async with in_memory() as storage:
            yield storage
    else:
        dsn = request.getfixturevalue("postgres_dsn")
        async with in_postgres(dsn, cached=request.param == "cached") as storage:
            yield storage


@pytest.fixture(params=["memory", "postgres"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    async with storage_of(request) as storage:
        yield storage


@pytest.fixture(params=["memory", "postgres", "cached"])
async def catalog(request: pytest.FixtureRequest) -> AsyncIterator[ports.QuizCatalog]:
    async with storage_of(request) as storage:
        yield storage.catalog


# The catalog


async def test_a_quiz_comes_back_equal(catalog: ports.QuizCatalog) -> None:
    stored = await catalog.add(EVERY_KIND)
    assert stored.version == 1
    assert stored.created_at == AT
    assert stored.quiz == EVERY_KIND
    assert await catalog.get(stored.id) == stored
    assert await catalog.get(stored.id, 1) == stored


@pytest.mark.parametrize(
    ("title", "quiz_id"),
    [
        ("Capitals of Europe", "capitals-of-europe"),
        ("  São Paulo & Zürich!  ", "sao-paulo-zurich"),
        ("日本", "quiz"),
        ("100% _pure_", "100-pure"),
    ],
)
async def test_the_id_is_made_from_the_title(catalog: ports.QuizCatalog, title: str, quiz_id: str) -> None:
    assert (await catalog.add(quiz_of(title))).id == quiz_id


async def test_equal_titles_get_ids_of_their_own(catalog: ports.QuizCatalog) -> None:
    ids = [(await catalog.add(quiz_of("Capitals"))).id for _ in range(3)]
    assert ids == ["capitals", "capitals-2", "capitals-3"]


async def test_quizzes_added_at_once_get_ids_of_their_own(catalog: ports.QuizCatalog) -> None:
    ids = []

    async def add() -> None:
        ids.append((await catalog.add(quiz_of("Capitals"))).id)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(add)
    assert sorted(ids) == ["capitals", *(f"capitals-{n}" for n in range(2, 9))]


async def test_an_edit_is_the_next_version(catalog: ports.QuizCatalog) -> None:
    first = await catalog.add(quiz_of("One"), "mine")
    second = await catalog.add(quiz_of("Two"), "mine")
    assert (first.version, second.version) == (1, 2)
    assert await catalog.get("mine") == second
    assert await catalog.get("mine", 1) == first


async def test_the_newest_is_found_after_an_edit_even_when_it_was_asked_for_before(
    catalog: ports.QuizCatalog,
) -> None:
    await catalog.add(quiz_of("One"), "mine")
    assert (await catalog.get("mine")).version == 1
    await catalog.add(quiz_of("Two"), "mine")
    assert (await catalog.get("mine")).version == 2


async def test_an_equal_quiz_changes_nothing(catalog: ports.QuizCatalog) -> None:
    first = await catalog.add(EVERY_KIND, "mine")
    assert await catalog.add(EVERY_KIND, "mine") == first
    assert (await catalog.get("mine")).version == 1


async def test_edits_at_once_are_all_kept(catalog: ports.QuizCatalog) -> None:
    async with trio.open_nursery() as nursery:
        for n in range(6):
            nursery.start_soon(catalog.add, quiz_of(f"Edit {n}"), "mine")
    titles = {(await catalog.get("mine", version)).quiz.title for version in range(1, 7)}
    assert titles == {f"Edit {n}" for n in range(6)}


@pytest.mark.parametrize(("quiz_id", "version"), [("other", None), ("mine", 2), ("mine", 0), ("mine", -1)])
async def test_unknown_quizzes(catalog: ports.QuizCatalog, quiz_id: str, version: int | None) -> None:
    await catalog.add(quiz_of(), "mine")
    with pytest.raises(ports.QuizNotFound):
        await catalog.get(quiz_id, version)


async def test_the_list_has_the_newest_versions_by_title(catalog: ports.QuizCatalog) -> None:
    await catalog.add(quiz_of("Zebras"), "a")
    await catalog.add(quiz_of("Old name"), "b")
    await catalog.add(quiz_of("Apples", questions=3), "b")
    assert await catalog.page(9) == [
        ports.QuizSummary("b", 2, "Apples", "en", 3, AT),
        ports.QuizSummary("a", 1, "Zebras", "en", 1, AT),
    ]


async def test_the_versions_of_a_quiz_are_listed_newest_first(catalog: ports.QuizCatalog) -> None:
    await catalog.add(quiz_of("Capitals"), "mine")
    await catalog.add(quiz_of("Other"), "mine too")
    await catalog.add(quiz_of("More capitals", questions=3), "mine")
    await catalog.add(quiz_of("Most capitals", questions=2), "mine")
    newest = ports.QuizSummary("mine", 3, "Most capitals", "en", 2, AT)
    assert await catalog.versions("mine", 10) == [
        newest,
        ports.QuizSummary("mine", 2, "More capitals", "en", 3, AT),
        ports.QuizSummary("mine", 1, "Capitals", "en", 1, AT),
    ]
    assert await catalog.versions("mine", 1) == [newest]
    with pytest.raises(ports.QuizNotFound):
        await catalog.versions("nobody's", 10)


# Sessions


async def test_a_session_is_found_by_id_and_by_code(storage: Storage) -> None:
    record = await storage.session(code="012345")
    assert await storage.store.find(record.id) == record
    assert await storage.store.find("012345") == record


async def unknown(storage: Storage, key: str) -> None:
    with pytest.raises(ports.SessionNotFound):
        await storage.store.find(key)
    with pytest.raises(ports.SessionNotFound):
        await storage.store.claim(key, "me")
    with pytest.raises(ports.SessionNotFound):
        await results_of(storage.store, key)
    with pytest.raises(ports.SessionNotFound):
        await storage.store.first_results(key, 1)
    with pytest.raises(ports.SessionNotFound):
        await storage.store.results_by_player(key, 0, 1)
    assert await storage.store.results_around(key, 1, 1) == []
    assert await storage.store.progress(key) == 0
    assert not await storage.store.grant(key, 1, "me", None)


async def test_unknown_sessions(storage: Storage) -> None:
    await storage.session(code="123456")
    for key in ("999999", "00000000-0000-4000-8000-000000000000", *NOT_QUITE):
        await unknown(storage, key)


@pytest.mark.parametrize("kind", ["memory", "postgres"])
@settings(max_examples=2)
@given(keys=st.lists(KEYS, min_size=60, max_size=60))
async def test_whatever_stands_in_an_address_is_a_session_or_none(
    kind: str, keys: list[str], postgres_dsn: str
) -> None:
    there = in_memory() if kind == "memory" else in_postgres(postgres_dsn, cached=False)
    async with there as storage:
        record = await storage.session(code="123456")
        for key in keys:
            if key not in (record.id, record.code):
                await unknown(storage, key)
        assert await storage.store.find(record.id) == record


@pytest.mark.parametrize(("session_id", "code"), [("session-1", "123456"), (None, "12345"), (None, "1_2_34")])
async def test_what_no_session_may_be_found_under_is_not_stored(
    storage: Storage, session_id: str | None, code: str
) -> None:
    stored = await storage.catalog.add(quiz_of())
    record = record_of(stored.id, code)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # a mistake of ours, as each store has it
        await storage.store.create(replace(record, id=session_id or record.id))
    assert not isinstance(caught.value, ports.StorageUnavailable | ports.CodeTaken)


async def test_a_code_belongs_to_one_unfinished_session(storage: Storage) -> None:
    first = await storage.session(code="123456")
    with pytest.raises(ports.CodeTaken):
        await storage.session(code="123456")
    await storage.write(first, f.Finished(1, AT + 5))
    second = await storage.session(code="123456", created_at=AT - 5)
    assert await storage.store.find("123456") == second


async def test_among_finished_sessions_the_code_finds_the_last_one(storage: Storage) -> None:
    for created_at in (AT + 2, AT + 9, AT + 4):
        record = await storage.session(code="123456", created_at=created_at)
        await storage.write(record, f.Finished(1, AT + 50))
    found = await storage.store.find("123456")
    assert (found.created_at, found.finished_at) == (AT + 9, AT + 50)


async def test_creating_may_be_repeated(storage: Storage) -> None:
    record = await storage.session()
    await storage.store.create(record)
    assert await storage.store.find(record.id) == record


async def test_every_claim_raises_the_epoch(storage: Storage) -> None:
    record = await storage.session()
    epochs = []

    async def claim(owner: str) -> None:
        epochs.append((await storage.store.claim(record.id, owner)).epoch)

    async with trio.open_nursery() as nursery:
        for n in range(6):
            nursery.start_soon(claim, f"node {n % 2}")
    assert sorted(epochs) == [1, 2, 3, 4, 5, 6]


async def test_a_claim_brings_record_and_quiz(storage: Storage) -> None:
    stored = await storage.catalog.add(EVERY_KIND)
    await storage.catalog.add(quiz_of("A later edit"), stored.id)
    record = record_of(stored.id)
    await storage.store.create(record)
    claimed = await storage.store.claim(record.id, "me")
    assert (claimed.record, claimed.quiz) == (record, EVERY_KIND)
    assert (claimed.epoch, list(claimed.facts), claimed.last_alive_at) == (1, [], None)


async def test_the_owner_is_known_to_have_lived_until_its_last_fact(storage: Storage) -> None:
    record = await storage.session()
    far_ahead = AT + 1_000_000
    await storage.write(record, joined(1), f.PlayerKicked(2, far_ahead, 1))
    assert (await storage.store.claim(record.id, "me")).last_alive_at == far_ahead


async def test_the_standing_of_a_self_paced_session_is_that_of_the_aggregate(storage: Storage) -> None:
    record = await storage.session(own_pace={"reveal": "each", "streak": True, "attempts": 2})
    quiz = (await storage.catalog.get(record.quiz_id)).quiz
    session = Session(quiz, record.settings, record.created_at)
    at = record.created_at
    for name in ("Ada", "Ben", "Cleo"):
        session.join(name, at)
    order = list(range(1, session.of + 1))
    for attempt, turn in product((1, 2), range(3 * session.of)):
        at += 700
        player = 1 + turn % 3
        own = order[::-1] if player == 2 else order
        asked = session.show_next(player, own, at, attempt)
        assert isinstance(asked, Asked)
        if (turn + player * attempt) % 4:
            right = session.quiz.questions[asked.question - 1].correct
            choice = right if turn % 3 == attempt % 2 else 0
            session.answer(player, asked.question, choice, at + 300 * player, attempt=attempt)
        else:
            at += 1_000_000
        while turn >= 3 * (session.of - 1) and not isinstance(asked, Through):
            at += 1_000_000
            asked = session.show_next(player, own, at, attempt)
    session.kick(3, at)
    await storage.write(record, *session.take_facts())
    lines: list[ports.PlayerResult] = []
    await storage.store.results(record.id, lines.extend)
    board = session.leaderboard
    assert [(line.rank, line.player, line.score, line.elapsed_ms) for line in lines] == [*board.ranked()]
    assert any(line.score for line in lines)
    claimed = await storage.store.claim(record.id, "reader")
    assert Session.recover(quiz, record.settings, record.created_at, claimed.facts) == session


async def test_sessions_are_overdue_by_age_or_by_their_deadline(storage: Storage) -> None:
    own = {"open_ms": 60_000}
    old = await storage.session(created_at=AT)
    await storage.session(created_at=AT + 1_000)
    await storage.session(created_at=AT - 9, own_pace={})
    due = await storage.session(created_at=AT + 1, own_pace=own)
    later = await storage.session(created_at=AT + 2, own_pace=own)
    sooner = await storage.session(created_at=AT + 3, own_pace={**own, "open_from": AT + 90_000})
    await storage.session(created_at=AT + 4, own_pace={**own, "open_from": AT + 90_000})
    over = await storage.session(created_at=AT + 5, own_pace=own)
    await storage.write(later, f.DeadlineMoved(1, AT, AT + 9), f.DeadlineMoved(2, AT, AT + 100_000))
    await storage.write(sooner, f.DeadlineMoved(1, AT, AT + 60_000))
    await storage.write(over, f.Finished(1, AT + 50_000))
    found = await storage.store.overdue(AT + 60_001, AT + 1)
    assert found == [old, due, sooner]


async def test_unfinished_sessions_come_oldest_first(storage: Storage) -> None:
    young = await storage.session(created_at=AT + 2)
    ended = await storage.session(created_at=AT + 1)
    old = await storage.session(created_at=AT)
    await storage.write(ended, f.Finished(1, AT + 5))
    assert await storage.store.unfinished() == [old, young]


async def test_sessions_that_ended_lately_come_oldest_first(storage: Storage) -> None:
    young = await storage.session(created_at=AT + 2)
    old = await storage.session(created_at=AT)
    before = await storage.session(created_at=AT - 1)
    await storage.session(created_at=AT)
    for record, at in ((young, AT + 9), (old, AT + 5), (before, AT + 4)):
        await storage.write(record, f.Finished(1, at))
    ended = await storage.store.ended_since(AT + 5)
    assert [(each.id, each.finished_at) for each in ended] == [(old.id, AT + 5), (young.id, AT + 9)]


async def test_recent_sessions_come_newest_first(storage: Storage) -> None:
    old = await storage.session(created_at=AT)
    young = await storage.session(created_at=AT + 2)
    await storage.session(created_at=AT - 1)
    await storage.write(old, joined(1), joined(2), f.PlayerKicked(3, AT, 1), f.Finished(4, AT + 9))
    assert await storage.store.page(2) == [
        ports.SessionSummary(young.id, young.code, young.quiz_id, "Capitals", 0, AT + 2, None),
        ports.SessionSummary(old.id, old.code, old.quiz_id, "Capitals", 1, AT, AT + 9),
    ]


# Owners


def never(_: str) -> bool:
    return False


def always(_: str) -> bool:
    return True


async def test_the_record_says_who_owns_a_session_and_whether_its_lease_holds(storage: Storage) -> None:
    record = await storage.session()
    assert (await storage.store.find(record.id)).owner is None
    claimed = await storage.store.claim(record.id, "one")
    assert claimed.record.owner == ports.Owner("one", None, holds=False)
    await storage.node("one", LONG_MS, AT)
    for key in (record.id, record.code):
        assert (await storage.store.find(key)).owner == ports.Owner("one", '"one"', holds=True)
    await storage.node("one", -1, AT)
    assert (await storage.store.find(record.id)).owner == ports.Owner("one", '"one"', holds=False)


@pytest.mark.parametrize(
    ("lease_ms", "gone", "taken"),
    [(LONG_MS, never, False), (LONG_MS, always, False), (-1, never, False), (-1, always, True)],
)
async def test_a_session_of_another_is_taken_when_its_lease_is_over_and_it_is_gone(
    storage: Storage, lease_ms: int, gone: Callable[[str], bool], taken: bool
) -> None:
    record = await storage.session()
    await storage.node("one", lease_ms, AT + 70)
    await storage.write(record, joined(1))
    first = await storage.store.claim(record.id, "one")
    asked: list[str] = []

    def whether(run: str) -> bool:
        asked.append(run)
        return gone(run)

    if taken:
        claimed = await storage.store.claim(record.id, "two", whether)
        assert (claimed.epoch, claimed.last_alive_at) == (first.epoch + 1, AT + 70)
        assert list(claimed.facts) == [joined(1)]
    else:
        with pytest.raises(ports.OwnedElsewhere) as caught:
            await storage.store.claim(record.id, "two", whether)
        assert (caught.value.session_id, caught.value.owner) == (record.id, "one")
        owner = (await storage.store.find(record.id)).owner
        assert owner is not None
        assert owner.run == "one"
    assert set(asked) <= {"one"}
    assert bool(asked) == (lease_ms < 0)
    assert (await storage.store.claim(record.id, "three")).epoch == first.epoch + 1 + taken


@pytest.mark.parametrize("shown", [True, False])
async def test_who_has_no_lease_can_be_gone_all_the_same(storage: Storage, shown: bool) -> None:
    record = await storage.session()
    if shown:
        await storage.node("alone", None, AT)
    await storage.store.claim(record.id, "alone")
    with pytest.raises(ports.OwnedElsewhere):
        await storage.store.claim(record.id, "two", never)
    assert (await storage.store.claim(record.id, "two", always)).epoch == 2


async def test_a_session_of_nobody_or_of_oneself_needs_nobody_to_be_gone(storage: Storage) -> None:
    record = await storage.session()
    await storage.node("one", LONG_MS, AT + 70)
    claimed = await storage.store.claim(record.id, "one", never)
    assert (claimed.epoch, claimed.last_alive_at) == (1, None)
    claimed = await storage.store.claim(record.id, "one", never)
    assert (claimed.epoch, claimed.last_alive_at) == (2, AT + 70)


async def test_a_condition_does_not_make_a_session(storage: Storage) -> None:
    for key in ("nowhere", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(ports.SessionNotFound):
            await storage.store.claim(key, "one", always)


@pytest.mark.parametrize("to", ["two", None])
async def test_who_is_handed_a_session_claims_it_without_an_outage(storage: Storage, to: str | None) -> None:
    record = await storage.session()
    await storage.node("one", LONG_MS, AT + 70)
    await storage.node("two", LONG_MS, AT + 70)
    await storage.write(record, joined(1))
    epoch = (await storage.store.claim(record.id, "one")).epoch
    assert await storage.store.grant(record.id, epoch, "one", to)
    owner = (await storage.store.find(record.id)).owner
    assert owner == (None if to is None else ports.Owner("two", '"two"', holds=True))
    claimed = await storage.store.claim(record.id, "two", never)
    assert (claimed.epoch, list(claimed.facts), claimed.last_alive_at) == (epoch + 1, [joined(1)], None)
    assert (await storage.store.claim(record.id, "two", never)).last_alive_at == AT + 70


async def test_an_heir_that_dies_before_it_claims_was_the_last_to_be_alive(storage: Storage) -> None:
    record = await storage.session()
    await storage.node("two", -1, AT + 70)
    epoch = (await storage.store.claim(record.id, "one")).epoch
    assert await storage.store.grant(record.id, epoch, "one", "two")
    assert (await storage.store.claim(record.id, "three", always)).last_alive_at == AT + 70


async def test_only_the_owner_hands_on_and_only_under_its_epoch(storage: Storage) -> None:
    record = await storage.session()
    assert not await storage.store.grant(record.id, 0, "one", "two")
    epoch = (await storage.store.claim(record.id, "one")).epoch
    assert not await storage.store.grant(record.id, epoch - 1, "one", "two")
    assert not await storage.store.grant(record.id, epoch, "two", "two")
    assert not await storage.store.grant("nowhere", epoch, "one", "two")
    assert await storage.store.owned_by("one") == [record.id]
    # Its answer may be lost: said again, it is the same. After the claim it is too late.
    for _ in range(2):
        assert await storage.store.grant(record.id, epoch, "one", "two")
    assert not await storage.store.grant(record.id, epoch, "one", "three")
    await storage.store.claim(record.id, "two")
    assert not await storage.store.grant(record.id, epoch, "one", "two")


async def test_the_epoch_stays_when_a_session_is_handed_on(storage: Storage) -> None:
    record = await storage.session()
    epoch = (await storage.store.claim(record.id, "one")).epoch
    assert await storage.store.grant(record.id, epoch, "one", "two")
    assert await storage.store.grant(record.id, epoch, "two", "three")
    assert (await storage.store.claim(record.id, "three")).epoch == epoch + 1


async def test_unfinished_sessions_are_told_by_their_owners(storage: Storage) -> None:
    young, old, ended, other = [await storage.session(created_at=AT + at) for at in (9, 1, 5, 3)]
    await storage.session()
    await storage.node("one", LONG_MS, AT)
    await storage.write(ended, f.Finished(1, AT + 5))
    for record, owner in ((young, "one"), (old, "one"), (ended, "one"), (other, "two")):
        await storage.store.claim(record.id, owner)
    assert sorted(await storage.store.owned_by("one")) == sorted([old.id, young.id])
    assert await storage.store.owned_by("three") == []
    assert await storage.store.orphans([]) == [old, other, young]
    assert await storage.store.orphans({"one"}) == [other]
    assert await storage.store.orphans({"one", "two"}) == []
    [owner, _] = [each.owner for each in await storage.store.orphans({"two"})]
    assert owner == ports.Owner("one", '"one"', holds=True)


async def test_of_many_who_take_a_session_at_once_one_gets_it(storage: Storage) -> None:
    record = await storage.session()
    await storage.store.claim(record.id, "gone")
    owners = [f"node {n}" for n in range(6)]
    for owner in owners:
        await storage.node(owner, LONG_MS, AT)
    got = []

    async def take(owner: str) -> None:
        with suppress(ports.OwnedElsewhere):
            got.append((await storage.store.claim(record.id, owner, lambda run: run == "gone")).epoch)

    async with trio.open_nursery() as nursery:
        for owner in owners:
            nursery.start_soon(take, owner)
    assert got == [2]


# Results


async def test_ties_share_a_rank_and_the_faster_comes_first(storage: Storage) -> None:
    record = await storage.session()
    facts = [joined(n) for n in range(1, 6)]
    facts += [
        answered(6, 1, 1, points=500, elapsed_ms=700),
        answered(7, 2, 1, points=500, elapsed_ms=100),
        answered(8, 2, 2, points=0, elapsed_ms=500),
        answered(9, 3, 1, points=400),
        answered(10, 4, 1, points=900),
        answered(11, 4, 2, points=100, elapsed_ms=2000),
    ]
    await storage.write(record, *facts)
    assert await results_of(storage.store, record.id) == [
        ports.PlayerResult(1, 4, "player 4", 1000, 2, 2, 3000),
        ports.PlayerResult(2, 2, "player 2", 500, 1, 2, 600),
        ports.PlayerResult(2, 1, "player 1", 500, 1, 1, 700),
        ports.PlayerResult(4, 3, "player 3", 400, 1, 1, 1000),
        ports.PlayerResult(5, 5, "player 5", 0, 0, 0, 0),
    ]


async def test_of_an_answer_and_merged_ones_the_first_that_was_received_counts(storage: Storage) -> None:
    record = await storage.session()
    facts: list[f.Fact] = [joined(n) for n in range(1, 5)]
    facts += [
        answered(5, 1, 1, points=100),
        answered(6, 2, 1, points=200),
        answered(7, 3, 1, points=300),
        merged(8, 1, 1, 10, at=AT + 4),
        merged(9, 2, 1, 20, at=AT + 6),
        merged(10, 3, 1, 30, at=AT + 9),
        merged(11, 4, 1, 40, at=AT + 9, elapsed_ms=7),
        merged(12, 4, 1, 41, at=AT + 8, elapsed_ms=8),
        merged(13, 4, 1, 42, at=AT + 8, elapsed_ms=9),
        merged(14, 4, 2, 0, at=AT + 8),
    ]
    await storage.write(record, *facts)
    assert await storage.facts(record.id) == facts
    assert await results_of(storage.store, record.id) == [
        ports.PlayerResult(1, 3, "player 3", 300, 1, 1, 1000),
        ports.PlayerResult(2, 2, "player 2", 200, 1, 1, 1000),
        ports.PlayerResult(3, 4, "player 4", 41, 1, 2, 1008),
        ports.PlayerResult(4, 1, "player 1", 10, 1, 1, 1000),
    ]


async def test_results_up_to_a_question_are_those_without_the_answers_after_it(storage: Storage) -> None:
    record = await storage.session()
    facts: list[f.Fact] = [joined(n) for n in range(1, 5)]
    facts += [
        answered(5, 1, 1, points=500, elapsed_ms=700),
        answered(6, 2, 1, points=900, elapsed_ms=100),
        answered(7, 1, 2, points=800, elapsed_ms=500),
        answered(8, 4, 2, points=0, elapsed_ms=50),
        merged(9, 3, 3, 40, at=AT + 9, elapsed_ms=7),
    ]
    await storage.write(record, *facts, f.PlayerKicked(10, AT, 4))
    first = [
        ports.PlayerResult(1, 2, "player 2", 900, 1, 1, 100),
        ports.PlayerResult(2, 1, "player 1", 500, 1, 1, 700),
        ports.PlayerResult(3, 3, "player 3", 0, 0, 0, 0),
    ]
    assert await results_of(storage.store, record.id, 1) == first
    assert [each.score for each in await results_of(storage.store, record.id, 0)] == [0, 0, 0]
    assert await results_of(storage.store, record.id, 3) == await results_of(storage.store, record.id)
    assert [each.score for each in await results_of(storage.store, record.id, 2)] == [1300, 900, 0]


async def test_kicked_players_are_left_out_of_the_results(storage: Storage) -> None:
    record = await storage.session()
    other = await storage.session()
    await storage.write(record, joined(1), joined(2), answered(3, 1, points=9), f.PlayerKicked(4, AT, 1))
    await storage.write(other, joined(1), f.PlayerKicked(2, AT, 2))
    assert await results_of(storage.store, record.id) == [ports.PlayerResult(1, 2, "player 2", 0, 0, 0, 0)]
    assert [result.player for result in await results_of(storage.store, other.id)] == [1]


async def test_a_session_knows_how_often_it_was_taken_over(storage: Storage) -> None:
    record, other = await storage.session(), await storage.session()
    await storage.write(record, f.HostReplaced(1, AT), f.HostReplaced(2, AT))
    generations = [await storage.store.host_generation(key) for key in (record.id, other.id, "nobody's")]
    assert generations == [2, 0, 0]


async def test_a_readmitted_player_is_in_the_results(storage: Storage) -> None:
    record = await storage.session()
    there = f.PlayerKicked(5, AT, 1), f.PlayerReadmitted(6, AT, 1), f.PlayerKicked(7, AT, 2)
    await storage.write(record, joined(1), joined(2), answered(3, 1, points=9), answered(4, 2), *there)
    assert [(each.player, each.score) for each in await results_of(storage.store, record.id)] == [(1, 9)]
    assert [await storage.store.seat(record.id, player) for player in (1, 2)] == [TAKEN, REMOVED]
    await storage.write(record, f.PlayerKicked(8, AT, 1))
    assert await results_of(storage.store, record.id) == []
    assert await storage.store.seat(record.id, 1) is REMOVED


async def test_a_session_knows_the_seat_of_a_user(storage: Storage) -> None:
    record, other = await storage.session(), await storage.session()
    await storage.write(record, joined(1), joined(2, user_id="ada@app"))
    await storage.write(other, joined(1, user_id="ada@app"))
    users = ((record.id, "ada@app"), (record.id, "ben@app"), (other.id, "ada@app"), ("nowhere", "ada@app"))
    assert [await storage.store.seat_of_user(*each) for each in users] == [2, None, 1, None]


async def test_a_skipped_question_counts_in_no_results(storage: Storage) -> None:
    record, other = await storage.session(), await storage.session()
    facts = [joined(1), joined(2), answered(3, 1, points=9), answered(4, 1, 2, points=100)]
    late = merged(6, 2, 2, points=70, at=AT)
    await storage.write(record, *facts, f.QuestionSkipped(5, AT, 2), late)
    await storage.write(other, *facts)
    assert await results_of(storage.store, record.id) == [
        ports.PlayerResult(1, 1, "player 1", 9, 1, 1, 1000),
        ports.PlayerResult(2, 2, "player 2", 0, 0, 0, 0),
    ]
    assert [each.score for each in await results_of(storage.store, other.id)] == [109, 0]
    assert await storage.store.skipped(record.id) == [2]
    assert await storage.store.skipped(other.id) == await storage.store.skipped("nobody's") == []


async def test_a_session_without_players_has_no_results(storage: Storage) -> None:
    record = await storage.session()
    assert await results_of(storage.store, record.id) == []
    assert await storage.store.first_results(record.id, 10) == ([], 0)
    assert await storage.store.results_by_player(record.id, 0, 10) == ([], 0)
    assert await storage.store.results_around(record.id, 1, 2) == []


async def test_a_part_of_the_results_is_that_part_of_them_all(storage: Storage) -> None:
    record = await storage.session()
    facts: list[f.Fact] = [joined(n) for n in range(1, 8)]
    facts += [answered(7 + n, n, points=100 * (n % 3), elapsed_ms=10 * n) for n in range(1, 8)]
    await storage.write(record, *facts, f.PlayerKicked(20, AT, 5))
    everyone, store = await results_of(storage.store, record.id), storage.store
    assert len(everyone) == 6
    for count in (0, 1, 4, 6, 9):
        assert await store.first_results(record.id, count) == (everyone[:count], 6)
    for place, result in enumerate(everyone):
        around = everyone[max(0, place - 2) : place + 3]
        assert await store.results_around(record.id, result.player, 2) == around
    assert await store.results_around(record.id, 5, 2) == []
    numbered = sorted(everyone, key=lambda result: result.player)
    assert await store.results_by_player(record.id, 0, 3) == (numbered[:3], 6)
    assert await store.results_by_player(record.id, 3, 9) == (numbered[3:], 6)
    assert await store.results_by_player(record.id, 7, 9) == ([], 6)


async def test_a_deleted_quiz_is_there_for_the_sessions_that_use_it_alone(storage: Storage) -> None:
    catalog = storage.catalog
    used = await storage.session()
    unused = await catalog.add(quiz_of("Second"), used.quiz_id)
    await catalog.delete(used.quiz_id)
    assert [each.id for each in await catalog.page(9)] == []
    for look in (
        catalog.get(used.quiz_id),
        catalog.versions(used.quiz_id, 5),
        catalog.get(unused.id, unused.version),
        catalog.delete(used.quiz_id),
        storage.store.create(record_of(used.quiz_id, "123456")),
    ):
        with pytest.raises(ports.QuizNotFound):
            await look
    assert await catalog.is_taken(used.quiz_id)
    assert (await catalog.get(used.quiz_id, 1)).deleted
    assert (await storage.store.claim(used.id, "reader")).quiz == quiz_of()
    await storage.store.create(used)  # said again, it changes nothing

    again = await catalog.add(quiz_of("Second"), used.quiz_id)
    assert (again.version, again.deleted) == (3, False)
    assert [each.version for each in await catalog.versions(used.quiz_id, 5)] == [3]
    assert (await catalog.add(quiz_of())).id != used.quiz_id


async def test_what_is_in_a_deleted_quiz_goes_with_its_last_session(storage: Storage) -> None:
    one = await storage.session()
    two = record_of(one.quiz_id, "222222")
    await storage.store.create(two)
    await storage.catalog.delete(one.quiz_id)
    for number, record in enumerate((one, two)):
        await storage.write(record, f.Finished(1, AT))
        assert (await storage.catalog.get(one.quiz_id, 1)).deleted, number
        await storage.store.delete(record.id)
    with pytest.raises(ports.QuizNotFound):
        await storage.catalog.get(one.quiz_id, 1)


async def test_a_session_that_is_over_can_be_deleted(storage: Storage) -> None:
    record, other = await storage.session(), await storage.session()
    await storage.write(other, joined(1, 1, "Ben"))
    with pytest.raises(ports.SessionRunning):
        await storage.store.delete(record.id)
    await storage.write(
        record, joined(1, 1, "Ada"), f.QuestionOpened(2, AT, 1), answered(3, 1, 1), f.Finished(4, AT)
    )
    await storage.store.delete(record.id)
    for key in (record.id, record.code):
        with pytest.raises(ports.SessionNotFound):
            await storage.store.find(key)
    with pytest.raises(ports.SessionNotFound):
        await storage.store.claim(record.id, "reader")
    for key in (record.id, "nowhere"):
        with pytest.raises(ports.SessionNotFound):
            await storage.store.delete(key)
    assert [each.id for each in await storage.store.page(9)] == [other.id]
    assert [row.name for row in await results_of(storage.store, other.id)] == ["Ben"]


async def test_a_deleted_session_takes_no_more_facts(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    storage.journal.append(record.id, claimed.epoch, [f.Finished(1, AT)], listener)
    await listener.until(1)
    await storage.store.delete(record.id)
    storage.journal.append(record.id, claimed.epoch, [joined(2, 1, "Ada")], listener)
    await listener.until_fenced()


async def test_of_an_erased_player_the_name_is_gone_and_the_rest_stays(storage: Storage) -> None:
    record = await storage.session()
    facts = [joined(1, 1, "Ada"), joined(2, 2, "Ben"), f.QuestionOpened(3, AT, 1), answered(4, 1, 1)]
    await storage.write(record, *facts)
    before = await results_of(storage.store, record.id)
    for _ in range(2):
        await storage.store.erase_player(record.id, 1)
        assert await storage.facts(record.id) == [
            f.PlayerJoined(1, facts[0].at, 1, "#1", erased=True),
            *facts[1:],
        ]
    assert await results_of(storage.store, record.id) == [
        replace(row, name="#1" if row.player == 1 else row.name) for row in before
    ]
    assert [await storage.store.seat(record.id, player) for player in (1, 2)] == [NOBODYS, TAKEN]
    for session_id, player in ((record.id, 3), ("nowhere", 1)):
        with pytest.raises(ports.PlayerNotFound):
            await storage.store.erase_player(session_id, player)


async def test_a_player_that_is_a_user_stays_one_until_erased(storage: Storage) -> None:
    record = await storage.session()
    facts = [
        joined(1, 1, "Ada", "user-7"),
        joined(2, 2, "Ben"),
        joined(3, 3, "Ada 2", "ünïcødé \U0001f600" * 8),
    ]
    await storage.write(record, *facts[:1])
    await storage.write(record, *facts[1:], f.QuestionOpened(4, AT, 1))
    assert (await storage.facts(record.id))[:3] == facts
    await storage.store.erase_player(record.id, 1)
    assert (await storage.facts(record.id))[:3] == [f.PlayerJoined(1, facts[0].at, 1, "#1", True), *facts[1:]]


async def test_a_name_that_is_written_again_after_it_was_erased_stays_erased(storage: Storage) -> None:
    """A spool may hold it still."""
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    for facts in ([joined(1, 1, "Ada")], [joined(1, 1, "Ada"), joined(2, 2, "Ben")]):
        storage.journal.append(record.id, claimed.epoch, facts, listener)
        await listener.until(facts[-1].seq)
        await storage.store.erase_player(record.id, 1)
    assert [fact.name for fact in await storage.facts(record.id) if isinstance(fact, f.PlayerJoined)] == [
        "#1",
        "Ben",
    ]


async def test_a_seat_is_taken_or_removed_or_nobodys(storage: Storage) -> None:
    record = await storage.session()
    await storage.write(
        record, f.PlayerJoined(1, AT, 1, "Ada"), f.PlayerJoined(2, AT, 2, "Ben"), f.PlayerKicked(3, AT, 2)
    )
    assert [await storage.store.seat(record.id, player) for player in (1, 2, 3)] == [TAKEN, REMOVED, NOBODYS]
    assert await storage.store.seat("nowhere", 1) is NOBODYS
    for player in (1, 2):
        await storage.store.erase_player(record.id, player)
    assert [await storage.store.seat(record.id, player) for player in (1, 2)] == [NOBODYS, NOBODYS]


async def test_progress_counts_the_questions_that_were_opened(storage: Storage) -> None:
    record = await storage.session()
    assert await storage.store.progress(record.id) == 0
    await storage.write(
        record, f.QuestionOpened(1, AT, 1), f.QuestionClosed(2, AT, 1), f.QuestionOpened(3, AT, 2)
    )
    assert await storage.store.progress(record.id) == 2
    assert await storage.store.progress("nowhere") == 0


# The journal


async def test_facts_come_back_equal_and_in_order(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    storage.journal.append(record.id, claimed.epoch, ONE_OF_EACH[:4], listener)
    storage.journal.append(record.id, claimed.epoch, ONE_OF_EACH[4:5], listener)
    storage.journal.append(record.id, claimed.epoch, ONE_OF_EACH[5:], listener)
    await listener.until(13)
    assert await storage.facts(record.id) == list(ONE_OF_EACH)
    assert listener.seqs == sorted(listener.seqs)
    assert listener.fences == 0


async def test_choices_keep_value_and_type(storage: Storage) -> None:
    numbers: list[f.Choice] = [0, 1, 1.0, 0.0, 0.1, 1e16, -2.5e-7, True, False]
    others: list[f.Choice] = ["", "1", 'naïve " \\ \U0001f600', (), (0,), (0, 2, 3)]
    record = await storage.session()
    facts = [answered(seq, seq, choice=choice) for seq, choice in enumerate(numbers + others, start=1)]
    await storage.write(record, *facts)
    back = [fact.choice for fact in await storage.facts(record.id) if isinstance(fact, f.AnswerAccepted)]
    assert back == numbers + others
    assert list(map(type, back)) == list(map(type, numbers + others))


async def test_nothing_is_written_under_an_old_epoch(storage: Storage) -> None:
    record = await storage.session()
    old = await storage.store.claim(record.id, "old")
    new = await storage.store.claim(record.id, "writer")
    stale, present = Listener(), Listener()
    storage.journal.append(record.id, old.epoch, [joined(1, 1, "Stale")], stale)
    storage.journal.append(record.id, new.epoch, [joined(1, 1, "Present")], present)
    await stale.until_fenced()
    await present.until(1)
    assert (stale.seqs, stale.fences, present.fences) == ([], 1, 0)
    assert await storage.facts(record.id) == [joined(1, 1, "Present")]


async def test_fencing_concerns_one_session_alone(storage: Storage) -> None:
    lost, kept = await storage.session(), await storage.session()
    epochs = {record.id: (await storage.store.claim(record.id, "writer")).epoch for record in (lost, kept)}
    await storage.store.claim(lost.id, "other")
    losing, keeping = Listener(), Listener()
    for seq in (1, 2, 3):
        storage.journal.append(lost.id, epochs[lost.id], [joined(seq)], losing)
        storage.journal.append(kept.id, epochs[kept.id], [joined(seq)], keeping)
    await losing.until_fenced()
    await keeping.until(3)
    assert (losing.fences, losing.seqs, keeping.fences) == (1, [], 0)
    assert await storage.facts(lost.id) == []
    assert len(await storage.facts(kept.id)) == 3


async def test_a_session_that_does_not_exist_is_fenced(storage: Storage) -> None:
    listener = Listener()
    storage.journal.append(replace(record_of("x")).id, 1, [joined(1)], listener)
    await listener.until_fenced()


async def test_repeated_facts_change_nothing(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    for _ in range(2):
        listener = Listener()
        storage.journal.append(record.id, claimed.epoch, ONE_OF_EACH, listener)
        await listener.until(13)
    assert await storage.facts(record.id) == list(ONE_OF_EACH)


async def test_the_end_is_on_the_record(storage: Storage) -> None:
    record = await storage.session()
    await storage.write(record, joined(1), f.Finished(2, AT + 77))
    assert (await storage.store.find(record.id)).finished_at == AT + 77
    assert (await storage.store.claim(record.id, "writer")).record.finished_at == AT + 77


async def test_a_full_queue_has_no_room_and_still_takes_what_it_is_given(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    assert storage.journal.has_room()
    storage.journal.append(record.id, claimed.epoch, [joined(seq) for seq in range(1, 101)], listener)
    assert not storage.journal.has_room()
    storage.journal.append(record.id, claimed.epoch, [f.Paused(101, AT)], listener)
    await listener.until(101)
    assert storage.journal.has_room()
    assert len(await storage.facts(record.id)) == 101


async def test_what_matters_less_may_fill_less_of_the_room(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    storage.journal.append(record.id, claimed.epoch, [joined(seq) for seq in range(1, 80)], listener)
    assert storage.journal.has_room(ports.JOINS_SHARE)
    storage.journal.append(record.id, claimed.epoch, [joined(80)], listener)
    assert not storage.journal.has_room(ports.JOINS_SHARE)
    assert storage.journal.has_room()
    await listener.until(80)
    assert storage.journal.has_room(ports.JOINS_SHARE)


async def test_what_is_reported_is_found_by_a_claim_once_it_is_settled(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    storage.journal.append(record.id, claimed.epoch, ONE_OF_EACH, listener)
    await listener.until(13)
    await storage.journal.settled(record.id)
    assert list((await storage.store.claim(record.id, "writer")).facts) == list(ONE_OF_EACH)


async def test_an_empty_append_is_nothing(storage: Storage) -> None:
    record = await storage.session()
    claimed = await storage.store.claim(record.id, "writer")
    listener = Listener()
    storage.journal.append(record.id, claimed.epoch, [], listener)
    storage.journal.append(record.id, claimed.epoch, [joined(1)], listener)
    await listener.until(1)
    assert (listener.seqs, listener.fences) == ([1], 0)


# Lists, page by page


async def test_quizzes_are_listed_page_by_page_whatever_is_added_meanwhile(
    catalog: ports.QuizCatalog,
) -> None:
    for title in ("B", "D", "B", "A", "C"):
        await catalog.add(quiz_of(title))
    await catalog.add(quiz_of("E"), "a")  # an edit: the quiz has moved to the end
    first = await catalog.page(2)
    assert [each.id for each in first] == ["b", "b-2"]
    await catalog.add(quiz_of("A new one in front"))
    after = (first[-1].title, first[-1].id)
    second = await catalog.page(2, after)
    assert [each.title for each in second] == ["C", "D"]
    third = await catalog.page(2, (second[-1].title, second[-1].id))
    assert [(each.id, each.title) for each in third] == [("a", "E")]
    assert await catalog.page(2, (third[-1].title, third[-1].id)) == []


async def test_quizzes_are_listed_by_owner_and_by_a_text_in_the_title(catalog: ports.QuizCatalog) -> None:
    await catalog.add(quiz_of("Ünits of measure"), "a", "ada")
    await catalog.add(quiz_of("Capitals"), "b", "ben")
    await catalog.add(quiz_of("More ÜNITS"), "c")
    await catalog.add(quiz_of("100 % of it_all"), "d", "ada")

    async def found(**how: Any) -> list[str]:
        return [each.id for each in await catalog.page(9, **how)]

    assert await found() == ["d", "b", "c", "a"]
    assert await found(owners=["ada"]) == ["d", "a"]
    assert await found(owners=["ada", None]) == ["d", "c", "a"]
    assert await found(owners=[None]) == ["c"]
    assert await found(owners=["nobody"]) == []
    assert await found(title="üNITS") == ["c", "a"]
    assert await found(title="üNITS", owners=["ada"]) == ["a"]
    assert await found(title="T") == ["d", "b", "c", "a"]
    assert await found(title="% o") == ["d"]
    assert await found(title="t_a") == ["d"]
    assert await found(title="ital") == ["b"]
    assert await found(title="itls") == []
    assert await found(title="m", after=("Capitals", "b")) == ["c", "a"]


async def test_a_quiz_keeps_its_owner_and_others_are_refused_before_they_write(
    catalog: ports.QuizCatalog,
) -> None:
    asked: list[str | None] = []

    def refuse(owner_id: str | None) -> None:
        asked.append(owner_id)
        raise PermissionError

    made = await catalog.add(quiz_of(), "caps", "ada", refuse)  # there is none yet
    assert (made.owner_id, asked) == ("ada", [])
    for quiz in (quiz_of(), quiz_of("Other")):
        with pytest.raises(PermissionError):
            await catalog.add(quiz, "caps", "ben", refuse)
    assert asked == ["ada", "ada"]
    edited = await catalog.add(quiz_of("Other"), "caps", "ben")
    assert (edited.version, edited.owner_id) == (2, "ada")
    assert (await catalog.get("caps")).owner_id == "ada"
    await catalog.delete("caps")
    again = await catalog.add(quiz_of(), "caps", "ben", refuse)
    assert (again.version, again.owner_id) == (3, "ben")
    assert [each.owner_id for each in await catalog.versions("caps", 9)] == ["ben"]


async def test_sessions_are_listed_page_by_page_by_owner_and_by_title(storage: Storage) -> None:
    for quiz_id, title in (("caps", "Capitals"), ("units", "Units")):
        await storage.catalog.add(quiz_of(title), quiz_id)
    made = []
    for n, (quiz_id, owner_id) in enumerate(
        [("caps", "ada"), ("units", None), ("caps", "ben"), ("units", "ada"), ("units", "ada")]
    ):
        record = replace(record_of(quiz_id, created_at=AT + n // 2), owner_id=owner_id)
        await storage.store.create(record)
        made.append(record)
    assert (await storage.store.find(made[0].id)).owner_id == "ada"
    order = sorted(made, key=lambda each: (each.created_at, each.id), reverse=True)

    async def found(limit: int = 9, **how: Any) -> list[str]:
        return [each.id for each in await storage.store.page(limit, **how)]

    assert await found() == [each.id for each in order]
    for at in range(5):
        after = (order[at].created_at, order[at].id)
        assert await found(2, after=after) == [each.id for each in order[at + 1 : at + 3]]
        mine = [each.id for each in order[at + 1 :] if each.owner_id == "ada"]
        assert await found(after=after, owners=["ada"]) == mine
    units = [each.id for each in order if each.quiz_id == "units"]
    assert await found(title="uNIT") == units
    assert await found(title="unit", owners=[None]) == [made[1].id]
    assert {each.owner_id for each in await storage.store.page(9, owners=["ben"])} == {"ben"}
