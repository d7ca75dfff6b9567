"""What clients have sent and the node has not read, and how long it lay in the kernel.

How to think about it: an answer is received when the kernel has it. A loop that is busy reads it later, by
milliseconds or, on a node that gets too little processor time, by seconds. That is the node's lateness and
not the player's. So the transport says two things here: how long what it reads just now lay in the kernel,
and when it has read all that lay there at some moment. By the first an answer is dated; for the second a
deadline waits.

A transport looks at its sockets in cycles. A cycle reads whatever had come when it began, in one look or in
several; it may read more.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

STAMP = struct.Struct("@ll")
"""Seconds and nanoseconds since the epoch, as the kernel hands over the time of receipt (`SO_TIMESTAMPNS`,
socket(7))."""

SURE_MS = 10
"""Stamps that say no more than that are taken at their word: a jiffy of the kernel, at the longest."""

TCP_INFO = 6, 11
"""Level and option (tcp(7))."""

LAST_DATA_RECEIVED = struct.Struct("@52xI")
"""Of `struct tcp_info`: since when nothing came that could be read, in ms."""

Ancillary = Sequence[tuple[int, int, bytes]]
"""As of `socket.recvmsg`."""


class Source(Protocol):
    """A TCP socket."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As of `socket`."""


class Reads:
    """One for all sockets of a node.

    `stamp`: what the kernel said beside the bytes that are being read just now: when it had the last of them;
    empty if it did not say. `source`: the socket that they came by.

    `paced_ms`: how long the bytes that are being read just now may have lain in the kernel because looks wait
    for company. It counts where the kernel says nothing.

    Args:
        stamped: whether stamps count. They are of the wall clock, so not in virtual time.
    """

    __slots__ = (
        "_asked",
        "_began_at",
        "_look",
        "_read_to",
        "_stamped",
        "_waiting",
        "paced_ms",
        "source",
        "stamp",
    )

    def __init__(self, *, stamped: bool = False) -> None:
        self.stamp: Ancillary = ()
        self.source: Source | None = None
        self.paced_ms = 0
        self._stamped = stamped
        self._look: Callable[[], None] | None = None
        """Makes the transport look soon; None where none can say what it has read."""
        self._asked: list[Callable[[], None]] = []
        """Told at the end of the next cycle."""
        self._waiting: list[Callable[[], None]] = []
        """Told at the end of this one."""
        self._began_at = -math.inf
        """When this cycle began, on trio's clock."""
        self._read_to = -math.inf
        """When the last whole one began: what the kernel had then is read."""

    # -- for sessions ----------------------------------------------------------------------------

    def held_ms(self) -> int:
        """How long the bytes that are being read just now lay in the kernel, in whole milliseconds."""
        if not self._stamped or not self.stamp:
            return self.paced_ms
        seconds, ns = STAMP.unpack_from(self.stamp[0][2])
        held_ns = time.time_ns() - seconds * 1_000_000_000 - ns
        # No longer than since everything was read, even if somebody has set the clock meanwhile.
        unread_ms = 1000 * (trio.current_time() - self._read_to)
        held_ms = max(0, int(min(held_ns / 1_000_000, unread_ms)))
        return held_ms if held_ms <= SURE_MS else min(held_ms, self._waits_ms() + SURE_MS)

    def _waits_ms(self) -> int:
        """How long nothing new came that can be read. A client can have the end of an answer stamped ahead of
        time, by a segment that comes out of order."""
        assert self.source is not None, "stamps are of a socket"
        try:
            info = self.source.getsockopt(*TCP_INFO, LAST_DATA_RECEIVED.size)
            waits_ms: int
            (waits_ms,) = LAST_DATA_RECEIVED.unpack(info)
        except (OSError, struct.error):  # it is closed, or no such kernel
            return 0
        return waits_ms

    def tell_when_read(self, then: Callable[[], None]) -> bool:
        """Call `then` once everything is read that the kernel has by now. False, and it is never called,
        where no transport can say what it has read."""
        if self._look is None:
            return False
        self._asked.append(then)
        self._look()
        return True

    # -- for the transport -----------------------------------------------------------------------

    def start(self, look: Callable[[], None]) -> None:
        """From now on there are cycles, and `look` makes the next one begin soon."""
        self._look = look

    def stop(self) -> Sequence[Callable[[], None]]:
        """There are no more cycles. Returns whom to tell."""
        self._look = None
        told = self._waiting + self._asked
        self._waiting, self._asked = [], []
        return told

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the end of a cycle."""
        return bool(self._asked or self._waiting)

    def forget(self) -> None:
        """What is done from here on is not about bytes that were read just now."""
        self.stamp, self.source = (), None
        self.paced_ms = 0

    def begin(self) -> None:
        """A cycle begins: the first look is about to be taken."""
        self._began_at = trio.current_time()
        if self._asked:
            self._waiting, self._asked = self._asked, self._waiting

    def end(self) -> Sequence[Callable[[], None]]:
        """The cycle is over: what it found is read, and handed to the sessions. Returns whom to tell."""
        self._read_to = self._began_at
        if not self._waiting:
            return ()
        told, self._waiting = self._waiting, []
        return told
