"""How long HTTP requests took until their response, by route and class of the status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from engine.latency import Latency, LatencyStatistics

UNMATCHED = "unmatched"
"""The route of all requests that fit none."""

ByRoute: TypeAlias = Mapping[tuple[str, ...], LatencyStatistics]
"""By route and class of the status, `2xx` and so on."""


class RequestTimes:
    def __init__(self) -> None:
        self._times: dict[tuple[str, ...], Latency] = {}

    def answered(self, route: str | None, status: int, took_s: float) -> None:
        """A request has its response. `route` is the path with its parameters in braces, never what a client
        sent; None if the request fits none."""
        key = route or UNMATCHED, f"{status // 100}xx"
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = Latency()
        times.add(took_s)

    def statistics(self) -> ByRoute:
        return {key: times.statistics() for key, times in self._times.items()}


def together(ports: Iterable[ByRoute]) -> ByRoute:
    """Of several ports."""
    found: dict[tuple[str, ...], LatencyStatistics] = {}
    for port in ports:
        for key, times in port.items():
            found[key] = times if key not in found else found[key] + times
    return found
