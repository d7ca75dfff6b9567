"""What all connections of one realtime port share."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from engine.actors.frame import Frame
from server.config import Config
from server.realtime.conversation import Gate
from server.realtime.reactor.loop import Loop
from server.realtime.transport import Tally


@dataclass(slots=True)
class Port:
    """`rng` spreads the pings, so that the clients of one start do not answer in step."""

    gate: Gate
    config: Config
    tally: Tally
    rng: random.Random
    loop: Loop
    frame: Frame | None = None
    """The last frame that was encoded: in a fan-out, thousands are pushed the same in a row."""
    data: bytes = b""
    """Its bytes."""

    def release(self, client: socket.socket) -> None:
        """Close a connection's socket."""
        self.loop.remove(client.fileno())
        client.close()
        self.tally.connections -= 1
