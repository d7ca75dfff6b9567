"""One WebSocket connection that speaks `fanfare.v1`: opened, sent to, received from, ended.

The library underneath is trio-websocket, on a stream that stays in our hands: so that a connection can be
cut without a close frame, as a network does it, and so that a peer that goes away in the middle of the
handshake is noticed at once.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

SUBPROTOCOL = "fanfare.v1"
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
CLOSE_TIMEOUT_S = 2.0

Message = dict[str, Any]
Dial = Callable[[str], Awaitable[trio.abc.Stream]]
"""Opens a stream to the host of a URL. Raises OSError."""


def attempt_member(attempt: int) -> Message:
    """Which attempt a request is about: the first one need not be named."""
    return {"attempt": attempt} if attempt > 1 else {}


class WireClosed(Exception):
    """The connection is over. `code` and `reason` are the close frame's; both None when there was none."""

    def __init__(self, code: int | None, reason: str | None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class NotOpened(Exception):
    """There is no connection. `status` is the HTTP status if the server refused the handshake, else None."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class BadFrame(Exception):
    """The server sent what is not one JSON object with a `t` in a text frame."""


async def dial(url: str) -> trio.abc.Stream:
    """Open TCP, and TLS for `wss:`. Raises OSError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "wss"
    stream = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
    if not secure:
        return stream
    return trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host, https_compatible=True)


class Wire:
    """An open connection. Made by `open_wire`."""

    def __init__(self, socket: WebSocketConnection, stream: trio.abc.Stream) -> None:
        self._socket = socket
        self._stream = stream

    async def send(self, message: Message) -> None:
        """Raises WireClosed."""
        try:
            await self._socket.send_message(orjson.dumps(message).decode())
        except ConnectionClosed as exc:
            raise _closed(exc) from None

    async def receive(self) -> Message:
        """The next message. Raises WireClosed, BadFrame."""
        try:
            raw = await self._socket.get_message()
        except ConnectionClosed as exc:
            raise _closed(exc) from None
        if not isinstance(raw, str):
            raise BadFrame("a binary frame")
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError as exc:
            raise BadFrame(f"not JSON: {raw[:80]!r}") from exc
        if not isinstance(message, dict) or not isinstance(message.get("t"), str):
            raise BadFrame(f"no message: {raw[:80]!r}")
        return message

    async def cut(self) -> None:
        """End the connection without a close frame, as when the network goes away."""
        await trio.aclose_forcefully(self._stream)

    async def close(self) -> None:
        """End the connection in good order, or without it when the server does not answer in time."""
        with trio.move_on_after(CLOSE_TIMEOUT_S):
            await self._socket.aclose()


@asynccontextmanager
async def open_wire(url: str, *, connect: Dial = dial, timeout_s: float = 10.0) -> AsyncGenerator[Wire]:
    """Open a connection, and close it in good order at the end of the block.

    Raises NotOpened, and WireClosed when the connection breaks in a way that the block cannot see.
    """
    error: Exception | None = None
    talking = True
    try:
        async with trio.open_nursery() as nursery:
            try:
                wire = await _opened(nursery, url, connect, timeout_s)
            except NotOpened as exc:
                error = exc
            else:
                try:
                    yield wire
                    talking = False
                    await wire.close()
                except Exception as exc:  # noqa: BLE001 - raised again below, outside of the nursery's group
                    error = exc
                finally:
                    await wire.cut()
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as group:
        rejected = group.exceptions[0]
        assert isinstance(rejected, ConnectionRejected)
        error = NotOpened(f"{url} answered with HTTP status {rejected.status_code}", rejected.status_code)
    except* LocalProtocolError:
        # The library answers a ping that comes after its own close frame, which its state forbids. Then the
        # connection is over in any case.
        if talking and error is None:
            error = WireClosed(None, None)
    if error is not None:
        raise error


async def _opened(nursery: trio.Nursery, url: str, connect: Dial, timeout_s: float) -> Wire:
    parts = urlsplit(url)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    stream: _WatchedStream | None = None
    try:
        with trio.move_on_after(timeout_s) as opening:
            stream = _WatchedStream(await connect(url), opening)
            socket = await wrap_client_stream(
                nursery,
                cast(Any, stream),  # the library's hint names two kinds of stream; it takes any
                parts.netloc,
                resource,
                subprotocols=[SUBPROTOCOL],
                max_message_size=MESSAGE_BYTES_MAX,
            )
            return Wire(socket, stream)
    except OSError as exc:
        raise NotOpened(f"{url} cannot be reached: {exc}") from exc
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise
    if stream is None:
        raise NotOpened(f"{url} did not answer within {timeout_s:g} s")
    await trio.aclose_forcefully(stream)
    raise NotOpened(f"{url} {stream.end or f'did not answer within {timeout_s:g} s'}")


def _closed(exc: ConnectionClosed) -> WireClosed:
    """1005 and 1006 are what a library makes up when there was no close frame, or none with a code."""
    given = exc.reason
    if given is None or given.code in (1005, 1006):
        return WireClosed(None, None)
    return WireClosed(given.code, given.reason)


class _WatchedStream(trio.abc.Stream):
    """Ends the wait for the handshake as soon as the stream itself is over."""

    def __init__(self, stream: trio.abc.Stream, opening: trio.CancelScope) -> None:
        self._stream = stream
        self._opening = opening
        self.end: str | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            self._over(f"broke off: {exc.__cause__ or exc}")
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as exc:
            self._over(f"broke off: {exc.__cause__ or exc}")
            raise
        if not data:
            self._over("closed the connection")
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _over(self, end: str) -> None:
        self.end = end
        self._opening.cancel()
