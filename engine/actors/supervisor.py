"""The crash boundary between actors.

A trio nursery is no supervisor: the exception of one child cancels its healthy siblings. So each actor runs
inside `supervise`, which catches its exceptions, closes its connections, and runs the session again from its
stored facts. A session that keeps failing is taken out of service.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.states import Fenced
from engine.ports import OwnedElsewhere, SessionNotFound, StorageUnavailable, Unreadable

log = logging.getLogger(__name__)


class Quarantined(Exception):
    """The session failed too often and is out of service until the node restarts."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """More than `crashes_max` crashes within `window_s` seconds quarantine a session. The n-th restart in a
    row waits `backoff_s * 2**(n-1)`, at most `backoff_max_s`."""

    crashes_max: int = 5
    window_s: float = 60.0
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0


@dataclass(slots=True)
class Crashes:
    """The crashes of a node since it started."""

    total: int = 0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=20))


async def supervise(
    session_id: str,
    activate: Callable[[], Awaitable[SessionActor]],
    started: Callable[[SessionActor], None],
    stopped: Callable[[], None],
    *,
    policy: RestartPolicy,
    crashes: Crashes,
) -> None:
    """Run a session until it passivates, restarting it from its facts after every crash.

    `activate` loads an actor under a new epoch; `started` and `stopped` are called when commands can reach it
    and when they no longer can. While the store is away, activation is retried for as long as it takes; that
    does not count as a crash.

    Raises:
        Fenced: another owner has taken the session. OwnedElsewhere: another had it from the start.
        Quarantined: it crashed too often. SessionNotFound. Unreadable.
    """
    history: deque[float] = deque()
    while True:
        actor: SessionActor | None = None
        try:
            actor = await _activated(session_id, activate, policy)
            started(actor)
            await actor.run()
        except (Fenced, OwnedElsewhere, SessionNotFound, Unreadable):
            if actor is not None:
                actor.end(CloseReason.RESTARTING)
            raise
        except Exception as error:
            log.exception("session %s crashed", session_id, extra={"session": session_id})
            crashes.total += 1
            crashes.last.append(f"{session_id}: {error!r}")
            _remember(history, policy)
            failing = len(history) > policy.crashes_max
            if actor is not None:
                actor.end(CloseReason.UNAVAILABLE if failing else CloseReason.RESTARTING)
            if failing:
                raise Quarantined(session_id) from error
        else:
            return
        finally:
            stopped()
        await trio.sleep(min(policy.backoff_s * 2 ** (len(history) - 1), policy.backoff_max_s))


def _remember(history: deque[float], policy: RestartPolicy) -> None:
    now = trio.current_time()
    history.append(now)
    while history[0] < now - policy.window_s:
        history.popleft()


async def _activated(
    session_id: str, activate: Callable[[], Awaitable[SessionActor]], policy: RestartPolicy
) -> SessionActor:
    pause_s = policy.backoff_s
    while True:
        try:
            return await activate()
        except StorageUnavailable as error:
            log.warning("session %s waits for storage: %s", session_id, error, extra={"session": session_id})
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, policy.backoff_max_s)
