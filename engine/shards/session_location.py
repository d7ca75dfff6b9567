"""The location of a session, and its announcement on the bus.

A node that has received the announcement need not look into the store when the first command arrives. The
node that is named notices when an announcement is wrong or out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from msgspec import Struct, ValidationError, convert, to_builtins

from engine.domain.errors import DomainError
from engine.domain.settings import Settings
from engine.ports import SessionRecord
from engine.shards.ports import BusMessage, Member


@dataclass(frozen=True, slots=True)
class RemoteLocation:
    """A session that another node runs, or should run."""

    record: SessionRecord
    member: Member


@dataclass(frozen=True, slots=True)
class Announced:
    """A session, without its owner; the run that has it; and the run that it was taken from, if any."""

    record: SessionRecord
    run: str
    taken_from: str | None


class _Announcement(Struct, tag_field="kind", tag="session"):
    """An announcement on the bus. `taken_from` is the run that had the session and is gone."""

    run: str
    id: str
    code: str
    quiz: str
    version: int
    settings: dict[str, object]
    created_at: int
    taken_from: str | None = None


def announcement(record: SessionRecord, run: str, taken_from: str | None = None) -> BusMessage:
    """This run has the session, or is about to get it. Args: taken_from: the run that had it and is gone."""
    said = _Announcement(
        run,
        record.id,
        record.code,
        record.quiz_id,
        record.quiz_version,
        record.settings.to_dict(),
        record.created_at,
        taken_from,
    )
    return cast(BusMessage, to_builtins(said))


def announced(message: BusMessage) -> Announced | None:
    """None for any other message."""
    try:
        said = convert(message, _Announcement)
        settings = Settings.stored(said.settings)
    except (ValidationError, DomainError):
        return None
    record = SessionRecord(said.id, said.code, said.quiz, said.version, settings, said.created_at)
    return Announced(record, said.run, said.taken_from)
