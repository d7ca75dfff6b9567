"""Plain HTTP on the realtime port: answers, one request after another, and the way to an event stream.

What a player needs who cannot hold a WebSocket, at the price of one. The rest of the API is elsewhere, in
quart; the rules are the same there and here, because both take them from `callers`, `bodies` and `errors`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from urllib.parse import unquote

import orjson
import trio

from engine.actors import commands
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.subscriber import Subscriber
from server.realtime import handshake
from server.realtime.handshake import Rejection
from server.realtime.reactor import hub_requests
from server.realtime.reactor.client_connection import BUSY_KERNEL
from server.realtime.reactor.event_stream import CONTENT_TYPE, EventStream, token_in
from server.realtime.reactor.first_reply import FirstReply
from server.realtime.reactor.hub_poll import HubPoll, Poll
from server.realtime.reactor.hub_stream import HubStream
from server.realtime.reactor.lingering_close import LingeringClose
from server.realtime.reactor.loop import READABLE, WRITABLE
from server.realtime.reactor.port import Port, receive
from server.realtime.reactor.request import Malformed, Request, RequestReader, TooLarge
from server.realtime.reactor.responses import CONTINUE, JSON, error_response, response
from server.realtime.reactor.timer_wheel import NEVER
from server.realtime.reactor.upgrade import asks_for_upgrade, judge, open_websocket
from server.realtime.reactor.user_request import Make, UserRequest
from server.runtime.request_ids import ForRequest
from server.runtime.spans import TracedRequest
from server.security.authentication import (
    HUB_HEADERS,
    HUB_PREFLIGHT,
    PREFLIGHT_HEADERS,
    STANDING_HEADERS,
    Caller,
)
from server.security.identity import is_identity
from server.wire.bodies import answer_of, attempt_in, refuse_other_than_json, too_large
from server.wire.errors import ApiError, method_not_allowed, rate_limited, too_many_streams
from server.wire.sse import position

IDLE_S = 75.0
"""How long a connection stays open between two requests: longer than load balancers keep theirs."""

REQUESTS_WAITING_MAX = 16
"""Requests that a client may send before the answer to the first."""

WAITING_BYTES_MAX = 32_768
"""As much as they may come to, with their heads."""


_NOTHING: Mapping[str, str] = {}
_ROUTE = re.compile(r"/api/sessions/([^/]+)/(answers|next|events)")
METHODS = {"answers": ("POST",), "next": ("POST",), "events": ("GET", "HEAD")}


class Exchange:
    """SocketHandler of a connection that speaks plain HTTP.

    How to think about it: requests are served one at a time, in order; further requests wait, up to a bound.
    An answer waits for its session with a `FirstReply` in between, which ignores a reply that comes too late.
    """

    __slots__ = (
        "_address",
        "_begun_at",
        "_closing",
        "_head_only",
        "_over",
        "_peer",
        "_port",
        "_reader",
        "_reply",
        "_request_id",
        "_route",
        "_served_at",
        "_socket",
        "_traced",
        "_unsent",
        "tick",
    )

    def __init__(
        self, port: Port, client: socket.socket, peer: str, address: str, reader: RequestReader
    ) -> None:
        self._port = port
        self._socket = client
        self._peer = peer
        self._address = address
        self._reader = reader
        self._reply: FirstReply | Poll | None = None
        """The reply of the request that waits for its session."""
        self._request_id: str | None = None
        self._route: str | None = None
        self._traced: TracedRequest | None = None
        """Of the request that is served: its id, the path of its route, and its trace if it has one."""
        self._served_at: float | None = None
        """Since when; None of one that waits for something to be said."""
        self._head_only = False
        """Whether the request that is served is answered without a body."""
        self._unsent = b""
        self._closing = False
        """Whether the connection ends with the response under way."""
        self._over = False
        self._begun_at: float | None = None
        """Since when a request is coming that is not whole."""
        self.tick = NEVER
        port.loop.hand_over(client.fileno(), self)
        self.serve()

    # -- SocketHandler -------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """SocketHandler."""
        if self._over:
            return
        if events & WRITABLE and self._unsent:
            self._send(b"")
            self._port.loop.reads.forget()
            self.serve()
            return
        data = receive(self._socket, self._port.loop.reads)
        if data is None:
            return
        if data:
            self._take(data)
        else:
            self.cut()

    def due(self, now: float) -> None:  # noqa: ARG002 - SocketHandler
        """SocketHandler."""
        if self._over:
            return
        if self._unsent:
            self.cut()
        elif self._reply is not None:
            self._reply.expire()
        elif self._reader.between:
            self._part()
        else:
            self.ready(READABLE)  # a late loop does not take its own lateness for the client's
            if not (self._over or self._unsent or self._reply or self._reader.between):
                self._end_with(handshake.TOO_LATE.response(self._reader.request_id()))

    def stop(self) -> None:
        """SocketHandler. A request that waits for its session still gets its answer."""
        self._closing = True
        if self._reply is None and not self._unsent and not self._over:
            self._part()

    def cut(self) -> None:
        """SocketHandler."""
        self._let_go()
        self._port.release(self._socket, self._address)

    # -- from the client -------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except Malformed as malformed:
            self._end_with(handshake.unreadable(malformed.status).response(self._reader.request_id()))
            return
        except TooLarge:
            error = too_large(self._port.config.frame_bytes_max)
            id_ = self._reader.request_id()
            self._end_with(error_response(error, STANDING_HEADERS, close=True, request_id=id_))
            return
        if self._reader.take_expectation() and self._reply is None and not self._unsent:
            self._send(CONTINUE)
        self.serve()

    def serve(self) -> None:
        """Go on with the requests that have come, until one has to wait."""
        if (
            len(self._reader) > REQUESTS_WAITING_MAX or self._reader.waiting_bytes > WAITING_BYTES_MAX
        ) and not self._over:
            self.cut()
        while not (self._over or self._reply is not None or self._unsent):
            request = None if self._closing else self._reader.pop()
            if request is None:
                break
            self._closing = not request.keep_alive
            self._serve(request)
        if not self._over:
            self._set_alarm()

    def _serve(self, request: Request) -> None:
        port = self._port
        caller = Caller(
            self._peer,
            request.header(b"host"),
            request.header(b"origin"),
            request.header(b"x-forwarded-for"),
            request.header(b"authorization"),
        )
        if asks_for_upgrade(request):
            self._upgrade(request)
            return
        port.tally.requests += 1
        self._head_only = request.method == "HEAD"
        self._request_id, self._route = request.request_id(), None
        self._served_at = trio.current_time()
        if port.deps.tracing is not None:
            traceparent, now = request.header(b"traceparent"), port.deps.clock.now_ms()
            self._traced = port.deps.tracing.begin_request(traceparent, request.method, "http", now)
        with ForRequest(self._request_id):
            try:
                if self._take_place(port.guard.address(caller), request):
                    self._answer_or_ask(caller, request)
            except ApiError as error:
                self._refuse(caller, error, HUB_HEADERS if request.for_hub else _NOTHING)
            except Exception as error:  # noqa: BLE001 - the boundary logs it, with the request
                port.deps.boundary.caught(error, "a request")
                self.cut()

    def _answer_or_ask(self, caller: Caller, request: Request) -> None:
        self._port.guard.refuse_foreign_origin(caller, request.method)
        if request.method == "OPTIONS" and request.header(b"access-control-request-method"):
            self._respond(caller, 204, HUB_PREFLIGHT if request.for_hub else PREFLIGHT_HEADERS, b"")
        else:
            self._find(caller, request)

    def _take_place(self, address: str, request: Request) -> bool:
        """Be counted for this client: a proxy may send the requests of many over one connection. False when
        it was refused."""
        if address == self._address:
            return True
        count = self._port.count
        if not count.enter(address, trio.current_time()):
            self._reject(handshake.CROWDED, request)
            return False
        count.leave(self._address)
        self._address = address
        return True

    def _upgrade(self, request: Request) -> None:
        """A handshake on a connection that was used for requests before."""
        port = self._port
        verdict = judge(port, self._peer, request)
        if isinstance(verdict, Rejection):
            self._reject(verdict, request)
        elif self._take_place(verdict.address, request):
            self._over = True  # the socket and the place in the count are the WebSocket's from here on
            self._reader.close()
            join_by = trio.current_time() + port.config.join_timeout_s
            if not open_websocket(port, self._socket, verdict, request, join_by):
                port.release(self._socket, self._address)

    def _reject(self, rejection: Rejection, request: Request) -> None:
        self._port.tally.refused[rejection.code] += 1
        self._end_with(rejection.response(request.request_id()))

    def _find(self, caller: Caller, request: Request) -> None:
        path, _, query = request.target.partition("?")
        if request.for_hub:
            self._route = path if path in (handshake.HUB_PATH, handshake.NEGOTIATE_PATH) else None
            self._hub(caller, request)
            return
        route = _ROUTE.fullmatch(unquote(path))
        if route is None:
            raise ApiError(
                "not_found",
                f"On this port are {handshake.PATH}, {handshake.HUB_PATH} and, under /api/sessions/..., "
                "answers, next and events.",
            )
        key, what = route[1], route[2]
        self._route = f"/api/sessions/{{key}}/{what}"
        if request.method not in METHODS[what]:
            allowed = ", ".join(each for each in METHODS[what] if each != "HEAD")
            self._refuse(caller, method_not_allowed(allowed), {"Allow": allowed})
        elif what == "answers":
            self._answer(caller, key, request)
        elif what == "next":
            self._next(caller, key, attempt_in(query))
        elif request.method == "HEAD":
            self._respond(caller, 200, {"Content-Type": CONTENT_TYPE}, b"")
        else:
            self._stream(caller, key, query, request)

    def _hub(self, caller: Caller, request: Request) -> None:
        outcome = hub_requests.serve(self._port, self._address, caller, request)
        if isinstance(outcome, hub_requests.Answer):
            self._respond(caller, outcome.status, {**HUB_HEADERS, **outcome.headers}, outcome.body)
        elif isinstance(outcome, HubPoll):
            poll = self._reply = Poll(self, caller)
            self._served_at = None
            outcome.wait(poll)
        else:
            self._over = True  # the socket and the place in the count are the stream's from here on
            self._reader.close()
            headers = {**self._port.guard.headers(caller), **HUB_HEADERS}
            HubStream(
                self._port,
                self._socket,
                self._address,
                headers,
                self._request_id,
                outcome.token,
                outcome.access_token,
            )

    def _ask(self, caller: Caller, key: str, refusal: str, make: Make) -> None:
        """Hand a player's command to the session. Raises ApiError; `refusal` is for who is no player."""
        port, reply = self._port, FirstReply(self, caller)
        bearer = caller.bearer()
        if bearer is not None and is_identity(bearer):
            self._reply = reply
            UserRequest(port, caller, key, reply, make).begin(bearer)
            return
        grant = port.guard.grant(caller)
        if grant.player is None:
            raise ApiError("not_player", refusal)
        # By player, because a connection may carry the requests of many.
        if not port.rate.take(grant.session_id, grant.player, port.deps.clock.now_ms()):
            raise rate_limited()
        command = make(reply, grant.player, None if key == grant.session_id else key, None)
        self._reply = reply
        port.deps.sessions.deliver(grant.session_id, command)

    def _next(self, caller: Caller, key: str, attempt: int | None) -> None:
        def command(reply: Subscriber, player: int, code: str | None, user: str | None) -> commands.Next:
            return commands.Next(reply, player, None, code, user, attempt)

        self._ask(caller, key, "Only players go on to the next question.", command)

    def _answer(self, caller: Caller, key: str, request: Request) -> None:
        deps, traced = self._port.deps, self._traced
        now, held_ms = deps.clock.now_ms(), self._port.loop.reads.held_ms() or None

        def command(reply: Subscriber, player: int, code: str | None, user: str | None) -> commands.Answer:
            coding = request.header(b"content-encoding") or ""
            refuse_other_than_json(request.header(b"content-type") or "", coding)
            message = answer_of(request.body, self._port.config.frame_bytes_max)
            trace = None if traced is None else traced.trace
            if trace is None and deps.tracing is not None and message.traceparent is not None:
                trace = deps.tracing.begin(message.traceparent)
            of = message.id, message.question, message.choice
            id_, attempt = self._request_id, message.attempt
            return commands.Answer(reply, player, *of, now, code, held_ms, trace, user, id_, attempt)

        self._ask(caller, key, "Only players answer.", command)

    def _stream(self, caller: Caller, key: str, query: str, request: Request) -> None:
        guard, bearer = self._port.guard, caller.bearer()
        token = token_in(query) or bearer
        identity = token if token is not None and token is bearer and is_identity(token) else None
        grant = None if token is None or identity is not None else guard.grant(caller, token)
        epoch, offset = position(request.header(b"last-event-id") or "")
        if not self._port.streams.enter(self._address, trio.current_time()):
            raise too_many_streams()
        self._over = True  # the socket and the place in the count are the stream's from here on
        self._reader.close()
        assert self._request_id is not None
        headers = guard.headers(caller)
        stream = EventStream(self._port, self._socket, self._address, headers, self._request_id)
        if identity is not None:
            stream.come_back_as(identity, caller, key, epoch, offset)
        elif grant is None:
            stream.watch(key, epoch, offset)
        else:
            stream.come_back(grant, None if key == grant.session_id else key, epoch, offset)

    # -- to the client ---------------------------------------------------------------------------

    def answered(self, caller: Caller, answer: Frame | ApiError) -> None:
        """The session has spoken. May be called by it, so what follows from it is left to the loop."""
        self._reply = None
        if self._over:
            return
        if isinstance(answer, ApiError):
            if answer.code == "token_invalid":
                try:
                    self._port.guard.count_failure(caller)
                except ApiError as error:
                    answer = error
            self._refuse(caller, answer)
        else:
            self._respond(caller, 200, JSON, orjson.dumps(answer.message))
        self._go_on()

    def polled(self, caller: Caller, status: int, body: bytes) -> None:
        """A client of the hub gets what it has asked for. As `answered`."""
        self._reply = None
        if self._over:
            return
        self._respond(caller, status, {**HUB_HEADERS, "Content-Type": "application/octet-stream"}, body)
        self._go_on()

    def _go_on(self) -> None:
        """After the answer to a request that had to wait."""
        if self._closing or len(self._reader):
            self._port.loop.call_soon(self.serve)
        elif not self._over:
            self._set_alarm()

    def _refuse(self, caller: Caller, error: ApiError, more: Mapping[str, str] = _NOTHING) -> None:
        headers = {**self._port.guard.headers(caller), **more}
        self._end_request(error.status)
        self._send(
            error_response(
                error,
                headers,
                close=self._closing,
                request_id=self._request_id,
                head_only=self._head_only,
            )
        )

    def _respond(self, caller: Caller, status: int, headers: Mapping[str, str], body: bytes) -> None:
        standing = self._port.guard.headers(caller)
        self._end_request(status)
        headers = {**standing, **headers}
        self._send(
            response(
                status,
                headers,
                body,
                close=self._closing,
                request_id=self._request_id,
                head_only=self._head_only,
            )
        )

    def _end_request(self, status: int | None) -> None:
        """The response goes out now; None: there is none, because the connection has ended."""
        if status is not None and self._served_at is not None:
            self._port.tally.times.answered(self._route, status, trio.current_time() - self._served_at)
        traced, self._traced = self._traced, None
        deps = self._port.deps
        if traced is not None and deps.tracing is not None:
            deps.tracing.note_request(traced, self._route, status, deps.clock.now_ms())

    def _send(self, data: bytes) -> None:
        """Send it, and what waits. A client that does not take it is given `send_timeout_s`."""
        waited = bool(self._unsent)
        data = self._unsent + data
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in BUSY_KERNEL:
                self._closing = True
                data = b""
            sent = 0
        self._port.tally.bytes_out += sent
        self._unsent = data[sent:]
        if bool(self._unsent) != waited:
            self._port.loop.want(self._socket.fileno(), READABLE | WRITABLE if self._unsent else READABLE)
        if self._unsent:
            self._port.loop.call_at(self, trio.current_time() + self._port.config.send_timeout_s)

    # -- time and end ----------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        if self._unsent:
            return  # its alarm is set
        if self._closing and self._reply is None:
            self._part()
            return
        if self._reply is not None:
            wait_s = self._reply.wait_s
        else:
            wait_s = IDLE_S if self._reader.between else self._port.config.join_timeout_s
        self._port.loop.call_at(self, self._since(trio.current_time()) + wait_s)

    def _since(self, now: float) -> float:
        """When the present wait began. A request that arrives slowly does not restart it."""
        if self._reply is not None or self._reader.between:
            self._begun_at = None
            return now
        if self._begun_at is None:
            self._begun_at = now
        return self._begun_at

    def _let_go(self) -> None:
        if self._over:
            return
        self._over = True
        self._reader.close()
        if self._reply is not None:
            self._reply.exchange = None
            self._reply = None
            self._end_request(None)

    def _part(self) -> None:
        self._end_with(b"")

    def _end_with(self, words: bytes) -> None:
        words = self._unsent + words
        self._let_go()
        LingeringClose(self._port, self._socket, self._address, words)
