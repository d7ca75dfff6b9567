"""hypercorn's connection, kept to HTTP/1.

hypercorn switches to HTTP/2 whenever a client without TLS sends the preface or asks for h2c, and has no
option against it. Nothing here needs HTTP/2: browsers speak it over TLS alone, where it is not offered, and
load balancers speak HTTP/1 to their backends. It would bring a second set of states, each of which needs a
limit: connections without streams, which live for ever, windows that the client does not grant, streams
without end.
"""

from __future__ import annotations

import logging
import ssl
import sys
from http import HTTPStatus
from typing import Any, cast

import h11
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from server.config.config import Config
from server.http.sockets import BoundedStream
from server.runtime.request_ids import HEADER, request_id_of
from server.wire.heads import body_of, trouble_in_head

APP_QUEUE_MAX = 2
"""Pieces of a body that hypercorn holds for the app, each of up to RECEIVE_BYTES."""


def http1_settings(config: Config, log: logging.Logger, head_timeout_s: float) -> HypercornConfig:
    """What all connections of a port share.

    Args:
        log: for what goes wrong.
        head_timeout_s: for a TLS handshake, for the head of a request, and for the next request.
    """
    made = HypercornConfig()
    made.accesslog = None
    made.errorlog = log
    made.include_server_header = False
    made.keep_alive_timeout = head_timeout_s
    made.ssl_handshake_timeout = head_timeout_s
    made.alpn_protocols = ["http/1.1"]
    made.max_app_queue_size = APP_QUEUE_MAX
    made.keep_alive_max_requests = sys.maxsize  # a client that answers over HTTP keeps its connection
    if config.tls_cert is not None and config.tls_key is not None:
        made.certfile = str(config.tls_cert)
        made.keyfile = str(config.tls_key)
    return made


async def serve_http1(
    application: Any, settings: HypercornConfig, tls: ssl.SSLContext | None, stream: BoundedStream
) -> None:
    """Serve one connection to its end. What goes wrong inside of hypercorn passes through; the caller closes
    the stream."""
    transport: object = stream
    if tls is not None:
        transport = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    context = WorkerContext(None)
    context.terminated = _AsyncEvent(stream.over)
    await _Http1Server(application, settings, context, ConnectionState({}), cast(Any, transport)).run()


class Unanswerable(Exception):
    """A request that is answered with this status alone, and the connection is closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class Http1Protocol(H11Protocol):
    """Answers in HTTP/1, whatever else the client offers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head_only = False
        """Whether the request that is read is answered without a body."""
        self._sent_id: str | None = None
        """What it calls itself."""
        self.reading = trio.CancelScope()
        """The scope of the task that reads from the client. It is cancelled once the client is gone.

        The task waits with the next request until the last one is answered. hypercorn does not tell it that
        the client has gone meanwhile, and would keep the connection for ever.
        """

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except Unanswerable as error:
            await self._send_error_response(error.status)
            await self.send(Closed())
        if isinstance(event, Closed):
            self.reading.cancel()

    async def _check_protocol(self, event: h11.Request) -> None:
        """Where hypercorn would go over to HTTP/2."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in event.headers:
            headers.setdefault(name, []).append(value)
        self._head_only = event.method == b"HEAD"
        self._sent_id = b",".join(headers.get(HEADER.lower().encode(), [])).decode("latin-1")
        trouble = trouble_in_head(event.http_version.decode(), event.target, headers)
        if trouble is not None:
            raise Unanswerable(trouble)

    async def _send_error_response(self, status_code: int) -> None:
        """As hypercorn's, which has no body."""
        body = body_of(status_code)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (HEADER.encode(), request_id_of(self._sent_id).encode()),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        if self.connection.their_state is h11.ERROR or not self._head_only:  # what is no request is no HEAD
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _create_stream(self, request: h11.Request) -> None:
        """Where hypercorn would go over to a WebSocket. On this port there are none, and a wish for another
        protocol may be passed over: the address answers as to any other request."""
        headers = request.headers.raw_items()
        kept = [(name, value) for name, value in headers if name.lower() != b"upgrade"]
        if len(kept) < len(headers):
            request = h11.Request(
                method=request.method, target=request.target, headers=kept, http_version=request.http_version
            )
        await super()._create_stream(request)


class _Http1Server(TCPServer):
    """One connection."""

    async def run(self) -> None:
        """As hypercorn's, with the one protocol."""
        transport: Any = self.stream
        tls = isinstance(transport, trio.SSLStream)
        if tls:
            try:
                with trio.fail_after(self.config.ssl_handshake_timeout):
                    await transport.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                return
        socket = (transport.transport_stream if tls else transport).socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as task_group:
                self._task_group = task_group
                protocol = Http1Protocol(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState(self.state),
                    tls,
                    client,
                    server,
                    self.protocol_send,
                )
                self.protocol = cast(Any, protocol)
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                with protocol.reading:
                    await self._read_data()
                await protocol.handle(Closed())
        except OSError:
            pass  # the client has gone
        finally:
            await self._close()


class _AsyncEvent:
    """A trio event as hypercorn wants them.

    One for each connection, where hypercorn has one for all: set at the end of the client's bytes, it ends
    the wait for a next request, which else keeps the socket of a client that has gone for as long as that may
    take.
    """

    def __init__(self, event: trio.Event) -> None:
        self._event = event

    async def wait(self) -> None:
        await self._event.wait()

    async def set(self) -> None:
        self._event.set()

    async def clear(self) -> None:
        self._event = trio.Event()

    def is_set(self) -> bool:
        return self._event.is_set()
