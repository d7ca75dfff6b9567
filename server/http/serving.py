"""hypercorn on a socket that is bound already, with an end to everything.

`hypercorn.trio.serve` would do for a friendly network. It is not used because one connection's error
cancels its nursery and with it every other connection, because nothing ends a send to a client that does not
read, not even a shutdown, and because it takes any number of connections. So the accept loop is trio's own
and each connection is hypercorn's, kept to HTTP/1 (http1.py), inside a crash boundary.
tests/http/test_serving.py holds all of this against the installed version.

Against slow clients: a TLS handshake must be done `HEAD_TIMEOUT_S` after the connection opened; the head of
a request must be complete as long after that or after the last response; its body, as large as its route
takes, `BODY_TIMEOUT_S` (app.py) after that; and every 64 KiB sent must be taken within `send_timeout_s`.
Against many of them: connections count for their address from their acceptance on. What hypercorn cannot do:
tell the wait for a first byte from the wait for the rest of a head.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

import trio

from engine.actors.close_reasons import CloseReason
from server.config.config import Config
from server.file_limit import room
from server.http.app import Api
from server.http.http1 import http1_settings, serve_http1
from server.http.served_request import request_id_in
from server.http.sockets import CROWDED, BoundedListener, BoundedStream
from server.http.throttle import FairThrottle
from server.runtime.request_ids import HEADER, ForRequest
from server.security.client_address import client_address
from server.security.limits import ArrivalRate, ConnectionCount
from server.wire.errors import ApiError, internal

HEAD_TIMEOUT_S = 10.0
GRACE_S = 2.0
"""What a request in progress is given at shutdown."""

BACKLOG = 1_024
SLICE_BYTES = 64 * 1024

log = logging.getLogger("fanfare.http")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message | None], Awaitable[None]]


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
    settings = http1_settings(config, log, HEAD_TIMEOUT_S)
    tls = settings.create_ssl_context()
    listener = BoundedListener(
        sock,
        send_timeout_s=config.send_timeout_s,
        connections_max=room(config.connections_max).http,
        count=ConnectionCount(config.http_connections_per_address_max, "http_connections_per_address_max"),
        arrivals=ArrivalRate(config.connections_per_address_per_s, config.http_connections_per_address_max),
        by_peer=config.proxy_hops == 0,
        tls=tls is not None,
        tally=app.tally,
    )
    throttle = FairThrottle()

    async def serve_connection(stream: BoundedStream) -> None:
        def admit(scope: Any) -> str | None:
            address = _address(scope, config.proxy_hops)
            return address if listener.take_place(stream, address) else None

        try:
            started = partial(listener.started, stream)
            application = _application(app, config.send_timeout_s, throttle, admit, started)
            await serve_http1(application, settings, tls, stream)
        except BaseExceptionGroup as group:
            cancelled, crashes = group.split(trio.Cancelled)
            if crashes is not None:
                _log_crash(crashes)
            if cancelled is not None:
                raise cancelled from None
        except Exception as crash:  # noqa: BLE001 - this is the crash boundary
            _log_crash(crash)
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
                app.streams.close_all(CloseReason.SHUTDOWN)
                listener.end_all()
                outer.start_soon(cut_off, connections.cancel_scope)
            except BaseException:
                # Cancelled without a shutdown: hypercorn's shielded sends would hold that up.
                listener.abort_all()
                raise
        outer.cancel_scope.cancel()


def _log_crash(crash: BaseException) -> None:
    """In one line: any client can bring this about as often as it likes."""
    log.warning("an HTTP connection was dropped: %r", _first(crash))
    log.debug("an HTTP connection was dropped", exc_info=crash)


def _first(crash: BaseException) -> BaseException:
    """Of a group the first mistake in it."""
    while isinstance(crash, BaseExceptionGroup):
        crash = crash.exceptions[0]
    return crash


def _application(
    app: Api,
    send_timeout_s: float,
    throttle: FairThrottle,
    admit: Callable[[Any], str | None],
    started: Callable[[], None],
) -> Any:
    """The app as hypercorn calls it for one connection: bodies go out in slices, so that a limit on the time
    of each send speaks of progress.

    Args:
        admit: counts the connection for the client of a request and tells the address; None when that has
            too many.
        started: called once some of a body has been sent.
    """

    async def application(scope: Any, receive: Receive, send: Send, *_: object) -> None:
        request_id = request_id_in(scope)
        with ForRequest(request_id):
            address = admit(scope)
        if address is None:
            await finish(receive, send, _refusal(CROWDED, request_id))
        elif not _readable(scope):
            error = ApiError("bad_message", "The Host is no host name.")
            await finish(receive, send, _refusal(error, request_id))
        else:
            await answer(scope, receive, send, address)

    async def answer(scope: Any, receive: Receive, send: Send, address: str) -> None:
        await throttle.go_through(address)
        end: list[Message] = []
        headed = False

        async def send_part(message: Message) -> None:
            nonlocal headed
            headed = True
            for part in _slices(message):
                if part["type"] == "http.response.body" and not part.get("more_body", False):
                    end.append(part)
                else:
                    await send(part)
                    if part["type"] == "http.response.body":
                        started()

        try:
            await app(scope, cast(Any, receive), cast(Any, send_part))
        except Exception as crash:  # noqa: BLE001 - this is a crash boundary
            first = _first(crash)
            with ForRequest(request_id_in(scope)):
                app.boundary.caught(first if isinstance(first, Exception) else crash, "an HTTP request")
            if headed:
                return  # hypercorn ends the connection
            end = [*_refusal(internal(), request_id_in(scope))]
        await finish(receive, send, end)
        started()

    async def finish(receive: Receive, send: Send, messages: Iterable[Message]) -> None:
        """Send the end of a response, from outside of the app.

        hypercorn answers it with a disconnect, on which quart-trio cancels the request, the send included:
        sent from there, hypercorn would neither close the connection nor start the timer that waits
        for the next request. Meanwhile somebody must take what the client still sends.
        """
        with trio.move_on_after(send_timeout_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_discard, receive)
                for message in messages:
                    await send(message)
                nursery.cancel_scope.cancel()

    return application


def _readable(scope: Any) -> bool:
    """Whether quart can read the host: it reads it before it has a crash boundary, and cannot read a host
    name that is none, such as `a..b`."""
    try:
        for name, value in scope["headers"]:
            if name == b"host":
                value.decode("latin-1").partition(":")[0].encode("idna")
    except UnicodeError:
        return False
    return True


async def _discard(receive: Receive) -> None:
    while True:
        await receive()


def _address(scope: Any, proxy_hops: int) -> str:
    """The address of the client of a request."""
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    client = scope.get("client")
    return client_address(client[0] if client else "", ",".join(forwarded) or None, proxy_hops)


def _refusal(error: ApiError, request_id: str) -> tuple[Message, Message]:
    headers = [(b"content-type", b"application/json"), (HEADER.lower().encode(), request_id.encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    return _whole(error.status, headers, error.body)


def _whole(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[Message, Message]:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    return (
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": False},
    )


def _slices(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= SLICE_BYTES:
        yield message
        return
    for start in range(0, len(body), SLICE_BYTES):
        last = start + SLICE_BYTES >= len(body)
        more = message.get("more_body", False) if last else True
        yield message | {"body": body[start : start + SLICE_BYTES], "more_body": more}
