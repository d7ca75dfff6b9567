"""When the reactor looks at its sockets: at once, or a moment after the last look. On a virtual clock."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.actors.pacing import WAIT_MAX_MS, Pacing
from server.realtime.reactor import loop as loops
from server.realtime.reactor.loop import READABLE, Loop
from server.realtime.reactor.timer_wheel import NEVER

WAIT_S = 0.006


class Reader:
    """Notes when its socket is read, in milliseconds, and how long the reactor says that it was held up."""

    tick = NEVER

    def __init__(self, bound: socket.socket, pacing: Pacing) -> None:
        self._socket = bound
        self._pacing = pacing
        self.reads: list[tuple[int, int]] = []

    def ready(self, events: int) -> None:
        self._socket.recv(100)
        self.reads.append((round(1000 * trio.current_time()), self._pacing.reads.held_ms()))

    def due(self, now: float) -> None: ...

    def stop(self) -> None: ...

    def cut(self) -> None: ...


class Rig:
    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.pacing = Pacing()
        self.pacing.wait_s = WAIT_S
        self.loop = Loop(pacing=self.pacing)
        self.pairs = [socket.socketpair() for _ in range(3)]
        self.readers = [Reader(here, self.pacing) for here, _ in self.pairs]
        for (here, _), reader in zip(self.pairs, self.readers, strict=True):
            here.setblocking(False)
            self.loop.add(here.fileno(), reader, READABLE)

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            self.pairs[number][1].send(b"x")
        await wait_all_tasks_blocked()

    async def after(self, ms: int) -> None:
        self.clock.jump(ms / 1000)
        await wait_all_tasks_blocked()

    @property
    def reads(self) -> list[tuple[int, int]]:
        return sorted(read for reader in self.readers for read in reader.reads)


@asynccontextmanager
async def rig(clock: MockClock) -> AsyncIterator[Rig]:
    made = Rig(clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.loop.run)
        await wait_all_tasks_blocked()
        yield made
        nursery.cancel_scope.cancel()
    made.loop.close()
    for pair in made.pairs:
        for each in pair:
            each.close()


async def test_the_first_frame_after_a_quiet_moment_waits_for_nobody(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        await r.send(0)
        await r.after(10)
        await r.send(0)
        await r.after(6)
        await r.send(1)
        assert r.reads == [(0, 0), (10, 0), (16, 0)]


async def test_what_comes_soon_after_a_look_is_read_together_and_dated_back(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        await r.send(0)
        await r.after(2)
        await r.send(0)
        await r.after(2)
        await r.send(1)
        assert r.reads == [(0, 0)]
        await r.after(2)
        assert r.reads == [(0, 0), (6, 4), (6, 4)]
        assert r.loop.looks_total == 2


async def test_where_the_last_look_found_company_the_next_one_does_not_wait_for_a_frame_first(
    mock_clock: MockClock,
) -> None:
    async with rig(mock_clock) as r:
        await r.send(0)
        await r.after(1)
        await r.send(0, 1)
        await r.after(5)
        await r.after(3)
        await r.send(2)
        await r.after(3)
        assert r.reads == [(0, 0), (6, 5), (6, 5), (12, 6)], "it may have come at 6"
        await r.after(100)
        await r.send(0)
        assert r.reads[-1] == (112, 0)


async def test_a_late_turn_dates_nothing_back_by_more_than_the_longest_distance(
    mock_clock: MockClock,
) -> None:
    async with rig(mock_clock) as r:
        await r.send(0)
        await r.after(1)
        await r.send(0)
        await r.after(40)
        assert r.reads == [(0, 0), (41, WAIT_MAX_MS)]


async def test_a_full_look_is_followed_by_the_next_one_at_once(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "EVENTS_MAX", 2)
    async with rig(mock_clock) as r:
        await r.send(0)
        await r.after(1)
        await r.send(0, 1, 2)
        await r.after(5)
        assert r.reads == [(0, 0), (6, 0), (6, 5), (6, 5)]


async def test_a_callback_and_a_timer_do_not_wait(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        called: list[float] = []
        await r.send(0)
        await r.after(1)
        await r.send(0)
        r.loop.call_soon(lambda: called.append(trio.current_time()))
        await wait_all_tasks_blocked()
        assert called == [0.001]


async def test_a_stop_does_not_wait(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        await r.send(0)
        await r.send(0, 1)
    assert mock_clock.current_time() == 0


async def test_a_node_that_does_not_pace_reads_at_once(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        r.pacing.wait_s = 0.0
        for _ in range(3):
            await r.send(0, 1)
        assert r.reads == [(0, 0)] * 6


async def test_whoever_asks_what_is_read_is_told_after_one_look_that_waits_for_no_company(
    mock_clock: MockClock,
) -> None:
    async with rig(mock_clock) as r:
        read: list[int] = []
        await r.send(0)
        await r.after(1)
        for _, there in r.pairs:
            there.send(b"x")
        assert r.loop.reads.tell_when_read(lambda: read.append(len(r.reads)))
        await wait_all_tasks_blocked()
        assert (read, r.loop.looks_total) == ([4], 2)
        assert r.loop.reads.tell_when_read(lambda: read.append(len(r.reads)))
        await wait_all_tasks_blocked()
        assert (read, r.loop.looks_total) == ([4, 4], 3), "there was nothing to read"


class Timer:
    """Reads when its time has come, and leaves something to be called."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.tick = NEVER
        self.held: list[int] = []

    def ready(self, events: int) -> None: ...

    def due(self, now: float) -> None:
        self._loop.reads.paced_ms = 7
        self._loop.call_soon(lambda: self.held.append(self._loop.reads.held_ms()))

    def stop(self) -> None: ...

    def cut(self) -> None: ...


async def test_what_a_timer_reads_dates_nothing_that_comes_after_it(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        timer = Timer(r.loop)
        r.loop.call_at(timer, 1.0)
        await r.after(1_100)
        assert timer.held == [0]


class Persistent:
    """Reads nothing, so that its socket stays ready. Notes in which look it was found."""

    tick = NEVER

    def __init__(self, loop: Loop, found: list[tuple[int, Persistent]]) -> None:
        self._loop = loop
        self._found = found

    def ready(self, events: int) -> None:
        self._found.append((self._loop.looks_total, self))

    def due(self, now: float) -> None: ...

    def stop(self) -> None: ...

    def cut(self) -> None: ...


async def test_a_cycle_finds_all_that_was_ready_however_few_a_look_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "EVENTS_MAX", 3)
    loop, found = Loop(), list[tuple[int, Persistent]]()
    pairs = [socket.socketpair() for _ in range(11)]
    for here, there in pairs:
        there.send(b"x")
        loop.add(here.fileno(), Persistent(loop, found), READABLE)
    read = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        while not loop.looks_total:
            await trio.lowlevel.checkpoint()
        for _ in range(4):
            found.clear()
            first = loop.looks_total + 1
            assert loop.reads.tell_when_read(read.set)
            await read.wait()
            read = trio.Event()
            assert len({handler for _, handler in found}) == 11
            assert found[-1][0] - first < 8, "the end of one cycle, and a whole one"
        nursery.cancel_scope.cancel()
    loop.close()
    for pair in pairs:
        for each in pair:
            each.close()


async def test_a_stop_tells_whoever_waits_for_what_is_read(mock_clock: MockClock) -> None:
    async with rig(mock_clock) as r:
        told: list[str] = []
        r.loop.reads.tell_when_read(lambda: told.append("a"))
    assert told == ["a"]
    assert not r.loop.reads.tell_when_read(lambda: told.append("b"))
