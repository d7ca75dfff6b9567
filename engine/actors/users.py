"""Users of the app that the engine is part of, as the session meets them in commands."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from engine.actors.commands import Answer, Identity, Look, Next, Rejoin
from engine.actors.live_session import LiveSession
from engine.domain.extra_time import percent_of

C = TypeVar("C", Answer, Next, Rejoin, Look)


def of_user(live: LiveSession, command: C) -> C:
    """The command as that of the player that its user is here; 0, whom nobody is, for a user without a
    seat."""
    if command.user is None:
        return command
    return replace(command, player=live.session.seat_of_user(command.user) or 0)


def give_signed_time(live: LiveSession, user: Identity, player: int) -> None:
    """Give a user the extra time that the app has signed. What the host has given stays if the app says
    nothing."""
    percent = percent_of(user.extra_time)
    if percent is not None:
        live.session.give_extra_time(player, percent, live.clock.now_ms())
