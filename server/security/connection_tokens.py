"""The ids of hub connections: what negotiation hands out, and any node of the cluster knows again.

A connection token carries no right: its bearer may speak, and has still to join. The signature proves that a
node of the cluster has issued it, and when. It opens one connection, and is nobody's once that is over: the
node that it was used at remembers it for as long as it could be used. No node stores what was only issued: a
client need not come back to the node that issued it.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from engine.actors.clock import wall_clock_ms

SIGNATURE_BYTES = 16
CONNECTION_TOKEN_CHARS_MAX = 128

LIFE_S = 60
"""How long after it was issued a token opens a connection; clients do that at once."""

SPENT_MAX = 50_000
"""Used tokens that are remembered, at most."""


class Negotiated(NamedTuple):
    """`connection_id` is public, `connection_token` the client's secret."""

    connection_id: str
    connection_token: str


class ConnectionTokens:
    """Args:
    secret: every node of a cluster has the same.
    now_ms: the clock; those of two nodes may differ by as much as a token lives.
    """

    def __init__(self, secret: bytes, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._key = hmac.digest(secret, b"fanfare hub", "sha256")
        self._now_ms = now_ms
        self._spent: OrderedDict[str, int] = OrderedDict()
        """Used tokens in the order of their use, and when that was, in seconds."""

    def issue(self) -> Negotiated:
        token_id = f"{self._now_s():x}-{secrets.token_urlsafe(16)}"
        return Negotiated(secrets.token_urlsafe(16), f"{token_id}.{self._signature(token_id)}")

    def knows(self, token: str) -> bool:
        """Whether a node of this cluster has issued the token, and no connection was opened by it here."""
        if len(token) > CONNECTION_TOKEN_CHARS_MAX or not token.isascii():
            return False
        token_id, _, signature = token.partition(".")
        if not hmac.compare_digest(signature, self._signature(token_id)):
            return False
        issued_s = int(token_id.partition("-")[0], 16)
        return abs(self._now_s() - issued_s) <= LIFE_S and token not in self._spent

    def spend(self, token: str) -> None:
        """A connection is opened by it."""
        now_s = self._now_s()
        self._spent[token] = now_s
        # Issued by a clock that is ahead, it could be used for twice its life.
        while len(self._spent) > SPENT_MAX or next(iter(self._spent.values())) < now_s - 2 * LIFE_S:
            self._spent.popitem(last=False)

    def _now_s(self) -> int:
        return self._now_ms() // 1000

    def _signature(self, token_id: str) -> str:
        digest = hmac.digest(self._key, token_id.encode(), "sha256")[:SIGNATURE_BYTES]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def random_connection_tokens() -> ConnectionTokens:
    """Tokens that one node alone knows again."""
    return ConnectionTokens(os.urandom(32))
