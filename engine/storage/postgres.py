"""Connections to Postgres: the one place that imports asyncpg.

Errors are sorted by whose doing they are. What lies with the server, the network or the operator (connection
lost, shutting down, disk full, deadlock, time-out) becomes StorageUnavailable: the same call may succeed
later. All else, such as a violated constraint or a value that does not fit its column, is a mistake of ours
and passes unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any, Protocol, TypeVar

import asyncpg  # type: ignore[import-untyped]  # ships no types
import trio

from engine.aio import call
from engine.ports import StorageUnavailable

T = TypeVar("T")

UniqueViolation: type[Exception] = asyncpg.UniqueViolationError

UnknownTimeZone: type[Exception] = asyncpg.InvalidParameterValueError
"""Where a statement has no other parameter that may be out of range but the name of a time zone."""

LockNotAvailable: type[Exception] = asyncpg.LockNotAvailableError
"""As the cause of StorageUnavailable: somebody else held a lock for longer than `lock_timeout`."""

_TROUBLE = (
    OSError,  # includes every time-out
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)

_RELEASE_TIMEOUT_S = 0.5
"""Then the connection is thrown away."""

_SERVER_SETTINGS = {
    "application_name": "fanfare",
    # Acknowledged means committed, whatever the server, the database or the role has as its default.
    "synchronous_commit": "on",
    # A node that froze in the middle of a claim must not hold up others for longer than this.
    "idle_in_transaction_session_timeout": "10s",
}


_DURABLE: Mapping[str, Collection[str]] = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
}
"""Settings without which a commit that was reported may not outlive a crash, and what they may be."""

_DEDICATED_SETTINGS = {
    **_SERVER_SETTINGS,
    # One task says the same few statements over and over. Left to itself, PostgreSQL would plan a commit anew
    # each time, because a plan for known sessions looks cheaper when the tables are partitioned.
    "plan_cache_mode": "force_generic_plan",
}


class NotDurable(StorageUnavailable):
    """The server does not keep what it has committed."""

    def __init__(self, name: str, value: str) -> None:
        super().__init__(
            f"{name} is {value}, so a crash would lose answers that were acknowledged: set it to on"
        )
        self.name = name
        self.value = value


class Row(Protocol):
    """One row of a result: read by the names of its columns, or unpacked in their order."""

    def __getitem__(self, column: str) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


class Cursor(Protocol):
    """asyncio-flavoured."""

    async def fetch(self, rows_max: int) -> Sequence[Row]: ...


class Connection(Protocol):
    """What may be done with a connection inside a transaction. asyncio-flavoured."""

    async def execute(
        self,
        sql: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's signature
    ) -> object: ...
    async def fetch(self, sql: str, *args: object) -> Sequence[Row]: ...
    async def fetchrow(
        self,
        sql: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's signature
    ) -> Row | None: ...
    async def fetchval(
        self,
        sql: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's signature
    ) -> Any: ...
    async def cursor(self, sql: str, *args: object) -> Cursor: ...


Look = Callable[[Connection], Awaitable[None]]


def _unavailable(error: BaseException) -> StorageUnavailable:
    return StorageUnavailable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _late(after_s: float) -> StorageUnavailable:
    return _unavailable(TimeoutError(f"no answer within {after_s:g} s"))


async def _on(connection: Any, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `work` and sort its errors."""
    try:
        return await work(connection)
    except _TROUBLE as error:
        raise _unavailable(error) from error
    except asyncpg.InternalClientError as error:
        # The server has said that it closes the connection, and has not closed it yet.
        raise _unavailable(error) from error
    except asyncpg.InterfaceError as error:
        # Also raised for misuse; only a connection that died under the call is not our doing.
        if _is_dead(connection):
            raise _unavailable(error) from error
        raise


def _is_dead(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has taken it back already, as it does when it is lost
        return True


async def _call(function: Callable[..., Awaitable[T]], *args: object) -> T:
    try:
        return await call(function, *args)
    except asyncio.CancelledError as error:
        # trio was not cancelled, or this would be trio.Cancelled: the connection was aborted under the call.
        raise _unavailable(error) from error


async def _closing(close: Callable[[], Awaitable[None]]) -> None:
    """`close` sets its own bound."""
    with trio.CancelScope(shield=True):
        await _call(close)


async def _connecting(connect: Awaitable[T]) -> T:
    """Whatever the server says while a connection is set up (no such database, wrong password, starting up)
    concerns its state, not a statement of ours."""
    try:
        return await connect
    except (OSError, asyncpg.PostgresError) as error:
        raise _unavailable(error) from error


async def _refuse_not_durable(connection: Connection) -> None:
    """Raises NotDurable."""
    for name, value in await connection.fetch(_SETTINGS_NOW, list(_DURABLE)):
        if value not in _DURABLE[name]:
            raise NotDurable(name, value)


_SETTINGS_NOW = "SELECT name, current_setting(name) FROM unnest($1::text[]) AS name"


class Database:
    """A pool of connections. Each call takes a connection for itself and may be cancelled at any point
    without harm to it. Every call may raise StorageUnavailable; NotDurable when the server is set up so that
    it may lose what it has committed."""

    def __init__(
        self, pool: Any, dsn: str, look: Look, *, connect_timeout_s: float, statement_timeout_s: float
    ) -> None:
        self._pool = pool
        self._look = look
        self._dsn = dsn
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        # In the pool's queue, while others use all connections, and to connect: that alone has its own bound.
        self._acquire_timeout_s = statement_timeout_s + connect_timeout_s

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        look: Look | None = None,
        *,
        connections_max: int = 8,
        connect_timeout_s: float = 5.0,
        statement_timeout_s: float = 30.0,
        close_timeout_s: float = 2.0,
    ) -> AsyncIterator[Database]:
        """Does not connect yet. Needs `open_asyncio()` around it.

        `look` is called with every new connection, asyncio-flavoured, before anything else is said on it.
        """

        async def first(connection: Connection) -> None:
            await _refuse_not_durable(connection)
            if look is not None:
                await look(connection)

        async def create() -> Any:
            return await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=connections_max,
                timeout=connect_timeout_s,
                command_timeout=statement_timeout_s,
                server_settings=_SERVER_SETTINGS,
                init=lambda connection: _on(connection, first),
            )

        async def close() -> None:
            try:
                await asyncio.wait_for(pool.close(), close_timeout_s)
            except (TimeoutError, *_TROUBLE):
                pool.terminate()

        pool = await _call(create)
        try:
            yield cls(
                pool, dsn, first, connect_timeout_s=connect_timeout_s, statement_timeout_s=statement_timeout_s
            )
        finally:
            await _closing(close)

    async def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """All rows of one statement, which is its own transaction."""
        return await self._with_connection(lambda connection: connection.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> Row | None:
        """The first row, or None."""
        return await self._with_connection(lambda connection: connection.fetchrow(sql, *args))

    async def execute(self, sql: str, *args: object) -> None:
        """One statement for its effect."""
        await self._with_connection(lambda connection: connection.execute(sql, *args))

    async def in_transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run the asyncio-flavoured `work` in one transaction; an exception from it rolls everything back."""

        async def transaction(connection: Any) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._with_connection(transaction)

    async def _with_connection(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async def borrow() -> T:
            connection = await _connecting(self._pool.acquire(timeout=self._acquire_timeout_s))
            try:
                return await _on(connection, work)
            finally:
                # Trouble with giving it back costs only this connection: the work is done, its result stands.
                # Behind a cancelled statement the server is asked to stop it, which may not be heard either.
                with suppress(*_TROUBLE, asyncpg.InternalClientError):
                    await self._pool.release(connection, timeout=_RELEASE_TIMEOUT_S)

        return await _call(borrow)

    def connection(self) -> DedicatedConnection:
        """A connection outside of the pool, for one task that must never wait for another."""
        return DedicatedConnection(
            self._dsn,
            self._look,
            connect_timeout_s=self._connect_timeout_s,
            statement_timeout_s=self._statement_timeout_s,
        )


class DedicatedConnection:
    """One connection, opened at its first use and again after it was lost. For one task at a time.

    After an error or a cancellation the connection is thrown away: whether the statement took effect is then
    unknown, and the next one starts from a clean state.
    """

    def __init__(self, dsn: str, look: Look, *, connect_timeout_s: float, statement_timeout_s: float) -> None:
        self._dsn = dsn
        self._look = look
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._connection: Any = None
        self._looked = False
        """Whether the look at this connection has come to its end."""
        self._watched: asyncio.Task[Any] | None = None
        """The task of the statement that has to end by `_until_s`."""
        self._until_s = inf
        self._is_late = False
        self._timer: asyncio.TimerHandle | None = None
        """Fires by `_until_s` at the latest."""

    async def fetch(self, sql: str, *args: object, timeout_s: float = inf) -> Sequence[Row]:
        """All rows of one statement, which is its own transaction. Raises StorageUnavailable; also when it
        takes longer than `timeout_s`, which includes the time to connect."""
        deadline_s = trio.current_time() + timeout_s
        if self._connection is None or self._connection.is_closed():
            self._looked = False
            await self._within(min(timeout_s, self._connect_timeout_s), self._connect)
        if not self._looked:
            # Where the server has lost commits this takes longer than to connect.
            left_s = max(0.0, deadline_s - trio.current_time())
            await self._within(min(left_s, self._statement_timeout_s), self._run, self._look)
            self._looked = True
        until_s = min(deadline_s, trio.current_time() + self._statement_timeout_s)
        return await _call(self._run, lambda connection: connection.fetch(sql, *args), until_s)

    async def _within(self, timeout_s: float, function: Callable[..., Awaitable[T]], *args: object) -> T:
        with trio.move_on_after(timeout_s):
            return await _call(function, *args)
        raise _late(timeout_s)

    async def _connect(self) -> None:
        self._connection = await _connecting(
            asyncpg.connect(self._dsn, timeout=self._connect_timeout_s, server_settings=_DEDICATED_SETTINGS)
        )

    async def _run(self, work: Callable[[Connection], Awaitable[T]], until_s: float = inf) -> T:
        """asyncio-flavoured. Raises StorageUnavailable when `work` has not ended by then."""
        began_s = asyncio.get_running_loop().time()
        if until_s < inf:
            self._watch(until_s)
        try:
            return await _on(self._connection, work)
        except BaseException as error:
            self._connection.terminate()
            self._connection = None
            if self._is_late and isinstance(error, asyncio.CancelledError):
                raise _late(until_s - began_s) from error
            raise
        finally:
            self._watched, self._is_late = None, False

    def _watch(self, until_s: float) -> None:
        """Cancel the task that runs just now if it does not end by then. The timer outlives the statement, to
        watch the next ones too: to set and to cancel one costs more than all the rest of this."""
        self._watched, self._until_s = asyncio.current_task(), until_s
        if self._timer is None or self._timer.when() > until_s:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_at(until_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        watched = self._watched
        if watched is None:
            return
        loop = watched.get_loop()
        if loop.time() < self._until_s:
            self._timer = loop.call_at(self._until_s, self._fire)
        else:
            self._is_late = True
            watched.cancel()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    async def aclose(self) -> None:
        """Close in good order, within a second."""
        connection, self._connection = self._connection, None
        self._stop_timer()

        async def close() -> None:
            try:
                await connection.close(timeout=1.0)
            except _TROUBLE:
                connection.terminate()

        if connection is not None:
            await _closing(close)
