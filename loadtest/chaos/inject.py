"""One fault, from its beginning to the end of its clean-up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

import trio

from loadtest.chaos.plan import Fault, Kind
from loadtest.chaos.proxy import Proxy

LINK_DELAY_S = (0.02, 0.2)
"""How much later everything comes on a slow link, at least and at most."""


class StageFailed(Exception):
    """A process does not do what it must: the run is over."""


class Stage(Protocol):
    """The processes that faults are done to: one node or several, by their places from 0, and what they need.
    Whatever is stopped can be started again on the same addresses.

    Every call may raise StageFailed. Whoever made the stage leaves nothing of it behind, in whatever state a
    fault that was broken off has left it.
    """

    nodes: int

    @property
    def ws_urls(self) -> Sequence[str]:
        """Of the nodes' WebSockets."""

    def to_postgres(self, node: int) -> Proxy:
        """Between this node and PostgreSQL."""

    async def kill_node(self, node: int) -> None:
        """Returns when it is gone."""

    async def end_node(self, node: int) -> None:
        """SIGTERM; it must end by itself, and well."""

    async def start_node(self, node: int) -> None:
        """Returns when it says that it is up."""

    def pause_node(self, node: int, on: bool) -> None: ...

    async def kill_postgres(self) -> None:
        """All its processes."""

    async def kill_backend(self, share: float) -> None:
        """One process that serves a node; which one, by the share."""

    async def start_postgres(self) -> None:
        """Returns when it takes connections."""

    def pause_postgres(self, on: bool) -> None:
        """All its processes."""

    async def lock_answers(self, lasts_s: float) -> None:
        """Nobody may write answers meanwhile. Returns when it is over."""

    def fill_disk(self, node: int, on: bool) -> None:
        """The disk with the node's data directory."""

    def set_clock(self, node: int, ahead_s: float) -> None:
        """Of this node's machine: so far ahead of the right time; below 0: behind."""

    async def copy_postgres(self) -> None:
        """Keep its data as they are now. It stands still meanwhile."""

    async def restore_postgres(self) -> None:
        """Kill it, and start it with the copy: what it has committed since then is lost. Returns when every
        node has been to it: one that died before would take with it what nobody else has any more."""

    async def settled(self, within_s: float) -> None:
        """Wait until all nodes are ready and know each other. At once for a node alone."""

    # What follows is for several nodes only.

    def to_redis(self, node: int) -> Proxy:
        """Between this node and Redis."""

    def to_others(self, node: int) -> Sequence[Proxy]:
        """Between this node and each other one, in either direction."""

    async def drain_node(self, node: int) -> None:
        """Have it give its sessions away. Returns when it has none."""

    async def kill_redis(self) -> None:
        """And all that is in it."""

    async def start_redis(self) -> None:
        """Returns when it answers."""

    def pause_redis(self, on: bool) -> None: ...

    async def flush_redis(self) -> None:
        """It goes on, and all that was in it is gone."""

    async def turn_away(self, node: int, *, twin: bool) -> None:
        """One more node wants to join: with a secret of its own, or with the name of this one. It must end by
        itself, and say why. Returns when it has."""


async def inject(fault: Fault, stage: Stage, cut_clients: Callable[[], Awaitable[None]]) -> None:
    """Do it, wait, and undo it. Raises StageFailed.

    Args:
        cut_clients: takes the connections of all players away.
    """
    node = fault.node
    match fault.kind:
        case Kind.NODE_KILL | Kind.NODE_GONE:
            await stage.kill_node(node)
            await trio.sleep(fault.lasts_s)
            await stage.start_node(node)
        case Kind.NODE_TERM:
            await stage.end_node(node)
            await trio.sleep(fault.lasts_s)
            await stage.start_node(node)
        case Kind.NODE_PAUSE | Kind.NODE_SLEEP | Kind.NODE_FREEZE | Kind.NODE_HANG:
            stage.pause_node(node, True)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                stage.pause_node(node, False)
        case Kind.NODE_DRAIN:
            await stage.drain_node(node)
            await trio.sleep(fault.lasts_s)
            await stage.end_node(node)
            await stage.start_node(node)
        case Kind.ROLL:
            for step in range(stage.nodes):
                await stage.end_node((node + step) % stage.nodes)
                await stage.start_node((node + step) % stage.nodes)
                await trio.sleep(fault.lasts_s)
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
        case Kind.REDIS_KILL:
            await stage.kill_redis()
            await trio.sleep(fault.lasts_s)
            await stage.start_redis()
        case Kind.REDIS_PAUSE:
            stage.pause_redis(True)
            try:
                await trio.sleep(fault.lasts_s)
            finally:
                stage.pause_redis(False)
        case Kind.REDIS_FLUSH:
            await stage.flush_redis()
            await trio.sleep(fault.lasts_s)
        case Kind.BOTH_KILL:
            await _kill_both(fault, stage)
        case Kind.POSTGRES_LOSES:
            await stage.copy_postgres()
            await trio.sleep(fault.lasts_s)
            await stage.restore_postgres()
        case Kind.CLOCK_STEP | Kind.CLOCK_WRONG:
            await _set_clock(fault, stage)
        case Kind.WRONG_SECRET | Kind.NODE_TWIN:
            await stage.turn_away(node, twin=fault.kind is Kind.NODE_TWIN)
            await trio.sleep(fault.lasts_s)
        case Kind.TABLE_LOCK:
            await stage.lock_answers(fault.lasts_s)
        case Kind.CLIENTS_CUT:
            await cut_clients()
            await trio.sleep(fault.lasts_s)
        case _:
            await _inject_into_network(fault, stage)


async def _inject_into_network(fault: Fault, stage: Stage) -> None:
    to_postgres = stage.to_postgres(fault.node)
    with ExitStack() as during:
        match fault.kind:
            case Kind.LINK_SLOW:
                least_s, most_s = LINK_DELAY_S
                during.enter_context(to_postgres.slow(least_s + (most_s - least_s) * fault.share))
            case Kind.LINK_CUT:
                during.enter_context(to_postgres.severed())
            case Kind.LINK_HOLD:
                during.enter_context(to_postgres.silent())
            case Kind.LINK_ONE_WAY:
                during.enter_context(to_postgres.silent(towards_server=False))
            case Kind.DISK_FULL:
                during.enter_context(to_postgres.severed())
                during.callback(stage.fill_disk, fault.node, False)
                stage.fill_disk(fault.node, True)
            case Kind.CUT_POSTGRES:
                cut_off(during, fault.refused, [to_postgres])
            case Kind.CUT_REDIS:
                cut_off(during, fault.refused, [stage.to_redis(fault.node)])
            case Kind.CUT_BOTH:
                cut_off(during, fault.refused, [to_postgres, stage.to_redis(fault.node)])
            case Kind.CUT_OTHERS:
                cut_off(during, fault.refused, stage.to_others(fault.node))
            case Kind.CUT_ALL:
                ways = [to_postgres, stage.to_redis(fault.node), *stage.to_others(fault.node)]
                cut_off(during, False, ways)
        await trio.sleep(fault.lasts_s)


def cut_off(during: ExitStack, refused: bool, ways: Sequence[Proxy]) -> None:
    """Until the stack is left nothing passes there: connections are refused, or whatever is sent arrives when
    all is over."""
    for way in ways:
        during.enter_context(way.severed() if refused else way.silent(lost=False))


async def _set_clock(fault: Fault, stage: Stage) -> None:
    """A node that runs meets the step; one that starts takes the wrong time for the right one. Either meets
    the step back."""
    try:
        if fault.kind is Kind.CLOCK_WRONG:
            await stage.kill_node(fault.node)
            stage.set_clock(fault.node, fault.clock_ahead_s)
            await stage.start_node(fault.node)
        else:
            stage.set_clock(fault.node, fault.clock_ahead_s)
        await trio.sleep(fault.lasts_s)
    finally:
        stage.set_clock(fault.node, 0.0)


async def _kill_both(fault: Fault, stage: Stage) -> None:
    """One after the other: which comes first, and how long after it the other, is by the share."""
    node, postgres_first = fault.node, fault.share < 0.5
    between_s = fault.lasts_s * (fault.share * 2 % 1.0)
    await (stage.kill_postgres() if postgres_first else stage.kill_node(node))
    await trio.sleep(between_s)
    await (stage.kill_node(node) if postgres_first else stage.kill_postgres())
    await trio.sleep(fault.lasts_s - between_s)
    await stage.start_postgres()
    await stage.start_node(node)
