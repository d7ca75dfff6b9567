"""Whether a node can be certain that its sessions are still its own, without asking anybody.

Acknowledging from the spool needs that: the database, which would fence a stale owner, is away. Moments are
seconds of a clock that runs on while the process is stopped. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping


class OnlyNode:
    """Port `Tenure` for a node without leases: certain while it is the only one.

    It is the only one when, for `settle_s`, no other node has given a sign of life in the database, and then
    every session it holds was found to be its own still. It stays certain while the database is away, for
    nobody can claim a session then. A node that was stopped for longer than `frozen_max_s` knows nothing any
    more, and begins anew.

    What this cannot see: another node that reaches the database while this one does not.
    """

    def __init__(self, *, settle_s: float = 2.0, frozen_max_s: float = 2.0) -> None:
        self._settle_s = settle_s
        self._frozen_max_s = frozen_max_s
        self._signs: dict[str, int] | None = None
        self._quiet_since_s: float | None = None
        self._looked_s = 0.0
        self._beat_s: float | None = None
        self._proven = False

    def beat(self, now_s: float) -> None:
        """To be called much more often than every `frozen_max_s`."""
        if self._frozen(now_s):
            self._doubt()
        self._beat_s = now_s

    def looked(self, now_s: float, signs: Mapping[str, int]) -> None:
        """The last signs of life of all others, by node, as the database had them at `now_s`."""
        moved = self._signs is None or any(self._signs.get(node) != at for node, at in signs.items())
        self._signs = dict(signs)
        self._looked_s = now_s
        if moved:
            self._proven = False
            self._quiet_since_s = now_s

    def to_prove(self, now_s: float) -> bool:
        """Whether all that is missing is to find every session its own, and to say so with `proved`."""
        quiet = self._quiet_since_s is not None and self._looked_s - self._quiet_since_s >= self._settle_s
        return quiet and not self._proven and not self._frozen(now_s)

    def proved(self, asked_at_s: float, now_s: float) -> None:
        """Every session was found to be this node's own, by a look that began at `asked_at_s`."""
        if self.to_prove(now_s) and asked_at_s >= self._looked_s:
            self._proven = True

    def certain(self, now_s: float) -> bool:
        return self._proven and not self._frozen(now_s)

    def _frozen(self, now_s: float) -> bool:
        return self._beat_s is not None and now_s - self._beat_s > self._frozen_max_s

    def _doubt(self) -> None:
        self._signs = None
        self._quiet_since_s = None
        self._proven = False


class Lease:
    """Port `Tenure` by a right that ends by itself: a lease in the database, or a heartbeat with a TTL.

    Nobody takes a session over before `ttl_s` have passed since the renewal; this node stops `margin_s`
    earlier, which covers how differently two clocks run and how long an acknowledgement takes to leave.
    """

    def __init__(self, *, ttl_s: float, margin_s: float) -> None:
        if not 0 < margin_s < ttl_s:
            raise ValueError(f"the margin must lie between 0 and the {ttl_s} s of the lease, not {margin_s}")
        self._holds_s = ttl_s - margin_s
        self._renewed_s: float | None = None

    def renewed(self, asked_at_s: float) -> None:
        """A renewal was confirmed. It counts from when it was asked for, not from when the answer came."""
        self._renewed_s = asked_at_s if self._renewed_s is None else max(asked_at_s, self._renewed_s)

    def lost(self) -> None:
        """The right was refused or given back."""
        self._renewed_s = None

    def certain(self, now_s: float) -> bool:
        return self._renewed_s is not None and now_s - self._renewed_s < self._holds_s
