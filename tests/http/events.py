"""A client of event streams, as the standard describes one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import trio

from tests.http.edge import LOOPBACK, Edge
from tests.messages import check_streamed


@dataclass
class Event:
    kind: str
    id: str | None
    message: Mapping[str, Any]


class EventReader:
    """Bytes in, events out. Comments and waits are kept apart."""

    def __init__(self, receive: Callable[[], Awaitable[bytes]]) -> None:
        self._more = receive
        self._buffer = b""
        self.signs_of_life = 0
        self.retry_ms: list[int] = []

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        while True:
            while b"\n\n" in self._buffer:
                block, self._buffer = self._buffer.split(b"\n\n", 1)
                event = self._read(block.decode().split("\n"))
                if event is not None:
                    return event
            try:
                data = await self._more()
            except EOFError:
                data = b""
            if not data:
                assert self._buffer == b"", "the stream ends with a whole event"
                return None
            self._buffer += data

    def _read(self, lines: list[str]) -> Event | None:
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name in ("event", "id", "data", "retry"), line
            assert name not in fields, line
            fields[name] = value
        if "retry" in fields:
            self.retry_ms.append(int(fields.pop("retry")))
        if not fields:
            return None
        message = orjson.loads(fields["data"])
        assert message["t"] == fields["event"]
        if message["t"] != "live":  # of the operators' stream
            check_streamed(message)
        if message == {"t": "alive"}:
            self.signs_of_life += 1
            return None
        return Event(fields["event"], fields.get("id"), message)

    async def until(self, kind: str) -> Event:
        """The next event of a kind; others are passed over."""
        while True:
            event = await self.next()
            assert event is not None, f"the stream has ended without {kind}"
            if event.kind == kind:
                return event

    async def rest(self) -> list[Event]:
        """All events up to the end of the stream."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


class Stream(EventReader):
    """An open stream of the app, without a network. What is not read holds the app's next send up.

    (quart's own test client waits for ever for the end of a response whose client has gone.)
    """

    def __init__(self, e: Edge, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(self.chunk)
        self._app = e.app
        path, _, query = url.partition("?")
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost")]
            + [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": LOOPBACK,
            "extensions": {},
        }
        self._chunks_in, self._chunks_out = trio.open_memory_channel[bytes](0)
        self._gone = trio.Event()
        self.fail_at: str | None = None
        """A type of message at which the send raises, as on a broken connection."""

    async def run(self) -> None:
        """The request, to its end."""
        with self._chunks_in:
            await self._app(self._scope, self._receive, self._send)  # type: ignore[arg-type]

    async def chunk(self) -> bytes:
        """The next part of the body. Raises EOFError at its end."""
        try:
            return await self._chunks_out.receive()
        except trio.EndOfChannel:
            raise EOFError from None

    def hang_up(self) -> None:
        self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == self.fail_at:
            raise ConnectionResetError
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
        elif message["body"]:
            await self._chunks_in.send(message["body"])


@asynccontextmanager
async def stream(
    e: Edge, url: str, *, token: str | None = None, last_event_id: str | None = None
) -> AsyncIterator[Stream]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    opened = Stream(e, url, headers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.run)
        yield opened
        opened.hang_up()
