"""How many synced batches a second a disk takes from the spool and from SQLite, how long an append takes
while the loop is busy, and how long a fact waits for its report by way of the spool.

The disk is that of the system's temporary directory.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import trio

from bench.figures import Costs, Figure, percentile
from bench.group_commit import Bench, Listener, Steps, busy, pace
from engine.aio import open_asyncio
from engine.storage.journal.writer import WriteBehind
from engine.storage.postgres import Database
from engine.storage.spool.journal import SWITCH_INTERVAL_S, SpoolJournal
from engine.storage.spool.segments import Spool

ROUNDS = 5
BATCHES = 150
SIZES = (200, 20_000)
APPENDS_S = 0.8

SPOOL = "spool"
SQLITE = {
    "SQLite, WAL, FULL": ("wal", "full"),
    "SQLite, rollback journal, EXTRA": ("delete", "extra"),
}


class Sure:
    def certain(self, now_s: float) -> bool:
        return True


def to_spool(directory: Path) -> Callable[[bytes], None]:
    spool = Spool(directory)
    return lambda payload: spool.append(payload, 1, 0)


def to_sqlite(directory: Path, journal: str, synchronous: str) -> Callable[[bytes], None]:
    connection = sqlite3.connect(directory / "spool.db", isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE batches (number INTEGER PRIMARY KEY, checksum INTEGER, payload BLOB)")

    def append(payload: bytes) -> None:
        connection.execute(
            "INSERT INTO batches (checksum, payload) VALUES (?, ?)", (zlib.crc32(payload), payload)
        )

    return append


def stores(costs: Costs, size: int) -> None:
    payload = b"x" * size
    for name in (SPOOL, *SQLITE):
        with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
            directory = Path(path)
            append = to_spool(directory) if name == SPOOL else to_sqlite(directory, *SQLITE[name])
            append(payload)
            started = time.perf_counter()
            for _ in range(BATCHES):
                append(payload)
            costs.add(name, size, BATCHES / (time.perf_counter() - started))


DEFAULT_S = 0.005
IDLE = "idle loop"
BUSY = "busy loop"
BUSY_DEFAULT = "busy loop, switches as Python has them"


async def appends(costs: Costs, loop: str) -> None:
    """From a task, by way of a thread."""
    loaded = loop != IDLE
    what = f"append, {loop}"
    sys.setswitchinterval(DEFAULT_S if loop == BUSY_DEFAULT else SWITCH_INTERVAL_S)
    steps = Steps()
    took_s = []
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        spool = Spool(Path(path))
        async with trio.open_nursery() as nursery:
            if loaded:
                nursery.start_soon(busy, steps)
            until = time.perf_counter() + APPENDS_S
            while time.perf_counter() < until:
                started = time.perf_counter()
                await trio.to_thread.run_sync(spool.append, b"x" * 2_000, 1, 0)
                took_s.append(time.perf_counter() - started)
            nursery.cancel_scope.cancel()
    costs.add(f"{what}, ms p50", 2_000, 1000 * percentile(took_s, 0.5))
    costs.add(f"{what}, ms p99", 2_000, 1000 * percentile(took_s, 0.99))


async def by_way_of_it(costs: Costs, loop: str) -> None:
    """8,000 facts a second, and no database."""
    loaded = loop != IDLE
    what = f"8,000 facts/s, {loop}"
    sys.setswitchinterval(DEFAULT_S if loop == BUSY_DEFAULT else SWITCH_INTERVAL_S)
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        spool = Spool(Path(path) / "spool")
        async with open_asyncio(), Database.open(f"postgresql://x@/x?host={path}") as database:
            journal = WriteBehind(
                database,
                owner="bench",
                now_ms=lambda: 0,
                spool=SpoolJournal(spool, lease=Sure(), now_ms=lambda: 0),
                spool_after_s=0.05,
                retry_max_s=0.5,
                shutdown_s=0.0,
            )
            bench = Bench(database, [(str(uuid4()), 1) for _ in range(20)])
            waits_s: list[float] = []
            listeners = [Listener(waits_s) for _ in bench.sessions]
            async with trio.open_nursery() as nursery:
                await nursery.start(journal.run)
                nursery.start_soon(pace, journal, bench, listeners, 500)
                if loaded:
                    nursery.start_soon(busy, steps)
                while journal.straight:  # noqa: ASYNC110  # once, before the measurement
                    await trio.sleep(0.01)
                await trio.sleep(0.3)
                trio.lowlevel.add_instrument(steps)
                waits_s.clear()
                await trio.sleep(APPENDS_S)
                trio.lowlevel.remove_instrument(steps)
                seen_s = list(waits_s)
                nursery.cancel_scope.cancel()
        with suppress(OSError):
            spool.close()
    costs.add(f"{what}, ms p50", 0, 1000 * percentile(seen_s, 0.5))
    costs.add(f"{what}, ms p99", 0, 1000 * percentile(seen_s, 0.99))
    costs.add(f"{what}, ms held", 0, 1000 * max(steps.held_s))


async def measure_all(rounds: int) -> Costs:
    costs = Costs()
    for _ in range(rounds):
        for size in SIZES:
            stores(costs, size)
        for loop in (IDLE, BUSY, BUSY_DEFAULT):
            await appends(costs, loop)
            await by_way_of_it(costs, loop)
    return costs


def run(rounds: int = ROUNDS) -> list[Figure]:
    logging.getLogger("engine").setLevel(logging.CRITICAL)
    costs = trio.run(measure_all, rounds)
    figures = []
    for size in SIZES:
        for name in (SPOOL, *SQLITE):
            figure = Figure(f"{name}, synced", f"{size:,} bytes", costs.median(name, size), "batches/s")
            figures.append(replace(figure, ratio=costs.ratio(name, size, SPOOL, size), to="spool"))
    for what, size, at in (("append", 2_000, "2,000 bytes"), ("8,000 facts/s", 0, "no database")):
        for loop in (IDLE, BUSY, BUSY_DEFAULT):
            for unit in ("ms p50", "ms p99", "ms held"):
                if what == "append" and unit == "ms held":
                    continue
                name = f"{what}, {loop}, {unit}"
                figure = Figure(f"{what}, {loop}", at, costs.median(name, size), unit)
                if loop != BUSY:
                    base = f"{what}, {BUSY}, {unit}"
                    figure = replace(figure, ratio=costs.ratio(name, size, base, size), to=BUSY)
                figures.append(figure)
    return figures
