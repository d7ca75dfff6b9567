"""Whether an opening handshake is accepted, the same for every transport. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl

from server.config.config import Config
from server.runtime.request_ids import HEADER
from server.security.authentication import bearer_of, differ
from server.security.client_address import client_address, origin_allowed
from server.security.connection_tokens import ConnectionTokens
from server.wire.heads import words_of
from server.wire.protocol import SUBPROTOCOL

PATH = "/ws"

HUB_PATH = "/hub"
"""Where clients of SignalR come in."""

NEGOTIATE_PATH = f"{HUB_PATH}/negotiate"

RETRY_AFTER_S = {HTTPStatus.SERVICE_UNAVAILABLE: 3, HTTPStatus.TOO_MANY_REQUESTS: 10}


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request to open a WebSocket. `peer` is the address that the socket shows; `target` the path with
    its query; `forwarded_for` all X-Forwarded-For headers, joined by commas."""

    peer: str
    target: str
    host: str | None = None
    origin: str | None = None
    forwarded_for: str | None = None
    subprotocols: tuple[str, ...] = ()
    authorization: str | None = None


@dataclass(frozen=True, slots=True)
class HubEntry:
    """How a client came to the hub. `access_token` is what it shows there, good or not; None without one.
    `connection_token` is what it has negotiated, and None if it skipped that."""

    access_token: str | None
    connection_token: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Come in. `address` is the client's; `subprotocol` what to confirm, if anything. `hub` is None but for a
    client of the hub."""

    address: str
    subprotocol: str | None
    hub: HubEntry | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Stay out. `code` and `message` are as in an `error` of the protocol."""

    status: HTTPStatus
    code: str
    message: str

    def headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [(b"Content-Type", b"application/json"), (b"Connection", b"close")]
        headers.append((HEADER.encode(), request_id.encode()))
        if self.status in RETRY_AFTER_S:
            headers.append((b"Retry-After", b"%d" % RETRY_AFTER_S[self.status]))
        return headers

    @property
    def body(self) -> bytes:
        return json.dumps({"error": {"code": self.code, "message": self.message}}).encode()

    def response(self, request_id: str) -> bytes:
        """The whole HTTP response, for transports without an HTTP library."""
        head = [f"HTTP/1.1 {self.status.value} {self.status.phrase}".encode()]
        head += [name + b": " + value for name, value in self.headers(request_id)]
        head.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(head) + b"\r\n\r\n" + self.body


OVERLOADED = Rejection(
    HTTPStatus.SERVICE_UNAVAILABLE, "busy", "The node is full. Try again in a moment, after a random pause."
)
SHUTTING_DOWN = Rejection(
    HTTPStatus.SERVICE_UNAVAILABLE, "busy", "The node is going down. Try again in a moment."
)
CROWDED = Rejection(
    HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_connections",
    "This address has as many connections as it may. Close some, or try again later.",
)
BAD_REQUEST = Rejection(
    HTTPStatus.BAD_REQUEST, "bad_message", "This is neither a WebSocket handshake nor a request."
)
TOO_LARGE = Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "The body is too large.")
TOO_LATE = Rejection(HTTPStatus.REQUEST_TIMEOUT, "join_timeout", "The handshake took too long.")
NOT_FOUND = Rejection(
    HTTPStatus.NOT_FOUND, "not_found", f"The WebSocket is at {PATH}, the hub at {HUB_PATH}."
)
NO_CONNECTION = Rejection(
    HTTPStatus.NOT_FOUND, "not_found", "No connection has this id. Negotiate again, or leave the id out."
)
ORIGIN_REFUSED = Rejection(
    HTTPStatus.FORBIDDEN, "origin_refused", "Pages of this origin may not use this node."
)
SUBPROTOCOL_REFUSED = Rejection(
    HTTPStatus.BAD_REQUEST, "subprotocol_refused", f"The one subprotocol spoken here is {SUBPROTOCOL}."
)
HUB_SUBPROTOCOL_REFUSED = Rejection(
    HTTPStatus.BAD_REQUEST, "subprotocol_refused", "The hub speaks no subprotocol: ask for none."
)
TWO_TOKENS = Rejection(
    HTTPStatus.BAD_REQUEST, "bad_field", "access_token is not the bearer's token. Send one of them."
)


def unreadable(status: HTTPStatus) -> Rejection:
    """What was said is no request that is taken here."""
    return Rejection(status, "bad_message", words_of(status))


def judge(
    upgrade: Upgrade,
    config: Config,
    pages: Iterable[str] = (),
    connection_tokens: ConnectionTokens | None = None,
) -> Admission | Rejection:
    """Whether this client may come in. `pages` are the addresses of all nodes; `connection_tokens` are
    those of the hub, without which it is not there."""
    path, _, query = upgrade.target.partition("?")
    if path not in (PATH, HUB_PATH) or (path == HUB_PATH and connection_tokens is None):
        return NOT_FOUND
    if not origin_allowed(
        upgrade.origin, upgrade.host, config.http_port, config.public_url, config.allowed_origins, pages
    ):
        return ORIGIN_REFUSED
    address = client_address(upgrade.peer, upgrade.forwarded_for, config.proxy_hops)
    if path == HUB_PATH:
        assert connection_tokens is not None
        asked = dict(parse_qsl(query))
        if upgrade.subprotocols:
            return HUB_SUBPROTOCOL_REFUSED
        if "id" in asked and not connection_tokens.knows(asked["id"]):
            return NO_CONNECTION
        access_token, bearer = asked.get("access_token"), bearer_of(upgrade.authorization)
        if differ(access_token, bearer):
            return TWO_TOKENS
        return Admission(address, None, HubEntry(access_token or bearer, asked.get("id")))
    if upgrade.subprotocols and SUBPROTOCOL not in upgrade.subprotocols:
        return SUBPROTOCOL_REFUSED
    return Admission(address, SUBPROTOCOL if upgrade.subprotocols else None)
