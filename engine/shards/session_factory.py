"""New sessions: a free code, and an id that falls to the node whose turn it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from engine.actors.clock import Clock
from engine.actors.refusals import NodeFull
from engine.domain.settings import Settings
from engine.ports import CodeTaken, QuizCatalog, QuizNotFound, SessionRecord, SessionStore
from engine.shards.membership import MembershipView

CODE_TRIES = 20

DEALS_PER_NODE = 10
"""How many ids are tried for each node of the ring. After that an id of another node's shard is taken."""


class SessionFactory:
    """Stores new sessions, which have no owner yet.

    Args:
        new_id, new_code: sources of fresh session ids and six-digit codes.
    """

    def __init__(
        self,
        catalog: QuizCatalog,
        store: SessionStore,
        members: MembershipView,
        clock: Clock,
        new_id: Callable[[], str],
        new_code: Callable[[], str],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._members = members
        self._clock = clock
        self._new_id = new_id
        self._new_code = new_code
        self._dealt: dict[str, int] = {}
        self._dealt_for: int | None = None

    async def store(
        self,
        quiz_id: str,
        settings: Settings,
        version: int | None = None,
        may_take: Callable[[str], bool] = lambda session_id: True,  # noqa: ARG005 - any id will do
        owner_id: str | None = None,
    ) -> SessionRecord:
        """Store a new session of the author `owner_id` under a free code. `may_take` tells whether there is
        room for the session with this id.

        Raises QuizNotFound, NodeFull, StorageUnavailable.
        """
        stored = await self._catalog.get(quiz_id, version)
        if stored.deleted:
            raise QuizNotFound(quiz_id)
        for _ in range(CODE_TRIES):
            session_id = self.deal_id(settings.player_limit)
            if not may_take(session_id):
                raise NodeFull
            record = SessionRecord(
                id=session_id,
                code=self._new_code(),
                quiz_id=stored.id,
                quiz_version=stored.version,
                settings=settings,
                created_at=self._clock.now_ms(),
                owner_id=owner_id,
            )
            with suppress(CodeTaken):
                await self._store.create(record)
                return record
        raise NodeFull

    def deal_id(self, players: int) -> str:
        """An id for a new session of so many players, such that each node gets its share of the sessions
        created here."""
        ring = self._members.ring
        if ring.generation != self._dealt_for:
            self._dealt_for, self._dealt = ring.generation, dict.fromkeys(ring.nodes, 0)
        if not self._dealt:
            return self._new_id()
        name = min(self._dealt, key=lambda node: (self._dealt[node] + players) / ring.nodes[node])
        self._dealt[name] += players
        for _ in range(DEALS_PER_NODE * len(self._dealt)):
            dealt = self._new_id()
            if ring.owner_of(dealt) == name:
                break
        return dealt
