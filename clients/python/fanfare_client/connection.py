"""A seat in a session, under asyncio or trio: `connect`.

How to think about it: one task, `_stay`, goes from connection to connection and hears; requests wait for
their replies beside it. Messages are taken with `async for`.
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from typing import Self

import anyio
import anyio.lowlevel
import httpx
from anyio.abc import TaskGroup

from fanfare_client.core import Core, Ended, FanfareError, Heard, Retry, may_pass
from fanfare_client.reconnect import ALIVE_WITHIN_S, QUIET_S, Policy
from fanfare_client.seat import Message
from fanfare_client.socket import Closed, NotOpened, Socket, open_socket

REQUEST_S = 20.0
OPEN_S = 10.0
STREAM_QUIET_S = 12.0
"""An event stream says at least every five seconds that it is alive."""
UNREAD_MAX = 1_000
"""Messages that nobody has taken yet. The oldest are dropped."""
_PATHS = {"answer": "answers", "host": "host", "next": "next"}


def _query(message: Message) -> str:
    """What a request for the next question has beside its path, where it has no body."""
    named = message["t"] == "next" and "attempt" in message
    return f"?attempt={message['attempt']}" if named else ""


def _now_ms() -> float:
    return time.monotonic() * 1000


class _Waiter:
    """A request that waits for its reply."""

    __slots__ = ("over", "reply")

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.reply: Message | FanfareError | None = None


@cache
def _authorities() -> ssl.SSLContext:
    """Whose certificates count. To load them takes 25 ms: once for all connections."""
    return httpx.create_ssl_context()


class Connection:
    """One seat in one session. Made by `connect`.

    Take what the session tells with `async for`: each message as docs/protocol.md has it. The loop ends
    with the session (`finished`) and with `leave()`; whatever else ends the connection is raised there, as
    a FanfareError.
    """

    def __init__(self, url: str, code: str, who: Message, *, websocket: bool) -> None:
        self.code = code
        self.place: Message | None = None
        """The session as `GET /api/sessions/{code}` shows it."""
        self.error: FanfareError | None = None
        """Why it is over; None before."""
        self._core = Core(code, dict(who), random.Random())
        self._path = f"/api/sessions/{code}"
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), timeout=REQUEST_S, verify=url.startswith("https:") and _authorities()
        )
        self._may_open = websocket
        self._blocked = 0
        self._socket: Socket | None = None
        self._waiters: dict[str, _Waiter] = {}
        self._posting: set[str] = set()
        self._unread: deque[Message] = deque(maxlen=UNREAD_MAX)
        self._something = anyio.Event()
        self._arrived = anyio.Event()
        self._staying = anyio.CancelScope()
        self._tasks: TaskGroup | None = None

    # -- what there is to know --------------------------------------------------------------------

    @property
    def joined(self) -> Message:
        """The first `joined`."""
        assert self._core.joined is not None
        return self._core.joined

    @property
    def token(self) -> str | None:
        """What this seat comes back with."""
        return self._core.seat.token

    @property
    def is_open(self) -> bool:
        """Whether there is a connection just now."""
        return self._core.is_in

    def server_now(self) -> float:
        """The server's clock, in ms since 1970."""
        return self._core.clock.at(_now_ms())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._unread:
            if self.error is not None:
                if self.error.code in ("finished", "left"):
                    raise StopAsyncIteration
                raise self.error
            self._something = anyio.Event()
            await self._something.wait()
        await anyio.lowlevel.checkpoint()
        return self._unread.popleft()

    # -- requests ---------------------------------------------------------------------------------

    async def answer(self, question: int, choice: object) -> Message:
        """Answer a question, as soon as it opens. Returns the `ack` once the answer is stored, over as many
        connections as it takes; raises FanfareError when it is refused."""
        if (early_ms := self._core.opens_in_ms(question, _now_ms())) > 0:
            await anyio.sleep(early_ms / 1000)
        return await self._request("answer", question=question, choice=choice)

    async def next(self, attempt: int | None = None) -> Message:
        """The next question, or `done_all`, where players go at their own pace: of the attempt that this
        player is in, or of another one. An attempt that follows one that is over begins with that, once,
        however often it is asked for. Raises FanfareError."""
        return await self._request("next", **({} if attempt is None else {"attempt": attempt}))

    async def host(self, do: str, **members: object) -> Message:
        """One of the host's commands, said once. `start`, `next`, `close` and `skip` are about what this
        host has seen, unless `expect` says otherwise. Raises FanfareError; with `unreachable` it may have
        been carried out or not."""
        return await self._request("host", do=do, **members)

    async def leave(self) -> None:
        """End the connection. The seat stays: `connect` with `token` comes back to it."""
        if self._socket is not None:
            await self._socket.send({"t": "leave"})
        self._end(FanfareError("left"))
        await anyio.lowlevel.checkpoint()

    async def _request(self, kind: str, **members: object) -> Message:
        if self.error is not None:
            raise self.error
        message = self._core.ask(kind, **members)
        mark = message["id"]
        waiter = self._waiters[mark] = _Waiter()
        try:
            await self._transmit(message)
            await waiter.over.wait()
        finally:
            del self._waiters[mark]
            self._core.outstanding.pop(mark, None)
        if isinstance(waiter.reply, dict):
            return waiter.reply
        raise waiter.reply or self.error or FanfareError("unreachable")

    async def _transmit(self, message: Message) -> None:
        """By the connection that there is. Without one the request goes out with the next `joined`."""
        if not self._core.is_in:
            return
        if self._socket is not None:
            await self._socket.send(message)
        else:
            self._post_soon(message)

    def _post_soon(self, message: Message) -> None:
        if self._tasks is not None and message["id"] not in self._posting:
            self._posting.add(message["id"])
            self._tasks.start_soon(self._post, message)

    async def _post(self, message: Message) -> None:
        """Beside an event stream, until the request has its reply."""
        mark, kind = str(message["id"]), message["t"]
        body = None if kind == "next" else {name: value for name, value in message.items() if name != "t"}
        try:
            while mark in self._core.outstanding and self._socket is None:
                try:
                    reply: Message | FanfareError = {
                        **await self._ask("POST", f"/{_PATHS[kind]}{_query(message)}", body),
                        "id": mark,
                    }
                except FanfareError as exc:
                    if may_pass(exc, kind):
                        await anyio.sleep(random.uniform(1, 2))
                        continue
                    reply = exc
                if isinstance(reply, dict):
                    await self._carry_out(self._core.hear(reply, _now_ms()))
                elif self._core.outstanding.pop(mark, None) is not None:
                    self._settle(mark, reply)
        finally:
            self._posting.discard(mark)

    async def _say_again(self, mark: str) -> None:
        await anyio.sleep(random.uniform(1, 2))
        if mark in self._core.outstanding:
            await self._transmit(self._core.outstanding[mark])

    async def _ask(self, method: str, path: str, body: Message | None = None) -> Message:
        """One request to the API. Raises FanfareError."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            response = await self._http.request(method, self._path + path, json=body, headers=headers)
            told = response.json()
        except (httpx.TransportError, ValueError) as exc:
            raise FanfareError("unreachable", str(exc)) from exc
        if response.is_error or not isinstance(told, dict):
            raise FanfareError.told(told.get("error", {}) if isinstance(told, dict) else {})
        return told

    # -- coming and going -------------------------------------------------------------------------

    async def _stay(self) -> None:
        with self._staying:
            while self.error is None:
                after = await self._visit()
                for mark in self._core.given_up():
                    self._settle(mark, FanfareError("unreachable"))
                if isinstance(after, Ended):
                    self._end(after.error)
                else:
                    await anyio.sleep(after.after_s)

    async def _visit(self) -> Retry | Ended:
        """One connection, from its beginning to its end."""
        core = self._core
        if core.look_again:
            try:
                self.place = await self._ask("GET", "")
            except FanfareError as exc:
                if not exc.is_temporary or not core.urls:
                    return core.refused(exc)
            else:
                if self.place["state"]["phase"] == "finished" and self.place.get("epoch") is None:
                    return Ended(FanfareError("session_finished", "The session is over."))
                core.found(self.place["ws_url"])
        if self._may_open and self._blocked < (2 if core.joined else 1):
            return await self._over_socket()
        return await self._over_events()

    async def _over_socket(self) -> Retry | Ended:
        core = self._core
        try:
            with anyio.fail_after(OPEN_S):
                socket = await open_socket(core.url)
        except (NotOpened, TimeoutError):
            self._blocked += not core.look_again  # the node is there, but not by WebSocket
            return core.lost() if core.joined or core.look_again else Retry(0)
        self._blocked = 0
        try:
            await socket.send(core.join())
            return await self._converse(socket)
        except Closed as exc:
            return core.lost(exc.code, exc.reason)
        finally:
            core.is_in = False
            self._socket = None
            await socket.close()

    async def _converse(self, socket: Socket) -> Retry | Ended:
        """Until the connection is over, or silent."""
        join_at, is_asked = None, False
        while True:
            patience = ALIVE_WITHIN_S if is_asked else QUIET_S
            if join_at is not None:
                patience = max(join_at - anyio.current_time(), 0)
            message = None
            with anyio.move_on_after(patience):
                message = await socket.receive()
            if message is not None:
                is_asked = False
                heard = self._core.hear(message, _now_ms())
                if message["t"] == "joined" and heard.over is None:
                    self._socket, join_at = socket, None
                    await socket.send({"t": "ping", "at": _now_ms()})
                if heard.join_again_s is not None:
                    join_at = anyio.current_time() + heard.join_again_s
                await self._carry_out(heard)
                if heard.over is not None:
                    return heard.over
            elif join_at is not None:
                await socket.send(self._core.join())
                join_at = anyio.current_time() + QUIET_S
            elif is_asked:
                return self._core.lost(policy=Policy.LATER)
            else:
                await socket.send({"t": "ping", "at": _now_ms()})
                is_asked = True

    async def _over_events(self) -> Retry | Ended:
        """An event stream, and requests beside it."""
        core = self._core
        try:
            if self.token is None and "role" not in core.body:
                made = await self._ask("POST", "/players", core.body)
                if "token" not in made:
                    heard = core.hear({"t": "waiting", **made}, _now_ms())
                    await self._carry_out(heard)
                    return Retry(heard.join_again_s or 1.0)
                core.seat.token = made["token"]
            return await self._listen()
        except FanfareError as exc:
            if exc.is_temporary:
                self._blocked = 0  # all ways in vain: the first one again
            return core.refused(exc)
        finally:
            core.is_in = False

    async def _listen(self) -> Retry | Ended:
        headers = {"Accept": "text/event-stream"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if self._core.last_event_id is not None:
            headers["Last-Event-ID"] = self._core.last_event_id
        timeout = httpx.Timeout(REQUEST_S, read=STREAM_QUIET_S)
        address = f"{self._path}/events"
        over: Retry | Ended | None = None
        try:
            async with self._http.stream("GET", address, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    await response.aread()
                    told = response.json()
                    raise FanfareError.told(told.get("error", {}) if isinstance(told, dict) else {})
                with anyio.CancelScope() as reading:
                    # Nothing in here waits but the reading itself: cancelled there, it leaves no generator
                    # of httpx behind.
                    async for line in response.aiter_lines():
                        if over is None and line.startswith("data: "):
                            over = self._hear_line(line[6:])
                        if over is not None:
                            reading.cancel()
        except (httpx.TransportError, ValueError):
            pass
        return over or self._core.lost()

    def _hear_line(self, data: str) -> Retry | Ended | None:
        """One event. Returns what comes after the stream, if it is over. Raises ValueError."""
        heard = self._core.hear(json.loads(data), _now_ms())
        self._take(heard)
        for message in heard.send:
            self._post_soon(message)
        return heard.over

    async def _carry_out(self, heard: Heard) -> None:
        self._take(heard)
        for message in heard.send:
            await self._transmit(message)

    def _take(self, heard: Heard) -> None:
        self._unread.extend(heard.events)
        if heard.events:
            self._something.set()
        if self._core.joined is not None:
            self._arrived.set()
        for mark, reply in heard.settled:
            self._settle(mark, FanfareError.told(reply) if reply["t"] == "error" else reply)
        for mark in heard.later:
            assert self._tasks is not None
            self._tasks.start_soon(self._say_again, mark)

    def _settle(self, mark: str, reply: Message | FanfareError) -> None:
        waiter = self._waiters.get(mark)
        if waiter is not None:
            waiter.reply = reply
            waiter.over.set()

    def _end(self, error: FanfareError) -> None:
        if self.error is not None:
            return
        self.error = error
        for waiter in self._waiters.values():
            waiter.reply = waiter.reply or error
            waiter.over.set()
        self._something.set()
        self._arrived.set()
        self._staying.cancel()


@asynccontextmanager
async def connect(
    url: str,
    code: str,
    *,
    name: str | None = None,
    token: str | None = None,
    identity: str | None = None,
    role: str | None = None,
    former: str | None = None,
    websocket: bool = True,
) -> AsyncGenerator[Connection]:
    """Join a session and stay in it while the block runs, which begins once the seat is in.

    Args:
        url: address of a node's HTTP API, or of what stands before it.
        code: the six digits.
        name: of a new player; left out where the session names its players.
        token: of the host, or of a seat from before.
        identity: a JSON Web Token with which an app tells who its user is.
        role: `spectator` only watches.
        former: the token of the player that this device was before.
        websocket: False for the event stream and requests alone.

    Raises:
        FanfareError: the seat is refused.
    """
    given = {"name": name, "token": token, "identity": identity, "role": role, "former": former}
    who = {key: value for key, value in given.items() if value is not None}
    game = Connection(url, code, who, websocket=websocket)
    failure: Exception | None = None
    async with game._http, anyio.create_task_group() as tasks:
        game._tasks = tasks
        tasks.start_soon(game._stay)
        try:
            await game._arrived.wait()
            if game._core.joined is None:
                raise game.error or FanfareError("unreachable")  # noqa: TRY301  # as what the block raises
            yield game
        except Exception as exc:  # noqa: BLE001  # raised again below, outside of the group
            failure = exc
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
