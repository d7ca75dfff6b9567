"""The state that a session is handed over with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.actors.commands import Command
from engine.actors.delivery.audience import Place
from engine.actors.delivery.stream import StreamState
from engine.actors.delivery.subscriber import Subscriber
from engine.ports import SessionRecord


@dataclass(frozen=True, slots=True)
class HandoffSnapshot:
    """What an actor leaves behind when it gives its session away with every fact committed: its stream, its
    subscribers and their places, the relays of other nodes, and the commands that it did not handle."""

    record: SessionRecord
    epoch: int
    stream: StreamState
    seated: Sequence[tuple[Subscriber, Place]]
    relays: Sequence[Subscriber]
    commands: Sequence[Command]
