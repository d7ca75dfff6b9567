"""hypercorn's connection, kept to HTTP/1.

hypercorn goes over to HTTP/2 whenever a client of a connection without TLS says the preface or asks for h2c,
and cannot be told not to. Nothing here needs it: browsers speak it over TLS alone, where it is not offered,
and load balancers speak HTTP/1 to what is behind them. What it would bring is a second set of states, each of
which needs a limit: a connection without streams, which lives for ever, windows that the client does not
grant, streams without end.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

import h11
import trio
from hypercorn.events import Closed, Event
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr


class OtherVersion(Exception):
    """A request of another version of HTTP."""


class Http1Protocol(H11Protocol):
    """Answers what is asked in HTTP/1 in HTTP/1, whatever else the client offers to speak."""

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except OtherVersion:
            await self._send_error_response(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Where hypercorn would go over to HTTP/2."""
        if event.http_version not in (b"1.0", b"1.1"):
            raise OtherVersion


class Http1Server(TCPServer):
    """One connection."""

    async def run(self) -> None:
        """As hypercorn's, with the one protocol. The caller closes the stream."""
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
                await self._read_data()
        except OSError:
            pass  # the client has gone
        finally:
            await self._close()
