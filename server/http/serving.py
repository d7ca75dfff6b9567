"""hypercorn on a socket that is bound already, with an end to everything.

`hypercorn.trio.serve` would do for a friendly network. It is not used because one connection's error
(an HTTP/2 frame for a stream that is gone is enough) cancels its nursery and with it every other
connection, because nothing ends a send to a client that does not read, not even a shutdown, and because it
takes any number of connections. So the accept loop is trio's own and each connection is hypercorn's TCPServer
inside a crash boundary. tests/http/test_serving.py holds all of this against the installed version.

Against slow clients: the head of a request must be complete `HEAD_TIMEOUT_S` after the connection opened or
the last response ended, its body `BODY_TIMEOUT_S` (app.py) after that, and every 64 KiB sent must be taken
within `send_timeout_s`. What hypercorn cannot do: tell the wait for a first byte from the wait for the rest
of a head, bound connections per address, answer a malformed head with anything but an empty body, or
refuse HTTP/2 without TLS (it is let in, and bounded like the rest). That belongs to the load balancer.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from engine.actors.endings import Ending
from server.config import Config
from server.http.app import Api
from server.http.sockets import BoundedListener, BoundedStream

HEAD_TIMEOUT_S = 10.0
GRACE_S = 2.0
"""What a request in progress is given at shutdown."""

CONNECTIONS_MAX = 4_000
BACKLOG = 1_024
SLICE_BYTES = 64 * 1024

log = logging.getLogger("fanfare.http")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message | None], Awaitable[None]]


class SendTimedOut(Exception):
    """A client took nothing for `send_timeout_s`."""


async def serve(
    app: Api,
    sock: stdlib_socket.socket,
    config: Config,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until `shutdown` is set, then end within about `GRACE_S`.

    Event streams are closed with `shutdown` at once and so hold nothing up. Takes over `sock`, which is
    bound; it listens once this has started.
    """
    sock.setblocking(False)
    sock.listen(BACKLOG)
    listener = BoundedListener(
        trio.SocketListener(trio.socket.from_stdlib_socket(sock)),
        send_timeout_s=config.send_timeout_s,
        connections_max=CONNECTIONS_MAX,
    )
    hypercorn_config = _hypercorn_config(config)
    tls = hypercorn_config.create_ssl_context()
    context = WorkerContext(None)
    application = _bounded_sends(app, config.send_timeout_s)

    async def serve_connection(stream: BoundedStream) -> None:
        try:
            transport: object = stream
            if tls is not None:
                transport = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            await TCPServer(application, hypercorn_config, context, ConnectionState({}), cast(Any, transport))
        except BaseExceptionGroup as group:
            cancelled, crashes = group.split(trio.Cancelled)
            if crashes is not None:
                log.exception("An HTTP connection has crashed", exc_info=crashes)
            if cancelled is not None:
                raise cancelled from None
        except Exception:
            log.exception("An HTTP connection has crashed")
        finally:
            listener.release(stream)

    async def cut_off(connections: trio.CancelScope) -> None:
        await trio.sleep(GRACE_S)
        connections.cancel()
        listener.abort_all()

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    await accepting.start(
                        partial(
                            trio.serve_listeners, serve_connection, [listener], handler_nursery=connections
                        )
                    )
                    task_status.started()
                    await shutdown.wait()
                    accepting.cancel_scope.cancel()
                app.streams.close_all(Ending.SHUTDOWN)
                await context.terminated.set()
                outer.start_soon(cut_off, connections.cancel_scope)
            except BaseException:
                # Cancelled without a shutdown: hypercorn's shielded sends would hold that up.
                listener.abort_all()
                raise
        outer.cancel_scope.cancel()


def _hypercorn_config(config: Config) -> HypercornConfig:
    made = HypercornConfig()
    made.accesslog = None
    made.errorlog = log
    made.include_server_header = False
    made.keep_alive_timeout = HEAD_TIMEOUT_S
    made.ssl_handshake_timeout = HEAD_TIMEOUT_S
    made.alpn_protocols = ["http/1.1"]
    if config.tls_cert is not None and config.tls_key is not None:
        made.certfile = str(config.tls_cert)
        made.keyfile = str(config.tls_key)
    return made


def _bounded_sends(app: Api, send_timeout_s: float) -> Any:
    """The app as hypercorn calls it: no WebSockets, bodies in slices, and a limit on each send.

    The limit is that of BoundedStream again, for HTTP/2, where a client can hold a send up by its flow
    control window without touching the socket.
    """

    async def application(scope: Any, receive: Receive, send: Send, *_: object) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return

        async def send_within_limit(message: Message) -> None:
            for part in _slices(message):
                with trio.move_on_after(send_timeout_s) as limit:
                    await send(part)
                if limit.cancelled_caught:
                    raise SendTimedOut

        try:
            await app(scope, cast(Any, receive), cast(Any, send_within_limit))
        except* SendTimedOut:
            pass

    return application


def _slices(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= SLICE_BYTES:
        yield message
        return
    for start in range(0, len(body), SLICE_BYTES):
        last = start + SLICE_BYTES >= len(body)
        more = message.get("more_body", False) if last else True
        yield message | {"body": body[start : start + SLICE_BYTES], "more_body": more}
