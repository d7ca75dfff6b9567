"""The head of an opening handshake, read by httptools as it comes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

BYTES_MAX = 16_384

_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""Sixteen bytes in base64."""


class NoHandshake(Exception):
    """What came is no opening handshake of a WebSocket."""


@dataclass(frozen=True, slots=True)
class Head:
    """A valid handshake. `rest` is what came behind it already; `forwarded_for` all X-Forwarded-For headers,
    joined by commas."""

    target: str
    key: bytes
    host: str
    origin: str | None
    forwarded_for: str | None
    subprotocols: tuple[str, ...]
    rest: bytes


class HeadReader:
    """Takes bytes until the head is whole. To be thrown away then, or after an error."""

    __slots__ = ("_begun", "_headers", "_parser", "_size", "_target", "_whole")

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[bytes, list[bytes]] = {}
        self._target = b""
        self._whole = False
        self._size = 0
        self._begun = False

    def feed(self, data: bytes) -> Head | None:
        """The head, or None when more is needed. Raises NoHandshake."""
        rest = b""
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise NoHandshake(str(error)) from None
        if self._whole:
            return self._read(rest)
        self._begun = self._begun or bool(data.strip(b"\r\n"))
        if self._size > (BYTES_MAX if self._begun else len(b"\r\n")):
            # The parser would pass over any number of blank lines; one may come before a request.
            raise NoHandshake("no end, or no beginning")
        return None

    # -- called by httptools ---------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.lower(), []).append(value)

    def on_headers_complete(self) -> None:
        self._whole = True

    # -- inside ----------------------------------------------------------------------------------

    def _read(self, rest: bytes) -> Head:
        parser, headers = self._parser, self._headers
        if parser.get_method() != b"GET" or parser.get_http_version() != "1.1":
            raise NoHandshake("not GET of HTTP/1.1")
        if b"transfer-encoding" in headers or headers.get(b"content-length", [b"0"]) != [b"0"]:
            raise NoHandshake("a handshake has no body")
        if self._one(b"upgrade").lower() != b"websocket" or not self._asks_to_upgrade():
            raise NoHandshake("no upgrade to websocket")
        if self._one(b"sec-websocket-version") != b"13":
            raise NoHandshake("another version")
        key = self._one(b"sec-websocket-key")
        if not _KEY.fullmatch(key):
            raise NoHandshake("no key")
        host, protocols = self._one(b"host"), b",".join(headers.get(b"sec-websocket-protocol", []))
        if not (host.isascii() and protocols.isascii() and self._target.isascii()):
            raise NoHandshake("not ASCII")
        return Head(
            target=self._target.decode(),
            key=key,
            host=host.decode(),
            origin=self._joined(b"origin"),
            forwarded_for=self._joined(b"x-forwarded-for"),
            subprotocols=tuple(each.strip() for each in protocols.decode().split(",") if each.strip()),
            rest=rest,
        )

    def _one(self, name: bytes) -> bytes:
        values = self._headers.get(name, [])
        if len(values) != 1:
            raise NoHandshake(f"{len(values)} times {name.decode()}")
        return values[0]

    def _joined(self, name: bytes) -> str | None:
        values = self._headers.get(name)
        return b",".join(values).decode("latin-1") if values else None

    def _asks_to_upgrade(self) -> bool:
        tokens = b",".join(self._headers.get(b"connection", [])).lower().split(b",")
        return b"upgrade" in [token.strip() for token in tokens]
