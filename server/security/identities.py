"""The reader of identity tokens that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from engine.actors.clock import Clock
from engine.boundary import Boundary
from server.config.config import Config
from server.security.identity import Demand, Identities
from server.security.key_ring import KeyRing, loader


def open_identities(
    config: Config, clock: Clock, boundary: Boundary | None = None
) -> tuple[Identities, KeyRing | None]:
    """The reader, and the keys that it needs, whose `run` must be running; None if it needs none."""
    ring = None if config.identity_jwks is None else KeyRing(loader(config.identity_jwks), boundary)
    identities = Identities(
        cast(Demand, config.identity),
        clock,
        secret=config.identity_secret,
        keys=ring,
        issuer=config.identity_issuer,
        audience=config.identity_audience,
        leeway_s=config.identity_leeway_s,
    )
    return identities, ring


def identity_words(config: Config) -> Sequence[str]:
    """What must be the same on all nodes of a cluster. Where a file lies is the business of each."""
    source = config.identity_jwks or ""
    return (
        config.identity,
        source if "://" in source else "a file" if source else "",
        *(each or "" for each in (config.identity_secret, config.identity_issuer, config.identity_audience)),
    )
