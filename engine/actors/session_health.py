"""What the host is told of the session's health: who is connected and lags, and whether answers are saved.

How to think about it: the node tells all its hosts every few seconds, from a task of its own, and each only
what has changed. A session takes no part in it, and one without a host costs a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.actors import messages
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.frame import Message
from engine.actors.delivery.roster import Roster
from engine.actors.states import State

if TYPE_CHECKING:
    from engine.actors.live_session import LiveSession

LOOKED_AT_ONCE = 500
"""The most connections that are asked between two checkpoints whether they lag."""


@dataclass(slots=True)
class HealthTold:
    """What the host of one session was told last. `roster` is that of the host's connection: another
    connection is told anew."""

    seq: int = 0
    """The last fact at the look before this one."""
    roster: Roster | None = None
    message: Message | None = None


async def tell_health(live: LiveSession, p99_ms: int | None, *, spools: bool) -> None:
    """Tell the host, if one is connected and something has changed.

    Args:
        p99_ms: from an answer to its ack, on this node, in the last minute; None without any.
        spools: whether facts go by way of the node's spool.
    """
    roster = live.attendance.roster
    if roster is None or not _may_tell(live):
        return
    told = live.health
    # Some answer is always on its way: saved is a session whose answers from before the last look are.
    saved = live.confirmations.committed_seq >= told.seq
    told.seq = live.session.seq
    lagging = await _lagging(live)
    if live.attendance.roster is not roster or not _may_tell(live):
        return
    message = messages.health(
        live.session.active,
        live.audience.connected_players,
        lagging=lagging,
        waiting=len(live.mailbox),
        p99_ms=p99_ms,
        saved=saved,
        spools=spools,
    )
    if told.roster is not roster or told.message != message.message:
        told.roster, told.message = roster, message.message
        live.audience.tell_host(message)


def _may_tell(live: LiveSession) -> bool:
    """Not while the session may be another node's, or goes there; and not after its end."""
    running = live.lifecycle.state is State.RUNNING and live.lifecycle.error is None
    return running and not live.gaps.stood_still


async def _lagging(live: LiveSession) -> int:
    slicer, lagging = Slicer(), 0
    connections = live.audience.connections()
    for start in range(0, len(connections), LOOKED_AT_ONCE):
        # Of the clients at other nodes, and of requests over HTTP, it is not known.
        lagging += sum(getattr(each, "lags", False) for each in connections[start : start + LOOKED_AT_ONCE])
        await slicer.breathe()
    return lagging
