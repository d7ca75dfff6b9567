"""Limits against abuse. Every call takes constant time, and memory is bounded whoever asks.

Times are milliseconds of one clock that does not run backwards.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network

log = logging.getLogger(__name__)

COMPLAINT_INTERVAL_S = 10.0


class TokenBucket:
    """Lets `burst` through at once and `rate_per_s` a second in the long run. Starts full."""

    __slots__ = ("_at_ms", "_burst", "_level", "_rate_per_ms")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_ms = rate_per_s / 1000
        self._burst = burst
        self._level = float(burst)
        self._at_ms = 0

    def take(self, now_ms: int, count: int = 1) -> bool:
        """Take so many tokens. False when there are fewer; then none was taken."""
        level = self._level + (now_ms - self._at_ms) * self._rate_per_ms
        if level > self._burst:
            level = self._burst
        self._at_ms = now_ms
        if level < count:
            self._level = level
            return False
        self._level = level - count
        return True

    def empty(self, now_ms: int) -> bool:
        """Whether `take` would say no."""
        return self._level + (now_ms - self._at_ms) * self._rate_per_ms < 1


class _Buckets:
    """A bucket per key; the one that was used longest ago makes room for a new one."""

    def __init__(self, rate_per_s: float, burst: int, keys_max: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def get(self, key: str) -> TokenBucket | None:
        return self._buckets.get(key)

    def use(self, key: str) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate_per_s, self._burst)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket


class Attempts:
    """Wrong codes and tokens by address, so that codes cannot be guessed by trying.

    Only failures count: a school behind one address may join in its hundreds. IPv6 addresses count by
    their /64, which is what one household or one server is given.

    Args:
        per_min: failures a minute, at once or spread.
        addresses_max: addresses remembered; past it the one that failed longest ago is forgotten.
    """

    def __init__(self, per_min: int, addresses_max: int = 20_000) -> None:
        self._buckets = _Buckets(per_min / 60, per_min, addresses_max)

    def __len__(self) -> int:
        return len(self._buckets)

    def blocked(self, address: str, now_ms: int) -> bool:
        """Whether this address has used up its failures."""
        if not len(self._buckets):
            return False
        bucket = self._buckets.get(_network(address))
        return bucket is not None and bucket.empty(now_ms)

    def failed(self, address: str, now_ms: int) -> None:
        self._buckets.use(_network(address)).take(now_ms)


class JoinRate:
    """New players a second, by session.

    Args:
        per_s: players a second; as many may come at once.
        sessions_max: sessions remembered; past it the one that was joined longest ago is forgotten.
    """

    def __init__(self, per_s: float, sessions_max: int = 20_000) -> None:
        self._buckets = _Buckets(per_s, max(1, round(per_s)), sessions_max)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now_ms: int) -> bool:
        """Let one more player into the session under this key. False when too many have just come."""
        return self._buckets.use(key).take(now_ms)


class MessageRate:
    """Messages a second, by player: for those who have no connection of their own to be counted on.

    Args:
        per_s: messages a second in the long run.
        burst: as many may come at once.
        players_max: players remembered; past it the one that spoke longest ago is forgotten.
    """

    def __init__(self, per_s: float, burst: int, players_max: int = 20_000) -> None:
        self._buckets = _Buckets(per_s, burst, players_max)

    def take(self, session_id: str, player: int, now_ms: int) -> bool:
        """Let one more message through. False when too many have just come."""
        return self._buckets.use(f"{session_id}/{player}").take(now_ms)


class ConnectionCount:
    """Open connections by address.

    Args:
        per_address_max: how many one address may have.
        setting: where that comes from, for the log.
    """

    def __init__(self, per_address_max: int, setting: str = "connections_per_address_max") -> None:
        self._per_address_max = per_address_max
        self._setting = setting
        self._open: dict[str, int] = {}
        self._complained_at_s = -math.inf

    def __len__(self) -> int:
        """Addresses with a connection."""
        return len(self._open)

    def enter(self, address: str, now_s: float, beyond: int = 0) -> bool:
        """Count a connection. False when the address has as many as it may; then it was not counted, and the
        log tells of it now and then.

        Args:
            beyond: so many above the limit are let in as well, be it only to be told that they must go.
        """
        network = _network(address)
        there = self._open.get(network, 0)
        if there >= self._per_address_max + beyond:
            if now_s - self._complained_at_s >= COMPLAINT_INTERVAL_S:
                self._complained_at_s = now_s
                log.warning(
                    "%s has %d connections, and more are refused. If this is a proxy, set proxy_hops; "
                    "if so many do share an address, raise %s",
                    network,
                    there,
                    self._setting,
                )
            return False
        self._open[network] = there + 1
        return True

    def leave(self, address: str) -> None:
        """For each connection that was let in, once."""
        network = _network(address)
        left = self._open[network] - 1
        if left:
            self._open[network] = left
        else:
            del self._open[network]


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), 64), strict=False))
