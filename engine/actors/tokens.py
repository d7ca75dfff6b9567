"""The port that issues tokens."""

from __future__ import annotations

from typing import Protocol

from engine.actors.commands import Role


class Tokens(Protocol):
    def issue(self, session_id: str, role: Role, player: int | None, generation: int = 0) -> str:
        """A signed token that lets its bearer be this player, the host, or a spectator of this session.
        Args: generation: for a host, how often the host had been replaced."""
