"""Participants on the wire: a player, the host, a spectator. Each comes back by itself.

A client knows the protocol and nothing about the quiz: it joins, keeps (epoch, offset), checks that no
broadcast is missing, sends requests and waits for their answers, and after a lost connection or a move to
another node resumes and sends again whatever was not answered. What it hears it passes to a listener.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from fanfare_client.reconnect import (
    ALIVE_WITHIN_S,
    QUIET_S,
    Policy,
    after_close,
    after_error,
    delay_s,
    elsewhere,
)
from fanfare_client.seat import BROADCASTS, MOVES_MAX, NOT_NOW, PASSING, SETTLE_S, Gap, Seat
from loadtest.client.connection import (
    BadFrame,
    Dial,
    Message,
    NotOpened,
    Wire,
    WireClosed,
    attempt_member,
    dial,
    open_wire,
)

Listener = Callable[[Message], None]

_REPLIES = frozenset({"ack", "done", "error", "question", "done_all"})


class Gone(Exception):
    """The client has left for good, so there will be no answer. `reason` as in `WireClient.run`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: `ack`, `done` or `error`. `latency_s` counts from when it was first sent."""

    message: Message
    latency_s: float
    sent: int

    @property
    def error(self) -> str | None:
        """The code of an `error`, else None."""
        return str(self.message["code"]) if self.message["t"] == "error" else None


@dataclass(slots=True, eq=False)
class _Request:
    message: Message
    settled: trio.Event = field(default_factory=trio.Event)
    reply: Message | None = None
    sent: int = 0


@dataclass(frozen=True, slots=True)
class _Parted:
    """Why a connection is over and what comes next."""

    reason: str
    policy: Policy
    joined: bool = False
    url: str | None = None
    after_ms: int = 0


class WireClient:
    """What every participant does. Use PlayerClient, HostClient or SpectatorClient.

    Args:
        urls: address of the WebSocket, or those of several nodes, any of which knows where the session is:
            the first is where it begins, and each time a connection is lost, the next one is tried.
        code: the session's six digits.
        rng: for the jitter of coming back.
        listener: called with every message, in order, repeats left out. Must not block.
        patience_s: how long to go on trying without a connection that has joined.
        connect: opens the stream underneath.
    """

    role = "spectator"

    def __init__(
        self,
        urls: str | Sequence[str],
        code: str,
        *,
        rng: random.Random,
        token: str | None = None,
        listener: Listener | None = None,
        patience_s: float = 60.0,
        connect: Dial = dial,
    ) -> None:
        self.urls = (urls,) if isinstance(urls, str) else tuple(urls)
        self.seat = Seat(code, token)
        self.phase: str | None = None
        self.finished: Message | None = None
        """`podium` and `you` once the session is over."""
        self.reconnects = 0
        """How often it came back, moves not counted."""
        self.moves = 0
        """How often it was sent on to another node."""
        self.arrived = trio.Event()
        """Set by the first `joined`, or when there will be none."""
        self.ended: str | None = None
        """What `run` returned."""
        self._rng = rng
        self._listener = listener
        self._patience_s = patience_s
        self._connect = connect
        self._wire: Wire | None = None
        self._staying = trio.CancelScope()
        self._joined = False
        self._on_the_move = False
        self._requests: dict[str, _Request] = {}
        self._last_id = 0
        self._ticket: str | None = None
        """Of a player who waits for the host."""

    # -- what the caller does ---------------------------------------------------------------------

    @property
    def code(self) -> str:
        return self.seat.code

    @property
    def token(self) -> str | None:
        """What the client comes back with."""
        return self.seat.token

    @token.setter
    def token(self, token: str | None) -> None:
        self.seat.token = token

    @property
    def epoch(self) -> int | None:
        return self.seat.epoch

    @property
    def offset(self) -> int:
        return self.seat.offset

    @property
    def gaps(self) -> list[Gap]:
        return self.seat.gaps

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has joined."""
        return self._joined

    async def run(self) -> str:
        """Stay in the session until it or the patience ends.

        Returns:
            `finished`; or the name of the end (`left`, `replaced`, `kicked`, ...); or the code of the error
            that refused the join; or `unreachable` when the patience ran out.
        """
        try:
            with self._staying:
                self.ended = await self._stay()
            if self._staying.cancelled_caught:
                self.ended = "left"
        finally:
            self._joined = False
            self.ended = self.ended or "cancelled"
            self.arrived.set()
            for request in self._requests.values():
                request.settled.set()
        return self.ended

    async def request(self, message: Message) -> Reply:
        """Send a request until it is answered, over as many connections as it takes.

        An answer of `busy` or `rate_limited` is followed by another attempt, while the patience lasts.
        Raises Gone.
        """
        started = trio.current_time()
        sent = 0
        while True:
            answer, times = await self._ask(message)
            sent += times
            waited = trio.current_time() - started
            if answer.get("code") not in NOT_NOW or waited > self._patience_s:
                return Reply(answer, waited, sent)
            await trio.sleep(self._rng.uniform(0.2, 1.0))

    async def leave(self) -> None:
        """Say goodbye, or stop trying to come back. `run` then returns `left`."""
        if self._joined:
            await self._send({"t": "leave"})
        else:
            self._staying.cancel()
            await trio.lowlevel.checkpoint()

    async def drop(self) -> None:
        """Cut the connection as a network failure would. The client comes back by itself."""
        self._joined = False
        if self._wire is not None:
            await self._wire.cut()

    # -- coming and going -------------------------------------------------------------------------

    async def _stay(self) -> str:
        place, url, failures, moves = 0, self.urls[0], 0, 0
        away_since = trio.current_time()
        while True:
            parted = await self._visit(url)
            if parted.joined:
                failures = moves = 0
                away_since = trio.current_time()
            self._on_the_move = parted.url is not None and moves < MOVES_MAX
            if parted.url is not None and self._on_the_move:
                url, moves, delay = parted.url, moves + 1, parted.after_ms / 1000
                self.moves += 1
            elif parted.policy is Policy.NO:
                return parted.reason
            else:
                delay = delay_s(parted.policy, failures, self._rng)
                if parted.policy is not Policy.RESUME:
                    failures += 1
                    place = elsewhere(self.urls, place, url)
                    url = self.urls[place]
            if trio.current_time() + delay - away_since > self._patience_s:
                return "unreachable"
            await trio.sleep(delay)

    async def _visit(self, url: str) -> _Parted:
        """One connection, from the join to its end."""
        try:
            async with open_wire(url, connect=self._connect) as wire:
                self._wire = wire
                return await self._converse(wire)
        except NotOpened as exc:
            refused = exc.status is not None and 400 <= exc.status < 500 and exc.status not in (408, 429)
            return _Parted(f"http_{exc.status}", Policy.NO) if refused else _Parted(str(exc), Policy.LATER)
        except WireClosed:
            return _Parted("broken", Policy.LATER)
        finally:
            self._wire = None
            self._joined = False

    async def _converse(self, wire: Wire) -> _Parted:
        joined = False
        try:
            await wire.send(self._greeting())
            with trio.CancelScope() as settling:
                while True:
                    message = await self._next(wire)
                    if message is None:
                        return _Parted("silent", Policy.LATER, joined=joined)
                    parted = await self._hear(message)
                    joined = joined or self._joined
                    if parted is not None:
                        return parted
                    if self.finished is not None:
                        if not self._requests:
                            return _Parted("finished", Policy.NO)
                        settling.deadline = min(settling.deadline, trio.current_time() + SETTLE_S)
            return _Parted("finished", Policy.NO)
        except WireClosed as exc:
            if self.finished is not None and not self._requests:
                return _Parted("finished", Policy.NO)
            return _Parted(exc.reason or "broken", after_close(exc.code), joined=joined)

    async def _next(self, wire: Wire) -> Message | None:
        """The next message; None when the server gives no sign of life any more, asked or not. A node that
        hangs, or a network that is gone, ends no connection."""
        with trio.move_on_after(QUIET_S):
            return await wire.receive()
        await wire.send({"t": "ping", "at": trio.current_time()})
        with trio.move_on_after(ALIVE_WITHIN_S):
            return await wire.receive()
        return None

    def _greeting(self) -> Message:
        return self.seat.join()

    # -- hearing ----------------------------------------------------------------------------------

    async def _hear(self, message: Message) -> _Parted | None:
        kind = message["t"]
        if kind == "moved":
            return _Parted("moved", Policy.MOVE, self._joined, str(message["url"]), int(message["after_ms"]))
        if kind in BROADCASTS and "offset" in message and not self.seat.in_order(message["offset"]):
            return None
        if kind in _REPLIES and (request := self._requests.pop(message.get("id", ""), None)) is not None:
            request.reply = message
            request.settled.set()
        elif kind == "error" and not self._joined:
            return await self._refused(message)
        if kind == "joined":
            self._welcome(message)
        elif kind == "waiting":
            await self._ask_again(message)
        elif kind in PASSING:
            self.seat.up_to(message["offset"])
        elif kind == "question" and self.phase != "open":
            self.phase = "question"
        elif kind == "reveal":
            self.phase = "reveal"
        elif kind == "state":
            self.phase = message["phase"]
        elif kind == "finished":
            self.phase = "finished"
            self.finished = {"podium": message["podium"], "you": message["you"]}
        if self._listener is not None:
            self._listener(message)
        if kind == "joined":
            for request in list(self._requests.values()):
                await self._transmit(request)
        return None

    def _welcome(self, message: Message) -> None:
        wrong = self.seat.joined(message)
        if wrong is not None:
            raise BadFrame(wrong)
        state = message["state"]
        if state is not None:
            self.phase = state["phase"]
            if self.phase == "finished":
                you = state["you"]
                self.finished = {
                    "podium": state["podium"],
                    "you": you and {"rank": you["rank"], "score": you["score"]},
                }
        self._joined = True
        if self.arrived.is_set() and not self._on_the_move:
            self.reconnects += 1
        self._on_the_move = False
        self.arrived.set()

    async def _ask_again(self, message: Message) -> None:
        """The host has yet to let this client in."""
        self._ticket = str(message["ticket"])
        await trio.sleep(int(message["again_ms"]) / 1000)
        await self._send(self._greeting())

    async def _refused(self, error: Message) -> _Parted | None:
        """The join was refused. None when another attempt was made at once."""
        return _Parted(error["code"], after_error(error["code"]))

    # -- asking -----------------------------------------------------------------------------------

    async def _ask(self, message: Message) -> tuple[Message, int]:
        """One request under an id of its own: the answer, and how often it had to be sent."""
        if self.ended is not None:
            raise Gone(self.ended)
        self._last_id += 1
        mark = str(self._last_id)
        request = self._requests[mark] = _Request({**message, "id": mark})
        try:
            await self._transmit(request)
            await request.settled.wait()
        finally:
            self._requests.pop(mark, None)
        if request.reply is None:
            raise Gone(self.ended or "cancelled")
        return request.reply, request.sent

    async def _transmit(self, request: _Request) -> None:
        if self._joined:
            request.sent += 1
            await self._send(request.message)

    async def _send(self, message: Message) -> None:
        """Send if there is a connection. One that has just ended is no error: the reader sees to it."""
        if self._wire is None:
            return
        try:
            await self._wire.send(message)
        except WireClosed:
            await trio.lowlevel.checkpoint()


class PlayerClient(WireClient):
    """A player. With a name it joins as a new one, with a token as the one it belongs to.

    When the answer to the first join was lost, the name may be taken by this very player: then it joins
    as another one, with a number after the name.
    """

    role = "player"

    def __init__(
        self,
        urls: str | Sequence[str],
        code: str,
        name: str,
        *,
        rng: random.Random,
        token: str | None = None,
        listener: Listener | None = None,
        patience_s: float = 60.0,
        connect: Dial = dial,
    ) -> None:
        super().__init__(
            urls, code, rng=rng, token=token, listener=listener, patience_s=patience_s, connect=connect
        )
        self.name = name
        self.player: int | None = None
        self._wanted = name

    async def answer(self, question: int, choice: object, attempt: int = 1) -> Reply:
        """Answer a question. Raises Gone."""
        asked = {"t": "answer", "question": question, "choice": choice}
        return await self.request(asked | attempt_member(attempt))

    async def next(self, attempt: int = 1) -> Reply:
        """Ask for the next question, in a session at the players' own pace. Raises Gone."""
        return await self.request({"t": "next"} | attempt_member(attempt))

    def _greeting(self) -> Message:
        if self.token is None and self._ticket is not None:
            return self.seat.join(name=self.name, ticket=self._ticket)
        return self.seat.join(name=self.name)

    def _welcome(self, message: Message) -> None:
        super()._welcome(message)
        self.player, self.name = message["player"], message["name"]

    async def _refused(self, error: Message) -> _Parted | None:
        another = self.seat.another_name(self._wanted) if error["code"] == "name_taken" else None
        if another is None:
            return await super()._refused(error)
        self.name = another
        await self._send(self._greeting())
        return None


class HostClient(WireClient):
    """The host, by the host token."""

    role = "host"

    async def command(self, do: str, **members: object) -> Reply:
        """One of the host's commands; `player` belongs to kick, `on` to lock, `expect` to start, next, close
        and skip. Raises Gone."""
        return await self.request({"t": "host", "do": do, **members})


class SpectatorClient(WireClient):
    """Who only watches."""

    def _greeting(self) -> Message:
        return self.seat.join(role="spectator")
