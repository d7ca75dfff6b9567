"""What the two ends of a link share: the shape of an entry, bounds, and what an end is given to send by."""

from __future__ import annotations

from typing import Protocol

REPLIES_MAX = 50_000
"""That one link waits for, or listens to. One more is refused."""

REPLY_S = 30.0
"""How long a command may stay without its one frame. A session that crashes may owe it forever."""

ASKS_MAX = 1_000
"""Requests from node to node under way on one link."""

ASK_S = 15.0


class Malformed(Exception):
    """What came over a link is no entry of one."""


class EntryTransport(Protocol):
    """Takes the entries of one end to the other, in order."""

    def offer(self, entry: bytes) -> bool:
        """False if there is no room for it, or the link is over. Never blocks."""

    def overflow(self) -> None:
        """The other side does not take what it listens to: end the link, from its own task."""

    @property
    def has_room(self) -> bool:
        """Whether so little waits that more of what can wait may be offered. True when the link is over."""

    async def wait_for_room(self) -> None:
        """Until that is so."""


def parts_of(entry: object) -> tuple[str, int, list[object]]:
    """Kind, number, and the rest. Raises Malformed."""
    if type(entry) is list and len(entry) > 1 and type(entry[0]) is str and type(entry[1]) is int:
        return entry[0], entry[1], entry[2:]
    raise Malformed(f"not an entry: {entry!r:.60}")
