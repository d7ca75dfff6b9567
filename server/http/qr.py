"""The address of a session as a picture that phones can read."""

from __future__ import annotations

from io import BytesIO

import segno

from engine.domain.session_keys import is_code
from server.http.addresses import join_url
from server.http.requests import read_query
from server.http.responses import Answer, body_answer
from server.http.services import Services
from server.wire.api.queries import QrQuery
from server.wire.errors import ApiError

QUIET_ZONE = 4
"""Modules of white on every side, as many as the standard wants."""

HEADERS = {"Cache-Control": "public, max-age=3600"}


class QrCode:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self) -> Answer:
        """A QR code for any session code. It is not looked up, so sessions cannot be searched for here."""
        code = read_query(QrQuery).code
        if not is_code(code):
            raise ApiError("bad_field", "code must be the six digits of a session's code.", "code")
        address = join_url(self._services, code)
        if address is None:
            raise ApiError("bad_message", "The Host header does not say how this node is reached.")
        return body_answer(svg_of(address), "image/svg+xml", headers=HEADERS)


def svg_of(text: str) -> bytes:
    """Black on white, scalable."""
    written = BytesIO()
    segno.make_qr(text, error="m").save(
        written,
        kind="svg",
        border=QUIET_ZONE,
        dark="#000",
        light="#fff",
        xmldecl=False,
        omitsize=True,
        svgclass=None,
        lineclass=None,
        nl=False,
    )
    return written.getvalue()
