"""Server-Sent Events: the broadcasts of a session, for networks that block WebSockets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol

import trio
from quart import request
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse

from engine.actors.close_reasons import CloseReason, Reconnect
from engine.actors.commands import Command, Detach, Identity, Rejoin, Watch
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.outbox import Outbox
from engine.actors.delivery.subscriber import ConnectionEnded
from server.http.authorization import Access
from server.http.requests import read_query
from server.http.responses import Answer, body_answer, when_over
from server.http.services import Services
from server.http.sessions import Sessions, bounded_wait
from server.http.throttle import Throttle
from server.security.limits import ConnectionCount
from server.security.tokens import Grant, generation_of
from server.wire.api.queries import EventsQuery
from server.wire.errors import busy, refused, too_many_streams
from server.wire.sse import (
    EVENT_STREAM,
    KEEP_ALIVE,
    KEEP_ALIVE_S,
    EventDialect,
    last_words,
    position,
    retry,
)

EXIT_STACK = "fanfare.exit_stack"
"""The key in the scope of a request under which the callbacks for its end are kept."""

CHUNK_BYTES = 32 * 1024

COST = 4
"""An address may have this many times fewer event streams here than on the realtime port, because each costs
ten times as much here."""


class EventStream:
    """One open stream; to the session it is a subscriber.

    Frames wait in a bounded outbox for the task that sends. A client that does not keep up is disconnected:
    the session forgets it at once, and the connection ends with the frames in the outbox and a last `close`.

    Args:
        deliver: hands a command to the session, on whichever node it is.
    """

    def __init__(self, deliver: Callable[[Command], None], bytes_max: int, throttle: Throttle) -> None:
        self._deliver = deliver
        self._left = False
        self._turnstile = throttle
        self._bytes_max = bytes_max
        self._outbox: Outbox | None = None
        """From the first frame on: it says of which epoch the stream is."""
        self._first: Frame | None = None
        self._close_reason: CloseReason | None = None
        self._said_retry = False
        self._over = False
        self._wakeup = trio.Event()

    @property
    def lags(self) -> bool:
        """Whether something that was pushed still waits here."""
        return bool(self._outbox)

    # -- from the session ------------------------------------------------------------------------

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        if self._left:
            self._deliver(Detach(self))  # a seat that was under way when the client left
        if self._close_reason is not None or self._left:
            return
        if self._outbox is None:
            self._first = frame
            epoch = frame.message.get("epoch", 0)
            assert isinstance(epoch, int)
            self._outbox = Outbox(EventDialect(epoch), self._bytes_max)
        if not self._outbox.push(frame):
            self.close(CloseReason.SLOW_CONSUMER)
            self.leave()
        self._wakeup.set()

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        if self._close_reason is None:
            self._close_reason = close_reason
            self._wakeup.set()

    # -- towards the client ----------------------------------------------------------------------

    def leave(self) -> None:
        """Give the seat in the session back. More than once does no harm."""
        self._left = True
        self._deliver(Detach(self))

    async def opening(self) -> Frame:
        """The first frame. Raises ConnectionEnded if the session closes instead."""
        await self._wakeup.wait()
        if self._first is None:
            assert self._close_reason is not None
            raise ConnectionEnded(self._close_reason)
        return self._first

    async def next_chunk(self) -> bytes | None:
        """The events that wait, or a sign of life when there have been none for a while; None at the end.
        While a stream waits for its turn, newer leaderboards replace older ones.

        Always a checkpoint: after the client has gone hypercorn's send is none, and a stream with much to
        say would never hear that it is cancelled.
        """
        if not self._said_retry:
            self._said_retry = True
            await trio.lowlevel.checkpoint()
            return retry(Reconnect.LATER)
        if not self._outbox and self._close_reason is None:
            self._wakeup = trio.Event()
            with trio.move_on_after(KEEP_ALIVE_S):
                await self._wakeup.wait()
        await self._turnstile.go_through()
        if self._outbox:
            return self._take()
        if self._close_reason is None:
            return KEEP_ALIVE
        if self._over:
            return None
        self._over = True
        return last_words(self._close_reason)

    def _take(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        outbox = self._outbox
        while size < CHUNK_BYTES and outbox is not None and (data := outbox.pop()) is not None:
            parts.append(data)
            size += len(data)
        return b"".join(parts)


class Chunks(Protocol):
    """A stream, as far as what is sent is concerned."""

    async def next_chunk(self) -> bytes | None:
        """What to send next; None at the end."""


class Closes(Protocol):
    """A stream, as far as its end is concerned."""

    def close(self, close_reason: CloseReason) -> None: ...


class OpenStreams:
    """The streams of this port, so that they can be counted, by address too, and closed at shutdown."""

    def __init__(self, per_address_max: int) -> None:
        self.throttle = Throttle()
        here_max = max(1, per_address_max // COST)
        self.count = ConnectionCount(here_max, "event_streams_per_address_max")
        self._streams: set[Closes] = set()
        self._close_reason: CloseReason | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def take_place(self, address: str) -> None:
        """Count a stream until the request is over. Raises ApiError if the address has the most streams it
        may have."""
        if not self.count.enter(address, trio.current_time()):
            raise too_many_streams()
        when_over(partial(self.count.leave, address))

    def add(self, stream: Closes) -> None:
        self._streams.add(stream)
        if self._close_reason is not None:
            stream.close(self._close_reason)

    def discard(self, stream: Closes) -> None:
        self._streams.discard(stream)

    def close_all(self, close_reason: CloseReason) -> None:
        """Close every stream, and from now on every new one."""
        self._close_reason = close_reason
        for stream in self._streams:
            stream.close(close_reason)


class Events:
    def __init__(self, services: Services, access: Access, sessions: Sessions, streams: OpenStreams) -> None:
        self._services = services
        self._access = access
        self._sessions = sessions
        self._streams = streams

    async def open(self, key: str) -> Answer:
        """A stream for a spectator or, with a token, for its player or host. A refusal is an ordinary error:
        browsers then do not come back by themselves."""
        token = read_query(EventsQuery).token
        if request.method == "HEAD":
            return body_answer(b"", EVENT_STREAM)
        who: Grant | Identity | None = None
        if token is not None:
            who = self._access.grant(token)
        elif self._access.bearer() is not None:
            who = await self._access.seat()
        self._streams.take_place(self._access.address())
        epoch, offset = position(request.headers.get("Last-Event-ID", ""))
        if who is None:
            session = await self._sessions.live(key)
        else:
            session = await self._sessions.seated(key, who)
        stream = EventStream(
            partial(self._services.directory.deliver, session.session_id),
            self._services.config.outbox_bytes_max,
            self._streams.throttle,
        )
        command: Command = Watch(stream, epoch, offset)
        if isinstance(who, Identity):
            command = Rejoin(stream, "player", None, None, epoch, offset, user=who.user_id)
        elif who is not None:
            command = Rejoin(stream, who.role, who.player, None, epoch, offset, generation=generation_of(who))
        # The response may fail before its body is entered, so the seat is tied to the request.
        self._tie_to_request(stream)
        session.send(command)
        try:
            with bounded_wait():
                opening = await stream.opening()
        except ConnectionEnded:
            raise busy() from None
        if opening.kind == "error":
            raise refused(opening)
        return stream_answer(stream)

    def _tie_to_request(self, stream: EventStream) -> None:
        self._streams.add(stream)
        when_over(partial(self._streams.discard, stream))
        when_over(stream.leave)


def stream_answer(stream: Chunks) -> Answer:
    """The response whose body is the stream until its end."""
    answer = TrioResponse(_StreamBody(stream), 200, content_type=EVENT_STREAM)
    # Nginx would hold events back to fill its buffers.
    answer.headers["X-Accel-Buffering"] = "no"
    answer.timeout = None
    return answer


class _StreamBody(ResponseBody):
    def __init__(self, stream: Chunks) -> None:
        self._stream = stream

    async def __aenter__(self) -> _StreamBody:
        return self

    async def __aexit__(self, exc_type: type, exc_value: BaseException, traceback: TracebackType) -> None:
        pass

    def __aiter__(self) -> _StreamBody:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._stream.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk
