"""Settings that contradict each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.config.config import Config


def contradictions(config: Config, *, on_linux: bool) -> Iterator[tuple[str, str, str]]:
    """The settings that cannot be so beside others: the key, the other, and what is wrong."""
    yield from _of_transports(config, on_linux)
    if config.tick_max_ms < config.tick_ms:
        problem = f"{config.tick_max_ms} is less than tick_ms, which is {config.tick_ms}"
        yield "tick_max_ms", "with tick_ms", problem
    if config.redis_url is None and config.role != "both":
        yield "role", "without redis_url", f"a node that is alone is both, not {config.role}"
    for needed, why in (
        ("secret", "the nodes of a cluster share one"),
        ("database_url", "the nodes of a cluster share one PostgreSQL"),
    ):
        if config.redis_url is not None and getattr(config, needed) is None:
            yield needed, "with redis_url", f"is missing; {why}"
    if config.http_port == config.realtime_port != 0:
        problem = f"both are {config.http_port}; the WebSocket listener needs a port of its own"
        yield "realtime_port", "with http_port", problem
    yield from _of_identities(config)
    for given, needed in (
        ("oidc_issuer", "oidc_client_id"),
        ("oidc_client_id", "oidc_issuer"),
        ("oidc_client_secret_file", "oidc_issuer"),
    ):
        if getattr(config, given) is not None and getattr(config, needed) is None:
            yield needed, f"with {given}", "is missing; authors sign in with both"


def _of_transports(config: Config, on_linux: bool) -> Iterator[tuple[str, str, str]]:
    if (config.tls_cert is None) != (config.tls_key is None):
        missing, given = ("tls_cert", "tls_key") if config.tls_cert is None else ("tls_key", "tls_cert")
        yield missing, f"with {given}", "is missing; TLS needs the certificate and its key"
    if config.transport == "reactor" and config.tls_cert is not None:
        yield "transport", "with tls_cert", "the reactor has no TLS in this process; trio-websocket has"
    if config.transport == "reactor" and not on_linux:
        yield "transport", f"on {sys.platform}", "the reactor needs Linux; trio-websocket does not"


def _of_identities(config: Config) -> Iterator[tuple[str, str, str]]:
    if config.identity == "off":
        for key in ("identity_jwks", "identity_secret", "identity_issuer", "identity_audience"):
            if getattr(config, key) is not None:
                yield key, "with identity", "is of no use: identity is off; optional or required is meant"
    elif config.identity_jwks is None and config.identity_secret is None:
        yield "identity", "without keys", "needs identity_jwks or identity_secret to check tokens with"
