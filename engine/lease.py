"""Whether a node can be certain that it still owns its sessions, without asking the database.

Acknowledging from the spool needs this certainty, because the database, which would fence a stale owner, is
away. Moments are seconds of a clock that runs on while the process is stopped. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping


class LoneLease:
    """Port `Lease` for a node without leases: certain while it is the only one.

    It is the only one if, for `settle_s`, no other node has stored a sign of life, and after that it was
    found to own every session it holds. It stays certain while the database is away, because no node can
    claim a session then. A node that was stopped for longer than `frozen_max_s` is not certain any more, and
    begins anew.

    It cannot see another node that reaches the database while this one does not.
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
        """Call this much more often than every `frozen_max_s`."""
        if self._frozen(now_s):
            self._doubt()
        self._beat_s = now_s

    def looked(self, now_s: float, signs: Mapping[str, int]) -> None:
        """Take the last signs of life of all other nodes, as the database had them at `now_s`."""
        moved = self._signs is None or any(self._signs.get(node) != at for node, at in signs.items())
        self._signs = dict(signs)
        self._looked_s = now_s
        if moved:
            self._proven = False
            self._quiet_since_s = now_s

    def to_prove(self, now_s: float) -> bool:
        """Whether the only missing step is to check that every session is still owned, and to call
        `proved`."""
        quiet = self._quiet_since_s is not None and self._looked_s - self._quiet_since_s >= self._settle_s
        return quiet and not self._proven and not self._frozen(now_s)

    def proved(self, asked_at_s: float, now_s: float) -> None:
        """Every session was found to be owned by this node, by a query that began at `asked_at_s`."""
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


class ClusterLease:
    """Port `Lease` for a node among others: certain while its lease in the database holds, or its heartbeat.

    A node that takes a session over needs both to have ended: the lease, in the transaction that takes the
    session, and the heartbeat, by a look that is then not older than `ttl_s - margin_s`. Each counts for
    `ttl_s - margin_s` from the moment it was asked for; the margin covers clocks that run at different
    speeds, and the time that an acknowledgement takes to leave.

    If neither has held for a moment, or the database reports a gap that this node has not noticed, the
    ownership of every session has to be proved again, because another node may have taken it. And a heartbeat
    that was gone counts only once it has been there for `ttl_s` without a gap: until then another node may
    act on its absence.
    """

    def __init__(self, *, ttl_s: float, margin_s: float) -> None:
        if not 0 < margin_s < ttl_s:
            raise ValueError(f"the margin must lie between 0 and the {ttl_s} s of the lease, not {margin_s}")
        self.ttl_s = ttl_s
        self._holds_s = ttl_s - margin_s
        self._lease_s: float | None = None
        self._lease_since: int | None = None
        self._heartbeat_s: float | None = None
        self._seen_s: float | None = None
        self._seen_since_s = 0.0
        self._doubted_s = 0.0
        self._proven = False

    def lease_renewed(self, asked_s: float, now_s: float, since: int) -> None:
        """The answer to a renewal has arrived, at `now_s`. `since` is the start of the lease without a gap,
        by the clock of the database: only a change of it matters."""
        if not self.holds(now_s) or since != self._lease_since:
            self._doubt(now_s)
        self._lease_since = since
        self._lease_s = asked_s

    def heartbeat_confirmed(self, asked_s: float, now_s: float) -> None:
        """The answer to a heartbeat has arrived, at `now_s`."""
        if not self.holds(now_s):
            self._doubt(now_s)
        if not self._recent(self._seen_s, now_s):
            self._seen_since_s = now_s
        self._seen_s = asked_s
        if asked_s - self._seen_since_s >= self.ttl_s:
            self._heartbeat_s = asked_s

    def lease_ends(self) -> None:
        """Call this before the lease is given back."""
        self._lease_s = None

    def heartbeat_ends(self) -> None:
        """Call this before the heartbeat is withdrawn."""
        self._heartbeat_s = self._seen_s = None

    def to_prove(self, now_s: float) -> bool:
        """Whether the only missing step is to check that every session is still owned, and to call
        `proved`."""
        return self.holds(now_s) and not self._proven

    def proved(self, asked_at_s: float, now_s: float) -> None:
        """Every session was found to be this node's own, by a look that began at `asked_at_s` and waited for
        everybody who was taking one."""
        if self.holds(now_s) and asked_at_s >= self._doubted_s:
            self._proven = True

    def certain(self, now_s: float) -> bool:
        return self._proven and self.holds(now_s)

    def holds(self, now_s: float) -> bool:
        """Whether the lease or the heartbeat does. Without news, this turns false once and stays so: no gap
        between two pieces of news goes unseen."""
        return self._recent(self._lease_s, now_s) or self._recent(self._heartbeat_s, now_s)

    def _recent(self, asked_s: float | None, now_s: float) -> bool:
        return asked_s is not None and now_s - asked_s < self._holds_s

    def _doubt(self, now_s: float) -> None:
        self._doubted_s = now_s
        self._proven = False
