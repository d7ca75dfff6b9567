"""Who may come in to one session: how fast, how many from one address, and whom the host has yet to let in.

All of it is about the moment and lives in memory: a node that takes the session over begins anew. Whoever
waits asks again and again, and so is on the list of the new one by itself.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import islice

from engine.actors.token_bucket import TokenBucket
from engine.domain.errors import Refusal

log = logging.getLogger(__name__)

SEATS_BURST_S = 20
"""So many seconds' worth of seats an address may take at once: a class, or an assembly hall, that is told to
join now."""

ADDRESSES_MAX = 20_000
"""Remembered; past it the one that took a seat longest ago is forgotten."""

WAITING_MAX = 1_000
WAITING_PER_ADDRESS_MAX = 100
"""A class or two behind one address."""
WAITING_LISTED_MAX = 100
"""Of those who wait, as many as the host is shown at a time: the longest waiting of each address first, then
the second of each, so that none of them hides the others."""

REFUSED_MAX = 4_000
"""Remembered until they have heard of it; past it the one refused first is forgotten, and may wait again."""

AGAIN_MS = 2_000
"""Whoever waits asks again after that."""

GONE_MS = 30_000
"""Whoever has not asked for so long has gone."""

BUSY = Refusal("busy", "A queue is full; nothing has changed. Try again in a moment.")
ADDRESS_FULL = Refusal("address_full", "As many players have joined from this network as may.")
NOT_ADMITTED = Refusal("not_admitted", "The host has not let this player in.")
NOBODY_WAITS = Refusal("player_not_found", "Nobody who waits has this number.")


@dataclass(slots=True)
class _Applicant:
    id: int
    asked: object
    """The name as it came."""
    name: str
    address: str | None
    at: int
    """When it asked last."""
    admitted: bool = False
    """Whether the host has let this one in; whoever is turned away waits no longer."""


@dataclass(slots=True)
class _Share:
    """Of one address in the seats."""

    bucket: TokenBucket
    taken: int = 0


class AdmissionControl:
    """What stands between a session and whoever wants to play in it.

    Args:
        joins_per_s: new players a second.
        seats_per_address_max: of them, from one address. A seat that was taken away counts on.
        seats_per_address_per_s: of those, a second.
    """

    def __init__(
        self,
        session_id: str,
        joins_per_s: float,
        seats_per_address_max: int,
        seats_per_address_per_s: float,
    ) -> None:
        self.news = False
        """Whether the list of those who wait has changed since the host was told."""
        self._session_id = session_id
        self._joins = TokenBucket(joins_per_s, max(1, round(joins_per_s)))
        self._most = seats_per_address_max
        self._per_s = seats_per_address_per_s
        self._shares: OrderedDict[str, _Share] = OrderedDict()
        self._complained = False
        self._applicants: OrderedDict[str, _Applicant] = OrderedDict()
        """By their ticket; who asked last is the last."""
        self._refused: OrderedDict[str, tuple[object, int]] = OrderedDict()
        """By their ticket, what they asked for and when the host said no, in the order of that."""
        self._numbers = 0
        self._at: Counter[str | None] = Counter()
        """How many wait at which address."""

    # -- seats -----------------------------------------------------------------------------------

    def refuse(self, address: str | None, now: int) -> Refusal | None:
        """Why nobody can take a seat from there just now."""
        if self._joins.empty(now):
            return BUSY
        share = self._shares.get(address) if address is not None else None
        if share is None:
            return None
        if share.taken < self._most:
            return BUSY if share.bucket.empty(now) else None
        if not self._complained:
            self._complained = True
            log.warning(
                "session %s: %d players have joined from %s, and more are refused. If this is a proxy, set "
                "proxy_hops; if so many do share an address, raise seats_per_address_max",
                self._session_id,
                share.taken,
                address,
            )
        return ADDRESS_FULL

    def seat(self, address: str | None, now: int) -> None:
        """A seat was taken from there."""
        self._joins.take(now)
        if address is None:
            return
        share = self._shares.get(address)
        if share is None:
            burst = max(1, round(SEATS_BURST_S * self._per_s))
            share = self._shares[address] = _Share(TokenBucket(self._per_s, burst))
            if len(self._shares) > ADDRESSES_MAX:
                self._shares.popitem(last=False)
        self._shares.move_to_end(address)
        share.taken += 1
        share.bucket.take(now)

    # -- those who wait --------------------------------------------------------------------------

    def decision(self, ticket: str | None, asked: object) -> bool | None:
        """What the host has decided about who has this ticket, and asked for this name with it."""
        refused = self._refused.get(ticket or "")
        if refused is not None and refused[0] == asked:
            return False
        applicant = self._applicants.get(ticket or "")
        return True if applicant is not None and applicant.admitted and applicant.asked == asked else None

    def wait(self, ticket: str, asked: object, name: str, address: str | None, now: int) -> Refusal | None:
        """Somebody waits for the host, or waits on. Args: asked: the name as it came. name: as it will be."""
        self._sweep(now)
        applicant = self._applicants.get(ticket)
        if applicant is not None and applicant.asked != asked:
            self.forget(ticket)
            applicant = None
        if applicant is None:
            if len(self._applicants) >= WAITING_MAX or self._at[address] >= WAITING_PER_ADDRESS_MAX:
                return BUSY
            self._numbers += 1
            applicant = self._applicants[ticket] = _Applicant(self._numbers, asked, name, address, now)
            self._at[address] += 1
            self.news = True
        applicant.at = now
        self._applicants.move_to_end(ticket)
        return None

    def forget(self, ticket: str | None) -> None:
        """Who has this ticket, if anybody, waits no longer, and has heard what the host decided."""
        self._refused.pop(ticket or "", None)
        applicant = self._applicants.pop(ticket or "", None)
        if applicant is not None:
            self._at[applicant.address] -= 1
            if not self._at[applicant.address]:
                del self._at[applicant.address]
            self.news = self.news or not applicant.admitted

    def decide(self, number: int | None, now: int, *, admitted: bool) -> Refusal | None:
        """Let in, or turn away, who waits under this number, or all. They hear of it when they ask again; the
        places of those who are turned away are free at once."""
        chosen = [
            (ticket, each)
            for ticket, each in self._applicants.items()
            if each.id == number or (number is None and not each.admitted)
        ]
        if number is not None and not chosen:
            return NOBODY_WAITS
        for ticket, applicant in chosen:
            if admitted:
                applicant.admitted = True
                continue
            self.forget(ticket)
            self._refused[ticket] = applicant.asked, now
            if len(self._refused) > REFUSED_MAX:
                self._refused.popitem(last=False)
        self.news = True
        return None

    def waiting(self, now: int) -> tuple[list[dict[str, object]], int]:
        """Those on whom the host has to decide, the first ones of them, and how many they are."""
        self._sweep(now)
        undecided = [each for each in self._applicants.values() if not each.admitted]
        undecided.sort(key=lambda each: each.id)
        turns: Counter[str | None] = Counter()
        turn_of: dict[int, int] = {}
        for each in undecided:
            turn_of[each.id] = turns[each.address]
            turns[each.address] += 1
        undecided.sort(key=lambda each: turn_of[each.id])
        listed = [{"id": each.id, "name": each.name} for each in islice(undecided, WAITING_LISTED_MAX)]
        return listed, len(undecided)

    def _sweep(self, now: int) -> None:
        while self._refused:
            ticket, (_, since) = next(iter(self._refused.items()))
            if now - since < GONE_MS:
                break
            del self._refused[ticket]
        while self._applicants:
            ticket, applicant = next(iter(self._applicants.items()))
            if now - applicant.at < GONE_MS:
                return
            self.forget(ticket)
