"""Whether the other side of a link still lives, told from what is heard of it. Pure.

How to think about this: a node that hangs, or whose network is cut, ends no connection. It just says nothing
any more. So both sides of a link ping each other all the time and look, at even intervals, whether anything
came since the look before. Looks are counted, and not seconds: a process that was stopped itself finds what
came meanwhile when it wakes, and looks once before it judges.
"""

from __future__ import annotations

LOOKS = 6
"""So many looks in a row without a sign of life, and the other side is taken to be dead."""

LOOKS_GONE = 2
"""As many when its heartbeat is gone. Whoever has only lost Redis answers pings, and keeps its links."""

SILENCE_S = 3.0
"""How long the other side may be silent, unless something else is said."""


class Silence:
    """Of one link. `hear` whenever something came; `look` at even intervals."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks = 0

    def hear(self) -> None:
        """The other side has given a sign of life."""
        self._looks = -1

    def look(self, gone: bool) -> bool:
        """Whether the other side is to be given up. Args: gone: its heartbeat is."""
        self._looks += 1
        return self._looks >= (LOOKS_GONE if gone else LOOKS)
