"""What the client and the server of a link share: the shape of an entry, the bounds, and the transport."""

from __future__ import annotations

from typing import Protocol

REPLIES_MAX = 50_000
"""The most replies that wait or listen on one link. Further commands are refused."""

REPLY_S = 30.0
"""How long a command may wait for its one frame. A session that crashes may never send it."""

ASKS_MAX = 1_000
"""The most requests without an answer on one link."""

ASK_S = 15.0
"""How long a request may wait for its answer."""


class Malformed(Exception):
    """The other node sent something that is not an entry."""


class EntryTransport(Protocol):
    """Carries entries to the other node, in order."""

    def offer(self, entry: bytes) -> bool:
        """Queue an entry. False if there is no room for it, or the link is over. Never blocks."""

    def overflow(self) -> None:
        """End the link, from its own task, because the other node does not keep up."""

    @property
    def has_room(self) -> bool:
        """Whether few enough bytes wait that a sender that can wait may offer more. True when the link is
        over."""

    async def wait_for_room(self) -> None:
        """Wait until `has_room`."""


def parts_of(entry: object) -> tuple[str, int, list[object]]:
    """The kind, the number, and the rest of an entry. Raises Malformed."""
    if type(entry) is list and len(entry) > 1 and type(entry[0]) is str and type(entry[1]) is int:
        return entry[0], entry[1], entry[2:]
    raise Malformed(f"not an entry: {entry!r:.60}")
