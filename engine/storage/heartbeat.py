"""What a run of a node says to Postgres every half second, and what the answer tells of its lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from engine.lease import ClusterLease, LoneLease
from engine.storage.postgres import Row

_BEAT_S = 0.25

Statement = tuple[str, Sequence[object]]
"""SQL and its arguments."""


class SignOfLife:
    """Says that the run was alive, for whoever takes its sessions over, and makes nothing of the answer."""

    def statement(self, owner: str, now_ms: int) -> Statement:
        return _ALIVE, (owner, now_ms)

    def answered(self, rows: Sequence[Row], asked_s: float, now_s: float) -> None:
        """The statement was asked at `asked_s`, and this is its answer."""

    def to_prove(self, now_s: float) -> bool:  # noqa: ARG002 - nothing depends on it without a lease
        """Whether every session that the node holds has to be found its own now."""
        return False

    def proved(self, asked_s: float, now_s: float) -> None:
        """They were, by a look that began at `asked_s`, or are fenced."""

    async def watch(self, clock_s: Callable[[], float]) -> None:
        """Runs beside everything else."""

    def farewell(self, owner: str, now_ms: int) -> Statement | None:  # noqa: ARG002 - as in `to_prove`
        """To be said last, when everything is committed; None if there is nothing to say."""
        return None


class Alone(SignOfLife):
    """Keeps the lease of a node without leases, by the signs of life of all others."""

    def __init__(self, lease: LoneLease) -> None:
        self._tenure = lease

    def answered(self, rows: Sequence[Row], asked_s: float, now_s: float) -> None:  # noqa: ARG002 - overrides
        self._tenure.looked(asked_s, {row["node"]: row["alive_at"] for row in rows})

    def to_prove(self, now_s: float) -> bool:
        return self._tenure.to_prove(now_s)

    def proved(self, asked_s: float, now_s: float) -> None:
        self._tenure.proved(asked_s, now_s)

    async def watch(self, clock_s: Callable[[], float]) -> None:
        while True:
            self._tenure.beat(clock_s())
            await trio.sleep(_BEAT_S)


class Leased(SignOfLife):
    """Renews the lease of a node in a cluster, for `lease.ttl_s` each time, and gives it back at the end.

    Args:
        address: what the run tells the other nodes of itself just now, as JSON.
    """

    def __init__(self, lease: ClusterLease, address: Callable[[], str]) -> None:
        self._tenure = lease
        self._address = address

    def statement(self, owner: str, now_ms: int) -> Statement:
        return _RENEW, (owner, now_ms, self._address(), self._tenure.ttl_s)

    def answered(self, rows: Sequence[Row], asked_s: float, now_s: float) -> None:
        self._tenure.lease_renewed(asked_s, now_s, rows[0]["lease_since"])

    def to_prove(self, now_s: float) -> bool:
        return self._tenure.to_prove(now_s)

    def proved(self, asked_s: float, now_s: float) -> None:
        self._tenure.proved(asked_s, now_s)

    def farewell(self, owner: str, now_ms: int) -> Statement:
        self._tenure.lease_ends()
        return _GIVE_BACK, (owner, now_ms)


_ALIVE = """
WITH own AS (
    INSERT INTO nodes (node, alive_at) VALUES ($1, 'epoch'::timestamptz + $2::float8 * interval '1 ms')
    ON CONFLICT (node) DO UPDATE SET alive_at = greatest(nodes.alive_at, excluded.alive_at)
)
SELECT node, (extract(epoch FROM alive_at) * 1000)::bigint AS alive_at FROM nodes WHERE node <> $1
"""

# Whoever takes a session of this run holds the row, FOR SHARE, until that is done. What is set is computed
# after the wait for that, so the lease is found to have ended if it had when the session was taken. What is
# told is since when it holds, and not whether it had ended: so the loss of an answer hides no gap.
_RENEW = """
INSERT INTO nodes AS own (node, alive_at, address, lease_since, lease_until)
VALUES ($1, 'epoch'::timestamptz + $2::float8 * interval '1 ms', $3,
        clock_timestamp(), clock_timestamp() + $4::float8 * interval '1 s')
ON CONFLICT (node) DO UPDATE SET
    alive_at = greatest(own.alive_at, excluded.alive_at),
    address = excluded.address,
    lease_since = CASE
        WHEN own.lease_until > clock_timestamp() THEN own.lease_since ELSE clock_timestamp() END,
    lease_until = clock_timestamp() + $4::float8 * interval '1 s'
RETURNING (extract(epoch FROM lease_since) * 1000000)::bigint AS lease_since
"""

_GIVE_BACK = """
UPDATE nodes
SET lease_until = clock_timestamp(),
    alive_at = greatest(alive_at, 'epoch'::timestamptz + $2::float8 * interval '1 ms')
WHERE node = $1
"""

STILL_OWN = """
SELECT s.id, s.epoch
FROM unnest($1::uuid[], $2::bigint[]) AS own (id, epoch)
JOIN sessions s ON s.id = own.id AND s.epoch = own.epoch AND s.owner = $3
WHERE s.id = ANY ($1::uuid[])
ORDER BY s.id
FOR SHARE OF s
"""
"""Which of these sessions are still the owner's. Waits for everybody who is taking one of them; locks them in
the order in which commits do."""

FORGET_NODES = """
DELETE FROM nodes
WHERE alive_at < 'epoch'::timestamptz + $1::float8 * interval '1 ms' - interval '7 days'
  AND (lease_until IS NULL OR lease_until <= clock_timestamp())
  AND NOT EXISTS (SELECT FROM sessions WHERE owner = node AND finished_at IS NULL)
"""
"""A row is of use for as long as a session waits to be taken over from its run."""
