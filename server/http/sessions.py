"""Finding the session that a request speaks of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from engine.actors.commands import Command, Identity
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import ConnectionEnded, Subscriber, Waiter
from engine.actors.refusals import NodeFull, SessionFinished, SessionUnavailable
from engine.boundary import Mistake
from engine.ports import (
    OwnedElsewhere,
    Seat,
    SessionNotFound,
    SessionRecord,
    SessionStore,
    StorageUnavailable,
    Unreadable,
)
from server.http.authorization import Access
from server.http.services import Directory, LiveSession
from server.security.authors import Author
from server.security.tokens import Grant
from server.wire.errors import ApiError, busy, refused, unreadable

REPLY_TIMEOUT_S = 15.0


@contextmanager
def bounded_wait(within_s: float = REPLY_TIMEOUT_S) -> Iterator[None]:
    """Limits a wait of a request: raises ApiError `busy` after so long.

    The command may still be handled; sending it again is safe.
    """
    try:
        with trio.fail_after(within_s):
            yield
    except trio.TooSlowError:
        raise busy() from None


async def ask(session: LiveSession, command: Callable[[Subscriber], Command]) -> Frame:
    """Send a command to a session and wait for its answer.

    Raises ApiError for a refusal, and `busy` if no answer comes in time or the session is being restored: the
    command may have been handled, and sending it again is safe.
    """
    waiter = Waiter()
    session.send(command(waiter))
    try:
        with bounded_wait():
            frame = await waiter.wait()
    except ConnectionEnded:
        raise busy() from None
    if frame.kind == "error":
        raise refused(frame)
    return frame


class Sessions:
    """Sessions by code or id, with every failure as the ApiError that fits."""

    def __init__(self, directory: Directory, store: SessionStore, access: Access) -> None:
        self._directory = directory
        self._store = store
        self._access = access

    async def live(self, key: str) -> LiveSession:
        """The running session with this code or id."""
        found = await self.live_or_over(key)
        if isinstance(found, SessionRecord):
            raise ApiError("session_finished", "This session is over.")
        return found

    async def made(self, record: SessionRecord) -> LiveSession:
        """A session that has just been made."""
        found = await self._find(record.id)
        assert not isinstance(found, SessionRecord), "nobody has had the time to end it"
        return found

    async def live_or_over(self, key: str) -> LiveSession | SessionRecord:
        """The session with this code or id: as it runs, or its record when it is over and out of memory.

        A wrong key counts against the client's address; after too many, each has to wait for its turn.
        """
        async with self._access.trying(key):
            return await self._find(key)

    async def look(
        self, found: LiveSession | SessionRecord, look: Callable[[Subscriber], Command]
    ) -> Frame | SessionRecord:
        """The reply of a session; or its record if the session is over and out of memory. For a session on
        another node that may turn out only now."""
        if isinstance(found, SessionRecord):
            return found
        try:
            return await ask(found, look)
        except ApiError as error:
            if error.code != "session_finished":
                raise
        again = await self._find(found.session_id)
        return again if isinstance(again, SessionRecord) else await ask(again, look)

    async def granted(self, key: str, grant: Grant) -> LiveSession:
        """The running session that the grant speaks of, if `key` means the same one."""
        found = await self.granted_or_over(key, grant)
        if isinstance(found, SessionRecord):
            raise ApiError("session_finished", "This session is over.")
        return found

    async def seated(self, key: str, who: Grant | Identity) -> LiveSession:
        """The running session with this code or id, for somebody who has a seat in it or says so."""
        return await (self.granted(key, who) if isinstance(who, Grant) else self.live(key))

    async def granted_or_over(self, key: str, grant: Grant) -> LiveSession | SessionRecord:
        found = await self._find(grant.session_id)
        record = found if isinstance(found, SessionRecord) else found.record
        if key not in (record.code, record.id):
            self._access.refuse_foreign_token()
        self._access.know(record.code)
        return found

    async def may_see_end(self, record: SessionRecord, token: str | None = None) -> bool:
        """Whether the client may see the results of a session that is over: its host, authors, participants
        that were not removed, and with `results_public` everyone.

        Raises ApiError for a token, the given one or else the bearer's, that is invalid here.
        """
        if record.settings.results_public:
            return True
        author = self._access.author() if token is None and not self._access.shows_identity() else None
        if author is not None:
            await self.require_readable(author, record.id)
            return True
        if token is None and self._access.bearer() is None:
            return False
        if token is None and isinstance(who := await self._access.seat(), Identity):
            await self.seat_of_user(record, who)
            return True
        grant = self._access.grant(token)
        if grant.session_id != record.id:
            self._access.refuse_foreign_token()
        if grant.player is not None:
            await self.refuse_gone(record, grant.player)
        await self.refuse_replaced(grant)
        return True

    async def seat_of_user(self, record: SessionRecord, user: Identity) -> int:
        """The player that a user was in a session that is over. Raises ApiError for a user who was not in it,
        or was removed."""
        player = await self._store.seat_of_user(record.id, user.user_id)
        if player is None:
            raise ApiError("player_not_found", "You have not been in this session.")
        await self.refuse_gone(record, player)
        return player

    async def refuse_gone(self, record: SessionRecord, player: int) -> None:
        """Raises ApiError for a player who was removed or erased, the same as while the session runs."""
        seat = await self._store.seat(record.id, player)
        if seat is Seat.NOBODYS:
            raise ApiError("player_not_found", "This session has no such player.")
        if seat is Seat.REMOVED:
            raise ApiError("kicked", "The host removed you from this session.")

    async def refuse_replaced(self, grant: Grant) -> None:
        """Raises ApiError for a host's token from before another host has taken the session over, as far as
        that is stored."""
        if grant.role == "host" and grant.generation != await self._store.host_generation(grant.session_id):
            raise ApiError("token_replaced", "Somebody else leads this session now, with a newer token.")

    async def require_own(self, author: Author, session_id: str) -> None:
        """Raises ApiError for a session that this author may not write to."""
        if not author.admin:
            author.require_own(await self._owner_id(session_id))

    async def require_readable(self, author: Author, session_id: str) -> None:
        """Raises ApiError for a session that this author may not read."""
        if not (author.admin or author.reads_others):
            author.require_readable(await self._owner_id(session_id))

    async def _owner_id(self, session_id: str) -> str | None:
        """As stored: what other nodes tell of a session does not have it."""
        with bounded_wait():
            return (await self._store.find(session_id)).owner_id

    async def refuse_outsiders(self, record: SessionRecord, token: str | None = None) -> None:
        """Raises ApiError if the client may not see the results of a session that is over."""
        if not await self.may_see_end(record, token):
            raise ApiError(
                "token_missing", "This session is over: its results are for its host and those who took part."
            )

    async def _find(self, key: str) -> LiveSession | SessionRecord:
        try:
            with bounded_wait():
                return await self._directory.get(key)
        except SessionFinished as finished:
            return finished.record
        except SessionNotFound:
            raise ApiError("session_not_found", "No session has this code.") from None
        except Unreadable:
            raise unreadable() from None
        except SessionUnavailable:
            raise ApiError(
                "session_unavailable", "The session keeps failing and was taken out of service."
            ) from None
        except (StorageUnavailable, NodeFull, OwnedElsewhere, Mistake):
            raise busy() from None
