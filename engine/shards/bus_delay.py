"""How long announcements take over the bus: a node hears its own ones too."""

from __future__ import annotations

import trio

from engine.latency import Latency

UNDER_WAY_MAX = 1_000
"""The most announcements that are waited for; the oldest ones are forgotten first."""


class BusDelay:
    """Of one node."""

    def __init__(self) -> None:
        self.latency = Latency()
        self._under_way: dict[bytes, float] = {}

    def published(self, data: bytes) -> None:
        """This announcement is under way."""
        self._under_way[data] = trio.current_time()
        if len(self._under_way) > UNDER_WAY_MAX:
            del self._under_way[next(iter(self._under_way))]

    def heard(self, data: object) -> None:
        """An announcement of any node has come."""
        if isinstance(data, bytes) and (published_s := self._under_way.pop(data, None)) is not None:
            self.latency.add(trio.current_time() - published_s)
