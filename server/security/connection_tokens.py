"""The ids of hub connections: what negotiation hands out, and any node of the cluster knows again.

A connection token carries no right: its bearer may speak, and has still to join. The signature proves that a
node of the cluster has issued it. No node stores it: a client need not come back to the node that issued it.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from typing import NamedTuple

SIGNATURE_BYTES = 16
CONNECTION_TOKEN_CHARS_MAX = 128


class Negotiated(NamedTuple):
    """`connection_id` is public, `connection_token` the client's secret."""

    connection_id: str
    connection_token: str


class ConnectionTokens:
    """Args: secret: every node of a cluster has the same."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"fanfare hub", "sha256")

    def issue(self) -> Negotiated:
        token_id = secrets.token_urlsafe(16)
        return Negotiated(secrets.token_urlsafe(16), f"{token_id}.{self._signature(token_id)}")

    def knows(self, token: str) -> bool:
        """Whether a node of this cluster has issued the token."""
        if len(token) > CONNECTION_TOKEN_CHARS_MAX or not token.isascii():
            return False
        token_id, _, signature = token.partition(".")
        return hmac.compare_digest(signature, self._signature(token_id))

    def _signature(self, token_id: str) -> str:
        digest = hmac.digest(self._key, token_id.encode(), "sha256")[:SIGNATURE_BYTES]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def random_connection_tokens() -> ConnectionTokens:
    """Tokens that one node alone knows again."""
    return ConnectionTokens(os.urandom(32))
