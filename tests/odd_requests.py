"""Requests that a stranger may send by hand, and that both ports refuse alike."""

from __future__ import annotations

from collections.abc import Mapping

BODY = b'{"id":"a","question":1,"choice":0}'
_CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
_JSON = b"Content-Type: application/json"
_LENGTH = b"Content-Length: %d" % len(BODY)


def said(
    *lines: bytes,
    body: bytes = BODY,
    target: bytes = b"/api/sessions/123456/answers",
    version: bytes = b"HTTP/1.1",
) -> bytes:
    return b"\r\n".join((b"POST " + target + b" " + version, *lines, b"", b"")) + body


_HOST = b"Host: localhost"
_BEARER = b"Authorization: Bearer x"

ODD: Mapping[str, tuple[bytes, int, str]] = {
    "two bearers": (said(_HOST, _BEARER, _BEARER, _JSON, _LENGTH), 400, "bad_message"),
    "two hosts": (said(_HOST, _HOST, _BEARER, _JSON, _LENGTH), 400, "bad_message"),
    "no host": (said(_BEARER, _JSON, _LENGTH), 400, "bad_message"),
    "two types": (said(_HOST, _BEARER, _JSON, b"Content-Type: text/plain", _LENGTH), 400, "bad_message"),
    "two origins": (said(_HOST, b"Origin: a", b"Origin: b", _JSON, _LENGTH), 400, "bad_message"),
    "two lengths": (said(_HOST, _JSON, _LENGTH, b"Content-Length: 5"), 400, "bad_message"),
    "length and chunks": (
        said(_HOST, _JSON, _LENGTH, b"Transfer-Encoding: chunked", body=_CHUNKED),
        400,
        "bad_message",
    ),
    "a coding below the chunks": (
        said(_HOST, _JSON, b"Transfer-Encoding: gzip, chunked", body=_CHUNKED),
        501,
        "bad_message",
    ),
    "no chunks": (said(_HOST, _JSON, b"Transfer-Encoding: chunked", body=b"zz\r\n"), 400, "bad_message"),
    "another version": (said(_HOST, _BEARER, _JSON, _LENGTH, version=b"HTTP/2.0"), 505, "bad_message"),
    "a whole address": (said(_HOST, _LENGTH, target=b"http://localhost/healthz"), 400, "bad_message"),
    "no path": (said(_HOST, _LENGTH, target=b"*"), 400, "bad_message"),
    "no request": (b"hello\r\n\r\n", 400, "bad_message"),
    "a header without a colon": (said(_HOST, b"Xyz", _LENGTH), 400, "bad_message"),
    "a head without an end": (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000, 431, "bad_message"),
}
