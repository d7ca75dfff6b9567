"""How long what is read had lain in the kernel, and who is told when all of it is read."""

from __future__ import annotations

import socket
import time

import pytest
import trio
from trio.testing import MockClock

from engine.actors.reads import STAMP, Reads


def stamp(ms_ago: float) -> list[tuple[int, int, bytes]]:
    """What the kernel says of bytes that came so long ago."""
    return [(socket.SOL_SOCKET, 35, STAMP.pack(*divmod(time.time_ns() - round(ms_ago * 1e6), 10**9)))]


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
    reads.stamp = stamp(2_500)
    assert 2_500 <= reads.held_ms() < 3_500
    reads.stamp = stamp(-1_000)
    assert reads.held_ms() == 0, "somebody has set the clock back"
    reads.forget()
    assert reads.held_ms() == 0


async def test_nothing_lay_there_longer_than_since_everything_was_read(mock_clock: MockClock) -> None:
    reads = Reads(stamped=True)
    reads.begin()
    reads.end()
    mock_clock.jump(0.25)
    reads.begin()
    mock_clock.jump(0.125)
    reads.stamp = stamp(3_600_000)
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
