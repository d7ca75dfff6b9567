"""Postgres for all nodes, in memory, and the ends of it that one run of a node has; and a node's disk.

What stands in for Postgres understands the handful of statements that the write-behind says, so the real
write-behind, spooling and signs of life run over it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import trio

from engine.domain.facts import Fact
from engine.ports import ClaimedSession, SpooledFacts, StorageUnavailable
from engine.storage import heartbeat
from engine.storage.heartbeat import FORGET_NODES, STILL_OWN
from engine.storage.journal.retained import PUT_ASIDE
from engine.storage.journal.rows import fact_of
from engine.storage.spool.codec import decode_facts
from engine.storage.spool.records import Record
from engine.storage.spool.segments import SpoolStatistics
from tests.fakes import MemoryCatalog, MemorySessionStore
from tests.storage.statements import as_commit

if TYPE_CHECKING:
    from tests.shards.simulation.world import Process, World

Rows = Sequence[Any]

CLAIMS_MAX, CLAIMS_S = 5, 2.0
"""A session that the same run claims more often than that within so long moves for nothing."""

UNSEEN_MS = 5_000
"""Spooled facts that nobody has seen to for so long are seen to by any node."""


class Sessions(MemorySessionStore):
    """Checks, with every change, what must hold of all owners together."""

    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__(MemoryCatalog())
        self.writers: dict[tuple[str, int], str] = {}
        self.handed_on: set[tuple[str, int]] = set()
        """Sessions and epochs, the last of an owner who gave the session away."""
        self.taken: set[str] = set()
        """Sessions that were taken over from another node."""
        self._claims: dict[tuple[str, str], deque[float]] = {}

    @property
    def now_ms(self) -> int:
        return self._world.now_ms()

    @now_ms.setter
    def now_ms(self, _: int) -> None: ...

    async def claim(
        self, session_id: str, owner: str, gone: Callable[[str], bool] | None = None
    ) -> ClaimedSession:
        before, granted_by = self._rows[session_id].owner, self._rows[session_id].granted_by
        claimed = await super().claim(session_id, owner, gone)
        if before not in (None, owner):
            self.taken.add(session_id)
        if granted_by is not None:
            self.handed_on.add((session_id, claimed.epoch - 1))
        claims = self._claims.setdefault((session_id, owner), deque(maxlen=CLAIMS_MAX))
        if len(claims) == CLAIMS_MAX and trio.current_time() - claims[0] < CLAIMS_S:
            self._world.blame(
                f"{session_id} does not come to rest: {CLAIMS_MAX} claims since {claims[0]:.3f}"
            )
        claims.append(trio.current_time())
        self._world.trace(f"{session_id} belongs to {owner} under epoch {claimed.epoch}")
        return claimed

    async def grant(self, session_id: str, epoch: int, owner: str, to: str | None) -> bool:
        granted = await super().grant(session_id, epoch, owner, to)
        if granted:
            self._world.trace(f"{session_id} is granted to {to} by {owner}")
        return granted

    def commit(self, session_id: str, epoch: int, facts: Sequence[Fact], node: str) -> bool:
        """As `write`, by a node."""
        row = self._rows[session_id]
        before = dict(row.facts)
        if not self.write(session_id, epoch, facts):
            self._world.trace(f"{session_id}: {node} is fenced, epoch {epoch} is over")
            return False
        blame = self._world.blame
        if self.writers.setdefault((session_id, epoch), node) != node:
            blame(f"{session_id}: {node} and {self.writers[session_id, epoch]} commit under epoch {epoch}")
        for fact in facts:
            if before.get(fact.seq, fact) != fact:
                blame(f"{session_id}: fact {fact.seq} was {before[fact.seq]} and would be {fact}")
        if sorted(row.facts) != list(range(1, len(row.facts) + 1)):
            blame(f"{session_id}: facts are missing among {sorted(row.facts)}")
        new = [fact for fact in facts if fact.seq not in before]
        if new:
            self._world.trace(f"{session_id}: {node} commits {new}")
        return True

    def still_own(self, ids: Sequence[str], epochs: Sequence[int], owner: str) -> Rows:
        rows = [self._rows.get(session_id) for session_id in ids]
        return [
            {"id": row.record.id, "epoch": row.epoch}
            for row, epoch in zip(rows, epochs, strict=True)
            if row is not None and row.epoch == epoch and row.owner == owner
        ]

    def finished(self, session_id: str) -> bool:
        return self._rows[session_id].record.finished_at is not None

    def owned_by_run(self, session_id: str, epoch: int, run: str) -> bool:
        """Whether nobody has taken it. One that was granted to another is nobody's until that claims it."""
        row = self._rows[session_id]
        return row.epoch == epoch and run in (row.owner, row.granted_by)

    def check_put_aside(self, session_id: str, epoch: int, facts: Sequence[Fact]) -> None:
        """Who gives a session away has all of its facts in the store. What is read from the spool again after
        a crash is there already."""
        if (session_id, epoch) in self.handed_on:
            stored = self._rows[session_id].facts
            for fact in facts:
                if stored.get(fact.seq) != fact:
                    self._world.blame(f"{session_id} was handed on without {fact}")

    def sees_to(self, session_id: str, owner: str, *, late: bool) -> bool:
        """Whether spooled facts of the session are for this run to merge."""
        row = self._rows[session_id]
        if row.owner == owner:
            return True
        over = row.record.finished_at is not None and not self._holds(row.owner or "")
        return late and (row.owner is None or over)


@dataclass
class _PutAside:
    id: int
    session_id: str
    epoch: int
    facts: Sequence[Fact]
    at: int
    merged: bool = False


class Postgres:
    """What all nodes share. `unreachable` are nodes that it does not hear; `slow_s` is by how much longer
    everything takes, at most."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sessions = Sessions(world)
        self.unreachable: set[str] = set()
        self.slow_s = 0.0
        self.put_aside: dict[tuple[str, int, int], _PutAside] = {}
        self._lease_since: dict[str, int] = {}

    def reached_by(self, process: Process) -> bool:
        return process.name not in self.unreachable

    def latency_s(self) -> float:
        draw = self._world.draw
        return draw.uniform(0.001, 0.01) + (draw.uniform(0.0, self.slow_s) if self.slow_s else 0.0)

    def say(self, process: Process, sql: str, args: Sequence[Any]) -> Rows:
        """One statement, all of it at one moment."""
        if (commit := as_commit(sql, args)) is not None:
            return self._commit(process, commit)
        if sql == heartbeat._RENEW:
            return self._renew(*args)
        if sql == heartbeat._GIVE_BACK:
            return self._give_back(*args)
        if sql == STILL_OWN:
            return self.sessions.still_own(*args)
        if sql == PUT_ASIDE:
            return self._put_aside(*args)
        assert sql in (FORGET_NODES, "SELECT"), sql
        return []

    def _commit(self, process: Process, args: Sequence[Any]) -> Rows:
        ids, epochs, *columns = args
        facts: dict[int, list[Fact]] = {n: [] for n in range(1, len(ids) + 1)}
        for row in zip(*columns[:6], strict=True):
            n, player, name, at, seq, user_id = row
            facts[n].append(_fact(seq, "joined", at, player, None, name, None, False, None, user_id))
        for kind, first in (("answered", 6), ("merged", 25)):
            for row in zip(*columns[first : first + 9], strict=True):
                n, question, player, seq, choice, elapsed_ms, correct, points, at = row
                facts[n].append(_fact(seq, kind, at, player, question, choice, elapsed_ms, correct, points))
        for row in zip(*columns[15:23], strict=True):
            n, seq, kind, question, player, by_ms, locked, at = row
            facts[n].append(_fact(seq, kind, at, player, question, None, None, locked, by_ms))
        live = []
        for n, (session_id, epoch) in enumerate(zip(ids, epochs, strict=True), start=1):
            in_order = sorted(facts[n], key=lambda fact: fact.seq)
            if self.sessions.commit(session_id, epoch, in_order, process.name):
                live.append({"n": n})
        return live

    def _renew(self, run: str, alive_at: int, address: str, ttl_s: float) -> Rows:
        store, now = self.sessions, self._world.now_ms()
        store.alive[run] = max(alive_at, store.alive.get(run, alive_at))
        store.addresses[run] = address
        if store.leases.get(run, 0) <= now:
            self._lease_since[run] = now
        store.leases[run] = now + int(ttl_s * 1000)
        return [{"lease_since": self._lease_since[run]}]

    def _give_back(self, run: str, alive_at: int) -> Rows:
        self.sessions.leases[run] = self._world.now_ms()
        self.sessions.alive[run] = max(alive_at, self.sessions.alive.get(run, alive_at))
        return []

    def _put_aside(self, session_id: str, epoch: int, seq: int, count: int, _: str, data: str) -> Rows:
        number = len(self.put_aside) + 1
        part = _PutAside(number, session_id, epoch, decode_facts(orjson.loads(data)), self._world.now_ms())
        self.put_aside.setdefault((session_id, epoch, seq), part)
        self.sessions.check_put_aside(session_id, epoch, part.facts)
        self._world.trace(f"{session_id}: {count} facts of epoch {epoch} are put aside")
        return []

    # For the merging.

    async def waiting(self, owner: str) -> Sequence[str]:
        late = self._world.now_ms() - UNSEEN_MS
        return sorted(
            {
                part.session_id
                for part in self.put_aside.values()
                if not part.merged and self.sessions.sees_to(part.session_id, owner, late=part.at < late)
            }
        )

    async def spooled(self, session_id: str) -> Sequence[SpooledFacts]:
        return [
            SpooledFacts(part.id, part.epoch, part.facts, part.merged)
            for part in self.put_aside.values()
            if part.session_id == session_id
        ]

    async def set_merged(self, ids: Sequence[int]) -> None:
        for part in self.put_aside.values():
            part.merged = part.merged or part.id in ids


_COLUMNS = ("seq", "kind", "at", "player", "question", "text", "elapsed_ms", "flag", "number", "user_id")


class _Row(tuple[Any, ...]):
    def __getitem__(self, column: Any) -> Any:
        return super().__getitem__(_COLUMNS.index(column))


def _fact(*values: object) -> Fact:
    return fact_of(_Row((*values, *[None] * (len(_COLUMNS) - len(values)))))


class Ends:
    """What one run of a node has of Postgres: ports `SessionStore` and `SpooledFactsStore`, and what the
    write-behind needs of a database."""

    def __init__(self, process: Process, postgres: Postgres) -> None:
        self._process = process
        self._postgres = postgres

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """A call of a port: on its way there, done, on its way back."""
        of = self._postgres if hasattr(Postgres, name) else self._postgres.sessions
        return partial(self._ask, getattr(of, name))

    def connection(self) -> Ends:
        return self

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def fetch(self, sql: str, *args: object, timeout_s: float = math.inf) -> Rows:
        async def say() -> Rows:
            return self._postgres.say(self._process, sql, args)

        with trio.move_on_after(timeout_s):
            return await self._ask(say)  # type: ignore[no-any-return]
        raise StorageUnavailable("no answer in the simulation")

    async def _ask(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Raises StorageUnavailable; then it may be done, or be done later all the same."""
        process, postgres = self._process, self._postgres
        await process.turn()
        await self._travel()
        try:
            await trio.sleep(postgres.latency_s())
        except trio.Cancelled:
            # Whoever asked has given up, or is dead. That does not call the request back.
            if process.world.draw.random() < 0.5:
                process.world.later(postgres.latency_s(), work, *args)
            raise
        result = await work(*args)
        if postgres.slow_s or process.world.draw.random() < 0.3:
            await trio.sleep(postgres.latency_s())
        await self._travel()
        await process.turn()
        return result

    async def _travel(self) -> None:
        if not self._postgres.reached_by(self._process):
            await trio.sleep(self._process.world.draw.uniform(0.05, 1.5))
            raise StorageUnavailable("cut off by the simulation")


class Disk:
    """Of a node: what is on it outlives the node's runs. `facts` are in the spool and not forgotten."""

    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.number = 0
        self.facts = 0


class MemorySpool:
    """`engine.storage.spool.segments.Spool` of one run, over the disk of its node. What an earlier run had
    forgotten but not cleared is there again, as it is in the files."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._unread = deque(disk.kept)
        disk.facts = sum(record.facts for record in disk.kept)

    async def turn(self) -> None:
        """What a thread that touches the disk waits for. Raises OSError in a run that is dead."""
        await self._process.turn()
        await trio.sleep(self._process.world.draw.uniform(0.0005, 0.005))
        await self._process.turn()

    @property
    def number(self) -> int:
        return self._disk.number

    def statistics(self) -> SpoolStatistics:
        return SpoolStatistics(self._disk.facts, self._disk.facts * 100, None)

    def append(self, payload: bytes, facts: int, at: int) -> None:
        self._disk.number += 1
        record = Record(self._disk.number, facts, at, payload)
        self._disk.kept.append(record)
        self._unread.append(record)
        self._disk.facts += facts

    def probe(self) -> None:
        pass

    def read(self, facts_max: int) -> Sequence[Record]:
        found: list[Record] = []
        while self._unread and (
            not found or sum(r.facts for r in found) + self._unread[0].facts <= facts_max
        ):
            found.append(self._unread.popleft())
        return found

    def forget(self, records: Sequence[Record]) -> None:
        self._disk.facts -= sum(record.facts for record in records)

    def clear(self) -> None:
        assert not self._disk.facts, "facts would be lost"
        self._disk.kept.clear()
        self._unread.clear()
