"""What a run of a node says to Postgres every half second, and what the answer tells of its lease.

`SignOfLife` and its kinds know what to say and what the answer means; `Heartbeat` says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from engine.beats import sleep_to_beat
from engine.latency import Signs
from engine.lease import ClusterLease, LoneLease
from engine.ports import Owned, StorageUnavailable
from engine.storage.postgres import Database, Row

_BEAT_S = 0.25

SILENT_MAX_S = 2.0
"""A database that has answered neither a sign of life nor a commit for so long does not answer."""

_SIGN_TIMEOUT_S = 5.0
"""After so long without an answer a sign of life is given up: the next goes over a new connection."""

Statement = tuple[str, Sequence[object]]
"""SQL and its arguments."""


class SignOfLife:
    """Says that the run was alive, for the node that takes its sessions over. The answer means nothing."""

    def statement(self, owner: str, now_ms: int) -> Statement:
        return _ALIVE, (owner, now_ms)

    def answered(self, rows: Sequence[Row], asked_s: float, now_s: float) -> None:
        """The statement was asked at `asked_s`, and this is its answer."""

    def to_prove(self, now_s: float) -> bool:  # noqa: ARG002 - nothing depends on it without a lease
        """Whether every session that the node holds has to be found its own now."""
        return False

    def proved(self, asked_s: float, now_s: float) -> None:
        """Every session was found its own by a look that began at `asked_s`, or is fenced."""

    async def watch(self, clock_s: Callable[[], float]) -> None:
        """Runs beside everything else."""

    def farewell(self, owner: str, now_ms: int) -> Statement | None:  # noqa: ARG002 - as in `to_prove`
        """The last statement, when everything is committed; None if there is nothing to say."""
        return None


class Alone(SignOfLife):
    """Keeps the lease of a node without a cluster, by the signs of life of all other nodes."""

    def __init__(self, lease: LoneLease) -> None:
        self._lease = lease

    def answered(self, rows: Sequence[Row], asked_s: float, now_s: float) -> None:  # noqa: ARG002 - overrides
        self._lease.looked(asked_s, {row["node"]: row["alive_at"] for row in rows})

    def to_prove(self, now_s: float) -> bool:
        return self._lease.to_prove(now_s)

    def proved(self, asked_s: float, now_s: float) -> None:
        self._lease.proved(asked_s, now_s)

    async def watch(self, clock_s: Callable[[], float]) -> None:
        while True:
            self._lease.beat(clock_s())
            await sleep_to_beat(_BEAT_S)


class Leased(SignOfLife):
    """Renews the lease of a node in a cluster, for `lease.ttl_s` each time, and gives it back at the end.

    Args:
        address: what the run tells the other nodes of itself just now, as JSON.
    """

    def __init__(self, lease: ClusterLease, address: Callable[[], str]) -> None:
        self._lease = lease
        self._address = address

    def statement(self, owner: str, now_ms: int) -> Statement:
        return _RENEW, (owner, now_ms, self._address(), self._lease.ttl_s)

    def answered(self, rows: Sequence[Row], asked_s: float, now_s: float) -> None:
        self._lease.lease_renewed(asked_s, now_s, rows[0]["lease_since"])

    def to_prove(self, now_s: float) -> bool:
        return self._lease.to_prove(now_s)

    def proved(self, asked_s: float, now_s: float) -> None:
        self._lease.proved(asked_s, now_s)

    def farewell(self, owner: str, now_ms: int) -> Statement:
        self._lease.lease_ends()
        return _GIVE_BACK, (owner, now_ms)


class Heartbeat:
    """Says that the node is alive, over a connection of its own, so that no commit delays it.

    Args:
        sign: what is said, and what hears the answer.
        owner: this run of the node, and no earlier one.
        now_ms: the clock that dates signs of life.
        clock_s: the clock of the lease.
    """

    def __init__(
        self,
        database: Database,
        sign: SignOfLife,
        *,
        owner: str,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
        interval_s: float,
    ) -> None:
        self._connection = database.connection()
        self._sign = sign
        self._owner = owner
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._interval_s = interval_s
        self._owned: Callable[[], Iterable[Owned]] = tuple
        self._reachable = True
        self._answered_s = trio.current_time()
        self.signs = Signs()

    def watch(self, owned: Callable[[], Iterable[Owned]]) -> None:
        """Look after the sessions that this node holds: `owned` says which, whenever it is asked."""
        self._owned = owned

    def answered(self) -> None:
        """The database has answered, this or a commit."""
        self._reachable = True
        self._answered_s = trio.current_time()

    @property
    def reachable(self) -> bool:
        """Whether the last attempt to reach the database succeeded."""
        return self._reachable

    def database_problem(self) -> str | None:
        """A sentence on what keeps the database from answering; None as long as it does."""
        silent_s = trio.current_time() - self._answered_s
        if silent_s >= SILENT_MAX_S:
            return f"the database has not answered for {silent_s:.0f} s"
        return None if self._reachable else "the database cannot be reached"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reports as started after the first sign of life. Never raises StorageUnavailable."""
        await self._say(FORGET_NODES, self._now_ms())
        await self._show_life()
        task_status.started()
        while True:
            await sleep_to_beat(self._interval_s)
            await self._show_life()

    async def beat(self) -> None:
        """Runs beside everything else: what the sign of life has to do more often than it is said."""
        await self._sign.watch(self._clock_s)

    async def farewell(self) -> None:
        """When everything is committed: give back what another node would have to wait for."""
        if (farewell := self._sign.farewell(self._owner, self._now_ms())) is not None:
            sql, arguments = farewell
            await self._say(sql, *arguments)

    async def aclose(self) -> None:
        await self._connection.aclose()

    async def _show_life(self) -> None:
        asked_s = self._clock_s()
        sql, arguments = self._sign.statement(self._owner, self._now_ms())
        rows = await self._say(sql, *arguments)
        if rows is None:
            return
        self._sign.answered(rows, asked_s, self._clock_s())
        if self._sign.to_prove(self._clock_s()):
            await self._prove()

    async def _prove(self) -> None:
        """Find every session that this node holds to be its own still; a session that is not is fenced."""
        asked_s = self._clock_s()
        owned = list(self._owned())
        ids, epochs = [each.session_id for each in owned], [each.epoch for each in owned]
        rows = await self._say(STILL_OWN, ids, epochs, self._owner)
        if rows is not None:
            own = {(str(row["id"]), row["epoch"]) for row in rows}
            for each in owned:
                if (each.session_id, each.epoch) not in own:
                    each.fenced()
            self._sign.proved(asked_s, self._clock_s())

    async def _say(self, sql: str, *args: object) -> Sequence[Row] | None:
        """None when it failed."""
        asked_s, why = trio.current_time(), f"no answer within {_SIGN_TIMEOUT_S:g} s"
        with trio.move_on_after(_SIGN_TIMEOUT_S):
            try:
                rows = await self._connection.fetch(sql, *args)
            except StorageUnavailable as error:
                why = str(error) or why
            else:
                self.answered()
                self.signs.answered(asked_s, trio.current_time())
                return rows
        self._reachable = False
        self.signs.failed(trio.current_time(), why)
        return None


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
