"""One WebSocket that speaks `fanfare.v1`, on anyio's streams: the framing is wsproto's."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from fanfare_client.seat import Message

SUBPROTOCOL = "fanfare.v1"
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
CLOSE_S = 2.0

_BROKEN = (OSError, EOFError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class NotOpened(Exception):
    """There is no WebSocket. `status` is that of HTTP if the node refused it, else None."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class Closed(Exception):
    """The connection is over. `code` and `reason` are the close frame's; None without one."""

    def __init__(self, code: int | None = None, reason: str | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Socket:
    """An open connection. Made by `open_socket`."""

    def __init__(self, stream: ByteStream, protocol: WSConnection) -> None:
        self._stream = stream
        self._protocol = protocol
        self._events: deque[Event] = deque(protocol.events())
        self._sending = anyio.Lock()
        self._text = ""

    async def send(self, message: Message) -> None:
        """On a connection that is over it does nothing: `receive` says why, after all that came before the
        end."""
        await self._send(TextMessage(json.dumps(message, separators=(",", ":"))))

    async def _send(self, event: Event) -> None:
        async with self._sending:
            with suppress(*_BROKEN, ProtocolError):
                await self._stream.send(self._protocol.send(event))

    async def receive(self) -> Message:
        """The next message. Raises Closed; a server that says what is no message is closed with 1002.
        Nothing is lost when it is cancelled."""
        while True:
            while self._events:
                message = await self._take(self._events.popleft())
                if message is not None:
                    return message
            try:
                self._protocol.receive_data(await self._stream.receive())
                self._events.extend(self._protocol.events())
            except _BROKEN:
                raise Closed from None
            except ProtocolError:
                await self.close(1002)
                raise Closed from None

    async def _take(self, event: Event) -> Message | None:
        if isinstance(event, TextMessage):
            self._text += event.data
            if not event.message_finished and len(self._text) < MESSAGE_BYTES_MAX:
                return None
            text, self._text = self._text, ""
            try:
                message = json.loads(text)
            except ValueError:
                message = None
            if isinstance(message, dict) and isinstance(message.get("t"), str):
                return message
        elif isinstance(event, CloseConnection):
            with anyio.move_on_after(CLOSE_S):
                await self._send(event.response())
            code = None if event.code in (1005, 1006) else int(event.code)
            raise Closed(code, event.reason)
        elif isinstance(event, Ping):
            await self._send(event.response())
            return None
        elif not isinstance(event, BytesMessage):
            return None
        await self.close(1002)
        raise Closed

    async def close(self, code: int = 1000) -> None:
        """End it in good order as far as that goes at once."""
        with anyio.move_on_after(CLOSE_S, shield=True):
            await self._send(CloseConnection(code))
        await anyio.aclose_forcefully(self._stream)


async def open_socket(url: str) -> Socket:
    """Raises NotOpened."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    try:
        stream: ByteStream
        if secure:
            stream = await anyio.connect_tcp(
                host, parts.port or 443, tls=True, tls_standard_compatible=False, tls_hostname=host
            )
        else:
            stream = await anyio.connect_tcp(host, parts.port or 80)
    except OSError as exc:
        raise NotOpened(f"{url} cannot be reached: {exc}") from exc
    try:
        return await _shake_hands(
            stream, parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        )
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


async def _shake_hands(stream: ByteStream, host: str, target: str) -> Socket:
    protocol = WSConnection(ConnectionType.CLIENT)
    try:
        await stream.send(protocol.send(Request(host=host, target=target, subprotocols=[SUBPROTOCOL])))
        while True:
            protocol.receive_data(await stream.receive())
            for event in protocol.events():
                if isinstance(event, AcceptConnection):
                    return Socket(stream, protocol)
                if isinstance(event, RejectConnection):
                    raise NotOpened(f"HTTP status {event.status_code}", event.status_code)
    except (*_BROKEN, ProtocolError) as exc:
        raise NotOpened(f"no WebSocket: {exc or type(exc).__name__}") from exc
