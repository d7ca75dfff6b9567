"""A client of the hub that asks for what there is by one request after another: long polling."""

from __future__ import annotations

from typing import Protocol

import trio

from engine.actors.close_reasons import CloseReason
from engine.actors.delivery.frame import Frame
from engine.actors.delivery.outbox import Outbox
from server.realtime import hub, transport
from server.realtime.conversation import Conversation
from server.realtime.reactor.port import Port
from server.realtime.reactor.timer_wheel import NEVER
from server.security.authentication import Caller
from server.wire.hub import PING, HubProtocol, closing, encode_json

LOOK_S = 5.0
"""How often the times of a client are looked at."""

AWAY_S = 20.0
"""How long a client may be without a request that waits: so long its connection is kept, and its end after
it."""


POLL_TIMEOUT_S = 60.0
"""How long a request waits. A ping comes before that, unless the client has not shaken hands."""


class Asker(Protocol):
    """The connection that a request came by."""

    def polled(self, caller: Caller, status: int, body: bytes) -> None:
        """Answer the request."""


class Poll:
    """A request that waits for something to be said. Once `exchange` is None, nobody waits any more."""

    __slots__ = ("caller", "exchange")

    wait_s = POLL_TIMEOUT_S

    def __init__(self, exchange: Asker, caller: Caller) -> None:
        self.exchange: Asker | None = exchange
        self.caller = caller

    @property
    def gone(self) -> bool:
        return self.exchange is None

    def give(self, status: int, body: bytes) -> None:
        """Answer it, if that was not done."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.polled(self.caller, status, body)

    def expire(self) -> None:
        """The time is over: the client asks again."""
        self.give(200, b"")


class HubPoll:
    """Subscriber and HubChannel: a connection that has no socket, and so a timer of its own (`due`).

    How to think about it: what is pushed waits in an outbox, and goes out with the request that waits or with
    the next one. The client is there as long as it asks.

    Args:
        address: the client's, for which it is counted until its end.
        token: the connection token, by which requests find it.
        access_token: what the client shows, good or not.
    """

    __slots__ = (
        "_address",
        "_away_since",
        "_conversation",
        "_ended",
        "_flushing",
        "_hub",
        "_join_by",
        "_outbox",
        "_pinged_at",
        "_poll",
        "_port",
        "_token",
        "_words",
        "tick",
    )

    def __init__(self, port: Port, address: str, token: str, access_token: str | None) -> None:
        now = trio.current_time()
        self._port = port
        self._address = address
        self._token = token
        self._hub = hub.HubClient(access_token, port.config.frame_bytes_max, port.deps.boundary)
        self._conversation = Conversation(port.deps, self, address, may_move=False)
        self._outbox = Outbox(encode_json, port.config.outbox_bytes_max)
        self._poll: Poll | None = None
        self._flushing = False
        self._ended = False
        self._words = b""
        """The last message, once the connection has ended."""
        self._away_since = self._pinged_at = now
        self._join_by = now + port.config.join_timeout_s
        self.tick = NEVER
        port.hub_channels[token] = self
        port.tally.hub_polls += 1
        port.loop.call_at(self, now + LOOK_S)

    # -- requests --------------------------------------------------------------------------------

    def wait(self, poll: Poll) -> None:
        """Answer this request as soon as there is something to be said, instead of any other that waits."""
        older, self._poll = self._poll, poll
        if older is not None:
            older.give(204, b"")
        self._answer()

    def hear(self, data: bytes) -> None:
        """HubChannel."""
        if self._ended:
            return
        self._port.tally.messages_in += 1
        self._hub.receive(data, self._conversation, self)

    def leave(self) -> None:
        """The client wants no more."""
        self.close(CloseReason.LEFT)
        self._remove()

    # -- HubConnection and Subscriber ------------------------------------------------------------

    @property
    def lags(self) -> bool:
        """Whether something that was pushed still waits here."""
        return bool(self._outbox)

    def agree(self, protocol: HubProtocol) -> None:
        """HubConnection."""
        self._outbox = Outbox(protocol.encode, self._port.config.outbox_bytes_max)

    def refuse_handshake(self, words: bytes) -> None:
        """HubConnection."""
        self._conclude(CloseReason.BAD_FRAME, words)

    def push(self, frame: Frame) -> None:
        """Subscriber."""
        said = self._hub.answered(frame) if frame.kind in hub.REPLIES else frame
        if said is None or self._ended:
            return
        try:
            taken = self._outbox.push(said)
        except Exception as error:  # noqa: BLE001 - the boundary logs it
            self._port.deps.boundary.caught(error, f"encoding a {frame.kind}")
            self.close(CloseReason.FAILED)
            return
        if not taken:
            self.close(CloseReason.SLOW_CONSUMER)
        elif self._poll is not None and not self._flushing:
            self._flushing = True
            self._port.loop.call_soon(self._answer)

    def close(self, close_reason: CloseReason) -> None:
        """Subscriber."""
        protocol = self._hub.protocol
        words = hub.HANDSHAKE_ENDED
        if protocol is not None:
            words = closing(close_reason).encoded(protocol.encode)
        self._conclude(close_reason, words)

    # -- time ------------------------------------------------------------------------------------

    def due(self, now: float) -> None:
        """SocketHandler, as far as its timer goes."""
        away = self._poll is None or self._poll.gone
        if away and now >= self._away_since + AWAY_S:
            self.close(CloseReason.PING_TIMEOUT)
            self._remove()
            return
        if not away:
            self._away_since = now
        if self._ended:
            pass
        elif now >= self._join_by and self._conversation.idle:
            self.close(CloseReason.JOIN_TIMEOUT)
        elif now >= self._join_by + transport.JOIN_REPLY_S and self._conversation.joining:
            self._conversation.give_up_joining()
        elif now >= self._pinged_at + hub.PING_INTERVAL_S:
            self._pinged_at = now
            if self._hub.fell_silent():
                self.close(CloseReason.PING_TIMEOUT)
            elif self._hub.protocol is not None:
                self.push(PING)
        self._port.loop.call_at(self, now + LOOK_S)

    def ready(self, events: int) -> None:
        """SocketHandler. There is no socket."""

    def stop(self) -> None:
        """HubChannel."""
        self.close(CloseReason.SHUTDOWN)

    def cut(self) -> None:
        """SocketHandler."""
        self.close(CloseReason.FAILED)
        self._remove()

    # -- inside ----------------------------------------------------------------------------------

    def _answer(self) -> None:
        self._flushing = False
        poll = self._poll
        if poll is None or poll.gone:
            return
        parts: list[bytes] = []
        while (data := self._outbox.pop()) is not None:
            parts.append(data)
        self._port.tally.frames_out += len(parts)
        if self._words:
            parts.append(self._words)
            self._words = b""
        if parts or self._ended:
            self._poll = None
            self._away_since = trio.current_time()
            if not parts:
                self._remove()
            poll.give(200 if parts else 204, b"".join(parts))

    def _conclude(self, close_reason: CloseReason, words: bytes) -> None:
        """Mark the end. The first one counts."""
        if self._ended:
            return
        self._ended = True
        self._words = words
        if close_reason in transport.UNFLUSHED:
            self._outbox = Outbox(encode_json, self._port.config.outbox_bytes_max)
        self._port.tally.closed[close_reason.reason] += 1
        self._port.loop.call_soon(self._leave)

    def _leave(self) -> None:
        """The callback after the end."""
        self._conversation.disconnected()
        self._answer()

    def _remove(self) -> None:
        """Forget the connection, which has ended."""
        if self._port.hub_channels.pop(self._token, None) is not None:
            self._port.loop.forget(self)
            self._port.tally.hub_polls -= 1
            self._port.streams.leave(self._address)
