"""From a request to an open WebSocket, whether it is the first of its connection or comes after others."""

from __future__ import annotations

import socket

from engine import websocket
from server.realtime import handshake
from server.realtime.handshake import Admission, Rejection, Upgrade
from server.realtime.reactor.connection import Connection
from server.realtime.reactor.hub_websocket import HubWebSocket
from server.realtime.reactor.port import Port
from server.realtime.reactor.request import NoHandshake, Request, read_handshake
from server.runtime.request_ids import HEADER

GONE = "gone"
"""Handshakes that the client broke off."""

_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


def asks_for_upgrade(request: Request) -> bool:
    """Whether a request is to be judged as a handshake, be it a bad one."""
    return request.asks_for_websocket or request.target.partition("?")[0] == handshake.PATH


def judge(port: Port, peer: str, request: Request) -> Admission | Rejection:
    """Whether the WebSocket may be opened.

    Args:
        peer: the address that the socket shows.
    """
    try:
        head = read_handshake(request)
    except NoHandshake:
        return handshake.BAD_REQUEST
    upgrade = Upgrade(
        peer=peer,
        target=head.target,
        host=head.host,
        origin=head.origin,
        forwarded_for=head.forwarded_for,
        subprotocols=head.subprotocols,
        authorization=head.authorization,
    )
    return handshake.judge(upgrade, port.config, port.deps.pages(), port.deps.connection_tokens)


def open_websocket(
    port: Port, client: socket.socket, admission: Admission, request: Request, join_by: float
) -> bool:
    """Answer the handshake and hand the socket over to a Connection, which keeps its place in the count.
    False if the client is gone; then nothing has changed.

    Args:
        join_by: until when the client must have joined, on trio's clock.
    """
    response = _SWITCH + websocket.accept_key(read_handshake(request).key)
    if admission.subprotocol is not None:
        response += b"\r\nSec-WebSocket-Protocol: " + admission.subprotocol.encode()
    response += b"\r\n%b: %b\r\n\r\n" % (HEADER.encode(), request.request_id().encode())
    try:
        sent = client.send(response)
    except OSError:
        sent = 0
    if sent < len(response):
        # A socket to which nothing waits has room for this, unless the client has gone or the kernel has no
        # memory.
        port.tally.refused[GONE] += 1
        return False
    port.tally.accepted += 1
    if admission.hub is not None and admission.hub.connection_token is not None:
        port.deps.connection_tokens.spend(admission.hub.connection_token)
    connection = (
        Connection(port, client, admission.address, join_by)
        if admission.hub is None
        else HubWebSocket(port, client, admission.address, join_by, admission.hub.access_token)
    )
    if request.rest:
        connection.take(request.rest)
    return True
