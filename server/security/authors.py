"""Authors: whose quizzes and sessions somebody may read and write."""

from __future__ import annotations

from dataclasses import dataclass

from engine.actors.commands import may_be_user_id
from engine.ports import Owners
from server.wire.errors import ApiError


@dataclass(frozen=True, slots=True)
class Author:
    """Somebody who has shown the author key, or has signed in.

    Args:
        user_id: the user, as the identity provider names them; None for the author key.
        name: to be shown.
        admin: may read and write what is others'. The author key may.
        reads_others: may read what is others' (`others_readable`).
    """

    user_id: str | None
    name: str | None = None
    admin: bool = False
    reads_others: bool = False

    def require_own(self, owner_id: str | None) -> None:
        """Raises ApiError for what this author may not write to."""
        if not self._owns(owner_id):
            raise not_yours()

    def require_readable(self, owner_id: str | None) -> None:
        """Raises ApiError for a session that this author may not read."""
        if not (self.reads_others or self._owns(owner_id)):
            raise not_yours()

    def require_playable(self, owner_id: str | None) -> None:
        """Raises ApiError for a quiz that this author may neither read nor play. What was made with the
        author key, samples among it, is there for all authors."""
        if owner_id is not None:
            self.require_readable(owner_id)

    def require_admin(self) -> None:
        """Raises ApiError for an author who is no admin."""
        if not self.admin:
            raise ApiError("not_admin", "This is for admins.")

    def owners_of_quizzes(self, asked: str | None) -> Owners:
        """Whose quizzes a list has. Raises ApiError. Args: asked: `me`, a user, or None for all."""
        owners = self._owners(asked)
        if owners is None and not (self.admin or self.reads_others):
            return [self.user_id, None]
        return owners

    def owners_of_sessions(self, asked: str | None) -> Owners:
        """Whose sessions a list has. Raises ApiError. Args: as of `owners_of_quizzes`."""
        owners = self._owners(asked)
        if owners is None and not (self.admin or self.reads_others):
            return [self.user_id]
        return owners

    def _owners(self, asked: str | None) -> Owners:
        if asked is None:
            return None
        if asked == "me":
            return [self.user_id]
        self.require_readable(asked)
        if not may_be_user_id(asked):
            raise ApiError("bad_field", "owner is `me`, or an `owner_id`.", "owner")
        return [asked]

    def _owns(self, owner_id: str | None) -> bool:
        return self.admin or (owner_id is not None and owner_id == self.user_id)


MACHINE = Author(None, admin=True, reads_others=True)
"""Whoever has the author key."""


def not_yours() -> ApiError:
    return ApiError("not_owner", "This belongs to another author.")
