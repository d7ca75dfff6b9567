"""The options of the actors of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """The same for every actor of a node. Times end in their unit; the other values are counts."""

    tick_ms: int = 250
    tick_max_ms: int = 10_000
    mailbox_max: int = 10_000
    history_max: int = 32
    idle_s: float = 300.0
    max_age_s: float = 86_400.0
    joins_per_s: float = 1e6
    seats_per_address_max: int = 1_000_000
    seats_per_address_per_s: float = 1e6
