"""Routes for operators of the node."""

from __future__ import annotations

from collections.abc import Iterator

from server.http.addresses import ws_url
from server.http.metrics import CONTENT_TYPE, Metrics
from server.http.responses import Answer, body_answer, json_answer
from server.http.services import Services
from server.wire.api import operations as types
from server.wire.api.live import State


class Operations:
    """Args:
    document: what describes the API, as JSON.
    """

    def __init__(self, services: Services, metrics: Metrics, document: bytes) -> None:
        self._services = services
        self._metrics = metrics
        self._document = document

    async def healthz(self) -> Answer:
        """That this is answered at all says that the loop turns."""
        return json_answer(types.Health("alive", self._services.version, ws_url(self._services, None)))

    async def readyz(self) -> Answer:
        """Whether the node is ready. A node that acknowledges from its spool is ready, because no other node
        knows its sessions. The answer waits for nothing, so it comes at once, whatever hangs."""
        reasons, degraded = readiness(self._services)
        return json_answer(types.Readiness(not reasons, reasons, degraded), 503 if reasons else 200)

    async def metrics(self) -> Answer:
        return body_answer(self._metrics.exposition(), CONTENT_TYPE)

    async def openapi(self) -> Answer:
        return body_answer(self._document, "application/json")


def readiness(services: Services) -> tuple[list[str], list[str]]:
    """Why the node cannot take work, and what does not work although it can. Waits for nothing."""
    journal = services.journal
    reasons: list[str] = []
    degraded: list[str] = []
    if (problem := journal.database_problem()) is not None:
        (degraded if journal.acknowledges_without_postgres() else reasons).append(problem)
    spooling = journal.statistics().spooling
    if spooling is not None and spooling.active:
        degraded.append(f"facts go by way of the spool, which holds {spooling.facts}")
    if (full := journal.why_full()) is not None:
        reasons.append(full)
    if services.cluster is not None and services.cluster.draining():
        reasons.append("the node is draining: its sessions go to the others")
    return reasons, degraded


def components(services: Services) -> Iterator[tuple[str, State, str]]:
    """The name of each dependency, its state, and what that means in a sentence. Waits for nothing."""
    journal, cluster = services.journal, services.cluster
    problem = journal.database_problem()
    spooling = journal.statistics().spooling
    away: State = "degraded" if journal.acknowledges_without_postgres() else "down"
    yield "postgresql", "ok" if problem is None else away, problem or ""
    if spooling is not None:
        active = spooling.active
        detail = f"facts go by way of the spool, which holds {spooling.facts}" if active else ""
        yield "spool", "degraded" if active else "ok", detail
    if cluster is not None:
        up = cluster.redis_up()
        yield "redis", "ok" if up else "degraded", "" if up else "Redis does not answer"
