"""What the actors need to hand out tokens."""

from __future__ import annotations

from typing import Protocol

from engine.actors.commands import Role


class Tokens(Protocol):
    def issue(self, session_id: str, role: Role, player: int | None, generation: int = 0) -> str:
        """A signed token that lets its bearer be this player, the host, or a spectator of this session.
        `generation`: of a host's, how often the session had been taken over."""
