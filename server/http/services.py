"""What the API needs from the rest of the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from engine.actors.clock import Clock
from engine.actors.registry import Registry
from engine.ports import QuizCatalog, SessionStore
from engine.storage.write_behind import WriteBehindStatistics
from server.auth import Tokens
from server.collector import Collector
from server.config import Config
from server.limits import Attempts, JoinRate
from server.loop_watch import LoopWatch
from server.realtime.transport import TransportStatistics


class JournalState(Protocol):
    def has_room(self) -> bool: ...
    def acknowledges_without_postgres(self) -> bool: ...
    def statistics(self) -> WriteBehindStatistics: ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the API uses and does not own.

    Args:
        attempts, joins: the limits that the realtime listener counts on too.
        ws_url: where clients of this node open their WebSocket, as bound or as configured.
        play_url: base of the addresses where answers and event streams cost least, as bound or as configured.
        transports: a snapshot of each realtime transport.
        probe_storage: returns if the database answers; raises anything, or hangs, if not.
        version: of the program.
    """

    config: Config
    clock: Clock
    registry: Registry
    store: SessionStore
    catalog: QuizCatalog
    journal: JournalState
    tokens: Tokens
    attempts: Attempts
    joins: JoinRate
    loop_watch: LoopWatch
    collector: Collector
    ws_url: str
    play_url: str
    transports: Callable[[], Iterable[TransportStatistics]]
    probe_storage: Callable[[], Awaitable[None]]
    version: str
