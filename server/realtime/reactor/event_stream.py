"""An event stream: the broadcasts of a session to a client that cannot hold a WebSocket."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from urllib.parse import parse_qsl

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Identity
from engine.actors.delivery.frame import Frame
from server.realtime import transport
from server.realtime.reactor.client_connection import LOST, ClientConnection, End
from server.realtime.reactor.port import Encoder, Port
from server.realtime.reactor.responses import error_response, head_of_stream
from server.security.authentication import Caller
from server.security.identity import IdentityError
from server.security.tokens import Grant
from server.wire.api.queries import EventsQuery
from server.wire.bodies import refuse_unknown
from server.wire.errors import ApiError, busy, refused
from server.wire.sse import EVENT_STREAM, KEEP_ALIVE, KEEP_ALIVE_S, last_words, retry

CONTENT_TYPE = f"{EVENT_STREAM}; charset=utf-8"

OPEN_TIMEOUT_S = 15.0
"""How long the session may take to let the client in."""

HEARD_BYTES_MAX = 65_536
"""What a client may send on a stream, where it has nothing to say."""


class ResponseStream(ClientConnection):
    """A response that goes on, to a client that has nothing more to say on its connection. It is counted
    among the streams of its address until its end."""

    __slots__ = ("_heard_bytes",)

    def __init__(self, port: Port, client: socket.socket, encoder: Encoder, address: str) -> None:
        super().__init__(port, client, encoder, address)
        self._heard_bytes = 0
        port.loop.hand_over(client.fileno(), self)

    def take(self, data: bytes) -> None:
        """Ignore received bytes."""
        self._heard_bytes += len(data)
        if self._heard_bytes > HEARD_BYTES_MAX:
            self._conclude(LOST)

    def _leave(self) -> None:
        """The callback after the end."""
        self._port.streams.leave(self._address)
        super()._leave()


class EventStream(ResponseStream):
    """SocketHandler and Subscriber. The response begins with the first word of the session: a `joined` opens
    the stream, an `error` is an ordinary refusal.

    The body has no length and no chunks, it ends with the connection: so a frame is the same bytes for every
    stream of its epoch.

    Args:
        address: the client's, for which the stream is counted until its end.
        headers: those of every answer to this caller.
        request_id: of the request for it.
    """

    __slots__ = ("_headers", "_open", "_open_by", "_quiet", "_request_id")

    def __init__(
        self, port: Port, client: socket.socket, address: str, headers: Mapping[str, str], request_id: str
    ) -> None:
        super().__init__(port, client, port.text, address)
        self._headers: Mapping[str, str] = headers
        self._request_id = request_id
        self._open = False
        self._quiet = False
        """Whether nothing was sent since the last look."""
        now = trio.current_time()
        self._open_by = now + OPEN_TIMEOUT_S
        # There are no pings: a client that has vanished is found by what it does not confirm.
        silence_ms = math.ceil(1000 * (KEEP_ALIVE_S + port.config.ping_timeout_s))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
        self._set_alarm(now)

    def watch(self, key: str, epoch: int | None, offset: int | None) -> None:
        """Follow the session with this code or id as a spectator."""
        assert self._conversation is not None
        self._conversation.watch(key, epoch, offset)

    def come_back(self, grant: Grant, code: str | None, epoch: int | None, offset: int | None) -> None:
        """Follow it as who a token was given to."""
        assert self._conversation is not None
        self._conversation.come_back(grant, code, epoch, offset)

    def come_back_as(
        self, identity: str, caller: Caller, key: str, epoch: int | None, offset: int | None
    ) -> None:
        """Follow it as the player that the user of an identity token is there."""
        conversation, port = self._conversation, self._port
        assert conversation is not None

        def heard(found: Identity | IdentityError) -> None:
            if conversation.over or self._end is not None:
                return  # the client has gone
            if isinstance(found, IdentityError):
                self._refuse(port.guard.identity_refused(caller, found))
            else:
                conversation.come_back_as(found.user_id, key, epoch, offset)

        port.deps.identities.read(identity, heard)

    # -- Subscriber ------------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._open:
            self._quiet = False
            super().push(frame)
        elif self._end is not None:
            return
        elif frame.kind == "error":
            self._refuse(refused(frame))
        else:
            self._begin(frame)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if self._open:
            waits = close_reason not in transport.UNFLUSHED
            self._conclude(End(close_reason.reason, last_words(close_reason), waits))
        else:
            self._refuse(busy())

    # -- SocketHandler -------------------------------------------------------------------------------

    def due(self, now: float) -> None:
        """SocketHandler."""
        if self._leaving or self._too_slow(now) or self._end is not None:
            return
        if not self._open:
            self._refuse(busy())
            return
        if self._quiet and self._backlog is None:
            self._send_aside(KEEP_ALIVE)
        self._quiet = True
        if self._end is None:
            self._set_alarm(now)

    # -- inside ----------------------------------------------------------------------------------

    def _begin(self, joined: Frame) -> None:
        epoch = joined.message["epoch"]
        assert isinstance(epoch, int)
        self._encoder = self._port.events(epoch)
        if not (event := self._encode(joined)):
            return
        self._open = True
        self._set_alarm(trio.current_time())
        tally = self._port.tally
        tally.event_streams += 1
        tally.frames_out += 1
        tally.bytes_out += len(event)
        # Nginx would hold events back to fill its buffers.
        headers = {**self._headers, "Content-Type": CONTENT_TYPE, "X-Accel-Buffering": "no"}
        head = head_of_stream(headers, self._request_id)
        self._headers = {}
        self._send_aside(head + retry(CloseReason.SHUTDOWN.reconnect) + event)

    def _refuse(self, error: ApiError) -> None:
        refusal = error_response(error, self._headers, close=True, request_id=self._request_id)
        self._conclude(End(error.code, refusal))

    def _set_alarm(self, now: float) -> None:
        at = now + KEEP_ALIVE_S if self._open else self._open_by
        if self._backlog is not None and self._backlog.send_by < at:
            at = self._backlog.send_by
        self._port.loop.call_at(self, at)

    def _leave(self) -> None:
        """The callback after the end."""
        if self._open:
            self._port.tally.event_streams -= 1
        super()._leave()


def token_in(query: str) -> str | None:
    """The token in the query of an event stream, the one field that it may have. Raises ApiError."""
    if not query:
        return None
    pairs = parse_qsl(query, keep_blank_values=True)
    refuse_unknown((name for name, _ in pairs), EventsQuery.__struct_fields__)
    if len(pairs) > 1:
        raise ApiError("bad_field", "token is given more than once.", "token")
    return (pairs[0][1] if pairs else "") or None
