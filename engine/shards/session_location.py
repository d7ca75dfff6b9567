"""Where a session is: a node's note of it, and what nodes tell each other of it on the bus.

A node that hears it need not look into the store when the first command comes. The node that is named finds
out what is wrong or out of date about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.errors import DomainError
from engine.domain.settings import Settings
from engine.ports import SessionRecord
from engine.shards.ports import BusMessage, Member

KIND = "session"


@dataclass(frozen=True, slots=True)
class RemoteLocation:
    """A session that another node runs, or is to run."""

    record: SessionRecord
    member: Member


def announcement(record: SessionRecord, run: str, taken_from: str | None = None) -> BusMessage:
    """This run has the session, or is to have it. Args: taken_from: the run that had it and is gone."""
    return {
        "kind": KIND,
        "run": run,
        "id": record.id,
        "code": record.code,
        "quiz": record.quiz_id,
        "version": record.quiz_version,
        "settings": record.settings.to_dict(),
        "created_at": record.created_at,
        "taken_from": taken_from,
    }


def taken_from(message: BusMessage) -> str | None:
    """The run that has lost the session, if the announcement names one."""
    run = message.get("taken_from")
    return run if isinstance(run, str) else None


def announced(message: BusMessage) -> tuple[SessionRecord, str] | None:
    """The session, without its owner, and the run; None for any other message."""
    settings, run = message.get("settings"), message.get("run")
    version, created_at = message.get("version"), message.get("created_at")
    session_id, code, quiz_id = message.get("id"), message.get("code"), message.get("quiz")
    if (
        message.get("kind") != KIND
        or not isinstance(settings, dict)
        or not isinstance(run, str)
        or not isinstance(session_id, str)
        or not isinstance(code, str)
        or not isinstance(quiz_id, str)
        or not isinstance(version, int)
        or not isinstance(created_at, int)
    ):
        return None
    try:
        read = Settings.stored(settings)
    except DomainError:
        return None
    return SessionRecord(session_id, code, quiz_id, version, read, created_at), run
