"""One fault, from its beginning to the end of its clean-up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from loadtest.chaos.plan import Fault, Kind
from loadtest.chaos.proxy import Proxy

LINK_DELAY_S = (0.02, 0.2)
"""How much later everything comes on a slow link, at least and at most."""


class StageFailed(Exception):
    """A process does not do what it must: the run is over."""


class Stage(Protocol):
    """The processes that faults are done to. Whatever is stopped can be started again on the same addresses.

    Every call may raise StageFailed. Whoever made the stage leaves nothing of it behind, in whatever state a
    fault that was broken off has left it.
    """

    proxy: Proxy
    """Between the node and PostgreSQL."""

    async def kill_node(self) -> None:
        """Returns when it is gone."""

    async def end_node(self) -> None:
        """SIGTERM; it must end by itself, and well."""

    async def start_node(self) -> None:
        """Returns when it says that it is up."""

    def pause_node(self, on: bool) -> None: ...

    async def kill_postgres(self) -> None:
        """All its processes."""

    async def kill_backend(self, share: float) -> None:
        """One process that serves the node; which one, by the share."""

    async def start_postgres(self) -> None:
        """Returns when it takes connections."""

    def pause_postgres(self, on: bool) -> None:
        """All its processes."""

    async def lock_answers(self, lasts_s: float) -> None:
        """Nobody may write answers meanwhile. Returns when it is over."""

    def fill_disk(self, on: bool) -> None:
        """The disk with the node's data directory."""


async def inject(fault: Fault, stage: Stage, cut_clients: Callable[[], Awaitable[None]]) -> None:
    """Do it, wait, and undo it. Raises StageFailed.

    Args:
        cut_clients: takes the connections of all players away.
    """
    match fault.kind:
        case Kind.NODE_KILL:
            await stage.kill_node()
            await trio.sleep(fault.lasts_s)
            await stage.start_node()
        case Kind.NODE_TERM:
            await stage.end_node()
            await trio.sleep(fault.lasts_s)
            await stage.start_node()
        case Kind.NODE_PAUSE:
            stage.pause_node(True)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                stage.pause_node(False)
        case Kind.POSTGRES_KILL:
            await stage.kill_postgres()
            await trio.sleep(fault.lasts_s)
            await stage.start_postgres()
        case Kind.BACKEND_KILL:
            await stage.kill_backend(fault.share)
            await trio.sleep(fault.lasts_s)
        case Kind.POSTGRES_PAUSE:
            stage.pause_postgres(True)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                stage.pause_postgres(False)
        case Kind.BOTH_KILL:
            await _kill_both(fault, stage)
        case Kind.TABLE_LOCK:
            await stage.lock_answers(fault.lasts_s)
        case Kind.LINK_SLOW:
            least_s, most_s = LINK_DELAY_S
            with stage.proxy.slow(least_s + (most_s - least_s) * fault.share):
                await trio.sleep(fault.lasts_s)
        case Kind.LINK_CUT:
            with stage.proxy.severed():
                await trio.sleep(fault.lasts_s)
        case Kind.LINK_HOLD:
            with stage.proxy.silent():
                await trio.sleep(fault.lasts_s)
        case Kind.LINK_ONE_WAY:
            with stage.proxy.silent(towards_database=False):
                await trio.sleep(fault.lasts_s)
        case Kind.CLIENTS_CUT:
            await cut_clients()
            await trio.sleep(fault.lasts_s)
        case Kind.DISK_FULL:
            with stage.proxy.severed():
                stage.fill_disk(True)
                try:
                    await trio.sleep(fault.lasts_s)
                finally:
                    stage.fill_disk(False)


async def _kill_both(fault: Fault, stage: Stage) -> None:
    """One after the other: which comes first, and how long after it the other, is by the share."""
    postgres_first = fault.share < 0.5
    between_s = fault.lasts_s * (fault.share * 2 % 1.0)
    await (stage.kill_postgres() if postgres_first else stage.kill_node())
    await trio.sleep(between_s)
    await (stage.kill_node() if postgres_first else stage.kill_postgres())
    await trio.sleep(fault.lasts_s - between_s)
    await stage.start_postgres()
    await stage.start_node()
