"""Taking things away for good: a session, and what names a player."""

from __future__ import annotations

import trio

from engine.actors import commands
from engine.domain.facts import erased_name
from engine.domain.session_keys import is_id
from engine.ports import PlayerNotFound, SessionRecord, SessionRunning
from server.http.authorization import Access
from server.http.final_results import FinalResults
from server.http.requests import read_query
from server.http.responses import Answer, json_answer
from server.http.services import LiveSession, Services
from server.http.sessions import Sessions, ask, bounded_wait
from server.security.authors import Author
from server.security.tokens import Grant
from server.wire.api.playing import ErasedPlayer
from server.wire.api.queries import NoQuery
from server.wire.api.sessions import DeletedSession
from server.wire.errors import ApiError, busy

PLAYER_MAX = 999_999_999
DELETING_MAX_S = 120.0
"""A session of 100,000 players has some millions of rows."""


class Erasing:
    """Delete a session. For its host and for authors. Clients that are connected, on any node, are closed
    first."""

    def __init__(
        self, services: Services, access: Access, sessions: Sessions, final_results: FinalResults
    ) -> None:
        self._store = services.store
        self._access = access
        self._sessions = sessions
        self._final_results = final_results

    async def session(self, key: str) -> Answer:
        """A session that is over goes, with everything that is stored of it."""
        read_query(NoQuery)
        found = await self._led(key, self._access.author() or self._access.grant())
        record = found if isinstance(found, SessionRecord) else found.record
        await self._sessions.look(found, commands.Erase)
        self._final_results.forget(record.id)
        try:
            with trio.fail_after(DELETING_MAX_S):
                await self._store.delete(record.id)
        except SessionRunning:
            # Its end is on its way to the database.
            raise busy() from None
        except trio.TooSlowError:
            raise busy() from None
        self._final_results.forget(record.id)
        return json_answer(DeletedSession(record.id, record.code))

    async def player(self, key: str, number: str) -> Answer:
        """A player's name goes, and with it the place: the token is of no use any more. What the player has
        answered stays, under a neutral name. Also for the player alone."""
        read_query(NoQuery)
        if not (number.isascii() and number.isdigit() and len(number) <= len(str(PLAYER_MAX))):
            raise _no_player()
        player = int(number)
        asker = self._access.author() or self._access.grant()
        if isinstance(asker, Grant) and asker.player == player:
            found = await self._sessions.granted_or_over(key, asker)
            await self._refuse_removed(found, player)
        else:
            found = await self._led(key, asker)
        record = found if isinstance(found, SessionRecord) else found.record
        try:
            await self._erase(record.id, player)
        except PlayerNotFound:
            if isinstance(found, SessionRecord):
                raise _no_player() from None
            # Raises ApiError for one whom the session does not know. One whom it knows is not stored yet.
            await ask(found, lambda reply: commands.Look(reply, player=player, top=1))
            raise busy() from None
        return json_answer(ErasedPlayer(record.id, player, erased_name(player)))

    async def seat(self, session_id: str, player: int, *, own: bool) -> None:
        """Erase a stored player; with `own` as that player may. Raises PlayerNotFound, ApiError."""
        if own:
            await self._refuse_removed(await self._sessions.live_or_over(session_id), player)
        await self._erase(session_id, player)

    async def _erase(self, session_id: str, player: int) -> None:
        with bounded_wait():
            await self._store.erase_player(session_id, player)
        # Whoever brings the session into memory from now on finds no name. The owner of it is told.
        self._final_results.forget(session_id)
        found = await self._sessions.live_or_over(session_id)
        await self._sessions.look(found, lambda reply: commands.Erase(reply, player))

    async def _refuse_removed(self, found: LiveSession | SessionRecord, player: int) -> None:
        """A removed player cannot erase the name while the session runs, because another player could then
        join under it. Raises ApiError."""
        shown = await self._sessions.look(found, lambda reply: commands.Look(reply, top=0))
        if (
            isinstance(found, SessionRecord)
            or isinstance(shown, SessionRecord)
            or shown.message["phase"] == "finished"
        ):
            return
        try:
            await ask(found, lambda reply: commands.Look(reply, player=player, top=0))
        except ApiError as error:
            if error.code not in ("player_not_found", "session_finished"):
                raise

    async def _led(self, key: str, asker: Author | Grant) -> LiveSession | SessionRecord:
        """The session that a host's token is for or, for its author, the session with this id. Raises
        ApiError."""
        if isinstance(asker, Author):
            if not is_id(key):
                raise ApiError("bad_field", "Give the id: other sessions have had the same code.", "key")
            found = await self._sessions.live_or_over(key)
            await self._sessions.require_own(asker, key)
            return found
        if asker.role != "host":
            raise ApiError("not_host", "This is for the host and for authors.")
        await self._sessions.refuse_replaced(asker)
        return await self._sessions.granted_or_over(key, asker)


def _no_player() -> ApiError:
    return ApiError("player_not_found", "This session has no such player.")
