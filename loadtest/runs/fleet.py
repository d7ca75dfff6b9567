"""Crowds in processes of their own: started, led, listened to, ended."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import trio

from loadtest.swarm.compact_ledger import CompactLedger
from loadtest.swarm.crowd import CrowdPlan, Seats

PLAYERS_MAX = 18_000
"""Players of one process: a process may often have no more than 20,000 files."""

PLAYERS_PER_ADDRESS = 2_500
"""A node takes 5,000 connections of one address by itself; who comes back may have two for a while."""

END_WITHIN_S = 10.0

Pulse = dict[str, Any]


class GeneratorDied(Exception):
    """A crowd's process ended by itself: the run means nothing."""


class Generator:
    """One crowd's process. Made by `generators`."""

    def __init__(self, process: trio.Process, number: int, on_pulse: Callable[[int, Pulse], None]) -> None:
        self.pid = process.pid
        self.written = trio.Event()
        """Set once the ledgers are in their file."""
        self.faults: dict[str, dict[str, Any]] = {}
        """As `Crowd.faults` has them, once the ledgers are written."""
        self._marked: dict[int, trio.Event] = {}
        self._told_left = trio.Event()
        self._left: dict[str, int] = {}
        self._process = process
        self._number = number
        self._on_pulse = on_pulse

    async def begin(self, plan: CrowdPlan, pulse_s: float = 1.0) -> None:
        await self._tell({"do": "begin", "plan": plan.to_dict(), "pulse_s": pulse_s})

    async def cut_all(self) -> None:
        await self._tell({"do": "cut_all"})

    async def mark(self, fault: int, ws_url: str) -> None:
        """Something is about to happen to the node at that address. Returns when all whom it concerns are
        known."""
        self._marked[fault] = trio.Event()
        await self._tell({"do": "mark", "fault": fault, "ws_url": ws_url})
        await self._marked[fault].wait()

    async def struck(self, fault: int, at_s: float) -> None:
        """It has happened, at that moment of the monotonic clock."""
        await self._tell({"do": "struck", "fault": fault, "at": at_s})

    async def left(self) -> dict[str, int]:
        """Ask who is left, and doing what: as `Crowd.left` has it."""
        self._told_left = trio.Event()
        await self._tell({"do": "left"})
        await self._told_left.wait()
        return self._left

    async def write(self, path: Path) -> None:
        """Have the ledgers written, and wait until they are."""
        await self._tell({"do": "write", "file": str(path)})
        await self.written.wait()

    async def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(orjson.dumps(order) + b"\n")

    async def listen(self) -> None:
        """To the end of its output. Raises GeneratorDied if it was not told to end."""
        assert self._process.stdout is not None
        held = b""
        async for data in self._process.stdout:
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                message = orjson.loads(line)
                match message["t"]:
                    case "pulse":
                        self._on_pulse(self._number, message)
                    case "marked":
                        self._marked[message["fault"]].set()
                    case "left":
                        self._left = message["players"]
                        self._told_left.set()
                    case "written":
                        self.faults = message["faults"]
                        self.written.set()
        if not self.written.is_set():
            raise GeneratorDied(f"generator {self._number} (process {self.pid}) has ended by itself")

    async def end(self) -> None:
        """Close its input, which ends it, and wait; one that does not listen is killed."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.move_on_after(END_WITHIN_S):
            await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._process.stdout is not None:
            await self._process.stdout.aclose()


@asynccontextmanager
async def generators(count: int, on_pulse: Callable[[int, Pulse], None]) -> AsyncGenerator[list[Generator]]:
    """Start processes; none of them is left after the block.

    Args:
        on_pulse: called with the generator's number and what it reports.
    """
    made: list[Generator] = []
    try:
        for number in range(count):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "loadtest.swarm.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the one who leads
            )
            made.append(Generator(process, number, on_pulse))
        async with trio.open_nursery() as nursery:
            for each in made:
                nursery.start_soon(each.listen)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as ending:
                for each in made:
                    ending.start_soon(each.end)


def generators_for(players: int, players_max: int = PLAYERS_MAX) -> int:
    return max(math.ceil(players / players_max), 1)


def sources_of(generator: int, players: int) -> list[str]:
    """Loopback addresses that no other generator uses."""
    count = max(math.ceil(players / PLAYERS_PER_ADDRESS), 1)
    return [f"127.0.{1 + generator}.{1 + place}" for place in range(count)]


def shared_out(seats: Sequence[Seats], count: int) -> list[list[Seats]]:
    """Seats for each of `count` generators, about as many players for each; a session that does not fit is
    split."""
    players = sum(each.count for each in seats)
    room = math.ceil(players / count)
    shares: list[list[Seats]] = [[]]
    left = room
    for each in seats:
        first, rest = each.first, each.count
        while rest:
            if not left:
                shares.append([])
                left = room
            taken = min(rest, left)
            shares[-1].append(replace(each, first=first, count=taken))
            first, rest, left = first + taken, rest - taken, left - taken
    return shares + [[] for _ in range(count - len(shares))]


async def read_ledgers(path: Path, take: Callable[[CompactLedger], None]) -> None:
    """Read a file of ledgers, a slice at a time. A checkpoint now and then."""
    from loadtest.swarm.compact_ledger import read

    with path.open("rb") as file:
        for count, ledger in enumerate(read(orjson.loads(line) for line in file)):
            take(ledger)
            if not count % 500:
                await trio.lowlevel.checkpoint()
