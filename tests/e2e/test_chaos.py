"""Faults on real processes, the proof afterwards, and that the proof finds what is wrong."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import psutil
import pytest
import trio

from engine.aio import open_asyncio
from engine.storage.embedded import EmbeddedPostgres
from engine.storage.postgres import Database
from loadtest.chaos.plan import EVERY_KIND, Fault, Kind
from loadtest.chaos.run import Aim
from loadtest.chaos.waves import Load
from server.cli.chaos.command import break_and_prove
from server.cli.chaos.node import clock_library
from tests.e2e.node import fanfare

SMALL = ("--players", "60", "--questions", "4")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not below pytest's own directory: that one is closed to the user that runs the database."""
    with tempfile.TemporaryDirectory(prefix="fanfare-") as path:
        yield Path(path) / "run"


@pytest.fixture
def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def left_behind(directory: Path) -> list[str]:
    """Processes that work in the directory, and file systems that are mounted there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and str(directory) in process.cwd():
                found.append(str(process))
        except psutil.Error:
            continue
    return found + [line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]


@asynccontextmanager
async def the_database(directory: Path) -> AsyncIterator[Database]:
    """Of a run that is over."""
    server = EmbeddedPostgres(directory)
    dsn = await trio.to_thread.run_sync(server.start)
    try:
        async with open_asyncio(), Database.open(dsn) as database:
            yield database
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.stop)


@pytest.fixture
def settable_clocks() -> None:
    """Without libfaketime the test is skipped; on CI, where it must be, it fails."""
    try:
        clock_library()
    except click.ClickException as error:
        if os.environ.get("CI"):
            pytest.fail(error.message, pytrace=False)
        pytest.skip(error.message)


def tracebacks(log: Path) -> str:
    """From the first one in the log on; empty where there is none."""
    said = log.read_text()
    return said[place:] if (place := said.find("Traceback")) >= 0 else ""


@pytest.mark.usefixtures("settable_clocks")
async def test_every_kind_of_fault_is_survived_and_a_tampered_database_is_found(directory: Path) -> None:
    faults = str(len(EVERY_KIND))
    code, said = await fanfare(
        "chaos",
        "--seed",
        "636",
        "--faults",
        faults,
        "--minutes",
        "0.1",
        "--keep",
        str(directory),
        *SMALL,
    )
    assert code == 0, said
    assert f"{faults} of {faults} faults survived" in said
    found = json.loads((directory / "report.json").read_text())
    assert found["proven"]
    assert {kind: costs["count"] for kind, costs in found["kinds"].items()} == {
        kind.value: 1 for kind in EVERY_KIND
    }
    assert found["acknowledged"] > 100
    assert found["proof"]["acks"] == found["acknowledged"]
    assert found["proof"]["rows"] >= found["acknowledged"]
    assert found["ends"]["cut"] > 0
    assert left_behind(directory) == []
    assert tracebacks(directory / "node.log") == ""

    async with the_database(directory) as database:
        await database.execute("ALTER TABLE answers DROP CONSTRAINT answers_pkey")
        await database.execute(
            "INSERT INTO answers SELECT * FROM answers WHERE ctid = (SELECT max(ctid) FROM answers)"
        )
        await database.execute("DELETE FROM answers WHERE ctid = (SELECT min(ctid) FROM answers)")
    code, said = await fanfare("chaos", "--prove", str(directory))
    assert code == 1
    assert "acknowledged, not stored: 1" in said
    assert "stored twice: 1" in said
    assert left_behind(directory) == []


async def test_a_cluster_survives_that_nodes_are_lost_and_cut_off(directory: Path) -> None:
    """Among the sessions are some at the players' own pace. Leaderboards are right though Redis was emptied,
    and a line that is wrong is found."""
    kinds = ("node-gone", "redis-kill", "redis-flush", "cut-both", "cut-others")
    only = [word for kind in kinds for word in ("--only", kind)]
    users = ("--own-pace", "0.5", "--users", "0.5")
    code, said = await fanfare(
        *("chaos", "--nodes", "2", "--faults", "5", "--minutes", "0.1", "--keep", str(directory)),
        *(*users, *only, *SMALL),
    )
    assert code == 0, said
    found = json.loads((directory / "report.json").read_text())
    assert found["proven"]
    assert set(found["kinds"]) == set(kinds)
    assert found["proof"]["acks"] == found["acknowledged"] > 100
    assert left_behind(directory) == []
    for node in (1, 2):
        assert tracebacks(directory / f"node-{node}.log") == ""
    assert found["proof"]["scores"] > 0
    assert found["proof"]["lines"] > 0
    assert found["proof"]["filled"] > 0
    opened = json.loads((directory / "sessions.json").read_text())
    assert {(each["own_pace"], each["by_users"]) for each in opened} >= {(True, True), (False, True)}

    async with the_database(directory) as database:
        await database.execute(
            "UPDATE leaderboard_entries SET score = score + 1 "
            "WHERE ctid = (SELECT min(ctid) FROM leaderboard_entries)"
        )
    code, said = await fanfare("chaos", "--nodes", "2", "--prove", str(directory))
    assert code == 1
    assert "line of a leaderboard: 1" in said


async def test_a_node_that_acknowledges_too_soon_is_found_out(made: Path) -> None:
    # PostgreSQL first, and the node with what it holds in memory 0.8 s later. By then all sessions have
    # started: one whose start is lost comes to no end.
    plan = [Fault(1, Kind.BOTH_KILL, 1.5, 1.0, 0.4)]
    aim = Aim(plan, Load(players=60, slots=1, questions=4), 1, 0, 1.0)
    program = [sys.executable, str(Path(__file__).with_name("lying_node.py"))]
    run = await break_and_prove(made, aim, on_fault=lambda *_: None, program=program)
    assert run.outcome.trouble == []
    assert run.outcome.verdict is not None
    assert not run.outcome.holds
    assert run.outcome.verdict.broken["acknowledged, not stored"] > 0


async def test_a_node_that_ends_by_itself_is_trouble(made: Path) -> None:
    def kill(*_: object) -> None:
        (node,) = [p for p in psutil.Process().children() if str(made) in " ".join(p.cmdline())]
        node.kill()

    plan = [Fault(number, Kind.CLIENTS_CUT, 0.1, 0.1, 0.5) for number in (1, 2)]
    aim = Aim(plan, Load(players=20, slots=1, questions=4), 1, 0, 1.0)
    run = await break_and_prove(made, aim, on_fault=kill)
    assert not run.outcome.holds
    assert "the node has ended by itself with -9" in run.outcome.trouble[0]
    assert left_behind(made) == []
