"""What one subscriber has not taken yet."""

from __future__ import annotations

from collections import deque

from engine.actors.delivery.frame import PASSING, Dialect, Frame


class Outbox:
    """A bounded backlog of encoded frames in which an older one of a `PASSING` type gives way to a newer one.

    The bytes are those of the shared frames: a backlog costs references, not copies. What is full belongs
    to a slow consumer, which the owner of the outbox closes; it never slows the session down.

    Args:
        dialect: how frames become bytes.
        bytes_max: the bound. A single frame is always taken, whatever its size.
    """

    __slots__ = ("_dialect", "_passing", "_queue", "bytes", "bytes_max")

    def __init__(self, dialect: Dialect, bytes_max: int) -> None:
        self._dialect = dialect
        self._queue: deque[bytes] = deque()
        self._passing: dict[object, bytes] = {}
        """By type: those that wait, at most one of each."""
        self.bytes = 0
        self.bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, frame: Frame) -> bool:
        """Take a frame. False when the backlog is past its bound; then the frame was not taken."""
        data = frame.encoded(self._dialect)
        queue = self._queue
        if queue:
            if frame.kind in self._passing:
                self._drop(self._passing.pop(frame.kind))
            if queue and self.bytes + len(data) > self.bytes_max:
                return False
        if frame.kind in PASSING:
            self._passing[frame.kind] = data
        queue.append(data)
        self.bytes += len(data)
        return True

    def pop(self) -> bytes | None:
        """The oldest frame, or None."""
        if not self._queue:
            return None
        data = self._queue.popleft()
        for kind, waiting in self._passing.items():
            if data is waiting:
                del self._passing[kind]
                break
        self.bytes -= len(data)
        return data

    def _drop(self, older: bytes) -> None:
        for index, data in enumerate(self._queue):
            if data is older:
                del self._queue[index]
                self.bytes -= len(data)
                return
