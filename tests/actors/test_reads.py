"""How long what is read had lain in the kernel, and who is told when all of it is read."""

from __future__ import annotations

import socket
import time

import pytest
import trio
from trio.testing import MockClock

from engine.actors.reads import LAST_DATA_RECEIVED, STAMP, SURE_MS, Reads


def stamp(ms_ago: float) -> list[tuple[int, int, bytes]]:
    """What the kernel says of bytes that came so long ago."""
    return [(socket.SOL_SOCKET, 35, STAMP.pack(*divmod(time.time_ns() - round(ms_ago * 1e6), 10**9)))]


class Source:
    """A socket to which nothing came in its turn for so long."""

    def __init__(self, waits_ms: int) -> None:
        self._info = LAST_DATA_RECEIVED.pack(waits_ms)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.IPPROTO_TCP, socket.TCP_INFO, len(self._info))
        return self._info


def came(reads: Reads, ms_ago: float, waits_ms: int | None = None) -> None:
    reads.stamp = stamp(ms_ago)
    reads.source = Source(round(ms_ago) if waits_ms is None else waits_ms)


class Transport:
    """Looks when it is told to."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self.asked = 0
        reads.start(self.look)

    def look(self) -> None:
        self.asked += 1

    def cycle(self) -> None:
        self.reads.begin()
        self.end()

    def end(self) -> None:
        for then in self.reads.end():
            then()


def test_the_kernel_says_how_long_it_had_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(stamped=True)
    monkeypatch.setattr(trio, "current_time", lambda: 100.0)
    came(reads, 2_500)
    assert 2_500 <= reads.held_ms() < 3_500
    came(reads, -1_000, waits_ms=0)
    assert reads.held_ms() == 0, "somebody has set the clock back"
    reads.forget()
    assert reads.held_ms() == 0


def test_what_came_out_of_order_is_not_dated_before_what_lay_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client may send the last byte of an answer, think, and then send what is before it."""
    reads = Reads(stamped=True)
    monkeypatch.setattr(trio, "current_time", lambda: 100.0)
    came(reads, 2_500, waits_ms=40)
    assert reads.held_ms() == 40 + SURE_MS
    here, there = socket.socketpair()
    with here, there:
        reads.source = here
        assert reads.held_ms() == SURE_MS, "nothing can be said of it"


async def test_nothing_lay_there_longer_than_since_everything_was_read(mock_clock: MockClock) -> None:
    reads = Reads(stamped=True)
    reads.begin()
    reads.end()
    mock_clock.jump(0.25)
    reads.begin()
    mock_clock.jump(0.125)
    came(reads, 3_600_000)
    assert reads.held_ms() == 375, "somebody has set the clock an hour on"
    reads.end()
    assert reads.held_ms() == 125


def test_without_a_stamp_the_wait_for_company_counts() -> None:
    stamped, unstamped = Reads(stamped=True), Reads()
    stamped.paced_ms = unstamped.paced_ms = 7
    unstamped.stamp = stamp(2_500)
    assert (stamped.held_ms(), unstamped.held_ms()) == (7, 7)


async def test_who_waits_is_told_at_the_end_of_the_next_cycle_and_once() -> None:
    reads = Reads()
    told: list[str] = []
    assert not reads.tell_when_read(lambda: told.append("nobody can say")), "nobody says what is read"
    transport = Transport(reads)
    assert reads.tell_when_read(lambda: told.append("a"))
    assert (transport.asked, reads.awaited) == (1, True)
    reads.begin()
    assert reads.tell_when_read(lambda: told.append("b")), "this cycle may be past it"
    transport.end()
    assert (told, reads.awaited) == (["a"], True)
    transport.cycle()
    transport.cycle()
    assert (told, reads.awaited) == (["a", "b"], False)


async def test_when_the_transport_ends_everybody_is_told() -> None:
    reads = Reads()
    Transport(reads)
    told: list[str] = []
    reads.tell_when_read(lambda: told.append("a"))
    reads.begin()
    reads.tell_when_read(lambda: told.append("b"))
    for then in reads.stop():
        then()
    assert told == ["a", "b"]
    assert not reads.awaited
    assert not reads.tell_when_read(lambda: told.append("c"))
