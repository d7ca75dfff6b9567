"""The API on a real socket, and the clients that one would rather not have."""

from __future__ import annotations

import json
import logging
import socket as stdlib_socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypercorn.config import Config as HypercornConfig
from quart import request
from quart.wrappers.request import Body

from engine.actors.actor import SessionActor
from server.file_limit import Room
from server.http import app as app_module
from server.http import serving, sockets
from server.http.http1 import Http1Protocol
from server.http.playing import Playing
from server.http.serving import serve
from server.runtime.logs import OfRequest
from server.security.limits import ArrivalRate, ConnectionCount
from tests.http.edge import AUTHOR_KEY, QUIZ, Edge, Played, edge
from tests.http.events import EventReader
from tests.odd_requests import ODD

AUTHOR = {"Authorization": f"Bearer {AUTHOR_KEY}"}
POST = (
    b"POST /api/quizzes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer %b\r\n" % AUTHOR_KEY.encode()
)
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n"


class Node:
    """An edge that listens."""

    def __init__(self, e: Edge, port: int, shutdown: trio.Event) -> None:
        self.edge = e
        self.port = port
        self.shutdown = shutdown
        self.ended = trio.Event()
        self.stream_left = trio.Event()
        self._raw: list[trio.SocketStream] = []
        discard = e.app.streams.discard

        def noticed(stream: Any) -> None:
            discard(stream)
            self.stream_left.set()

        e.app.streams.discard = noticed  # type: ignore[method-assign]

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=5, trust_env=False)

    async def raw(self, sent: bytes = b"", receive_bytes: int | None = None) -> trio.SocketStream:
        """A connection by hand, on which `sent` was said."""
        sock = trio.socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, receive_bytes)
        stream = trio.SocketStream(sock)
        self._raw.append(stream)
        await sock.connect(("127.0.0.1", self.port))
        await stream.send_all(sent)
        return stream

    async def until_connections(self, count: int) -> None:
        while self.edge.app.tally.connections != count:
            await trio.testing.wait_all_tasks_blocked(0.01)

    def hang_up(self) -> None:
        """Close what `raw` has opened."""
        for stream in self._raw:
            stream.socket.close()

    async def follow(self, session: Played, **more: Any) -> trio.SocketStream:
        return await self.raw(HEAD % f"{session.url}/events".encode() + b"\r\n", **more)


@asynccontextmanager
async def node(**config: Any) -> AsyncIterator[Node]:
    sock = stdlib_socket.socket()
    sock.bind(("127.0.0.1", 0))
    async with edge(**config) as e, trio.open_nursery() as nursery:
        running = Node(e, sock.getsockname()[1], trio.Event())

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await serve(e.app, sock, e.config, running.shutdown, task_status=task_status)
            running.ended.set()

        with trio.fail_after(20):
            await nursery.start(run)
            try:
                yield running
                running.shutdown.set()
                await running.ended.wait()
            finally:
                running.hang_up()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            received += data
    return received


async def read_until(stream: trio.abc.ReceiveStream, what: bytes) -> bytes:
    received = b""
    while what not in received:
        data = await stream.receive_some()
        assert data, f"ended before {what!r}: {received!r}"
        received += data
    return received


async def test_a_quiz_over_a_real_socket() -> None:
    async with node() as n, n.http() as client:
        made = await client.post("/api/quizzes", json=QUIZ, headers=AUTHOR)
        assert made.status_code == 201
        body = {"quiz_id": made.json()["id"], "get_ready_ms": 0}
        opened = (await client.post("/api/sessions", json=body, headers=AUTHOR)).json()
        url = f"/api/sessions/{opened['code']}"
        joined = (await client.post(f"{url}/players", json={"name": "Ada"})).json()
        host = {"Authorization": f"Bearer {opened['host_token']}"}
        await client.post(f"{url}/host", json={"do": "start"}, headers=host)
        ack = await client.post(
            f"{url}/answers",
            json={"id": "a", "question": 1, "choice": 0},
            headers={"Authorization": f"Bearer {joined['token']}"},
        )
        assert ack.json()["status"] == "accepted"
        assert "server" not in ack.headers
        assert (await client.get("/nothing")).json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "path", ["//metrics", "/%2fmetrics", "//api/quizzes", "///api/quizzes", "//host", "//"]
)
async def test_a_path_with_more_slashes_in_front_is_another_path(path: str) -> None:
    async with node() as running:
        stream = await running.raw(HEAD % path.encode() + b"Connection: close\r\n\r\n")
        reply = b"".join([data async for data in stream])
        assert reply.startswith(b"HTTP/1.1 404 ")
        assert b'"not_found"' in reply
        assert list(running.edge.app.tally.requests.statistics()) == [("unmatched", "4xx")]


async def test_a_stream_from_end_to_end() -> None:
    async with node() as n, n.http() as client:
        session = await n.edge.session()
        async with client.stream("GET", f"{session.url}/events") as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["cache-control"] == "no-store"
            chunks = response.aiter_bytes()

            async def more() -> bytes:
                return await anext(chunks, b"")

            reader = EventReader(more)
            assert (await reader.until("joined")).id == "1:0"
            await session.do("start")
            assert (await reader.until("question")).id == "1:1"
            n.shutdown.set()
            last = (await reader.rest())[-1]
            assert last.message == {"t": "close", "code": 4010, "reason": "shutdown", "reconnect": "later"}


async def test_shutdown_does_not_wait_for_streams_or_idle_connections() -> None:
    async with node() as n:
        session = await n.edge.session()
        streams = [await n.follow(session) for _ in range(5)]
        for stream in streams:
            await read_until(stream, b"joined")
        idle = await n.raw()
        half = await n.raw(HEAD % b"/healthz")
        began = time.perf_counter()
        n.shutdown.set()
        await n.ended.wait()
        assert time.perf_counter() - began < 1
        for stream in streams:
            assert b'"reason":"shutdown"' in await read_to_end(stream)
        assert await read_to_end(idle) == b""
        assert await read_to_end(half) == b""
        with pytest.raises(OSError, match="refused"):
            await n.raw()


async def flood(session: Played, actor: SessionActor, until: Callable[[], bool]) -> int:
    """Broadcast until it is so. Returns how many broadcasts that took."""
    for turn in range(20_000):
        if until():
            return turn
        await session.do("lock", on=turn % 2 == 0)
    raise AssertionError("still not so")


async def test_a_client_that_never_reads_is_cut_off_and_the_others_go_on() -> None:
    async with node(send_timeout_s=0.5, outbox_bytes_max=4096) as n, n.http() as client:
        session = await n.edge.session()
        actor = await session.actor()
        await n.follow(session, receive_bytes=2048)
        async with client.stream("GET", f"{session.url}/events") as response, trio.open_nursery() as nursery:
            seen = 0

            async def count() -> None:
                nonlocal seen
                async for data in response.aiter_bytes():
                    seen += data.count(b"event: state")

            nursery.start_soon(count)
            while actor.subscribers < 2:
                await client.get("/healthz")
            sent = await flood(session, actor, until=lambda: actor.subscribers == 1)
            await n.stream_left.wait()
            assert len(n.edge.app.streams) == 1
            while seen < sent:
                await client.get("/healthz")
            nursery.cancel_scope.cancel()


async def test_shutdown_does_not_wait_for_a_client_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GRACE_S", 0.3)
    async with node(send_timeout_s=600, outbox_bytes_max=4096) as n, n.http() as client:
        session = await n.edge.session()
        actor = await session.actor()
        await n.follow(session, receive_bytes=2048)
        while actor.subscribers < 1:
            await client.get("/healthz")
        await flood(session, actor, until=lambda: actor.subscribers == 0)
        began = time.perf_counter()
        n.shutdown.set()
        await n.ended.wait()
        assert time.perf_counter() - began < 1.5


async def test_being_cancelled_does_not_wait_for_a_client_that_never_reads() -> None:
    sock = stdlib_socket.socket()
    sock.bind(("127.0.0.1", 0))
    async with edge(send_timeout_s=600, outbox_bytes_max=4096) as e:
        n = Node(e, sock.getsockname()[1], trio.Event())
        session = await e.session()
        actor = await session.actor()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery, n.http() as client:
                await nursery.start(partial(serve, e.app, sock, e.config, n.shutdown))
                await n.follow(session, receive_bytes=2048)
                while actor.subscribers < 1:
                    await client.get("/healthz")
                await flood(session, actor, until=lambda: actor.subscribers == 0)
                nursery.cancel_scope.cancel()
        n.hang_up()


@pytest.mark.parametrize("abruptly", [False, True])
async def test_a_client_that_goes_away_is_detached(abruptly: bool) -> None:
    async with node() as n:
        session = await n.edge.session()
        actor = await session.actor()
        client = await n.follow(session)
        await read_until(client, b"joined")
        assert actor.subscribers == 1
        if abruptly:
            client.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await client.aclose()
        await n.stream_left.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert actor.subscribers == 0


async def test_a_head_that_trickles_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_TIMEOUT_S", 0.2)
    async with node() as n:
        silent = await n.raw()
        slow = await n.raw(HEAD % b"/healthz")
        assert await read_to_end(silent) == b""
        assert await read_to_end(slow) == b""
        reused = await n.raw(HEAD % b"/healthz" + b"\r\n")
        await read_until(reused, b"alive")
        await reused.send_all(HEAD % b"/healthz")
        assert await read_to_end(reused) == b""


async def test_a_body_that_trickles_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "BODY_TIMEOUT_S", 0.2)
    async with node() as n:
        slow = await n.raw(POST + b"Content-Length: 100\r\n\r\n{")
        answer = await read_to_end(slow)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer


async def test_a_body_that_is_refused_early_holds_nothing_up() -> None:
    async with node(body_bytes_max=2048) as n:
        length = 8_000_000
        long = await n.raw(POST + b"Content-Length: %d\r\n\r\n" % length)
        answers: list[bytes] = []

        async def listen() -> None:
            answers.append(await read_to_end(long))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await long.send_all(b" " * length)
        assert answers[0] == b"" or answers[0].startswith(b"HTTP/1.1 413")
        began = time.perf_counter()
        n.shutdown.set()
        await n.ended.wait()
        assert time.perf_counter() - began < 1


async def test_a_client_that_asks_first_whether_to_send() -> None:
    async with node() as n:
        asking = await n.raw(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        await read_until(asking, b"HTTP/1.1 100")
        await asking.send_all(b"{}")
        assert b"missing_field" in await read_to_end(asking)


async def test_tls_in_this_process(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    context = ssl.create_default_context(cafile=str(chain))
    async with node(tls_cert=chain, tls_key=key) as n:
        session = await n.edge.session()
        url = f"https://localhost:{n.port}"
        plain = await n.raw(HEAD % b"/healthz" + b"\r\n")
        assert b"alive" not in await read_to_end(plain)
        async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False) as client:
            assert (await client.get("/healthz")).json()["status"] == "alive"
            async with client.stream("GET", f"{session.url}/events") as response:
                n.shutdown.set()
                assert b'"reason":"shutdown"' in await response.aread()


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n\x00\x01\x02",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ? HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //evil.example/.. HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\nOrigin: \xff\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0...1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 64 + b":80\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: .\r\nConnection: close\r\n\r\n",
        b"GET /?%ff=%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /api/sessions/%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST /api/quizzes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: !\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        WEBSOCKET + b"\r\n\x81\x82abcd\x9e\x9e",
        WEBSOCKET + b"\r\n" + b"\xff" * 100,
        WEBSOCKET + b"Sec-WebSocket-Extensions: permessage-deflate; a=\xff\r\n\r\n",
        WEBSOCKET + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
        WEBSOCKET + b"Origin: http://[\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xed\xa0\x80\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2,
    ],
)
@pytest.mark.parametrize("leave", ["in good order", "with a reset"])
async def test_no_request_however_broken_harms_the_others(
    head: bytes, leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(send_timeout_s=0.3) as n:
        session = await n.edge.session()
        follower = await n.follow(session)
        await read_until(follower, b"joined")
        broken = await n.raw(head)
        if leave == "with a reset":
            broken.socket.setsockopt(
                stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            broken.socket.close()
        else:
            await broken.send_eof()
            answer = await read_to_end(broken)
            assert b"Traceback" not in answer
            assert not answer.startswith(b"HTTP/1.1 3")
            assert not answer.startswith(b"HTTP/1.1 101")
        await n.until_connections(1)
        await session.do("start")
        await read_until(follower, b"event: question")
    assert not [record for record in caplog.records if record.exc_info and record.levelno > logging.DEBUG]


async def test_a_mistake_outside_of_every_view_is_logged_and_counted_and_its_traceback_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a mistake")

    caplog.handler.addFilter(OfRequest())
    async with node() as n:
        with monkeypatch.context() as patch:
            patch.setattr(app_module.Api, "create_url_adapter", broken)
            for number in range(3):
                head = HEAD % b"/healthz" + b"X-Request-Id: r-%d\r\n" % number
                stream = await n.raw(head + b"Connection: close\r\n\r\n")
                answer = await read_to_end(stream)
                assert answer.startswith(b"HTTP/1.1 500")
                assert b"x-request-id: r-%d\r\n" % number in answer
                assert b'"code":"internal"' in answer
        stream = await n.raw(HEAD % b"/healthz" + b"Connection: close\r\n\r\n")
        assert b"alive" in await read_to_end(stream)
        assert n.edge.app.boundary.mistakes_total == 3
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [bool(record.exc_info) for record in told] == [True, False, False]
    assert [vars(record)["request_id"] for record in told] == ["r-0", "r-1", "r-2"]


async def test_a_response_without_content_has_no_length() -> None:
    async with node() as n:
        asks = b"OPTIONS /healthz HTTP/1.1\r\nHost: localhost\r\nAccess-Control-Request-Method: GET\r\n\r\n"
        asking = await n.raw(asks + HEAD % b"/healthz" + b"\r\n")
        preflight, _, rest = (await read_until(asking, b"alive")).partition(b"\r\n\r\n")
        assert preflight.startswith(b"HTTP/1.1 204")
        assert b"content-length" not in preflight.lower()
        assert rest.startswith(b"HTTP/1.1 200")


async def test_a_client_keeps_its_connection_for_as_many_requests_as_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HypercornConfig, "keep_alive_max_requests", 2)
    async with node() as n:
        asking = await n.raw()
        for _ in range(5):
            await asking.send_all(HEAD % b"/healthz" + b"\r\n")
            assert b"connection: close" not in (await read_until(asking, b"alive")).lower()


async def test_a_websocket_is_not_spoken_and_what_follows_its_handshake_is_the_next_request() -> None:
    async with node() as n:
        asking = await n.raw(WEBSOCKET + b"\r\n" + HEAD % b"/healthz" + b"\r\n")
        answers = await read_until(asking, b"alive")
        assert answers.startswith(b"HTTP/1.1 404")
        assert answers.count(b"HTTP/1.1 200") == 1


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How HTTP/2 begins where both sides know of it: 33 bytes."""


async def test_http2_is_not_spoken() -> None:
    async with node() as n:
        assert (await read_to_end(await n.raw(PREFACE))).startswith(b"HTTP/1.1 505")
        asking = await n.raw(
            HEAD % b"/healthz"
            + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: \r\n\r\n"
        )
        assert (await read_until(asking, b"alive")).startswith(b"HTTP/1.1 200")
        await asking.aclose()
        await n.until_connections(0)


async def test_a_mistake_in_a_connection_harms_that_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_stream = Http1Protocol._create_stream

    async def mistaken(self: Http1Protocol, request: Any) -> None:
        if request.target == b"/mistake":
            raise KeyError("mistake")
        await create_stream(self, request)

    monkeypatch.setattr(Http1Protocol, "_create_stream", mistaken)
    async with node() as n:
        session = await n.edge.session()
        follower = await n.follow(session)
        await read_until(follower, b"joined")
        with caplog.at_level(logging.WARNING, logger="fanfare.http"):
            await read_to_end(await n.raw(HEAD % b"/mistake" + b"\r\n"))
            await n.until_connections(1)
        assert "an HTTP connection was dropped: KeyError" in caplog.text
        await session.do("start")
        await read_until(follower, b"event: question")


# -- many from one address -----------------------------------------------------------------------------


async def test_the_silent_count_for_their_address() -> None:
    async with node(http_connections_per_address_max=2) as n, n.http() as client:
        silent = [await n.raw() for _ in range(2)]
        await n.until_connections(2)
        refused = await read_to_end(await n.raw(HEAD % b"/healthz" + b"\r\n"))
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"Retry-After: 10" in refused
        assert b"too_many_connections" in refused
        assert n.edge.app.tally.refused == {"too_many_connections": 1}
        await silent[0].aclose()
        await n.until_connections(1)
        metrics = (await client.get("/metrics")).text
        assert 'fanfare_http_connections_refused_total{reason="too_many_connections"} 1.0' in metrics
        assert "fanfare_http_connections 2.0" in metrics


async def test_an_address_that_reconnects_again_and_again_is_slowed_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "TOLD_AT_ONCE_MAX", 1)
    async with node(http_connections_per_address_max=3, connections_per_address_per_s=0.1) as n:
        for _ in range(3):
            await read_to_end(await n.raw(HEAD % b"/healthz" + b"Connection: close\r\n\r\n"))
            await n.until_connections(0)
        assert (await read_to_end(await n.raw())).startswith(b"HTTP/1.1 429")
        assert await read_to_end(await n.raw()) == b""
        assert n.edge.app.tally.refused == {"too_many_connections": 2}


def bounded(sock: stdlib_socket.socket) -> sockets.BoundedListener:
    sock.setblocking(False)
    return sockets.BoundedListener(
        sock,
        send_timeout_s=1,
        connections_max=100,
        count=ConnectionCount(20),
        arrivals=ArrivalRate(1000, 1000),
        by_peer=True,
        tls=False,
        tally=sockets.HttpTally(),
    )


async def test_a_few_connections_start_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as sock:
        listener = bounded(sock)
        knocking = [
            stdlib_socket.create_connection(sock.getsockname()) for _ in range(sockets.STARTING_MAX + 2)
        ]
        first, second, *_ = [await listener.accept() for _ in range(sockets.STARTING_MAX)]
        assert trio.current_time() == 0
        listener.started(second)
        listener.started(second)
        await listener.accept()
        assert trio.current_time() == 0
        await listener.accept()
        assert trio.current_time() == pytest.approx(sockets.STARTING_MAX_S)
        listener.started(first)  # too late to make room
        for each in knocking:
            each.close()
        listener.abort_all()
        await listener.aclose()


async def test_nobody_waits_behind_the_crowd_of_another() -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as sock:
        listener = bounded(sock)
        knocking = [
            stdlib_socket.create_connection(sock.getsockname(), source_address=(f"127.0.0.{each}", 0))
            for each in [2] * 30 + [1]
        ]
        served = [str((await listener.accept()).address) for _ in range(21)]
        assert served.index("127.0.0.1") <= 1
        assert served.count("127.0.0.2") == 20
        with trio.move_on_after(0.1):
            await listener.accept()
            pytest.fail("one more than its address may have")
        for each in knocking:
            each.close()
        listener.abort_all()
        await listener.aclose()


async def test_the_silent_count_before_their_tls_handshake(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_TIMEOUT_S", 0.3)
    chain, key = certificate
    async with node(tls_cert=chain, tls_key=key, http_connections_per_address_max=1) as n:
        silent = await n.raw()
        await n.until_connections(1)
        assert await read_to_end(await n.raw(b"\x16\x03\x01")) == b""
        assert n.edge.app.tally.refused == {"too_many_connections": 1}
        assert await read_to_end(silent) == b""
        await n.until_connections(0)


async def test_a_proxy_s_connection_counts_for_whom_it_speaks(caplog: pytest.LogCaptureFixture) -> None:
    def ask(client: str) -> bytes:
        return HEAD % b"/healthz" + f"X-Forwarded-For: {client}\r\nX-Request-Id: of-{client}\r\n\r\n".encode()

    caplog.handler.addFilter(OfRequest())

    async with node(proxy_hops=1, http_connections_per_address_max=1) as n:
        pooled, other = await n.raw(ask("203.0.113.1")), await n.raw()
        await read_until(pooled, b"alive")
        await pooled.send_all(ask("203.0.113.2"))
        await read_until(pooled, b"alive")
        await other.send_all(ask("203.0.113.1"))
        await read_until(other, b"alive")
        await other.send_all(ask("203.0.113.2"))
        refused = await read_until(other, b"}}")
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"too_many_connections" in refused
        assert b"x-request-id: of-203.0.113.2\r\n" in refused
    [told] = [record for record in caplog.records if "more are refused" in record.getMessage()]
    assert vars(told)["request_id"] == "of-203.0.113.2"


async def test_streams_have_a_lower_limit_of_their_own() -> None:
    async with node(event_streams_per_address_max=1) as n:
        session = await n.edge.session()
        first = await n.follow(session)
        await read_until(first, b"joined")
        second = await n.follow(session)
        assert b"too_many_connections" in await read_until(second, b"}}")
        await first.aclose()
        await n.stream_left.wait()
        await trio.testing.wait_all_tasks_blocked()
        await second.send_all(HEAD % f"{session.url}/events".encode() + b"\r\n")
        await read_until(second, b"joined")


# -- bodies --------------------------------------------------------------------------------------------


POST_TO = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def test_a_body_longer_than_its_route_takes_is_not_waited_for() -> None:
    async with node() as n:
        session = await n.edge.session()
        url = f"{session.url}/players".encode()
        declared = await n.raw(POST_TO % url + b"X-Request-Id: mine\r\nContent-Length: 4097\r\n\r\n")
        answer = await read_to_end(declared)
        assert b"x-request-id: mine\r\n" in answer
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"too_large" in answer
        chunked = await n.raw(POST_TO % url + b"Transfer-Encoding: chunked\r\n\r\n")
        await chunked.send_all(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert n.edge.app.tally.connections >= 1
        await chunked.send_all(b"1\r\n \r\n")
        assert (await read_to_end(chunked)).startswith(b"HTTP/1.1 413")
        quiz = await n.raw(POST + b"Content-Length: 4097\r\nConnection: close\r\n\r\n" + b" " * 4097)
        assert b"bad_json" in await read_to_end(quiz)


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"transfer-encoding: Chunked\r\ncontent-length: 0\r\n",
    ],
)
async def test_a_body_with_two_lengths_is_refused_and_nothing_after_it_is_read(lengths: bytes) -> None:
    async with node() as n:
        session = await n.edge.session()
        smuggled = HEAD % session.url.encode() + b"\r\n"
        for head in (POST_TO % f"{session.url}/players".encode(), HEAD % session.url.encode()):
            asking = await n.raw(head + lengths + b"\r\n0\r\n\r\n" + smuggled)
            answer = await read_to_end(asking)
            assert answer.startswith(b"HTTP/1.1 400")
            assert b"connection: close" in answer.lower()
            assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_request_is_told_what_is_wrong(odd: str) -> None:
    sent, status, code = ODD[odd]
    async with node() as n:
        answer = await read_to_end(await n.raw(sent))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head.lower()
        assert head.lower().count(b"\r\nx-request-id: ") == 1
        assert json.loads(body)["error"]["code"] == code


async def test_an_odd_head_request_is_refused_without_a_body(caplog: pytest.LogCaptureFixture) -> None:
    async with node() as n:
        twice = HEAD % b"/healthz" + b"Authorization: Bearer a\r\nAuthorization: Bearer a\r\n\r\n"
        answer = await read_to_end(await n.raw(twice.replace(b"GET", b"HEAD")))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\n")
        good = await n.raw((HEAD % b"/healthz" + b"\r\n").replace(b"GET", b"HEAD") + b"hello\r\n\r\n")
        assert (await read_to_end(good)).endswith(b"}}"), "what is no request is no HEAD"
    assert not caplog.records


async def test_what_is_kept_of_a_body_is_bounded_by_its_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody reads it: a request that waits for something else."""
    waiting, go_on = trio.Event(), trio.Event()
    kept: list[Body] = []

    async def slow(self: Playing, key: str) -> Any:
        kept.append(request.body)
        waiting.set()
        await go_on.wait()
        return await self.join(key)

    monkeypatch.setattr(Playing, "players", slow)
    async with node() as n:
        asking = await n.raw(HEAD % b"/api/sessions/123456/players" + b"Transfer-Encoding: chunked\r\n\r\n")
        await waiting.wait()
        with trio.move_on_after(5):
            for _ in range(64):
                await asking.send_all(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
                await trio.testing.wait_all_tasks_blocked(0.001)
        (body,) = kept
        assert len(body._data) <= 4096 + 16_384
        go_on.set()


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "room", lambda connections_max: Room(connections_max, 2))
    async with node() as n:
        first, second = [await n.raw(HEAD % b"/healthz" + b"\r\n") for _ in range(2)]
        for stream in (first, second):
            await read_until(stream, b"alive")
        assert (await read_to_end(await n.raw())).startswith(b"HTTP/1.1 503")
        assert n.edge.app.tally.refused == {"busy": 1}
        await first.aclose()
        freed = b""
        while b"alive" not in freed:
            freed = await read_to_end(await n.raw(HEAD % b"/healthz" + b"Connection: close\r\n\r\n"))
        await second.send_all(HEAD % b"/healthz" + b"\r\n")
        await read_until(second, b"alive")


async def test_a_long_answer_goes_out_in_slices() -> None:
    async with node() as n, n.http() as client:

        async def long() -> Any:
            from server.http.responses import body_answer

            return body_answer(b"x" * 1_000_000, "text/plain")

        n.edge.app.add_url_rule("/long", "long", long)
        assert len((await client.get("/long")).content) == 1_000_000


def test_slices_keep_the_bytes_and_the_end() -> None:
    body = bytes(range(256)) * 1024
    for more in (True, False):
        message = {"type": "http.response.body", "body": body, "more_body": more}
        parts = list(serving._slices(message))
        assert b"".join(part["body"] for part in parts) == body
        assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [more]
        assert max(len(part["body"]) for part in parts) <= serving.SLICE_BYTES
    end = {"type": "http.response.body", "body": b"", "more_body": False}
    assert list(serving._slices(end)) == [end]


async def test_two_tasks_that_send_on_one_connection_take_turns() -> None:
    """As when a broken request is turned down while the one before it is still being answered."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    client = await trio.open_tcp_stream(*listener.socket.getsockname())
    accepted = sockets.BoundedStream(await listener.accept(), send_timeout_s=30)
    size = 8 << 20  # more than the kernel takes unless somebody reads
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepted.send_all, b"a" * size)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(accepted.send_all, b"b")
        await trio.testing.wait_all_tasks_blocked()
        while len(received) <= size:
            received += await client.receive_some()
        nursery.start_soon(accepted.send_all, b"c" * size)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await accepted.send_eof()
        nursery.cancel_scope.cancel()
    assert received[: size + 1] == b"a" * size + b"b"
    for each in (client, accepted, listener):
        await each.aclose()


async def test_a_reply_that_comes_while_its_connection_is_ended_is_sent_or_finds_it_closed() -> None:
    """And is never told that another task is sending, which nobody expects. trio takes tasks in any order."""
    for _ in range(20):
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        accepted = sockets.BoundedStream(await listener.accept(), send_timeout_s=30)

        async def end(stream: sockets.BoundedStream = accepted) -> None:
            with suppress(trio.BusyResourceError):
                await stream.send_eof()

        async def reply(stream: sockets.BoundedStream = accepted) -> None:
            with suppress(trio.ClosedResourceError):
                await stream.send_all(b"a reply")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            nursery.start_soon(reply)
        for each in (client, accepted, listener):
            await each.aclose()
