"""The hub's HTTP: negotiation, and what clients send and ask without a WebSocket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import orjson
import trio

from server.config.config import Config
from server.realtime.handshake import HUB_PATH, NEGOTIATE_PATH
from server.realtime.reactor.hub_poll import HubPoll
from server.realtime.reactor.port import Port
from server.realtime.reactor.request import Request
from server.realtime.reactor.responses import JSON
from server.security.authentication import Caller, one_token
from server.wire.bodies import refuse_coded
from server.wire.errors import ApiError, method_not_allowed, too_many_streams
from server.wire.hub import negotiated, redirect, version_of
from server.wire.sse import EVENT_STREAM

TRANSPORTS = ("WebSockets", "ServerSentEvents", "LongPolling")

_NODE_URL = re.compile(r"ws(s?://.*/n/[^/]+/)ws")
"""An address by which one node alone is reached."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewStream:
    """The connection is to become an event stream."""

    token: str
    access_token: str | None


def serve(port: Port, address: str, caller: Caller, request: Request) -> Answer | HubPoll | NewStream:
    """What becomes of a request to the hub: it is answered, waits for something to be said, or becomes a
    stream. Raises ApiError."""
    path, _, query = request.target.partition("?")
    asked = dict(parse_qsl(query))
    method = request.method
    access_token = one_token(asked.get("access_token"), caller.bearer(), "access_token")
    if path == NEGOTIATE_PATH:
        if method != "POST":
            return _only("POST")
        return Answer(200, orjson.dumps(_negotiate(port, asked, query, access_token)), JSON)
    if path != HUB_PATH:
        raise ApiError("not_found", f"The hub is at {HUB_PATH}, its negotiation at {NEGOTIATE_PATH}.")
    token = asked.get("id", "")
    channel = port.hub_channels.get(token)
    if method == "POST" and channel is not None:
        refuse_coded(request.header(b"content-encoding") or "")
        channel.hear(request.body)
        return Answer(200)
    if method == "DELETE" and isinstance(channel, HubPoll):
        channel.leave()
        return Answer(202)
    if method not in ("GET", "POST", "DELETE"):
        return _only("GET", "POST", "DELETE")
    if method != "GET" or (channel is None and not port.deps.connection_tokens.knows(token)):
        raise ApiError("not_found", "No connection has this id. Negotiate again.")
    streams = EVENT_STREAM in (request.header(b"accept") or "")
    if channel is None:
        if not port.streams.enter(address, trio.current_time()):
            raise too_many_streams()
        port.deps.connection_tokens.spend(token)
        if streams:
            return NewStream(token, access_token)
        HubPoll(port, address, token, access_token)
        return Answer(200)  # the first poll only opens the connection
    if streams or not isinstance(channel, HubPoll):
        return Answer(409)
    return channel


def _only(*methods: str) -> Answer:
    allowed = ", ".join(methods)
    error = method_not_allowed(allowed)
    return Answer(error.status, error.body, {**JSON, "Allow": allowed})


def _negotiate(
    port: Port, asked: Mapping[str, str], query: str, access_token: str | None
) -> dict[str, object]:
    url = node_url(port.config)
    if url is not None and asked.get("node") != port.config.node:
        # Transports without a WebSocket need several requests, which have to come to one node.
        return redirect(f"{url}?node={port.config.node}", access_token)
    transports = TRANSPORTS if url is not None or port.config.redis_url is None else TRANSPORTS[:1]
    return negotiated(version_of(query), *port.deps.connection_tokens.issue(), transports)


def node_url(config: Config) -> str | None:
    """The hub's address on this node alone, if there is one."""
    found = _NODE_URL.fullmatch(config.public_ws_url or "")
    return None if found is None else f"http{found[1]}hub"
