"""What the kernel has not taken of what one client is sent."""

from __future__ import annotations

import math

from engine.actors.delivery.frame import Dialect
from engine.actors.delivery.outbox import Outbox


class Backlog:
    """There is one only while a client is behind.

    Args:
        dialect: how frames become bytes.
        bytes_max: bound of the outbox.
        head: what is left of the frame that the kernel took a part of, or did not take.
        counted: bytes of the whole frame, to be counted when it is sent; 0 for a control frame.
    """

    __slots__ = ("control", "counted", "head", "outbox", "send_by")

    def __init__(self, dialect: Dialect, bytes_max: int, head: bytes, counted: int) -> None:
        self.head = head
        self.counted = counted
        self.outbox = Outbox(dialect, bytes_max)
        self.control: bytes | None = None
        """The newest control frame that waits; it goes before the outbox."""
        self.send_by = math.inf
        """When the head, or once the connection is ended all of it, must have been sent."""

    def advance(self) -> bool:
        """Go on to the next frame, when the head was sent. False when there is none."""
        if self.control is not None:
            self.head, self.control, self.counted = self.control, None, 0
            return True
        data = self.outbox.pop()
        if data is None:
            return False
        self.head, self.counted = data, len(data)
        return True
