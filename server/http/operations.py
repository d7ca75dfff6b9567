"""Routes for operators of the node."""

from __future__ import annotations

from quart import request

from server.http.addresses import play_url, ws_url
from server.http.authorization import Access
from server.http.metrics import Metrics
from server.http.requests import read_query
from server.http.responses import Answer, body_answer, json_answer
from server.http.services import Services
from server.runtime.health import Component, Health, LastError, rfc3339, worst
from server.wire import asyncapi
from server.wire.api import operations as types
from server.wire.api.queries import NoQuery


class Operations:
    """Args:
    openapi: what describes the API, as JSON.
    """

    def __init__(
        self, services: Services, access: Access, metrics: Metrics, health: Health, openapi: bytes
    ) -> None:
        self._services = services
        self._access = access
        self._metrics = metrics
        self._health = health
        self._openapi = openapi
        asyncapi.prepare()  # at the start, because it would hold the loop

    async def healthz(self) -> Answer:
        """That this is answered at all says that the loop turns."""
        return json_answer(types.Health("alive", self._services.version, ws_url(self._services, None)))

    async def readyz(self) -> Answer:
        """Whether the node is ready. A node that acknowledges from its spool is ready, because no other node
        knows its sessions. The answer waits for nothing, so it comes at once, whatever hangs."""
        reasons, degraded = readiness(self._services)
        return json_answer(types.Readiness(not reasons, reasons, degraded), 503 if reasons else 200)

    async def health(self) -> Answer:
        """How each component is. Admins also get the texts of errors."""
        author = self._access.author()
        read_query(NoQuery)
        texts = author is not None and author.admin
        components = self._health.read()
        state = worst(each.found.state for each in components)
        body = types.HealthReport(
            state=state,
            at=rfc3339(self._services.clock.now_ms()),
            version=self._services.version,
            components=[_shown(each, texts) for each in components],
        )
        return json_answer(body, 503 if state == "down" else 200)

    async def metrics(self) -> Answer:
        return body_answer(*self._metrics.exposition(request.headers.get("Accept", "")))

    async def openapi(self) -> Answer:
        return body_answer(self._openapi, "application/json")

    async def asyncapi(self) -> Answer:
        return json_answer(asyncapi.document(ws_url(self._services, None), play_url(self._services, None)))


DRAINING = "the node is draining: its sessions go to the others"


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
        reasons.append(DRAINING)
    return reasons, degraded


def _shown(component: Component, texts: bool) -> types.ComponentHealth:
    found, error, latency = component.found, component.last_error, component.found.latency
    return types.ComponentHealth(
        name=found.name,
        node=found.node or None,
        state=found.state,
        since=rfc3339(component.since),
        means=found.means,
        problem=found.problem,
        last_error=None if error is None else _error(error, texts),
        latency=None
        if latency is None
        else types.LastMinute(round(latency.p50_s * 1000, 3), round(latency.p99_s * 1000, 3)),
        days_left=found.days_left,
    )


def _error(error: LastError, texts: bool) -> types.LastError:
    return types.LastError(rfc3339(error.at), error.text if texts else None)
