"""The broadcasts of a session, numbered, and the last of them kept for those who come back."""

from __future__ import annotations

from collections import deque

from engine.actors.frame import Frame


class BroadcastStream:
    """Offsets count from 1 without gaps within an epoch. Leaderboards take none: only the newest matters.

    Each entry is the frame for everyone and, where it differs, the host's.
    """

    __slots__ = ("_entries", "offset")

    def __init__(self, history_max: int) -> None:
        self._entries: deque[tuple[int, Frame, Frame]] = deque(maxlen=history_max)
        self.offset = 0

    def next_offset(self) -> int:
        self.offset += 1
        return self.offset

    def append(self, frame: Frame, host_frame: Frame | None = None) -> None:
        """Keep a frame that was made with the newest offset."""
        self._entries.append((self.offset, frame, host_frame or frame))

    def since(self, offset: int, host: bool) -> list[Frame] | None:
        """What was broadcast after `offset`, oldest first; None when that is no longer all there, or when
        the stream has never been there."""
        missed = self.offset - offset
        if missed < 0 or offset < 0 or missed > len(self._entries):
            return None
        if missed == 0:
            return []
        return [entry[2] if host else entry[1] for entry in list(self._entries)[-missed:]]
