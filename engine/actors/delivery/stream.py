"""The broadcasts of a session, numbered, and the last of them kept for those who come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.actors.delivery.frame import Frame, Message


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as far as it has come, for whoever goes on with it: each entry is an offset, the message for
    everyone, and the host's where that is another. `left_under` is the epoch of the session until then: the
    stream belongs to the one that follows it. `ahead_ms`: how far the clock of whoever goes on is ahead."""

    epoch: int
    offset: int
    left_under: int
    entries: Sequence[tuple[int, Message, Message | None]] = ()
    ahead_ms: int = 0

    def to_dict(self) -> dict[str, object]:
        return {
            "epoch": self.epoch,
            "offset": self.offset,
            "left_under": self.left_under,
            "entries": [list(each) for each in self.entries],
        }

    @classmethod
    def parse(cls, data: object) -> StreamState:
        """From what `to_dict` has made, by another node of the same service. Raises ValueError."""
        try:
            assert isinstance(data, dict)
            entries = [(int(offset), dict(message), host) for offset, message, host in data["entries"]]
            return cls(int(data["epoch"]), int(data["offset"]), int(data["left_under"]), entries)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a stream: {error!r}") from None


class BroadcastStream:
    """Offsets count from 1 without gaps within an epoch. What is `PASSING` takes none.

    `epoch` is the one under which the stream began. A planned move to another node leaves it as it is, though
    the session's own epoch rises: who was there misses nothing. Each entry is the frame for everyone and,
    where it differs, the host's.
    """

    __slots__ = ("_entries", "epoch", "offset")

    def __init__(self, history_max: int, epoch: int = 0) -> None:
        self._entries: deque[tuple[int, Frame, Frame | None]] = deque(maxlen=history_max)
        self.epoch = epoch
        self.offset = 0

    def next_offset(self) -> int:
        self.offset += 1
        return self.offset

    def append(self, frame: Frame, host_frame: Frame | None = None) -> None:
        """Keep a frame that was made with the newest offset."""
        self._entries.append((self.offset, frame, host_frame))

    def since(self, offset: int, host: bool) -> list[Frame] | None:
        """What was broadcast after `offset`, oldest first; None when that is no longer all there, or when
        the stream has never been there."""
        missed = self.pairs_since(offset)
        if missed is None:
            return None
        return [host_frame if host and host_frame else frame for frame, host_frame in missed]

    def pairs_since(self, offset: int) -> list[tuple[Frame, Frame | None]] | None:
        """As `since`, with the host's frame beside the one for everyone."""
        missed = self.offset - offset
        if missed < 0 or offset < 0 or missed > len(self._entries):
            return None
        if missed == 0:
            return []
        return [(entry[1], entry[2]) for entry in list(self._entries)[-missed:]]

    def results_missed_since(self, offset: int) -> bool:
        """Whether a client that has heard everything up to `offset` may lack a result. Results follow a
        reveal without an offset of their own, so a connection can be lost between the two."""
        return any(frame.kind == "reveal" for number, frame, _ in self._entries if number >= offset)

    def state(self, left_under: int) -> StreamState:
        return StreamState(
            self.epoch,
            self.offset,
            left_under,
            [
                (offset, frame.message, None if host_frame is None else host_frame.message)
                for offset, frame, host_frame in self._entries
            ],
        )

    def go_on(self, state: StreamState) -> None:
        """Take up where another stream was left."""
        self.epoch, self.offset = state.epoch, state.offset
        self._entries.clear()
        for offset, message, host_message in state.entries:
            host_frame = None if host_message is None else Frame(host_message)
            self._entries.append((offset, Frame(message), host_frame))
