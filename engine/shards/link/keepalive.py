"""Decides whether the other node of a link is alive, from the messages that arrive. Pure.

How to think about this: a node that hangs, or whose network is cut, closes no connection. It just falls
silent. So both nodes of a link ping each other all the time and look, at even intervals, whether anything
arrived since the last look. Looks are counted, not seconds: a process that was stopped finds the messages
that arrived meanwhile when it wakes, and looks once before it judges.
"""

from __future__ import annotations

LOOKS = 6
"""After this many looks in a row without a sign of life the other node is considered dead."""

LOOKS_GONE = 2
"""The same when its heartbeat is gone. A node that has only lost Redis answers pings and keeps its links."""

SILENCE_S = 3.0
"""The default of how long the other node may be silent."""


class Silence:
    """The silence on one link. Call `hear` whenever something arrives, and `look` at even intervals."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks = 0

    def hear(self) -> None:
        """The other node has given a sign of life."""
        self._looks = -1

    def look(self, gone: bool) -> bool:
        """Whether to give the other node up. Args: gone: whether its heartbeat is gone."""
        self._looks += 1
        return self._looks >= (LOOKS_GONE if gone else LOOKS)
