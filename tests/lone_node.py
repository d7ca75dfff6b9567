"""One run of a node, a cluster of one, over whatever storage a test gives it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import trio

from engine.actors.actor import SessionActor
from engine.actors.clock import SessionClock
from engine.actors.options import ActorOptions
from engine.actors.pacing import Pacing
from engine.actors.registry import Registry
from engine.actors.supervisor import RestartPolicy
from engine.actors.tokens import Tokens
from engine.boundary import Boundary
from engine.ports import Journal, QuizCatalog, SessionStore
from engine.shards.lone_node import lone_router
from server.config.config import Config
from tests.keys import session_id


class LoneNode:
    """The registry and the router of a node. Every session is here.

    Args:
        nursery: runs the actors.
        run: of the node.
        numbers: of new sessions, for their ids and codes. Nodes over one store share them.
        options, policy, gone, boundary, pacing: as of `Registry`.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        store: SessionStore,
        catalog: QuizCatalog,
        journal: Journal,
        tokens: Tokens,
        clock: SessionClock,
        run: str = "node",
        options: ActorOptions | None = None,
        policy: RestartPolicy | None = None,
        gone: Callable[[str], bool] | None = None,
        boundary: Boundary | None = None,
        pacing: Pacing | None = None,
        numbers: itertools.count[int] | None = None,
        new_id: Callable[[], str] | None = None,
        new_code: Callable[[], str] | None = None,
    ) -> None:
        made = numbers or itertools.count(1)
        self.registry = Registry(
            nursery,
            store=store,
            catalog=catalog,
            journal=journal,
            tokens=tokens,
            clock=clock,
            owner=run,
            options=options or ActorOptions(),
            policy=policy,
            gone=gone,
            boundary=boundary,
            pacing=pacing,
        )
        self.router = lone_router(
            nursery,
            registry=self.registry,
            store=store,
            catalog=catalog,
            clock=clock,
            me=run,
            new_id=new_id or (lambda: session_id(next(made))),
            new_code=new_code or (lambda: f"{next(made):06}"),
            boundary=boundary,
        )

    async def get(self, key: str) -> SessionActor:
        """The actor of a session."""
        found = await self.router.get(key)
        assert isinstance(found, SessionActor)
        return found


def options_of(config: Config, **more: Any) -> ActorOptions:
    """The options of actors that follow from the settings of a node, as far as tests set them."""
    return ActorOptions(
        joins_per_s=config.joins_per_s,
        seats_per_address_max=config.seats_per_address_max,
        seats_per_address_per_s=config.seats_per_address_per_s,
        **more,
    )
