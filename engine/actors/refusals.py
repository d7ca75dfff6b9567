"""Why a session cannot be reached, and what the sender of a command hears of it."""

from __future__ import annotations

from engine.actors import messages
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Command, Host
from engine.boundary import Mistake
from engine.ports import OwnedElsewhere, SessionNotFound, SessionRecord, StorageUnavailable, Unreadable


class SessionFinished(Exception):
    """The session is over: it can be read from the store, not played."""

    def __init__(self, record: SessionRecord) -> None:
        super().__init__(record.id)
        self.record = record


class SessionUnavailable(Exception):
    """The session was taken out of service."""


class NodeFull(Exception):
    """The node holds as many sessions as it may, or found no free code."""


REFUSALS = (
    SessionNotFound,
    SessionFinished,
    SessionUnavailable,
    StorageUnavailable,
    NodeFull,
    OwnedElsewhere,
    Unreadable,
    Mistake,
)
"""Exceptions that finding or activating a session raises in ordinary operation."""


def refuse(error: Exception | None, command: Command) -> None:
    """Tell the sender of a command why its session cannot be reached: `busy` for a temporary reason, and
    without a reason."""
    mark = command.id if isinstance(command, Answer | Host) else None
    match error:
        case SessionNotFound():
            frame = messages.error("session_not_found", "No session has this code.", id=mark)
        case SessionFinished():
            frame = messages.error("session_finished", "This session is over.", id=mark)
        case SessionUnavailable() | Unreadable():
            frame = messages.error("session_unavailable", CloseReason.UNAVAILABLE.sentence, id=mark)
        case _:
            frame = messages.busy(mark)
    command.reply.push(frame)
