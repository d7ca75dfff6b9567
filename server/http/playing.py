"""Playing and leading over plain requests, for clients that cannot hold a connection open."""

from __future__ import annotations

from typing import cast

import orjson
from msgspec import UNSET
from quart import request

from engine.actors import commands
from engine.domain.phases import Phase
from engine.ports import SessionRecord
from engine.trace import Trace, current
from server.http.addresses import hub_url, play_url, ws_url
from server.http.authorization import Access
from server.http.final_results import FinalResults
from server.http.requests import read_body, read_object, read_query
from server.http.responses import Answer, json_answer, part_of
from server.http.services import Services
from server.http.sessions import Sessions, ask
from server.runtime.request_ids import current_id
from server.security.authentication import HUB_HEADERS, one_token
from server.security.tokens import Grant, former_of, new_ticket
from server.wire import protocol
from server.wire.api import playing as types
from server.wire.api.queries import LeaderboardQuery, NextQuery, PlayersQuery
from server.wire.bodies import answer_of
from server.wire.errors import ApiError, busy
from server.wire.hub import redirect


class Playing:
    def __init__(
        self, services: Services, access: Access, sessions: Sessions, final_results: FinalResults
    ) -> None:
        self._services = services
        self._access = access
        self._sessions = sessions
        self._final_results = final_results
        self._bytes_max = services.config.frame_bytes_max

    async def negotiate(self) -> Answer:
        """The hub is on the realtime port: a client of SignalR goes there and negotiates once more."""
        url = hub_url(self._services)
        if url is None:
            raise busy()
        shown = one_token(request.args.get("access_token"), self._access.bearer(), "access_token")
        return json_answer(redirect(url, shown), headers=HUB_HEADERS)

    async def join(self, key: str) -> Answer:
        """A new player, once the join is committed; or 202 for a player whom the host has yet to let in."""
        data = await read_object(types.NewPlayer, self._bytes_max)
        name = protocol.read_name(data)
        try:
            ticket = protocol.read_ticket(data) or new_ticket()
            former = protocol.read_token(data, "former")
            identity_token = protocol.read_identity(data)
        except protocol.ProtocolError as error:
            raise ApiError(error.code, error.message, error.path) from None
        identity = await self._access.identity(identity_token)
        session = await self._sessions.live(key)
        now = self._services.clock.now_ms()
        network = self._access.network()
        former_session, former_player = former_of(self._services.tokens.read, former)
        joined = await ask(
            session,
            lambda reply: commands.Join(
                reply,
                name,
                now,
                attach=False,
                address=network,
                ticket=ticket,
                former_session=former_session,
                former_player=former_player,
                identity=identity,
                trace=self._trace(data.get("traceparent")),
            ),
        )
        if joined.kind == "waiting":
            return json_answer(part_of(joined.message, types.Waiting), 202)
        player = joined.message["player"]
        assert isinstance(player, int)
        shuffle, extra_time = joined.message.get("shuffle"), joined.message.get("extra_time")
        body = types.Joined(
            player_id=player,
            name=str(joined.message["name"]),
            token=str(joined.message["token"]),
            extra_time=UNSET if extra_time is None else cast(types.Factor, extra_time),
            shuffle=shuffle if isinstance(shuffle, int) else UNSET,
            session_id=session.session_id,
            code=session.code,
            ws_url=ws_url(self._services, session),
            play_url=play_url(self._services, session),
        )
        return json_answer(body, 201)

    async def players(self, key: str) -> Answer:
        """One page of the players, or of the removed players. For the host and for authors."""
        query = read_query(PlayersQuery)
        generation = None
        author = self._access.author()
        if author is not None:
            found = await self._sessions.live_or_over(key)
            record = found if isinstance(found, SessionRecord) else found.record
            await self._sessions.require_readable(author, record.id)
        else:
            grant = self._access.grant()
            generation = grant.generation
            if grant.role != "host":
                raise ApiError("not_host", "Who is in is for the host to see.")
            found = await self._sessions.granted_or_over(key, grant)
        page = await self._sessions.look(
            found,
            lambda reply: commands.ListPlayers(reply, query.after, query.limit, query.removed, generation),
        )
        if isinstance(page, SessionRecord) and query.removed:
            raise ApiError("session_finished", "The session is over: nobody is let in again.")
        if isinstance(page, SessionRecord):
            return json_answer(await self._final_results.players(page, query.after, query.limit))
        return json_answer(part_of(page.message, types.Players))

    async def answer(self, key: str) -> Answer:
        """The `ack` that the WebSocket would bring, once the answer is committed."""
        who = await self._access.seat()
        player, user = _player_of(who, "Only players answer.")
        message = answer_of(await read_body(), self._bytes_max)
        now = self._services.clock.now_ms()
        session = await self._sessions.seated(key, who)
        ack = await ask(
            session,
            lambda reply: commands.Answer(
                reply,
                player,
                message.id,
                message.question,
                message.choice,
                now,
                trace=self._trace(message.traceparent),
                user=user,
                request_id=current_id.get(),
                attempt=message.attempt,
            ),
        )
        return json_answer(ack.message)

    def _trace(self, traceparent: object) -> Trace | None:
        """The trace of the current request. Args: traceparent: of its body; the header counts first."""
        tracing = self._services.tracing
        if (trace := current.get()) is not None or tracing is None or traceparent is None:
            return trace
        return tracing.begin(traceparent)

    async def next(self, key: str) -> Answer:
        """The `question` or `done_all` that the WebSocket would bring, once it is committed."""
        who = await self._access.seat()
        player, user = _player_of(who, "Only players go on to the next question.")
        session = await self._sessions.seated(key, who)
        attempt = read_query(NextQuery).attempt
        shown = await ask(session, lambda reply: commands.Next(reply, player, user=user, attempt=attempt))
        return json_answer(shown.message)

    async def lead(self, key: str) -> Answer:
        """A command of the host: the `done` that the WebSocket would bring."""
        grant = self._access.grant()
        if grant.role != "host":
            raise ApiError("not_host", "Only the host may do this.")
        data = await read_object(types.HostCommand, self._bytes_max)
        message = _parsed({"t": "host", "id": "-", **data})
        assert isinstance(message, protocol.Host)
        mark = message.id if "id" in data else None
        session = await self._sessions.granted(key, grant)
        done = await ask(
            session,
            lambda reply: commands.Host(
                reply,
                mark,
                message.do,
                message.player,
                message.on,
                message.seen_number,
                message.seen_phase,
                message.closes_at,
                grant.generation,
                message.percent,
            ),
        )
        return json_answer(done.message)

    async def leaderboard(self, key: str) -> Answer:
        """The first `top`; with `around=me` also those next to the player whose token it is."""
        query = read_query(LeaderboardQuery)
        who: Grant | commands.Identity | None = None
        me = user = None
        if query.around is not None:
            who = await self._access.seat()
            me, user = _player_of(who, "around=me needs a player.")
        if isinstance(who, Grant):
            found = await self._sessions.granted_or_over(key, who)
        else:
            found = await self._sessions.live_or_over(key)
        board = await self._sessions.look(
            found, lambda reply: commands.Look(reply, player=me, top=query.top, user=user)
        )
        if isinstance(board, SessionRecord):
            await self._sessions.refuse_outsiders(board)
            if isinstance(who, commands.Identity):
                me = await self._sessions.seat_of_user(board, who)
            elif me is not None:
                await self._sessions.refuse_gone(board, me)
            return json_answer(await self._final_results.board(board, query.top, me))
        assert not isinstance(found, SessionRecord), "that would have been the board"
        if board.message.get("phase") == Phase.FINISHED:
            await self._sessions.refuse_outsiders(found.record)
        return json_answer(part_of(board.message, types.Leaderboard))


def _player_of(who: Grant | commands.Identity, refusal: str) -> tuple[int, str | None]:
    """The player and the user, as commands have them. Raises ApiError with the `refusal` for who is no
    player."""
    if isinstance(who, commands.Identity):
        return 0, who.user_id
    if who.player is None:
        raise ApiError("not_player", refusal)
    return who.player, None


def _parsed(members: dict[str, object]) -> protocol.Message:
    """The same reading as for a WebSocket frame. Raises ApiError."""
    try:
        return protocol.parse(orjson.dumps(members))
    except protocol.ProtocolError as error:
        raise ApiError(error.code, error.message, error.path) from None
