"""HTTP requests, read by httptools as they come: opening handshakes of WebSockets, and plain ones."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

import httptools

from server.realtime.handshake import HUB_PATH
from server.runtime.request_ids import HEADER, request_id_of
from server.wire.heads import trouble_in_head

HEAD_BYTES_MAX = 16_384

REQUEST_ID = HEADER.lower().encode()

OVERHEAD = 8
"""How many bytes a body may take on the wire for each of its own: chunks have heads."""

_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""Sixteen bytes in base64."""


class Malformed(Exception):
    """The bytes are not an HTTP request that is taken here. `status` is the answer to it."""

    def __init__(self, why: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(why)
        self.status = status


class NoHandshake(Exception):
    """The request is no opening handshake of a WebSocket."""


class TooLarge(Exception):
    """The body is larger than allowed."""


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. Names of headers are in lower case; `rest` are the bytes that follow a request to
    switch protocols."""

    method: str
    target: str
    version: str
    headers: Mapping[bytes, list[bytes]]
    body: bytes
    keep_alive: bool
    rest: bytes = b""

    @property
    def size(self) -> int:
        """What it holds, in bytes."""
        headers = sum(len(name) + sum(map(len, values)) for name, values in self.headers.items())
        return len(self.target) + headers + len(self.body)

    @property
    def asks_for_websocket(self) -> bool:
        return any(value.lower() == b"websocket" for value in self.headers.get(b"upgrade", ()))

    @property
    def for_hub(self) -> bool:
        return self.target.startswith(HUB_PATH)

    def header(self, name: bytes) -> str | None:
        """A header's values, joined by commas; None without one."""
        return _joined(self.headers, name)

    def request_id(self) -> str:
        """As the client has sent it, or a new one."""
        return request_id_of(self.header(REQUEST_ID))


@dataclass(frozen=True, slots=True)
class Head:
    """A valid handshake. `forwarded_for` is all X-Forwarded-For headers, joined by commas."""

    target: str
    key: bytes
    host: str
    origin: str | None
    forwarded_for: str | None
    subprotocols: tuple[str, ...]
    authorization: str | None = None


class RequestReader:
    """Takes bytes, gives the requests in them. Must be closed: the parser calls back, and what refers to
    itself in a circle would be left to the garbage collector, for every handshake of a node.

    Args:
        body_bytes_max: bound of a body.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_body_bytes_max",
        "_expects",
        "_headed",
        "_headers",
        "_parser",
        "_refused",
        "_requests",
        "_size",
        "_target",
        "_too_large",
        "_trouble",
    )

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        self._size = 0
        """Bytes since the end of the last request."""
        self._begun = False
        """Whether a request has begun that is not whole. Blank lines before one begin nothing."""
        self._too_large = False
        self._trouble: HTTPStatus | None = None
        """What is wrong with a head that could be read."""
        self._refused: dict[bytes, list[bytes]] | None = None
        """The headers of the first request that is not taken, for this or as too large."""
        self._expects = False
        self._forget()

    def _forget(self) -> None:
        self._target = b""
        self._headers: dict[bytes, list[bytes]] = {}
        self._headed = False
        self._body = b""

    def __len__(self) -> int:
        """Whole requests that wait to be taken."""
        return len(self._requests)

    @property
    def waiting_bytes(self) -> int:
        """What they hold."""
        return sum(request.size for request in self._requests)

    @property
    def first(self) -> Request:
        """The oldest whole request, left where it is."""
        return self._requests[0]

    @property
    def between(self) -> bool:
        """Whether no request has begun that is not whole."""
        return not self._begun

    def feed(self, data: bytes) -> None:
        """Nothing more is understood after an error or an upgrade. Raises Malformed, TooLarge."""
        parser = self._parser
        assert parser is not None
        if self._requests and self._requests[-1].asks_for_websocket:
            raise Malformed("more before the answer to a handshake")
        self._size += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            raise Malformed(str(error)) from None
        if self._trouble is not None:
            raise Malformed("a head that is not taken", self._trouble)
        if self._too_large:
            raise TooLarge
        if self._size == 0:
            return
        most = HEAD_BYTES_MAX if self._begun else len(b"\r\n")
        if self._headed:
            most += OVERHEAD * self._body_bytes_max
        if self._size > most:
            # The parser would pass over any number of blank lines; one may come before a request.
            headless = self._begun and not self._headed
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if headless else HTTPStatus.BAD_REQUEST
            raise Malformed("no end, or no beginning", status)

    def request_id(self) -> str:
        """That of the request that is not taken, or not whole, as the client has sent it, or a new one."""
        return request_id_of(_joined(self._refused or self._headers, REQUEST_ID))

    def close(self) -> None:
        """Read no more requests. Those that were read can still be taken."""
        self._parser = None

    def pop(self) -> Request | None:
        """The oldest whole request, or None."""
        return self._requests.popleft() if self._requests else None

    def take_expectation(self) -> bool:
        """Whether the client waits to be told that it may send the body. True once for a request."""
        expects, self._expects = self._expects and not self._requests, False
        return expects

    def _upgrade(self, rest: bytes) -> None:
        """Whoever asks for something else than a WebSocket is served as if they had not: that is allowed, and
        what some clients offer with every request."""
        request = self._requests[-1]
        self._size = 0
        if request.body:
            raise Malformed("a body before an upgrade")  # where it ends, the parser does not tell reliably
        if request.asks_for_websocket:
            self._requests[-1] = replace(request, keep_alive=False, rest=rest)
        elif rest:
            self._parser = httptools.HttpRequestParser(self)
            self.feed(rest)

    # -- called by httptools ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.lower(), []).append(value)

    def on_headers_complete(self) -> None:
        self._headed = True
        assert self._parser is not None
        version = self._parser.get_http_version()
        self._trouble = self._trouble or trouble_in_head(version, self._target, self._headers)
        length = self._headers.get(b"content-length", (b"0",))[0]
        self._too_large = self._too_large or (length.isdigit() and int(length) > self._body_bytes_max)
        self._expects = b"expect" in self._headers
        self._note_refusal()

    def on_body(self, body: bytes) -> None:
        self._body += body
        self._too_large = self._too_large or len(self._body) > self._body_bytes_max
        self._note_refusal()

    def _note_refusal(self) -> None:
        if self._refused is None and (self._trouble is not None or self._too_large):
            self._refused = self._headers

    def on_message_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self._requests.append(
            Request(
                parser.get_method().decode("latin-1"),
                self._target.decode("latin-1"),
                parser.get_http_version(),
                self._headers,
                self._body,
                parser.should_keep_alive(),
            )
        )
        self._size = 0
        self._begun = False
        self._expects = False
        self._forget()


def read_handshake(request: Request) -> Head:
    """What an opening handshake says (RFC 6455, 4.2.1). Raises NoHandshake."""
    headers = request.headers
    if request.method != "GET" or request.version != "1.1":
        raise NoHandshake("not GET of HTTP/1.1")
    if b"transfer-encoding" in headers or headers.get(b"content-length", [b"0"]) != [b"0"]:
        raise NoHandshake("a handshake has no body")
    if _one(headers, b"upgrade").lower() != b"websocket" or not _asks_to_upgrade(headers):
        raise NoHandshake("no upgrade to websocket")
    if _one(headers, b"sec-websocket-version") != b"13":
        raise NoHandshake("another version")
    key = _one(headers, b"sec-websocket-key")
    if not _KEY.fullmatch(key):
        raise NoHandshake("no key")
    host, protocols = _one(headers, b"host"), b",".join(headers.get(b"sec-websocket-protocol", []))
    if not (host.isascii() and protocols.isascii() and request.target.isascii()):
        raise NoHandshake("not ASCII")
    return Head(
        target=request.target,
        key=key,
        host=host.decode(),
        origin=request.header(b"origin"),
        forwarded_for=request.header(b"x-forwarded-for"),
        subprotocols=tuple(each.strip() for each in protocols.decode().split(",") if each.strip()),
        authorization=request.header(b"authorization"),
    )


def _joined(headers: Mapping[bytes, list[bytes]], name: bytes) -> str | None:
    values = headers.get(name)
    return b",".join(values).decode("latin-1") if values else None


def _one(headers: Mapping[bytes, list[bytes]], name: bytes) -> bytes:
    values = headers.get(name, [])
    if len(values) != 1:
        raise NoHandshake(f"{len(values)} times {name.decode()}")
    return values[0]


def _asks_to_upgrade(headers: Mapping[bytes, list[bytes]]) -> bool:
    tokens = b",".join(headers.get(b"connection", [])).lower().split(b",")
    return b"upgrade" in [token.strip() for token in tokens]
