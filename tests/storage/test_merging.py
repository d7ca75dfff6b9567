"""A node acknowledges from its spool, another takes the session, and what was acknowledged is merged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import trio

from engine.actors.actor import SessionActor
from engine.actors.clock import SessionClock
from engine.actors.commands import Answer, Host, Join, Next
from engine.actors.merging import Merging
from engine.actors.registry import Registry
from engine.domain.quiz import Quiz
from engine.domain.self_pace import Stage
from engine.domain.session import Phase, Session
from engine.ports import SessionRecord
from engine.shards.router import Router
from engine.storage.catalog import PostgresCatalog
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from engine.storage.sessions import PostgresSessionStore
from engine.storage.spool.put_aside import PostgresSpooledFacts
from tests.actors.world import Client, PlainTokens
from tests.lone_node import LoneNode
from tests.settings import at_once
from tests.storage.making import results_of
from tests.storage.waiting import until
from tests.storage.world import Away, Node

QUIZ = Quiz.parse(
    {
        "title": "Merged",
        "scoring": {"rule": "flat"},
        "questions": [
            {"type": "single", "text": f"{n}?", "choices": ["a", "b"], "correct": "b", "time_limit_s": 60}
            for n in (1, 2, 3)
        ],
    }
)
SETTINGS = at_once(pace="host", early_close=False, board="live")
"""What is merged shows at once, so that memory and store can be compared at any time."""
_codes = count(700_000)


@dataclass
class Players:
    """The actors of one node, played directly."""

    registry: Registry
    router: Router
    store: PostgresSessionStore
    merging: Merging
    clock: SessionClock
    record: SessionRecord = field(init=False)

    async def actor(self) -> SessionActor:
        key = self.record.id
        return self.registry.here(key) or await self.registry.revive(await self.store.find(key))

    async def join(self, name: str) -> int:
        client = Client()
        (await self.actor()).send(Join(client, name, self.clock.now_ms()))
        message = await _first(client)
        assert message["t"] == "joined", message
        player = message["player"]
        assert isinstance(player, int)
        return player

    async def answer(self, player: int, choice: int, question: int = 1, attempt: int | None = None) -> str:
        client = Client()
        now = self.clock.now_ms()
        (await self.actor()).send(Answer(client, player, "a", question, choice, now, attempt=attempt))
        message = await _first(client)
        return str(message.get("status", message.get("code")))

    async def next(self, player: int, attempt: int | None = None) -> object:
        """The number of the question that the player is shown."""
        client = Client()
        (await self.actor()).send(Next(client, player, "n", attempt=attempt))
        return (await _first(client)).get("number")

    async def host(self, do: str, **more: Any) -> None:
        client = Client()
        (await self.actor()).send(Host(client, "h", do, **more))
        assert (await _first(client))["t"] == "done"


async def _first(client: Client) -> dict[str, object]:
    await until(lambda: client.frames or client.close_reason is not None)
    assert client.frames, client.close_reason
    return dict(client.frames[0].message)


@asynccontextmanager
async def players(database: Database, journal: WriteBehind, owner: str) -> AsyncIterator[Players]:
    clock = SessionClock()
    catalog = PostgresCatalog(database, clock.now_ms)
    store = PostgresSessionStore(database, catalog)
    async with trio.open_nursery() as nursery:
        lone = LoneNode(
            nursery,
            store=store,
            catalog=catalog,
            journal=journal,
            tokens=PlainTokens(),
            clock=clock,
            run=owner,
            new_id=lambda: str(uuid4()),
            new_code=lambda: str(next(_codes)),
        )
        merging = Merging(lone.registry, store, PostgresSpooledFacts(database), owner)
        yield Players(lone.registry, lone.router, store, merging, clock)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def other(away: Away) -> AsyncIterator[Players]:
    """A node with a way of its own to the database, and without a spool."""
    database = away.world.database
    journal = WriteBehind(database, owner="other", now_ms=SessionClock().now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        async with players(database, journal, "other") as found:
            yield found
        nursery.cancel_scope.cancel()


async def begun(node: Players, database: Database) -> SessionRecord:
    """A session with Ann and Ben, question 1 open."""
    stored = await PostgresCatalog(database, lambda: 0).add(QUIZ)
    node.record = await node.router.create(stored.id, SETTINGS)
    assert [await node.join(name) for name in ("Ann", "Ben")] == [1, 2]
    await node.host("start")
    return node.record


async def agreed(away: Away, record: SessionRecord, session: Session) -> list[tuple[str, int]]:
    """Memory, stored results and recovery say the same. Names and scores, best first."""
    results = await results_of(away.world.store, record.id)
    assert [(line.rank, line.player, line.score, line.elapsed_ms) for line in results] == [
        (entry.rank, entry.player, entry.score, entry.elapsed_ms) for entry in session.leaderboard.ranked()
    ]
    claimed = await away.world.store.claim(record.id, "reader")
    assert Session.recover(QUIZ, SETTINGS, record.created_at, claimed.facts) == session
    return [(line.name, line.score) for line in results]


async def drained(away: Away) -> None:
    """The node that went away comes back and empties its spool."""
    away.gate.set("open")
    async with away.node() as back:
        await back.drained()


async def spooling_first(node: Node, first: Players, away: Away) -> None:
    await node.drained()  # what came before is in Postgres, by whatever way
    away.gate.set("shut")
    assert await first.answer(1, 1) == "accepted"
    assert node.active


async def test_what_a_node_acknowledged_before_it_died_is_merged_by_the_present_owner(
    away: Away,
) -> None:
    async with away.node() as node, players(away.behind, node.journal, "node") as first:
        record = await begun(first, away.world.database)
        await spooling_first(node, first, away)
        zoe = await first.join("Zoë")
        assert await first.answer(zoe, 1) == "accepted"
        assert await first.answer(2, 0) == "accepted"

    async with other(away) as second:
        second.record = record
        # Ben, who had no answer here, answers again, and rightly; Max gets the number that Zoë had.
        assert await second.answer(2, 1) == "accepted"
        assert await second.join("Max") == zoe
        await second.merging.look()
        assert (await second.actor()).session.active == 3

        await drained(away)
        await second.merging.look()
        actor = await second.actor()
        assert actor.session.answered == 3
        assert actor.session.called("Zoë") == 4
        # Ben's first answer stands, and it was wrong.
        scores = {"Ann": 1000, "Zoë": 1000, "Ben": 0, "Max": 0}
        assert dict(await agreed(away, record, actor.session)) == scores
        rows = await away.world.database.fetch("SELECT merged_at FROM spooled_facts")
        assert rows
        assert all(row["merged_at"] is not None for row in rows)
        merged = await away.world.database.fetch(
            "SELECT player FROM standing_answers WHERE merged ORDER BY 1"
        )
        assert [row["player"] for row in merged] == [1, 2, 4]


async def test_a_session_that_is_over_gets_what_was_acknowledged_into_its_results(
    away: Away,
) -> None:
    async with away.node() as node, players(away.behind, node.journal, "node") as first:
        record = await begun(first, away.world.database)
        await spooling_first(node, first, away)
    async with other(away) as second:
        second.record = record
        await second.host("finish")
    await drained(away)
    # Its owner is gone, and nobody plays any more: any node may see to it, after a while.
    await away.world.database.execute("UPDATE spooled_facts SET put_at = put_at - interval '1 minute'")
    await away.world.database.execute("UPDATE sessions SET owner = 'gone' WHERE id = $1", record.id)
    async with other(away) as third:
        third.record = record
        await third.merging.look()
        session = (await third.actor()).session
        assert session.phase is Phase.FINISHED
        assert await agreed(away, record, session) == [("Ann", 1000), ("Ben", 0)]


async def test_what_comes_in_parts_finds_the_players_of_earlier_parts(
    away: Away,
) -> None:
    async with away.node(batch_facts_max=1) as node, players(away.behind, node.journal, "node") as first:
        record = await begun(first, away.world.database)
        await spooling_first(node, first, away)
        zoe = await first.join("Zoë")
        assert await first.answer(zoe, 1) == "accepted"
        epoch = (await first.actor()).epoch
    async with other(away) as second:
        second.record = record
        assert await second.join("Max") == zoe
        await drained(away)
        database = away.world.database
        last = "(SELECT max(id) FROM spooled_facts)"
        await database.execute(f"UPDATE spooled_facts SET merged_at = now() WHERE id = {last}")
        await second.merging.look()
        assert (await second.actor()).session.called("Zoë") == 4
        await database.execute(f"UPDATE spooled_facts SET merged_at = NULL WHERE id = {last}")
        await second.merging.look()
        session = (await second.actor()).session
        assert session.answer_of(4, 1) is not None
        assert session.answer_of(3, 1) is None
        assert epoch < (await second.actor()).epoch


async def test_the_same_spool_twice_changes_nothing(away: Away) -> None:
    async with away.node() as node, players(away.behind, node.journal, "node") as first:
        record = await begun(first, away.world.database)
        await spooling_first(node, first, away)
    async with other(away) as second:
        second.record = record
        await drained(away)
        await second.merging.look()
        before = (await second.actor()).session.seq
        await away.world.database.execute("UPDATE spooled_facts SET merged_at = NULL")
        await second.merging.look()
        assert (await second.actor()).session.seq == before
        assert not await away.world.database.fetch("SELECT FROM spooled_facts WHERE merged_at IS NULL")


async def test_what_players_at_their_own_pace_and_their_host_were_told_is_merged(away: Away) -> None:
    settings = at_once(pace="self", open_ms=3_600_000)
    async with away.node() as node, players(away.behind, node.journal, "node") as first:
        stored = await PostgresCatalog(away.world.database, lambda: 0).add(QUIZ)
        record = first.record = await first.router.create(stored.id, settings)
        assert [await first.join(name) for name in ("Ann", "Ben")] == [1, 2]
        await node.drained()
        away.gate.set("shut")
        for number in (1, 2, 3):
            assert await first.next(1) == number
            assert await first.answer(1, 1, number) == "accepted"
        assert await first.next(2) == 1
        await first.host("extra_time", player=2, percent=200)
        closes_at = first.clock.now_ms() + 7_200_000
        await first.host("extend", closes_at=closes_at)
        assert node.active

    async with other(away) as second:
        second.record = record
        assert await second.next(1) == 1
        assert await second.answer(1, 0, 1) == "accepted"
        await drained(away)
        await second.merging.look()
        session = (await second.actor()).session
        assert session.self_pace is not None
        assert session.self_pace.way(1).stage is Stage.DONE
        assert (session.leaderboard.score(1), session.answered) == (3000, 1)
        assert session.self_pace.way(2).asked == 1
        assert session.extra_time_of(2) == 200
        assert session.deadline == closes_at
        assert await second.answer(1, 1, 1) == "accepted", "the first of the two, which the dead owner took"
        await (await second.actor()).live.journal.settled(record.id)
        claimed = await away.world.store.claim(record.id, "reader")
        assert Session.recover(QUIZ, settings, record.created_at, claimed.facts) == session


async def test_attempts_that_two_owners_let_players_begin_are_merged(away: Away) -> None:
    settings = at_once(pace="self", attempts=2)
    async with away.node() as node, players(away.behind, node.journal, "node") as first:
        stored = await PostgresCatalog(away.world.database, lambda: 0).add(QUIZ)
        record = first.record = await first.router.create(stored.id, settings)
        assert [await first.join(name) for name in ("Ann", "Ben")] == [1, 2]
        for player in (1, 2):
            for number in (1, 2, 3):
                assert await first.next(player) == number
                assert await first.answer(player, 0, number) == "accepted"
        await node.drained()
        away.gate.set("shut")
        assert await first.next(1, 2) == 1
        assert await first.answer(1, 1, 1, 2) == "accepted"
        zoe = await first.join("Zoë")
        for number in (1, 2, 3):
            assert await first.next(zoe) == number
            assert await first.answer(zoe, 0, number) == "accepted"
        assert await first.next(zoe, 2) == 1
        assert await first.answer(zoe, 1, 1, 2) == "accepted"
        assert node.active

    async with other(away) as second:
        second.record = record
        # Both take the numbers that Ann's second attempt and Zoë had; Ann then answers the other question.
        assert await second.next(2, 2) == 1
        assert await second.next(1, 2) == 1
        assert await second.answer(2, 1, 1, 2) == "accepted"
        await drained(away)
        await second.merging.look()
        session = (await second.actor()).session
        assert await second.next(1, 2) == 2
        assert await second.answer(1, 1, 2, 2) == "accepted"
        assert session.called("Zoë") == 5
        assert await second.next(5, 2) == 2
        await (await second.actor()).live.journal.settled(record.id)
        results = await results_of(away.world.store, record.id)
        ranked = list(session.leaderboard.ranked())
        assert [(line.rank, line.player, line.score, line.elapsed_ms) for line in results] == ranked
        assert {session.name_of(entry.player): entry.score for entry in ranked} == {
            "Ann": 2000,
            "Ben": 1000,
            "Zoë": 1000,
        }
        claimed = await away.world.store.claim(record.id, "reader")
        assert Session.recover(QUIZ, settings, record.created_at, claimed.facts) == session
