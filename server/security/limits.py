"""Limits against abuse. Every call takes constant time, and memory is bounded.

Times are milliseconds of one clock that does not run backwards.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network

from engine.actors.token_bucket import TokenBucket

log = logging.getLogger(__name__)

COMPLAINT_INTERVAL_S = 10.0

TRIES_WAITING_MAX = 100
"""That share their turn: clients of one address with the same code."""

_UNJUDGED = frozenset({"busy", "session_unavailable"})
"""Refusals that do not tell whether there is a session with a code."""


class _Buckets:
    """A bucket per key; the least recently used bucket makes room for a new one."""

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


class _Charge:
    """The charge for one code that an address tries, while it is not known whether the code is good."""

    __slots__ = ("due_ms", "open", "tries")

    def __init__(self, due_ms: float) -> None:
        self.due_ms = due_ms
        self.open = True
        self.tries = 0


class Try:
    """One code from one address. Whoever got it calls one of the methods, once.

    `wait_ms` must pass before the code is looked at.
    """

    __slots__ = ("_attempts", "_charge", "_place", "wait_ms")

    def __init__(
        self, attempts: Attempts, place: tuple[str, str], charge: _Charge | None, wait_ms: float
    ) -> None:
        self._attempts = attempts
        self._place = place
        self._charge = charge
        self.wait_ms = wait_ms

    def good(self) -> None:
        """There is such a code."""
        if self._close():
            self._attempts.give_back(self._place)
            self._attempts.know(*self._place)

    def judge(self, refusal: str | None, now_ms: int) -> None:
        """What the session has said to a command for this code: the code of the refusal; None for none."""
        if refusal == "session_not_found":
            self.wrong(now_ms)
        elif refusal in _UNJUDGED:
            self.unjudged()
        else:
            self.good()

    def wrong(self, now_ms: int) -> None:
        """The code is not good, or the client has gone before it was known."""
        if self._charge is None:
            self._attempts.forget(self._place, now_ms)
        else:
            self._close()

    def unjudged(self) -> None:
        """The code was not looked up."""
        if self._close():
            self._attempts.give_back(self._place)

    def _close(self) -> bool:
        """Whether the charge was still open."""
        charge = self._charge
        if charge is None or not charge.open:
            return False
        charge.open = False
        self._attempts.close(self._place)
        return True


class Attempts:
    """Codes and keys that were tried, by address, so that they cannot be found by trying.

    How to think about it: a try is charged when it is made, so that a thousand tries at once cost as much as
    a thousand in a row, and the charge is given back once the code turns out to be good. An address without
    tries left waits: each further try has its turn when the bucket has filled up enough, and a try that would
    wait too long is refused without a look-up. So a guesser learns about a limited number of codes a minute,
    and a good code in between has its turn as well. A good code that the address used lately costs nothing: a
    class keeps joining, whatever one of its players types. The same code again before the first answer costs
    nothing either: a class that joins all at once is one try.

    IPv6 addresses count by their /64, the range of one household or one server.

    Args:
        per_min: tries a minute, at once or spread.
        wait_max_ms: how long a try may wait for its turn.
        addresses_max: addresses that are remembered; beyond that the least recent one is forgotten.
        known_max: good codes that are remembered, by address; beyond that the least recent one is forgotten.
    """

    def __init__(
        self,
        per_min: int,
        wait_max_ms: float = 8_000,
        addresses_max: int = 20_000,
        known_max: int = 20_000,
    ) -> None:
        self._buckets = _Buckets(per_min / 60, per_min, addresses_max)
        self._wait_max_ms = wait_max_ms
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._known_max = known_max
        self._open: dict[tuple[str, str], _Charge] = {}

    def __len__(self) -> int:
        return len(self._buckets) + len(self._known) + len(self._open)

    def enter(self, address: str, code: str, now_ms: int) -> Try | None:
        """Try a code. None when the address has too many tries waiting: then it must not be looked at."""
        place = network_of(address), code
        if place in self._known:
            self._known.move_to_end(place)
            return Try(self, place, None, 0)
        charge = self._open.get(place)
        if charge is None:
            wait_ms = self._buckets.use(place[0]).charge(now_ms, self._wait_max_ms)
            if wait_ms is None:
                return None
            charge = self._open[place] = _Charge(now_ms + wait_ms)
        elif charge.tries >= TRIES_WAITING_MAX and charge.due_ms > now_ms:
            return None
        charge.tries += 1
        return Try(self, place, charge, max(charge.due_ms - now_ms, 0))

    def charge(self, address: str, now_ms: int) -> bool:
        """Charge a wrong try that needed no look-up. False if the address had no tries left."""
        return self._buckets.use(network_of(address)).charge(now_ms, self._wait_max_ms) == 0

    def know(self, address: str, code: str) -> None:
        """Somebody at this address has shown to be in a session with this code."""
        place = network_of(address), code
        self._known[place] = None
        self._known.move_to_end(place)
        if len(self._known) > self._known_max:
            self._known.popitem(last=False)

    # -- from tries ------------------------------------------------------------------------------

    def close(self, place: tuple[str, str]) -> None:
        del self._open[place]

    def give_back(self, place: tuple[str, str]) -> None:
        bucket = self._buckets.get(place[0])
        if bucket is not None:
            bucket.give_back()

    def forget(self, place: tuple[str, str], now_ms: int) -> None:
        """The code is good no longer, and so this was a try like any other."""
        if place in self._known:
            del self._known[place]
            self.charge(place[0], now_ms)


class MessageRate:
    """Messages a second, by player, for players without a connection of their own.

    Args:
        per_s: messages a second in the long run.
        burst: as many may come at once.
        players_max: players that are remembered; beyond that the least recent one is forgotten.
    """

    def __init__(self, per_s: float, burst: int, players_max: int = 20_000) -> None:
        self._buckets = _Buckets(per_s, burst, players_max)

    def take(self, session_id: str, player: int | str, now_ms: int) -> bool:
        """Let one more message through, of a player by number, or of a user. False when too many have just
        come."""
        return self._buckets.use(f"{session_id}/{player}").take(now_ms)


class ArrivalRate:
    """New connections a second, by address: a client that is disconnected and comes back at once costs a
    handshake each time.

    Args:
        per_s: connections a second in the long run.
        burst: as many may come at once.
        addresses_max: addresses that are remembered; beyond that the least recent one is forgotten.
    """

    def __init__(self, per_s: float, burst: int, addresses_max: int = 20_000) -> None:
        self._buckets = _Buckets(per_s, burst, addresses_max)

    def take(self, address: str, now_s: float) -> bool:
        """Let one more come. False when too many have just come."""
        return self._buckets.use(network_of(address)).take(round(now_s * 1000))


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
        network = network_of(address)
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
        network = network_of(address)
        left = self._open[network] - 1
        if left:
            self._open[network] = left
        else:
            del self._open[network]


def network_of(address: str) -> str:
    """What limits count an address by: itself, or the /64 of an IPv6 address."""
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
