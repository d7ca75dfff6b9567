"""What is wrong with the head of a request, though it could be read: the same on both ports.

Two parsers read them, h11 and httptools. Where one takes what the other does not, and both may (a bare LF, a
folded header, blank lines before a request), docs/protocol.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson

ONCE = (b"host", b"authorization", b"content-type", b"origin", b"last-event-id")
"""Headers that decide something, and of which two would say two things."""

_WORDS: Mapping[int, str] = {
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The head of the request is too large.",
    HTTPStatus.NOT_IMPLEMENTED: "A body comes with Content-Length, or with Transfer-Encoding: chunked alone.",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "Only HTTP/1.1 and HTTP/1.0 are spoken here.",
}
_NO_REQUEST = "This is no HTTP request that is taken here, or says in two ways what is said once."


def words_of(status: int) -> str:
    """Why a request is answered with this status that was refused before anything looked at what it asks."""
    return _WORDS.get(status, _NO_REQUEST)


def body_of(status: int) -> bytes:
    """The body of that answer."""
    return orjson.dumps({"error": {"code": "bad_message", "message": words_of(status)}})


def trouble_in_head(
    version: str, target: bytes, headers: Mapping[bytes, Sequence[bytes]]
) -> HTTPStatus | None:
    """The status to refuse a request with; None for a good one. Args: headers: by lower-case name."""
    if version not in ("1.0", "1.1"):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    encodings = headers.get(b"transfer-encoding")
    if encodings:
        if b"content-length" in headers:
            # A body with two lengths is one to a proxy and another one here (RFC 9112, 6.1).
            return HTTPStatus.BAD_REQUEST
        if len(encodings) > 1 or encodings[0].lower() != b"chunked":
            return HTTPStatus.NOT_IMPLEMENTED
    if version == "1.1" and b"host" not in headers:
        return HTTPStatus.BAD_REQUEST
    if any(len(headers.get(name, ())) > 1 for name in ONCE) or not target.startswith(b"/"):
        return HTTPStatus.BAD_REQUEST
    return None
